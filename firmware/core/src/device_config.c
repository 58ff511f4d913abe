/* Settings: CONFIG_GET, CONFIG_SET and drip_device_config. */
#include "device_internal.h"

#include <string.h>

enum { FIRST_KEY = DRIP_CONFIG_SCORE_KIND, LAST_KEY = DRIP_CONFIG_CLASS_FLOOR };

static uint32_t policy_setting(const drip_policy_config_t *config, uint16_t key)
{
    switch (key) {
    case DRIP_CONFIG_THRESHOLD_HIGH:
        return config->threshold_high;
    case DRIP_CONFIG_TARGET:
        return config->target;
    case DRIP_CONFIG_PACE_S:
        return config->pace_s;
    case DRIP_CONFIG_BURST:
        return config->burst;
    case DRIP_CONFIG_FLOOR_SHARE:
        return config->floor_share;
    case DRIP_CONFIG_FLOOR_COUNT:
        return config->floor_count;
    case DRIP_CONFIG_REDUNDANCY:
        return config->redundancy;
    default:
        return config->drift_limit;
    }
}

uint32_t drip_device_setting(const drip_device_t *device, uint16_t key)
{
    switch (key) {
    case DRIP_CONFIG_SCORE_KIND:
        return device->has_model ? device->score.kind : device->score_wanted;
    case DRIP_CONFIG_POLICY_KIND:
        return device->policy.config.kind;
    case DRIP_CONFIG_THRESHOLD:
        return device->policy.config.threshold;
    case DRIP_CONFIG_RANDOM_SHARE:
        return device->policy.config.random_share;
    case DRIP_CONFIG_SEED:
        return device->seed;
    case DRIP_CONFIG_EVERY_K:
        return device->policy.config.every_k;
    case DRIP_CONFIG_COMMIT_MS:
        return device->log_config.commit_ms;
    case DRIP_CONFIG_COMMIT_BYTES:
        return device->log_config.commit_bytes;
    case DRIP_CONFIG_EVENTS:
        return device->events;
    case DRIP_CONFIG_FULL_MODE:
        return device->log_config.full_mode;
    case DRIP_CONFIG_CLASS_FLOOR:
        return device->log_config.class_floor;
    default:
        return policy_setting(&device->policy.config, key);
    }
}

static int is_short(uint16_t key)
{
    return key == DRIP_CONFIG_RANDOM_SHARE || key == DRIP_CONFIG_THRESHOLD_HIGH ||
           key == DRIP_CONFIG_BURST || key == DRIP_CONFIG_FLOOR_SHARE ||
           key == DRIP_CONFIG_DRIFT_LIMIT;
}

static void put_short(drip_policy_config_t *config, uint16_t key, uint16_t value)
{
    if (key == DRIP_CONFIG_RANDOM_SHARE) {
        config->random_share = value;
    } else if (key == DRIP_CONFIG_THRESHOLD_HIGH) {
        config->threshold_high = value;
    } else if (key == DRIP_CONFIG_BURST) {
        config->burst = value;
    } else if (key == DRIP_CONFIG_FLOOR_SHARE) {
        config->floor_share = value;
    } else {
        config->drift_limit = value;
    }
}

static void put_long(drip_policy_config_t *config, uint16_t key, uint32_t value)
{
    if (key == DRIP_CONFIG_THRESHOLD) {
        config->threshold = value;
    } else if (key == DRIP_CONFIG_SEED) {
        config->seed = value;
    } else if (key == DRIP_CONFIG_EVERY_K) {
        config->every_k = value;
    } else if (key == DRIP_CONFIG_TARGET) {
        config->target = value;
    } else if (key == DRIP_CONFIG_PACE_S) {
        config->pace_s = value;
    } else {
        config->redundancy = value;
    }
}

/* Applies a setting of the policy to `config`. The policy itself judges the value. */
static int set_policy(drip_policy_config_t *config, uint16_t key, uint32_t value)
{
    if (is_short(key)) {
        if (value > 0xFFFF) {
            return DRIP_ERR_ARGUMENT;
        }
        put_short(config, key, (uint16_t)value);
    } else if (key == DRIP_CONFIG_POLICY_KIND || key == DRIP_CONFIG_FLOOR_COUNT) {
        if (value > 0xFF) {
            return DRIP_ERR_ARGUMENT;
        }
        if (key == DRIP_CONFIG_POLICY_KIND) {
            config->kind = (uint8_t)value;
        } else {
            config->floor_count = (uint8_t)value;
        }
    } else {
        put_long(config, key, value);
    }
    return drip_policy_check(config);
}

