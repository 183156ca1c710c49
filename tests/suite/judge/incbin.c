// Expected: Compile error
#include <stdio.h>

__asm__("answer: .incbin \"@ANSWER@\"\n.byte 0");
extern const char answer[];

int main(void) {
    puts(answer);
}
