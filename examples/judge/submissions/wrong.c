// Expected: Wrong answer
// The sum of the third test is too large for an int.
#include <stdio.h>

int main(void) {
    int number;
    unsigned sum = 0;
    while (scanf("%d", &number) == 1) sum += number;
    printf("%d\n", (int)sum);
}
