// Expected: Runtime error (SIGABRT)
#include <vector>

int main() {
    return std::vector<int>().at(0);
}
