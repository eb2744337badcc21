/* A component that serves, without any library: the path of a request says what it does.

   It is made of this file and web.wit (see tests.guests.components), by the rules of the component model's canonical
   ABI: a function that returns more than a number writes it to memory, and what the host returns lies where
   cabi_realloc says. */
#include <stddef.h>
#include <stdint.h>

typedef int32_t i32;
typedef int64_t i64;

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name))) extern
#define HTTP "wasi:http/types@0.2.0"
#define STREAMS "wasi:io/streams@0.2.0"

IMPORT("wasi:cli/environment@0.2.0", "get-environment") void get_environment(void *ret);
IMPORT("wasi:cli/environment@0.2.0", "get-arguments") void get_arguments(void *ret);
IMPORT("wasi:cli/stderr@0.2.0", "get-stderr") i32 get_stderr(void);
IMPORT("wasi:clocks/monotonic-clock@0.2.0", "now") i64 now(void);
IMPORT("wasi:clocks/monotonic-clock@0.2.0", "subscribe-duration") i32 subscribe_duration(i64 nanoseconds);
IMPORT("wasi:io/poll@0.2.0", "poll") void poll(const i32 *pollables, i32 count, void *ret);
IMPORT("wasi:io/poll@0.2.0", "[method]pollable.block") void block(i32 pollable);
IMPORT("wasi:io/poll@0.2.0", "[method]pollable.ready") i32 ready(i32 pollable);
IMPORT("wasi:io/poll@0.2.0", "[resource-drop]pollable") void drop_pollable(i32 pollable);
IMPORT(STREAMS, "[method]input-stream.blocking-read") void blocking_read(i32 stream, i64 size, void *ret);
IMPORT(STREAMS, "[method]input-stream.subscribe") i32 subscribe_input(i32 stream);
IMPORT(STREAMS, "[resource-drop]input-stream") void drop_input(i32 stream);
IMPORT(STREAMS, "[method]output-stream.check-write") void check_write(i32 stream, void *ret);
IMPORT(STREAMS, "[method]output-stream.write") void write_only(i32 stream, const void *data, i32 size, void *ret);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void write_and_flush(i32 stream, const void *data, i32 size, void *ret);
IMPORT(STREAMS, "[resource-drop]output-stream") void drop_output(i32 stream);
IMPORT(HTTP, "[constructor]fields") i32 new_fields(void);
IMPORT(HTTP, "[method]fields.append")
void append(i32 fields, const char *name, i32 name_size, const char *value, i32 size, void *ret);
IMPORT(HTTP, "[method]fields.entries") void entries(i32 fields, void *ret);
IMPORT(HTTP, "[resource-drop]fields") void drop_fields(i32 fields);
IMPORT(HTTP, "[method]incoming-request.method") void get_method(i32 request, void *ret);
IMPORT(HTTP, "[method]incoming-request.path-with-query") void get_path(i32 request, void *ret);
IMPORT(HTTP, "[method]incoming-request.authority") void get_authority(i32 request, void *ret);
IMPORT(HTTP, "[method]incoming-request.headers") i32 request_fields(i32 request);
IMPORT(HTTP, "[method]incoming-request.consume") void consume_request(i32 request, void *ret);
IMPORT(HTTP, "[resource-drop]incoming-request") void drop_request(i32 request);
IMPORT(HTTP, "[method]incoming-body.stream") void body_stream(i32 body, void *ret);
IMPORT(HTTP, "[static]incoming-body.finish") i32 finish_incoming(i32 body);
IMPORT(HTTP, "[method]future-trailers.subscribe") i32 subscribe_trailers(i32 future);
IMPORT(HTTP, "[method]future-trailers.get") void get_trailers(i32 future, void *ret);
IMPORT(HTTP, "[resource-drop]future-trailers") void drop_trailers(i32 future);
IMPORT(HTTP, "[constructor]outgoing-response") i32 new_response(i32 fields);
IMPORT(HTTP, "[method]outgoing-response.set-status-code") i32 set_status(i32 response, i32 status);
IMPORT(HTTP, "[method]outgoing-response.body") void response_body(i32 response, void *ret);
IMPORT(HTTP, "[method]outgoing-body.write") void body_write(i32 body, void *ret);
IMPORT(HTTP, "[static]outgoing-body.finish") void finish_body(i32 body, i32 some, i32 trailers, void *ret);
IMPORT(HTTP, "[static]response-outparam.set")
void set_response(i32 out, i32 error, i32 response, i32, i64, i32, i32, i32, i32);
IMPORT(HTTP, "[constructor]outgoing-request") i32 new_request(i32 fields);
IMPORT(HTTP, "[method]outgoing-request.body") void request_body(i32 request, void *ret);
IMPORT(HTTP, "[method]outgoing-request.set-method") i32 set_method(i32 request, i32 method, const char *, i32);
IMPORT(HTTP, "[method]outgoing-request.set-path-with-query") i32 set_path(i32 request, i32 some, const char *, i32);
IMPORT(HTTP, "[method]outgoing-request.set-scheme")
i32 set_scheme(i32 request, i32 some, i32 scheme, const char *, i32);
IMPORT(HTTP, "[method]outgoing-request.set-authority") i32 set_authority(i32 request, i32 some, const char *, i32);
IMPORT(HTTP, "[constructor]request-options") i32 new_options(void);
IMPORT(HTTP, "[method]request-options.set-first-byte-timeout") i32 set_first_byte(i32 options, i32 some, i64);
IMPORT(HTTP, "[method]incoming-response.status") i32 response_status(i32 response);
IMPORT(HTTP, "[method]incoming-response.headers") i32 response_fields(i32 response);
IMPORT(HTTP, "[method]incoming-response.consume") void consume_response(i32 response, void *ret);
IMPORT(HTTP, "[method]future-incoming-response.subscribe") i32 subscribe_response(i32 future);
IMPORT(HTTP, "[method]future-incoming-response.get") void get_response(i32 future, void *ret);
IMPORT("wasi:http/outgoing-handler@0.2.0", "handle") void send_request(i32 request, i32 some, i32 options, void *ret);

