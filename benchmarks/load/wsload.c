// wsload: puts load on a WebSocket server on 127.0.0.1, and prints the measurement as one
// line of JSON.
//
//   echo     Every connection keeps `depth` messages in flight and sends the next when one
//            comes back. Counts messages that came back.
//   fanout   Connection 0 keeps `depth` publications in flight and sends the next when its
//            own copy comes back. Counts what all connections receive.
//   request  Every connection keeps `depth` requests in flight, each with a different id,
//            and sends the next when one is answered. Counts replies. A message that is not
//            the correct reply to a request in flight ends the run.
//   connect  Opens connections as fast as the server accepts them, 64 handshakes at a time,
//            until there are `connections` or `seconds` have passed.
//   idle     Opens connections, prints how many, and holds them until stdin is closed.
//
// Echo, fan-out and request are closed loops: a new message is sent only when an earlier one
// has come back. So they measure the server's rate, not the length of a queue. They warm up,
// measure for a time, stop sending, and wait for the messages in flight. Messages that do not
// arrive are reported as `lost`.
//
// Messages are framed once, at start. A message therefore costs two byte comparisons, a
// counter, and its share of a system call for all messages of one read. Only requests are
// framed when they are sent, because of their ids, and their replies are compared completely.
// `generator_cpu` (the busiest thread's share of a core) and `server_cpu` show which of the two
// was the bottleneck.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frame.h"
#include "options.h"

enum {
    READ_BYTES = 256 * 1024,
    EVENTS = 512,
    CONCURRENCY = 64, // concurrent handshakes
    SOURCE_ADDRESSES = 16, // 127.0.0.1 … 127.0.0.16, because one has too few ports for quick repeats
    MAX_REQUEST = 1024,    // bytes
    TIME_LIMIT = 120,      // seconds, for the whole process
};

static const double OPEN_LIMIT = 30.0;  // for opening all connections
static const double SETTLE_TIME = 0.2;  // a server may join members after its response
static const double DRAIN_LIMIT = 3.0;  // for messages in flight at the end
static const double CLOSE_LIMIT = 2.0;  // for closing handshakes

// The example of RFC 6455 §1.3. One key for all connections is enough, and the response to
// it is known.
static const char KEY[] = "dGhlIHNhbXBsZSBub25jZQ==";
static const char ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};

enum state { CONNECTING, UPGRADING, GREETING, OPEN, CLOSING, CLOSED };

// One of the `depth` requests that a connection keeps in flight. Slot i uses the ids i + depth,
// i + 2 * depth and so on, so the id of a reply identifies the slot.
struct slot {
    uint64_t id;
    int in_flight;
};

struct connection {
    int fd;
    int number;
    enum state state;
    unsigned char *rest; // an incomplete frame
    size_t held;
    struct slot *slots; // only in the mode `request`
};

// The work of a worker, and its cost, up to a certain time.
struct snapshot {
    double time, cpu, server_cpu;
    uint64_t received;
};

struct worker {
    pthread_t thread;
    int index, epoll;
    struct connection *connections;
    int count;   // number of its connections
    int dialled; // connections that it has started to open
    int opened;  // connections that are ready for load
    int loading; // whether to send a new message for each that comes back
    uint64_t sent, received;
    int64_t lost; // below 0: more messages arrived than were sent
    struct snapshot begin, end;
    unsigned char *input, *output;
};

// A request or reply, with the length of the part before its id.
struct template {
    const char *before, *behind;
    size_t length;
};

static unsigned char *burst; // `depth` copies of the message, framed
static size_t message_size;
static struct template request, reply;
static struct worker workers[MAX_THREADS];
static pthread_barrier_t barrier;
static clockid_t server_clock;

static double read_clock(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time))
        fail("the server has exited");
    return time.tv_sec + time.tv_nsec / 1e9;
}

static double now(void) { return read_clock(CLOCK_MONOTONIC); }

static struct snapshot take_snapshot(const struct worker *worker) {
    return (struct snapshot){
        .time = now(),
        .cpu = read_clock(CLOCK_THREAD_CPUTIME_ID),
        .server_cpu = options.server_pid ? read_clock(server_clock) : 0,
        .received = worker->received,
    };
}

static int starts_with(const struct frame *frame, const char *prefix) {
    size_t length = strlen(prefix);
    return frame->length >= length && memcmp(frame->payload, prefix, length) == 0;
}

// Returns the id of a reply, or 0 (not a valid id) for any other message or other data.
static uint64_t read_reply(const struct frame *frame) {
    const unsigned char *at = frame->payload, *end = at + frame->length;
    if (frame->opcode != TEXT || frame->length < reply.length || memcmp(at, reply.before, reply.length))
        return 0;
    uint64_t id = 0;
    for (at += reply.length; at < end && *at >= '0' && *at <= '9'; at++)
        id = id * 10 + (*at - '0');
    size_t length = strlen(reply.behind);
    return (size_t)(end - at) == length && memcmp(at, reply.behind, length) == 0 ? id : 0;
}

