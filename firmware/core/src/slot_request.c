/* Starting what a MODEL request asks of the slots. */
#include "slot_internal.h"

#include <string.h>

static int choose_target(const drip_slot_t *slot)
{
    if (slot->active != DRIP_SLOT_NONE) {
        return 1 - slot->active;
    }
    /* What is confirmed here cannot be opened by this build, but perhaps by the next: it goes last. */
    if ((slot->entry[0].state == DRIP_SLOT_CONFIRMED) !=
        (slot->entry[1].state == DRIP_SLOT_CONFIRMED)) {
        return slot->entry[0].state == DRIP_SLOT_CONFIRMED ? 1 : 0;
    }
    return slot->entry[1].generation < slot->entry[0].generation ? 1 : 0;
}

/* The slot holds that blob, or as much of it as has arrived. */
static int is_arriving(const drip_slot_entry_t *entry, const drip_model_request_t *request)
{
    return (entry->state == DRIP_SLOT_WRITING || entry->state == DRIP_SLOT_TRIAL) &&
           entry->blob_bytes == request->total_bytes && entry->blob_crc == request->blob_crc &&
           memcmp(entry->model_id, request->model_id, sizeof(entry->model_id)) == 0;
}

static int begin_upload(drip_slot_t *slot, const drip_model_request_t *request)
{
    drip_slot_entry_t *draft = &slot->draft;
    const drip_slot_entry_t *before;

    slot->target = (int8_t)choose_target(slot);
    slot->offset = 0;
    slot->beginning = 1;
    before = &slot->entry[slot->target];
    memset(draft, 0, sizeof(*draft));
    draft->slot = (uint32_t)slot->target;
    draft->blob_bytes = request->total_bytes;
    draft->blob_crc = request->blob_crc;
    memcpy(draft->model_id, request->model_id, sizeof(draft->model_id));
    if (before->magic == 0 || before->state == DRIP_SLOT_EMPTY ||
        before->state == DRIP_SLOT_REJECTED) {
        drip_slot_erase_target(slot);
    } else {
        /* First the journal, then the erase: what is being erased must not be taken for a model. */
        drip_slot_journal_start(slot, DRIP_SLOT_EMPTY, 0, AFTER_ERASE);
    }
    return DRIP_ERR_OK;
}

static int request_begin(drip_slot_t *slot, const drip_model_request_t *request,
                         uint32_t arena_bytes)
{
    if (request->total_bytes > slot->port->slot_bytes) {
        return DRIP_ERR_FULL;
    }
    if (request->total_bytes < DRIP_BLOB_HEADER_BYTES) {
        return DRIP_ERR_SHORT;
    }
    if (request->arena_bytes > arena_bytes) {
        return DRIP_ERR_MEMORY;
    }
    if ((request->op_bitmap & ~drip_nn_op_bitmap()) != 0) {
        return DRIP_ERR_UNSUPPORTED;
    }
    if (drip_slot_on_trial(slot)) {
        return DRIP_ERR_STATE;
    }
    slot->checked = 0;
    slot->crc = 0;
    slot->is_stale = 0;
    if (slot->target != DRIP_SLOT_NONE && is_arriving(&slot->entry[slot->target], request)) {
        slot->state = RESUME;
        return DRIP_ERR_OK;
    }
    return begin_upload(slot, request);
}

static int request_data(drip_slot_t *slot, const drip_model_request_t *request,
                        const uint8_t *chunk, uint32_t size)
{
    uint32_t total;

    if (slot->target == DRIP_SLOT_NONE || slot->is_stale ||
        slot->entry[slot->target].state != DRIP_SLOT_WRITING) {
        return DRIP_ERR_STATE;
    }
    total = slot->entry[slot->target].blob_bytes;
    if (size == 0 || size > DRIP_MAX_CHUNK_BYTES) {
        return DRIP_ERR_ARGUMENT;
    }
    if (request->offset > slot->offset || size > total - request->offset) {
        return DRIP_ERR_RANGE;
    }
    if (request->offset + size <= slot->offset) {
        return DRIP_ERR_OK;
    }
    if (request->offset != slot->offset) {
        return DRIP_ERR_RANGE;
    }
    if (size % WRITE_UNIT != 0 && request->offset + size != total) {
        return DRIP_ERR_ARGUMENT;
    }
    slot->chunk = chunk;
    slot->chunk_bytes = size;
    slot->state = CHUNK_BODY;
    size -= size % WRITE_UNIT;
    if (size == 0) {
        return DRIP_ERR_OK;
    }
    return slot->port->flash_write(slot->port->context, slot->target, slot->offset, chunk, size);
}

static int request_trial(drip_slot_t *slot)
{
    const drip_slot_entry_t *entry;

    if (slot->target == DRIP_SLOT_NONE || slot->is_stale || drip_slot_on_trial(slot)) {
        return DRIP_ERR_STATE;
    }
    entry = &slot->entry[slot->target];
    if (slot->offset != entry->blob_bytes || entry->attempts >= DRIP_SLOT_MAX_ATTEMPTS) {
        return DRIP_ERR_STATE;
    }
    slot->checked = 0;
    slot->crc = 0;
    slot->state = CHECK;
    return DRIP_ERR_OK;
}

static int request_confirm(drip_slot_t *slot)
{
    if (drip_slot_on_trial(slot)) {
        drip_slot_journal_target(slot, DRIP_SLOT_CONFIRMED, slot->entry[slot->target].attempts);
        return DRIP_ERR_OK;
    }
    return slot->active != DRIP_SLOT_NONE && slot->active == slot->confirmed &&
                   slot->target == DRIP_SLOT_NONE
               ? DRIP_ERR_OK
               : DRIP_ERR_STATE;
}

static int request_abort(drip_slot_t *slot)
{
    if (slot->target == DRIP_SLOT_NONE) {
        return DRIP_ERR_OK;
    }
    if (drip_slot_on_trial(slot)) {
        slot->active = slot->confirmed;
    }
    drip_slot_journal_target(slot, DRIP_SLOT_EMPTY, 0);
    return DRIP_ERR_OK;
}

int drip_slot_request(drip_slot_t *slot, const drip_model_request_t *request, const uint8_t *chunk,
                      uint32_t chunk_size, uint32_t arena_bytes)
{
    int code;

    if (slot->state != IDLE) {
        return DRIP_ERR_BUSY;
    }
    slot->result = DRIP_ERR_OK;
    if (request->op == DRIP_MODEL_INFO) {
        return DRIP_ERR_OK;
    }
    if (!drip_slot_has_flash(slot->port)) {
        return DRIP_ERR_UNSUPPORTED;
    }
    switch (request->op) {
    case DRIP_MODEL_BEGIN:
        return request_begin(slot, request, arena_bytes);
    case DRIP_MODEL_DATA:
        code = request_data(slot, request, chunk, chunk_size);
        if (code < 0) {
            slot->state = IDLE;
        }
        return code;
    case DRIP_MODEL_TRIAL:
        return request_trial(slot);
    case DRIP_MODEL_CONFIRM:
        return request_confirm(slot);
    case DRIP_MODEL_ABORT:
        return request_abort(slot);
    default:
        return DRIP_ERR_ARGUMENT;
    }
}
