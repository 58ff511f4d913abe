/* Scorer: frame in, label, score and decision out, without a card and without a host. */
#include "drip_mp.h"

#include <string.h>

typedef struct {
    drip_nn_t nn;
    drip_score_t score;
    drip_policy_t policy;
    drip_policy_config_t config;
    void *scratch;
    uint8_t is_scored; /* the arena holds what drip_cam_sum reads */
} scorer_t;

/* Places in the result of score(), 32-bit numbers. */
enum { RAW, PERCENTILE, CLASS_1, CLASS_2, LOGIT_1, LOGIT_2, REASON, DROP, HELD, RESULT_WORDS };

uint32_t drip_mp_scorer_bytes(void)
{
    return sizeof(scorer_t);
}

static scorer_t *scorer_of(mp_obj_t state)
{
    return drip_mp_bytes(state, MP_BUFFER_RW, sizeof(scorer_t), NULL);
}

/* Returns the bytes of arena that the model wants. */
mp_obj_t drip_mp_scorer_open(mp_obj_t state, mp_obj_t blob)
{
    scorer_t *scorer = scorer_of(state);
    uint32_t size;
    const void *bytes = drip_mp_bytes(blob, MP_BUFFER_READ, 1, &size);
    int code;

    if (scorer == NULL || bytes == NULL) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_ARGUMENT);
    }
    memset(scorer, 0, sizeof(*scorer));
    drip_policy_defaults(&scorer->config);
    code = drip_nn_open(&scorer->nn, bytes, size);
    return MP_OBJ_NEW_SMALL_INT(code < 0 ? code : (int)scorer->nn.header.arena_bytes);
}

/* The score that a device uses unless it is told another one. */
static int usual_score(const drip_nn_t *nn)
{
    const drip_blob_section_t *calibration = drip_nn_section(nn, DRIP_SECTION_CALIBRATION, 0);
    drip_cam_t cam;

    if (calibration != NULL && calibration->flags != 0 && calibration->flags <= DRIP_SCORE_LAST) {
        return calibration->flags;
    }
    return drip_cam_open(&cam, nn) < 0 ? DRIP_SCORE_MARGIN : DRIP_SCORE_CAM_EVIDENCE;
}

static int bind(scorer_t *scorer, void *arena, uint32_t arena_bytes, int kind, uint32_t seed)
{
    int code = drip_nn_bind(&scorer->nn, arena, arena_bytes);

    if (code < 0) {
        return code;
    }
    if (kind <= 0) {
        kind = usual_score(&scorer->nn);
    }
    code = drip_score_open(&scorer->score, &scorer->nn, (uint8_t)kind, seed);
    return code < 0 ? code : (int)drip_score_scratch_bytes(&scorer->score);
}

/* scorer_bind(state, arena, scratch, kind, seed): with scratch None only returns the bytes it wants. */
mp_obj_t drip_mp_scorer_bind(size_t count, const mp_obj_t *arguments)
{
    scorer_t *scorer = scorer_of(arguments[0]);
    uint32_t arena_bytes;
    uint32_t scratch_bytes;
    void *arena = drip_mp_bytes(arguments[1], MP_BUFFER_RW, 1, &arena_bytes);
    int code;

    (void)count;
    if (scorer == NULL || arena == NULL) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_ARGUMENT);
    }
    code = bind(scorer, arena, arena_bytes, (int)mp_obj_get_int(arguments[3]),
                (uint32_t)mp_obj_get_int(arguments[4]));
    if (code < 0 || arguments[2] == mp_const_none) {
        return MP_OBJ_NEW_SMALL_INT(code);
    }
    scorer->scratch = drip_mp_bytes(arguments[2], MP_BUFFER_RW, (uint32_t)code, &scratch_bytes);
    if (scorer->scratch == NULL) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_MEMORY);
    }
    code = drip_policy_init(&scorer->policy, &scorer->config);
    if (code >= 0) {
        drip_policy_attach(&scorer->policy, &scorer->score);
    }
    return MP_OBJ_NEW_SMALL_INT(code);
}

static int set(drip_policy_config_t *config, int key, uint32_t value)
{
    if (key == DRIP_CONFIG_POLICY_KIND) {
        config->kind = (uint8_t)value;
    } else if (key == DRIP_CONFIG_THRESHOLD) {
        config->threshold = value;
    } else if (key == DRIP_CONFIG_RANDOM_SHARE) {
        config->random_share = (uint16_t)value;
    } else if (key == DRIP_CONFIG_EVERY_K) {
        config->every_k = value;
    } else if (key == DRIP_CONFIG_TARGET) {
        config->target = value;
    } else if (key == DRIP_CONFIG_FLOOR_SHARE) {
        config->floor_share = (uint16_t)value;
    } else if (key == DRIP_CONFIG_FLOOR_COUNT) {
        config->floor_count = (uint8_t)value;
    } else if (key == DRIP_CONFIG_REDUNDANCY) {
        config->redundancy = value;
    } else {
        return DRIP_ERR_UNSUPPORTED;
    }
    return DRIP_ERR_OK;
}

