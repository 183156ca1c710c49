// Expected: Forbidden call (openat)
#include <fstream>

int main() {
    std::ofstream("/out/answer") << "written\n";
}
