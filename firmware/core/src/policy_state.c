/* The state of a policy across restarts, models and scores. */
#include "policy_internal.h"

#include <stddef.h>
#include <string.h>

enum { THRESHOLD_BYTES = 2, NO_KEPT_BYTES = 6, SEEN_MOST = 1024 };

void drip_policy_attach(drip_policy_t *policy, const drip_score_t *score)
{
    const drip_blob_header_t *header = &score->nn->header;
    const uint32_t tag =
        drip_crc32(drip_crc32(0, header->model_id, sizeof header->model_id), &score->kind, 1);
    if (tag != policy->tag)
        drip_policy_forget(policy);
    policy->tag = tag;
    policy->class_count =
        score->classes < DRIP_MAX_CLASSES ? (uint8_t)score->classes : (uint8_t)DRIP_MAX_CLASSES;
}

int drip_policy_save(const drip_policy_t *policy, void *out, uint32_t capacity)
{
    drip_policy_state_t state;
    uint8_t *to = (uint8_t *)out + sizeof state;
    if (capacity < sizeof state)
        return DRIP_ERR_MEMORY;
    const uint32_t room = capacity - (uint32_t)sizeof state;
    uint32_t classes = policy->class_count, entry = sizeof(drip_policy_class_t);
    /* Fields that come last are missed least. */
    if (classes * entry > room)
        entry = NO_KEPT_BYTES;
    if (classes * entry > room)
        entry = THRESHOLD_BYTES;
    if (classes * entry > room)
        classes = room / entry;
    memset(&state, 0, sizeof state);
    state.version = DRIP_POLICY_STATE_VERSION;
    state.classes = (uint8_t)classes;
    state.entry_bytes = (uint8_t)entry;
    state.tag = policy->tag;
    state.count = policy->count;
    state.rng = policy->rng.state;
    state.credit = policy->credit;
    state.fast = policy->fast;
    state.slow = policy->slow;
    state.pace_left = policy->pace.left;
    state.pace_free = policy->pace.free;
    state.behind = policy->behind;
    memcpy(out, &state, sizeof state);
    for (uint32_t c = 0; c < classes; c++)
        memcpy(to + c * entry, &policy->classes[c], entry);
    return (int)(sizeof state + classes * entry);
}

/* What was counted must be countable: the device trusts these numbers from then on. */
static void restore_class(drip_policy_class_t *to, const uint8_t *from, uint32_t bytes)
{
    memset(to, 0, sizeof *to);
    memcpy(to, from, bytes);
    if (to->seen > SEEN_MOST)
        to->seen = SEEN_MOST;
    if (to->kept > to->seen)
        to->kept = to->seen;
}

int drip_policy_restore(drip_policy_t *policy, const void *saved, uint32_t bytes)
{
    drip_policy_state_t state;
    const uint8_t *from = (const uint8_t *)saved + sizeof state;
    if (bytes < sizeof state)
        return DRIP_ERR_SHORT;
    memcpy(&state, saved, sizeof state);
    if (state.version != DRIP_POLICY_STATE_VERSION)
        return DRIP_ERR_VERSION;
    if ((state.entry_bytes != sizeof(drip_policy_class_t) && state.entry_bytes != NO_KEPT_BYTES &&
         state.entry_bytes != THRESHOLD_BYTES) ||
        state.classes > DRIP_MAX_CLASSES || state.rng == 0 || state.credit < 0 ||
        state.behind > BEHIND_MOST || state.behind < -BEHIND_MOST)
        return DRIP_ERR_CORRUPT;
    if ((uint32_t)state.classes * state.entry_bytes > bytes - sizeof state)
        return DRIP_ERR_SHORT;
    policy->count = state.count;
    policy->rng.state = state.rng;
    policy->credit = state.credit;
    policy->pace.left = state.pace_left;
    policy->pace.free = state.pace_free;
    if (state.tag != policy->tag)
        return DRIP_ERR_OK;
    policy->fast = state.fast;
    policy->slow = state.slow;
    policy->behind = state.behind;
    for (uint32_t c = 0; c < state.classes; c++)
        restore_class(&policy->classes[c], from + c * state.entry_bytes, state.entry_bytes);
    return DRIP_ERR_OK;
}
