#include "policy_internal.h"

#include <stddef.h>
#include <string.h>

enum {
    DEFAULT_RANDOM_SHARE = 3277, /* 5 % of 65536 */
    DEFAULT_DRIFT_LIMIT = 250,   /* the usual mark of a major shift */
    SHARE_ALL = 65535,
    ONE = 65536,
    MAX_BURST = 16383,
    MAX_FLOOR_COUNT = 30,
    UNSET = INT16_MIN,
    FRAME_OWED = 1024,   /* one frame, in drip_policy_class_t.owed */
    OWED_LEAST = -8192,  /* frames kept beyond the floor count for so long only */
    RANK_SCALE = 4,      /* of drip_policy_class_t.threshold */
    RANK_MOST = 98308,   /* above every rank */
    RANK_LEAST = -32768, /* the least rank there is */
    STEP_LEAST = 379,    /* eta 0.08, x 0.289 x 65536 / RANK_SCALE */
    STEP_RARE = 1041,    /* more for a class not seen of late: eta 0.3 */
    STEP_SEEN = 16,
    PAY_BACK = 64, /* frames */
    FAST = 16,
    SLOW = 512,
    BURST_RISE = 13107, /* 0.2: four standard deviations of the fast mean of what does not change */
    REFILL = 16,        /* part of the target that fills the credit up again */
};

void drip_policy_defaults(drip_policy_config_t *config)
{
    memset(config, 0, sizeof *config);
    config->threshold = DRIP_THRESHOLD_CALIBRATED;
    config->threshold_high = DRIP_PERCENTILE_ONE;
    config->every_k = 1;
    config->seed = 1;
    config->random_share = DEFAULT_RANDOM_SHARE;
    config->drift_limit = DEFAULT_DRIFT_LIMIT;
    config->kind = DRIP_POLICY_TARGET;
    config->redundancy = DRIP_REDUNDANCY_CALIBRATED;
}

int drip_policy_check(const drip_policy_config_t *config)
{
    return config->kind >= DRIP_POLICY_THRESHOLD && config->kind <= DRIP_POLICY_TARGET &&
                   config->threshold <= DRIP_THRESHOLD_CALIBRATED && config->every_k > 0 &&
                   config->target <= DRIP_TARGET_ALL && config->burst <= MAX_BURST &&
                   config->floor_count <= MAX_FLOOR_COUNT &&
                   config->redundancy <= DRIP_REDUNDANCY_CALIBRATED
               ? DRIP_ERR_OK
               : DRIP_ERR_ARGUMENT;
}

int drip_policy_init(drip_policy_t *policy, const drip_policy_config_t *config)
{
    if (drip_policy_check(config) != DRIP_ERR_OK)
        return DRIP_ERR_ARGUMENT;
    memset(policy, 0, sizeof *policy);
    drip_policy_forget(policy);
    drip_rng_seed(&policy->rng, config->seed);
    return drip_policy_configure(policy, config);
}

int drip_policy_configure(drip_policy_t *policy, const drip_policy_config_t *config)
{
    if (drip_policy_check(config) != DRIP_ERR_OK)
        return DRIP_ERR_ARGUMENT;
    if (config->burst != policy->config.burst)
        policy->credit = config->burst * ONE;
    if (config->pace_s != policy->config.pace_s)
        memset(&policy->pace, 0, sizeof policy->pace);
    if (config->floor_count != policy->config.floor_count)
        for (uint32_t c = 0; c < DRIP_MAX_CLASSES; c++)
            policy->classes[c].owed = (int16_t)(config->floor_count * FRAME_OWED);
    policy->config = *config;
    return DRIP_ERR_OK;
}

