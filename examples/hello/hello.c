/*
 * hello: what a first pod runs. Says what it was given - arguments, environment - one line at a time, and ends.
 *
 *   HELLO_LINES   how many lines to count after the greeting (default 3)
 *   HELLO_PAUSE   milliseconds between lines (default 0), so that `kubectl logs -f` has something to follow
 *   HELLO_EXIT    the exit code (default 0), to see what a pod that fails looks like
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int number(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text && *text ? atoi(text) : otherwise;
}

static void line(int pause) {
    putchar('\n');
    fflush(stdout);
    if (pause > 0) usleep((useconds_t)pause * 1000);
}

int main(int argc, char **argv) {
    int lines = number("HELLO_LINES", 3), pause = number("HELLO_PAUSE", 0);

    fputs("Hello,", stdout);
    for (int i = 1; i < argc; i++) {
        putchar(' ');
        fputs(argv[i], stdout);
    }
    if (argc < 2) fputs(" world", stdout);
    line(pause);

    const char *pod = getenv("POD_NAME"), *node = getenv("NODE_NAME");
    if (pod && node) {
        fputs("I am pod ", stdout);
        fputs(pod, stdout);
        fputs(" on node ", stdout);
        fputs(node, stdout);
        line(pause);
    }

    for (int i = 1; i <= lines; i++) {
        printf("line %d of %d", i, lines);
        line(pause);
    }
    fputs("Bye", stdout);
    line(0);
    return number("HELLO_EXIT", 0);
}
