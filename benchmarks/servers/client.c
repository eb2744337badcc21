/* client ADDRESS PORT SECONDS END: requests one after the other over one connection; prints how many a second, and the
   median time of one in microseconds. END is how an answer ends that is not in
   chunks. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
static char answer[16384];
static double took[4000000];

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

/* Whether the answer is all there. */
static int whole(size_t got, const char *end) {
  answer[got] = 0;
  if (strstr(answer, "chunked")) end = "\r\n0\r\n\r\n";
  size_t size = strlen(end);
  return got >= size && !memcmp(answer + got - size, end, size);
}

static int shorter(const void *left, const void *right) {
  double difference = *(const double *)left - *(const double *)right;
  return difference < 0 ? -1 : difference > 0;
}

int main(int argc, char **argv) {
  if (argc != 5) return 2;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
  inet_pton(AF_INET, argv[1], &to.sin_addr);
  int connection = socket(AF_INET, SOCK_STREAM, 0), on = 1;
  if (connect(connection, (struct sockaddr *)&to, sizeof to)) return 1;
  setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  double begin = now(), end = begin + atof(argv[3]), before = begin;
  size_t count = 0;
  while (before < end && count < sizeof took / sizeof *took) {
    if (write(connection, request, sizeof request - 1) < 0) return 1;
    size_t got = 0;
    while (!whole(got, argv[4])) {
      ssize_t more = read(connection, answer + got, sizeof answer - 1 - got);
      if (more <= 0) return 1;
      got += more;
    }
    double after = now();
    took[count++] = after - before;
    before = after;
  }
  qsort(took, count, sizeof *took, shorter);
  printf("%.0f %.2f\n", count / (before - begin), 1e6 * took[count / 2]);
}
