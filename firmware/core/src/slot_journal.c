#include "slot_internal.h"

#include <string.h>

#include "drip/bytes.h"

const uint8_t *drip_slot_map(const drip_port_t *port, int area)
{
    return port->flash_map == NULL ? NULL : port->flash_map(port->context, area);
}

int drip_slot_has_flash(const drip_port_t *port)
{
    int area;

    for (area = 0; area < JOURNAL + 2; area++) {
        if (drip_slot_map(port, area) == NULL) {
            return 0;
        }
    }
    return port->journal_bytes >= 4 * ENTRY_BYTES;
}

void drip_slot_finish(drip_slot_t *slot, int result)
{
    if (slot->beginning && result < 0) {
        slot->target = DRIP_SLOT_NONE; /* what is in the slot is unknown: only BEGIN helps */
    }
    slot->beginning = 0;
    slot->state = IDLE;
    slot->result = result;
}

static int entry_read(const drip_port_t *port, int area, uint32_t at, drip_slot_entry_t *entry)
{
    memcpy(entry, drip_slot_map(port, JOURNAL + area) + at, ENTRY_BYTES);
    return entry->magic == DRIP_SLOT_MAGIC && entry->version == DRIP_SLOT_VERSION &&
           entry->slot < 2 && entry->blob_bytes <= port->slot_bytes &&
           entry->crc == drip_crc32(0, entry, ENTRY_BYTES - sizeof(entry->crc));
}

static int entry_is_free(const drip_port_t *port, int area, uint32_t at)
{
    const uint8_t *bytes = drip_slot_map(port, JOURNAL + area) + at;
    uint32_t i;

    for (i = 0; i < ENTRY_BYTES; i++) {
        if (bytes[i] != ERASED) {
            return 0;
        }
    }
    return 1;
}

static int config_read(const drip_port_t *port, int area, uint32_t at, drip_config_entry_t *entry)
{
    memcpy(entry, drip_slot_map(port, JOURNAL + area) + at, ENTRY_BYTES);
    return entry->magic == DRIP_CONFIG_MAGIC && entry->version == DRIP_SLOT_VERSION &&
           entry->crc == drip_crc32(0, entry, ENTRY_BYTES - sizeof(entry->crc));
}

static void find_config(drip_slot_t *slot, int area, uint32_t at)
{
    drip_config_entry_t entry;

    if (!config_read(slot->port, area, at, &entry)) {
        return;
    }
    if (slot->config.magic == 0 || entry.generation > slot->config.generation) {
        slot->config = entry;
    }
    if (entry.generation > slot->generation) {
        slot->generation = entry.generation;
    }
}

static void find_newest(drip_slot_t *slot)
{
    drip_slot_entry_t entry;
    uint32_t at;
    int area;

    for (area = 0; area < 2; area++) {
        for (at = 0; at + ENTRY_BYTES <= slot->port->journal_bytes; at += ENTRY_BYTES) {
            if (!entry_read(slot->port, area, at, &entry)) {
                find_config(slot, area, at);
                continue;
            }
            if (slot->entry[entry.slot].magic == 0 ||
                entry.generation > slot->entry[entry.slot].generation) {
                slot->entry[entry.slot] = entry;
            }
            if (entry.generation > slot->generation) {
                slot->generation = entry.generation;
            }
        }
    }
}

/* Counts the newest entries that an area holds, and finds where it is free. */
static int survey(const drip_slot_t *slot, int area, uint32_t *free_at)
{
    drip_config_entry_t config;
    drip_slot_entry_t entry;
    uint32_t at;
    int found[3] = {0, 0, 0};

    *free_at = 0;
    for (at = 0; at + ENTRY_BYTES <= slot->port->journal_bytes; at += ENTRY_BYTES) {
        if (entry_read(slot->port, area, at, &entry) &&
            entry.generation == slot->entry[entry.slot].generation) {
            found[entry.slot] = 1;
        }
        if (config_read(slot->port, area, at, &config) &&
            config.generation == slot->config.generation) {
            found[2] = 1;
        }
        if (!entry_is_free(slot->port, area, at)) {
            *free_at = at + ENTRY_BYTES;
        }
    }
    return found[0] + found[1] + found[2];
}

/* The area to append to holds the newest entries of both slots and of the settings, so that the other
 * may be erased. */
static void choose_area(drip_slot_t *slot)
{
    uint32_t free_at[2];
    int newest0 = survey(slot, 0, &free_at[0]);
    int newest1 = survey(slot, 1, &free_at[1]);

    slot->area =
        newest1 > newest0 || (newest1 == newest0 && free_at[1] < free_at[0]) ? (uint8_t)1 : 0;
    slot->free_at = free_at[slot->area];
}

