/* A byte-level model of an SD card in SPI mode, for tests of drivers and for the QEMU plugin.
 *
 * It follows the SD Physical Layer Simplified Specification, chapter 7, and is stricter than many
 * cards: commands must carry checksums once CMD59 has asked for them, a byte of garbage precedes the
 * answer to CMD12, and a block reaches the medium half when it is accepted and whole when the card is
 * no longer busy. Faults are set by the test. It shares no code with the driver. */
#ifndef SDCARD_H
#define SDCARD_H

#include <stdint.h>

enum { SDCARD_V1, SDCARD_V2, SDCARD_HIGH, SDCARD_MMC };

typedef struct sdcard {
    /* Set by the owner, before the first exchange. */
    uint8_t *data; /* the medium, blocks * 512 bytes */
    uint32_t blocks;
    uint8_t kind;
    uint8_t serial; /* goes into the CID */
    uint8_t refuses_crc;
    uint8_t sends_no_crc; /* as emulated cards do */
    uint8_t locked;       /* temporary write protection */
    uint8_t stubborn;     /* in a transfer of many blocks it hears nothing but its end */
    uint8_t latency;      /* bytes before an answer, 0 to 8 */
    uint32_t start_us;    /* from the first ACMD41 until it is ready */
    uint32_t read_us;     /* before each block */
    uint32_t busy_us;     /* after each block, and after a stop */
    uint64_t now_us;      /* moved on by the owner */

    /* Faults; numbers count from 1, 0 = never. */
    uint64_t remove_at;   /* the card is pulled before this byte */
    uint32_t refuse_at;   /* this written block is answered 0x0D */
    uint32_t bad_block;   /* this block of the medium cannot be written: 0x0D */
    uint32_t garble_at;   /* this one 0x0B */
    uint32_t flip_at;     /* this block read has a wrong bit */
    uint32_t mute_at;     /* this command gets no answer */
    uint32_t stall_at;    /* busy for ever after this written block */
    uint32_t complain_at; /* after this written block, CMD13 reports an error */
    uint32_t brownout_at; /* before this command the card loses its power for a moment */

    /* What has happened. */
    uint64_t bytes;
    uint32_t commands, blocks_read, blocks_written, violations;
    uint32_t pre_erased; /* last ACMD23 */
    uint32_t crc_on;

    /* Private. */
    uint8_t absent, selected, state, idle, application, interface_known;
    uint8_t frame[6], frame_size;
    uint8_t queue[600];
    uint32_t queue_at, queue_size, wake;
    uint8_t buffer[514];
    uint32_t filled;
    uint32_t block;
    uint8_t many, spi, error, pending, after;
    uint64_t ready_us, busy_until_us, data_us;
} sdcard_t;

/* Power on; also what putting in a card does. The settings above stay. */
void sdcard_insert(sdcard_t *card);
void sdcard_remove(sdcard_t *card);
void sdcard_select(sdcard_t *card, int on);
/* One byte each way. */
uint8_t sdcard_exchange(sdcard_t *card, uint8_t in);

#endif
