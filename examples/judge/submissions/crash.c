// Expected: Runtime error (SIGSEGV)
#include <stddef.h>

int main(void) {
    volatile int *nothing = NULL;
    return *nothing;
}
