/* An actor that counts how often each path has been asked for, in the key-value store that it is granted. */
#include "actor.h"

static uint32_t handle_request(struct cursor message) {
    struct cursor value;
    uint32_t length = 0;
    const uint8_t *path = (const uint8_t *)"/";
    if (find(message, "path", &value)) path = text_of(&value, &length);

    uint8_t *out = put_text(put_map(answer, 2), "key");
    out = put_long(out, 0xdb, path, length);
    out = put_number(put_text(out, "value"), 1);
    if (!ask("wascc:keyvalue", "Add", answer, out)) return 0;

    request_length = host_response_len();
    if (request_length > MOST) return fail("the answer is too long");
    host_response(request);
    struct cursor found = {request, request + request_length};
    int32_t count = find(found, "value", &value) ? number_of(&value) : 0;

    char digits[12], text[32];
    uint32_t at = sizeof digits, size;
    uint32_t rest = (uint32_t)count;
    do digits[--at] = (char)('0' + rest % 10); while (rest /= 10);
    size = (uint32_t)(put(put((uint8_t *)text, "{\"counter\": ", 12), digits + at, sizeof digits - at) - (uint8_t *)text);
    text[size++] = '}';
    text[size++] = '\n';
    return respond(200, "application/json", text, size);
}
