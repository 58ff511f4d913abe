/* The SD card as blocks, through ESP-IDF's protocol layer and without its file system. */
#include "board.h"
#include "sdmmc_cmd.h"

#if BOARD_CARD_SDMMC
#include "driver/sdmmc_host.h"
#else
#include "driver/sdspi_host.h"
#include "driver/spi_common.h"
#endif

/* Commands of the SD standard, and in the card's status a write-protected block, and errors of memory, controller
 * and unknown kind. */
enum { SEND_STATUS = 13, WRITE_ONE = 24, WRITE_SEVERAL = 25, STATUS_ERRORS = 0x04380000 };
enum { CARD_ABSENT, CARD_STARTING, CARD_READY, CARD_LOST };

static sdmmc_host_t host; /* task `card` only */
static sdmmc_card_t card; /* of the owner while `state` is READY and no job runs */
static int prepared;      /* task `card`: the host is set up */
static int write_failed;  /* task `card` */
static esp_err_t (*transaction)(int slot, sdmmc_command_t *command);
static int started; /* task `card`: `card` describes one */
static int state;   /* owner */

/* ------------------------------------------------------------------ task `card` */

#if BOARD_CARD_SDMMC

static esp_err_t prepare(void)
{
    sdmmc_slot_config_t slot = SDMMC_SLOT_CONFIG_DEFAULT();
    esp_err_t error;

    host = (sdmmc_host_t)SDMMC_HOST_DEFAULT();
    host.max_freq_khz = BOARD_CARD_KHZ;
    slot.width = 4;
#ifdef BOARD_SDMMC_CLK
    slot.clk = BOARD_SDMMC_CLK;
    slot.cmd = BOARD_SDMMC_CMD;
    slot.d0 = BOARD_SDMMC_D0;
    slot.d1 = BOARD_SDMMC_D1;
    slot.d2 = BOARD_SDMMC_D2;
    slot.d3 = BOARD_SDMMC_D3;
#endif
    slot.flags |= SDMMC_SLOT_FLAG_INTERNAL_PULLUP;
    error = sdmmc_host_init();
    return error == ESP_OK ? sdmmc_host_init_slot(host.slot, &slot) : error;
}

#else

static esp_err_t prepare(void)
{
    const spi_bus_config_t bus = {
        .mosi_io_num = BOARD_SPI_MOSI,
        .miso_io_num = BOARD_SPI_MISO,
        .sclk_io_num = BOARD_SPI_CLK,
        .quadwp_io_num = -1,
        .quadhd_io_num = -1,
        .max_transfer_sz = 4096,
    };
    sdspi_device_config_t device = SDSPI_DEVICE_CONFIG_DEFAULT();
    sdspi_dev_handle_t handle;
    esp_err_t error;

    host = (sdmmc_host_t)SDSPI_HOST_DEFAULT();
    host.max_freq_khz = BOARD_CARD_KHZ;
    device.gpio_cs = BOARD_SPI_CS;
    device.host_id = SPI2_HOST;
    error = spi_bus_initialize(SPI2_HOST, &bus, SPI_DMA_CH_AUTO);
    if (error == ESP_OK) {
        error = sdspi_host_init();
    }
    if (error == ESP_OK) {
        error = sdspi_host_init_device(&device, &handle);
        host.slot = handle;
    }
    return error;
}

#endif

static int code_of(esp_err_t error)
{
    switch (error) {
    case ESP_OK:
        return DRIP_ERR_OK;
    case ESP_ERR_TIMEOUT:
        return DRIP_ERR_TIMEOUT;
    case ESP_ERR_INVALID_CRC:
        return DRIP_ERR_CRC;
    default:
        return DRIP_ERR_IO;
    }
}

/* After a write of several blocks that failed ESP-IDF (5.5 to 6.1) asks the card how many came through, and returns
 * what became of the question. With SDMMC it does not look at the errors in the status, either. */
