/* Drift: what is seen of late against what calibration saw. */
#include "integer.h"
#include "policy_internal.h"

#include <stddef.h>

enum {
    WINDOW = 1024, /* frames; then all counts are halved */
    ONE = 65536,
    SHARE_LEAST = 33, /* 0.05 %: an empty bin must not make the index infinite */
    LN2_1000 = 693,   /* ln 2 x 1000 */
    SHARE_SCALE = 255,
};

static const uint16_t *count_at(const uint16_t *counts, uint32_t step, uint32_t i)
{
    return (const void *)((const uint8_t *)counts + i * step);
}

/* (a - e) ln(a / e) / ln 2, x 2^(16 + DRIP_LOG2_BITS). */
static int64_t term(uint32_t count, uint32_t total, uint32_t expected)
{
    uint32_t share = (count << 16) / total;
    share = share > SHARE_LEAST ? share : SHARE_LEAST;
    expected = expected > SHARE_LEAST ? expected : SHARE_LEAST;
    return (int64_t)((int32_t)share - (int32_t)expected) * (drip_log2(share) - drip_log2(expected));
}

/* The index of counts that lie `step` bytes apart. */
__attribute__((noinline)) static uint32_t index_of(const uint16_t *counts, uint32_t step,
                                                   const uint16_t *shares, uint32_t bins)
{
    uint32_t total = 0;
    int64_t sum = 0;
    for (uint32_t i = 0; i < bins; i++)
        total += *count_at(counts, step, i);
    for (uint32_t i = 0; total != 0 && i < bins; i++)
        sum += term(*count_at(counts, step, i), total, shares[i]);
    return (uint32_t)((sum * LN2_1000) >> (16 + DRIP_LOG2_BITS));
}

uint32_t drip_policy_psi(const uint16_t *counts, const uint16_t *shares, uint32_t bins)
{
    return index_of(counts, sizeof *counts, shares, bins);
}

/* Counts of the past count for less and less. */
static void halve(drip_policy_t *policy)
{
    policy->window = 0;
    for (uint32_t i = 0; i < DRIP_HISTOGRAM_BINS; i++) {
        policy->histogram[i] >>= 1;
        policy->window = (uint16_t)(policy->window + policy->histogram[i]);
    }
    for (uint32_t c = 0; c < DRIP_MAX_CLASSES; c++) {
        policy->classes[c].seen >>= 1;
        policy->classes[c].kept >>= 1;
    }
}

void drip_policy_drift(drip_policy_t *policy, const drip_score_t *score)
{
    const uint32_t limit = policy->config.drift_limit;
    if (policy->window < WINDOW)
        return;
    if (score->shares != NULL && policy->class_count == score->classes) {
        policy->psi_score = (uint16_t)index_of(policy->histogram, sizeof policy->histogram[0],
                                               score->shares, DRIP_HISTOGRAM_BINS);
        policy->psi_class =
            (uint16_t)index_of(&policy->classes[0].seen, sizeof policy->classes[0],
                               score->shares + DRIP_HISTOGRAM_BINS, policy->class_count);
    }
    halve(policy);
    const uint32_t worst =
        policy->psi_score > policy->psi_class ? policy->psi_score : policy->psi_class;
    if (limit != 0 && worst >= limit && !policy->drifted)
        policy->drift_due = 1;
    if (worst >= limit)
        policy->drifted = 1;
    else if (worst < limit / 2)
        policy->drifted = 0;
}

void drip_policy_status(const drip_policy_t *policy, drip_status_t *status)
{
    uint32_t total = 0;
    for (uint32_t c = 0; c < policy->class_count; c++)
        total += policy->classes[c].seen;
    status->dropped_redundant = policy->redundant;
    status->target = (uint16_t)(policy->target < ONE ? policy->target : ONE - 1);
    status->credit = (uint16_t)(policy->credit / ONE);
    status->psi_score = policy->psi_score;
    status->psi_class = policy->psi_class;
    status->window = policy->window;
    status->class_count = policy->class_count;
    for (uint32_t c = 0; total != 0 && c < policy->class_count; c++) {
        const drip_policy_class_t *entry = &policy->classes[c];
        const uint32_t seen = entry->seen;
        status->class_share[c] = (uint8_t)(seen * SHARE_SCALE / total);
        status->class_kept[c] = seen == 0 ? 0 : (uint8_t)(entry->kept * SHARE_SCALE / seen);
    }
}
