/* What the plugin uses of QEMU: a little of its plugin API, for which Debian ships no header, and functions
 * that Debian's binaries export. The latter have no stability promise: the launcher refuses versions
 * that were not tried. */
#ifndef QEMU_INTERNALS_H
#define QEMU_INTERNALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

/* ---- plugin API */

#ifndef PLUGIN_API
#define PLUGIN_API 1 /* QEMU 7.2; 10.0 wants 2 to 4 */
#endif

/* ---- memory */

enum { DEVICE_LITTLE_ENDIAN = 2 };

typedef struct {
    uint64_t (*read)(void *opaque, uint64_t offset, unsigned size);
    void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned size);
    void *read_with_attrs, *write_with_attrs;
    int endianness;
    struct {
        unsigned min_access_size, max_access_size;
        bool unaligned;
        void *accepts;
    } valid;
    struct {
        unsigned min_access_size, max_access_size;
        bool unaligned;
    } impl;
} memory_ops;

enum { MEMORY_REGION_BYTES = 4096 /* more than the opaque struct MemoryRegion needs */ };

void *get_system_memory(void);
void memory_region_init_io(void *region, void *owner, const memory_ops *ops, void *opaque,
                           const char *name, uint64_t size);
void memory_region_init_alias(void *region, void *owner, const char *name, void *original,
                              uint64_t offset, uint64_t size);
/* Reads like memory, calls `ops` when it is written. */
void memory_region_init_rom_device_nomigrate(void *region, void *owner, const memory_ops *ops,
                                             void *opaque, const char *name, uint64_t size,
                                             void **error);
void *memory_region_get_ram_ptr(void *region);
void memory_region_add_subregion_overlap(void *system, uint64_t address, void *region,
                                         int priority);

/* ---- the machine */

typedef struct notifier {
    void (*notify)(struct notifier *self, void *data);
    void *next;
    void **previous;
} notifier;

void qemu_add_machine_init_done_notifier(notifier *self);
void qemu_register_reset(void (*call)(void *opaque), void *opaque);

#endif
