/* An actor that asks its host for whatever a request says: the body is the message, the path names binding, capability
 * and operation, as /default/wascc:keyvalue/Add. `/told` answers the last message that it was told beside requests. */
#include <stdint.h>

static uint32_t told(const uint8_t *operation, uint32_t length);
#define HANDLE_OTHER(operation, length, message) told(operation, length)
#include "../../examples/wascc/actor.h"

static uint8_t kept[MOST];
static uint32_t kept_length, times;

static uint32_t told(const uint8_t *operation, uint32_t length) {
    (void)operation;
    (void)length;
    kept_length = (uint32_t)(put(kept, request, request_length) - kept);
    times++;
    guest_response(answer, 0);
    return 1;
}

static uint32_t handle_request(struct cursor message) {
    struct cursor value;
    uint32_t length = 0, body_length = 0, parts[4] = {0}, count = 0;
    const uint8_t *path = (const uint8_t *)"", *body = path;
    if (find(message, "path", &value)) path = text_of(&value, &length);
    if (find(message, "body", &value)) body = text_of(&value, &body_length);
    if (same(path, length, "/told")) return respond(200, "application/msgpack", kept, kept_length);
    for (uint32_t at = 0; at < length && count < 4; at++)
        if (path[at] == '/') parts[count++] = at + 1;
    if (count < 3) return fail("expected /BINDING/CAPABILITY/OPERATION");
    if (host_call(path + parts[0], parts[1] - parts[0] - 1, path + parts[1], parts[2] - parts[1] - 1,
                  path + parts[2], length - parts[2], body, body_length)) {
        uint32_t size = host_response_len();
        if (size > MOST / 2) return fail("the answer is too long");
        host_response(kept);
        return respond(200, "application/msgpack", kept, size);
    }
    uint32_t size = host_error_len();
    if (size > MOST / 2) size = MOST / 2;
    host_error(kept);
    return respond(502, "text/plain", kept, size);
}
