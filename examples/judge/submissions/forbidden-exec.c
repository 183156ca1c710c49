// Expected: Forbidden call (execve)
// Processes are allowed, other programs are not, also not to a child.
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    if (fork() == 0) {
        execl("/out/program", "program", (char *)0);
        _exit(1);
    }
    wait(NULL);
}
