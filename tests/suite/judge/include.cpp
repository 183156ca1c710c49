// Expected: Compile error
#include <cstdio>

int main() {
    printf("%d\n",
#include "@ANSWER@"
    );
}
