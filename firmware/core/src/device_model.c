/* Which model runs: opening, pushing, trying and confirming it. */
#include "device_internal.h"

#include <string.h>

/* ------------------------------------------------------------------ opening */

static int open_score(drip_device_t *device, uint8_t kind)
{
    int code = drip_score_open(&device->score, &device->nn, kind, device->seed);

    if (code == DRIP_ERR_OK &&
        drip_score_scratch_bytes(&device->score) > device->memory.scratch_bytes) {
        return DRIP_ERR_MEMORY;
    }
    if (code == DRIP_ERR_OK) {
        drip_policy_attach(&device->policy, &device->score);
    }
    return code;
}

int drip_device_open_score(drip_device_t *device)
{
    const drip_blob_section_t *calibration =
        drip_nn_section(&device->nn, DRIP_SECTION_CALIBRATION, 0);
    int code;

    if (device->score_wanted != 0) {
        code = open_score(device, device->score_wanted);
        if (code != DRIP_ERR_NO_CAM) {
            return code;
        }
    }
    if (calibration != NULL && calibration->flags != 0 && calibration->flags <= DRIP_SCORE_LAST) {
        return open_score(device, (uint8_t)calibration->flags);
    }
    code = open_score(device, DRIP_SCORE_CAM_EVIDENCE);
    return code == DRIP_ERR_NO_CAM ? open_score(device, DRIP_SCORE_MARGIN) : code;
}

/* Makes an opened network the one that runs. */
static int bind_model(drip_device_t *device)
{
    int code;

    if (device->nn.input.desc.frame_bytes > device->memory.capture_bytes) {
        return DRIP_ERR_MEMORY;
    }
    code = drip_nn_bind(&device->nn, device->memory.arena, device->memory.arena_bytes);
    if (code < 0) {
        return code;
    }
    code = drip_device_open_score(device);
    device->has_model = code == DRIP_ERR_OK;
    return code;
}

static int open_blob(drip_device_t *device, const void *blob, uint32_t bytes)
{
    int code;

    device->has_model = 0;
    device->done_type = 0;
    code = drip_nn_open(&device->nn, blob, bytes);
    return code < 0 ? code : bind_model(device);
}

void drip_device_open_active(drip_device_t *device, int opened)
{
    const uint8_t *blob;
    uint32_t bytes;
    int code = DRIP_ERR_NO_MODEL;

    device->has_model = 0;
    if (opened) {
        code = bind_model(device);
    } else if (drip_slot_blob(&device->slot, device->slot.active, &blob, &bytes) == DRIP_ERR_OK) {
        code = open_blob(device, blob, bytes);
    } else if (device->memory.fixed_model != NULL) {
        code = open_blob(device, device->memory.fixed_model, device->memory.fixed_model_bytes);
    }
    if (code < 0 && code != DRIP_ERR_NO_MODEL) {
        device->status.last_error = code; /* to have no model is no error */
    }
}

/* ------------------------------------------------------------------ self-test, an inference at a time */

static void selftest_start(drip_device_t *device)
{
    device->golden = 0;
    device->quantised = 0;
    device->model_stage = MODEL_SELFTEST;
}

/* Returns DRIP_ERR_BUSY while there is more, DRIP_ERR_OK, DRIP_ERR_SELFTEST, or why there is no input. */
static int selftest_step(drip_device_t *device)
{
    int done;

    if (device->quantised < device->nn.input.elements) {
        done = drip_nn_selftest_load(&device->nn, device->golden, device->quantised);
        if (done < 0) {
            return device->golden == 0 ? done : DRIP_ERR_OK; /* that was the last input */
        }
        device->quantised = (uint32_t)done;
        return DRIP_ERR_BUSY;
    }
    if (drip_nn_step(&device->nn, DEVICE_STEP_MACS) != 0) {
        return DRIP_ERR_BUSY;
    }
    if (drip_nn_selftest_check(&device->nn, device->golden) != DRIP_ERR_OK) {
        return DRIP_ERR_SELFTEST;
    }
    device->golden++;
    device->quantised = 0;
    return DRIP_ERR_BUSY;
}

/* ------------------------------------------------------------------ requests */

static void answer_model(drip_device_t *device, uint16_t id, int code)
{
    drip_model_response_t response;

    memset(&response, 0, sizeof(response));
    response.code = (int16_t)code;
    drip_slot_info(&device->slot, &response);
    if (device->has_model) {
        memcpy(response.active_id, device->nn.header.model_id, sizeof(response.active_id));
    }
    memcpy(drip_link_body(&device->link), &response, sizeof(response));
    drip_device_send(device, DRIP_FRAME_MODEL, id, sizeof(response));
}

