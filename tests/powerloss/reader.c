/* A reader of the log, written from docs/SPEC.md and not from the firmware. */
#include "sim.h"

typedef struct {
    const uint8_t *data; /* of the segment, marks taken out */
    uint32_t size;
    uint32_t segment;
    uint32_t segment_bytes;
    uint32_t seed;
} view_t;

static uint32_t physical(uint32_t offset)
{
    uint32_t usable = AREA - DRIP_LOG_MARK_BYTES;

    return offset >= AREA ? offset + (offset - DRIP_LOG_MARK_BYTES) / usable * DRIP_LOG_MARK_BYTES
                          : offset;
}

static int record_at(const view_t *view, uint32_t at, uint64_t least, drip_record_header_t *header)
{
    uint32_t stop;

    if (at + DRIP_RECORD_HEADER_BYTES > view->size) {
        return 0;
    }
    memcpy(header, view->data + at, sizeof(*header));
    if (header->magic != DRIP_RECORD_MAGIC || header->header_bytes < DRIP_RECORD_HEADER_BYTES ||
        header->payload_bytes == 0 || header->payload_bytes > DRIP_MAX_FRAME_BYTES ||
        header->seq < least ||
        drip_crc32(view->seed, header, DRIP_RECORD_HEADER_BYTES - 4) != header->header_crc) {
        return 0;
    }
    stop = at + header->header_bytes + header->payload_bytes;
    return stop <= view->size && physical(stop - 1) < view->segment_bytes &&
           drip_crc32(0, view->data + at + DRIP_RECORD_HEADER_BYTES,
                      stop - at - DRIP_RECORD_HEADER_BYTES) == header->payload_crc;
}

static void parse(const view_t *view, uint64_t least, sim_visit_t visit, void *context,
                  uint32_t *count, uint32_t *digest)
{
    uint32_t at = DRIP_SEGMENT_HEADER_BYTES;
    sim_record_t found;

    while (at + DRIP_RECORD_HEADER_BYTES < view->size) {
        if (!record_at(view, at, least, &found.header)) {
            at += DRIP_RECORD_ALIGN;
            continue;
        }
        found.segment = view->segment;
        found.first = physical(at);
        found.last = physical(at + found.header.header_bytes + found.header.payload_bytes - 1);
        found.payload = view->data + at + found.header.header_bytes;
        if (visit != NULL) {
            visit(context, &found);
        }
        *digest = drip_crc32(*digest, &found.header.header_crc, 4);
        ++*count;
        least = found.header.seq + 1;
        at += (found.header.header_bytes + found.header.payload_bytes + DRIP_RECORD_ALIGN - 1) &
              ~(uint32_t)(DRIP_RECORD_ALIGN - 1);
    }
}

static uint32_t read_segment(drip_log_t *log, uint32_t segment, uint8_t *out)
{
    uint32_t bytes = log->super.segment_blocks * DRIP_BLOCK_BYTES;
    uint64_t base = (uint64_t)segment * bytes;
    uint32_t size = 0;

    while (size < bytes && base + size < drip_log_durable(log)) {
        int got = drip_log_read(log, base + size, out + size, bytes - size);

        if (got == DRIP_ERR_OK) {
            sim_drive(log);
            got = drip_log_read_poll(log);
        }
        if (got == DRIP_ERR_IO) { /* block by block then */
            got = drip_log_read(log, base + size, out + size, DRIP_BLOCK_BYTES);
            MUST(got == DRIP_ERR_OK, "a read after a failed read: %d", got);
            sim_drive(log);
            got = drip_log_read_poll(log);
            if (got == DRIP_ERR_IO) {
                memset(out + size, 0, DRIP_BLOCK_BYTES);
                got = DRIP_BLOCK_BYTES;
            }
        }
        if (got == DRIP_ERR_RANGE || got == DRIP_ERR_NO_CARD) { /* a write failed meanwhile */
            break;
        }
        MUST(got > 0 && got % DRIP_BLOCK_BYTES == 0, "read of segment %u + %u: %d", segment, size,
             got);
        size += (uint32_t)got;
    }
    return size;
}

static uint32_t without_marks(uint8_t *data, uint32_t size)
{
    uint32_t from;
    uint32_t to = size < AREA ? size : AREA;

    for (from = AREA; from < size; from += AREA) {
        uint32_t n = (size - from < AREA ? size - from : AREA) - DRIP_LOG_MARK_BYTES;

        memmove(data + to, data + from + DRIP_LOG_MARK_BYTES, n);
        to += n;
    }
    return to;
}

void sim_parse_segment(const drip_superblock_t *super, uint32_t segment, uint8_t *data,
                       uint32_t size, sim_visit_t visit, void *context, uint32_t *count,
                       uint32_t *digest)
{
    drip_segment_header_t header;
    view_t view = {data, 0, segment, super->segment_blocks * DRIP_BLOCK_BYTES, 0};
    uint64_t least = 0;

    if (size >= sizeof(header)) {
        memcpy(&header, data, sizeof(header));
        if (header.magic == DRIP_SEGMENT_MAGIC &&
            header.crc == drip_crc32(0, &header, sizeof(header) - 4)) {
            least = header.first_seq;
        }
        view.size = without_marks(data, size);
        view.seed = drip_crc32(drip_crc32(0, super->log_uuid, 16), &segment, 4);
        parse(&view, least, visit, context, count, digest);
    }
}

static void visit_segment(drip_log_t *log, uint32_t segment, sim_visit_t visit, void *context,
                          uint32_t *count, uint32_t *digest)
{
    uint8_t *data = malloc(log->super.segment_blocks * DRIP_BLOCK_BYTES);
    uint32_t size = read_segment(log, segment, data);

    sim_parse_segment(&log->super, segment, data, size, visit, context, count, digest);
    free(data);
}

void sim_read_all(drip_log_t *log, sim_visit_t visit, void *context)
{
    uint32_t bytes = log->super.segment_blocks * DRIP_BLOCK_BYTES;
    uint32_t segment = (uint32_t)(drip_log_tail(log) / bytes);
    uint32_t count = 0;
    uint32_t digest = 0;

    while ((uint64_t)segment * bytes < drip_log_durable(log)) {
        visit_segment(log, segment++, visit, context, &count, &digest);
    }
}

int sim_ack_oldest(drip_log_t *log, sim_visit_t visit, void *context)
{
    uint32_t bytes = log->super.segment_blocks * DRIP_BLOCK_BYTES;
    uint32_t segment = (uint32_t)(drip_log_acked(log) / bytes);
    uint32_t count = 0;
    uint32_t digest = 0;
    int result;

    (void)drip_log_sync(log);
    sim_drive(log);
    visit_segment(log, segment, visit, context, &count, &digest);
    result = drip_log_ack(log, segment, count, digest);
    if (result == DRIP_ERR_OK) {
        sim_drive(log);
        result = drip_log_ack_poll(log);
    }
    return result;
}
