/* Start-up, faults, watchdog, identity, stack. */
#include "board.h"
#include "stm32f4.h"

#include <string.h>

enum {
    PAINT = 0x5AFE57AC,
    KEPT_MAGIC = 0x46415553,
    UNIQUE_ID = 0x1FFF7A10,
    WATCHDOG_UNLOCK = 0x5555,
    WATCHDOG_KICK = 0xAAAA,
    WATCHDOG_START = 0xCCCC,
    /* 8 s at the nominal 32 kHz, 5.4 s at the fastest that a chip may have: a flash sector takes 2 s to erase. */
    WATCHDOG_PRESCALE_256 = 6,
    WATCHDOG_TICKS = 1000,
    CFSR_BFARVALID = 1 << 15,
    CSR_BROWN_OUT = 1 << 25,
    CSR_POWER = 1 << 27,
    CSR_SOFTWARE = 1 << 28,
    CSR_IWDG = 1 << 29,
    CSR_WWDG = 1 << 30,
};
#define CSR_REASONS 0xFE000000U

extern uint32_t stack_bottom[], stack_top[], data_start[], data_end[], data_source[], bss_start[],
    bss_end[];

int main(void);
void reset_handler(void);
void fault_handler(void);
void fault_record(uint32_t *frame);
void clock_isr(void);

/* Survives a reset: start-up leaves it alone. Trusted only when `check` says so. */
static __attribute__((section(".noinit"))) struct {
    uint32_t pc;
    uint32_t lr;
    uint32_t cfsr; /* why: the processor's fault status */
    uint32_t address;
    uint32_t count;
    uint32_t reason; /* of the reset that comes next, enum DRIP_BOOT_* */
    uint32_t check;
} kept;

static uint32_t check_of_kept(void)
{
    return ~(kept.pc ^ kept.lr ^ kept.cfsr ^ kept.address ^ kept.count ^ kept.reason ^ KEPT_MAGIC);
}

/* ------------------------------------------------------------------ start-up */

__attribute__((noreturn)) void reset_handler(void)
{
    uint32_t *here = __builtin_frame_address(0);
    uint32_t *from = data_source;

    SCB_CPACR |= 0xFU << 20; /* the FPU on: the compiler may use its registers */
    for (uint32_t *to = stack_bottom; to < here - 16; to++) {
        *to = PAINT;
    }
    for (uint32_t *to = data_start; ADDRESS(to) < ADDRESS(data_end); to++) {
        *to = *from++;
    }
    for (uint32_t *to = bss_start; ADDRESS(to) < ADDRESS(bss_end); to++) {
        *to = 0;
    }
    SCB_REGS->VTOR = 0x08000000;
    main();
    system_reset(0);
}

static __attribute__((noreturn)) void restart(uint32_t reason)
{
    kept.reason = reason;
    kept.check = check_of_kept();
    __asm volatile("dsb" ::: "memory");
    SCB_REGS->AIRCR = 0x05FA0004U;
    __asm volatile("dsb" ::: "memory");
    for (;;) {
    }
}

/* Reads through a pointer with one 16-bit instruction, so that the fault handler can step over it. */
__attribute__((naked, noinline)) uint32_t system_peek(uint32_t address)
{
    (void)address;
    __asm volatile(".global system_peek_load\n"
                   "system_peek_load:\n"
                   "    ldr r0, [r0]\n"
                   "    bx lr\n");
}

/* The stack lies at the bottom of RAM: when it overflows, pushing faults, and this needs a stack that works. */
__attribute__((naked)) void fault_handler(void)
{
    __asm volatile("    mov r0, sp\n"
                   "    ldr r1, =stack_bottom + 64\n"
                   "    cmp sp, r1\n"
                   "    bhs 1f\n"
                   "    ldr r1, =stack_top\n"
                   "    mov sp, r1\n"
                   "1:  push {r4, lr}\n"
                   "    bl fault_record\n"
                   "    pop {r4, pc}\n");
}

