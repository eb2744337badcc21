/* WasmEdge's functions for sockets, as the crate wasmedge_wasi_socket declares them; the first argument says what to do. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))

struct address { const uint8_t *bytes; uint32_t size; };
struct vector { uint8_t *bytes; uint32_t size; };
struct sockaddr_info { uint8_t family; uint32_t size; uint8_t *data; };
struct info {
  uint16_t flags;
  uint8_t family, kind, protocol;
  uint32_t size;
  struct sockaddr_info *address;
  char *name;
  uint32_t name_size;
  struct info *next;
};

WASI("sock_open") uint32_t sock_open(uint32_t family, uint32_t kind, uint32_t *fd);
WASI("sock_bind") uint32_t sock_bind(uint32_t fd, struct address *address, uint32_t port);
WASI("sock_listen") uint32_t sock_listen(uint32_t fd, uint32_t backlog);
WASI("sock_accept") uint32_t sock_accept(uint32_t fd, uint32_t *connection);
WASI("sock_connect") uint32_t sock_connect(uint32_t fd, struct address *address, uint32_t port);
WASI("sock_recv_from") uint32_t sock_recv_from(uint32_t fd, struct vector *data, uint32_t count, struct address *address,
                                               uint32_t flags, uint32_t *port, uint32_t *size, uint32_t *told);
WASI("sock_send_to") uint32_t sock_send_to(uint32_t fd, struct vector *data, uint32_t count, struct address *address,
                                           uint32_t port, uint32_t flags, uint32_t *size);
WASI("sock_getlocaladdr") uint32_t sock_getlocaladdr(uint32_t, struct address *, uint32_t *type, uint32_t *port);
WASI("sock_getpeeraddr") uint32_t sock_getpeeraddr(uint32_t, struct address *, uint32_t *type, uint32_t *port);
WASI("sock_setsockopt") uint32_t sock_setsockopt(uint32_t fd, int32_t level, int32_t name, void *value, uint32_t size);
WASI("sock_getsockopt") uint32_t sock_getsockopt(uint32_t fd, int32_t level, int32_t name, void *value, uint32_t *size);
WASI("sock_getaddrinfo") uint32_t sock_getaddrinfo(const char *node, uint32_t node_size, const char *service,
                                                   uint32_t service_size, struct info *hint, struct info **results,
                                                   uint32_t most, uint32_t *count);

enum { INET4 = 1, DATAGRAM = 1, STREAM = 2, REUSE = 0, TYPE = 1, ERROR = 2, RECEIVE_TIMEOUT = 11 };
static uint8_t bytes[16];
static uint8_t data[1024];

static void check(const char *what, uint32_t error) {
  if (error != 0) {
    printf("%s: %u\n", what, error);
    exit(1);
  }
}

static struct address *of(const char *text) {
  static struct address found = {bytes, 4};
  inet_pton(AF_INET, text, bytes);
  return &found;
}

static void say(uint32_t fd) {
  uint8_t room[16];
  struct address found = {room, sizeof room};
  uint32_t type = 0, port = 0;
  check("getlocaladdr", sock_getlocaladdr(fd, &found, &type, &port));
  printf("local %u %u.%u.%u.%u\n", type, room[0], room[1], room[2], room[3]);
  if (sock_getpeeraddr(fd, &found, &type, &port) == 0)
    printf("peer %u %u.%u.%u.%u %u\n", type, room[0], room[1], room[2], room[3], port);
  fflush(stdout);
}

static uint32_t opened(int kind) {
  uint32_t fd, type = 0, size = sizeof type;
  check("open", sock_open(INET4, kind, &fd));
  check("getsockopt", sock_getsockopt(fd, 0, TYPE, &type, &size));
  if (type != (uint32_t)kind || size != 4) exit(3);
  return fd;
}

static void serve(int port) {
  uint32_t fd = opened(STREAM), one = 1, connection;
  check("setsockopt", sock_setsockopt(fd, 0, REUSE, &one, sizeof one));
  check("bind", sock_bind(fd, of("0.0.0.0"), port));
  check("listen", sock_listen(fd, 128));
  say(fd);
  check("accept", sock_accept(fd, &connection));
  say(connection);
  ssize_t got;
  while ((got = read(connection, data, sizeof data)) > 0) write(connection, data, got);
  close(connection);
  close(fd);
}

static void dial(const char *host, int port, int nonblocking) {
  uint32_t fd = opened(STREAM), error = 0, size = sizeof error;
  if (nonblocking) {
    fcntl(fd, F_SETFL, O_NONBLOCK);
    uint32_t begun = sock_connect(fd, of(host), port);
    if (begun != 26 && begun != 0) check("connect", begun);
    printf("begun %u\n", begun);
    if (begun == 26) {
      if (poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1) != 1) exit(4);
      check("getsockopt", sock_getsockopt(fd, 0, ERROR, &error, &size));
      check("connected", error);
    }
    fcntl(fd, F_SETFL, 0);
  } else {
    check("connect", sock_connect(fd, of(host), port));
  }
  say(fd);
  write(fd, "ping", 4);
  ssize_t got = read(fd, data, sizeof data);
  printf("got %.*s\n", (int)got, data);
  close(fd);
}

/* Connects as often as it can to the first port, and after it has closed one of these, to the second one. */
static void exhaust(const char *host, int port, int last) {
  uint32_t fd, first = 0, error = 0;
  int count = 0;
  while (count < 10000 && (error = sock_open(INET4, STREAM, &fd)) == 0) {
    check("connect", sock_connect(fd, of(host), port));
    if (first == 0) first = fd;
    count++;
  }
  printf("%d, then %u\n", count, error);
  close(first);
  dial(host, last, 0);
}

