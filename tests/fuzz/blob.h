/* Model blobs for the fuzz targets. */
#ifndef DRIP_FUZZ_BLOB_H
#define DRIP_FUZZ_BLOB_H

#include "drip/bytes.h"
#include "drip/wire.h"
#include "fuzz.h"

enum { FUZZ_CRC_START = 16 };

/* Lets sections that begin inside the blob end inside it, so that a cut blob is looked at. */
static inline void fuzz_fix_sections(uint8_t *bytes, const drip_blob_header_t *header)
{
    uint32_t at = sizeof(*header);
    uint32_t i;

    for (i = 0; i < header->section_count; i++, at += DRIP_BLOB_SECTION_BYTES) {
        drip_blob_section_t section;

        if (at + sizeof(section) > header->total_bytes) {
            return;
        }
        memcpy(&section, bytes + at, sizeof(section));
        if (section.offset <= header->total_bytes &&
            section.size > header->total_bytes - section.offset) {
            section.size = header->total_bytes - section.offset;
            memcpy(bytes + at, &section, sizeof(section));
        }
    }
}

/* Makes the bytes pass the first checks: magic, version, sizes and checksum. Returns the blob's
 * size, at most `size`. */
static inline uint32_t fuzz_fix_blob(uint8_t *bytes, uint32_t size)
{
    drip_blob_header_t header;

    if (size < sizeof(header)) {
        return size;
    }
    memcpy(&header, bytes, sizeof(header));
    header.magic = DRIP_BLOB_MAGIC;
    header.version = DRIP_BLOB_VERSION;
    header.header_bytes = sizeof(header);
    if (header.total_bytes > size || header.total_bytes < sizeof(header)) {
        header.total_bytes = size;
    }
    memcpy(bytes, &header, sizeof(header));
    fuzz_fix_sections(bytes, &header);
    header.crc = drip_crc32(0, bytes + FUZZ_CRC_START, header.total_bytes - FUZZ_CRC_START);
    memcpy(bytes, &header, sizeof(header));
    return header.total_bytes;
}

#endif
