/* Dials each ADDRESS:PORT of its arguments by WasmEdge's functions, asks there for a page, and says what came of it. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct address {
  uint8_t *bytes;
  uint32_t size;
};

__attribute__((import_module("wasi_snapshot_preview1"), import_name("sock_open"))) int
sock_open(int family, int kind, int *fd);
__attribute__((import_module("wasi_snapshot_preview1"), import_name("sock_connect"))) int
sock_connect(int fd, struct address *address, int port);

static void dial(char *where) {
  char *port = strrchr(where, ':');
  uint8_t bytes[4];
  struct address address = {bytes, sizeof bytes};
  int fd, error;
  *port++ = 0;
  if (inet_pton(AF_INET, where, bytes) != 1) exit(2);
  error = sock_open(1, 2, &fd);
  if (!error) error = sock_connect(fd, &address, atoi(port));
  if (error) {
    printf("%s:%s: %s\n", where, port, strerror(error));
    return;
  }
  static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
  char answer[13] = "";
  write(fd, request, sizeof request - 1);
  for (size_t got = 0; got < 12;) {
    ssize_t more = read(fd, answer + got, 12 - got);
    if (more <= 0) break;
    got += more;
  }
  close(fd);
  printf("%s:%s: %s\n", where, port, answer);
}

int main(int argc, char **argv) {
  for (int i = 1; i < argc; i++) dial(argv[i]);
  return 0;
}
