/* The guest that tests drive: its arguments are instructions, carried out in order.
 *
 *   print TEXT    a line on stdout            error TEXT   a line on stderr
 *   part TEXT     the same without newline    env NAME     NAME=value, or "NAME is not set"
 *   unless NAME VALUE            ends with 1 if the variable has another value
 *   args          every argument, one a line  environ      every variable, one a line
 *   line N        a line of N bytes           flood N      N lines of 64 bytes
 *   binary        every byte from 0 to 255    stdin        how many bytes stdin gives
 *   copy          stdin to stdout             terminal     which of the three streams are terminals
 *   alloc N       N MiB, touched              open PATH    "open" or why it cannot be opened
 *   sleep S       seconds                     spin         for ever
 *
 * Files; each says what it found, or "WORD PATH: " and why it could not:
 *
 *   cat PATH      the content                 ls PATH      the names in a directory, sorted, in one line
 *   stat PATH     what it is, and its size    await PATH TEXT   waits until the file has the text in it
 *   put PATH TEXT makes or overwrites a file  append PATH TEXT
 *   mkdir PATH    rmdir PATH    unlink PATH   fill PATH N       N KiB
 *   rename A B    link A B      symlink TARGET PATH
 *   deep PATH N   N directories with long names, one in another
 *   has PATH      ends with 1 unless it can be opened
 *   fewer PATH N  ends with 1 while the file has fewer than N bytes
 *
 *   trap, recurse, abort                      exit N       ends with that code
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

static void say(const char *word, const char *path, int result) {
    if (result < 0) printf("%s %s: %s\n", word, path, strerror(errno));
    else printf("%s %s: ok\n", word, path);
}

static int put(const char *path, const char *text, int flags) {
    int file = open(path, O_WRONLY | O_CREAT | flags, 0644);
    if (file < 0) return -1;
    ssize_t written = write(file, text, strlen(text));
    close(file);
    return written < 0 ? -1 : 0;
}

static ssize_t slurp(const char *path, char *buffer, size_t size) {
    int file = open(path, O_RDONLY);
    if (file < 0) return -1;
    size_t length = 0;
    ssize_t got;
    while (length < size && (got = read(file, buffer + length, size - length)) > 0) length += (size_t)got;
    close(file);
    buffer[length] = 0;
    return (ssize_t)length;
}

static int compare(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int list(const char *path) {
    char *names[256];
    size_t found = 0;
    DIR *directory = opendir(path);
    if (directory == NULL) return -1;
    for (struct dirent *entry; found < 256 && (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) names[found++] = strdup(entry->d_name);
    closedir(directory);
    qsort(names, found, sizeof *names, compare);
    for (size_t i = 0; i < found; i++) printf("%s%s", i ? " " : "", names[i]);
    puts("");
    return 0;
}

static int fill_file(const char *path, long kibibytes) {
    char block[1024];
    fill(block, sizeof block);
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (file < 0) return -1;
    ssize_t written = 0;
    while (kibibytes-- > 0 && written >= 0) written = write(file, block, sizeof block);
    int error = errno;
    close(file);
    errno = error;
    return written < 0 ? -1 : 0;
}

static int deep(const char *path, int levels) {
    char name[65];
    memset(name, 'd', sizeof name - 1);
    name[sizeof name - 1] = 0;
    int directory = open(path, O_RDONLY | O_DIRECTORY);
    while (directory >= 0 && levels-- > 0) {
        if (mkdirat(directory, name, 0755) < 0) return -1;
        int next = openat(directory, name, O_RDONLY | O_DIRECTORY);
        close(directory);
        directory = next;
    }
    return directory < 0 ? -1 : close(directory);
}

static void await(const char *path, const char *text) {
    static char content[65536];
    fflush(stdout);
    while (slurp(path, content, sizeof content - 1) < 0 || !strstr(content, text)) usleep(5000);
}

/* Carries out an instruction about files; how many words it took, 0 if it is none of these. */
static int files(const char *word, const char *first, const char *second) {
    static char content[65536];
    struct stat found;
    if (!strcmp(word, "cat")) {
        ssize_t length = slurp(first, content, sizeof content - 1);
        if (length < 0) say(word, first, -1);
        else fwrite(content, 1, (size_t)length, stdout);
        return 1;
    }
    if (!strcmp(word, "ls")) { if (list(first) < 0) say(word, first, -1); return 1; }
    if (!strcmp(word, "stat")) {
        if (lstat(first, &found) < 0) say(word, first, -1);
        else if (S_ISDIR(found.st_mode)) printf("stat %s: directory\n", first);
        else printf("stat %s: %s of %lld bytes\n", first, S_ISLNK(found.st_mode) ? "link" : "file", found.st_size);
        return 1;
    }
    if (!strcmp(word, "await")) { await(first, second); return 2; }
    if (!strcmp(word, "has")) { if (slurp(first, content, 1) < 0) exit(1); return 1; }
    if (!strcmp(word, "fewer")) {
        if (slurp(first, content, sizeof content - 1) < atol(second)) exit(1);
        return 2;
    }
    if (!strcmp(word, "put")) { say(word, first, put(first, second, O_TRUNC)); return 2; }
    if (!strcmp(word, "append")) { say(word, first, put(first, second, O_APPEND)); return 2; }
    if (!strcmp(word, "mkdir")) { say(word, first, mkdir(first, 0755)); return 1; }
    if (!strcmp(word, "rmdir")) { say(word, first, rmdir(first)); return 1; }
    if (!strcmp(word, "unlink")) { say(word, first, unlink(first)); return 1; }
    if (!strcmp(word, "rename")) { say(word, first, rename(first, second)); return 2; }
    if (!strcmp(word, "link")) { say(word, first, link(first, second)); return 2; }
    if (!strcmp(word, "symlink")) { say(word, second, symlink(first, second)); return 2; }
    if (!strcmp(word, "fill")) { say(word, first, fill_file(first, atol(second))); return 2; }
    if (!strcmp(word, "deep")) { say(word, first, deep(first, atoi(second))); return 2; }
    return 0;
}

int main(int count, char **words) {
    for (int i = 1; i < count; i++) {
        const char *word = words[i];
        const char *next = i + 1 < count ? words[i + 1] : "";
        int taken = files(word, next, i + 2 < count ? words[i + 2] : "");
        if (taken) i += taken;
        else if (!strcmp(word, "print")) { puts(next); i++; }
        else if (!strcmp(word, "error")) { fprintf(stderr, "%s\n", next); i++; }
        else if (!strcmp(word, "part")) { fputs(next, stdout); i++; }
        else if (!strcmp(word, "env")) {
            const char *value = getenv(next);
            if (value) printf("%s=%s\n", next, value);
            else printf("%s is not set\n", next);
            i++;
        }
        else if (!strcmp(word, "unless")) {
            const char *value = getenv(next);
            if (!value || strcmp(value, words[i + 2])) return 1;
            i += 2;
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
        else if (!strcmp(word, "copy")) {
            char buffer[4096];
            for (ssize_t got; (got = read(0, buffer, sizeof buffer)) > 0; fflush(stdout))
                fwrite(buffer, 1, (size_t)got, stdout);
        }
        else if (!strcmp(word, "terminal")) { printf("%d%d%d\n", isatty(0), isatty(1), isatty(2)); }
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