static esp_err_t watched(int slot, sdmmc_command_t *command)
{
    esp_err_t error = transaction(slot, command);

    if (command->opcode == WRITE_ONE || command->opcode == WRITE_SEVERAL) {
        write_failed |= error != ESP_OK || command->error != ESP_OK;
    }
    if (BOARD_CARD_SDMMC && command->opcode == SEND_STATUS) {
        write_failed |= (command->response[0] & STATUS_ERRORS) != 0;
    }
    return error;
}

static int start(void)
{
    if (!prepared) {
        if (prepare() != ESP_OK) {
            return DRIP_ERR_NO_CARD;
        }
        transaction = host.do_transaction;
        host.do_transaction = watched;
        prepared = 1;
    }
    slots_card_changed();
    started = sdmmc_card_init(&host, &card) == ESP_OK;
    return started ? DRIP_ERR_OK : DRIP_ERR_NO_CARD;
}

/* A write counts only when the card says afterwards that it is no longer busy and saw no error. */
int card_work(uint8_t kind, uint32_t block, uint8_t *data, uint32_t count)
{
    esp_err_t error;

    if (kind == JOB_CARD_START) {
        return start();
    }
    if (!started) {
        return DRIP_ERR_NO_CARD;
    }
    if (kind == JOB_CARD_READ) {
        return code_of(sdmmc_read_sectors(&card, data, block, count));
    }
    write_failed = 0;
    error = sdmmc_write_sectors(&card, data, block, count);
    if (error == ESP_OK) {
        error = sdmmc_get_status(&card);
    }
    return error == ESP_OK && write_failed ? DRIP_ERR_IO : code_of(error);
}

/* ------------------------------------------------------------------ owner */

static int card_blocks(void *context, uint32_t *blocks)
{
    int result;

    (void)context;
    *blocks = 0;
    if (state == CARD_ABSENT || state == CARD_LOST) {
        result = worker_post(JOB_CARD_START, 0, NULL, 0);
        if (result == DRIP_ERR_OK) {
            state = CARD_STARTING;
        }
        return DRIP_ERR_BUSY;
    }
    if (state == CARD_STARTING) {
        result = worker_card_poll();
        if (result == DRIP_ERR_BUSY) {
            return result;
        }
        state = result == DRIP_ERR_OK ? CARD_READY : CARD_ABSENT;
    }
    if (state != CARD_READY) {
        return DRIP_ERR_NO_CARD;
    }
    if (card.csd.sector_size != DRIP_BLOCK_BYTES || card.csd.capacity <= 0) {
        state = CARD_ABSENT;
        return DRIP_ERR_UNSUPPORTED;
    }
    *blocks = (uint32_t)card.csd.capacity;
    return DRIP_ERR_OK;
}

static int transfer(uint8_t kind, uint32_t block, void *data, uint32_t count)
{
    uint32_t blocks = state == CARD_READY ? (uint32_t)card.csd.capacity : 0;

    if (state != CARD_READY) {
        return DRIP_ERR_NO_CARD;
    }
    if (count == 0 || block > blocks || count > blocks - block) {
        return DRIP_ERR_ARGUMENT;
    }
    return worker_post(kind, block, data, count);
}

static int card_read(void *context, uint32_t block, uint8_t *data, uint32_t count)
{
    (void)context;
    return transfer(JOB_CARD_READ, block, data, count);
}

static int card_write(void *context, uint32_t block, const uint8_t *data, uint32_t count)
{
    (void)context;
    return transfer(JOB_CARD_WRITE, block, (void *)(uintptr_t)data, count);
}

/* After a failed transfer the card in the slot may be another one: it is started anew before the next. */
static int card_poll(void *context)
{
    int result = worker_card_poll();

    (void)context;
    if (result < 0 && result != DRIP_ERR_BUSY && state == CARD_READY) {
        state = CARD_LOST;
    }
    return result;
}

void card_attach(drip_port_t *port)
{
    port->card_blocks = card_blocks;
    port->card_read = card_read;
    port->card_write = card_write;
    port->card_poll = card_poll;
}
