/* Why the chip started, what a crash left, watchdog, identity. */
#include "board.h"
#include "esp_attr.h"
#include "esp_mac.h"
#include "esp_system.h"
#include "esp_task_wdt.h"
#include "esp_timer.h"

#include <string.h>

#if CONFIG_ESP_COREDUMP_ENABLE_TO_FLASH
#include "esp_core_dump.h"
#endif

enum { KEPT_MAGIC = 0x46415553, MAC_BYTES = 6 };

/* Survives every reset but that of the supply. */
static RTC_NOINIT_ATTR uint32_t kept_magic, kept_faults;

static struct {
    uint32_t pc;
    uint32_t lr;
    uint32_t cause;
    uint32_t address;
} crash;

static uint8_t reason_of(esp_reset_reason_t reset)
{
    switch (reset) {
    case ESP_RST_POWERON:
    case ESP_RST_BROWNOUT:
    case ESP_RST_DEEPSLEEP:
        return DRIP_BOOT_POWER;
    case ESP_RST_SW:
    case ESP_RST_EXT:
    case ESP_RST_USB:
    case ESP_RST_JTAG:
        return DRIP_BOOT_REQUEST;
    case ESP_RST_INT_WDT:
    case ESP_RST_TASK_WDT:
    case ESP_RST_WDT:
        return DRIP_BOOT_WATCHDOG;
    case ESP_RST_PANIC:
        return DRIP_BOOT_FAULT;
    default:
        return DRIP_BOOT_UNKNOWN;
    }
}

#if CONFIG_ESP_COREDUMP_ENABLE_TO_FLASH
static void read_crash(void)
{
    static esp_core_dump_summary_t dump;

    if (esp_core_dump_get_summary(&dump) != ESP_OK) {
        return;
    }
    crash.pc = dump.exc_pc;
#if CONFIG_IDF_TARGET_ARCH_RISCV
    crash.lr = dump.ex_info.ra;
    crash.cause = dump.ex_info.mcause;
    crash.address = dump.ex_info.mtval;
#else
    crash.lr = dump.ex_info.exc_a[0];
    crash.cause = dump.ex_info.exc_cause;
    crash.address = dump.ex_info.exc_vaddr;
#endif
}
#else
static void read_crash(void)
{
}
#endif

uint8_t system_start(void)
{
    uint8_t reason = reason_of(esp_reset_reason());

    if (kept_magic != KEPT_MAGIC || reason == DRIP_BOOT_POWER) {
        kept_magic = KEPT_MAGIC;
        kept_faults = 0;
    }
    if (reason == DRIP_BOOT_FAULT) {
        kept_faults++;
    }
    /* A dump stays in flash over years; only one of this power-on is told. */
    if (kept_faults != 0) {
        read_crash();
    }
    return reason;
}

uint64_t system_time_us(void *context)
{
    (void)context;
    return (uint64_t)esp_timer_get_time();
}

void system_reset(void *context)
{
    (void)context;
    esp_restart();
}

void system_watchdog(void *context)
{
    (void)context;
    esp_task_wdt_reset();
}

void system_status(void *context, drip_status_t *status)
{
    (void)context;
    status->stack_free = uxTaskGetStackHighWaterMark(NULL);
    status->faults = kept_faults;
    status->fault_pc = crash.pc;
    status->fault_lr = crash.lr;
    status->fault_cause = crash.cause;
    status->fault_address = crash.address;
}

void system_identity(uint8_t id[16])
{
    static const char kind[10] = "ESP MAC";

    memset(id, 0, 16);
    esp_efuse_mac_get_default(id);
    memcpy(id + MAC_BYTES, kind, sizeof(kind));
}
