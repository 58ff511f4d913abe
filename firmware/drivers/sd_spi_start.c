/* The start of a card: from whatever state it is in to one that takes transfers. */
#include "sd_spi_internal.h"

#include <string.h>

enum {
    WAKE_BYTES = 10, /* 74 clocks and more with chip select high */
    PURGE_BYTES = 64,
    PURGES = 9, /* together more than a block */
    QUIET_BYTES = 16,
    ECHO = 0x1AA,
    HIGH_CAPACITY = 0x40000000
};

static int give_up(drip_sd_t *sd, int result)
{
    drip_sd_release(sd);
    sd->stage = STAGE_OFF;
    return result;
}

/* The processor may have been reset in the middle of a transfer, and the card still waits for the
 * rest of a block, or sends one. What it gets here fails its checksum; then tokens and commands reach
 * it again. */
static void purge(drip_sd_t *sd)
{
    const uint8_t stop = TOKEN_STOP;

    sd->bus->select(sd->bus->context, 1);
    if (sd->knocks > PURGES) {
        if ((sd->knocks & 1) != 0) {
            sd->bus->exchange(sd->bus->context, &stop, NULL, 1);
        } else {
            drip_sd_command(sd, CMD_STOP, 0);
        }
    }
    sd->bus->exchange(sd->bus->context, NULL, NULL, PURGE_BYTES);
    drip_sd_release(sd);
}

static int power_up(drip_sd_t *sd)
{
    sd->bus->select(sd->bus->context, 0);
    sd->bus->clock(sd->bus->context, DRIP_SD_START_HZ);
    sd->bus->exchange(sd->bus->context, NULL, NULL, WAKE_BYTES);
    sd->starts++;
    sd->knocks = 0;
    sd->checks = 1;
    drip_sd_enter(sd, STAGE_RESET);
    return DRIP_ERR_BUSY;
}

static int ask_version(drip_sd_t *sd)
{
    int answer = drip_sd_command(sd, CMD_INTERFACE, ECHO);
    uint32_t echo = 0;

    if (answer == R1_IDLE) {
        for (int i = 0; i < 4; i++) {
            echo = echo << 8 | drip_sd_byte(sd);
        }
        if ((echo & 0xFFF) != ECHO) {
            return give_up(sd, DRIP_ERR_UNSUPPORTED); /* not at this voltage, or a bad line */
        }
        sd->version = 2;
    } else if (answer > 0 && (answer & R1_ILLEGAL) != 0) {
        sd->version = 1;
    } else {
        return give_up(sd, answer < 0 ? DRIP_ERR_NO_CARD : DRIP_ERR_IO);
    }
    drip_sd_release(sd);
    /* Some cards refuse to check what they get; what they send they checksum always. */
    drip_sd_command(sd, CMD_CRC, 1);
    drip_sd_release(sd);
    drip_sd_enter(sd, STAGE_START);
    return DRIP_ERR_BUSY;
}

/* Nothing follows an answer. What looked like one may have been a byte of a block on its way out. */
static int is_quiet(drip_sd_t *sd)
{
    int quiet = 1;

    for (int i = 0; i < QUIET_BYTES; i++) {
        quiet &= drip_sd_byte(sd) == 0xFF;
    }
    return quiet;
}

static int reset(drip_sd_t *sd)
{
    int answer = drip_sd_command(sd, CMD_RESET, 0), quiet = is_quiet(sd);
    uint32_t now = sd->bus->millis(sd->bus->context);

    drip_sd_release(sd);
    if (answer == R1_IDLE && quiet) {
        if (sd->known && sd->lost && now - sd->contact_ms > DRIP_SD_GRACE_MS) {
            return give_up(sd, DRIP_ERR_NO_CARD);
        }
        return ask_version(sd);
    }
    if (drip_sd_elapsed(sd) > (answer < 0 ? DRIP_SD_ABSENT_MS : DRIP_SD_START_MS)) {
        return give_up(sd, DRIP_ERR_NO_CARD);
    }
    if (sd->knocks < UINT8_MAX - 1) {
        sd->knocks++;
    } else {
        sd->knocks--; /* stop tokens and commands go on taking turns */
    }
    purge(sd);
    return DRIP_ERR_BUSY;
}

static int ask_register(drip_sd_t *sd, uint8_t index, uint8_t stage)
{
    int answer = drip_sd_command(sd, index, 0);

    if (answer != 0) {
        return give_up(sd, answer < 0 ? DRIP_ERR_NO_CARD : DRIP_ERR_IO);
    }
    drip_sd_enter(sd, stage);
    return DRIP_ERR_BUSY;
}

