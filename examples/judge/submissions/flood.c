// Expected: Output
#include <stdio.h>

int main(void) {
    for (;;) puts("All work and no play makes Jack a dull boy.");
}
