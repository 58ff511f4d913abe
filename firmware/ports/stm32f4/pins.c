#include "board.h"
#include "stm32f4.h"

enum { MODE_OUTPUT = 1, MODE_ALTERNATE = 2, SPEED_HIGH = 2 };

static gpio_regs_t *open_port(int pin)
{
    RCC_REGS->AHB1ENR |= 1U << (pin / 16);
    (void)RCC_REGS->AHB1ENR; /* the clock needs two cycles before the first access */
    return GPIO_REGS(pin / 16);
}

static void set_two_bits(volatile uint32_t *reg, int bit, uint32_t value)
{
    *reg = (*reg & ~(3U << (2 * bit))) | value << (2 * bit);
}

void pin_set(int pin, int high)
{
    GPIO_REGS(pin / 16)->BSRR = 1U << (pin % 16 + (high ? 0 : 16));
}

void pin_output(int pin, int high)
{
    gpio_regs_t *gpio = open_port(pin);

    pin_set(pin, high);
    set_two_bits(&gpio->OSPEEDR, pin % 16, SPEED_HIGH);
    set_two_bits(&gpio->MODER, pin % 16, MODE_OUTPUT);
}

void pin_alternate(int pin, int function, int pull_up, int open_drain)
{
    gpio_regs_t *gpio = open_port(pin);
    volatile uint32_t *select = &gpio->AFR[pin % 16 / 8];
    int shift = 4 * (pin % 8);

    *select = (*select & ~(15U << shift)) | (uint32_t)function << shift;
    gpio->OTYPER = (gpio->OTYPER & ~(1U << (pin % 16))) | (uint32_t)open_drain << (pin % 16);
    set_two_bits(&gpio->PUPDR, pin % 16, pull_up ? 1 : 0);
    set_two_bits(&gpio->OSPEEDR, pin % 16, SPEED_HIGH);
    set_two_bits(&gpio->MODER, pin % 16, MODE_ALTERNATE);
}
