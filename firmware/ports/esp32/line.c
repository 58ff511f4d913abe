/* The line to the host: UART0, or the chip's own USB Serial/JTAG. A task moves bytes between the driver and two
 * rings, so that the owner never waits for either. */
#include "board.h"
#include "ring.h"

#if BOARD_LINE_USB
#include "driver/usb_serial_jtag.h"
#else
#include "driver/uart.h"
#endif

enum { PIECE = 256, DRIVER_BYTES = 4096, BAUD_LEAST = 1200 };

static ring_t received, to_send;

#if BOARD_LINE_USB

static int driver_start(void)
{
    usb_serial_jtag_driver_config_t config = {
        .tx_buffer_size = DRIVER_BYTES,
        .rx_buffer_size = DRIVER_BYTES,
    };

    return usb_serial_jtag_driver_install(&config) == ESP_OK ? DRIP_ERR_OK : DRIP_ERR_IO;
}

/* Waits a tick for the first byte. */
static int driver_read(uint8_t *data, uint32_t size)
{
    return usb_serial_jtag_read_bytes(data, size, 1);
}

static int driver_write(const uint8_t *data, uint32_t size)
{
    return usb_serial_jtag_write_bytes(data, size, 0);
}

int line_baud(void *context, uint32_t baud)
{
    (void)context;
    (void)baud;
    return DRIP_ERR_UNSUPPORTED;
}

#else

static int driver_start(void)
{
    const uart_config_t config = {
        .baud_rate = DRIP_LINK_BAUD_DEFAULT,
        .data_bits = UART_DATA_8_BITS,
        .parity = UART_PARITY_DISABLE,
        .stop_bits = UART_STOP_BITS_1,
        .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
        .source_clk = UART_SCLK_DEFAULT,
    };

    /* Without a console the bootloader takes UART0 off its pins. */
    if (uart_param_config(UART_NUM_0, &config) != ESP_OK ||
        uart_set_pin(UART_NUM_0, BOARD_UART_TX, BOARD_UART_RX, UART_PIN_NO_CHANGE,
                     UART_PIN_NO_CHANGE) != ESP_OK ||
        uart_driver_install(UART_NUM_0, DRIVER_BYTES, DRIVER_BYTES, 0, NULL, 0) != ESP_OK) {
        return DRIP_ERR_IO;
    }
    return DRIP_ERR_OK;
}

/* Waits a tick at most. */
static int driver_read(uint8_t *data, uint32_t size)
{
    return uart_read_bytes(UART_NUM_0, data, size, 1);
}

static int driver_write(const uint8_t *data, uint32_t size)
{
    size_t room = 0;

    uart_get_tx_buffer_free_size(UART_NUM_0, &room);
    if (size > room) {
        size = room;
    }
    return size != 0 ? uart_write_bytes(UART_NUM_0, data, size) : 0;
}

/* The ring is empty only once the driver has taken all, and the driver is done once all has left. */
int line_baud(void *context, uint32_t baud)
{
    (void)context;
    if (baud < BAUD_LEAST || baud > BOARD_UART_MAX_BAUD) {
        return DRIP_ERR_UNSUPPORTED;
    }
    if (!ring_empty(&to_send) || uart_wait_tx_done(UART_NUM_0, 0) != ESP_OK) {
        return DRIP_ERR_BUSY;
    }
    return uart_set_baudrate(UART_NUM_0, baud) == ESP_OK ? DRIP_ERR_OK : DRIP_ERR_IO;
}

#endif

static void send_piece(void)
{
    uint8_t piece[PIECE];
    uint32_t held = ring_look(&to_send, piece, PIECE);
    int sent = held != 0 ? driver_write(piece, held) : 0;

    if (sent > 0) {
        ring_drop(&to_send, (uint32_t)sent);
    }
}

/* A full ring loses bytes: the frame then fails its CRC and the host asks again. */
static void link_task(void *argument)
{
    uint8_t piece[PIECE];

    (void)argument;
    for (;;) {
        int got = driver_read(piece, PIECE);

        if (got > 0) {
            ring_put(&received, piece, (uint32_t)got);
            board_wake();
        }
        send_piece();
    }
}

int line_start(void)
{
    int result = driver_start();

    if (result == DRIP_ERR_OK && xTaskCreate(link_task, "link", TASK_STACK_OTHER, NULL,
                                             TASK_PRIORITY_LINK, NULL) != pdPASS) {
        result = DRIP_ERR_MEMORY;
    }
    return result;
}

int line_read(void *context, uint8_t *data, uint32_t size)
{
    uint32_t got = ring_look(&received, data, size);

    (void)context;
    ring_drop(&received, got);
    return (int)got;
}

int line_write(void *context, const uint8_t *data, uint32_t size)
{
    (void)context;
    return (int)ring_put(&to_send, data, size);
}
