// What a system call costs: prints for each of some, in nanoseconds, the least time of several blocks.
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 20 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static double least(long calls, long number, long first, long second) {
    double least = 1e9;
    for (int block = 0; block < BLOCKS; block++) {
        double start = now();
        for (long call = 0; call < calls; call++) syscall(number, first, second);
        double each = (now() - start) / calls;
        if (each < least) least = each;
    }
    return least;
}

int main(int argc, char **argv) {
    long calls = argc > 1 ? atol(argv[1]) : 1;
    // No rule, a number in the middle of the table, and a request that rules look at.
    printf("%f %f %f\n", least(calls, SYS_getppid, 0, 0), least(calls, SYS_getpriority, 0, 0),
           least(calls, SYS_ioctl, -1, TCGETS));
    return 0;
}
