// Expected: Compile error
// The compiler exceeds its limits: the program would have a size of 4 GB.
char large[1ull << 32] = {1};

int main() {
    return large[0];
}
