#include "cam_internal.h"

#include <stddef.h>

enum { NO_CLASS = -1, FEATURE_RANGE = 255 };

/* Entry of the table of a hidden head. */
static int32_t entry_of(const drip_cam_t *cam, uint32_t hidden, uint32_t channel)
{
    const uint32_t pair = hidden / 2u * cam->head->channels + channel;
    return cam->table[2u * pair + (hidden & 1u)];
}

/* Product of a dense weight and a table entry of a hidden unit; below 2^22. */
static int32_t hidden_term(const drip_cam_t *cam, int c, uint32_t hidden, uint32_t channel)
{
    if (c == NO_CLASS)
        return 0;
    return cam->dense[(uint32_t)c * cam->head->hidden + hidden] * entry_of(cam, hidden, channel);
}

/* Largest |weight of class a - weight of class b| of a channel under any activation mask. */
static uint32_t hidden_bound(const drip_cam_t *cam, int a, int b, uint32_t channel)
{
    uint32_t up = 0;
    uint32_t down = 0;
    for (uint32_t h = 0; h < cam->head->hidden; h++) {
        const int32_t term = hidden_term(cam, a, h, channel) - hidden_term(cam, b, h, channel);
        if (term > 0)
            up += (uint32_t)term;
        else
            down += (uint32_t)-term;
        if (up > INT32_MAX || down > INT32_MAX)
            return UINT32_MAX;
    }
    /* Each of the two shifts rounds down by less than one. */
    return ((up > down ? up : down) >> cam->head->shift) + 1;
}

static uint32_t direct_bound(const drip_cam_t *cam, int a, int b, uint32_t channel)
{
    const int32_t plus = cam->table[(uint32_t)a * cam->head->channels + channel];
    const int32_t minus =
        b == NO_CLASS ? 0 : cam->table[(uint32_t)b * cam->head->channels + channel];
    return (uint32_t)(plus > minus ? plus - minus : minus - plus);
}

/* 1 when for every input the channel weights of class a minus class b fit 16 bits and the sum over
 * their map 31. */
static int pair_fits(const drip_cam_t *cam, int a, int b)
{
    const drip_blob_cam_t *head = cam->head;
    uint32_t total = 0;
    for (uint32_t k = 0; k < head->channels; k++) {
        const uint32_t bound =
            cam_hidden(cam) == 0 ? direct_bound(cam, a, b, k) : hidden_bound(cam, a, b, k);
        total += bound;
        if (bound > INT16_MAX || total > INT32_MAX)
            return 0;
    }
    return (uint64_t)total * (FEATURE_RANGE * head->pixels) <= INT32_MAX;
}

static int sums_fit(const drip_cam_t *cam)
{
    for (int a = 0; a < cam->head->classes; a++)
        for (int b = NO_CLASS; b < a; b++)
            if (!pair_fits(cam, a, b))
                return 0;
    return 1;
}

/* Units of the layer below hidden layer n. */
uint32_t drip_cam_units_below(const drip_cam_t *cam, uint32_t n)
{
    return n + 1u < cam_uppers(cam) ? cam->uppers[n + 1u].units : cam_hidden(cam);
}

/* Largest magnitude, under any activation masks, of what the uppers hand down to a unit of the lowest
 * hidden layer; 0 when a sum could leave 31 bits or a value 16. */
static uint32_t handed_down(const drip_cam_t *cam)
{
    const int8_t *matrix = cam->matrices;
    uint32_t bound = 128;
    for (uint32_t n = 0; n < cam->head->uppers; n++) {
        const uint32_t units = cam->uppers[n].units, below = drip_cam_units_below(cam, n);
        uint32_t most = 0;
        for (uint32_t h = 0; h < below; h++) {
            uint32_t sum = 0;
            for (uint32_t u = 0; u < units; u++) {
                const int32_t value = matrix[u * below + h];
                sum += (uint32_t)(value < 0 ? -value : value);
            }
            most = sum > most ? sum : most;
        }
        if ((uint64_t)most * bound > INT32_MAX)
            return 0;
        bound = ((most * bound) >> cam->uppers[n].shift) + 1u;
        if (bound > INT16_MAX)
            return 0;
        matrix += units * below;
    }
    return bound;
}

