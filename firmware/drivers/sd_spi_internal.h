/* Commands and tokens of SD cards in SPI mode: SD Physical Layer Simplified Specification, chapter 7. */
#ifndef DRIP_SD_SPI_INTERNAL_H
#define DRIP_SD_SPI_INTERNAL_H

#include "sd_spi.h"

enum {
    CMD_RESET = 0,
    CMD_INTERFACE = 8,
    CMD_CSD = 9,
    CMD_CID = 10,
    CMD_STOP = 12,
    CMD_STATUS = 13,
    CMD_BLOCK_LENGTH = 16,
    CMD_READ_ONE = 17,
    CMD_READ_MANY = 18,
    CMD_WRITE_ONE = 24,
    CMD_WRITE_MANY = 25,
    CMD_APPLICATION = 55,
    CMD_CRC = 59,
    ACMD_PRE_ERASE = 23,
    ACMD_START = 41,

    R1_IDLE = 0x01,
    R1_ILLEGAL = 0x04,
    R2_PROTECTED = 0x22, /* write protection violated; erase skipped or lock command failed */

    TOKEN_BLOCK = 0xFE,
    TOKEN_MANY = 0xFC,
    TOKEN_STOP = 0xFD,

    RESPONSE_MASK = 0x1F,
    RESPONSE_ACCEPTED = 0x05,
    RESPONSE_CRC = 0x0B
};

enum { TRANSFER_NONE, TRANSFER_READ, TRANSFER_WRITE };

enum {
    STAGE_OFF,
    STAGE_RESET,
    STAGE_START,
    STAGE_CSD, /* wait for the register's data */
    STAGE_CID,
    STAGE_READY,
    STAGE_WAIT, /* the card may be busy before the command */
    STAGE_READ,
    STAGE_WRITE,
    STAGE_PROGRAM, /* busy after a block */
    STAGE_STOP,    /* busy after the end of a transfer */
    STAGE_SETTLE   /* busy after an error */
};

uint8_t drip_sd_crc7(const uint8_t *data, uint32_t size);
uint16_t drip_sd_crc16(const uint8_t *data, uint32_t size);

/* sd_spi.c: the bus. */
uint8_t drip_sd_byte(drip_sd_t *sd);
void drip_sd_release(drip_sd_t *sd);
/* Sends a command. Returns R1, or DRIP_ERR_TIMEOUT without an answer. Chip select stays low. */
int drip_sd_command(drip_sd_t *sd, uint8_t index, uint32_t argument);
int drip_sd_application(drip_sd_t *sd, uint8_t index, uint32_t argument);
/* Returns DRIP_ERR_OK with `size` bytes in `data`, _BUSY before the token, _IO, _CRC, _TIMEOUT. */
int drip_sd_receive(drip_sd_t *sd, uint8_t *data, uint32_t size);
void drip_sd_enter(drip_sd_t *sd, uint8_t stage);
uint32_t drip_sd_elapsed(const drip_sd_t *sd);
/* R1 and R2 of CMD13, as R1 << 8 | R2, or DRIP_ERR_TIMEOUT. */
int drip_sd_status(drip_sd_t *sd);

/* sd_spi_start.c: does a piece of the start. Returns DRIP_ERR_OK when the card is ready, _BUSY, or why
 * not. */
int drip_sd_start_step(drip_sd_t *sd);

#endif
