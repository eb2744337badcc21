/* A module of preview 1 that asks over HTTP by wasi_experimental_http, as Krustlet's nodes had it. Its arguments are
   instructions, carried out in order:

     get URL              prints the status, the field x-answer, and the body
     send METHOD URL HEADERS BODY   the same; HEADERS are lines of name:value
     fields URL           prints all fields
     upload URL BYTES     sends so many bytes; prints the body of the answer
     keep URL COUNT       leaves so many responses open, and prints the code of the first that failed
     wrong                calls with pointers and handles that are none, and prints the codes */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HTTP(name) __attribute__((import_module("wasi_experimental_http"), import_name(name))) extern

HTTP("req")
uint32_t req(const char *url, size_t url_size, const char *method, size_t method_size, const char *fields,
             size_t fields_size, const void *body, size_t body_size, uint16_t *status, uint32_t *handle);
HTTP("close") uint32_t end(uint32_t handle);
HTTP("header_get")
uint32_t header_get(uint32_t handle, const char *name, size_t name_size, char *value, size_t size, size_t *written);
HTTP("headers_get_all") uint32_t headers_get_all(uint32_t handle, char *value, size_t size, size_t *written);
HTTP("body_read") uint32_t body_read(uint32_t handle, void *buffer, size_t size, size_t *written);

static uint16_t status;
static uint32_t handle;

static uint32_t ask(const char *method, const char *url, const char *fields, const void *body, size_t size) {
  return req(url, strlen(url), method, strlen(method), fields, strlen(fields), body, size, &status, &handle);
}
static void show(void) {
  static char buffer[3000];
  size_t size;
  printf("%d", status);
  if (!header_get(handle, "X-Answer", 8, buffer, sizeof buffer, &size)) printf(" %.*s", (int)size, buffer);
  printf(" ");
  uint32_t code;
  while (!(code = body_read(handle, buffer, sizeof buffer, &size)) && size) fwrite(buffer, 1, size, stdout);
  if (code) printf("[%u]", code);
  printf("\n");
  end(handle);
}
static void send(const char *method, const char *url, const char *fields, const void *body, size_t size) {
  uint32_t code = ask(method, url, fields, body, size);
  if (code) printf("error %u\n", code);
  else show();
}
static void wrong(void) {
  static char buffer[8];
  size_t size;
  const char *far = (const char *)0xfffffff0, *url = "http://127.0.0.1/";
  printf("%u %u %u ", body_read(99, buffer, 8, &size), header_get(99, "x", 1, buffer, 8, &size),
         headers_get_all(99, buffer, 8, &size));
  printf("%u ", end(99));
  printf("%u %u ", req(far, 100, "GET", 3, "", 0, 0, 0, &status, &handle),
         req(url, 17, "GET", 3, "", 0, far, 0x7fffffff, &status, &handle));
  printf("%u ", req(url, 17, "GET", 3, "", 0, 0, 0, (uint16_t *)far, &handle));
  printf("%u ", req(url, 17, "GET", 3, "", 0, 0, 0, &status, (uint32_t *)0xfffffffe));
  printf("%u %u ", ask("G T", url, "", 0, 0), ask("GET", url, "no field", 0, 0));
  printf("%u %u ", ask("GET", url, "host:elsewhere", 0, 0), ask("GET", url, "a:b\nx y:z", 0, 0));
  printf("%u %u %u %u ", ask("GET", "ftp://127.0.0.1/", "", 0, 0), ask("GET", "http:///", "", 0, 0),
         ask("GET", "http://a:b@127.0.0.1/", "", 0, 0), ask("GET", "http://127.0.0.1/a b\r\nx", "", 0, 0));
  printf("%u\n", ask("GET", "\xff", "", 0, 0));
}

int main(int count, char **words) {
  setbuf(stdout, 0);
  for (int i = 1; i < count;) {
    const char *word = words[i++];
    if (!strcmp(word, "get")) send("GET", words[i++], "", 0, 0);
    else if (!strcmp(word, "send")) {
      send(words[i], words[i + 1], words[i + 2], words[i + 3], strlen(words[i + 3]));
      i += 4;
    } else if (!strcmp(word, "fields")) {
      static char buffer[3000];
      size_t size, ignored;
      if (ask("GET", words[i++], "", 0, 0)) return 1;
      printf("%u\n", headers_get_all(handle, buffer, 1, &ignored));
      if (headers_get_all(handle, buffer, sizeof buffer, &size)) return 1;
      fwrite(buffer, 1, size, stdout);
      printf("%u %u\n", header_get(handle, "absent", 6, buffer, 8, &size),
             header_get(handle, "x-answer", 8, buffer, 1, &size));
    } else if (!strcmp(word, "upload")) {
      size_t size = strtoul(words[i + 1], 0, 10);
      char *data = malloc(size);
      memset(data, 'x', size);
      send("POST", words[i], "content-type:text/plain", data, size);
      i += 2;
    } else if (!strcmp(word, "keep")) {
      uint32_t code = 0;
      for (int left = atoi(words[i + 1]); left && !code; left--) code = ask("GET", words[i], "", 0, 0);
      printf("%u\n", code);
      i += 2;
    } else if (!strcmp(word, "wrong")) wrong();
    else return 1;
  }
  return 0;
}
