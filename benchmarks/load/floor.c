// floor: shows how cheap a WebSocket server can be on this machine. It makes only the
// system calls of an echo (/echo) and a fan-out (/fanout). It has nothing else that a
// server needs: no checks, no timers, no limits, no handling of invalid input.
//
// It corks as Symphony and uWebSockets do: one send() for all frames of one read, and
// one for all publications that a member gets in one turn of the loop.
//
// usage: floor PORT

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frame.h"

enum { MAX_FILES = 1 << 20, READ_BYTES = 256 * 1024, EVENTS = 512 };

// wsload always sends the example key of RFC 6455 §1.3, so the response is a constant.
static const char ACCEPTED[] = "HTTP/1.1 101 Switching Protocols\r\n"
                               "Upgrade: websocket\r\n"
                               "Connection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct connection {
    int fd;
    int upgraded;
    int member;          // its index in `members`, or -1
    unsigned char *rest; // an incomplete frame or request
    size_t held;
};

static struct connection *connections[MAX_FILES]; // by file descriptor
static struct connection *members[MAX_FILES];
static int member_count;
static unsigned char input[READ_BYTES + MAX_PAYLOAD];
static unsigned char replies[READ_BYTES + MAX_PAYLOAD];
static unsigned char *batch; // this turn's publications, framed once for all members
static size_t batch_size, batch_capacity;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void drop(struct connection *connection) {
    if (connection->member >= 0) {
        struct connection *last = members[--member_count];
        members[connection->member] = last;
        last->member = connection->member;
    }
    connections[connection->fd] = NULL;
    close(connection->fd);
    free(connection->rest);
    free(connection);
}

static void write_all(struct connection *connection, const unsigned char *bytes, size_t size) {
    ssize_t written = send(connection->fd, bytes, size, MSG_NOSIGNAL);
    // Kernel buffers hold far more than the load keeps in flight. If one is full, the
    // measurement is wrong, so there is no queue here.
    if (written >= 0 && (size_t)written != size) {
        fprintf(stderr, "floor: a send buffer is full\n");
        exit(1);
    }
}

static void publish(const struct frame *frame) {
    size_t needed = batch_size + frame->length + MAX_HEADER;
    if (needed > batch_capacity) {
        batch_capacity = needed * 2;
        batch = realloc(batch, batch_capacity);
    }
    copy_masked(frame->payload, frame->payload, frame->length, frame->mask);
    batch_size += write_frame(batch + batch_size, frame->opcode, frame->payload, frame->length, NULL);
}

static void deliver(void) {
    for (int i = 0; i < member_count; i++)
        write_all(members[i], batch, batch_size);
    batch_size = 0;
}

static size_t upgrade(struct connection *connection, unsigned char *bytes, size_t size) {
    unsigned char *end = memmem(bytes, size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    if (memcmp(bytes, "GET /fanout ", 12) == 0) {
        connection->member = member_count;
        members[member_count++] = connection;
    }
    connection->upgraded = 1;
    write_all(connection, (const unsigned char *)ACCEPTED, sizeof ACCEPTED - 1);
    return end + 4 - bytes;
}

// Returns 0 if the connection has ended.
static int receive(struct connection *connection) {
    if (connection->held)
        memcpy(input, connection->rest, connection->held);
    ssize_t got = recv(connection->fd, input + connection->held, READ_BYTES, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    size_t size = connection->held + got, used = 0, reply_size = 0;
    if (!connection->upgraded)
        used = upgrade(connection, input, size);
    struct frame frame;
    while (connection->upgraded && parse_frame(input + used, size - used, &frame)) {
        used += frame.size;
        if (frame.opcode == CLOSE)
            return 0;
        if (connection->member >= 0) {
            publish(&frame);
        } else {
            copy_masked(frame.payload, frame.payload, frame.length, frame.mask);
            reply_size += write_frame(replies + reply_size, frame.opcode, frame.payload, frame.length, NULL);
        }
    }
    if (reply_size)
        write_all(connection, replies, reply_size);
    connection->held = size - used;
    if (connection->held) {
        connection->rest = realloc(connection->rest, connection->held);
        memcpy(connection->rest, input + used, connection->held);
    }
    return 1;
}

static void accept_all(int listener, int epoll) {
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *connection = calloc(1, sizeof *connection);
        connection->fd = fd;
        connection->member = -1;
        connections[fd] = connection;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: floor PORT\n");
        return 2;
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < MAX_FILES ? files.rlim_max : MAX_FILES;
    setrlimit(RLIMIT_NOFILE, &files);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 2048))
        die("listen");
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);

    for (;;) {
        struct epoll_event events[EVENTS];
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        if (ready < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener)
                accept_all(listener, epoll);
            else if (!receive(connections[fd]))
                drop(connections[fd]);
        }
        if (batch_size)
            deliver();
    }
}
