// Expected: Memory
// Each process uses less than the limit, which applies to the memory of all processes together.
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    for (int child = 0; child < 8; child++) {
        if (fork() != 0) continue;
        char *block = malloc(24 << 20);
        memset(block, child + 1, 24 << 20);
        pause();
        _exit(block[0]);
    }
    // No child ends by itself.
    wait(NULL);
}
