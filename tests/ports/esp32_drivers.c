/* The line and the card of the ESP32 port over drivers that write down what they are told, as ESP-IDF's behave.
 * Prints the pins of the line, then for every write what the port makes of it. */
#include <stdio.h>

#include "../../firmware/ports/esp32/card.c"
#include "../../firmware/ports/esp32/line.c"

/* What the card says of the next write, of the question how many blocks came through, and as its status. */
static int write_error, command_error, question_error;
static uint32_t card_status;

esp_err_t uart_param_config(uart_port_t port, const uart_config_t *config)
{
    printf("uart %d at %d\n", port, config->baud_rate);
    return ESP_OK;
}

esp_err_t uart_set_pin(uart_port_t port, int tx, int rx, int rts, int cts)
{
    printf("pins of %d: %d %d %d %d\n", port, tx, rx, rts, cts);
    return ESP_OK;
}

esp_err_t uart_driver_install(uart_port_t port, int rx_bytes, int tx_bytes, int queue,
                              QueueHandle_t *handle, int flags)
{
    (void)handle;
    printf("driver of %d: %d %d %d %d\n", port, rx_bytes, tx_bytes, queue, flags);
    return ESP_OK;
}

#if BOARD_CARD_SDMMC
esp_err_t sdmmc_host_do_transaction(int slot, sdmmc_command_t *command)
#else
esp_err_t sdspi_host_do_transaction(int slot, sdmmc_command_t *command)
#endif
{
    (void)slot;
    command->response[0] = card_status;
    command->error = command->opcode == 13 ? ESP_OK : command_error;
    return command->opcode == 13 ? ESP_OK : write_error;
}

esp_err_t sdmmc_card_init(const sdmmc_host_t *config, sdmmc_card_t *made)
{
    made->host = *config;
    return ESP_OK;
}

static esp_err_t send(sdmmc_card_t *to, uint32_t opcode)
{
    sdmmc_command_t command = {.opcode = opcode};
    esp_err_t error = to->host.do_transaction(to->host.slot, &command);

    return error != ESP_OK ? error : command.error;
}

/* As ESP-IDF 5.5 to 6.1: what becomes of the question takes the place of what became of the write. */
esp_err_t sdmmc_write_sectors(sdmmc_card_t *to, const void *data, size_t begin, size_t count)
{
    esp_err_t error = send(to, count == 1 ? 24 : 25);

    (void)data;
    (void)begin;
    send(to, 13);
    return error != ESP_OK && count > 1 ? question_error : error;
}

esp_err_t sdmmc_get_status(sdmmc_card_t *of)
{
    return send(of, 13);
}

/* ------------------------------------------------------------------ what does nothing here */

#if BOARD_CARD_SDMMC
esp_err_t sdmmc_host_init(void)
{
    return ESP_OK;
}

esp_err_t sdmmc_host_init_slot(int slot, const sdmmc_slot_config_t *config)
{
    (void)slot;
    (void)config;
    return ESP_OK;
}
#else
esp_err_t spi_bus_initialize(spi_host_device_t bus, const spi_bus_config_t *config,
                             spi_dma_chan_t dma)
{
    (void)bus;
    (void)config;
    (void)dma;
    return ESP_OK;
}

esp_err_t sdspi_host_init(void)
{
    return ESP_OK;
}

esp_err_t sdspi_host_init_device(const sdspi_device_config_t *config, sdspi_dev_handle_t *handle)
{
    (void)config;
    *handle = 0;
    return ESP_OK;
}
#endif

esp_err_t sdmmc_read_sectors(sdmmc_card_t *from, void *data, size_t begin, size_t count)
{
    (void)from;
    (void)data;
    (void)begin;
    (void)count;
    return ESP_OK;
}

esp_err_t uart_get_tx_buffer_free_size(uart_port_t port, size_t *size)
{
    (void)port;
    *size = 0;
    return ESP_OK;
}

esp_err_t uart_wait_tx_done(uart_port_t port, TickType_t ticks)
{
    (void)port;
    (void)ticks;
    return ESP_OK;
}

esp_err_t uart_set_baudrate(uart_port_t port, uint32_t baud)
{
    (void)port;
    (void)baud;
    return ESP_OK;
}

int uart_read_bytes(uart_port_t port, void *data, uint32_t size, TickType_t ticks)
{
    (void)port;
    (void)data;
    (void)size;
    (void)ticks;
    return 0;
}

int uart_write_bytes(uart_port_t port, const void *data, size_t size)
{
    (void)port;
    (void)data;
    (void)size;
    return 0;
}

BaseType_t xTaskCreate(TaskFunction_t code, const char *name, uint32_t stack, void *argument,
                       UBaseType_t priority, TaskHandle_t *task)
{
    (void)code;
    (void)name;
    (void)stack;
    (void)argument;
    (void)priority;
    (void)task;
    return pdPASS;
}

void board_wake(void)
{
}

int worker_post(uint8_t kind, uint32_t at, void *data, uint32_t count)
{
    (void)kind;
    (void)at;
    (void)data;
    (void)count;
    return DRIP_ERR_BUSY;
}

int worker_card_poll(void)
{
    return DRIP_ERR_BUSY;
}

void slots_card_changed(void)
{
}

int main(void)
{
    static uint8_t data[2 * DRIP_BLOCK_BYTES];
    const struct {
        int write, command, question;
        uint32_t status, blocks;
    } cases[] = {
        {0, 0, 0, 0x900, 2},   {-1, 0, 0, 0x900, 2},    {0, ESP_ERR_INVALID_CRC, 0, 0x900, 2},
        {-1, 0, -1, 0x900, 2}, {-1, 0, 0, 0x900, 1},    {0, ESP_ERR_TIMEOUT, 0, 0x900, 1},
        {0, 0, 0, 0x80900, 2}, {0, 0, 0, 0x4000900, 1}, {0, 0, 0, 0x900, 1},
    };

    printf("line %d\n", line_start());
    printf("card %d\n", card_work(JOB_CARD_START, 0, NULL, 0));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        write_error = cases[i].write;
        command_error = cases[i].command;
        question_error = cases[i].question;
        card_status = cases[i].status;
        printf("write %d\n", card_work(JOB_CARD_WRITE, 0, data, cases[i].blocks));
    }
    return 0;
}
