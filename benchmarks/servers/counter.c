/* A component that does what the actor of examples/wascc/counter.c does: it counts how often each path was asked for. Its
   instance has to be reused, since it keeps the counts in its memory. examples/http/http.c explains the calls. */
#include <stdint.h>

typedef int32_t handle;

#define IMPORT(interface, name) __attribute__((import_module(interface "@0.2.0"), import_name(name))) extern
#define EXPORT(name) __attribute__((export_name(name)))
#define HTTP "wasi:http/types"
#define STREAMS "wasi:io/streams"

IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void blocking_write(handle stream, const char *data, int32_t size, void *ret);
IMPORT(STREAMS, "[resource-drop]output-stream") void drop_output_stream(handle stream);
IMPORT(HTTP, "[constructor]fields") handle new_fields(void);
IMPORT(HTTP, "[method]fields.append")
void append_field(handle fields, const char *name, int32_t name_size, const char *value, int32_t size, void *ret);
IMPORT(HTTP, "[method]incoming-request.path-with-query") void request_path(handle request, void *ret);
IMPORT(HTTP, "[resource-drop]incoming-request") void drop_request(handle request);
IMPORT(HTTP, "[constructor]outgoing-response") handle new_response(handle fields);
IMPORT(HTTP, "[method]outgoing-response.body") void response_body(handle response, void *ret);
IMPORT(HTTP, "[method]outgoing-body.write") void outgoing_stream(handle body, void *ret);
IMPORT(HTTP, "[static]outgoing-body.finish") void finish(handle body, int32_t some, handle trailers, void *ret);
IMPORT(HTTP, "[static]response-outparam.set")
void set_response(handle out, int32_t error, handle response, int32_t, int64_t, int32_t, int32_t, int32_t, int32_t);

enum { PATHS = 64, LONGEST = 256 };

static int32_t ret[16] __attribute__((aligned(8)));
static char memory[64 * 1024] __attribute__((aligned(16)));
static uint32_t used;
static struct {
  char path[LONGEST];
  int32_t size;
  uint32_t count;
} counts[PATHS];

EXPORT("cabi_realloc") void *cabi_realloc(void *old, uint32_t old_size, uint32_t align, uint32_t size) {
  used = (used + align - 1) & ~(align - 1);
  if (old || size > sizeof memory - used) __builtin_trap();
  void *place = memory + used;
  used += size;
  return place;
}

static int same(const char *a, const char *b, int32_t size) {
  while (size--)
    if (a[size] != b[size]) return 0;
  return 1;
}

static uint32_t counted(const char *path, int32_t size) {
  if (size > LONGEST) __builtin_trap();
  int32_t at = 0;
  while (at < PATHS && counts[at].count && !(counts[at].size == size && same(counts[at].path, path, size))) at++;
  if (at == PATHS) __builtin_trap();
  if (!counts[at].count) {
    counts[at].size = size;
    for (int32_t i = 0; i < size; i++) counts[at].path[i] = path[i];
  }
  return ++counts[at].count;
}

EXPORT("wasi:http/incoming-handler@0.2.0#handle") void serve(handle request, handle out) {
  static const char type[] = "content-type", json[] = "application/json", start[] = "{\"counter\": ";
  char digits[12], text[40];
  used = 0;
  request_path(request, ret);
  uint32_t count = ret[0] & 0xff ? counted((const char *)ret[1], ret[2]) : counted("/", 1);
  int32_t at = sizeof digits, size = 0;
  do digits[--at] = '0' + count % 10; while (count /= 10);
  while (start[size]) text[size] = start[size], size++;
  while (at < (int32_t)sizeof digits) text[size++] = digits[at++];
  text[size++] = '}';
  text[size++] = '\n';

  handle fields = new_fields();
  append_field(fields, type, sizeof type - 1, json, sizeof json - 1, ret);
  handle response = new_response(fields);
  response_body(response, ret);
  handle body = ret[1];
  set_response(out, 0, response, 0, 0, 0, 0, 0, 0);
  outgoing_stream(body, ret);
  handle stream = ret[1];
  blocking_write(stream, text, size, ret);
  drop_output_stream(stream);
  finish(body, 0, 0, ret);
  drop_request(request);
}
