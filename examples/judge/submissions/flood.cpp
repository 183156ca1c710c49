// Expected: Output
// It writes to standard error.
#include <iostream>

int main() {
    for (;;) std::cerr << "All work and no play makes Jack a dull boy.\n";
}