void drip_policy_forget(drip_policy_t *policy)
{
    memset(policy->classes, 0, sizeof policy->classes);
    memset(policy->histogram, 0, sizeof policy->histogram);
    policy->window = 0;
    for (uint32_t c = 0; c < DRIP_MAX_CLASSES; c++) {
        policy->classes[c].threshold = UNSET;
        policy->classes[c].owed = (int16_t)(policy->config.floor_count * FRAME_OWED);
    }
    policy->fast = policy->slow = DRIP_PERCENTILE_ONE / 2;
    policy->psi_score = policy->psi_class = 0;
    policy->thumb_count = 0;
    policy->behind = 0;
}

/* ------------------------------------------------------------------ thresholds */

/* Share of the frames that the threshold must choose, so that with the random share `target` are kept. */
static uint32_t chosen_share(const drip_policy_config_t *config, uint32_t target)
{
    const uint32_t random = config->random_share;
    if (target >= ONE)
        return ONE;
    return target > random ? ((target - random) << 16) / (ONE - random) : 0;
}

/* The rule THRESHOLD. */
static int32_t fixed_threshold(const drip_policy_config_t *config, const drip_score_t *score,
                               uint32_t class_1)
{
    /* A threshold of 0 lets pass what lies below all that calibration saw, too. */
    if (config->threshold != DRIP_THRESHOLD_CALIBRATED)
        return config->threshold > 0 ? (int32_t)config->threshold : RANK_LEAST;
    /* Without calibration nothing says what is unimportant. */
    if (score->thresholds == NULL || class_1 >= score->classes || score->thresholds[class_1] == 0)
        return RANK_LEAST;
    /* The random share lies inside the budget: the threshold makes room for it. */
    const uint32_t wide =
        ((uint32_t)score->thresholds[class_1] << 16) / (ONE - (uint32_t)config->random_share);
    return wide < DRIP_PERCENTILE_ONE ? (int32_t)wide : DRIP_PERCENTILE_ONE;
}

static uint32_t target_of(const drip_policy_t *policy, const drip_score_t *score)
{
    const drip_policy_config_t *config = &policy->config;
    if (config->pace_s != 0 && policy->pace.share != 0)
        return policy->pace.share;
    if (config->target != 0)
        return config->target;
    return score->calibration != NULL ? score->calibration->target_ratio : DRIP_TARGET_ALL;
}

/* Where the tracker of a class starts: at its calibrated quantile, shifted to another target. */
static int16_t first_threshold(const drip_policy_t *policy, const drip_score_t *score,
                               uint32_t class_1, uint32_t target)
{
    const int32_t share = (int32_t)chosen_share(&policy->config, target);
    int32_t rank = ONE - share;
    if (score->thresholds != NULL && class_1 < score->classes)
        rank = score->thresholds[class_1] + score->calibration->target_ratio - share;
    if (rank < 0)
        rank = share == ONE ? RANK_LEAST : 0;
    return (int16_t)((rank < DRIP_PERCENTILE_ONE ? rank : DRIP_PERCENTILE_ONE) / RANK_SCALE);
}

/* tau += eta sigma (kept - target). Rounded at random, so that small targets are met, too. */
static void track(drip_policy_class_t *entry, uint32_t target, int kept, uint32_t dither)
{
    const uint32_t step = STEP_LEAST + STEP_RARE * STEP_SEEN / (STEP_SEEN + (uint32_t)entry->seen);
    const int32_t down = (int32_t)((step * target + dither) >> 16);
    int32_t to = entry->threshold - down + (kept ? (int32_t)step : 0);
    if (to > RANK_MOST / RANK_SCALE)
        to = RANK_MOST / RANK_SCALE;
    if (to < RANK_LEAST / RANK_SCALE)
        to = RANK_LEAST / RANK_SCALE;
    entry->threshold = (int16_t)to;
}

/* Frames that are missing to the target, or too many: paid back over the next ones. While scores drift
 * every class is some frames behind, and with many classes that adds up. */
