// Expected: Runtime error (exit 3)
#include <cstdlib>

int main() {
    std::exit(3);
}
