#include "sd_bench.h"

#include <stddef.h>

enum { POLL_NS = 20000 };

static int is_frozen(const bench_t *bench)
{
    return bench->freeze_at != 0 && bench->sent >= bench->freeze_at;
}

static void exchange(void *context, const uint8_t *out, uint8_t *in, uint32_t size)
{
    bench_t *bench = context;

    for (uint32_t i = 0; i < size; i++) {
        uint8_t byte;

        bench->now_ns += 8000000000u / bench->hz;
        bench->sent++;
        bench->card.now_us = bench->now_ns / 1000;
        byte = is_frozen(bench) ? 0xFF : sdcard_exchange(&bench->card, out == NULL ? 0xFF : out[i]);
        if (bench->card.absent && bench->float_low) {
            byte = 0;
        }
        if (in != NULL) {
            in[i] = byte;
        }
    }
}

static void choose(void *context, int on)
{
    bench_t *bench = context;

    if (!is_frozen(bench)) {
        sdcard_select(&bench->card, on);
    }
}

static void set_clock(void *context, uint32_t hz)
{
    bench_t *bench = context;

    bench->hz = hz;
    bench->highest_hz = hz > bench->highest_hz ? hz : bench->highest_hz;
}

static uint32_t millis(void *context)
{
    /* Wraps early in every test. */
    return (uint32_t)(((bench_t *)context)->now_ns / 1000000) + 0xFFFFFFF0u;
}

void bench_open(bench_t *bench)
{
    bench->hz = 400000;
    bench->bus = (drip_sd_bus_t){bench, exchange, choose, set_clock, millis};
    sdcard_insert(&bench->card);
    drip_sd_init(&bench->sd, &bench->bus);
}

static int note(bench_t *bench, uint64_t begun_ns, int result)
{
    if (bench->now_ns - begun_ns > bench->longest_ns) {
        bench->longest_ns = bench->now_ns - begun_ns;
    }
    bench->now_ns += POLL_NS;
    bench->polls++;
    bench->late = bench->now_ns > bench->deadline_ns;
    return result;
}

int bench_blocks(bench_t *bench, uint32_t *blocks, uint32_t limit_ms)
{
    int result;

    bench->deadline_ns = bench->now_ns + limit_ms * 1000000ull;
    do {
        uint64_t begun_ns = bench->now_ns;

        result = note(bench, begun_ns, drip_sd_blocks(&bench->sd, blocks));
    } while (result == DRIP_ERR_BUSY && !bench->late);
    return result;
}

static int finish(bench_t *bench, int result, uint32_t limit_ms)
{
    bench->deadline_ns = bench->now_ns + limit_ms * 1000000ull;
    if (result != DRIP_ERR_OK) {
        return result;
    }
    do {
        uint64_t begun_ns = bench->now_ns;

        result = note(bench, begun_ns, drip_sd_poll(&bench->sd));
    } while (result == DRIP_ERR_BUSY && !bench->late);
    return result;
}

int bench_read(bench_t *bench, uint32_t block, uint8_t *data, uint32_t count, uint32_t limit_ms)
{
    return finish(bench, drip_sd_read(&bench->sd, block, data, count), limit_ms);
}

int bench_write(bench_t *bench, uint32_t block, const uint8_t *data, uint32_t count,
                uint32_t limit_ms)
{
    return finish(bench, drip_sd_write(&bench->sd, block, data, count), limit_ms);
}
