/* A component that serves HTTP, without any library. It greets whoever asks, and sends back what is sent to it.

   A component has no socket and no main: the host listens, and calls `handle` for each request. What is called here are
   functions of the interfaces in http.wit, by the rules of the component model's canonical ABI:

   - a resource (a request, a body, a stream) is a number, its handle;
   - a function that returns more than a number writes it to `ret`. A result or an option begins there with a byte that
     is 0 for what is good, or for nothing, and 1 for an error, or for something; what it holds comes behind it;
   - a text, or a list of bytes, is its place and its length. The host asks `cabi_realloc` for a place for what it
     returns. */
#include <stddef.h>
#include <stdint.h>

typedef int32_t handle;
typedef struct {
  const char *data;
  int32_t size;
} text;

#define IMPORT(interface, name) __attribute__((import_module(interface "@0.2.0"), import_name(name))) extern
#define EXPORT(name) __attribute__((export_name(name)))
#define ENVIRONMENT "wasi:cli/environment"
#define STREAMS "wasi:io/streams"
#define HTTP "wasi:http/types"

IMPORT(ENVIRONMENT, "get-environment") void get_environment(void *ret);
IMPORT(STREAMS, "[method]input-stream.blocking-read") void blocking_read(handle stream, int64_t size, void *ret);
IMPORT(STREAMS, "[resource-drop]input-stream") void drop_input_stream(handle stream);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void blocking_write(handle stream, const char *data, int32_t size, void *ret);
IMPORT(STREAMS, "[resource-drop]output-stream") void drop_output_stream(handle stream);
IMPORT(HTTP, "[constructor]fields") handle new_fields(void);
IMPORT(HTTP, "[method]fields.append")
void append_field(handle fields, const char *name, int32_t name_size, const char *value, int32_t size, void *ret);
IMPORT(HTTP, "[method]incoming-request.method") void request_method(handle request, void *ret);
IMPORT(HTTP, "[method]incoming-request.path-with-query") void request_path(handle request, void *ret);
IMPORT(HTTP, "[method]incoming-request.consume") void request_body(handle request, void *ret);
IMPORT(HTTP, "[resource-drop]incoming-request") void drop_request(handle request);
IMPORT(HTTP, "[method]incoming-body.stream") void incoming_stream(handle body, void *ret);
IMPORT(HTTP, "[resource-drop]incoming-body") void drop_incoming_body(handle body);
IMPORT(HTTP, "[constructor]outgoing-response") handle new_response(handle fields);
IMPORT(HTTP, "[method]outgoing-response.set-status-code") int32_t set_status(handle response, int32_t status);
IMPORT(HTTP, "[method]outgoing-response.body") void response_body(handle response, void *ret);
IMPORT(HTTP, "[method]outgoing-body.write") void outgoing_stream(handle body, void *ret);
IMPORT(HTTP, "[static]outgoing-body.finish") void finish(handle body, int32_t some, handle trailers, void *ret);
/* The numbers behind the response have the place of an error, which this component never answers with. */
IMPORT(HTTP, "[static]response-outparam.set")
void set_response(handle out, int32_t error, handle response, int32_t, int64_t, int32_t, int32_t, int32_t, int32_t);

enum { GET = 0, HEAD = 1, POST = 2, PUT = 3 }; /* of the variant `method` */

static int32_t ret[16] __attribute__((aligned(8)));
static char memory[256 * 1024] __attribute__((aligned(16)));
static size_t used;

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  used = (used + align - 1) & ~(align - 1);
  if (old || size > sizeof memory - used) __builtin_trap();
  void *place = memory + used;
  used += size;
  return place;
}

static text text_of(const char *word) {
  text found = {word, 0};
  while (word[found.size]) found.size++;
  return found;
}

static int same(text a, text b) {
  for (int32_t i = 0; i < a.size && i < b.size; i++)
    if (a.data[i] != b.data[i]) return 0;
  return a.size == b.size;
}

static int failed(void) { return ret[0] & 0xff; }

static text variable(const char *name, const char *otherwise) {
  get_environment(ret);
  const text *pairs = (const text *)ret[0];
  for (int32_t i = 0; i < ret[1]; i++)
    if (same(pairs[2 * i], text_of(name))) return pairs[2 * i + 1];
  return text_of(otherwise);
}

/* Write to a stream, which takes 4096 bytes at a time. If the client has gone away, this instance does, too. */
static void put(handle stream, text what) {
  while (what.size) {
    int32_t part = what.size < 4096 ? what.size : 4096;
    blocking_write(stream, what.data, part, ret);
    if (failed()) __builtin_trap();
    what.data += part;
    what.size -= part;
  }
}

/* What comes in one stream goes out by the other one, piece by piece; there is never more than one in memory. */
static void copy(handle from, handle to) {
  size_t before = used;
  for (;;) {
    used = before;
    blocking_read(from, 64 * 1024, ret);
    if (failed()) {
      if ((ret[1] & 0xff) == 1) return; /* closed: that was all */
      __builtin_trap();
    }
    put(to, (text){(const char *)ret[1], ret[2]});
  }
}

static handle body, stream; /* of the response */

static void begin(handle out, int32_t status) {
  handle fields = new_fields();
  text name = text_of("content-type"), value = text_of("text/plain; charset=utf-8");
  append_field(fields, name.data, name.size, value.data, value.size, ret);
  handle response = new_response(fields);
  set_status(response, status);
  response_body(response, ret);
  body = ret[1];
  set_response(out, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_stream(body, ret);
  stream = ret[1];
}

static void end(void) {
  drop_output_stream(stream);
  finish(body, 0, 0, ret);
}

static void greet(handle out, text path) {
  begin(out, 200);
  put(stream, text_of("Hello from "));
  put(stream, variable("HOSTNAME", "a component"));
  put(stream, text_of(": "));
  put(stream, path);
  put(stream, text_of("\n"));
  end();
}

static void send_back(handle request, handle out) {
  request_body(request, ret);
  handle incoming = ret[1];
  incoming_stream(incoming, ret);
  handle input = ret[1];
  begin(out, 200);
  copy(input, stream);
  end();
  drop_input_stream(input);
  drop_incoming_body(incoming);
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle") void serve(handle request, handle out) {
  used = 0; /* what an earlier request left, where an instance serves more than one */
  request_method(request, ret);
  int32_t method = ret[0] & 0xff;
  request_path(request, ret);
  text path = ret[0] & 0xff ? (text){(const char *)ret[1], ret[2]} : text_of("/");
  if (method == GET || method == HEAD) {
    greet(out, path);
  } else if (method == POST || method == PUT) {
    send_back(request, out);
  } else {
    begin(out, 405);
    put(stream, text_of("GET or POST\n"));
    end();
  }
  drop_request(request);
}
