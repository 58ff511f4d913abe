/* Layout of the log: making a new one, and telling an intact block from another. */
#include "drip/log.h"

#include <string.h>

#include "drip/bytes.h"
#include "log_internal.h"

static int power_of_two(uint32_t value)
{
    return value != 0 && (value & (value - 1)) == 0;
}

void drip_log_seal_super(drip_superblock_t *super)
{
    super->magic = DRIP_SUPERBLOCK_MAGIC;
    super->version = DRIP_SUPERBLOCK_VERSION;
    super->header_bytes = DRIP_SUPERBLOCK_BYTES;
    super->crc = drip_crc32(0, super, sizeof(*super) - sizeof(super->crc));
}

static int geometry_fits(const drip_superblock_t *super, uint32_t region_blocks)
{
    if (!power_of_two(super->unit_blocks) || !power_of_two(super->segment_blocks) ||
        super->segment_blocks < 2 || super->segment_blocks > LOG_MAX_SEGMENT_BLOCKS ||
        super->segment_count < 2 || super->data_block == 0) {
        return 0;
    }
    return super->region_blocks <= region_blocks && super->data_block < super->region_blocks &&
           super->segment_count <=
               (super->region_blocks - 1 - super->data_block) / super->segment_blocks;
}

int drip_log_check_super(const drip_superblock_t *super, uint32_t region_blocks)
{
    if (super->magic != DRIP_SUPERBLOCK_MAGIC) {
        return DRIP_ERR_MAGIC;
    }
    if (super->crc != drip_crc32(0, super, sizeof(*super) - sizeof(super->crc))) {
        return DRIP_ERR_CRC;
    }
    if (super->version != DRIP_SUPERBLOCK_VERSION) {
        return DRIP_ERR_VERSION;
    }
    if (!geometry_fits(super, region_blocks) || super->next_segment > LOG_MAX_SEGMENT ||
        super->acked_segment > super->next_segment ||
        (super->tail_segment > 0 && super->tail_segment >= super->next_segment) ||
        super->checkpoint_bytes > sizeof(super->checkpoint)) {
        return DRIP_ERR_CORRUPT;
    }
    return DRIP_ERR_OK;
}

int drip_log_check_segment(const drip_segment_header_t *header)
{
    if (header->magic != DRIP_SEGMENT_MAGIC) {
        return DRIP_ERR_MAGIC;
    }
    if (header->crc != drip_crc32(0, header, sizeof(*header) - sizeof(header->crc))) {
        return DRIP_ERR_CRC;
    }
    if (header->version != DRIP_SEGMENT_VERSION ||
        header->header_bytes != DRIP_SEGMENT_HEADER_BYTES) {
        return DRIP_ERR_VERSION;
    }
    return DRIP_ERR_OK;
}

/* Segments start at the first unit boundary of the card after the first superblock and end at the last
 * one before the second. Returns 0 when the numbers leave no room. */
static int plan(const drip_log_geometry_t *geometry, drip_superblock_t *super)
{
    uint32_t unit = geometry->unit_blocks;
    uint32_t first = geometry->first_block;
    uint32_t start;
    uint32_t end;

    if (!power_of_two(unit) || !power_of_two(geometry->segment_blocks) || geometry->blocks < 4 ||
        first > 0xffffffffu - geometry->blocks || unit > geometry->blocks) {
        return 0;
    }
    start = log_align(first + 1, unit);
    end = (first + geometry->blocks - 1) & ~(unit - 1);
    if (start <= first || end <= start) {
        return 0;
    }
    super->unit_blocks = unit;
    super->segment_blocks = geometry->segment_blocks;
    super->segment_count = (end - start) / geometry->segment_blocks;
    super->data_block = start - first;
    super->region_blocks = geometry->blocks;
    return geometry_fits(super, geometry->blocks);
}

static int wait_done(const drip_port_t *port, int result)
{
    while (result >= 0) {
        result = port->card_poll(port->context);
        if (result != DRIP_ERR_BUSY) {
            return result < 0 ? result : DRIP_ERR_OK;
        }
        result = DRIP_ERR_OK;
    }
    return result;
}

static int put(const drip_port_t *port, uint32_t block, const drip_superblock_t *data)
{
    return wait_done(port, port->card_write(port->context, block, (const uint8_t *)data, 1));
}

int drip_log_format(const drip_port_t *port, const drip_log_geometry_t *geometry,
                    drip_superblock_t *work)
{
    uint32_t first = geometry->first_block;
    uint32_t last = first + geometry->blocks - 1;
    uint32_t total = 0;
    int result = port->card_blocks(port->context, &total);

    if (result < 0) {
        return result;
    }
    memset(work, 0, sizeof(*work));
    if (!plan(geometry, work) || first + geometry->blocks > total) {
        return DRIP_ERR_ARGUMENT;
    }
    /* What an earlier log left must not be found when both superblocks are lost one day. */
    last = first + work->data_block;
    memset(work, 0, sizeof(*work));
    result = put(port, last, work);
    (void)plan(geometry, work);
    memcpy(work->log_uuid, geometry->uuid, sizeof(work->log_uuid));
    work->next_seq = 1;
    work->generation = 1;
    drip_log_seal_super(work);
    if (result == DRIP_ERR_OK) {
        result = put(port, first + geometry->blocks - 1, work);
    }
    work->generation = 2;
    drip_log_seal_super(work);
    return result == DRIP_ERR_OK ? put(port, first, work) : result;
}