static uint32_t pay_back(drip_policy_t *policy, uint32_t target)
{
    const int32_t room = ONE - (int32_t)target;
    int32_t extra = policy->behind / PAY_BACK;
    if (extra > room)
        extra = room;
    if (extra < -(int32_t)target)
        extra = -(int32_t)target;
    return (uint32_t)((int32_t)target + extra);
}

static void count_behind(drip_policy_t *policy, uint32_t target, int kept)
{
    int32_t behind = policy->behind + (int32_t)target - (kept ? ONE : 0);
    if (behind > BEHIND_MOST)
        behind = BEHIND_MOST;
    if (behind < -BEHIND_MOST)
        behind = -BEHIND_MOST;
    policy->behind = behind;
}

/* ------------------------------------------------------------------ bursts */

static uint16_t nearer(uint16_t mean, uint16_t to, int32_t part)
{
    return (uint16_t)(mean + ((int32_t)to - mean) / part);
}

/* Whether the scores have risen so that the threshold stands still, at the expense of the credit. */
static int burst(const drip_policy_t *policy)
{
    return policy->config.burst != 0 && policy->credit >= ONE &&
           (int32_t)policy->fast - policy->slow > BURST_RISE;
}

static void spend(drip_policy_t *policy, int32_t frames)
{
    const int32_t most = policy->config.burst * ONE;
    policy->credit += frames;
    if (policy->credit > most)
        policy->credit = most;
}

/* ------------------------------------------------------------------ classes */

/* What is asked of a class and of its frames that were kept. */
static int floor_asks(const drip_policy_t *policy, drip_policy_class_t *entry)
{
    int32_t owed = entry->owed + policy->config.floor_share / (ONE / FRAME_OWED);
    if (owed > INT16_MAX)
        owed = INT16_MAX;
    entry->owed = (int16_t)owed;
    return owed >= FRAME_OWED;
}

static void count_class(drip_policy_class_t *entry, int kept)
{
    entry->seen = (uint16_t)(entry->seen + 1u);
    if (!kept)
        return;
    entry->kept = (uint16_t)(entry->kept + 1u);
    entry->owed =
        (int16_t)(entry->owed - FRAME_OWED > OWED_LEAST ? entry->owed - FRAME_OWED : OWED_LEAST);
}

/* ------------------------------------------------------------------ redundancy */

static int redundant(const drip_policy_t *policy, const drip_score_t *score)
{
    uint32_t least = policy->config.redundancy;
    if (least == DRIP_REDUNDANCY_CALIBRATED)
        least = score->calibration != NULL ? score->calibration->redundancy : 0;
    return drip_policy_seen(policy, least);
}

static void remember(drip_policy_t *policy)
{
    if (policy->thumb_cells == 0)
        return;
    policy->ring[policy->thumb_next] = policy->thumb;
    policy->thumb_next = (uint8_t)((policy->thumb_next + 1u) % DRIP_THUMB_RING);
    if (policy->thumb_count < DRIP_THUMB_RING)
        policy->thumb_count++;
}

/* ------------------------------------------------------------------ decision */

static int by_schedule(drip_policy_t *policy, int keep)
{
    policy->drop = keep ? DRIP_DROP_NONE : DRIP_DROP_SCHEDULE;
    return keep ? DRIP_REASON_SCHEDULE : 0;
}

/* What the last frame was held against, as a percentile. */
static uint16_t as_percentile(int32_t rank)
{
    if (rank < 0)
        return 0;
    return rank < DRIP_PERCENTILE_ONE ? (uint16_t)rank : (uint16_t)DRIP_PERCENTILE_ONE;
}

