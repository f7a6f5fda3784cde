// WebSocket frames (RFC 6455 §5.2), as far as a benchmark needs them: one frame per
// message, lengths up to 64 KiB.

#ifndef FRAME_H
#define FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum opcode { TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };

enum { MAX_PAYLOAD = 65535, MAX_HEADER = 8 };

struct frame {
    int opcode;
    unsigned char *mask; // four bytes, or NULL in a server's frames
    unsigned char *payload;
    size_t length;
    size_t size; // header and payload
};

// Read the frame at `bytes`. Returns 0 if it is incomplete.
static inline int parse_frame(unsigned char *bytes, size_t available, struct frame *frame) {
    if (available < 2)
        return 0;
    size_t header = 2;
    size_t length = bytes[1] & 0x7f;
    if (length == 127) {
        fprintf(stderr, "a frame is larger than %d bytes\n", MAX_PAYLOAD);
        exit(1);
    }
    if (length == 126) {
        if (available < 4)
            return 0;
        header = 4;
        length = (size_t)bytes[2] << 8 | bytes[3];
    }
    frame->mask = NULL;
    if (bytes[1] & 0x80) {
        frame->mask = bytes + header;
        header += 4;
    }
    frame->opcode = bytes[0] & 0x0f;
    frame->payload = bytes + header;
    frame->length = length;
    frame->size = header + length;
    return available >= frame->size;
}

// Mask or unmask eight bytes at a time. A loop over single bytes would affect the figures.
static inline void copy_masked(unsigned char *to, const unsigned char *from, size_t length, const unsigned char mask[4]) {
    uint32_t word;
    memcpy(&word, mask, 4);
    uint64_t twice = (uint64_t)word << 32 | word;
    size_t i = 0;
    for (; i + 8 <= length; i += 8) {
        uint64_t chunk;
        memcpy(&chunk, from + i, 8);
        chunk ^= twice;
        memcpy(to + i, &chunk, 8);
    }
    for (; i < length; i++)
        to[i] = from[i] ^ mask[i & 3];
}

// Write a frame to `out`, masked if there is a mask. Returns its size.
static inline size_t write_frame(unsigned char *out, int opcode, const unsigned char *payload, size_t length,
                                 const unsigned char *mask) {
    size_t header = 2;
    out[0] = 0x80 | opcode;
    out[1] = mask ? 0x80 : 0;
    if (length < 126) {
        out[1] |= length;
    } else {
        out[1] |= 126;
        out[2] = length >> 8;
        out[3] = length & 0xff;
        header = 4;
    }
    if (mask == NULL) {
        memcpy(out + header, payload, length);
        return header + length;
    }
    memcpy(out + header, mask, 4);
    header += 4;
    copy_masked(out + header, payload, length, mask);
    return header + length;
}

#endif
