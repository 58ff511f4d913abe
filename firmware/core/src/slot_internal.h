/* What slot.c, slot_request.c and slot_journal.c share; not for other files. */
#ifndef DRIP_SLOT_INTERNAL_H
#define DRIP_SLOT_INTERNAL_H

#include "drip/slot.h"

enum {
    ENTRY_BYTES = DRIP_SLOT_ENTRY_BYTES,
    JOURNAL = 2, /* first flash area of the journal */
    ERASED = 0xFF,
    WRITE_UNIT = 16,
};

enum drip_slot_state {
    IDLE,
    JOURNAL_START,
    JOURNAL_ERASE,
    JOURNAL_COPY,
    JOURNAL_WRITE,
    SLOT_ERASE,
    CHUNK_BODY,
    CHUNK_TAIL,
    CHECK,  /* all of the blob, before a trial */
    RESUME, /* what is there of an upload, for the host to compare */
};

enum drip_slot_writing { WRITING_SLOT, WRITING_CONFIG };

enum drip_slot_after { AFTER_NOTHING, AFTER_ERASE };

/* An area of the flash, or NULL. */
const uint8_t *drip_slot_map(const drip_port_t *port, int area);
int drip_slot_has_flash(const drip_port_t *port);

/* Ends the work in progress. */
void drip_slot_finish(drip_slot_t *slot, int result);

/* The target's model runs, unconfirmed. */
int drip_slot_on_trial(const drip_slot_t *slot);

/* Starts to write an entry with another state for the target. */
void drip_slot_journal_target(drip_slot_t *slot, uint16_t state, uint32_t attempts);

/* Starts to erase the target. */
void drip_slot_erase_target(drip_slot_t *slot);

/* Finds the newest entry of each slot and the area to append to. */
void drip_slot_journal_read(drip_slot_t *slot);

/* The draft already says which blob; this completes it and has it written. */
void drip_slot_journal_start(drip_slot_t *slot, uint16_t state, uint32_t attempts, uint8_t after);

/* The same for the draft of the settings. */
void drip_slot_journal_config(drip_slot_t *slot);

/* Takes the next step in JOURNAL_START, or when the flash is done in _ERASE or _COPY. */
void drip_slot_journal_step(drip_slot_t *slot);

/* The flash is done in JOURNAL_WRITE. Returns DRIP_ERR_OK when the entry counts from now on, or
 * DRIP_ERR_IO when it does not read back. */
int drip_slot_journal_written(drip_slot_t *slot);

#endif