__attribute__((used)) void fault_record(uint32_t *frame)
{
    extern uint8_t system_peek_load[];
    scb_regs_t *scb = SCB_REGS;
    int readable =
        ADDRESS(frame) >= ADDRESS(stack_bottom) && ADDRESS(frame + 8) <= ADDRESS(stack_top);

    if (readable && frame[6] == ((uint32_t)system_peek_load & ~1U)) {
        frame[0] = 0xFFFFFFFFU;
        frame[6] += 2;
        scb->CFSR = 0xFFFFFFFFU; /* ones clear */
        scb->HFSR = 0xFFFFFFFFU;
        return;
    }
    if (kept.check != check_of_kept()) {
        kept.count = 0;
    }
    kept.pc = readable ? frame[6] : 0;
    kept.lr = readable ? frame[5] : 0;
    kept.cfsr = scb->CFSR;
    kept.address = scb->CFSR & CFSR_BFARVALID ? scb->BFAR : 0;
    kept.count++;
    restart(DRIP_BOOT_FAULT);
}

typedef struct {
    uint32_t *stack;
    void (*handler[15 + 40])(void);
} vectors_t;

#define IRQ(n) (15 + (n))
#if BOARD_SENSOR_IMU
#define I2C_EVENT_HANDLER i2c_event_isr
#define I2C_ERROR_HANDLER i2c_error_isr
#else
#define I2C_EVENT_HANDLER fault_handler
#define I2C_ERROR_HANDLER fault_handler
#endif

__attribute__((section(".vectors"), used)) static const vectors_t vectors = {
    .stack = stack_top,
    .handler =
        {
            [0] = reset_handler,
            [1 ... 13] = fault_handler,
            [14] = clock_isr,
            [IRQ(0)... IRQ(30)] = fault_handler,
            [IRQ(31)] = I2C_EVENT_HANDLER,
            [IRQ(32)] = I2C_ERROR_HANDLER,
            [IRQ(33)... IRQ(35 + BOARD_UART)] = fault_handler,
            [IRQ(36 + BOARD_UART)] = uart_isr,
        },
};

/* ------------------------------------------------------------------ the rest */

void system_reset(void *context)
{
    (void)context;
    restart(DRIP_BOOT_REQUEST);
}

void system_watchdog(void *context)
{
    (void)context;
    IWDG_REGS->KR = WATCHDOG_KICK;
}

static void start_watchdog(void)
{
    iwdg_regs_t *dog = IWDG_REGS;

    dog->KR = WATCHDOG_START;
    dog->KR = WATCHDOG_UNLOCK;
    dog->PR = WATCHDOG_PRESCALE_256;
    dog->RLR = WATCHDOG_TICKS;
    dog->KR = WATCHDOG_KICK;
}

/* What the chip says goes before what the program said last: it may have been cut short. */
static uint8_t boot_reason(uint32_t flags, uint32_t said)
{
    if (flags & (CSR_IWDG | CSR_WWDG)) {
        return DRIP_BOOT_WATCHDOG;
    }
    if (flags & (CSR_POWER | CSR_BROWN_OUT)) {
        return DRIP_BOOT_POWER;
    }
    if (flags != 0 && (flags & CSR_SOFTWARE) == 0) {
        return DRIP_BOOT_REQUEST;
    }
    return (uint8_t)said;
}

uint8_t system_start(void)
{
    rcc_regs_t *rcc = RCC_REGS;
    uint8_t reason;

    start_watchdog();
    if (kept.check != check_of_kept()) {
        memset(&kept, 0, sizeof(kept));
    }
    reason = boot_reason(rcc->CSR & CSR_REASONS, kept.reason);
    rcc->CSR |= RCC_CSR_RMVF;
    if (reason == DRIP_BOOT_POWER) {
        memset(&kept, 0, sizeof(kept));
    }
    kept.reason = DRIP_BOOT_UNKNOWN;
    kept.check = check_of_kept();
    return reason;
}

void system_identity(uint8_t id[16])
{
    uint32_t words[4];
    int i;

    for (i = 0; i < 3; i++) {
        words[i] = system_peek((uint32_t)UNIQUE_ID + 4U * (uint32_t)i);
    }
    words[3] = 0x34464D53; /* "SMF4": the numbers of other makers' chips are as long */
    memcpy(id, words, 16);
}

void system_sleep(void)
{
    __asm volatile("wfi" ::: "memory");
}

void system_status(void *context, drip_status_t *status)
{
    const uint32_t *word = stack_bottom;

    (void)context;
    while (ADDRESS(word) < ADDRESS(stack_top) && *word == (uint32_t)PAINT) {
        word++;
    }
    status->stack_free = ADDRESS(word) - ADDRESS(stack_bottom);
    status->faults = kept.count;
    status->fault_pc = kept.pc;
    status->fault_lr = kept.lr;
    status->fault_cause = kept.cfsr;
    status->fault_address = kept.address;
}
