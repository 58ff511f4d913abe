#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "native.h"

enum { AREAS = 4, JOURNAL_BYTES = 4096, ERASED = 0xFF };

static struct {
    int fd;
    uint8_t *map;
    size_t bytes;
    uint32_t slot_bytes;
    int result;
} flash = {.fd = -1};

static uint32_t area_bytes(int area)
{
    return area < 2 ? flash.slot_bytes : JOURNAL_BYTES;
}

static size_t area_offset(int area)
{
    return area < 2 ? (size_t)area * flash.slot_bytes
                    : 2 * (size_t)flash.slot_bytes + (size_t)(area - 2) * JOURNAL_BYTES;
}

static int is_safe(void)
{
    return msync(flash.map, flash.bytes, MS_SYNC) == 0 && fsync(flash.fd) == 0;
}

void native_flash_open(const char *path, uint32_t slot_bytes)
{
    struct stat about;
    int is_new;

    flash.fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (flash.fd < 0 || fstat(flash.fd, &about) < 0) {
        native_fail("cannot open the flash file %s: %s", path, strerror(errno));
    }
    if (flock(flash.fd, LOCK_EX | LOCK_NB) < 0) {
        native_fail("the flash file %s is in use by another process", path);
    }
    flash.slot_bytes = slot_bytes;
    flash.bytes = area_offset(AREAS);
    is_new = about.st_size == 0;
    if (!is_new && (size_t)about.st_size != flash.bytes) {
        native_fail("%s has %lld bytes, not %zu: no flash file, or made with another --slot", path,
                    (long long)about.st_size, flash.bytes);
    }
    if (is_new && ftruncate(flash.fd, (off_t)flash.bytes) < 0) {
        native_fail("cannot make the flash file %s: %s", path, strerror(errno));
    }
    flash.map = mmap(NULL, flash.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, flash.fd, 0);
    if (flash.map == MAP_FAILED) {
        native_fail("cannot map the flash file %s: %s", path, strerror(errno));
    }
    if (is_new) {
        memset(flash.map, ERASED, flash.bytes);
        if (!is_safe()) {
            native_fail("cannot write the flash file %s: %s", path, strerror(errno));
        }
    }
}

void native_flash_close(void)
{
    if (flash.fd >= 0) {
        is_safe();
        munmap(flash.map, flash.bytes);
        close(flash.fd);
        flash.fd = -1;
    }
}

static const uint8_t *flash_map(void *context, int area)
{
    (void)context;
    return flash.fd < 0 || area < 0 || area >= AREAS ? NULL : flash.map + area_offset(area);
}

static int flash_erase(void *context, int area)
{
    if (flash_map(context, area) == NULL) {
        return DRIP_ERR_ARGUMENT;
    }
    memset(flash.map + area_offset(area), ERASED, area_bytes(area));
    flash.result = is_safe() ? DRIP_ERR_OK : DRIP_ERR_IO;
    return DRIP_ERR_OK;
}

static int flash_write(void *context, int area, uint32_t offset, const uint8_t *data, uint32_t size)
{
    uint8_t *to;
    uint32_t i;

    if (flash_map(context, area) == NULL || offset % 16 != 0 || size % 16 != 0 ||
        offset > area_bytes(area) || size > area_bytes(area) - offset) {
        return DRIP_ERR_ARGUMENT;
    }
    to = flash.map + area_offset(area) + offset;
    for (i = 0; i < size; i++) {
        to[i] &= data[i];
    }
    flash.result = is_safe() ? DRIP_ERR_OK : DRIP_ERR_IO;
    return DRIP_ERR_OK;
}

static int flash_poll(void *context)
{
    (void)context;
    return flash.result;
}

void native_flash_attach(drip_port_t *port)
{
    port->flash_map = flash_map;
    port->slot_bytes = flash.slot_bytes;
    port->journal_bytes = JOURNAL_BYTES;
    port->flash_erase = flash_erase;
    port->flash_write = flash_write;
    port->flash_poll = flash_poll;
}
