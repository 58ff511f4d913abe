/* Runs a fuzz target over files, for compilers without libFuzzer. */
#include "../fuzz.h"

enum { FILE_LIMIT = 1 << 20 };

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    uint8_t *whole = malloc(FILE_LIMIT);
    uint8_t *exact;
    size_t size;

    if (file == NULL || whole == NULL) {
        fprintf(stderr, "cannot read %s\n", path);
        return 1;
    }
    size = fread(whole, 1, FILE_LIMIT, file);
    fclose(file);
    exact = fuzz_block(size, 0);
    memcpy(exact, whole, size);
    free(whole);
    fprintf(stderr, "%s: %zu bytes\n", path, size);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

int main(int argc, char **argv)
{
    int i;

    for (i = 1; i < argc; i++) {
        if (replay(argv[i]) != 0) {
            return 1;
        }
    }
    return argc > 1 ? 0 : 1;
}
