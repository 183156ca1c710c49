// Expected: Wrong answer
// Computes in a child that outlives the program, to whose end the limits apply.
#include <stdio.h>
#include <unistd.h>

int main(void) {
    if (fork() != 0) return 0;
    usleep(50000);
    long long sum = 0, number;
    while (scanf("%lld", &number) == 1) sum += number;
    printf("%lld\n", sum);
}
