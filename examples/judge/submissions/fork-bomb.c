// Expected: Runtime error (exit 5)
#include <errno.h>
#include <unistd.h>

int main(void) {
    for (;;) {
        pid_t child = fork();
        if (child == 0) pause();
        if (child < 0) return errno == EAGAIN ? 5 : 6;
    }
}
