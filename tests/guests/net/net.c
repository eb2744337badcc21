/* A command, a component without any library, that uses sockets and HTTP; its arguments are instructions:

     tcp ADDRESS PORT TEXT   sends a line, and prints what comes until the other side closes the connection
     listen PORT             sends back what comes over one connection, up to its end
     udp ADDRESS PORT TEXT   sends a datagram, from a socket that has this remote, and prints the answer
     sendto ADDRESS PORT TEXT   the same from a socket that has none
     answer PORT             sends one datagram back to where it came from
     get AUTHORITY PATH      prints the status and the body of what is there
     zone                    prints the time zone

   What fails is printed as "error" and the number of its code. See web.c for how this is made. */
#include <stddef.h>
#include <stdint.h>

typedef int32_t i32;
typedef int64_t i64;

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name))) extern
#define HTTP "wasi:http/types@0.2.0"
#define STREAMS "wasi:io/streams@0.2.0"
#define TCP "wasi:sockets/tcp@0.2.0"
#define UDP "wasi:sockets/udp@0.2.0"
/* An address, as it is passed: its case, and the numbers of that case. */
#define ADDRESS i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32, i32
#define PASSED(a) 0, (a).port, (a).parts[0], (a).parts[1], (a).parts[2], (a).parts[3], 0, 0, 0, 0, 0, 0

IMPORT("wasi:cli/environment@0.2.0", "get-arguments") void get_arguments(void *ret);
IMPORT("wasi:cli/stdout@0.2.0", "get-stdout") i32 get_stdout(void);
IMPORT("wasi:clocks/timezone@0.2.0", "display") void display(i64 seconds, i32 nanoseconds, void *ret);
IMPORT("wasi:io/poll@0.2.0", "[method]pollable.block") void block(i32 pollable);
IMPORT("wasi:io/poll@0.2.0", "[resource-drop]pollable") void drop_pollable(i32 pollable);
IMPORT(STREAMS, "[method]input-stream.blocking-read") void blocking_read(i32 stream, i64 size, void *ret);
IMPORT(STREAMS, "[resource-drop]input-stream") void drop_input(i32 stream);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void write_and_flush(i32 stream, const void *data, i32 size, void *ret);
IMPORT(STREAMS, "[resource-drop]output-stream") void drop_output(i32 stream);
IMPORT("wasi:sockets/instance-network@0.2.0", "instance-network") i32 instance_network(void);
IMPORT("wasi:sockets/tcp-create-socket@0.2.0", "create-tcp-socket") void create_tcp(i32 family, void *ret);
IMPORT(TCP, "[method]tcp-socket.start-bind") void tcp_start_bind(i32 socket, i32 network, ADDRESS, void *ret);
IMPORT(TCP, "[method]tcp-socket.finish-bind") void tcp_finish_bind(i32 socket, void *ret);
IMPORT(TCP, "[method]tcp-socket.start-connect") void start_connect(i32 socket, i32 network, ADDRESS, void *ret);
IMPORT(TCP, "[method]tcp-socket.finish-connect") void finish_connect(i32 socket, void *ret);
IMPORT(TCP, "[method]tcp-socket.start-listen") void start_listen(i32 socket, void *ret);
IMPORT(TCP, "[method]tcp-socket.finish-listen") void finish_listen(i32 socket, void *ret);
IMPORT(TCP, "[method]tcp-socket.accept") void accept(i32 socket, void *ret);
IMPORT(TCP, "[method]tcp-socket.set-keep-alive-enabled") void set_keep_alive(i32 socket, i32 value, void *ret);
IMPORT(TCP, "[method]tcp-socket.set-hop-limit") void set_hop_limit(i32 socket, i32 value, void *ret);
IMPORT(TCP, "[method]tcp-socket.hop-limit") void get_hop_limit(i32 socket, void *ret);
IMPORT(TCP, "[method]tcp-socket.subscribe") i32 tcp_subscribe(i32 socket);
IMPORT(TCP, "[resource-drop]tcp-socket") void drop_tcp(i32 socket);
IMPORT("wasi:sockets/udp-create-socket@0.2.0", "create-udp-socket") void create_udp(i32 family, void *ret);
IMPORT(UDP, "[method]udp-socket.start-bind") void udp_start_bind(i32 socket, i32 network, ADDRESS, void *ret);
IMPORT(UDP, "[method]udp-socket.finish-bind") void udp_finish_bind(i32 socket, void *ret);
IMPORT(UDP, "[method]udp-socket.stream") void udp_stream(i32 socket, i32 some, ADDRESS, void *ret);
IMPORT(UDP, "[method]udp-socket.subscribe") i32 udp_subscribe(i32 socket);
IMPORT(UDP, "[method]incoming-datagram-stream.receive") void receive(i32 stream, i64 most, void *ret);
IMPORT(UDP, "[method]incoming-datagram-stream.subscribe") i32 incoming_subscribe(i32 stream);
IMPORT(UDP, "[method]outgoing-datagram-stream.check-send") void check_send(i32 stream, void *ret);
IMPORT(UDP, "[method]outgoing-datagram-stream.send") void send(i32 stream, const void *list, i32 count, void *ret);
IMPORT(HTTP, "[constructor]fields") i32 new_fields(void);
IMPORT(HTTP, "[constructor]outgoing-request") i32 new_request(i32 fields);
IMPORT(HTTP, "[method]outgoing-request.set-path-with-query") i32 set_path(i32 request, i32 some, const char *, i32);
IMPORT(HTTP, "[method]outgoing-request.set-scheme")
i32 set_scheme(i32 request, i32 some, i32 scheme, const char *, i32);
IMPORT(HTTP, "[method]outgoing-request.set-authority") i32 set_authority(i32 request, i32 some, const char *, i32);
IMPORT(HTTP, "[method]incoming-response.status") i32 response_status(i32 response);
IMPORT(HTTP, "[method]incoming-response.consume") void consume_response(i32 response, void *ret);
IMPORT(HTTP, "[method]incoming-body.stream") void body_stream(i32 body, void *ret);
IMPORT(HTTP, "[method]future-incoming-response.subscribe") i32 subscribe_response(i32 future);
IMPORT(HTTP, "[method]future-incoming-response.get") void get_response(i32 future, void *ret);
IMPORT(HTTP, "[resource-drop]incoming-body") void drop_body(i32 body);
IMPORT(HTTP, "[resource-drop]incoming-response") void drop_response(i32 response);
IMPORT(HTTP, "[resource-drop]future-incoming-response") void drop_future(i32 future);
IMPORT("wasi:http/outgoing-handler@0.2.0", "handle") void send_request(i32 request, i32 some, i32 options, void *ret);

