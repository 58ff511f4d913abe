#pragma once
#include "driver/spi_common.h"
#include "sdmmc_cmd.h"
typedef int sdspi_dev_handle_t;
typedef struct {
    spi_host_device_t host_id;
    int gpio_cs;
} sdspi_device_config_t;
#define SDSPI_HOST_DEFAULT() {.slot = 1, .do_transaction = sdspi_host_do_transaction}
#define SDSPI_DEVICE_CONFIG_DEFAULT() {.host_id = SPI2_HOST}
esp_err_t sdspi_host_init(void);
esp_err_t sdspi_host_do_transaction(sdspi_dev_handle_t handle, sdmmc_command_t *command);
esp_err_t sdspi_host_init_device(const sdspi_device_config_t *config, sdspi_dev_handle_t *handle);
