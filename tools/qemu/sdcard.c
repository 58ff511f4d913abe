#include "sdcard.h"

#include <string.h>

enum { BLOCK = 512 };

/* Between commands; sending blocks; waiting for a token; receiving a block; broken off by an error. */
enum { COMMAND, SENDING, TOKEN, RECEIVING, BROKEN };

/* ------------------------------------------------------------------ checksums, bit by bit */

static uint32_t crc(const uint8_t *data, uint32_t size, uint32_t polynomial, int width)
{
    uint32_t value = 0, top = 1u << (width - 1);

    for (uint32_t i = 0; i < size * 8; i++) {
        uint32_t bit = data[i / 8] >> (7 - i % 8) & 1u;
        uint32_t out = ((value & top) != 0) ^ bit;

        value = value << 1 & ((top << 1) - 1);
        value ^= out ? polynomial : 0;
    }
    return value;
}

static uint8_t crc7_byte(const uint8_t *data, uint32_t size)
{
    return (uint8_t)(crc(data, size, 0x09, 7) << 1 | 1);
}

static uint32_t crc16(const uint8_t *data, uint32_t size)
{
    return crc(data, size, 0x1021, 16);
}

/* ------------------------------------------------------------------ answers */

static void put(sdcard_t *card, uint8_t byte)
{
    if (card->queue_at == card->queue_size) {
        card->queue_at = card->queue_size = 0;
    }
    if (card->queue_size < sizeof(card->queue)) {
        card->queue[card->queue_size++] = byte;
    }
}

static void put_r1(sdcard_t *card, unsigned flags)
{
    for (int i = 0; i < card->latency; i++) {
        put(card, 0xFF);
    }
    put(card, (uint8_t)(flags | card->idle));
}

static void put_data(sdcard_t *card, const uint8_t *data, uint32_t size, unsigned flip)
{
    uint32_t sum = card->sends_no_crc ? 0 : crc16(data, size);

    put(card, 0xFF);
    put(card, 0xFE);
    for (uint32_t i = 0; i < size; i++) {
        put(card, (uint8_t)(data[i] ^ (i == size / 2 ? flip : 0)));
    }
    put(card, (uint8_t)(sum >> 8));
    put(card, (uint8_t)sum);
}

static void set_bits(uint8_t *data, int last, int first, uint32_t value)
{
    for (int bit = first; bit <= last; bit++, value >>= 1) {
        data[15 - bit / 8] |= (uint8_t)((value & 1u) << (bit % 8));
    }
}

static void put_csd(sdcard_t *card)
{
    uint8_t csd[16] = {0};

    set_bits(csd, 103, 96, 0x32);
    set_bits(csd, 95, 84, 0x5B5);
    if (card->kind == SDCARD_HIGH) {
        set_bits(csd, 127, 126, 1);
        set_bits(csd, 83, 80, 9);
        set_bits(csd, 69, 48, card->blocks / 1024 - 1);
    } else {
        uint32_t shift = 0, length = 9;

        /* blocks * 512 = (C_SIZE + 1) << (C_SIZE_MULT + 2) << READ_BL_LEN */
        while (shift < 7 && card->blocks >> (shift + 2) > 4096) {
            shift++;
        }
        while (card->blocks >> (shift + 2 + length - 9) > 4096) {
            length++;
        }
        set_bits(csd, 83, 80, length);
        set_bits(csd, 73, 62, (card->blocks >> (shift + 2 + length - 9)) - 1);
        set_bits(csd, 49, 47, shift);
    }
    set_bits(csd, 12, 12, card->locked);
    csd[15] = crc7_byte(csd, 15);
    put_data(card, csd, 16, 0);
}

static void put_cid(sdcard_t *card)
{
    uint8_t cid[16] = {0x7D, 'D', 'R', 'M', 'O', 'D', 'E', 'L', 0x10};

    cid[12] = card->serial;
    cid[13] = 0x01;
    cid[14] = 0x9B;
    cid[15] = crc7_byte(cid, 15);
    put_data(card, cid, 16, 0);
}

/* ------------------------------------------------------------------ the medium */

static int is_busy(const sdcard_t *card)
{
    return card->now_us < card->busy_until_us;
}

static void become_busy(sdcard_t *card)
{
    card->busy_until_us = card->now_us + card->busy_us;
}

/* What has been accepted is all there once the card is no longer busy. */
static void settle(sdcard_t *card)
{
    if (card->pending && !is_busy(card)) {
        memcpy(card->data + (uint64_t)card->block * BLOCK, card->buffer, BLOCK);
        card->pending = 0;
        card->block++;
        if (card->complain_at == card->blocks_written) {
            card->error = 0x04; /* card controller error */
        }
    }
}

