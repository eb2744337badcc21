/* The guest that calls WASI itself, past a libc that would refuse or mend what it asks for. Its arguments are calls,
 * made in order; each says "CALL PATH: " and the number of the error, 0 for none:
 *
 *   read FD PATH         opens, following links, and shows what is in it
 *   write FD PATH        makes or overwrites a file with "written"
 *   append FD PATH       writes "written" at the end of a file that is there
 *   list FD PATH         how many names are in a directory
 *   stat, readlink, times, mkdir, rmdir, unlink FD PATH
 *   symlink FD TARGET PATH       link, rename FD PATH PATH
 *   both N               N lines of 64 bytes to each of stdout and stderr, in turns
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

static char content[65536];

static __wasi_errno_t open_at(int fd, const char *path, int make, __wasi_rights_t rights, __wasi_fd_t *file) {
    return __wasi_path_open(fd, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, path, make, rights, rights, 0, file);
}

static __wasi_errno_t read_at(int fd, const char *path) {
    __wasi_fd_t file;
    __wasi_errno_t error = open_at(fd, path, 0, __WASI_RIGHTS_FD_READ, &file);
    if (error) return error;
    __wasi_iovec_t into = {(uint8_t *)content, sizeof content - 1};
    __wasi_size_t got = 0;
    error = __wasi_fd_read(file, &into, 1, &got);
    content[got] = 0;
    if (!error) printf("%s", content);
    return error;
}

static __wasi_errno_t write_at(int fd, const char *path, int make) {
    __wasi_fd_t file;
    __wasi_errno_t error = open_at(fd, path, make, __WASI_RIGHTS_FD_WRITE | __WASI_RIGHTS_FD_SEEK, &file);
    if (error) return error;
    __wasi_filesize_t end;
    if (!make) (void)__wasi_fd_seek(file, 0, __WASI_WHENCE_END, &end);
    __wasi_ciovec_t from = {(const uint8_t *)"written", 7};
    __wasi_size_t put;
    error = __wasi_fd_write(file, &from, 1, &put);
    (void)__wasi_fd_close(file);
    return error;
}

static __wasi_errno_t list_at(int fd, const char *path) {
    __wasi_fd_t directory;
    __wasi_errno_t error = open_at(fd, path, __WASI_OFLAGS_DIRECTORY, __WASI_RIGHTS_FD_READDIR, &directory);
    if (error) return error;
    __wasi_size_t used = 0;
    error = __wasi_fd_readdir(directory, (uint8_t *)content, sizeof content, 0, &used);
    if (error) return error;
    int names = 0;
    for (__wasi_size_t at = 0; at + sizeof(__wasi_dirent_t) <= used; names++) {
        __wasi_dirent_t entry;
        memcpy(&entry, content + at, sizeof entry);
        at += sizeof entry + entry.d_namlen;
    }
    printf("%d names\n", names);
    return 0;
}

static void both(long lines) {
    char line[64];
    memset(line, 'x', 63);
    line[63] = '\n';
    __wasi_ciovec_t from = {(const uint8_t *)line, sizeof line};
    __wasi_size_t put;
    while (lines-- > 0)
        for (int stream = 1; stream <= 2; stream++) (void)__wasi_fd_write(stream, &from, 1, &put);
}

int main(int count, char **words) {
    for (int i = 1; i < count; i++) {
        const char *call = words[i];
        if (!strcmp(call, "both")) {
            both(atol(words[++i]));
            continue;
        }
        int fd = atoi(words[++i]);
        const char *path = words[++i];
        __wasi_filestat_t found;
        __wasi_size_t used = 0;
        __wasi_errno_t error;
        if (!strcmp(call, "read")) error = read_at(fd, path);
        else if (!strcmp(call, "write")) error = write_at(fd, path, __WASI_OFLAGS_CREAT | __WASI_OFLAGS_TRUNC);
        else if (!strcmp(call, "append")) error = write_at(fd, path, 0);
        else if (!strcmp(call, "list")) error = list_at(fd, path);
        else if (!strcmp(call, "stat")) {
            error = __wasi_path_filestat_get(fd, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, path, &found);
            if (!error) printf("%llu bytes\n", (unsigned long long)found.size);
        } else if (!strcmp(call, "readlink")) {
            error = __wasi_path_readlink(fd, path, (uint8_t *)content, sizeof content - 1, &used);
            content[used] = 0;
            if (!error) printf("%s\n", content);
        } else if (!strcmp(call, "times")) {
            error = __wasi_path_filestat_set_times(fd, __WASI_LOOKUPFLAGS_SYMLINK_FOLLOW, path, 0, 0,
                                                   __WASI_FSTFLAGS_ATIM | __WASI_FSTFLAGS_MTIM);
        } else if (!strcmp(call, "mkdir")) error = __wasi_path_create_directory(fd, path);
        else if (!strcmp(call, "rmdir")) error = __wasi_path_remove_directory(fd, path);
        else if (!strcmp(call, "unlink")) error = __wasi_path_unlink_file(fd, path);
        else if (!strcmp(call, "symlink")) error = __wasi_path_symlink(path, fd, words[++i]);
        else if (!strcmp(call, "link")) error = __wasi_path_link(fd, 0, path, fd, words[++i]);
        else if (!strcmp(call, "rename")) error = __wasi_path_rename(fd, path, fd, words[++i]);
        else return 64;
        printf("%s %s: %d\n", call, path, error);
        fflush(stdout);
    }
    return 0;
}
