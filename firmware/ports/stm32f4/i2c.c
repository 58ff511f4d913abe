/* I2C1 for a sensor: interrupts move the bytes of one transfer at a time (RM0090, chapter 27). */
#include "board.h"

#if BOARD_SENSOR_IMU

#include "stm32f4.h"

enum {
    FUNCTION_I2C1 = 4,
    EVENT_IRQ = 31,
    ERROR_IRQ = 32,
    PRIORITY_I2C = 0x80, /* after the UART, before the millisecond */
    TIMEOUT_MS = 5,      /* 16 bytes at 100 kHz take 2 ms */
    READ = 1,
    SPINS_STOP = 5000, /* 0.1 ms at least: a byte that is still coming, and the stop, take 25 us */
};
enum {
    CR1_PE = 1 << 0,
    CR1_START = 1 << 8,
    CR1_STOP = 1 << 9,
    CR1_ACK = 1 << 10,
    CR1_SWRST = 1 << 15,
    CR2_ITERREN = 1 << 8,
    CR2_ITEVTEN = 1 << 9,
    CR2_ITBUFEN = 1 << 10,
    CCR_FAST = 1 << 15,
    SR1_SB = 1 << 0,
    SR1_ADDR = 1 << 1,
    SR1_BTF = 1 << 2,
    SR1_RXNE = 1 << 6,
    SR1_TXE = 1 << 7,
    SR1_AF = 1 << 10,
    SR1_ERRORS = 0xDF00,
};
enum { IDLE, REGISTER, VALUE, LAST, TURN, DATA, DONE, FAILED };

static struct {
    volatile uint8_t stage;
    uint8_t address;
    uint8_t reg;
    uint8_t value;
    uint8_t reads;
    uint8_t *data;
    uint32_t size;
    uint32_t at;
    uint32_t since_ms;
} move;

static void stop(uint8_t stage)
{
    I2C1_REGS->CR1 |= CR1_STOP;
    I2C1_REGS->CR2 &= ~(uint32_t)(CR2_ITEVTEN | CR2_ITBUFEN | CR2_ITERREN);
    move.stage = stage;
}

/* The address was acknowledged, or the direction has turned. */
static void addressed(void)
{
    i2c_regs_t *i2c = I2C1_REGS;

    if (move.stage == TURN) {
        move.stage = DATA;
        i2c->CR2 |= CR2_ITBUFEN;
        if (move.size == 1) {
            i2c->CR1 &= ~(uint32_t)CR1_ACK; /* before ADDR is cleared: the first byte is the last */
        }
        (void)i2c->SR2;
        if (move.size == 1) {
            i2c->CR1 |= CR1_STOP;
        }
        return;
    }
    (void)i2c->SR2;
    i2c->DR = move.reg;
    move.stage = move.reads ? LAST : VALUE;
}

static void received(void)
{
    i2c_regs_t *i2c = I2C1_REGS;

    move.data[move.at++] = (uint8_t)i2c->DR;
    if (move.at + 1 == move.size) {
        i2c->CR1 = (i2c->CR1 & ~(uint32_t)CR1_ACK) | CR1_STOP; /* the next byte is the last */
    }
    if (move.at == move.size) {
        i2c->CR2 &= ~(uint32_t)(CR2_ITEVTEN | CR2_ITBUFEN | CR2_ITERREN);
        move.stage = DONE;
    }
}

static void sent(void)
{
    i2c_regs_t *i2c = I2C1_REGS;

    if (move.stage == VALUE) {
        i2c->DR = move.value;
        move.stage = LAST;
        i2c->CR2 &= ~(uint32_t)CR2_ITBUFEN; /* now only when all has left */
    } else if (move.stage == LAST && move.reads) {
        move.stage = TURN;
        i2c->CR2 &= ~(uint32_t)CR2_ITBUFEN; /* TXE stays until the line has turned */
        i2c->CR1 |= CR1_START;
    }
}

void i2c_event_isr(void)
{
    i2c_regs_t *i2c = I2C1_REGS;
    uint32_t status = i2c->SR1;

    if (status & SR1_SB) {
        i2c->DR = (uint32_t)move.address << 1 | (move.stage == TURN ? READ : 0);
    } else if (status & SR1_ADDR) {
        addressed();
    } else if (move.stage == DATA && (status & SR1_RXNE) != 0) {
        received();
    } else if (move.stage == LAST && !move.reads && (status & SR1_BTF) != 0) {
        stop(DONE);
    } else if (move.stage == TURN) {
        (void)i2c->DR; /* takes BTF away: on a bus that hangs it would call for ever */
    } else if (status & SR1_TXE) {
        sent();
    }
}

