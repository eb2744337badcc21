/* What an actor in C needs: waPC's calls, and just enough MessagePack. Actors are stateless here but for one buffer. */
#include <stdint.h>

#define IMPORT(name) __attribute__((import_module("wapc"), import_name(name)))

IMPORT("__guest_request") void guest_request(void *operation, void *message);
IMPORT("__guest_response") void guest_response(const void *bytes, uint32_t length);
IMPORT("__guest_error") void guest_error(const void *bytes, uint32_t length);
IMPORT("__host_call") uint32_t host_call(const void *binding, uint32_t, const void *capability, uint32_t,
                                         const void *operation, uint32_t, const void *message, uint32_t);
IMPORT("__host_response_len") uint32_t host_response_len(void);
IMPORT("__host_response") void host_response(void *bytes);
IMPORT("__host_error_len") uint32_t host_error_len(void);
IMPORT("__host_error") void host_error(void *bytes);

#define MOST 65536

static uint8_t request[MOST], answer[MOST];
static uint32_t request_length;

static uint32_t length_of(const char *text) {
    uint32_t length = 0;
    while (text[length]) length++;
    return length;
}

static int same(const uint8_t *bytes, uint32_t length, const char *text) {
    if (length_of(text) != length) return 0;
    for (uint32_t at = 0; at < length; at++)
        if (bytes[at] != (uint8_t)text[at]) return 0;
    return 1;
}

/* Reading: `cursor` is a place in a message. */

struct cursor { const uint8_t *at, *end; };

static uint32_t big(struct cursor *from, int bytes) {
    uint32_t value = 0;
    while (bytes-- && from->at < from->end) value = value << 8 | *from->at++;
    return value;
}

/* The bytes of a text or of binary data. */
static const uint8_t *text_of(struct cursor *from, uint32_t *length) {
    uint8_t kind = from->at < from->end ? *from->at++ : 0xc0;
    *length = kind >= 0xa0 && kind <= 0xbf ? kind & 31u
            : kind == 0xd9 || kind == 0xc4 ? big(from, 1)
            : kind == 0xda || kind == 0xc5 ? big(from, 2)
            : kind == 0xdb || kind == 0xc6 ? big(from, 4) : 0;
    if (*length > (uint32_t)(from->end - from->at)) *length = 0;
    const uint8_t *found = from->at;
    from->at += *length;
    return found;
}

static int32_t number_of(struct cursor *from) {
    uint8_t kind = from->at < from->end ? *from->at++ : 0;
    if (kind < 0x80) return kind;
    if (kind >= 0xe0) return (int8_t)kind;
    if (kind == 0xcc) return (int32_t)big(from, 1);
    if (kind == 0xd0) return (int8_t)big(from, 1);
    if (kind == 0xcd) return (int32_t)big(from, 2);
    if (kind == 0xd1) return (int16_t)big(from, 2);
    return (int32_t)big(from, 4);
}

static uint32_t entries_of(struct cursor *from) {
    uint8_t kind = from->at < from->end ? *from->at++ : 0;
    return kind >= 0x80 && kind <= 0x8f ? kind & 15u : kind == 0xde ? big(from, 2) : kind == 0xdf ? big(from, 4) : 0;
}

/* Pass over a value that has only texts, numbers and maps of them in it. */
static void skip(struct cursor *from) {
    uint8_t kind = from->at < from->end ? *from->at : 0;
    if ((kind >= 0x80 && kind <= 0x8f) || kind == 0xde || kind == 0xdf) {
        uint32_t entries = entries_of(from);
        while (entries-- && from->at < from->end) skip(from), skip(from);
    } else if ((kind >= 0xa0 && kind <= 0xbf) || (kind >= 0xc4 && kind <= 0xc6) || (kind >= 0xd9 && kind <= 0xdb)) {
        uint32_t length;
        text_of(from, &length);
    } else if (kind == 0xc0 || kind == 0xc2 || kind == 0xc3) {
        from->at++;
    } else if (kind == 0xcf || kind == 0xd3) {
        from->at += 9;
    } else {
        number_of(from);
    }
}

