/* What outlives a restart: the checkpoint on the card, and what deep sleep keeps in 256 bytes. */
#include "device_internal.h"

#include <string.h>

enum {
    SECOND_US = 1000000,
    MOST_SECONDS = 4096, /* counted in one step */
    /* A checkpoint wears the card: the longer a device runs, the rarer they get. Power loss costs this
     * much of what the policy has learnt, or an eighth of the uptime, whichever is more. */
    FIRST_US = 10 * SECOND_US,
    LAST_US = 60 * SECOND_US,
    UPTIME_SHIFT = 3,
    LAST_KEY = DRIP_CONFIG_CLASS_FLOOR,
};

_Static_assert(LAST_KEY <= sizeof(((drip_device_state_t *)0)->settings) / sizeof(uint32_t),
               "all settings have a place");
_Static_assert((int)DRIP_DEVICE_STATE_BYTES <= (int)DRIP_CHECKPOINT_BYTES,
               "a state is a checkpoint");

static uint32_t crc_of(const drip_device_state_t *state)
{
    return drip_crc32(0, state, sizeof(*state) - sizeof(state->crc));
}

static uint32_t device_of(const drip_device_t *device)
{
    return drip_crc32(0, device->port->device_id, sizeof(device->port->device_id));
}

/* ------------------------------------------------------------------ powered-on time */

static void count_time(drip_device_t *device)
{
    uint64_t now = drip_device_now(device);
    uint32_t rounds = MOST_SECONDS;

    while (now - device->powered_at_us >= SECOND_US && rounds-- > 0) {
        device->powered_at_us += SECOND_US;
        device->powered_s++;
    }
}

static void add_time(drip_device_t *device, const drip_device_state_t *state)
{
    device->powered_s += state->powered_s;
    device->powered_at_us -= state->powered_us;
    count_time(device);
}

/* ------------------------------------------------------------------ out of and into bytes */

static void fill_settings(const drip_device_t *device, drip_device_state_t *state)
{
    uint16_t key;

    for (key = 1; key <= LAST_KEY; key++) {
        if (key != DRIP_CONFIG_EVENTS) { /* one host's wish */
            state->settings[key - 1] = drip_device_setting(device, key);
            state->present |= 1u << (key - 1);
        }
    }
    state->settings[DRIP_CONFIG_SCORE_KIND - 1] = device->score_wanted;
}

static void fill(drip_device_t *device, drip_device_state_t *state)
{
    int saved;

    count_time(device);
    memset(state, 0, sizeof(*state));
    state->magic = DRIP_DEVICE_STATE_MAGIC;
    state->version = DRIP_DEVICE_STATE_VERSION;
    state->powered_s = device->powered_s;
    state->powered_us = (uint32_t)(drip_device_now(device) - device->powered_at_us);
    state->device = device_of(device);
    state->score_rng = device->has_model ? device->score.rng.state : 0;
    fill_settings(device, state);
    saved = drip_policy_save(&device->policy, state->policy, sizeof(state->policy));
    state->policy_bytes = (uint16_t)(saved > 0 ? saved : 0);
    state->crc = crc_of(state);
}

static int check(const drip_device_t *device, const drip_device_state_t *state)
{
    if (state->magic != DRIP_DEVICE_STATE_MAGIC) {
        return DRIP_ERR_MAGIC;
    }
    if (state->version != DRIP_DEVICE_STATE_VERSION) {
        return DRIP_ERR_VERSION;
    }
    if (state->crc != crc_of(state)) {
        return DRIP_ERR_CRC;
    }
    if (state->policy_bytes > sizeof(state->policy) || state->powered_us >= SECOND_US) {
        return DRIP_ERR_CORRUPT;
    }
    return state->device == device_of(device) ? DRIP_ERR_OK : DRIP_ERR_STATE;
}

static void take_policy(drip_device_t *device, const drip_device_state_t *state)
{
    /* What this build's policy does not understand it starts anew. */
    (void)drip_policy_restore(&device->policy, state->policy, state->policy_bytes);
    if (device->has_model && state->score_rng != 0) {
        device->score.rng.state = state->score_rng;
    }
}

/* ------------------------------------------------------------------ deep sleep */

