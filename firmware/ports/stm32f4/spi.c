/* SPI1 for the SD card: a tight loop. No DMA: it would have to be tried on hardware first. */
#include "board.h"
#include "stm32f4.h"

enum { FUNCTION_SPI1 = 5, SPINS_BYTE = 20000 };

void spi_clock(void *context, uint32_t hz)
{
    uint32_t rate = clock_apb2_hz() / 2;
    uint32_t divider = 0;

    (void)context;
    hz = hz < BOARD_SPI_MAX_HZ ? hz : BOARD_SPI_MAX_HZ;
    while (rate > hz && divider < 7) {
        rate /= 2;
        divider++;
    }
    SPI1_REGS->CR1 = SPI_CR1_MSTR | SPI_CR1_SSM | SPI_CR1_SSI | divider << SPI_CR1_BR_SHIFT;
    SPI1_REGS->CR1 |= SPI_CR1_SPE;
}

void spi_select(void *context, int on)
{
    (void)context;
    pin_set(BOARD_SD_CS, !on);
}

static uint8_t exchange_byte(spi_regs_t *spi, uint8_t out)
{
    spi->DR = out;
    /* An SPI without clock never answers: then the line reads as without a card. */
    return clock_wait(&spi->SR, SPI_SR_RXNE, SPI_SR_RXNE, SPINS_BYTE) ? (uint8_t)spi->DR : 0xFF;
}

void spi_exchange(void *context, const uint8_t *out, uint8_t *in, uint32_t size)
{
    spi_regs_t *spi = SPI1_REGS;
    uint32_t i;

    (void)context;
    for (i = 0; i < size; i++) {
        uint8_t byte = exchange_byte(spi, out != 0 ? out[i] : 0xFF);
        if (in != 0) {
            in[i] = byte;
        }
    }
}

void spi_start(void)
{
#ifdef BOARD_KEEP_HIGH
    pin_output(BOARD_KEEP_HIGH, 1);
#endif
    RCC_REGS->APB2ENR |= RCC_APB2_SPI1;
    pin_output(BOARD_SD_CS, 1);
    pin_alternate(BOARD_SPI_SCK, FUNCTION_SPI1, 0, 0);
    pin_alternate(BOARD_SPI_MISO, FUNCTION_SPI1, 1, 0); /* an empty socket reads 0xFF */
    pin_alternate(BOARD_SPI_MOSI, FUNCTION_SPI1, 1, 0);
    spi_clock(0, 400000);
}
