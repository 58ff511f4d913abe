#pragma once
#include "esp_err.h"
typedef enum { ESP_PARTITION_MMAP_DATA } esp_partition_mmap_memory_t;
typedef enum { ESP_PARTITION_TYPE_DATA = 1 } esp_partition_type_t;
typedef enum { ESP_PARTITION_SUBTYPE_ANY = 0xFF } esp_partition_subtype_t;
typedef uint32_t esp_partition_mmap_handle_t;
typedef struct {
    uint32_t size;
    uint32_t erase_size;
} esp_partition_t;
const esp_partition_t *esp_partition_find_first(esp_partition_type_t type,
                                                esp_partition_subtype_t subtype,
                                                const char *label);
esp_err_t esp_partition_write(const esp_partition_t *partition, size_t at, const void *data,
                              size_t size);
esp_err_t esp_partition_erase_range(const esp_partition_t *partition, size_t at, size_t size);
esp_err_t esp_partition_mmap(const esp_partition_t *partition, size_t at, size_t size,
                             esp_partition_mmap_memory_t memory, const void **address,
                             esp_partition_mmap_handle_t *handle);
