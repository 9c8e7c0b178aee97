/*
 * Runs the inputs that are named on the command line.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness.h"

#define MAX_INPUT (1 << 20)

int
main(int argc, char **argv)
{
    uint8_t *input = malloc(MAX_INPUT);

    strict = true;
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");

        if (file == NULL) {
            perror(argv[i]);
            return 1;
        }
        size_t size = fread(input, 1, MAX_INPUT, file);
        fclose(file);
        fprintf(stderr, "%s\n", argv[i]);
        /* A hang is a failure as well: SIGALRM ends the process. */
        alarm(5);
        LLVMFuzzerTestOneInput(input, size);
    }
    free(input);
    return 0;
}
