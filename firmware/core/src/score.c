#include "cam_internal.h"
#include "drip/score.h"
#include "integer.h"

#include <stddef.h>

enum {
    INTERVAL = (DRIP_PERCENTILE_ONE + 1) / (DRIP_KNOTS - 1),
    EVIDENCE_NONE = 1 << 30,
    LOG2_E = 94548, /* log2 e x 65536 */
    STEP_MOST = 32 << 16,
    EXP_1 = 45324,
    EXP_2 = 15149,
    EXP_3 = 2593,
    QUARTER = (DRIP_KNOTS - 1) / 4,
    RANK_QUARTER = (DRIP_PERCENTILE_ONE + 1) / 4,
    RANK_BEYOND = 32767
};

static int knots_ascend(const int32_t *knots, uint32_t classes)
{
    for (uint32_t c = 0; c < classes; c++, knots += DRIP_KNOTS)
        for (uint32_t i = 1; i < DRIP_KNOTS; i++)
            if (knots[i] < knots[i - 1])
                return 0;
    return 1;
}

/* Points the stage at the calibration of its kind, if the blob has one. */
static int find_calibration(drip_score_t *score)
{
    const drip_nn_t *nn = score->nn;
    const drip_blob_section_t *section = NULL;
    for (uint16_t i = 0; (section = drip_nn_section(nn, DRIP_SECTION_CALIBRATION, i)) != NULL; i++)
        if (section->flags == score->kind)
            break;
    if (section == NULL)
        return DRIP_ERR_OK;
    const uint32_t per_class = DRIP_KNOTS * 4u + 2u;
    const drip_blob_calibration_t *head = (const void *)(nn->blob + section->offset);
    if (section->size < sizeof *head ||
        (section->size - sizeof *head) / per_class < score->classes ||
        head->classes != score->classes || head->knots != DRIP_KNOTS)
        return DRIP_ERR_CORRUPT;
    const int32_t *knots = (const int32_t *)(head + 1);
    if (!knots_ascend(knots, score->classes))
        return DRIP_ERR_CORRUPT;
    score->calibration = head;
    score->knots = knots;
    score->thresholds = (const uint16_t *)(knots + DRIP_KNOTS * score->classes);
    if ((head->flags & DRIP_CALIBRATION_SHARES) == 0)
        return DRIP_ERR_OK;
    if (section->size - sizeof *head - per_class * score->classes <
        2u * DRIP_HISTOGRAM_BINS + 2u * score->classes)
        return DRIP_ERR_CORRUPT;
    score->shares = score->thresholds + score->classes;
    return DRIP_ERR_OK;
}

int drip_score_open(drip_score_t *score, const drip_nn_t *nn, uint8_t kind, uint32_t seed)
{
    if (kind < DRIP_SCORE_CAM_EVIDENCE || kind > DRIP_SCORE_LAST)
        return DRIP_ERR_UNSUPPORTED;
    score->nn = nn;
    score->kind = kind;
    score->knots = NULL;
    score->thresholds = NULL;
    score->calibration = NULL;
    score->shares = NULL;
    score->classes = nn->header.class_count;
    drip_rng_seed(&score->rng, seed);
    if (score->classes == 0 || nn->tensors[nn->header.logits_tensor].size != score->classes)
        return DRIP_ERR_CORRUPT;
    const int result = drip_cam_open(&score->cam, nn);
    score->has_cam = result == DRIP_ERR_OK;
    const int needed = kind == DRIP_SCORE_CAM_EVIDENCE || kind == DRIP_SCORE_CAM_CONTRAST ||
                       kind == DRIP_SCORE_CAM_PAPER || kind == DRIP_SCORE_CAM_PAPER_LOW;
    if (result != DRIP_ERR_OK && (needed || result != DRIP_ERR_NO_CAM))
        return result;
    return find_calibration(score);
}

uint32_t drip_score_scratch_bytes(const drip_score_t *score)
{
    return score->has_cam ? drip_cam_scratch_bytes(&score->cam) : 0;
}

