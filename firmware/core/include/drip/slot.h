/* Model slots: two blobs in flash, a journal that says which one boots, trial before confirmation.
 *
 * An upload that a reset interrupted goes on where it was: the journal says which blob it is, the
 * slot how far it came, and the answer to BEGIN carries the checksum of what is there.
 *
 * Power loss at any moment leaves a bootable confirmed model, if there was one. Only a CONFIRMED
 * model boots: one that faults on trial is gone after the reset, and may be tried again until it has
 * used up its attempts.
 *
 * The journal has two areas. An entry is appended to one that holds the newest entry of both slots;
 * when that is full the other is erased and starts with copies, so one complete area exists at any
 * time. Requests are started and polled: nothing here waits for flash. */
#ifndef DRIP_SLOT_H
#define DRIP_SLOT_H

#include "drip/nn.h"
#include "drip/port.h"

enum { DRIP_SLOT_NONE = -1, DRIP_SLOT_MAX_ATTEMPTS = 3 /* trials before a model is rejected */ };

/* State of both slots as read from the journal, and of an upload. Members are private; INFO and
 * drip_slot_info tell. */
typedef struct {
    const drip_port_t *port;
    int8_t active;      /* slot whose model runs, or DRIP_SLOT_NONE */
    int8_t confirmed;   /* slot that boots, or DRIP_SLOT_NONE */
    int8_t target;      /* slot of an upload or trial, or DRIP_SLOT_NONE */
    uint8_t state;      /* what is waited for */
    uint8_t after;      /* what follows a journal entry */
    uint8_t area;       /* journal area that is complete */
    uint8_t write_area; /* journal area being written */
    uint8_t writing;    /* what goes to the journal: a slot's entry or the settings */
    uint8_t copied;     /* entries that went to the other area */
    uint8_t beginning;  /* a slot is being made ready for an upload */
    uint8_t is_stale;   /* a reset interrupted the upload: BEGIN must come first */
    uint8_t reserved[1];
    uint32_t generation; /* highest in the journal */
    uint32_t offset;     /* bytes of the upload or trial in the slot */
    uint32_t checked;    /* bytes of the upload that `crc` covers */
    uint32_t crc;
    uint32_t free_at; /* in `area`: where the next entry goes */
    uint32_t write_at;
    const uint8_t *chunk;
    uint32_t chunk_bytes;
    int32_t result;
    uint8_t tail[16];           /* end of the last chunk, padded to what flash takes */
    drip_slot_entry_t entry[2]; /* newest per slot; magic 0 = none */
    drip_slot_entry_t draft;    /* being written */
    drip_config_entry_t config; /* newest settings; magic 0 = none */
    drip_config_entry_t config_draft;
} drip_slot_t;

/* Reads the journal and opens the newest CONFIRMED model that this build can run: with a blob that
 * passes drip_nn_open, and an arena of at most `arena_bytes`.
 *
 * Memory: `nn` gets the opened model, not yet bound. Takes one pass over the blob. Writes nothing.
 * Returns the slot, or DRIP_ERR_NO_MODEL. */
int drip_slot_open(drip_slot_t *slot, const drip_port_t *port, uint32_t arena_bytes, drip_nn_t *nn);

/* Starts a MODEL request. Capacity, arena and operators are checked at BEGIN, before any erase.
 * Repeating a request is harmless: BEGIN of the upload in progress, also of one that a reset
 * interrupted, keeps what has arrived and computes its CRC; a chunk that is there already is accepted. TRIAL checks the CRC of the slot and counts the attempt; then
 * the caller opens the model, runs its self-test and says how it went with drip_slot_trial.
 *
 * Memory: `chunk` stays valid until drip_slot_poll is no longer BUSY.
 * Returns DRIP_ERR_OK (started; poll), _BUSY, _UNSUPPORTED (no slots, or an operator), _FULL (larger
 * than a slot), _MEMORY (arena), _SHORT, _RANGE (not the offset wanted), _STATE, _ARGUMENT. */
int drip_slot_request(drip_slot_t *slot, const drip_model_request_t *request, const uint8_t *chunk,
                      uint32_t chunk_size, uint32_t arena_bytes);

/* Starts to record the outcome of a trial: DRIP_ERR_OK makes the model the active one, anything else
 * rejects it. Returns DRIP_ERR_OK (started; poll), _BUSY or _STATE. */
int drip_slot_trial(drip_slot_t *slot, int code);

/* Returns 1 when settings survive a restart. */
int drip_slot_keeps_settings(const drip_slot_t *slot);

/* Starts to write settings (`values` and `present`) to the journal; those in force are in
 * `slot->config`. Nothing is written when they are there already.
 *
 * Power loss: the new settings or the ones before.
 * Returns DRIP_ERR_OK (started; poll), _BUSY or _UNSUPPORTED (no journal). */
int drip_slot_configure(drip_slot_t *slot, const drip_config_entry_t *wanted);

/* Does a bounded piece of the work in progress (4 KiB of CRC at most). Returns DRIP_ERR_BUSY while
 * there is more, DRIP_ERR_OK, or how the last request failed (_CRC, _STATE, _IO). */
int drip_slot_poll(drip_slot_t *slot);

/* Returns 1 when the next drip_slot_poll goes on with the erase of an area. */
int drip_slot_erasing(const drip_slot_t *slot);

/* The model in a slot: address and size for drip_nn_open. Returns DRIP_ERR_OK or _NO_MODEL. */
int drip_slot_blob(const drip_slot_t *slot, int index, const uint8_t **blob, uint32_t *bytes);

/* Fills in slot, state, offset, its CRC when known, capacity, attempts and the id of the model that boots (zero without
 * one); `code` and `active_id` are the caller's. */
void drip_slot_info(const drip_slot_t *slot, drip_model_response_t *response);

#endif