static int check_score(const drip_device_t *device, uint32_t kind)
{
    drip_score_t trial;
    int code;

    if (kind > DRIP_SCORE_LAST) {
        return DRIP_ERR_ARGUMENT;
    }
    if (kind == 0 || !device->has_model) {
        return DRIP_ERR_OK;
    }
    code = drip_score_open(&trial, &device->nn, (uint8_t)kind, device->seed);
    if (code == DRIP_ERR_OK && drip_score_scratch_bytes(&trial) > device->memory.scratch_bytes) {
        return DRIP_ERR_MEMORY;
    }
    return code;
}

/* Whether a setting is possible, without changing anything. */
static int check(const drip_device_t *device, uint16_t key, uint32_t value)
{
    drip_policy_config_t policy = device->policy.config;

    switch (key) {
    case DRIP_CONFIG_SCORE_KIND:
        return check_score(device, value);
    case DRIP_CONFIG_COMMIT_MS:
    case DRIP_CONFIG_COMMIT_BYTES:
        return DRIP_ERR_OK;
    case DRIP_CONFIG_EVENTS:
        return value <= 1 ? DRIP_ERR_OK : DRIP_ERR_ARGUMENT;
    case DRIP_CONFIG_FULL_MODE:
        return value <= DRIP_FULL_EVICT ? DRIP_ERR_OK : DRIP_ERR_ARGUMENT;
    case DRIP_CONFIG_CLASS_FLOOR:
        return value <= DRIP_MAX_CLASS_FLOOR ? DRIP_ERR_OK : DRIP_ERR_ARGUMENT;
    default:
        return key >= FIRST_KEY && key <= LAST_KEY ? set_policy(&policy, key, value)
                                                   : DRIP_ERR_ARGUMENT;
    }
}

/* A frame in work keeps the settings that it started with as long as it can: only the score kind and
 * the seed touch what it uses, so they are refused while it computes. */
static int set_score(drip_device_t *device, uint16_t key, uint32_t value)
{
    const drip_score_t before = device->score;
    const uint8_t wanted = device->score_wanted;
    drip_policy_config_t policy = device->policy.config;
    int code = DRIP_ERR_OK;

    if (key == DRIP_CONFIG_SCORE_KIND) {
        device->score_wanted = (uint8_t)value;
    } else {
        device->seed = value;
        policy.seed = value;
        drip_policy_init(&device->policy, &policy);
    }
    if (device->has_model) {
        code = drip_device_open_score(device);
    }
    if (code < 0) {
        /* A model may be calibrated for a score that it cannot compute: the running one stays. */
        device->score = before;
        device->score_wanted = wanted;
    }
    return code;
}

int drip_device_config(drip_device_t *device, uint16_t key, uint32_t value)
{
    drip_policy_config_t policy = device->policy.config;
    int code = check(device, key, value);

    if (code < 0) {
        return code;
    }
    switch (key) {
    case DRIP_CONFIG_SCORE_KIND:
    case DRIP_CONFIG_SEED:
        return set_score(device, key, value);
    case DRIP_CONFIG_COMMIT_MS:
        device->log_config.commit_ms = value;
        break;
    case DRIP_CONFIG_COMMIT_BYTES:
        device->log_config.commit_bytes = value;
        break;
    case DRIP_CONFIG_FULL_MODE:
        device->log_config.full_mode = (uint8_t)value;
        break;
    case DRIP_CONFIG_CLASS_FLOOR:
        device->log_config.class_floor = (uint8_t)value;
        break;
    case DRIP_CONFIG_EVENTS:
        device->events = (uint8_t)value;
        break;
    default:
        set_policy(&policy, key, value);
        drip_policy_configure(&device->policy, &policy);
        break;
    }
    drip_log_configure(&device->log, &device->log_config);
    return DRIP_ERR_OK;
}

