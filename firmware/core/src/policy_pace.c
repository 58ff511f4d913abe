/* Pacing: which share of the frames fills the card when it shall be full. */
#include "drip/policy.h"

enum {
    LEAST_TICKS = 16, /* a rate stands on so much time and */
    LEAST_FRAMES = 16,
    FREED_BLOCKS = 64, /* less is no acknowledged segment */
    MOST = 65536,
    LEAST_SHARE = 66, /* 0.1 %: a board that keeps nothing learns nothing */
    TAIL = 64,        /* of the whole time: so far ahead it looks when the time is over */
};

/* A positive number as mantissa x 2^exponent, mantissa below 2^16. */
typedef struct {
    uint32_t mantissa;
    int32_t exponent;
} scaled_t;

__attribute__((noinline)) static scaled_t scaled(uint32_t value)
{
    scaled_t s = {value, 0};
    while (s.mantissa > UINT16_MAX) {
        s.mantissa >>= 1;
        s.exponent++;
    }
    return s;
}

static scaled_t times(scaled_t a, uint32_t value)
{
    const scaled_t b = scaled(value);
    scaled_t product = scaled(a.mantissa * b.mantissa);
    product.exponent += a.exponent + b.exponent;
    return product;
}

/* a / b x 65536, at most MOST. */
static uint32_t quotient(scaled_t a, scaled_t b)
{
    int32_t exponent = a.exponent - b.exponent;
    while (a.mantissa < 1u << 15 && exponent > -32) {
        a.mantissa <<= 1;
        exponent--;
    }
    uint32_t q = (a.mantissa << 16) / b.mantissa;
    for (; exponent > 0 && q < MOST; exponent--)
        q <<= 1;
    for (; exponent < 0 && q != 0; exponent++)
        q >>= 1;
    return q < MOST ? q : MOST;
}

/* Seconds to ticks of 2^20 us: 10^6 / 2^20 = 62500 / 65536. */
static uint32_t ticks(uint32_t seconds)
{
    const uint32_t most = (uint32_t)(((uint64_t)seconds * 62500u) >> 16);
    return most > 0 ? most : 1;
}

/* What can be written per what will come: free blocks / (frames still to come x blocks of one). */
static uint32_t share_of(const drip_pace_t *pace, uint32_t whole, uint32_t frame_bytes)
{
    const uint32_t least = whole / TAIL + 1;
    const uint32_t left = pace->left > least ? pace->left : least;
    const scaled_t room = times(times(scaled(pace->free), pace->rate_ticks), DRIP_BLOCK_BYTES);
    const scaled_t coming = times(times(scaled(pace->rate_frames), left), frame_bytes);
    if (room.mantissa == 0)
        return LEAST_SHARE;
    const uint32_t share = quotient(room, coming);
    return share > LEAST_SHARE ? share : LEAST_SHARE;
}

void drip_policy_pace(drip_policy_t *policy, uint32_t tick, uint32_t free_blocks,
                      uint32_t frame_bytes)
{
    drip_pace_t *pace = &policy->pace;
    if (policy->config.pace_s == 0)
        return;
    const uint32_t whole = ticks(policy->config.pace_s);
    if (pace->started == 0) {
        pace->started = 1;
        pace->tick = pace->since = tick;
        if (pace->left == 0) /* else it goes on from a checkpoint */
            pace->left = whole;
    } else if (free_blocks > pace->free + FREED_BLOCKS) {
        pace->left = whole; /* the host has taken segments: from now on there is time again */
    }
    const uint32_t passed = tick - pace->tick;
    pace->left = pace->left > passed ? pace->left - passed : 0;
    pace->tick = tick;
    pace->free = free_blocks;
    pace->frames++;
    if (tick - pace->since >= LEAST_TICKS && pace->frames >= LEAST_FRAMES) {
        pace->rate_frames = pace->frames;
        pace->rate_ticks = tick - pace->since;
        pace->frames = 0;
        pace->since = tick;
    }
    if (pace->rate_frames != 0)
        pace->share = share_of(pace, whole, frame_bytes);
}
