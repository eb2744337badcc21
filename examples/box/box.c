/*
 * box: the small tools that the examples' pods run, in one module. Its arguments are a command and that command's own;
 * the word "then" puts one command after another, as long as they succeed.
 *
 *   cat FILE...           print files                  follow FILE        print a file whenever it changes, for ever
 *   env NAME...           print variables              ls DIR             print the names in a directory, sorted
 *   write FILE WORD...    one line into a file         append FILE WORD...  one line more
 *   say WORD...           print a line                 tick SECONDS WORD...  print a line again and again, for ever
 *   has FILE, lacks FILE  succeed or fail              clear FILE         remove it, if it is there
 *   sleep SECONDS                                      wait FILE          wait until there is something in it
 *   until FILE SECONDS WORD...   print a line again and again, until there is such a file
 *   try FILE N            fail until the Nth time; FILE keeps count
 *   grow MIB              take that much memory        fill FILE MIB      take that much disk
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int fail(const char *what, const char *path) {
    fprintf(stderr, "%s %s: %s\n", what, path, strerror(errno));
    return 1;
}

static int cat(const char *path) {
    char buffer[4096];
    size_t size;
    FILE *file = fopen(path, "r");
    if (!file) return fail("cat", path);
    while ((size = fread(buffer, 1, sizeof buffer, file)) > 0) fwrite(buffer, 1, size, stdout);
    fclose(file);
    fflush(stdout);
    return 0;
}

/* The file's content, ended with a NUL; "" where there is none. */
static void load(const char *path, char *into, size_t room) {
    FILE *file = fopen(path, "r");
    size_t size = file ? fread(into, 1, room - 1, file) : 0;
    into[size] = 0;
    if (file) fclose(file);
}

static int follow(const char *path) {
    static char before[65536], now[65536];
    for (;; usleep(100000)) {
        load(path, now, sizeof now);
        if (strcmp(before, now) == 0) continue;
        strcpy(before, now);
        fputs(now, stdout);
        fflush(stdout);
    }
}

static int line(FILE *file, int count, char **words) {
    for (int i = 0; i < count; i++) fprintf(file, "%s%s", i ? " " : "", words[i]);
    fputc('\n', file);
    return fflush(file);
}

static int put(const char *mode, const char *path, int count, char **words) {
    FILE *file = fopen(path, mode);
    if (!file || line(file, count, words) || fclose(file)) return fail("write", path);
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int ls(const char *path) {
    char *names[256];
    int count = 0;
    struct dirent *entry;
    DIR *directory = opendir(path);
    if (!directory) return fail("ls", path);
    while ((entry = readdir(directory)) && count < 256)
        if (entry->d_name[0] != '.') names[count++] = strdup(entry->d_name);
    closedir(directory);
    qsort(names, (size_t)count, sizeof *names, by_name);
    return line(stdout, count, names);
}

static int env(int count, char **names) {
    for (int i = 0; i < count; i++) printf("%s=%s\n", names[i], getenv(names[i]) ? getenv(names[i]) : "");
    return fflush(stdout);
}

static int try(const char *path, int wanted) {
    char text[32];
    load(path, text, sizeof text);
    int number = atoi(text) + 1;
    char *word = text;
    snprintf(text, sizeof text, "%d", number);
    if (put("w", path, 1, &word)) return 1;
    printf("try %d of %d %s\n", number, wanted, number < wanted ? "failed" : "worked");
    fflush(stdout);
    return number < wanted;
}

static int grow(int mebibytes) {
    for (int have = 0; have < mebibytes; have++) {
        char *volatile more = malloc(1 << 20);
        if (!more) {
            printf("no memory after %d MiB\n", have);
            fflush(stdout);
            abort(); /* as a program does that cannot go on */
        }
        memset(more, 1, 1 << 20);
    }
    printf("has %d MiB\n", mebibytes);
    return fflush(stdout);
}

static int fill(const char *path, int mebibytes) {
    static char block[1 << 16];
    FILE *file = fopen(path, "w");
    if (!file) return fail("fill", path);
    memset(block, 'x', sizeof block);
    for (int i = 0; i < mebibytes * 16; i++)
        if (fwrite(block, sizeof block, 1, file) != 1) return fail("fill", path);
    return fclose(file);
}

static int run(const char *command, int count, char **words) {
    struct stat found;
    int failed = 0;
    if (!strcmp(command, "say")) return line(stdout, count, words);
    if (!strcmp(command, "env")) return env(count, words);
    if (count < 1) {
        fprintf(stderr, "%s: no such command, or it needs more words\n", command);
        return 2;
    }
    if (!strcmp(command, "cat")) {
        for (int i = 0; i < count; i++) failed |= cat(words[i]);
        return failed;
    }
    if (!strcmp(command, "follow")) return follow(words[0]);
    if (!strcmp(command, "ls")) return ls(words[0]);
    if (!strcmp(command, "write")) return put("w", words[0], count - 1, words + 1);
    if (!strcmp(command, "append")) return put("a", words[0], count - 1, words + 1);
    if (!strcmp(command, "has")) return stat(words[0], &found) != 0;
    if (!strcmp(command, "lacks")) return stat(words[0], &found) == 0;
    if (!strcmp(command, "clear")) return remove(words[0]) && errno != ENOENT ? fail("clear", words[0]) : 0;
    if (!strcmp(command, "sleep")) return usleep((useconds_t)(atof(words[0]) * 1e6));
    if (!strcmp(command, "grow")) return grow(atoi(words[0]));
    while (!strcmp(command, "wait") && (stat(words[0], &found) || !found.st_size)) usleep(50000);
    if (!strcmp(command, "wait")) return 0;
    if (count > 1 && !strcmp(command, "until")) {
        for (; stat(words[0], &found); usleep((useconds_t)(atof(words[1]) * 1e6))) line(stdout, count - 2, words + 2);
        return 0;
    }
    while (!strcmp(command, "tick")) {
        line(stdout, count - 1, words + 1);
        usleep((useconds_t)(atof(words[0]) * 1e6));
    }
    if (count > 1 && !strcmp(command, "try")) return try(words[0], atoi(words[1]));
    if (count > 1 && !strcmp(command, "fill")) return fill(words[0], atoi(words[1]));
    fprintf(stderr, "%s: no such command, or it needs more words\n", command);
    return 2;
}

int main(int argc, char **argv) {
    for (int from = 1, to; from < argc; from = to + 1) {
        for (to = from + 1; to < argc && strcmp(argv[to], "then"); to++) continue;
        int code = run(argv[from], to - from - 1, argv + from + 1);
        if (code) return code;
    }
    return 0;
}