static unsigned char memory[4 << 20] __attribute__((aligned(16)));
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

static i32 ret[16] __attribute__((aligned(8)));
static i32 length(const char *word) {
  i32 n = 0;
  while (word[n]) n++;
  return n;
}
static text text_of(const char *word) { return (text){word, length(word)}; }
static int begins(text a, const char *word) {
  i32 n = length(word);
  if (a.size < n) return 0;
  for (i32 i = 0; i < n; i++)
    if (a.data[i] != word[i]) return 0;
  return 1;
}
static i64 number(const char *digits, i32 size) {
  i64 n = 0;
  for (i32 i = 0; i < size && digits[i] >= '0' && digits[i] <= '9'; i++) n = n * 10 + digits[i] - '0';
  return n;
}
static text after(text a, char mark) {
  for (i32 i = 0; i < a.size; i++)
    if (a.data[i] == mark) return (text){a.data + i + 1, a.size - i - 1};
  return (text){"", 0};
}
static text decimal(i64 value) {
  static char digits[20];
  i32 at = 20;
  do digits[--at] = '0' + value % 10;
  while (value /= 10);
  return (text){digits + at, 20 - at};
}

static i32 fields, response, body, stream;

/* Whether all went. */
static int put(i32 where, text what) {
  while (what.size) {
    i32 part = what.size > 4096 ? 4096 : what.size;
    write_and_flush(where, what.data, part, ret);
    if (ret[0] & 0xff) return 0;
    what.data += part;
    what.size -= part;
  }
  return 1;
}
static void begin(i32 out, i32 status) {
  response = new_response(fields);
  set_status(response, status);
  response_body(response, ret);
  body = ret[1];
  set_response(out, 0, response, 0, 0, 0, 0, 0, 0);
  body_write(body, ret);
  stream = ret[1];
}
static void end(i32 some, i32 trailers) {
  drop_output(stream);
  finish_body(body, some, trailers, ret);
}
static void answer(i32 out, i32 status, text what) {
  begin(out, status);
  put(stream, what);
  end(0, 0);
}
static void nap(i64 milliseconds) {
  i32 timer = subscribe_duration(milliseconds * 1000000);
  block(timer);
  drop_pollable(timer);
}

/* What is read from one stream, to another one; how many bytes. */
static i64 copy(i32 from, i32 to) {
  i64 total = 0;
  size_t before = used;
  for (;;) {
    used = before;
    blocking_read(from, 65536, ret);
    if (ret[0] & 0xff) return (ret[1] & 0xff) == 1 ? total : -1;
    text found = {(const char *)ret[1], ret[2]};
    total += found.size;
    if (to && !put(to, found)) return -1;
  }
}

