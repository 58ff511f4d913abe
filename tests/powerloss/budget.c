/* What the steady state costs: block writes against the fewest possible, and superblock writes.
 *
 * Usage: budget BYTES PER_SECOND SECONDS     Records of BYTES at the default commit of a device.
 *
 * Records that follow each other before the commit is due share blocks; a block that holds committed bytes
 * is never written again. So a group of records between two commits takes at least its bytes, rounded up
 * to whole blocks: the minimum is the sum of these. */
#include "sim.h"

enum { BLOCKS = 1 << 17, UNIT = 64, SEGMENT = 512, COMMIT_MS = 1000, COMMIT_BYTES = 8192 };

int main(int argc, char **argv)
{
    drip_log_config_t config = {COMMIT_MS, COMMIT_BYTES, DRIP_FULL_OVERWRITE_ACKED, 0, {0}};
    static drip_log_t log;
    uint32_t size = argc > 1 ? (uint32_t)atoi(argv[1]) : 1024;
    uint32_t rate = argc > 2 ? (uint32_t)atoi(argv[2]) : 20;
    uint32_t seconds = argc > 3 ? (uint32_t)atoi(argv[3]) : 600;
    uint32_t count = rate * seconds;
    uint64_t each = (size + DRIP_RECORD_HEADER_BYTES + 7) & ~7u;
    uint64_t minimum = rate > 1 ? (each * count + DRIP_BLOCK_BYTES - 1) / DRIP_BLOCK_BYTES
                                : (each + DRIP_BLOCK_BYTES - 1) / DRIP_BLOCK_BYTES * count;
    uint64_t chance = 1;
    uint32_t supers = 0;
    uint32_t i;
    sim_card_t card;

    sim_card_init(&card, BLOCKS);
    sim_format(&card, UNIT, SEGMENT, &chance);
    sim_mount(&log, &card, &config);
    card.written = 0;
    card.room = count * (size / DRIP_BLOCK_BYTES + 4) + 1000;
    card.writes = malloc(card.room * sizeof(sim_write_t));
    for (i = 0; i < count; i++) {
        MUST(sim_append(&log, i + 1, size, 0, 0) > 0, "the card is full after %u records", i);
        card.now_us += 1000000 / rate;
        sim_drive(&log);
    }
    (void)drip_log_sync(&log);
    sim_drive(&log);
    for (i = 0; i < card.written; i++) {
        supers += card.writes[i].block == 0 || card.writes[i].block == BLOCKS - 1;
    }
    printf("%u blocks written, the fewest are %llu: %llu permille; %llu permille of the bytes; "
           "%u superblocks, %u segments, %u bytes of state\n",
           card.written, (unsigned long long)minimum,
           (unsigned long long)((uint64_t)card.written * 1000 / minimum),
           (unsigned long long)((uint64_t)card.written * DRIP_BLOCK_BYTES * 1000 / (each * count)),
           supers, log.next_segment, (unsigned)sizeof(log));
    sim_card_free(&card);
    return 0;
}
