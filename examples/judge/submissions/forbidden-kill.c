// Expected: Forbidden call (kill)
#include <signal.h>
#include <unistd.h>

int main(void) {
    return kill(getppid(), SIGKILL);
}
