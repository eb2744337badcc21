/* An actor that answers each request with its own body, or with its path where it has none. */
#include "actor.h"

static uint32_t handle_request(struct cursor message) {
    struct cursor value;
    uint32_t length = 0;
    const uint8_t *found = (const uint8_t *)"";
    if (find(message, "body", &value)) found = text_of(&value, &length);
    if (!length && find(message, "path", &value)) found = text_of(&value, &length);
    return respond(200, "text/plain", found, length);
}