static int started(drip_sd_t *sd)
{
    int answer =
        drip_sd_application(sd, ACMD_START, sd->version == 2 ? (uint32_t)HIGH_CAPACITY : 0);

    drip_sd_release(sd);
    if (answer == 0) {
        sd->knocks = 0;
        return ask_register(sd, CMD_CSD, STAGE_CSD);
    }
    if (answer < 0) {
        return give_up(sd, DRIP_ERR_NO_CARD);
    }
    if ((answer & R1_ILLEGAL) != 0) {
        return give_up(sd, DRIP_ERR_UNSUPPORTED); /* a MultiMediaCard */
    }
    return drip_sd_elapsed(sd) > DRIP_SD_START_MS ? give_up(sd, DRIP_ERR_TIMEOUT) : DRIP_ERR_BUSY;
}

/* Bits of a register, numbered as in the specification: bit 127 is sent first. */
static uint32_t bits(const uint8_t *data, int last, int first)
{
    uint32_t value = 0;

    for (int bit = last; bit >= first; bit--) {
        value = value << 1 | (data[15 - bit / 8] >> (bit % 8) & 1u);
    }
    return value;
}

/* The layout of the register tells standard from high capacity as surely as the OCR does, and it is
 * covered by a checksum. */
static int read_size(drip_sd_t *sd)
{
    uint32_t structure = bits(sd->csd, 127, 126), size;

    if (structure == 0) {
        uint32_t shift = bits(sd->csd, 49, 47) + 2 + bits(sd->csd, 83, 80);

        if (shift < 9) {
            return DRIP_ERR_UNSUPPORTED;
        }
        sd->blocks = (bits(sd->csd, 73, 62) + 1) << (shift - 9);
    } else if (structure == 1) {
        size = bits(sd->csd, 69, 48);
        sd->blocks = size >= 0x3FFFFF ? UINT32_MAX : (size + 1) << 10;
    } else {
        return DRIP_ERR_UNSUPPORTED;
    }
    sd->by_block = structure == 1;
    sd->locked = bits(sd->csd, 13, 12) != 0;
    return DRIP_ERR_OK;
}

static int is_sealed(const uint8_t *data)
{
    return data[15] == (uint8_t)(drip_sd_crc7(data, 15) << 1 | 1);
}

/* Emulated cards may send no checksum with data: three registers in a row that carry a right
 * checksum of their own, and a wrong one behind it, are taken for that. */
static int again(drip_sd_t *sd, const uint8_t *data, int result, uint8_t index)
{
    sd->knocks++;
    if (sd->knocks < DRIP_SD_TRIES) {
        drip_sd_release(sd);
        return ask_register(sd, index, sd->stage);
    }
    if (result == DRIP_ERR_CRC && index == CMD_CSD && is_sealed(data)) {
        sd->checks = 0;
        sd->knocks = 0;
        drip_sd_release(sd);
        return ask_register(sd, index, sd->stage);
    }
    return give_up(sd, result);
}

static int got_csd(drip_sd_t *sd)
{
    int result = drip_sd_receive(sd, sd->csd, sizeof(sd->csd));

    if (result == DRIP_ERR_BUSY) {
        return result;
    }
    if (result < 0) {
        return again(sd, sd->csd, result, CMD_CSD);
    }
    drip_sd_release(sd);
    result = read_size(sd);
    if (result < 0) {
        return give_up(sd, result);
    }
    if (!sd->by_block) {
        int answer = drip_sd_command(sd, CMD_BLOCK_LENGTH, DRIP_BLOCK_BYTES);

        drip_sd_release(sd);
        if (answer != 0) {
            return give_up(sd, answer < 0 ? DRIP_ERR_NO_CARD : DRIP_ERR_UNSUPPORTED);
        }
    }
    sd->knocks = 0;
    return ask_register(sd, CMD_CID, STAGE_CID);
}

static int got_cid(drip_sd_t *sd)
{
    uint8_t cid[16];
    int result = drip_sd_receive(sd, cid, sizeof(cid));

    if (result == DRIP_ERR_BUSY) {
        return result;
    }
    if (result < 0) {
        return again(sd, cid, result, CMD_CID);
    }
    drip_sd_release(sd);
    if (sd->known && memcmp(sd->cid, cid, sizeof(cid)) != 0) {
        return give_up(sd, DRIP_ERR_NO_CARD); /* another card: its log must be looked at first */
    }
    memcpy(sd->cid, cid, sizeof(cid));
    sd->known = 1;
    sd->lost = 0;
    sd->contact_ms = sd->bus->millis(sd->bus->context);
    sd->bus->clock(sd->bus->context, sd->hz);
    sd->stage = STAGE_READY;
    return DRIP_ERR_OK;
}

int drip_sd_start_step(drip_sd_t *sd)
{
    switch (sd->stage) {
    case STAGE_OFF:
        return power_up(sd);
    case STAGE_RESET:
        return reset(sd);
    case STAGE_START:
        return started(sd);
    case STAGE_CSD:
        return got_csd(sd);
    case STAGE_CID:
        return got_cid(sd);
    default:
        return DRIP_ERR_OK;
    }
}
