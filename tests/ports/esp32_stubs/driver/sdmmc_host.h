#pragma once
#include "sdmmc_cmd.h"
typedef struct {
    int clk, cmd, d0, d1, d2, d3;
    uint8_t width;
    uint32_t flags;
} sdmmc_slot_config_t;
#define SDMMC_SLOT_FLAG_INTERNAL_PULLUP 1
#define SDMMC_HOST_DEFAULT() {.slot = 1, .do_transaction = sdmmc_host_do_transaction}
#define SDMMC_SLOT_CONFIG_DEFAULT() {.width = 0}
esp_err_t sdmmc_host_init(void);
esp_err_t sdmmc_host_do_transaction(int slot, sdmmc_command_t *command);
esp_err_t sdmmc_host_init_slot(int slot, const sdmmc_slot_config_t *config);
