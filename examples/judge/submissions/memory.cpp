// Expected: Memory
#include <vector>

int main() {
    std::vector<long> numbers;
    for (long number = 0;; number++) numbers.push_back(number);
}
