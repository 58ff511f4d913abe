/* An SD card on SPI: SDSC, SDHC and SDXC, with checksums. Portable; a board lends four functions.
 *
 * It is made for the card functions of drip/port.h: start a transfer, poll until it is done. Every
 * call does a bounded piece and returns: at most one block (514 bytes) or, while the card starts,
 * 90 bytes at 400 kHz. No call waits for the card.
 *
 * Errors. A transfer that fails is tried again: first as it is, then after the card was started anew
 * at half the clock. A card that lost its power was perhaps in other hands: its transfer goes on only
 * if the same card (by its CID) answers again within DRIP_SD_GRACE_MS. Otherwise the transfer ends in
 * DRIP_ERR_NO_CARD, and drip_sd_blocks starts whatever card is there. */
#ifndef DRIP_SD_SPI_H
#define DRIP_SD_SPI_H

#include "drip/wire.h"

enum {
    DRIP_SD_START_HZ = 400000,
    DRIP_SD_FULL_HZ = 25000000,
    DRIP_SD_ABSENT_MS = 100, /* no answer at all for so long: there is no card */
    DRIP_SD_START_MS = 1000, /* a card may take that long to start */
    DRIP_SD_BUSY_MS = 500,   /* and that long to write */
    DRIP_SD_READ_MS = 250,
    DRIP_SD_GRACE_MS = 250,
    DRIP_SD_TRIES = 3
};

/* What a board must provide. */
typedef struct {
    void *context;
    /* Sends `size` bytes, most significant bit first, mode 0, and receives as many. `out` NULL sends
     * 0xFF, `in` NULL drops what comes. Returns when they have been exchanged. */
    void (*exchange)(void *context, const uint8_t *out, uint8_t *in, uint32_t size);
    /* 1: drives chip select low; 0: high. */
    void (*select)(void *context, int on);
    /* Sets the fastest clock that the board can do and that is not above `hz`. */
    void (*clock)(void *context, uint32_t hz);
    /* Milliseconds, wrapping around. */
    uint32_t (*millis)(void *context);
} drip_sd_bus_t;

/* A card. Members are private but for the counters. */
typedef struct {
    const drip_sd_bus_t *bus;
    uint32_t blocks;
    uint32_t hz;
    uint32_t since_ms;   /* start of the present wait */
    uint32_t contact_ms; /* the card was last heard */
    uint32_t block;      /* transfer: first block, count, blocks done */
    uint32_t count;
    uint32_t done;
    uint8_t *in;
    const uint8_t *out;
    int32_t result;   /* of the last transfer */
    uint32_t retries; /* counters: transfers tried again, checksum errors, starts of a card */
    uint32_t crc_errors;
    uint32_t starts;
    uint8_t cid[16];
    uint8_t csd[16];
    uint8_t stage;
    uint8_t transfer; /* none, read, write */
    uint8_t tries;
    uint8_t knocks; /* resets sent without an answer */
    uint8_t known;  /* cid is of a card that was in use */
    uint8_t lost;   /* the card lost its power during the transfer */
    uint8_t version;
    uint8_t by_block; /* addresses are block numbers */
    uint8_t checks;   /* the card sends checksums with data */
    uint8_t locked;   /* write-protected */
    uint8_t reserved[2];
} drip_sd_t;

/* Prepares a card slot; touches no pin. `bus` stays valid. */
void drip_sd_init(drip_sd_t *sd, const drip_sd_bus_t *bus);

/* Blocks of the card. Starts the card when needed, piece by piece.
 *
 * Returns DRIP_ERR_OK; _BUSY: call again; _NO_CARD, _UNSUPPORTED (no SD card, or above 2 TB) or
 * _TIMEOUT (it answers but does not start): the next call tries again. */
int drip_sd_blocks(drip_sd_t *sd, uint32_t *blocks);

/* Start to move `count` blocks; the buffer stays valid until drip_sd_poll is no longer BUSY.
 *
 * Return DRIP_ERR_OK, _BUSY (one transfer at a time), _NO_CARD (not started), _ARGUMENT (outside of
 * the card, count 0) or _PROTECTED. */
int drip_sd_read(drip_sd_t *sd, uint32_t block, uint8_t *data, uint32_t count);
int drip_sd_write(drip_sd_t *sd, uint32_t block, const uint8_t *data, uint32_t count);

/* Does a piece of the transfer.
 *
 * Power loss: a write is OK only after the card took every block, ended being busy and reported no
 * error since.
 * Returns DRIP_ERR_OK, _BUSY, _NO_CARD, _IO, _CRC, _TIMEOUT or _PROTECTED. */
int drip_sd_poll(drip_sd_t *sd);

#endif
