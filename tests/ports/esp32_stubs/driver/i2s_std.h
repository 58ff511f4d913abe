#pragma once
#include "esp_err.h"
typedef struct i2s_channel_obj_t *i2s_chan_handle_t;
enum { I2S_NUM_0, I2S_ROLE_MASTER = 0, I2S_GPIO_UNUSED = -1, I2S_STD_SLOT_LEFT = 1 };
enum { I2S_DATA_BIT_WIDTH_32BIT = 32, I2S_SLOT_MODE_MONO = 1 };
typedef struct {
    int id, role;
    uint32_t dma_desc_num, dma_frame_num;
} i2s_chan_config_t;
typedef struct {
    struct {
        uint32_t sample_rate_hz;
    } clk_cfg;
    struct {
        int data_bit_width, slot_mode, slot_mask;
    } slot_cfg;
    struct {
        int mclk, bclk, ws, dout, din;
    } gpio_cfg;
} i2s_std_config_t;
#define I2S_CHANNEL_DEFAULT_CONFIG(number, kind) {.id = number, .role = kind}
#define I2S_STD_CLK_DEFAULT_CONFIG(rate) {.sample_rate_hz = rate}
#define I2S_STD_PHILIPS_SLOT_DEFAULT_CONFIG(bits, mode) {.data_bit_width = bits, .slot_mode = mode}
esp_err_t i2s_new_channel(const i2s_chan_config_t *config, i2s_chan_handle_t *tx,
                          i2s_chan_handle_t *rx);
esp_err_t i2s_channel_init_std_mode(i2s_chan_handle_t channel, const i2s_std_config_t *config);
esp_err_t i2s_channel_enable(i2s_chan_handle_t channel);
esp_err_t i2s_channel_read(i2s_chan_handle_t channel, void *data, size_t size, size_t *got,
                           uint32_t timeout_ms);
