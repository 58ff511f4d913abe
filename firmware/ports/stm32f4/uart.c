/* The link: interrupts move bytes between the UART and two rings, and do nothing else.
 *
 * No interrupt is ever masked. One side of a ring writes `end`, the other `begin`; and of the bits of CR1 only
 * TXEIE changes: here it is set, in the interrupt cleared, and setting it once too often is harmless. */
#include "board.h"
#include "stm32f4.h"

#if BOARD_UART == 1
#define UART USART1_REG
enum { UART_IRQ = 37 };
#elif BOARD_UART == 2
#define UART USART2_REG
enum { UART_IRQ = 38 };
#elif BOARD_UART == 3
#define UART USART3_REG
enum { UART_IRQ = 39 };
#else
#error "BOARD_UART is 1, 2 or 3"
#endif

/* 921600 baud bring 92 bytes in a millisecond; the owner looks every 5 ms. */
enum { RX_BYTES = 2048, TX_BYTES = 1024, FUNCTION_USART = 7, PRIORITY_UART = 0x00 };

static struct {
    volatile uint32_t rx_begin, rx_end;
    volatile uint32_t tx_begin, tx_end;
    uint8_t rx[RX_BYTES];
    uint8_t tx[TX_BYTES];
} line;

/* Emulated UARTs may lack the transmit interrupt: the first byte is asked for by hand, which on the chip only
 * repeats what TXEIE does. */
static void pend(void)
{
    NVIC_ISPR(UART_IRQ / 32) = 1U << (UART_IRQ % 32);
}

/* A full ring loses the byte: the frame then fails its CRC and the host asks again. An overrun asks for this
 * handler, too, and may be seen alone: it stays until DR is read, whatever byte comes of that. */
void uart_isr(void)
{
    uint32_t status = UART->SR;

    if (status & (USART_SR_RXNE | USART_SR_ORE)) {
        uint8_t byte = (uint8_t)UART->DR; /* reading it clears the error flags, too */
        uint32_t end = line.rx_end;
        if (end - line.rx_begin != RX_BYTES) {
            line.rx[end % RX_BYTES] = byte;
            line.rx_end = end + 1;
        }
    }
    if (status & USART_SR_TXE) {
        uint32_t begin = line.tx_begin;
        if (begin != line.tx_end) {
            UART->DR = line.tx[begin % TX_BYTES];
            line.tx_begin = begin + 1;
            if (UART->SR & USART_SR_TXE) {
                pend(); /* the shift register was empty, too */
            }
        } else {
            UART->CR1 &= ~(uint32_t)USART_CR1_TXEIE;
        }
    }
}

int uart_read(void *context, uint8_t *data, uint32_t size)
{
    uint32_t begin = line.rx_begin;
    uint32_t count = line.rx_end - begin;
    uint32_t i;

    (void)context;
    if (count > size) {
        count = size;
    }
    for (i = 0; i < count; i++) {
        data[i] = line.rx[(begin + i) % RX_BYTES];
    }
    line.rx_begin = begin + count;
    return (int)count;
}

int uart_write(void *context, const uint8_t *data, uint32_t size)
{
    uint32_t end = line.tx_end;
    uint32_t room = TX_BYTES - (end - line.tx_begin);
    uint32_t i;

    (void)context;
    if (size > room) {
        size = room;
    }
    for (i = 0; i < size; i++) {
        line.tx[(end + i) % TX_BYTES] = data[i];
    }
    line.tx_end = end + size;
    if (size != 0) {
        UART->CR1 |= USART_CR1_TXEIE;
        pend();
    }
    return (int)size;
}

int uart_idle(void)
{
    return line.tx_begin == line.tx_end && (UART->SR & USART_SR_TC) != 0;
}

static uint32_t divider(uint32_t baud)
{
    uint32_t clock = BOARD_UART == 1 ? clock_apb2_hz() : clock_apb1_hz();

    return (clock + baud / 2) / baud;
}

/* 2 % off is as much as both ends may be apart together with the host's own error. */
static int is_near(uint32_t baud)
{
    uint32_t clock = BOARD_UART == 1 ? clock_apb2_hz() : clock_apb1_hz();
    uint32_t real = clock / divider(baud);
    uint32_t off = real > baud ? real - baud : baud - real;

    return divider(baud) >= 16 && off <= baud / 50;
}

int uart_baud(void *context, uint32_t baud)
{
    uint32_t most = clock_source() == CLOCK_HSE_PLL ? BOARD_UART_MAX_BAUD : BOARD_HSI_MAX_BAUD;

    (void)context;
    if (baud < 1200 || baud > most || !is_near(baud)) {
        return DRIP_ERR_UNSUPPORTED;
    }
    if (!uart_idle()) {
        return DRIP_ERR_BUSY;
    }
    UART->BRR = divider(baud);
    return DRIP_ERR_OK;
}

void uart_start(uint32_t baud)
{
    if (BOARD_UART == 1) {
        RCC_REGS->APB2ENR |= RCC_APB2_USART1;
    } else {
        RCC_REGS->APB1ENR |= BOARD_UART == 2 ? RCC_APB1_USART2 : RCC_APB1_USART3;
    }
    pin_alternate(BOARD_UART_TX, FUNCTION_USART, 0, 0);
    pin_alternate(BOARD_UART_RX, FUNCTION_USART, 1, 0);
    UART->BRR = divider(baud);
    UART->CR1 = USART_CR1_UE | USART_CR1_TE | USART_CR1_RE | USART_CR1_RXNEIE;
    NVIC_IPR(UART_IRQ) = PRIORITY_UART;
    NVIC_ISER(UART_IRQ / 32) = 1U << (UART_IRQ % 32);
}
