// Expected: Wrong answer
#include <stdio.h>

int main(void) {
    char answer[64] = "";
    FILE *file = fopen("@ANSWER@", "r");
    if (file) fgets(answer, sizeof answer, file);
    puts(answer);
}
