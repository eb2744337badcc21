/* The guest that tests drive: its arguments are instructions, carried out in order.
 *
 *   print TEXT    a line on stdout            error TEXT   a line on stderr
 *   part TEXT     the same without newline    env NAME     NAME=value, or "NAME is not set"
 *   args          every argument, one a line  environ      every variable, one a line
 *   line N        a line of N bytes           flood N      N lines of 64 bytes
 *   binary        every byte from 0 to 255    stdin        how many bytes stdin gives
 *   alloc N       N MiB, touched              open PATH    "open" or why it cannot be opened
 *   sleep S       seconds                     spin         for ever
 *   trap, recurse, abort                      exit N       ends with that code
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static int recurse(int depth) {
    volatile char frame[256];
    frame[0] = (char)depth;
    return recurse(depth + 1) + frame[0];
}

static void fill(char *line, size_t size) {
    for (size_t i = 0; i < size; i++)
        line[i] = (char)('a' + i % 26);
}

static void alloc(int mebibytes) {
    size_t size = (size_t)mebibytes << 20;
    char *volatile memory = malloc(size);
    if (memory == NULL) {
        puts("no memory");
        return;
    }
    for (size_t i = 0; i < size; i += 4096)
        memory[i] = 1;
    printf("%d MiB\n", mebibytes);
}

int main(int count, char **words) {
    for (int i = 1; i < count; i++) {
        const char *word = words[i];
        const char *next = i + 1 < count ? words[i + 1] : "";
        if (!strcmp(word, "print")) { puts(next); i++; }
        else if (!strcmp(word, "error")) { fprintf(stderr, "%s\n", next); i++; }
        else if (!strcmp(word, "part")) { fputs(next, stdout); i++; }
        else if (!strcmp(word, "env")) {
            const char *value = getenv(next);
            if (value) printf("%s=%s\n", next, value);
            else printf("%s is not set\n", next);
            i++;
        }
        else if (!strcmp(word, "args")) { for (int j = 0; j < count; j++) puts(words[j]); }
        else if (!strcmp(word, "environ")) { for (char **v = environ; *v; v++) puts(*v); }
        else if (!strcmp(word, "line")) {
            size_t size = (size_t)atol(next);
            char *line = malloc(size + 1);
            fill(line, size);
            line[size] = '\n';
            fwrite(line, 1, size + 1, stdout);
            free(line);
            i++;
        }
        else if (!strcmp(word, "flood")) {
            char line[64];
            fill(line, 63);
            line[63] = '\n';
            for (long n = atol(next); n > 0; n--) fwrite(line, 1, sizeof line, stdout);
            i++;
        }
        else if (!strcmp(word, "binary")) { for (int c = 0; c < 256; c++) putchar(c); }
        else if (!strcmp(word, "stdin")) {
            char buffer[64];
            printf("stdin %zu\n", fread(buffer, 1, sizeof buffer, stdin));
        }
        else if (!strcmp(word, "alloc")) { alloc(atoi(next)); i++; }
        else if (!strcmp(word, "open")) {
            int file = open(next, O_RDONLY);
            puts(file < 0 ? strerror(errno) : "open");
            i++;
        }
        else if (!strcmp(word, "sleep")) { fflush(stdout); sleep((unsigned)atoi(next)); i++; }
        else if (!strcmp(word, "spin")) { fflush(stdout); for (volatile int n = 0;; n++) {} }
        else if (!strcmp(word, "trap")) { fflush(stdout); __builtin_trap(); }
        else if (!strcmp(word, "recurse")) { fflush(stdout); return recurse(1); }
        else if (!strcmp(word, "abort")) { fflush(stdout); abort(); }
        else if (!strcmp(word, "exit")) { exit(atoi(next)); }
        else { fprintf(stderr, "no such instruction: %s\n", word); return 64; }
        fflush(stdout);
    }
    return 0;
}
