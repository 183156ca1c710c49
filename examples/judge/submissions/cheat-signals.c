// Expected: CPU time
// Exits with 0 on every signal that a limit could send, with the answer printed before.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static void leave(int signal) {
    _exit(0);
}

int main(void) {
    long long sum = 0, number;
    while (scanf("%lld", &number) == 1) sum += number;
    printf("%lld\n", sum);
    fflush(stdout);
    for (int number = 1; number < 65; number++) signal(number, leave);
    for (;;);
}
