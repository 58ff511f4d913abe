#pragma once
#include "esp_err.h"
typedef struct {
    int capacity;
    int sector_size;
} sdmmc_csd_t;
typedef uint32_t sdmmc_response_t[4];
typedef struct {
    uint32_t opcode;
    sdmmc_response_t response;
    esp_err_t error;
} sdmmc_command_t;
typedef struct {
    uint32_t flags;
    int slot;
    int max_freq_khz;
    esp_err_t (*do_transaction)(int slot, sdmmc_command_t *command);
} sdmmc_host_t;
typedef struct {
    sdmmc_host_t host;
    sdmmc_csd_t csd;
} sdmmc_card_t;
esp_err_t sdmmc_card_init(const sdmmc_host_t *host, sdmmc_card_t *card);
esp_err_t sdmmc_get_status(sdmmc_card_t *card);
esp_err_t sdmmc_write_sectors(sdmmc_card_t *card, const void *data, size_t start, size_t count);
esp_err_t sdmmc_read_sectors(sdmmc_card_t *card, void *data, size_t start, size_t count);
