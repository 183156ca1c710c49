// Expected: Compile error
int main(void) {
    return 0
}
