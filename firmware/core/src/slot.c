#include "slot_internal.h"

#include <string.h>

#include "drip/bytes.h"

enum { CRC_PIECE_BYTES = 4096 };

static int opens(const drip_slot_t *slot, int index, uint32_t arena_bytes, drip_nn_t *nn)
{
    const drip_slot_entry_t *entry = &slot->entry[index];

    return entry->magic != 0 && entry->state == DRIP_SLOT_CONFIRMED &&
           drip_nn_open(nn, drip_slot_map(slot->port, index), entry->blob_bytes) == DRIP_ERR_OK &&
           nn->header.arena_bytes <= arena_bytes &&
           memcmp(nn->header.model_id, entry->model_id, sizeof(entry->model_id)) == 0;
}

/* Bytes of an upload that are in a slot: up to the last unit that is not erased. */
static uint32_t written(const drip_slot_t *slot, int index)
{
    const uint8_t *bytes = drip_slot_map(slot->port, index);
    uint32_t total = slot->entry[index].blob_bytes;
    uint32_t size = total;

    while (size > 0 && bytes[size - 1] == ERASED) {
        size--;
    }
    size = (size + WRITE_UNIT - 1) / WRITE_UNIT * WRITE_UNIT;
    return size < total ? size : total;
}

/* Goes on with the upload or the trial that a reset has interrupted. */
static void find_upload(drip_slot_t *slot)
{
    int i;

    for (i = 0; i < 2; i++) {
        const drip_slot_entry_t *entry = &slot->entry[i];
        int is_tried = entry->state == DRIP_SLOT_TRIAL && entry->attempts < DRIP_SLOT_MAX_ATTEMPTS;

        if (entry->magic == 0 || (!is_tried && entry->state != DRIP_SLOT_WRITING) ||
            (slot->target != DRIP_SLOT_NONE && entry->generation < slot->entry[0].generation)) {
            continue;
        }
        slot->target = (int8_t)i;
        slot->offset = is_tried ? entry->blob_bytes : written(slot, i);
        slot->is_stale = !is_tried;
    }
}

int drip_slot_open(drip_slot_t *slot, const drip_port_t *port, uint32_t arena_bytes, drip_nn_t *nn)
{
    int newer;
    int i;

    memset(slot, 0, sizeof(*slot));
    slot->port = port;
    slot->active = DRIP_SLOT_NONE;
    slot->confirmed = DRIP_SLOT_NONE;
    slot->target = DRIP_SLOT_NONE;
    if (!drip_slot_has_flash(port)) {
        return DRIP_ERR_NO_MODEL;
    }
    drip_slot_journal_read(slot);
    newer = slot->entry[1].generation > slot->entry[0].generation ? 1 : 0;
    for (i = 0; i < 2 && slot->active == DRIP_SLOT_NONE; i++) {
        int index = i == 0 ? newer : 1 - newer;

        if (opens(slot, index, arena_bytes, nn)) {
            slot->active = (int8_t)index;
            slot->confirmed = (int8_t)index;
        }
    }
    find_upload(slot);
    return slot->active == DRIP_SLOT_NONE ? DRIP_ERR_NO_MODEL : slot->active;
}

void drip_slot_journal_target(drip_slot_t *slot, uint16_t state, uint32_t attempts)
{
    slot->draft = slot->entry[slot->target];
    drip_slot_journal_start(slot, state, attempts, AFTER_NOTHING);
}

int drip_slot_on_trial(const drip_slot_t *slot)
{
    return slot->target != DRIP_SLOT_NONE && slot->active == slot->target;
}

void drip_slot_erase_target(drip_slot_t *slot)
{
    slot->state = SLOT_ERASE;
    if (slot->port->flash_erase(slot->port->context, slot->target) < 0) {
        drip_slot_finish(slot, DRIP_ERR_IO);
    }
}

