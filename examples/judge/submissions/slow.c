// Expected: Wall time
// It uses too much CPU time to be idle, and too little to exceed the limit on CPU time.
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