/* The two largest logits; the lower index wins a tie. */
static void rank(const drip_score_t *score, const int8_t *logits, drip_score_result_t *out)
{
    int32_t first = logits[0], second = INT8_MIN - 1;
    uint32_t class_1 = 0, class_2 = 0;
    for (uint32_t c = 1; c < score->classes; c++) {
        const int32_t logit = logits[c];
        if (logit > first) {
            second = first;
            class_2 = class_1;
            first = logit;
            class_1 = c;
        } else if (logit > second) {
            second = logit;
            class_2 = c;
        }
    }
    out->class_1 = (uint16_t)class_1;
    out->class_2 = (uint16_t)class_2;
    out->logit_1 = logits[class_1];
    out->logit_2 = logits[class_2];
}

static int32_t cam_raw(const drip_score_t *score, void *scratch, const drip_score_result_t *out)
{
    drip_cam_begin(&score->cam, out->class_1, scratch);
    if (score->kind == DRIP_SCORE_CAM_EVIDENCE) {
        const int32_t evidence = drip_cam_total(&score->cam, scratch, NULL);
        if (evidence > 0)
            return -evidence;
    }
    drip_cam_subtract(&score->cam, out->class_2, scratch);
    const int32_t contrast = drip_cam_total(&score->cam, scratch, NULL);
    if (score->kind == DRIP_SCORE_CAM_CONTRAST)
        return -contrast;
    /* No evidence at all is more important than any; less contrast, more so. */
    return 1 + EVIDENCE_NONE - (contrast < EVIDENCE_NONE ? contrast : EVIDENCE_NONE);
}

/* Mean of the map divided by its maximum, x 65535. */
static int32_t paper_raw(const drip_score_t *score, void *scratch, const drip_score_result_t *out)
{
    int32_t peak = 0;
    drip_cam_begin(&score->cam, out->class_1, scratch);
    uint32_t sum = (uint32_t)drip_cam_total_peak(&score->cam, scratch, NULL, &peak);
    uint64_t whole = (uint64_t)(uint32_t)peak * score->cam.head->pixels;
    if (peak <= 0)
        return 0;
    while (whole > UINT16_MAX) {
        whole >>= 1;
        sum >>= 1;
    }
    return (int32_t)(sum * UINT16_MAX / (uint32_t)whole);
}

/* Steps of a logit's scale in bits of information, x 65536, at most 32: beyond that a step decides. */
static uint32_t bits_per_step(uint32_t scale)
{
    const uint32_t mantissa = (scale & 0x7FFFFFu) | 0x800000u;
    const int32_t exponent = (int32_t)(scale >> 23 & 0xFFu) - 127 - 7;
    const uint32_t bits = (uint32_t)(((uint64_t)mantissa * LOG2_E) >> 16);
    if (exponent <= -31)
        return 0;
    if (exponent <= 0)
        return bits >> -exponent;
    return exponent > 7 || bits << exponent > STEP_MOST ? STEP_MOST : bits << exponent;
}

/* 2^-x, both x 65536: a cubic, off by 1e-4 at most. */
static uint32_t exp2_minus(uint32_t x)
{
    const uint32_t f = x & 0xFFFFu, whole = x >> 16;
    const uint32_t inner = EXP_2 - (EXP_3 * f >> 16);
    const uint32_t value = 65536u - (f * (EXP_1 - (inner * f >> 16)) >> 16);
    return whole < 31 ? value >> whole : 0;
}

/* Entropy of the softmax in bits, x 4096: log2 Z + sum p k with p = 2^-k / Z. */
static int32_t entropy_raw(const drip_score_t *score, const int8_t *logits, int32_t top)
{
    const drip_nn_t *nn = score->nn;
    const uint32_t step = bits_per_step(nn->tensors[nn->header.logits_tensor].scale);
    uint32_t z = 0;
    uint64_t weighted = 0;
    for (uint32_t c = 0; c < score->classes; c++) {
        const uint32_t k = (uint32_t)(top - logits[c]) * step;
        const uint32_t p = exp2_minus(k);
        z += p;
        weighted += (uint64_t)p * k;
    }
    const int32_t log = drip_log2(z) - (16 << DRIP_LOG2_BITS);
    uint32_t sum = (uint32_t)(weighted >> 16);
    while (sum >= 1u << 20) {
        sum >>= 1;
        z >>= 1;
    }
    return z == 0 ? 0 : log + (int32_t)((sum << DRIP_LOG2_BITS) / z);
}

