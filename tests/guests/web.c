/* A web server for checks, on the listeners that the host gives: descriptors from 3 on.

   The path /NNN is answered with that status, and every other one with 200; the body is what was asked. Each request is
   a line of output: its first line and its headers, with " | " between them. /quit ends the program with exit code 3.
   /health is answered with 200 until somebody asks for /health/NNN; from then on with that status.
   With the argument "after FILE" it listens once that file exists. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static char head[65536], line[131072], answer[131072];
static int health = 200;

static int read_head(int fd) {
  size_t got = 0;
  while (!strstr(head, "\r\n\r\n")) {
    ssize_t more = read(fd, head + got, sizeof head - 1 - got);
    if (more <= 0) return 0;
    got += more;
    head[got] = 0;
  }
  return 1;
}

static void say_request(void) {
  char *out = line;
  for (char *in = head; *in; in++) {
    if (*in == '\r') continue;
    if (*in != '\n') *out++ = *in;
    else if (in[1] != '\r') out += sprintf(out, " | ");
    else break;
  }
  *out = 0;
  printf("%s\n", line);
  fflush(stdout);
}

static void serve(int listener) {
  int fd = accept(listener, NULL, NULL);
  if (fd < 0) return;
  int flags = fcntl(fd, F_GETFL);
  fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
  head[0] = 0;
  if (read_head(fd)) {
    say_request();
    int status = atoi(strchr(head, '/') ? strchr(head, '/') + 1 : "");
    if (status < 100 || status > 599) status = 200;
    if (!strncmp(head, "GET /health/", 12)) health = atoi(head + 12);
    else if (!strncmp(head, "GET /health ", 12)) status = health;
    size_t size = strlen(head);
    int length = sprintf(answer, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status, size, head);
    for (int sent = 0; sent < length;) {
      ssize_t more = write(fd, answer + sent, length - sent);
      if (more <= 0) break;
      sent += more;
    }
    if (!strncmp(head, "GET /quit ", 10)) exit(3);
  }
  close(fd);
}

int main(int argc, char **argv) {
  struct stat found;
  while (argc > 2 && !strcmp(argv[1], "after") && stat(argv[2], &found)) usleep(10000);
  int count = getenv("LISTEN_FDS") ? atoi(getenv("LISTEN_FDS")) : 1;
  struct pollfd fds[64];
  for (int i = 0; i < count; i++) fds[i] = (struct pollfd){.fd = 3 + i, .events = POLLIN};
  printf("listening on %d\n", count);
  fflush(stdout);
  for (;;) {
    if (poll(fds, count, -1) < 0) return 1;
    for (int i = 0; i < count; i++)
      if (fds[i].revents) serve(fds[i].fd);
  }
}
