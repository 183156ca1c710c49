// Expected: Forbidden call (execve)
// Creating processes is allowed. Executing another program is not, in a child either.
#include <sys/wait.h>
#include <unistd.h>

int main(void) {
    if (fork() == 0) {
        execl("/out/program", "program", (char *)0);
        _exit(1);
    }
    wait(NULL);
}