static unsigned char memory[1 << 20] __attribute__((aligned(16)));
static size_t used;

__attribute__((export_name("cabi_realloc"))) void *cabi_realloc(void *old, size_t size, size_t align, size_t wanted) {
  used = (used + align - 1) & ~(align - 1);
  if (used + wanted > sizeof memory) __builtin_trap();
  unsigned char *found = memory + used;
  used += wanted;
  for (size_t i = 0; old && i < size && i < wanted; i++) found[i] = ((unsigned char *)old)[i];
  return found;
}

typedef struct {
  const char *data;
  i32 size;
} text;
typedef struct {
  i32 port, parts[4];
} address;
typedef struct {
  text data;
  uint8_t kind, unused[3];
  uint16_t port;
  uint8_t parts[4], rest[22];
} incoming;
typedef struct {
  text data;
  uint8_t some, unused[3], kind, unused_too[3];
  uint16_t port;
  uint8_t parts[4], rest[22];
} outgoing;

static i32 ret[16] __attribute__((aligned(8)));
static i32 out, network;

static int is(text a, const char *word) {
  for (i32 i = 0; i < a.size; i++)
    if (a.data[i] != word[i]) return 0;
  return !word[a.size];
}
static i64 number(text a) {
  i64 n = 0;
  for (i32 i = 0; i < a.size; i++) n = n * 10 + a.data[i] - '0';
  return n;
}
static void put(i32 where, text what) { write_and_flush(where, what.data, what.size, ret); }
static void say(const char *word) {
  i32 n = 0;
  while (word[n]) n++;
  put(out, (text){word, n});
}
static void say_number(i64 value) {
  static char digits[20];
  i32 at = 20;
  do digits[--at] = '0' + value % 10;
  while (value /= 10);
  put(out, (text){digits + at, 20 - at});
}
/* Whether a call has failed, and says so; `at`: where its code lies. */
static int failed(i32 at) {
  i32 tag = ret[0], code = ((uint8_t *)ret)[at];
  if (!(tag & 0xff)) return 0;
  say("error "), say_number(code), say("\n");
  return 1;
}
static address address_of(text host, text port) {
  address found = {(i32)number(port), {0, 0, 0, 0}};
  for (i32 i = 0, part = 0; i < host.size && part < 4; i++)
    if (host.data[i] == '.') part++;
    else found.parts[part] = found.parts[part] * 10 + host.data[i] - '0';
  return found;
}
static void wait(i32 pollable) {
  block(pollable);
  drop_pollable(pollable);
}
/* What is read from one stream, to another one. */
static void copy(i32 from, i32 to) {
  for (;;) {
    used = 0;
    blocking_read(from, 4096, ret);
    if (ret[0] & 0xff) return;
    put(to, (text){(const char *)ret[1], ret[2]});
  }
}