static void take_block(sdcard_t *card)
{
    uint32_t sum = (uint32_t)(card->buffer[BLOCK] << 8 | card->buffer[BLOCK + 1]);

    card->blocks_written++;
    card->state = card->many ? TOKEN : COMMAND;
    if ((card->crc_on && sum != crc16(card->buffer, BLOCK)) ||
        card->garble_at == card->blocks_written) {
        put(card, 0xEB);
        card->state = card->many ? BROKEN : COMMAND;
    } else if (card->refuse_at == card->blocks_written || card->block >= card->blocks ||
               (card->bad_block != 0 && card->block == card->bad_block)) {
        put(card, 0xED);
        card->error = 0x04;
        card->state = card->many ? BROKEN : COMMAND;
    } else {
        put(card, 0xE5);
        memcpy(card->data + (uint64_t)card->block * BLOCK, card->buffer, BLOCK / 2);
        card->pending = 1;
        become_busy(card);
        if (card->stall_at == card->blocks_written) {
            card->busy_until_us = UINT64_MAX;
        }
    }
}

static void send_block(sdcard_t *card)
{
    if (card->block >= card->blocks) {
        put(card, 0x08); /* out of range */
        card->error = 0x80;
        card->state = BROKEN;
        return;
    }
    card->blocks_read++;
    put_data(card, card->data + (uint64_t)card->block * BLOCK, BLOCK,
             card->flip_at == card->blocks_read ? 0x10 : 0);
    card->block++;
    card->data_us = card->now_us + card->read_us;
    if (!card->many) {
        card->state = COMMAND;
    }
}

/* ------------------------------------------------------------------ commands */

static void start_transfer(sdcard_t *card, uint32_t argument, uint8_t state, int many)
{
    uint32_t block = card->kind == SDCARD_HIGH ? argument : argument / BLOCK;

    if (card->kind != SDCARD_HIGH && argument % BLOCK != 0) {
        put_r1(card, 0x20);
    } else if (block >= card->blocks) {
        put_r1(card, 0x40);
    } else if (state == TOKEN && card->locked) {
        put_r1(card, 0);
        card->error = 0x20;
    } else {
        put_r1(card, 0);
        card->block = block;
        card->many = (uint8_t)many;
        card->data_us = card->now_us + card->read_us;
        card->state = state;
    }
}

static void do_application(sdcard_t *card, uint8_t index, uint32_t argument)
{
    if (index == 41 && card->kind != SDCARD_MMC) {
        int is_able =
            card->kind != SDCARD_HIGH || ((argument & 0x40000000) != 0 && card->interface_known);

        if (card->ready_us == 0) {
            card->ready_us = card->now_us + card->start_us;
        }
        if (is_able && card->now_us >= card->ready_us) {
            card->idle = 0;
        }
        put_r1(card, 0);
    } else if (index == 23 && !card->idle) {
        card->pre_erased = argument;
        put_r1(card, 0);
    } else {
        put_r1(card, 0x04);
    }
}

static void do_stop(sdcard_t *card)
{
    int was_writing = card->state == TOKEN || card->state == BROKEN;

    card->queue_at = card->queue_size = 0;
    put(card, 0x3F); /* what was on its way out */
    put_r1(card, card->state == COMMAND ? 0x04 : 0);
    card->state = COMMAND;
    if (was_writing) {
        become_busy(card);
    }
}

static void do_ready(sdcard_t *card, uint8_t index, uint32_t argument)
{
    if (card->state != COMMAND && index != 12 && index != 13) {
        put_r1(card, 0x04); /* a transfer of many blocks ends with a stop and nothing else */
        return;
    }
    switch (index) {
    case 9:
        put_r1(card, 0);
        put_csd(card);
        break;
    case 10:
        put_r1(card, 0);
        put_cid(card);
        break;
    case 12:
        do_stop(card);
        break;
    case 13:
        put_r1(card, 0);
        put(card, card->error);
        card->error = 0;
        break;
    case 16:
        put_r1(card, argument == BLOCK ? 0 : 0x40);
        break;
    case 17:
    case 18:
        start_transfer(card, argument, SENDING, index == 18);
        break;
    case 24:
    case 25:
        start_transfer(card, argument, TOKEN, index == 25);
        break;
    default:
        put_r1(card, 0x04);
    }
}

