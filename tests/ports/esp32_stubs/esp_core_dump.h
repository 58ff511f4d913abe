#pragma once
#include "esp_err.h"
#include "sdkconfig.h"
typedef struct {
#if CONFIG_IDF_TARGET_ARCH_RISCV
    uint32_t mcause, mtval, ra;
#else
    uint32_t exc_cause, exc_vaddr, exc_a[16];
#endif
} esp_core_dump_summary_extra_info_t;
typedef struct {
    uint32_t exc_pc;
    esp_core_dump_summary_extra_info_t ex_info;
} esp_core_dump_summary_t;
esp_err_t esp_core_dump_get_summary(esp_core_dump_summary_t *summary);