/* As sums_fit, for a head with uppers: by magnitudes alone, so for every pair of classes at once. */
static int magnitudes_fit(const drip_cam_t *cam)
{
    const drip_blob_cam_t *head = cam->head;
    const uint32_t unit = handed_down(cam);
    uint64_t total = 0;
    for (uint32_t k = 0; k < head->channels; k++) {
        uint64_t sum = 0;
        for (uint32_t h = 0; h < head->hidden; h++) {
            const int32_t value = entry_of(cam, h, k);
            sum += (uint64_t)(uint32_t)(value < 0 ? -value : value) * unit;
        }
        if (unit == 0 || sum > INT32_MAX)
            return 0;
        const uint32_t bound = 2u * (((uint32_t)sum >> head->shift) + 1u);
        total += bound;
        if (bound > INT16_MAX)
            return 0;
    }
    return total <= INT32_MAX && total * ((uint64_t)FEATURE_RANGE * head->pixels) <= INT32_MAX;
}

/* The head must describe the tensors that the header names. */
static int head_matches(const drip_nn_t *nn, const drip_blob_cam_t *head)
{
    const drip_blob_header_t *header = &nn->header;
    if (header->features_tensor >= nn->tensor_count || head->head != header->cam_head ||
        head->classes == 0 || head->classes > DRIP_MAX_CLASSES ||
        head->classes != header->class_count || head->shift > 31)
        return 0;
    const drip_blob_tensor_t *features = &nn->tensors[header->features_tensor];
    if (features->c != head->channels || (uint32_t)features->h * features->w != head->pixels ||
        nn->tensors[header->logits_tensor].size != head->classes)
        return 0;
    if (head->head == DRIP_CAM_DIRECT)
        return head->hidden == 0 && head->uppers == 0;
    return DRIP_HIDDEN_HEADS && head->uppers <= DRIP_MAX_CAM_UPPERS &&
           head->head == DRIP_CAM_HIDDEN && head->hidden > 0 &&
           head->hidden_tensor < nn->tensor_count &&
           nn->tensors[head->hidden_tensor].size == head->hidden;
}

static int uppers_match(const drip_nn_t *nn, const drip_blob_cam_layer_t *uppers, uint32_t count)
{
    for (uint32_t n = 0; n < count; n++)
        if (uppers[n].units == 0 || uppers[n].shift > 31 || uppers[n].tensor >= nn->tensor_count ||
            nn->tensors[uppers[n].tensor].size != uppers[n].units)
            return 0;
    return 1;
}

int drip_cam_open(drip_cam_t *cam, const drip_nn_t *nn)
{
    if (nn->header.cam_head == DRIP_CAM_NONE)
        return DRIP_ERR_NO_CAM;
    if (nn->header.cam_head == DRIP_CAM_HIDDEN && !DRIP_HIDDEN_HEADS)
        return DRIP_ERR_UNSUPPORTED;
    const drip_blob_section_t *section = drip_nn_section(nn, DRIP_SECTION_CAM, 0);
    if (section == NULL || section->size < sizeof(drip_blob_cam_t))
        return DRIP_ERR_CORRUPT;
    const drip_blob_cam_t *head = (const void *)(nn->blob + section->offset);
    if (!head_matches(nn, head))
        return DRIP_ERR_CORRUPT;
    cam->nn = nn;
    cam->head = head;
    const uint32_t hidden = cam_hidden(cam), uppers = cam_uppers(cam);
    const uint32_t layers = uppers * (uint32_t)sizeof *cam->uppers;
    uint32_t space = section->size - (uint32_t)sizeof *head;
    if (layers > space)
        return DRIP_ERR_CORRUPT;
    space -= layers;
    cam->uppers = (const drip_blob_cam_layer_t *)(head + 1);
    if (!uppers_match(nn, cam->uppers, uppers))
        return DRIP_ERR_CORRUPT;
    const uint32_t rows = hidden == 0 ? head->classes : (hidden + 1u) & ~1u;
    const uint32_t entries = rows * head->channels;
    const uint32_t units = uppers > 0 ? cam->uppers[0].units : hidden;
    const uint32_t dense = head->classes * units;
    uint64_t matrices = 0;
    for (uint32_t n = 0; n < uppers; n++)
        matrices += (uint64_t)cam->uppers[n].units * drip_cam_units_below(cam, n);
    if (entries > space / 2u || dense > space - 2u * entries ||
        matrices > space - 2u * entries - dense)
        return DRIP_ERR_CORRUPT;
    cam->table = (const int16_t *)(cam->uppers + uppers);
    cam->dense = (const int8_t *)(cam->table + entries);
    cam->matrices = cam->dense + dense;
    cam->zero_point = nn->tensors[nn->header.features_tensor].zero_point;
    return (uppers > 0 ? magnitudes_fit(cam) : sums_fit(cam)) ? DRIP_ERR_OK : DRIP_ERR_CORRUPT;
}
