/* READ streams: ranges of the log, chunk by chunk, as fast as the line takes them. */
#include "device_internal.h"

#include <string.h>

enum { BLOCK = DRIP_BLOCK_BYTES, LONGEST_BLOCKS = 0x7FFF, NO_BLOCK = 0xFFFF };

static void forget_first(drip_reader_t *reader)
{
    reader->count--;
    memmove(reader->range, reader->range + 1, reader->count * sizeof(reader->range[0]));
}

void drip_device_stream_stop(drip_device_t *device)
{
    device->reader.count = 0;
    /* The card may still write into the body: what comes of it is thrown away. */
    device->reader.stale = device->reader.reading;
}

static int notice(drip_device_t *device, uint16_t id, uint16_t number, int code, uint64_t position)
{
    drip_read_notice_t out;
    uint8_t *body = drip_device_body(device);

    if (body == NULL) {
        return REQUEST_HOLD;
    }
    memset(&out, 0, sizeof(out));
    out.code = (int16_t)code;
    out.number = number;
    out.position = position;
    memcpy(body, &out, sizeof(out));
    drip_device_send(device, DRIP_FRAME_READ, id, sizeof(out));
    return REQUEST_DONE;
}

int drip_device_stream(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_reader_t *reader = &device->reader;
    drip_read_range_t *range;
    drip_read_request_t asked;
    int code = DRIP_ERR_OK;

    memcpy(&asked, request->body, sizeof(asked));
    if ((asked.flags & DRIP_STREAM_FRESH) != 0) {
        drip_device_stream_stop(device);
    }
    if ((asked.chunk != BLOCK && asked.chunk != DRIP_MAX_CHUNK_BYTES) ||
        ((uint32_t)asked.position & (asked.chunk - 1u)) != 0 || asked.size < BLOCK) {
        code = DRIP_ERR_ARGUMENT;
    } else if (reader->count == DRIP_READ_QUEUE) {
        code = DRIP_ERR_BUSY;
    }
    if (code < 0) {
        return notice(device, request->header.id, 0, code, asked.position);
    }
    range = &reader->range[reader->count++];
    range->position = asked.position;
    range->blocks =
        (uint16_t)(asked.size / BLOCK < LONGEST_BLOCKS ? asked.size / BLOCK : LONGEST_BLOCKS);
    range->chunk = asked.chunk;
    range->id = request->header.id;
    range->number = 0;
    return REQUEST_DONE;
}

/* Bytes at the unused end of a closed segment that a range starts with, as the log knows since its
 * last read. */
static uint32_t zeros_at(const drip_log_t *log, const drip_read_range_t *range)
{
    const drip_log_closed_t *closed = &log->closed;
    uint32_t bytes = log->super.segment_blocks * BLOCK;
    uint64_t start = (uint64_t)closed->segment * bytes;
    uint32_t used = (closed->bytes + BLOCK - 1) & ~(uint32_t)(BLOCK - 1);

    if (!closed->valid || (log->open && closed->segment + 1 == log->next_segment) ||
        range->position < start + used || range->position >= start + bytes) {
        return 0;
    }
    return (uint32_t)(start + bytes - range->position);
}

static void advance(drip_reader_t *reader, uint32_t bytes)
{
    drip_read_range_t *range = &reader->range[0];
    uint32_t chunks = range->chunk == BLOCK ? bytes / BLOCK : bytes / DRIP_MAX_CHUNK_BYTES;

    range->position += bytes;
    range->number = (uint16_t)(range->number + chunks);
    if (bytes / BLOCK >= range->blocks) {
        forget_first(reader);
    } else {
        range->blocks = (uint16_t)(range->blocks - bytes / BLOCK);
    }
}

static uint32_t next_size(const drip_read_range_t *range)
{
    uint32_t left = (uint32_t)range->blocks * BLOCK;

    return left < range->chunk ? left : range->chunk;
}

