// The command line of wsload.

#ifndef OPTIONS_H
#define OPTIONS_H

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

enum { MAX_THREADS = 64 };

enum mode { ECHO, FANOUT, REQUEST, CONNECT, IDLE, MODE_COUNT };
static const char *const MODES[MODE_COUNT] = {"echo", "fanout", "request", "connect", "idle"};

static struct {
    enum mode mode;
    int port;
    pid_t server_pid; // the process whose CPU time is measured, or 0
    const char *path;
    int connections, threads, depth, size;
    double seconds, warmup;
    const char *first;   // sent when a connection is open
    const char *ready;   // the load starts after a message that begins with this
    const char *prefix;  // goes before the `size` bytes of a message; only messages that
    const char *suffix;  // begin with the prefix are counted; the suffix goes after them
    const char *request; // a complete request, with a # in place of its id
    const char *reply;   // the correct reply to it, with a # in place of the id
    const char *ping;    // if a message equals this,
    const char *pong;    // it is answered with this
} options = {
    .path = "/", .connections = 100, .threads = 1, .depth = 1, .size = 64, .seconds = 1, .warmup = 0.5,
    .prefix = "", .suffix = "", .request = "", .reply = "",
};

static void fail(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fprintf(stderr, "wsload: ");
    vfprintf(stderr, format, values);
    fprintf(stderr, "\n");
    exit(1);
}

static void parse_options(int argc, char **argv) {
    static const struct {
        const char *name;
        int *number;
        double *seconds;
        const char **text;
    } known[] = {
        {"port", .number = &options.port},
        {"server-pid", .number = &options.server_pid},
        {"path", .text = &options.path},
        {"connections", .number = &options.connections},
        {"threads", .number = &options.threads},
        {"depth", .number = &options.depth},
        {"size", .number = &options.size},
        {"seconds", .seconds = &options.seconds},
        {"warmup", .seconds = &options.warmup},
        {"first", .text = &options.first},
        {"ready", .text = &options.ready},
        {"prefix", .text = &options.prefix},
        {"suffix", .text = &options.suffix},
        {"request", .text = &options.request},
        {"reply", .text = &options.reply},
        {"ping", .text = &options.ping},
        {"pong", .text = &options.pong},
    };
    enum { KNOWN = sizeof known / sizeof *known };
    struct option names[KNOWN + 1] = {0};
    for (int i = 0; i < KNOWN; i++)
        names[i] = (struct option){.name = known[i].name, .has_arg = required_argument, .val = i};

    int i;
    while ((i = getopt_long(argc, argv, "", names, NULL)) != -1) {
        if (i == '?')
            exit(2);
        if (known[i].number)
            *known[i].number = atoi(optarg);
        else if (known[i].seconds)
            *known[i].seconds = atof(optarg);
        else
            *known[i].text = optarg;
    }
    int mode = 0;
    while (optind < argc && mode < MODE_COUNT && strcmp(argv[optind], MODES[mode]))
        mode++;
    if (optind != argc - 1 || mode == MODE_COUNT)
        fail("usage: wsload echo|fanout|request|connect|idle --port=PORT [--OPTION=VALUE, see options.h]");
    options.mode = mode;
    if (options.port < 1 || options.connections < 1 || options.depth < 1 || options.size < 1)
        fail("--port, --connections, --depth and --size must be above 0");
    if (options.threads < 1 || options.threads > MAX_THREADS || options.threads > options.connections)
        fail("--threads must be 1 to %d, and no more than the connections", MAX_THREADS);
    if (!options.ping != !options.pong)
        fail("--ping and --pong must be used together");
}

#endif