// ---- One connection -------------------------------------------------------

static void send_bytes(struct connection *connection, const void *bytes, size_t size) {
    ssize_t written = send(connection->fd, bytes, size, MSG_NOSIGNAL);
    // At most a few kilobytes are in flight on a connection, far less than any kernel buffer
    // holds. So no queue is necessary.
    if (written != (ssize_t)size)
        fail("connection %d: cannot send: %s", connection->number, written < 0 ? strerror(errno) : "buffer full");
}

static void send_frame(struct connection *connection, int opcode, const void *payload, size_t length) {
    unsigned char frame[256 + MAX_HEADER];
    if (length > 256)
        fail("a message of %zu bytes is too long", length);
    send_bytes(connection, frame, write_frame(frame, opcode, payload, length, MASK));
}

// Frame a request for each slot that has none in flight. Returns their size.
static size_t frame_requests(struct connection *connection, unsigned char *out) {
    char text[MAX_REQUEST];
    size_t size = 0;
    for (int i = 0; i < options.depth; i++) {
        struct slot *slot = &connection->slots[i];
        if (slot->in_flight)
            continue;
        slot->in_flight = 1;
        slot->id += options.depth;
        int length = snprintf(text, sizeof text, "%.*s%llu%s", (int)request.length, request.before,
                              (unsigned long long)slot->id, request.behind);
        size += write_frame(out + size, TEXT, (unsigned char *)text, length, MASK);
    }
    return size;
}

static void take_reply(struct connection *connection, const struct frame *frame) {
    uint64_t id = read_reply(frame);
    struct slot *slot = &connection->slots[id % options.depth];
    if (!slot->in_flight || slot->id != id)
        fail("connection %d: not the reply to a request in flight: %.*s", connection->number,
             frame->length < 200 ? (int)frame->length : 200, frame->payload);
    slot->in_flight = 0;
}

static void send_load(struct worker *worker, struct connection *connection, int messages) {
    if (options.mode == REQUEST)
        send_bytes(connection, worker->output, frame_requests(connection, worker->output));
    else
        send_bytes(connection, burst, message_size * messages);
    worker->sent += messages;
}

// Returns whether a connection sends a new message for each that comes back.
static int is_loading(const struct worker *worker, const struct connection *connection) {
    return worker->loading && (options.mode != FANOUT || connection->number == 0);
}

static void watch(struct worker *worker, struct connection *connection, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = connection};
    if (epoll_ctl(worker->epoll, operation, connection->fd, &event))
        fail("epoll_ctl: %s", strerror(errno));
}

static void dial(struct worker *worker, struct connection *connection) {
    int one = 1;
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connection->fd < 0)
        fail("socket: %s", strerror(errno));
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(connection->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + connection->number % SOURCE_ADDRESSES);
    if (bind(connection->fd, (struct sockaddr *)&address, sizeof address))
        fail("bind: %s", strerror(errno));
    address.sin_port = htons(options.port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(connection->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
        fail("connect: %s", strerror(errno));
    connection->state = CONNECTING;
    watch(worker, connection, EPOLL_CTL_ADD, EPOLLOUT);
}

static void request_upgrade(struct worker *worker, struct connection *connection) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(connection->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        fail("connect: %s", strerror(error));
    char request[1024];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n",
                          options.path, options.port, KEY);
    send_bytes(connection, request, length);
    connection->state = UPGRADING;
    watch(worker, connection, EPOLL_CTL_MOD, EPOLLIN);
}

static void become_open(struct worker *worker, struct connection *connection) {
    connection->state = OPEN;
    worker->opened++;
}

// Returns the size of the server's response, or 0 if it is incomplete.
static size_t read_answer(struct worker *worker, struct connection *connection, unsigned char *bytes, size_t size) {
    unsigned char *end = memmem(bytes, size, "\r\n\r\n", 4);
    if (end == NULL)
        return 0;
    size_t length = end + 4 - bytes;
    if (size < 12 || memcmp(bytes, "HTTP/1.1 101", 12))
        fail("upgrade refused: %.*s", (int)strcspn((char *)bytes, "\r"), bytes);
    if (memmem(bytes, length, ACCEPT, sizeof ACCEPT - 1) == NULL)
        fail("upgrade answered with a wrong Sec-WebSocket-Accept");
    if (options.first)
        send_frame(connection, TEXT, options.first, strlen(options.first));
    if (options.ready)
        connection->state = GREETING;
    else
        become_open(worker, connection);
    return length;
}