static int32_t raw_of(drip_score_t *score, void *scratch, const int8_t *logits,
                      const drip_score_result_t *out)
{
    const uint32_t kind = score->kind;
    if (kind == DRIP_SCORE_MARGIN)
        return out->logit_2 - out->logit_1;
    if (kind == DRIP_SCORE_MAX_LOGIT)
        return -out->logit_1;
    if (kind == DRIP_SCORE_RANDOM)
        return (int32_t)(drip_rng_next(&score->rng) >> 1);
    if (kind == DRIP_SCORE_ENTROPY)
        return entropy_raw(score, logits, out->logit_1);
    if (kind == DRIP_SCORE_CAM_PAPER)
        return paper_raw(score, scratch, out);
    if (kind == DRIP_SCORE_CAM_PAPER_LOW)
        return -paper_raw(score, scratch, out);
    return cam_raw(score, scratch, out);
}

int drip_score_compute(drip_score_t *score, void *scratch, drip_score_result_t *out)
{
    const int8_t *logits = drip_nn_tensor(score->nn, score->nn->header.logits_tensor, NULL);
    if (logits == NULL)
        return DRIP_ERR_STATE;
    rank(score, logits, out);
    out->raw = raw_of(score, scratch, logits, out);
    if (score->knots != NULL)
        out->percentile = drip_score_percentile(score->knots + DRIP_KNOTS * out->class_1, out->raw);
    else if (score->kind == DRIP_SCORE_RANDOM)
        out->percentile = (uint16_t)(out->raw >> 15);
    else
        out->percentile = DRIP_PERCENTILE_ONE;
    return DRIP_ERR_OK;
}

uint16_t drip_score_percentile(const int32_t *knots, int32_t raw)
{
    if (raw < knots[0])
        return 0;
    if (raw >= knots[DRIP_KNOTS - 1])
        return DRIP_PERCENTILE_ONE;
    uint32_t i = 0;
    for (uint32_t step = (DRIP_KNOTS - 1) / 2; step != 0; step /= 2)
        i += raw >= knots[i + step] ? step : 0;
    uint32_t into = (uint32_t)raw - (uint32_t)knots[i];
    uint32_t width = (uint32_t)knots[i + 1] - (uint32_t)knots[i];
    /* Room for the product with INTERVAL in 32 bits. */
    while (width >= UINT32_MAX / INTERVAL) {
        into >>= 1;
        width >>= 1;
    }
    return (uint16_t)(i * INTERVAL + into * INTERVAL / width);
}

/* How far beyond a knot, in quarters of the scores x RANK_QUARTER. */
__attribute__((noinline)) static int32_t beyond(uint32_t distance, uint32_t width)
{
    while (distance >= UINT32_MAX / RANK_QUARTER) {
        distance >>= 1;
        width >>= 1;
    }
    const uint32_t rank = distance * RANK_QUARTER / (width > 0 ? width : 1);
    return rank < RANK_BEYOND ? (int32_t)rank : RANK_BEYOND;
}

int32_t drip_score_rank(const drip_score_t *score, const drip_score_result_t *result)
{
    if (score->knots == NULL || result->class_1 >= score->classes)
        return result->percentile;
    const int32_t *knots = score->knots + DRIP_KNOTS * result->class_1;
    const uint32_t raw = (uint32_t)result->raw, first = (uint32_t)knots[0];
    const uint32_t last = (uint32_t)knots[DRIP_KNOTS - 1];
    if (result->raw < knots[0])
        return -1 - beyond(first - raw, (uint32_t)knots[QUARTER] - first);
    if (result->raw > knots[DRIP_KNOTS - 1])
        return DRIP_PERCENTILE_ONE + 1 +
               beyond(raw - last, last - (uint32_t)knots[DRIP_KNOTS - 1 - QUARTER]);
    return result->percentile;
}