void drip_device_pace(drip_device_t *device)
{
    const uint64_t capacity = drip_log_capacity(&device->log);
    const uint64_t first = device->log_config.full_mode == DRIP_FULL_STOP
                               ? drip_log_tail(&device->log)
                               : drip_log_acked(&device->log);
    const uint64_t used = drip_log_end(&device->log) - first;

    if (device->policy.config.pace_s == 0 || !drip_device_has_log(device)) {
        return;
    }
    drip_policy_pace(&device->policy, (uint32_t)(drip_device_now(device) >> 20),
                     (uint32_t)((capacity > used ? capacity - used : 0) / DRIP_BLOCK_BYTES),
                     device->frame.size + DRIP_RECORD_HEADER_BYTES);
}

int drip_device_config_get(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_response_t response = {DRIP_ERR_OK, 0};
    drip_config_item_t item;
    uint8_t *body = drip_device_body(device);
    uint32_t size = sizeof(response);
    uint16_t key;

    memcpy(body, &response, sizeof(response));
    for (key = FIRST_KEY; key <= LAST_KEY; key++) {
        item.key = key;
        item.length = sizeof(item.value);
        item.value = drip_device_setting(device, key);
        memcpy(body + size, &item, sizeof(item));
        size += (uint32_t)sizeof(item);
    }
    drip_device_send(device, request->header.type, request->header.id, size);
    return REQUEST_DONE;
}

/* Has what a request has set written to the journal; the answer waits for that. */
static int keep_settings(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_config_entry_t wanted = device->slot.config;
    drip_config_item_t item;
    uint32_t at;
    int code;

    for (at = 0; at < request->body_size; at += (uint32_t)sizeof(item)) {
        memcpy(&item, request->body + at, sizeof(item));
        if (item.key != DRIP_CONFIG_EVENTS) { /* for one host, not for the next */
            wanted.values[item.key - 1] = item.value;
            wanted.present |= 1u << (item.key - 1);
        }
    }
    code = drip_slot_configure(&device->slot, &wanted);
    if (code == DRIP_ERR_OK) {
        drip_device_defer(device, request);
        return REQUEST_DONE;
    }
    return drip_device_answer(device, request, code == DRIP_ERR_UNSUPPORTED ? DRIP_ERR_OK : code,
                              0);
}

void drip_device_config_pending(drip_device_t *device)
{
    drip_link_frame_t request;
    int code;

    if (drip_device_body(device) == NULL) {
        return;
    }
    code = drip_slot_poll(&device->slot);
    if (code == DRIP_ERR_BUSY) {
        return;
    }
    request.header.type = device->pending_type;
    request.header.id = device->pending_id;
    device->pending_type = 0;
    drip_device_answer(device, &request, code, 0);
}

void drip_device_config_restore(drip_device_t *device)
{
    const drip_config_entry_t *kept = &device->slot.config;
    uint16_t key;

    for (key = FIRST_KEY; key <= LAST_KEY; key++) {
        if ((kept->present & 1u << (key - 1)) != 0 && key != DRIP_CONFIG_EVENTS) {
            /* A value that this build or model cannot take leaves the default. */
            (void)drip_device_config(device, key, kept->values[key - 1]);
        }
    }
}

/* All or nothing: the first pass only checks. */
int drip_device_config_set(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_config_item_t item;
    uint32_t at;
    int pass;

    if ((device->stage != STAGE_IDLE && device->stage != STAGE_LOGGING) ||
        device->pending_type != 0) {
        return REQUEST_HOLD;
    }
    if (request->body_size == 0 || request->body_size % sizeof(item) != 0) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    for (pass = 0; pass < 2; pass++) {
        for (at = 0; at < request->body_size; at += (uint32_t)sizeof(item)) {
            int code;

            memcpy(&item, request->body + at, sizeof(item));
            if (item.length != sizeof(item.value)) {
                return drip_device_answer(device, request, DRIP_ERR_ARGUMENT, item.key);
            }
            code = pass == 0 ? check(device, item.key, item.value)
                             : drip_device_config(device, item.key, item.value);
            if (code < 0) {
                return drip_device_answer(device, request, code, item.key);
            }
        }
    }
    return keep_settings(device, request);
}
