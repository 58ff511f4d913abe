/* The registers of the STM32F405/407/446 that this port uses (ST RM0090 and RM0390). */
#ifndef STM32F4_H
#define STM32F4_H

#include <stdint.h>

#define REG32(address) (*(volatile uint32_t *)(address))

/* Offsets as in the reference manual; only what is used has a name. */
typedef struct {
    volatile uint32_t CR, PLLCFGR, CFGR, CIR, reserved0[8];
    volatile uint32_t AHB1ENR, AHB2ENR, AHB3ENR, reserved1, APB1ENR, APB2ENR, reserved2[10];
    volatile uint32_t BDCR, CSR;
} rcc_regs_t;

typedef struct {
    volatile uint32_t MODER, OTYPER, OSPEEDR, PUPDR, IDR, ODR, BSRR, LCKR, AFR[2];
} gpio_regs_t;

typedef struct {
    volatile uint32_t SR, DR, BRR, CR1, CR2, CR3;
} usart_regs_t;

typedef struct {
    volatile uint32_t CR1, CR2, SR, DR;
} spi_regs_t;

typedef struct {
    volatile uint32_t ACR, KEYR, OPTKEYR, SR, CR, OPTCR;
} flash_regs_t;

typedef struct {
    volatile uint32_t CR1, CR2, OAR1, OAR2, DR, SR1, SR2, CCR, TRISE, FLTR;
} i2c_regs_t;

typedef struct {
    volatile uint32_t KR, PR, RLR, SR;
} iwdg_regs_t;

typedef struct {
    volatile uint32_t CR1, reserved0[4], EGR, reserved1[3], CNT, PSC, ARR;
} timer_regs_t;

typedef struct {
    volatile uint32_t CTRL, LOAD, VAL;
} systick_regs_t;

typedef struct {
    volatile uint32_t CPUID, ICSR, VTOR, AIRCR, SCR, CCR, SHPR[3], SHCSR, CFSR, HFSR, DFSR, MMFAR,
        BFAR;
} scb_regs_t;

#define TIM2_REGS       ((timer_regs_t *)0x40000000U)
#define IWDG_REGS       ((iwdg_regs_t *)0x40003000U)
#define USART2_REG      ((usart_regs_t *)0x40004400U)
#define USART3_REG      ((usart_regs_t *)0x40004800U)
#define I2C1_REGS       ((i2c_regs_t *)0x40005400U)
#define PWR_CR          REG32(0x40007000U)
#define USART1_REG      ((usart_regs_t *)0x40011000U)
#define SPI1_REGS       ((spi_regs_t *)0x40013000U)
#define GPIO_REGS(port) ((gpio_regs_t *)(0x40020000U + 0x400U * (uint32_t)(port)))
#define RCC_REGS        ((rcc_regs_t *)0x40023800U)
#define FLASH_REGS      ((flash_regs_t *)0x40023C00U)
#define SYSTICK_REGS    ((systick_regs_t *)0xE000E010U)
#define SCB_REGS        ((scb_regs_t *)0xE000ED00U)
#define SCB_CPACR       REG32(0xE000ED88U)
#define NVIC_ISER(n)    REG32(0xE000E100U + 4U * (n))
#define NVIC_ISPR(n)    REG32(0xE000E200U + 4U * (n))
#define NVIC_IPR(irq)   (*(volatile uint8_t *)(0xE000E400U + (irq)))

enum {
    RCC_CR_HSEON = 1 << 16,
    RCC_CR_HSERDY = 1 << 17,
    RCC_CR_HSEBYP = 1 << 18,
    RCC_CR_PLLON = 1 << 24,
    RCC_CR_PLLRDY = 1 << 25,
    RCC_APB1_TIM2 = 1 << 0,
    RCC_APB1_USART2 = 1 << 17,
    RCC_APB1_USART3 = 1 << 18,
    RCC_APB1_I2C1 = 1 << 21,
    RCC_APB1_PWR = 1 << 28,
    RCC_APB2_USART1 = 1 << 4,
    RCC_APB2_SPI1 = 1 << 12,
    RCC_CSR_RMVF = 1 << 24,

    USART_SR_ORE = 1 << 3,
    USART_SR_RXNE = 1 << 5,
    USART_SR_TC = 1 << 6,
    USART_SR_TXE = 1 << 7,
    USART_CR1_RE = 1 << 2,
    USART_CR1_TE = 1 << 3,
    USART_CR1_RXNEIE = 1 << 5,
    USART_CR1_TXEIE = 1 << 7,
    USART_CR1_UE = 1 << 13,

    SPI_CR1_MSTR = 1 << 2,
    SPI_CR1_BR_SHIFT = 3,
    SPI_CR1_SPE = 1 << 6,
    SPI_CR1_SSI = 1 << 8,
    SPI_CR1_SSM = 1 << 9,
    SPI_SR_RXNE = 1 << 0,

    FLASH_ACR_PRFTEN = 1 << 8,
    FLASH_ACR_ICEN = 1 << 9,
    FLASH_ACR_DCEN = 1 << 10,
    FLASH_ACR_DCRST = 1 << 12,
    FLASH_SR_ERRORS = 0xF2,
    FLASH_SR_BSY = 1 << 16,
    FLASH_CR_PG = 1 << 0,
    FLASH_CR_SER = 1 << 1,
    FLASH_CR_SNB_SHIFT = 3,
    FLASH_CR_PSIZE_X32 = 2 << 8,
    FLASH_CR_STRT = 1 << 16,
    FLASH_OPTCR_LOCK = 1 << 0,
    FLASH_OPTCR_START = 1 << 1,
    FLASH_OPTCR_BOR_SHIFT = 2,

    SYSTICK_ENABLE = 1,
    SYSTICK_INTERRUPT = 2,
    SYSTICK_CPU_CLOCK = 4
};

#define FLASH_CR_LOCK (1U << 31)

#endif