// Returns 1 for a message of the load, 0 for other messages.
static int take_frame(struct worker *worker, struct connection *connection, const struct frame *frame) {
    if (frame->opcode == PING) {
        send_frame(connection, PONG, frame->payload, frame->length);
    } else if (frame->opcode == CLOSE) {
        if (connection->state != CLOSING)
            fail("connection %d: the server closed it (code %d)", connection->number,
                 frame->length >= 2 ? frame->payload[0] << 8 | frame->payload[1] : 1005);
    } else if (options.ping && frame->length == strlen(options.ping) && starts_with(frame, options.ping)) {
        send_frame(connection, TEXT, options.pong, strlen(options.pong));
    } else if (connection->state == GREETING) {
        if (starts_with(frame, options.ready))
            become_open(worker, connection);
    } else if (options.mode == REQUEST) {
        take_reply(connection, frame);
        return 1;
    } else {
        return starts_with(frame, options.prefix);
    }
    return 0;
}

static void hang_up(struct connection *connection) {
    close(connection->fd);
    connection->state = CLOSED;
}

static void receive(struct worker *worker, struct connection *connection) {
    unsigned char *input = worker->input;
    if (connection->held)
        memcpy(input, connection->rest, connection->held);
    ssize_t got = recv(connection->fd, input + connection->held, READ_BYTES, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        if (connection->state != CLOSING)
            fail("connection %d: lost: %s", connection->number, got < 0 ? strerror(errno) : "end of stream");
        hang_up(connection);
        return;
    }
    size_t size = connection->held + got, used = 0;
    if (connection->state == UPGRADING)
        used = read_answer(worker, connection, input, size);
    int messages = 0;
    struct frame frame;
    while (connection->state > UPGRADING && parse_frame(input + used, size - used, &frame)) {
        used += frame.size;
        messages += take_frame(worker, connection, &frame);
    }
    worker->received += messages;
    if (messages && is_loading(worker, connection))
        send_load(worker, connection, messages);
    connection->held = size - used;
    if (connection->held) {
        connection->rest = realloc(connection->rest, connection->held);
        memcpy(connection->rest, input + used, connection->held);
    }
}

// ---- All connections of a worker ------------------------------------------

static void turn(struct worker *worker) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(worker->epoll, events, EVENTS, 5);
    for (int i = 0; i < ready; i++) {
        struct connection *connection = events[i].data.ptr;
        if (connection->state == CONNECTING)
            request_upgrade(worker, connection);
        else
            receive(worker, connection);
    }
}

static void turn_until(struct worker *worker, double time) {
    while (now() < time)
        turn(worker);
}

static void open_connections(struct worker *worker, double deadline) {
    int concurrency = CONCURRENCY / options.threads;
    if (concurrency < 1)
        concurrency = 1;
    while (worker->opened < worker->count && now() < deadline) {
        while (worker->dialled < worker->count && worker->dialled - worker->opened < concurrency)
            dial(worker, &worker->connections[worker->dialled++]);
        turn(worker);
    }
}

static void open_all_connections(struct worker *worker) {
    open_connections(worker, now() + OPEN_LIMIT);
    if (worker->opened < worker->count)
        fail("only %d of %d connections opened within %.0f s", worker->opened, worker->count, OPEN_LIMIT);
}

static void close_connections(struct worker *worker) {
    const unsigned char normal[2] = {1000 >> 8, 1000 & 0xff};
    for (int i = 0; i < worker->dialled; i++) {
        struct connection *connection = &worker->connections[i];
        if (connection->state == OPEN) {
            connection->state = CLOSING;
            send_frame(connection, CLOSE, normal, sizeof normal);
        } else {
            hang_up(connection);
        }
    }
    double deadline = now() + CLOSE_LIMIT;
    for (int i = 0; i < worker->dialled && now() < deadline;) {
        if (worker->connections[i].state == CLOSED)
            i++;
        else
            turn(worker);
    }
}

// ---- The modes ------------------------------------------------------------

static void start_load(struct worker *worker) {
    worker->loading = 1;
    for (int i = 0; i < worker->count; i++)
        if (is_loading(worker, &worker->connections[i]))
            send_load(worker, &worker->connections[i], options.depth);
}

// How many messages this worker must have received after all have stopped sending.
static uint64_t expected(const struct worker *worker) {
    if (options.mode != FANOUT)
        return worker->sent;
    return workers[0].sent * worker->count; // connection 0, the publisher, is the first worker's
}

static void run_load(struct worker *worker) {
    open_all_connections(worker);
    pthread_barrier_wait(&barrier);
    turn_until(worker, now() + SETTLE_TIME);
    start_load(worker);
    turn_until(worker, now() + options.warmup);
    worker->begin = take_snapshot(worker);
    turn_until(worker, worker->begin.time + options.seconds);
    worker->end = take_snapshot(worker);
    worker->loading = 0;
    pthread_barrier_wait(&barrier); // `expected` needs the number of all sent messages
    double deadline = now() + DRAIN_LIMIT;
    while (worker->received < expected(worker) && now() < deadline)
        turn(worker);
    worker->lost = (int64_t)(expected(worker) - worker->received);
}

