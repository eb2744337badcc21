/* Servers and clients over the sockets of WASI preview 1; the first argument says which. Listeners are from 3 on. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __wasi__
#include <wasi/libc.h>
#endif

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Type: text/plain\r\n\r\nhello, wasm\n";
static char buffer[65536];

static void die(const char *what) {
  fprintf(stderr, "%s: %s (%d)\n", what, strerror(errno), errno);
  exit(1);
}

/* One request of a connection; 0 when the peer has closed it. Requests are short and come in one piece or more. */
static int serve_one(int fd) {
  size_t got = 0;
  while (got < 4 || memcmp(buffer + got - 4, "\r\n\r\n", 4) != 0) {
    ssize_t more = read(fd, buffer + got, sizeof buffer - got);
    if (more <= 0) return 0;
    got += more;
  }
  return write(fd, answer, sizeof answer - 1) == sizeof answer - 1;
}

static void serve_in_turn(int listener) {
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) die("accept");
    while (serve_one(fd)) {}
    close(fd);
  }
}

/* Takes all that it can get, then answers to the first and goes on when that one leaves. */
static void hoard(int listener) {
  int count = 0, last = 0, first = -1;
  for (;;) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) break;
    if (first < 0) first = fd;
    last = fd;
    count++;
  }
  if (errno != EMFILE) die("accept");
  printf("no more than %d\n", count);
  fflush(stdout);
  while (serve_one(first)) {}
  for (int fd = first; fd <= last; fd++) close(fd);
  serve_in_turn(listener);
}

static void serve_many(int listeners, int quiet) {
  static struct pollfd fds[1024];
  int count = listeners;
  for (int i = 0; i < listeners; i++) fds[i] = (struct pollfd){.fd = 3 + i, .events = POLLIN};
  for (;;) {
    if (poll(fds, count, -1) < 0) die("poll");
    for (int i = 0; i < listeners; i++) {
      if (!fds[i].revents) continue;
      int fd = accept(fds[i].fd, NULL, NULL);
      if (fd >= 0) {
        fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
      } else if (errno != EAGAIN) {
        die("accept");
      }
    }
    for (int i = listeners; i < count; i++) {
      if (!fds[i].revents || quiet) continue;
      if (!serve_one(fds[i].fd)) {
        close(fds[i].fd);
        fds[i--] = fds[--count];
      }
    }
  }
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "turn";
  int listeners = getenv("LISTEN_FDS") ? atoi(getenv("LISTEN_FDS")) : 1;
  if (!strcmp(what, "told")) {
    const char *told = getenv("LISTEN_FDS");
    puts(told ? told : "nothing");
    return 0;
  }
  if (!strcmp(what, "turn")) serve_in_turn(3);
  if (!strcmp(what, "hoard")) hoard(3);
  if (!strcmp(what, "many")) serve_many(listeners, 0);
  if (!strcmp(what, "deaf")) serve_many(listeners, 1);
  if (!strcmp(what, "file")) { /* one connection is sent what is in a file, which then has what it says */
    int fd = accept(3, NULL, NULL);
    if (fd < 0) die("accept");
    int file = open(argv[2], O_RDWR);
    if (file < 0) die("open");
    ssize_t size = read(file, buffer, sizeof buffer);
    if (write(fd, buffer, size) != size) die("write");
    size = read(fd, buffer, sizeof buffer);
    if (lseek(file, 0, SEEK_SET) != 0 || write(file, buffer, size) != size) die("file");
    if (lseek(fd, 0, SEEK_SET) != -1 || errno != ESPIPE) die("seek");
    close(file);
    close(fd);
    return 0;
  }
  if (!strcmp(what, "flags")) { /* what a listener and a connection say of themselves */
    printf("%d\n", (fcntl(3, F_GETFL) & O_NONBLOCK) != 0);
    if (accept(3, NULL, NULL) != -1 || errno != EAGAIN) die("accept");
    if (fcntl(3, F_SETFL, 0) != 0) die("fcntl");
    int fd = accept(3, NULL, NULL);
    printf("%d\n", (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    ssize_t peeked = recv(fd, buffer, 4, MSG_PEEK);
    ssize_t got = recv(fd, buffer + 4, 8, MSG_WAITALL);
    printf("%zd %zd %.12s\n", peeked, got, buffer);
    if (shutdown(fd, SHUT_WR) != 0) die("shutdown");
    printf("%zd\n", read(fd, buffer, sizeof buffer));
    return 0;
  }
  if (!strcmp(what, "wait")) { /* what the second argument says, for ever */
    if (!strcmp(argv[2], "accept")) accept(3, NULL, NULL);
    if (!strcmp(argv[2], "poll")) poll(&(struct pollfd){.fd = 3, .events = POLLIN}, 1, -1);
    if (!strcmp(argv[2], "sleep")) sleep(100000);
    if (!strcmp(argv[2], "nobody")) fcntl(3, F_SETFL, O_NONBLOCK);
    while (!strcmp(argv[2], "nobody")) if (accept(3, NULL, NULL) >= 0 || errno != EAGAIN) die("accept");
    int fd = accept(3, NULL, NULL);
    if (!strcmp(argv[2], "read")) read(fd, buffer, 1);
    if (!strcmp(argv[2], "recv")) recv(fd, buffer, 100, MSG_WAITALL);
    if (!strcmp(argv[2], "write")) for (;;) write(fd, buffer, sizeof buffer);
    return 9;
  }
  if (!strcmp(what, "renumber")) { /* a connection takes a file's number, and a file the listener's */
    int fd = accept(3, NULL, NULL), first = open(argv[2], O_RDONLY), second = open(argv[2], O_RDONLY);
    if (fd < 0 || first < 0 || second < 0) die("open");
    if (__wasilibc_fd_renumber(fd, first) != 0) die("renumber");
    if (write(fd, "x", 1) != -1 || errno != EBADF) die("the old number");
    if (__wasilibc_fd_renumber(second, 3) != 0) die("renumber");
    ssize_t size = read(3, buffer, sizeof buffer);
    if (write(first, buffer, size) != size) die("write");
    if (accept(3, NULL, NULL) != -1) die("accept");
    close(first);
    if (open(argv[2], O_RDONLY) != second) die("the lowest number that is free");
    return 0;
  }
  if (!strcmp(what, "flood")) { /* a whole megabyte, at once */
    int fd = accept(3, NULL, NULL);
    char *much = calloc(1, 1 << 20);
    if (write(fd, much, 1 << 20) != 1 << 20) die("write");
    return 0;
  }
  die("what");
}
