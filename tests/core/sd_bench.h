/* The SD driver on a byte-level card, with a clock that moves on with every byte and every poll. */
#include "sd_spi.h"
#include "sdcard.h"

typedef struct {
    drip_sd_t sd;
    sdcard_t card;
    drip_sd_bus_t bus;
    uint64_t now_ns;
    uint64_t longest_ns;  /* bus time of the longest call */
    uint64_t deadline_ns; /* virtual; a run that passes it is endless */
    uint32_t hz;
    uint32_t polls;
    uint32_t highest_hz;
    uint64_t freeze_at; /* from this byte on nothing reaches the card: the processor is reset */
    uint64_t sent;
    uint8_t float_low; /* the line of an absent card reads 0 */
    uint8_t late;      /* the run passed its deadline */
} bench_t;

void bench_open(bench_t *bench);
/* Call until not BUSY, at most `limit_ms` of virtual time. */
int bench_blocks(bench_t *bench, uint32_t *blocks, uint32_t limit_ms);
int bench_read(bench_t *bench, uint32_t block, uint8_t *data, uint32_t count, uint32_t limit_ms);
int bench_write(bench_t *bench, uint32_t block, const uint8_t *data, uint32_t count,
                uint32_t limit_ms);
