// Expected: Wall time
// It does too much to be idle, and too little to use up its CPU time.
#include <time.h>
#include <unistd.h>

int main(void) {
    for (;;) {
        clock_t end = clock() + 2 * CLOCKS_PER_SEC / 1000;
        while (clock() < end) {
        }
        usleep(250000);
    }
}