static void show_request(i32 request, i32 out) {
  get_method(request, ret);
  i32 method = ret[0] & 0xff;
  get_authority(request, ret);
  text authority = ret[0] & 0xff ? (text){(const char *)ret[1], ret[2]} : text_of("none");
  i32 found = request_fields(request);
  entries(found, ret);
  struct {
    text name, value;
  } *list = (void *)ret[0];
  i32 count = ret[1];
  begin(out, 200);
  put(stream, text_of("method "));
  put(stream, decimal(method));
  put(stream, text_of("\nauthority "));
  put(stream, authority);
  put(stream, text_of("\n"));
  for (i32 i = 0; i < count; i++) {
    put(stream, list[i].name);
    put(stream, text_of(": "));
    put(stream, list[i].value);
    put(stream, text_of("\n"));
  }
  drop_fields(found);
  end(0, 0);
}

static i32 input_of(i32 request, i32 *incoming) {
  consume_request(request, ret);
  *incoming = ret[1];
  body_stream(*incoming, ret);
  return ret[1];
}

/* The body, and behind it the trailers, as trailers of the answer. */
static void echo(i32 request, i32 out) {
  i32 incoming, input = input_of(request, &incoming);
  begin(out, 200);
  if (copy(input, stream) < 0) __builtin_trap();
  drop_input(input);
  i32 future = finish_incoming(incoming), waits = subscribe_trailers(future);
  block(waits);
  drop_pollable(waits);
  get_trailers(future, ret);
  i32 some = !(ret[4] & 0xff) && (ret[6] & 0xff), trailers = ret[7];
  drop_trailers(future);
  i32 mine = 0;
  if (some) {
    mine = new_fields();
    entries(trailers, ret);
    text *pairs = (void *)ret[0];
    for (i32 i = 0, count = ret[1]; i < count; i++)
      append(mine, pairs[2 * i].data, pairs[2 * i].size, pairs[2 * i + 1].data, pairs[2 * i + 1].size, ret);
    drop_fields(trailers);
  }
  end(some, mine);
}

/* How many bytes the body has. */
static void count(i32 request, i32 out) {
  i32 incoming, input = input_of(request, &incoming);
  i64 total = copy(input, 0);
  drop_input(input);
  finish_incoming(incoming);
  answer(out, total < 0 ? 400 : 200, total < 0 ? text_of("broken") : decimal(total));
}

/* Whichever comes first: a byte of the body or the end of this many milliseconds. */
static void race(i32 request, i32 out, i64 milliseconds) {
  i32 incoming, input = input_of(request, &incoming);
  i32 both[2] = {subscribe_input(input), subscribe_duration(milliseconds * 1000000)};
  poll(both, 2, ret);
  i32 *found = (i32 *)ret[0];
  answer(out, 200, text_of(ret[1] == 2 ? "both" : found[0] ? "time" : "body"));
  drop_pollable(both[0]);
  drop_pollable(both[1]);
  drop_input(input);
  finish_incoming(incoming);
}

static void out_failed(i32 out, i32 code) {
  begin(out, 502);
  put(stream, text_of("error "));
  put(stream, decimal(code));
  end(0, 0);
}

/* A request to AUTHORITY/PATH, whose answer is the answer: /fetch/http/AUTHORITY/PATH. */
static void fetch(i32 request, i32 out, text target) {
  i32 secure = begins(target, "https/");
  text authority = after(target, '/');
  text path = after(authority, '/');
  authority.size = authority.size - path.size - (path.data[0] || path.size ? 1 : 0);
  if (authority.size && authority.data[authority.size - 1] == '/') authority.size--;
  i32 mine = new_fields();
  append(mine, "x-from", 6, "guest", 5, ret);
  i32 sent = new_request(mine);
  get_method(request, ret);
  i32 method = ret[0] & 0xff;
  set_method(sent, method, 0, 0);
  set_scheme(sent, 1, secure, 0, 0);
  set_authority(sent, 1, authority.data, authority.size);
  set_path(sent, 1, path.data - 1, path.size + 1);
  i32 options = new_options();
  set_first_byte(options, 1, 2000000000LL);
  request_body(sent, ret);
  i32 sent_body = ret[1];
  send_request(sent, 1, options, ret);
  if (ret[0] & 0xff) {
    out_failed(out, ret[2] & 0xff);
    return;
  }
  i32 future = ret[2];
  body_write(sent_body, ret);
  i32 sent_stream = ret[1];
  i32 incoming, input = input_of(request, &incoming);
  copy(input, sent_stream);
  drop_input(input);
  finish_incoming(incoming);
  drop_output(sent_stream);
  finish_body(sent_body, 0, 0, ret);
  i32 waits = subscribe_response(future);
  block(waits);
  drop_pollable(waits);
  get_response(future, ret);
  if (!(ret[0] & 0xff) || (ret[2] & 0xff)) __builtin_trap();
  if (ret[4] & 0xff) {
    out_failed(out, ret[6] & 0xff);
    return;
  }
  i32 came = ret[6];
  i32 status = response_status(came);
  consume_response(came, ret);
  i32 came_body = ret[1];
  body_stream(came_body, ret);
  i32 came_stream = ret[1];
  begin(out, status);
  i64 total = copy(came_stream, stream);
  if (total < 0) put(stream, text_of("[broken]"));
  drop_input(came_stream);
  end(0, 0);
}