int drip_slot_trial(drip_slot_t *slot, int code)
{
    if (slot->state != IDLE) {
        return DRIP_ERR_BUSY;
    }
    if (slot->target == DRIP_SLOT_NONE || drip_slot_on_trial(slot) ||
        slot->entry[slot->target].state != DRIP_SLOT_TRIAL) {
        return DRIP_ERR_STATE;
    }
    slot->result = DRIP_ERR_OK;
    if (code == DRIP_ERR_OK) {
        slot->active = slot->target;
    } else {
        drip_slot_journal_target(slot, DRIP_SLOT_REJECTED, slot->entry[slot->target].attempts);
    }
    return DRIP_ERR_OK;
}

/* ------------------------------------------------------------------ going on with it */

/* The new entry is on the medium: draws the consequences. */
static void journal_written(drip_slot_t *slot)
{
    const drip_slot_entry_t *draft = &slot->draft;
    int code = drip_slot_journal_written(slot);

    if (code < 0) {
        drip_slot_finish(slot, code);
        return;
    }
    if (slot->writing == WRITING_CONFIG) {
        drip_slot_finish(slot, DRIP_ERR_OK);
        return;
    }
    if (slot->after == AFTER_ERASE) {
        drip_slot_erase_target(slot);
        return;
    }
    if (draft->state == DRIP_SLOT_CONFIRMED) {
        slot->confirmed = slot->target;
    }
    if (draft->state != DRIP_SLOT_TRIAL && draft->state != DRIP_SLOT_WRITING) {
        slot->target = DRIP_SLOT_NONE;
        slot->offset = 0;
    }
    drip_slot_finish(slot, slot->result);
}

static void chunk_tail(drip_slot_t *slot)
{
    uint32_t rest = slot->chunk_bytes % WRITE_UNIT;
    uint32_t body = slot->chunk_bytes - rest;
    int code;

    slot->offset += body;
    if (rest == 0) {
        drip_slot_finish(slot, DRIP_ERR_OK);
        return;
    }
    memset(slot->tail, ERASED, sizeof(slot->tail));
    memcpy(slot->tail, slot->chunk + body, rest);
    slot->state = CHUNK_TAIL;
    code = slot->port->flash_write(slot->port->context, slot->target, slot->offset, slot->tail,
                                   sizeof(slot->tail));
    if (code < 0) {
        slot->target = DRIP_SLOT_NONE;
        drip_slot_finish(slot, code);
    }
}

static void check_piece(drip_slot_t *slot)
{
    const drip_slot_entry_t *entry = &slot->entry[slot->target];
    uint32_t total = slot->state == RESUME ? slot->offset : entry->blob_bytes;
    uint32_t size = total - slot->checked;

    if (size > CRC_PIECE_BYTES) {
        size = CRC_PIECE_BYTES;
    }
    slot->crc =
        drip_crc32(slot->crc, drip_slot_map(slot->port, slot->target) + slot->checked, size);
    slot->checked += size;
    if (slot->checked < total) {
        return;
    }
    if (slot->state == RESUME) {
        drip_slot_finish(slot, DRIP_ERR_OK);
    } else if (slot->crc != entry->blob_crc) {
        slot->result = DRIP_ERR_CRC;
        drip_slot_journal_target(slot, DRIP_SLOT_REJECTED, entry->attempts);
    } else {
        drip_slot_journal_target(slot, DRIP_SLOT_TRIAL, entry->attempts + 1);
    }
}

static void flash_failed(drip_slot_t *slot, int code)
{
    if (slot->state == CHUNK_BODY || slot->state == CHUNK_TAIL) {
        slot->target = DRIP_SLOT_NONE; /* what is in the slot is unknown */
    }
    drip_slot_finish(slot, code);
}

/* The flash operation that the state waited for is done. */
static void flash_done(drip_slot_t *slot)
{
    switch (slot->state) {
    case JOURNAL_ERASE:
    case JOURNAL_COPY:
        drip_slot_journal_step(slot);
        break;
    case JOURNAL_WRITE:
        journal_written(slot);
        break;
    case SLOT_ERASE:
        drip_slot_journal_start(slot, DRIP_SLOT_WRITING, 0, AFTER_NOTHING);
        break;
    case CHUNK_BODY:
        chunk_tail(slot);
        break;
    case CHUNK_TAIL:
        slot->offset += slot->chunk_bytes % WRITE_UNIT;
        drip_slot_finish(slot, DRIP_ERR_OK);
        break;
    default:
        drip_slot_finish(slot, DRIP_ERR_OK);
        break;
    }
}