static void run_connect(struct worker *worker) {
    pthread_barrier_wait(&barrier);
    worker->begin = take_snapshot(worker);
    open_connections(worker, worker->begin.time + options.seconds);
    worker->end = take_snapshot(worker);
    worker->end.received = worker->opened;
}

static void run_idle(struct worker *worker) {
    open_all_connections(worker);
    pthread_barrier_wait(&barrier);
    if (worker->index == 0) {
        printf("{\"open\": %d}\n", options.connections);
        fflush(stdout);
    }
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    while (poll(&input, 1, 0) == 0)
        turn(worker);
}

static void *work(void *argument) {
    struct worker *worker = argument;
    worker->input = malloc(READ_BYTES + MAX_PAYLOAD + MAX_HEADER);
    worker->output = malloc((MAX_REQUEST + MAX_HEADER) * options.depth);
    worker->epoll = epoll_create1(0);
    if (options.mode == CONNECT)
        run_connect(worker);
    else if (options.mode == IDLE)
        run_idle(worker);
    else
        run_load(worker);
    close_connections(worker);
    return NULL;
}

static void report(void) {
    uint64_t count = 0;
    int64_t lost = 0;
    double rate = 0, busiest = 0;
    for (int i = 0; i < options.threads; i++) {
        const struct snapshot *begin = &workers[i].begin, *end = &workers[i].end;
        double elapsed = end->time - begin->time;
        double cpu = (end->cpu - begin->cpu) / elapsed;
        count += end->received - begin->received;
        lost += workers[i].lost;
        rate += (end->received - begin->received) / elapsed;
        busiest = cpu > busiest ? cpu : busiest;
    }
    const struct snapshot *begin = &workers[0].begin, *end = &workers[0].end;
    double server_cpu = (end->server_cpu - begin->server_cpu) / (end->time - begin->time);
    printf("{\"rate\": %.1f, \"count\": %llu, \"lost\": %lld, \"generator_cpu\": %.3f, \"server_cpu\": %.3f}\n", rate,
           (unsigned long long)count, (long long)lost, busiest, server_cpu);
}

// ---- Start ----------------------------------------------------------------

static void prepare_message(void) {
    size_t prefix = strlen(options.prefix), suffix = strlen(options.suffix);
    size_t length = prefix + options.size + suffix;
    if (length > MAX_PAYLOAD)
        fail("--size must be at most %d", MAX_PAYLOAD);
    unsigned char *message = malloc(length);
    memcpy(message, options.prefix, prefix);
    memset(message + prefix, 'x', options.size);
    memcpy(message + prefix + options.size, options.suffix, suffix);
    burst = malloc((length + MAX_HEADER) * options.depth);
    for (int i = 0; i < options.depth; i++)
        message_size = write_frame(burst + message_size * i, TEXT, message, length, MASK);
    free(message);
}

static struct template split(const char *text) {
    size_t length = strcspn(text, "#");
    if (text[length] == 0 || strlen(text) + 20 > MAX_REQUEST)
        fail("--request and --reply must contain a # in place of the id, and have at most %d bytes", MAX_REQUEST - 20);
    return (struct template){.before = text, .behind = text + length + 1, .length = length};
}

static void prepare_requests(struct connection *connections) {
    request = split(options.request);
    reply = split(options.reply);
    for (int i = 0; i < options.connections; i++) {
        connections[i].slots = calloc(options.depth, sizeof(struct slot));
        for (int j = 0; j < options.depth; j++)
            connections[i].slots[j].id = j;
    }
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    alarm(TIME_LIMIT);
    if (options.server_pid && clock_getcpuclockid(options.server_pid, &server_clock))
        fail("there is no process %d", options.server_pid);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    prepare_message();

    struct connection *connections = calloc(options.connections, sizeof *connections);
    for (int i = 0; i < options.connections; i++)
        connections[i].number = i;
    if (options.mode == REQUEST)
        prepare_requests(connections);
    pthread_barrier_init(&barrier, NULL, options.threads);
    int first = 0;
    for (int i = 0; i < options.threads; i++) {
        int share = options.connections / options.threads + (i < options.connections % options.threads);
        workers[i] = (struct worker){.index = i, .connections = connections + first, .count = share};
        first += share;
    }
    for (int i = 0; i < options.threads; i++)
        pthread_create(&workers[i].thread, NULL, work, &workers[i]);
    for (int i = 0; i < options.threads; i++)
        pthread_join(workers[i].thread, NULL);
    if (options.mode != IDLE)
        report();
    return 0;
}
