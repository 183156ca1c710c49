// Expected: CPU time
// Each process uses little CPU time. The limit applies to all processes together.
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(void) {
    for (;;) {
        if (fork() == 0) {
            while (clock() < CLOCKS_PER_SEC / 20) {
            }
            _exit(0);
        }
        wait(NULL);
    }
}