/* The value of a map under this name; 0 where it has none. */
static int find(struct cursor map, const char *name, struct cursor *value) {
    uint32_t entries = entries_of(&map);
    while (entries-- && map.at < map.end) {
        uint32_t length;
        const uint8_t *key = text_of(&map, &length);
        if (same(key, length, name)) {
            *value = map;
            return 1;
        }
        skip(&map);
    }
    return 0;
}

/* Writing: `out` is the end of what has been written to a buffer. */

static uint8_t *put(uint8_t *out, const void *bytes, uint32_t length) {
    for (uint32_t at = 0; at < length; at++) out[at] = ((const uint8_t *)bytes)[at];
    return out + length;
}

static uint8_t *put_number(uint8_t *out, int32_t value) {
    *out++ = 0xd2;
    for (int shift = 24; shift >= 0; shift -= 8) *out++ = (uint8_t)(value >> shift);
    return out;
}

static uint8_t *put_long(uint8_t *out, uint8_t kind, const void *bytes, uint32_t length) {
    *out++ = kind;
    for (int shift = 24; shift >= 0; shift -= 8) *out++ = (uint8_t)(length >> shift);
    return put(out, bytes, length);
}

static uint8_t *put_text(uint8_t *out, const char *text) { return put_long(out, 0xdb, text, length_of(text)); }

static uint8_t *put_binary(uint8_t *out, const void *bytes, uint32_t length) {
    return put_long(out, 0xc6, bytes, length);
}

static uint8_t *put_map(uint8_t *out, uint8_t entries) {
    *out++ = 0x80 | entries;
    return out;
}

static uint32_t fail(const char *why) {
    guest_error(why, length_of(why));
    return 0;
}

/* Answer an HTTP request. */
static uint32_t respond(int32_t status, const char *type, const void *body, uint32_t length) {
    if (length + length_of(type) > MOST - 128) return fail("the answer is too long");
    uint8_t *out = put_map(answer, 4);
    out = put_number(put_text(out, "statusCode"), status);
    out = put_text(put_text(out, "status"), status == 200 ? "OK" : "");
    out = put_text(put_text(put_map(put_text(out, "header"), 1), "content-type"), type);
    out = put_binary(put_text(out, "body"), body, length);
    guest_response(answer, (uint32_t)(out - answer));
    return 1;
}

/* Ask the host, by the binding `default`; 0 where it refuses, which is then this actor's own error. */
static uint32_t ask(const char *capability, const char *operation, const uint8_t *message, const uint8_t *end) {
    if (host_call("default", 7, capability, length_of(capability), operation, length_of(operation), message,
                  (uint32_t)(end - message)))
        return 1;
    uint32_t length = host_error_len();
    if (length > MOST) length = MOST;
    host_error(answer);
    guest_error(answer, length);
    return 0;
}

static uint32_t handle_request(struct cursor message);

/* An actor that is told other things, as messages of a broker, defines this before it includes the header. */
#ifndef HANDLE_OTHER
#define HANDLE_OTHER(operation, length, message) fail("this actor answers requests of HTTP only")
#endif

__attribute__((export_name("__guest_call"))) uint32_t guest_call(uint32_t operation_length, uint32_t message_length) {
    static uint8_t operation[64];
    if (operation_length > sizeof operation || message_length > MOST) return fail("the message is too long");
    request_length = message_length;
    guest_request(operation, request);
    struct cursor message = {request, request + message_length};
    if (same(operation, operation_length, "HandleRequest")) return handle_request(message);
    if (same(operation, operation_length, "HealthRequest")) {
        guest_response(answer, (uint32_t)(put_map(answer, 0) - answer));
        return 1;
    }
    return HANDLE_OTHER(operation, operation_length, message);
}