static void datagram(const char *host, int port) {
  uint32_t fd = opened(DATAGRAM), size, told, from = 0;
  struct vector vector = {(uint8_t *)"ping", 4};
  check("send_to", sock_send_to(fd, &vector, 1, of(host), port, 0, &size));
  uint8_t room[128] = {0};
  struct address sender = {room, sizeof room};
  vector = (struct vector){data, sizeof data};
  check("recv_from", sock_recv_from(fd, &vector, 1, &sender, 0, &from, &size, &told));
  printf("got %.*s of %u %u.%u.%u.%u %u\n", (int)size, data, room[0], room[2], room[3], room[4], room[5], from == port);
  int64_t timeout[2] = {0, 50000};
  check("setsockopt", sock_setsockopt(fd, 0, RECEIVE_TIMEOUT, timeout, sizeof timeout));
  printf("then %u\n", sock_recv_from(fd, &vector, 1, &sender, 0, &from, &size, &told));
}

/* One datagram goes back to whoever has sent it. */
static void answer(int port) {
  uint32_t fd = opened(DATAGRAM), size, told, from = 0;
  check("bind", sock_bind(fd, of("0.0.0.0"), port));
  puts("listening");
  fflush(stdout);
  uint8_t room[128] = {0};
  struct address sender = {room, sizeof room};
  struct vector vector = {data, sizeof data};
  check("recv_from", sock_recv_from(fd, &vector, 1, &sender, 0, &from, &size, &told));
  struct address back = {room + 2, 4};
  vector.size = size;
  check("send_to", sock_send_to(fd, &vector, 1, &back, from, 0, &size));
}

static void resolve(const char *name) {
  static uint8_t room[4][26];
  static struct sockaddr_info addresses[4];
  static struct info infos[4];
  for (int i = 0; i < 4; i++) {
    addresses[i] = (struct sockaddr_info){INET4, 14, room[i]};
    infos[i] = (struct info){.address = &addresses[i], .next = i < 3 ? &infos[i + 1] : NULL};
  }
  struct info hint = {.flags = 0, .family = INET4, .kind = STREAM, .protocol = 1}, *results = infos;
  uint32_t count = 0;
  check("getaddrinfo", sock_getaddrinfo(name, strlen(name) + 1, "443", 4, &hint, &results, 4, &count));
  for (uint32_t i = 0; i < count; i++)
    printf("%u %u.%u.%u.%u:%u\n", infos[i].family, room[i][2], room[i][3], room[i][4], room[i][5],
           room[i][0] * 256 + room[i][1]);
}

int main(int argc, char **argv) {
  if (!strcmp(argv[1], "serve")) serve(atoi(argv[2]));
  if (!strcmp(argv[1], "dial")) dial(argv[2], atoi(argv[3]), 0);
  if (!strcmp(argv[1], "begin")) dial(argv[2], atoi(argv[3]), 1);
  if (!strcmp(argv[1], "exhaust")) exhaust(argv[2], atoi(argv[3]), atoi(argv[4]));
  if (!strcmp(argv[1], "datagram")) datagram(argv[2], atoi(argv[3]));
  if (!strcmp(argv[1], "answer")) answer(atoi(argv[2]));
  if (!strcmp(argv[1], "resolve")) resolve(argv[2]);
  return 0;
}