static int judge(drip_policy_t *policy, const drip_score_t *score,
                 const drip_score_result_t *result, drip_policy_class_t *entry, uint32_t draw,
                 int32_t threshold)
{
    const drip_policy_config_t *config = &policy->config;
    int reason = 0;
    policy->held = as_percentile(threshold);
    if (drip_score_rank(score, result) >= threshold && result->percentile <= config->threshold_high)
        reason = DRIP_REASON_THRESHOLD;
    if (floor_asks(policy, entry) && reason == 0)
        reason = DRIP_REASON_FLOOR;
    policy->drop = reason == 0 ? DRIP_DROP_SCORE : DRIP_DROP_NONE;
    /* Drawn before anything is known of the frame, so nothing may take it away again. */
    if ((draw >> 16) < config->random_share || config->random_share == SHARE_ALL) {
        policy->drop = DRIP_DROP_NONE;
        return reason | DRIP_REASON_RANDOM_SHARE;
    }
    if (reason != 0 && redundant(policy, score)) {
        policy->drop = DRIP_DROP_REDUNDANT;
        policy->redundant++;
        return 0;
    }
    return reason;
}

/* The rule TARGET around a judgement. */
static int judge_tracked(drip_policy_t *policy, const drip_score_t *score,
                         const drip_score_result_t *result, drip_policy_class_t *entry,
                         uint32_t draw)
{
    const int32_t full = policy->config.burst * ONE;
    uint32_t target = target_of(policy, score);
    const int still = burst(policy);
    policy->target = target;
    if (entry->threshold == UNSET)
        entry->threshold = first_threshold(policy, score, result->class_1, target);
    /* Until the rise was noticed the threshold has followed it: that is taken back. */
    const int32_t rise = still ? policy->fast - policy->slow : 0;
    int reason = judge(policy, score, result, entry, draw, entry->threshold * RANK_SCALE - rise);
    if (reason != 0 && policy->config.pace_s != 0)
        reason |= DRIP_REASON_PACED;
    if (still) {
        spend(policy, (int32_t)target - (reason != 0 ? ONE : 0));
        return (reason & DRIP_REASON_THRESHOLD) != 0 ? reason | DRIP_REASON_BURST : reason;
    }
    if (policy->credit < full) {
        spend(policy, (int32_t)(target / REFILL));
        target -= target / REFILL;
    }
    track(entry, pay_back(policy, target), reason != 0, draw & 0xFFFFu);
    count_behind(policy, target, reason != 0);
    return reason;
}

int drip_policy_decide(drip_policy_t *policy, const drip_score_t *score,
                       const drip_score_result_t *result)
{
    const drip_policy_config_t *config = &policy->config;
    /* One draw per frame whatever the rule, so that a run can be repeated. */
    const uint32_t draw = drip_rng_next(&policy->rng);
    const uint32_t number = policy->count++;
    const int scored = score != NULL && result != NULL;
    drip_policy_class_t *entry = NULL;
    int reason;
    policy->drop = DRIP_DROP_NONE;
    policy->held = 0;
    if (scored) {
        entry = &policy->classes[result->class_1 < DRIP_MAX_CLASSES ? result->class_1
                                                                    : DRIP_MAX_CLASSES - 1];
        policy->histogram[result->percentile / (ONE / DRIP_HISTOGRAM_BINS)]++;
        policy->window++;
    }
    if (config->kind == DRIP_POLICY_ALL || config->kind == DRIP_POLICY_NONE)
        reason = by_schedule(policy, config->kind == DRIP_POLICY_ALL);
    else if (config->kind == DRIP_POLICY_EVERY_KTH)
        reason = by_schedule(policy, number % config->every_k == 0);
    else if (!scored)
        reason = DRIP_REASON_NO_MODEL;
    else if (config->kind == DRIP_POLICY_TARGET)
        reason = judge_tracked(policy, score, result, entry, draw);
    else
        reason = judge(policy, score, result, entry, draw,
                       fixed_threshold(config, score, result->class_1));
    if (scored) {
        count_class(entry, reason != 0);
        policy->fast = nearer(policy->fast, result->percentile, FAST);
        policy->slow = nearer(policy->slow, result->percentile, SLOW);
        drip_policy_drift(policy, score);
    }
    if (reason != 0)
        remember(policy);
    policy->thumb_cells = 0;
    return reason;
}