static void go_idle(sdcard_t *card)
{
    card->spi = 1;
    card->idle = 1;
    card->ready_us = 0;
    card->crc_on = 0;
    card->interface_known = 0;
    card->error = 0;
    card->state = COMMAND;
    card->queue_at = card->queue_size = 0;
    put_r1(card, 0);
}

static void do_command(sdcard_t *card)
{
    const uint8_t *frame = card->frame;
    uint8_t index = frame[0] & 0x3F, was_application = card->application;
    uint32_t argument =
        (uint32_t)frame[1] << 24 | (uint32_t)frame[2] << 16 | (uint32_t)frame[3] << 8 | frame[4];
    int is_checked = index == 0 || index == 8 || card->crc_on;

    card->commands++;
    card->application = 0;
    if (card->brownout_at == card->commands) {
        sdcard_insert(card);
        card->wake = 80;
        return;
    }
    if (card->stubborn && card->state != COMMAND && index != 12) {
        return;
    }
    if (card->mute_at == card->commands || (!card->spi && (index != 0 || card->wake < 74))) {
        return;
    }
    if (is_checked && frame[5] != crc7_byte(frame, 5)) {
        put_r1(card, 0x08);
    } else if (index == 0) {
        go_idle(card);
    } else if (index == 8 && (card->kind == SDCARD_V2 || card->kind == SDCARD_HIGH)) {
        card->interface_known = 1;
        put_r1(card, 0);
        for (int i = 1; i < 5; i++) {
            put(card, i < 3 ? 0 : frame[i]);
        }
    } else if (index == 59) {
        card->crc_on = !card->refuses_crc && (argument & 1) != 0;
        put_r1(card, card->refuses_crc ? 0x04 : 0);
    } else if (index == 55 && card->kind != SDCARD_MMC) {
        card->application = 1;
        put_r1(card, 0);
    } else if (was_application) {
        do_application(card, index, argument);
    } else if (card->idle) {
        put_r1(card, 0x04);
    } else {
        do_ready(card, index, argument);
    }
}

static void take_frame(sdcard_t *card, uint8_t in)
{
    if (card->frame_size == 0 && (in & 0xC0) != 0x40) {
        card->violations += in != 0xFF;
        return;
    }
    card->frame[card->frame_size++] = in;
    if (card->frame_size == sizeof(card->frame)) {
        card->frame_size = 0;
        do_command(card);
    }
}

/* ------------------------------------------------------------------ the pins */

void sdcard_insert(sdcard_t *card)
{
    card->absent = 0;
    card->spi = card->application = card->interface_known = card->error = 0;
    card->idle = 1;
    card->state = COMMAND;
    card->frame_size = 0;
    card->queue_at = card->queue_size = 0;
    card->pending = 0;
    card->wake = 0;
    card->busy_until_us = card->ready_us = 0;
}

void sdcard_remove(sdcard_t *card)
{
    sdcard_insert(card);
    card->absent = 1;
}

void sdcard_select(sdcard_t *card, int on)
{
    if (card->selected && !on) {
        /* What was not fetched is gone, and half a command too. */
        card->frame_size = 0;
        if (card->state != SENDING) {
            card->queue_at = card->queue_size = 0;
        }
    }
    card->selected = (uint8_t)(on != 0);
}

static void take(sdcard_t *card, uint8_t in)
{
    if (card->state == RECEIVING) {
        card->buffer[card->filled++] = in;
        if (card->filled == sizeof(card->buffer)) {
            take_block(card);
        }
    } else if (card->state == TOKEN && card->frame_size == 0 && in == (card->many ? 0xFC : 0xFE)) {
        card->filled = 0;
        card->state = RECEIVING;
    } else if (card->state == TOKEN && card->frame_size == 0 && card->many && in == 0xFD) {
        card->state = COMMAND;
        put(card, 0xFF);
        become_busy(card);
    } else {
        take_frame(card, in);
    }
}

uint8_t sdcard_exchange(sdcard_t *card, uint8_t in)
{
    uint8_t out = 0xFF;

    card->bytes++;
    if (card->remove_at == card->bytes) {
        sdcard_remove(card);
    }
    if (card->absent) {
        return 0xFF;
    }
    settle(card);
    if (!card->selected) {
        card->wake += 8;
        return 0xFF;
    }
    if (card->state == SENDING && card->queue_at == card->queue_size && card->frame_size == 0 &&
        card->now_us >= card->data_us) {
        send_block(card);
    }
    if (card->queue_at < card->queue_size) {
        out = card->queue[card->queue_at++];
    } else if (is_busy(card)) {
        return 0;
    }
    take(card, in);
    return out;
}
