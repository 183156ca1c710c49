// Expected: Wrong answer
// It reads no further than the first line.
#include <iostream>
#include <sstream>
#include <string>

int main() {
    std::string line;
    std::getline(std::cin, line);
    std::istringstream numbers(line);
    long long sum = 0, number;
    while (numbers >> number) sum += number;
    std::cout << sum << '\n';
}