void drip_slot_journal_read(drip_slot_t *slot)
{
    find_newest(slot);
    choose_area(slot);
}

void drip_slot_journal_start(drip_slot_t *slot, uint16_t state, uint32_t attempts, uint8_t after)
{
    drip_slot_entry_t *draft = &slot->draft;

    draft->magic = DRIP_SLOT_MAGIC;
    draft->version = DRIP_SLOT_VERSION;
    draft->state = state;
    draft->attempts = attempts;
    /* Counts up even when writing fails: the entry may be there all the same. */
    draft->generation = ++slot->generation;
    draft->crc = drip_crc32(0, draft, ENTRY_BYTES - sizeof(draft->crc));
    slot->after = after;
    slot->writing = WRITING_SLOT;
    slot->state = JOURNAL_START;
}

void drip_slot_journal_config(drip_slot_t *slot)
{
    drip_config_entry_t *draft = &slot->config_draft;

    draft->magic = DRIP_CONFIG_MAGIC;
    draft->version = DRIP_SLOT_VERSION;
    draft->generation = ++slot->generation;
    draft->crc = drip_crc32(0, draft, ENTRY_BYTES - sizeof(draft->crc));
    slot->after = AFTER_NOTHING;
    slot->writing = WRITING_CONFIG;
    slot->state = JOURNAL_START;
}

static const void *journal_draft(const drip_slot_t *slot)
{
    return slot->writing == WRITING_CONFIG ? (const void *)&slot->config_draft
                                           : (const void *)&slot->draft;
}

static void journal_write(drip_slot_t *slot, const void *entry, uint8_t state)
{
    const drip_port_t *port = slot->port;
    int code = port->flash_write(port->context, JOURNAL + slot->write_area, slot->write_at, entry,
                                 ENTRY_BYTES);

    slot->state = state;
    if (code < 0) {
        drip_slot_finish(slot, code);
    }
}

static void journal_begin(drip_slot_t *slot)
{
    const drip_port_t *port = slot->port;

    if (slot->free_at + ENTRY_BYTES <= port->journal_bytes) {
        slot->write_area = slot->area;
        slot->write_at = slot->free_at;
        slot->free_at += ENTRY_BYTES; /* also when writing fails: the place is spoilt then */
        journal_write(slot, journal_draft(slot), JOURNAL_WRITE);
        return;
    }
    slot->write_area = slot->area == 0 ? (uint8_t)1 : 0;
    slot->write_at = 0;
    slot->copied = 0;
    slot->state = JOURNAL_ERASE;
    if (port->flash_erase(port->context, JOURNAL + slot->write_area) < 0) {
        drip_slot_finish(slot, DRIP_ERR_IO);
    }
}

/* Copies what the draft does not replace, then writes the draft. */
static void journal_copy(drip_slot_t *slot)
{
    while (slot->copied < 3) {
        uint32_t index = slot->copied++;

        if (index == 2) {
            if (slot->writing != WRITING_CONFIG && slot->config.magic != 0) {
                journal_write(slot, &slot->config, JOURNAL_COPY);
                return;
            }
        } else if (slot->entry[index].magic != 0 &&
                   (slot->writing == WRITING_CONFIG || slot->draft.slot != index)) {
            journal_write(slot, &slot->entry[index], JOURNAL_COPY);
            return;
        }
    }
    journal_write(slot, journal_draft(slot), JOURNAL_WRITE);
}

void drip_slot_journal_step(drip_slot_t *slot)
{
    if (slot->state == JOURNAL_START) {
        journal_begin(slot);
    } else if (slot->state == JOURNAL_ERASE) {
        journal_copy(slot);
    } else {
        slot->write_at += ENTRY_BYTES;
        journal_copy(slot);
    }
}

int drip_slot_journal_written(drip_slot_t *slot)
{
    const uint8_t *written = drip_slot_map(slot->port, JOURNAL + slot->write_area) + slot->write_at;

    if (memcmp(written, journal_draft(slot), ENTRY_BYTES) != 0) {
        return DRIP_ERR_IO;
    }
    if (slot->write_area != slot->area) {
        slot->area = slot->write_area;
        slot->free_at = slot->write_at + ENTRY_BYTES;
    }
    if (slot->writing == WRITING_CONFIG) {
        slot->config = slot->config_draft;
    } else {
        slot->entry[slot->draft.slot] = slot->draft;
    }
    return DRIP_ERR_OK;
}