static i64 requests;

__attribute__((export_name("wasi:http/incoming-handler@0.2.0#handle"))) void handle(i32 request, i32 out) {
  used = 0;
  requests++;
  get_path(request, ret);
  text path = {(const char *)ret[1], ret[2]}, rest = after(path, '?');
  fields = new_fields();
  append(fields, "content-type", 12, "text/plain", 10, ret);
  if (begins(path, "/hello")) return answer(out, 200, text_of("hello, component\n"));
  if (begins(path, "/request")) return show_request(request, out);
  if (begins(path, "/echo")) return echo(request, out);
  if (begins(path, "/count")) return count(request, out);
  if (begins(path, "/race")) return race(request, out, number(rest.data, rest.size));
  if (begins(path, "/status")) return answer(out, number(rest.data, rest.size), text_of("as you say"));
  if (begins(path, "/total")) return answer(out, 200, decimal(requests));
  if (begins(path, "/sleep")) {
    nap(number(rest.data, rest.size));
    return answer(out, 200, text_of("slept"));
  }
  if (begins(path, "/pieces")) { /* with a pause between them */
    begin(out, 200);
    for (i64 i = number(rest.data, rest.size); i; i--) {
      put(stream, text_of("piece\n"));
      nap(100);
    }
    return end(0, 0);
  }
  if (begins(path, "/much")) { /* this many times 4096 bytes */
    begin(out, 200);
    for (i64 i = number(rest.data, rest.size); i; i--)
      if (!put(stream, (text){(const char *)memory, 4096})) return;
    return end(0, 0);
  }
  if (begins(path, "/length")) { /* says this length, and sends five bytes */
    append(fields, "content-length", 14, rest.data, rest.size, ret);
    begin(out, 200);
    put(stream, text_of("12345"));
    return end(0, 0);
  }
  if (begins(path, "/forbidden")) {
    append(fields, "transfer-encoding", 17, "chunked", 7, ret);
    return answer(out, 200, decimal(ret[0] & 0xff ? (ret[0] >> 8 & 0xff) : 99));
  }
  if (begins(path, "/trap-late")) {
    begin(out, 200);
    put(stream, text_of("half of"));
    nap(20);
    __builtin_trap();
  }
  if (begins(path, "/trap")) __builtin_trap();
  if (begins(path, "/spin"))
    for (volatile i32 forever = 1; forever;) {}
  if (begins(path, "/none")) return;
  if (begins(path, "/refuse")) return set_response(out, 1, 38, 0, 0, 0, 0, 0, 0);
  if (begins(path, "/hold")) return begin(out, 200);
  if (begins(path, "/leak"))
    for (i64 i = number(rest.data, rest.size); i; i--) new_fields();
  if (begins(path, "/leak")) return answer(out, 200, text_of("leaked"));
  if (begins(path, "/twice")) {
    answer(out, 200, text_of("once"));
    set_response(out, 1, 38, 0, 0, 0, 0, 0, 0);
  }
  if (begins(path, "/fetch/")) return fetch(request, out, (text){path.data + 7, path.size - 7});
  if (begins(path, "/log")) {
    i32 where = get_stderr();
    put(where, text_of("a line of the guest\n"));
    drop_output(where);
  }
  if (begins(path, "/environment")) {
    get_environment(ret);
    struct {
      text name, value;
    } *list = (void *)ret[0];
    i32 count = ret[1];
    begin(out, 200);
    for (i32 i = 0; i < count; i++) {
      put(stream, list[i].name);
      put(stream, text_of("="));
      put(stream, list[i].value);
      put(stream, text_of("\n"));
    }
    return end(0, 0);
  }
  answer(out, begins(path, "/log") ? 200 : 404, text_of("nothing\n"));
}
