// Expected: Compile error
// It is the compiler that exceeds its limits: the program would have 4 GB.
char large[1ull << 32] = {1};

int main() {
    return large[0];
}
