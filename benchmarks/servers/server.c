/* A small HTTP server: one connection after the other, kept alive, on the listener that it is given as descriptor 3.
   The same source is compiled for WASI and for this machine. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char head[16384];
static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";

int main(void) {
  for (;;) {
    int connection = accept(3, NULL, NULL);
    if (connection < 0) return 1;
    size_t got = 0;
    for (;;) {
      ssize_t more = read(connection, head + got, sizeof head - got);
      if (more <= 0) break;
      got += more;
      if (got < 4 || memcmp(head + got - 4, "\r\n\r\n", 4)) continue;
      got = 0;
      if (write(connection, answer, sizeof answer - 1) < 0) break;
    }
    close(connection);
  }
}