int drip_slot_erasing(const drip_slot_t *slot)
{
    return slot->state == SLOT_ERASE || slot->state == JOURNAL_ERASE;
}

int drip_slot_poll(drip_slot_t *slot)
{
    int code;

    if (slot->state == IDLE) {
        return slot->result;
    }
    if (slot->state == JOURNAL_START) {
        drip_slot_journal_step(slot);
    } else if (slot->state == CHECK || slot->state == RESUME) {
        check_piece(slot);
    } else if (slot->state == CHUNK_BODY && slot->chunk_bytes < WRITE_UNIT) {
        chunk_tail(slot);
    } else {
        code = slot->port->flash_poll(slot->port->context);
        if (code == DRIP_ERR_BUSY) {
            return DRIP_ERR_BUSY;
        }
        if (code < 0) {
            flash_failed(slot, code);
        } else {
            flash_done(slot);
        }
    }
    return slot->state == IDLE ? slot->result : DRIP_ERR_BUSY;
}

/* ------------------------------------------------------------------ settings */

int drip_slot_keeps_settings(const drip_slot_t *slot)
{
    return drip_slot_has_flash(slot->port);
}

int drip_slot_configure(drip_slot_t *slot, const drip_config_entry_t *wanted)
{
    const drip_config_entry_t *kept = &slot->config;

    if (slot->state != IDLE) {
        return DRIP_ERR_BUSY;
    }
    if (!drip_slot_has_flash(slot->port)) {
        return DRIP_ERR_UNSUPPORTED;
    }
    slot->result = DRIP_ERR_OK;
    if (wanted->present == kept->present &&
        memcmp(wanted->values, kept->values, sizeof(kept->values)) == 0) {
        return DRIP_ERR_OK;
    }
    memcpy(slot->config_draft.values, wanted->values, sizeof(wanted->values));
    slot->config_draft.present = wanted->present;
    drip_slot_journal_config(slot);
    return DRIP_ERR_OK;
}

/* ------------------------------------------------------------------ asking */

int drip_slot_blob(const drip_slot_t *slot, int index, const uint8_t **blob, uint32_t *bytes)
{
    if (index < 0 || index > 1 || slot->entry[index].magic == 0 ||
        !drip_slot_has_flash(slot->port)) {
        return DRIP_ERR_NO_MODEL;
    }
    *blob = drip_slot_map(slot->port, index);
    *bytes = slot->entry[index].blob_bytes;
    return DRIP_ERR_OK;
}

void drip_slot_info(const drip_slot_t *slot, drip_model_response_t *response)
{
    int index = slot->target != DRIP_SLOT_NONE ? slot->target : slot->active;

    response->slot = 0;
    response->state = DRIP_SLOT_EMPTY;
    response->attempts = 0;
    response->offset = slot->offset;
    response->crc = slot->checked == slot->offset ? slot->crc : 0;
    response->slot_bytes = drip_slot_has_flash(slot->port) ? slot->port->slot_bytes : 0;
    memset(response->confirmed_id, 0, sizeof(response->confirmed_id));
    if (slot->confirmed != DRIP_SLOT_NONE) {
        memcpy(response->confirmed_id, slot->entry[slot->confirmed].model_id,
               sizeof(response->confirmed_id));
    }
    if (index == DRIP_SLOT_NONE) {
        return;
    }
    response->slot = (uint8_t)index;
    response->attempts = slot->entry[index].attempts;
    response->state = (uint8_t)slot->entry[index].state;
    if (response->state == DRIP_SLOT_TRIAL && !drip_slot_on_trial(slot)) {
        response->state = DRIP_SLOT_READY;
    }
}