mp_obj_t drip_mp_scorer_config(mp_obj_t state, mp_obj_t key, mp_obj_t value)
{
    scorer_t *scorer = scorer_of(state);
    drip_policy_config_t wanted;
    int code;

    if (scorer == NULL || scorer->scratch == NULL) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_STATE);
    }
    wanted = scorer->config;
    code = set(&wanted, (int)mp_obj_get_int(key), (uint32_t)mp_obj_get_int(value));
    if (code >= 0) {
        code = drip_policy_configure(&scorer->policy, &wanted);
    }
    if (code >= 0) {
        scorer->config = wanted;
    }
    return MP_OBJ_NEW_SMALL_INT(code);
}

/* Words: frame bytes, classes, offset and bytes of the class names in the blob, rows, columns of the CAM. */
mp_obj_t drip_mp_scorer_about(mp_obj_t state, mp_obj_t out)
{
    scorer_t *scorer = scorer_of(state);
    uint32_t *words = drip_mp_bytes(out, MP_BUFFER_RW, 5 * sizeof(uint32_t), NULL);
    const drip_blob_section_t *names;

    if (scorer == NULL || words == NULL || scorer->scratch == NULL) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_ARGUMENT);
    }
    names = drip_nn_section(&scorer->nn, DRIP_SECTION_CLASSES, 0);
    words[0] = scorer->nn.input.desc.frame_bytes;
    words[1] = scorer->nn.header.class_count;
    words[2] = names == NULL ? 0 : names->offset;
    words[3] = names == NULL ? 0 : names->size;
    words[4] = scorer->score.has_cam ? scorer->score.cam.head->pixels : 0;
    return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_OK);
}

static int infer(scorer_t *scorer, const uint8_t *data, uint32_t size)
{
    drip_frame_t frame;
    int loaded;
    int code;

    memset(&frame, 0, sizeof(frame));
    frame.data = data;
    frame.size = size;
    scorer->is_scored = 0;
    for (loaded = 0; loaded < (int)scorer->nn.input.elements;) {
        loaded = drip_nn_load(&scorer->nn, &frame, (uint32_t)loaded);
        if (loaded < 0) {
            return loaded;
        }
    }
    drip_policy_look(&scorer->policy, &scorer->nn);
    code = drip_nn_begin(&scorer->nn);
    while (code >= 0 && drip_nn_step(&scorer->nn, 0xFFFFFFFFu) > 0) {
    }
    return code;
}

/* score(state, frame, result): returns the reason bits, 0 = drop. */
mp_obj_t drip_mp_score(mp_obj_t state, mp_obj_t frame, mp_obj_t out)
{
    scorer_t *scorer = scorer_of(state);
    uint32_t size;
    const uint8_t *data = drip_mp_bytes(frame, MP_BUFFER_READ, 1, &size);
    int32_t *words = drip_mp_bytes(out, MP_BUFFER_RW, RESULT_WORDS * sizeof(int32_t), NULL);
    drip_score_result_t scored;
    int code;

    if (scorer == NULL || data == NULL || words == NULL || scorer->scratch == NULL) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_ARGUMENT);
    }
    code = infer(scorer, data, size);
    if (code >= 0) {
        code = drip_score_compute(&scorer->score, scorer->scratch, &scored);
    }
    if (code < 0) {
        return MP_OBJ_NEW_SMALL_INT(code);
    }
    scorer->is_scored = 1;
    code = drip_policy_decide(&scorer->policy, &scorer->score, &scored);
    words[RAW] = scored.raw;
    words[PERCENTILE] = scored.percentile;
    words[CLASS_1] = scored.class_1;
    words[CLASS_2] = scored.class_2;
    words[LOGIT_1] = scored.logit_1;
    words[LOGIT_2] = scored.logit_2;
    words[REASON] = code;
    words[DROP] = scorer->policy.drop;
    words[HELD] = scorer->policy.held;
    return MP_OBJ_NEW_SMALL_INT(code);
}

/* cam(state, class, minus, map): one 32-bit value per position of the frame that was scored last. */
mp_obj_t drip_mp_cam(size_t count, const mp_obj_t *arguments)
{
    scorer_t *scorer = scorer_of(arguments[0]);
    int32_t *map;
    int32_t sum;

    (void)count;
    if (scorer == NULL || !scorer->is_scored) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_STATE);
    }
    if (!scorer->score.has_cam) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_NO_CAM);
    }
    map = drip_mp_bytes(arguments[3], MP_BUFFER_RW, 4 * scorer->score.cam.head->pixels, NULL);
    if (map == NULL) {
        return MP_OBJ_NEW_SMALL_INT(DRIP_ERR_MEMORY);
    }
    return MP_OBJ_NEW_SMALL_INT(drip_cam_sum(&scorer->score.cam, (int)mp_obj_get_int(arguments[1]),
                                             (int)mp_obj_get_int(arguments[2]), scorer->scratch,
                                             map, &sum));
}