int drip_device_save(drip_device_t *device, uint8_t *out)
{
    drip_device_state_t state;

    if (!drip_device_idle(device, NULL) || device->feed_bytes != 0 || device->pending_type != 0 ||
        device->holding || drip_log_checkpoint_poll(&device->log) == DRIP_ERR_BUSY) {
        return DRIP_ERR_BUSY;
    }
    if (drip_log_sync(&device->log) == DRIP_ERR_OK && drip_log_pending(&device->log) != 0) {
        return DRIP_ERR_BUSY;
    }
    fill(device, &state);
    memcpy(out, &state, sizeof(state));
    return DRIP_DEVICE_STATE_BYTES;
}

int drip_device_restore(drip_device_t *device, const uint8_t *in)
{
    drip_device_state_t state;
    uint16_t key;
    int code;

    if (device->status.frames_seen != 0 || device->restored) {
        return DRIP_ERR_STATE;
    }
    memcpy(&state, in, sizeof(state));
    code = check(device, &state);
    if (code < 0) {
        return code;
    }
    for (key = 1; key <= LAST_KEY; key++) {
        if ((state.present & 1u << (key - 1)) != 0) {
            /* A value that this build or model cannot take leaves what there is. */
            (void)drip_device_config(device, key, state.settings[key - 1]);
        }
    }
    take_policy(device, &state);
    add_time(device, &state);
    device->status.powered_s = state.powered_s;
    device->restored = 1;
    return DRIP_ERR_OK;
}

/* ------------------------------------------------------------------ the card */

int drip_device_waits_for_state(const drip_device_t *device)
{
    return !device->restored && device->log.card == DRIP_CARD_MOUNTING &&
           drip_device_card_state(device) == DRIP_CARD_MOUNTING &&
           drip_device_now(device) - device->mount_us < DEVICE_MOUNT_WAIT_US;
}

/* What the card knows goes in front of nothing, but behind what this boot has learnt already. */
static void take_checkpoint(drip_device_t *device)
{
    drip_device_state_t state;
    int size = drip_log_checkpoint_get(&device->log, (uint8_t *)&state, sizeof(state));

    if (size == (int)sizeof(state) && check(device, &state) == DRIP_ERR_OK) {
        if (!device->restored) {
            take_policy(device, &state);
            add_time(device, &state);
        } else if (device->powered_s < state.powered_s) {
            device->powered_s = state.powered_s;
        }
        if (device->status.powered_s < state.powered_s) {
            device->status.powered_s = state.powered_s;
        }
    }
    device->restored = 1;
}

static uint64_t interval(const drip_device_t *device)
{
    uint64_t part = drip_device_now(device) >> UPTIME_SHIFT;

    return part < FIRST_US ? FIRST_US : part < LAST_US ? part : LAST_US;
}

/* Superblocks that are written anyway carry the state of the last second. */
static void hand_over(drip_device_t *device, uint64_t now)
{
    drip_device_state_t state;

    fill(device, &state);
    if (drip_log_checkpoint_set(&device->log, (const uint8_t *)&state, sizeof(state)) ==
        DRIP_ERR_OK) {
        device->handed_us = now;
        device->handed_s = state.powered_s;
        device->super_us = device->log.super_us;
    }
}

void drip_device_state_step(drip_device_t *device)
{
    uint64_t now = drip_device_now(device);

    count_time(device);
    if (!drip_device_has_log(device)) {
        return;
    }
    if (device->state_boot != device->log.boot_id) {
        device->state_boot = device->log.boot_id;
        device->handed_us = now;
        device->handed_s = 0;
        device->super_us = device->log.super_us;
        take_checkpoint(device);
    }
    /* The log takes no state while it writes a superblock: what was written since has this one. */
    if (device->log.super_us != device->super_us && device->status.powered_s < device->handed_s) {
        device->status.powered_s = device->handed_s;
    }
    if (now - device->handed_us >= SECOND_US) {
        hand_over(device, now);
    }
    if (now - device->log.super_us >= interval(device)) {
        (void)drip_log_sync(&device->log); /* a GAP record, should one be due */
        (void)drip_log_checkpoint_write(&device->log);
    }
}

int drip_device_state_saved(drip_device_t *device)
{
    if (!drip_device_has_log(device)) {
        return 1;
    }
    if (!device->saving) {
        hand_over(device, drip_device_now(device));
        device->saving = drip_log_checkpoint_write(&device->log) != DRIP_ERR_BUSY;
        return 0;
    }
    return drip_log_checkpoint_poll(&device->log) != DRIP_ERR_BUSY;
}