static int on_trial(const drip_device_t *device)
{
    return device->slot.target != DRIP_SLOT_NONE && device->slot.target == device->slot.active;
}

int drip_device_needs_quiet(uint8_t op)
{
    return op == DRIP_MODEL_TRIAL || op == DRIP_MODEL_ABORT;
}

int drip_device_model(drip_device_t *device, const drip_link_frame_t *request)
{
    drip_model_request_t asked;
    uint16_t id = request->header.id;
    int code;

    if (request->body_size < sizeof(asked)) {
        return drip_device_answer(device, request, DRIP_ERR_SHORT, 0);
    }
    if (!device->schema_ok) {
        return drip_device_answer(device, request, DRIP_ERR_SCHEMA, 0);
    }
    memcpy(&asked, request->body, sizeof(asked));
    if (device->pending_type != 0 || (drip_device_needs_quiet(asked.op) &&
                                      (device->stage != STAGE_IDLE || device->feed_bytes != 0))) {
        return REQUEST_HOLD;
    }
    if (asked.op == DRIP_MODEL_TRIAL && on_trial(device)) {
        answer_model(device, id, DRIP_ERR_OK); /* the answer to the first one was lost */
        return REQUEST_DONE;
    }
    device->model_reopen = asked.op == DRIP_MODEL_ABORT && on_trial(device);
    code =
        drip_slot_request(&device->slot, &asked, request->body + sizeof(asked),
                          request->body_size - (uint32_t)sizeof(asked), device->memory.arena_bytes);
    if (code < 0) {
        answer_model(device, id, code);
        return REQUEST_DONE;
    }
    device->pending_type = DRIP_FRAME_MODEL;
    device->pending_id = id;
    device->model_op = asked.op;
    device->model_stage = MODEL_SLOT;
    device->outcome = DRIP_ERR_OK;
    return REQUEST_DONE;
}

/* Ends a trial: its outcome goes to the journal, a failed model is left. */
static void trial_done(drip_device_t *device, int code)
{
    device->outcome = code;
    device->model_stage = MODEL_RECORD;
    drip_slot_trial(&device->slot, code);
    if (code < 0) {
        drip_device_open_active(device, 0);
    }
}

static void trial_start(drip_device_t *device)
{
    const uint8_t *blob;
    uint32_t bytes;
    int code = drip_slot_blob(&device->slot, device->slot.target, &blob, &bytes);

    if (code == DRIP_ERR_OK) {
        code = open_blob(device, blob, bytes);
    }
    if (code < 0) {
        trial_done(device, code);
    } else {
        selftest_start(device);
    }
}

/* Returns DRIP_ERR_BUSY, or the code to answer with. */
static int model_work(drip_device_t *device)
{
    int code;

    if (device->model_stage == MODEL_SELFTEST) {
        code = selftest_step(device);
        if (code != DRIP_ERR_BUSY) {
            trial_done(device, code);
        }
        return DRIP_ERR_BUSY;
    }
    code = drip_slot_poll(&device->slot);
    if (code == DRIP_ERR_BUSY) {
        return DRIP_ERR_BUSY;
    }
    if (device->model_stage == MODEL_RECORD) {
        return device->outcome < 0 ? device->outcome : code;
    }
    if (device->model_reopen) {
        drip_device_open_active(device, 0);
    } else if (device->model_op == DRIP_MODEL_TRIAL && code == DRIP_ERR_OK) {
        trial_start(device);
        return DRIP_ERR_BUSY;
    }
    return code;
}

/* The host asks again until it is answered otherwise: a board that hears nothing while it erases says so
 * before. Returns 1 when BUSY was sent. */
static int announce_erase(drip_device_t *device)
{
    int erases = device->port->flash_stalls && drip_slot_erasing(&device->slot);

    if (erases == device->model_told) {
        return 0;
    }
    device->model_told = (uint8_t)erases;
    if (erases) {
        answer_model(device, device->pending_id, DRIP_ERR_BUSY);
    }
    return erases;
}

int drip_device_model_step(drip_device_t *device)
{
    int code;

    if (drip_device_body(device) == NULL) {
        return 0;
    }
    if (announce_erase(device)) {
        return 1;
    }
    code = model_work(device);
    if (code != DRIP_ERR_BUSY) {
        device->pending_type = 0;
        answer_model(device, device->pending_id, code);
    }
    return 1;
}
