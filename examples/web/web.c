/*
 * web: a small HTTP server. It answers each request with the name of its pod and with the path that was asked for.
 *
 * A guest opens no ports. The node opens those that the container declares, and hands them over as descriptors: the
 * first TCP containerPort is descriptor 3, the second one 4, and so on. So the server accepts on descriptor 3 and need
 * not know its port. All descriptors are non-blocking: it waits for them with poll().
 *
 *   LISTEN_FDS   how many ports there are (the node sets it)
 *   HOSTNAME     the name of the pod (the node sets it)
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LISTENER = 3, CLIENTS = 32, REQUEST = 2048, PATH = 256 };

struct client {
    int fd; /* -1: nobody */
    size_t length;
    char request[REQUEST];
};

static struct client clients[CLIENTS];

static void drop(struct client *client) {
    close(client->fd);
    client->fd = -1;
}

/* Takes a new client. Where all places are taken, one that has not sent its request in all this time has to go. */
static void take(void) {
    static int eldest;
    int fd = accept4(LISTENER, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) return; /* it has gone again */

    struct client *place = NULL;
    for (int i = 0; i < CLIENTS && !place; i++)
        if (clients[i].fd < 0) place = &clients[i];
    if (!place) {
        place = &clients[eldest++ % CLIENTS];
        drop(place);
    }
    place->fd = fd;
    place->length = 0;
}

static void answer(struct client *client) {
    char method[8] = "", path[PATH] = "", body[PATH + 256], head[256];
    const char *name = getenv("HOSTNAME");
    const char *status = sscanf(client->request, "%7s %255s", method, path) == 2 ? "200 OK" : "400 Bad Request";

    int size = snprintf(body, sizeof body, "Hello from %s: %s\n", name ? name : "nowhere", path);
    int headed = snprintf(head, sizeof head,
                          "HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
                          status, size);
    /* Less than the connection holds, so that neither write has to wait. */
    write(client->fd, head, headed);
    if (strcmp(method, "HEAD") != 0) write(client->fd, body, size);

    if (strcmp(path, "/healthz") != 0) { /* probes ask for that every few seconds */
        printf("%s %s\n", method, path);
        fflush(stdout);
    }
}

/* Reads what a client has sent, and answers once its request is whole. */
static void serve(struct client *client) {
    ssize_t got = read(client->fd, client->request + client->length, REQUEST - 1 - client->length);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got > 0) {
        client->length += got;
        client->request[client->length] = '\0';
        if (strstr(client->request, "\r\n\r\n"))
            answer(client);
        else if (client->length < REQUEST - 1)
            return; /* there is more to come */
    }
    drop(client);
}

int main(void) {
    const char *ports = getenv("LISTEN_FDS");
    if (!ports || atoi(ports) < 1) {
        fputs("no port was given: declare a containerPort, on a node that has a network; kubectl exec has none\n", stderr);
        return 1;
    }
    for (int i = 0; i < CLIENTS; i++) clients[i].fd = -1;
    puts("serving");
    fflush(stdout);

    for (;;) {
        struct pollfd waits[CLIENTS + 1] = {{.fd = LISTENER, .events = POLLIN}};
        struct client *of[CLIENTS + 1];
        int count = 1;
        for (int i = 0; i < CLIENTS; i++) {
            if (clients[i].fd < 0) continue;
            of[count] = &clients[i];
            waits[count++] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
        }
        if (poll(waits, count, -1) < 0) continue;
        for (int i = 1; i < count; i++)
            if (waits[i].revents) serve(of[i]);
        if (waits[0].revents) take();
    }
}