static void tcp(address where, text line) {
  create_tcp(0, ret);
  i32 socket = ret[1];
  set_keep_alive(socket, 1, ret);
  set_hop_limit(socket, 33, ret);
  start_connect(socket, network, PASSED(where), ret);
  if (failed(1)) return;
  wait(tcp_subscribe(socket));
  finish_connect(socket, ret);
  if (failed(4)) return;
  i32 in = ret[1], to = ret[2];
  get_hop_limit(socket, ret);
  say("hops "), say_number((ret[0] >> 8) & 0xff), say("\n");
  put(to, line), put(to, (text){"\n", 1});
  copy(in, out);
  drop_input(in), drop_output(to), drop_tcp(socket);
}
static void listen(address where) {
  create_tcp(0, ret);
  i32 socket = ret[1];
  tcp_start_bind(socket, network, PASSED(where), ret);
  if (failed(1)) return;
  tcp_finish_bind(socket, ret);
  if (failed(1)) return;
  start_listen(socket, ret);
  if (failed(1)) return;
  wait(tcp_subscribe(socket));
  finish_listen(socket, ret);
  if (failed(1)) return;
  say("listening\n");
  wait(tcp_subscribe(socket));
  accept(socket, ret);
  if (failed(4)) return;
  i32 accepted = ret[1], in = ret[2], to = ret[3];
  copy(in, to);
  drop_input(in), drop_output(to), drop_tcp(accepted), drop_tcp(socket);
}

static i32 streams[2];
/* The streams of a socket that is bound to this address. */
static int opened(address local, i32 some, address remote) {
  create_udp(0, ret);
  i32 socket = ret[1];
  udp_start_bind(socket, network, PASSED(local), ret);
  if (failed(1)) return 0;
  wait(udp_subscribe(socket));
  udp_finish_bind(socket, ret);
  if (failed(1)) return 0;
  udp_stream(socket, some, PASSED(remote), ret);
  if (failed(4)) return 0;
  streams[0] = ret[1], streams[1] = ret[2];
  return 1;
}
static int sent(text data, i32 some, address to) {
  outgoing one = {data, some, {0}, 0, {0}, to.port, {to.parts[0], to.parts[1], to.parts[2], to.parts[3]}, {0}};
  check_send(streams[1], ret);
  if (failed(8)) return 0;
  send(streams[1], &one, 1, ret);
  return !failed(8);
}
static incoming *received(void) {
  do {
    wait(incoming_subscribe(streams[0]));
    receive(streams[0], 1, ret);
    if (failed(4)) return 0;
  } while (!ret[2]);
  return (incoming *)ret[1];
}
static void udp(address where, text data, i32 remote) {
  if (!opened((address){0, {0, 0, 0, 0}}, remote, where) || !sent(data, !remote, where)) return;
  incoming *answer = received();
  if (answer) put(out, answer->data), say("\n");
}
static void answer(address where) {
  if (!opened(where, 0, where)) return;
  say("listening\n");
  incoming *question = received();
  if (!question) return;
  uint8_t *p = question->parts;
  sent(question->data, 1, (address){question->port, {p[0], p[1], p[2], p[3]}});
}

static void get(text authority, text path) {
  i32 request = new_request(new_fields());
  set_scheme(request, 1, 0, 0, 0);
  set_authority(request, 1, authority.data, authority.size);
  set_path(request, 1, path.data, path.size);
  send_request(request, 0, 0, ret);
  if (failed(8)) return;
  i32 future = ret[2];
  wait(subscribe_response(future));
  get_response(future, ret);
  if (ret[4] & 0xff) {
    say("error "), say_number(ret[6] & 0xff), say("\n");
    return;
  }
  i32 response = ret[6];
  say_number(response_status(response)), say(" ");
  consume_response(response, ret);
  i32 body = ret[1];
  body_stream(body, ret);
  i32 in = ret[1];
  copy(in, out);
  say("\n");
  drop_input(in), drop_body(body), drop_response(response), drop_future(future);
}

static text words[64];

__attribute__((export_name("wasi:cli/run@0.2.0#run"))) i32 run(void) {
  out = get_stdout(), network = instance_network();
  get_arguments(ret);
  static char kept[4096];
  i32 count = ret[1], size = 0;
  for (i32 i = 0; i < count && i < 64; i++) {
    text word = ((text *)ret[0])[i];
    words[i] = (text){kept + size, word.size};
    for (i32 k = 0; k < word.size; k++) kept[size++] = word.data[k];
  }
  for (text *word = words + 1; word < words + count;) {
    used = 0;
    if (is(*word, "tcp")) tcp(address_of(word[1], word[2]), word[3]), word += 4;
    else if (is(*word, "listen")) listen(address_of((text){0, 0}, word[1])), word += 2;
    else if (is(*word, "udp")) udp(address_of(word[1], word[2]), word[3], 1), word += 4;
    else if (is(*word, "sendto")) udp(address_of(word[1], word[2]), word[3], 0), word += 4;
    else if (is(*word, "answer")) answer(address_of((text){0, 0}, word[1])), word += 2;
    else if (is(*word, "get")) get(word[1], word[2]), word += 3;
    else if (is(*word, "zone")) {
      display(0, 0, ret);
      put(out, (text){(const char *)ret[1], ret[2]}), say("\n"), word++;
    } else return 1;
  }
  return 0;
}