static void end_stream(drip_device_t *device, int code)
{
    const drip_read_range_t *range = &device->reader.range[0];
    uint64_t position = range->position;

    if (code == DRIP_ERR_GONE) {
        position = drip_log_tail(&device->log);
    }
    notice(device, range->id, range->number, code, position);
    forget_first(&device->reader);
}

static uint32_t without_zeros(const uint8_t *block)
{
    uint32_t size = BLOCK;

    while (size > 0 && block[size - 1] == 0) {
        size--;
    }
    return size;
}

/* Leaves out the zeros at the ends of blocks: commits fill blocks up with them. Returns the bytes that
 * are left behind the head, the lengths included. */
static uint32_t trim(uint8_t *body, uint32_t size)
{
    uint8_t *data = body + DRIP_READ_CHUNK_BYTES;
    uint32_t first = without_zeros(data);
    uint32_t second = size > BLOCK ? without_zeros(data + BLOCK) : 0;
    drip_read_trim_t lengths;
    drip_read_chunk_t head;

    if (first + second + sizeof(lengths) >= size) {
        return size;
    }
    lengths.first = (uint16_t)first;
    lengths.second = (uint16_t)(size > BLOCK ? second : NO_BLOCK);
    memmove(data + sizeof(lengths) + first, data + BLOCK, second);
    memmove(data + sizeof(lengths), data, first);
    memcpy(data, &lengths, sizeof(lengths));
    memcpy(&head, body, sizeof(head));
    head.number |= DRIP_CHUNK_TRIMMED;
    memcpy(body, &head, sizeof(head));
    return (uint32_t)sizeof(lengths) + first + second;
}

/* The log has read what the next chunk brings. */
static void deliver(drip_device_t *device, int got)
{
    drip_read_range_t *range = &device->reader.range[0];
    drip_read_chunk_t head;
    uint8_t *body = drip_link_body(&device->link);
    uint32_t zeros;
    uint32_t size;
    int is_short;

    if (got < 0) {
        end_stream(device, got);
        return;
    }
    zeros = zeros_at(&device->log, range);
    if (zeros != 0) {
        notice(device, range->id, range->number, DRIP_ERR_OK, range->position + zeros);
        advance(&device->reader, zeros);
        return;
    }
    head.code = DRIP_ERR_OK;
    head.number = range->number;
    is_short = (uint32_t)got < next_size(range);
    memcpy(body, &head, sizeof(head));
    size = trim(body, (uint32_t)got);
    if (head.number != 0) {
        drip_link_join(&device->link);
    }
    drip_device_send(device, DRIP_FRAME_READ, range->id, (uint32_t)sizeof(head) + size);
    if (is_short) {
        forget_first(
            &device->reader); /* the durable end, which moves: the rest is asked for anew */
    } else {
        advance(&device->reader, (uint32_t)got);
    }
}

static int start(drip_device_t *device)
{
    const drip_read_range_t *range = &device->reader.range[0];
    uint8_t *body = drip_device_body(device);
    int code;

    code = drip_log_read(&device->log, range->position, body + DRIP_READ_CHUNK_BYTES,
                         next_size(range));
    if (code == DRIP_ERR_BUSY) {
        return 0;
    }
    if (code < 0) {
        end_stream(device, code);
    } else {
        device->reader.reading = 1;
    }
    return 1;
}

int drip_device_stream_step(drip_device_t *device)
{
    drip_reader_t *reader = &device->reader;
    int code;

    if (reader->reading) {
        code = drip_log_read_poll(&device->log);
        if (code == DRIP_ERR_BUSY) {
            return 0;
        }
        reader->reading = 0;
        if (!reader->stale) {
            deliver(device, code);
        }
        reader->stale = 0;
        return 1;
    }
    /* Everybody else goes first: between two chunks the line is theirs. */
    if (reader->count == 0 || device->pending_type == DRIP_FRAME_MODEL || device->reset_wanted) {
        return 0;
    }
    drip_device_event(device);
    return drip_device_body(device) == NULL ? 0 : start(device);
}