static void set_up(void)
{
    i2c_regs_t *i2c = I2C1_REGS;
    uint32_t clock = clock_apb1_hz();
    uint32_t mhz = clock / 1000000;

    i2c->CR1 = CR1_SWRST;
    i2c->CR1 = 0;
    i2c->CR2 = mhz;
    i2c->CCR = CCR_FAST | (clock / (3 * BOARD_I2C_HZ) + 1);
    i2c->TRISE = mhz * 300 / 1000 + 1;
    i2c->CR1 = CR1_PE;
}

void i2c_error_isr(void)
{
    i2c_regs_t *i2c = I2C1_REGS;

    if ((i2c->SR1 & SR1_ERRORS) == SR1_AF && (i2c->CR1 & (CR1_START | CR1_STOP)) == 0) {
        i2c->SR1 &= ~(uint32_t)SR1_ERRORS;
        stop(FAILED);
        return;
    }
    /* Whose the bus is now is not known; CR1 takes no stop while it still has something to do. */
    set_up();
    move.stage = FAILED;
}

static void connect(void)
{
    pin_alternate(BOARD_I2C_SCL, FUNCTION_I2C1, 1, 1);
    pin_alternate(BOARD_I2C_SDA, FUNCTION_I2C1, 1, 1);
}

/* A sensor that lost the clock in the middle of a byte holds the data line: nine clocks set it free. The
 * pins are open drain before, for a sensor may hold the clock, too. */
static void free_bus(void)
{
    uint32_t started;
    int i;

    connect();
    pin_output(BOARD_I2C_SCL, 1);
    for (i = 0; i < 18; i++) {
        pin_set(BOARD_I2C_SCL, i & 1);
        started = (uint32_t)clock_micros();
        while ((uint32_t)clock_micros() - started < 5) {
        }
    }
    connect();
}

void i2c_start(void)
{
    RCC_REGS->APB1ENR |= RCC_APB1_I2C1;
    free_bus();
    set_up();
    NVIC_IPR(EVENT_IRQ) = PRIORITY_I2C;
    NVIC_IPR(ERROR_IRQ) = PRIORITY_I2C;
    NVIC_ISER(EVENT_IRQ / 32) = 1U << (EVENT_IRQ % 32);
    NVIC_ISER(ERROR_IRQ / 32) = 1U << (ERROR_IRQ % 32);
}

static int begin(uint8_t address, uint8_t reg)
{
    i2c_regs_t *i2c = I2C1_REGS;

    /* The stop of the transfer before takes a few bits. Longer: the bus hangs. */
    if (!clock_wait(&i2c->CR1, CR1_STOP, 0, SPINS_STOP)) {
        free_bus();
        set_up();
    }
    (void)i2c->DR; /* a byte too many, when the processor came late */
    move.address = address;
    move.reg = reg;
    move.at = 0;
    move.since_ms = clock_millis();
    move.stage = REGISTER;
    i2c->CR2 |= CR2_ITEVTEN | CR2_ITBUFEN | CR2_ITERREN;
    i2c->CR1 |= CR1_ACK | CR1_START;
    return DRIP_ERR_OK;
}

int i2c_read(void *context, uint8_t address, uint8_t reg, uint8_t *data, uint32_t size)
{
    (void)context;
    move.reads = 1;
    move.data = data;
    move.size = size;
    return begin(address, reg);
}

int i2c_write(void *context, uint8_t address, uint8_t reg, uint8_t value)
{
    (void)context;
    move.reads = 0;
    move.value = value;
    return begin(address, reg);
}

int i2c_poll(void *context)
{
    (void)context;
    if (move.stage == DONE || move.stage == IDLE) {
        return DRIP_ERR_OK;
    }
    if (move.stage == FAILED) {
        return DRIP_ERR_IO;
    }
    if (clock_millis() - move.since_ms < TIMEOUT_MS) {
        return DRIP_ERR_BUSY;
    }
    I2C1_REGS->CR2 &= ~(uint32_t)(CR2_ITEVTEN | CR2_ITBUFEN | CR2_ITERREN);
    free_bus();
    set_up();
    move.stage = FAILED;
    return DRIP_ERR_TIMEOUT;
}

#endif
