/* QEMU plugin: what netduinoplus2 lacks of an STM32F405 to run the firmware, and faults to test it with.
 *
 * Laid over the machine: SPI1 with an SD card (sdcard.c); in stm32chip.c GPIO, ready bits of RCC and PWR,
 * the flash interface with erasing and programming, the unique id.
 *
 * Arguments, name=value:
 *   card=FILE     image; a multiple of 512 KiB is a high-capacity card. None: the socket is empty.
 *   cs=A4         the pin that selects the card
 *   flash=FILE    keeps what the firmware writes to flash, 1 MiB
 *   uid=HEX       unique id, 24 digits
 *   control=FILE  at least 64 bytes, see struct control: pulls the card, counts bytes
 *   busy=US       how long the card is busy after a block; a byte on the bus takes 1 us
 * Faults; numbers count from 1:
 *   cut=N         the power fails before SPI byte N: the process ends with status 99
 *   flashcut=N    ... in the middle of the N-th erase or programming of flash
 *   csr=N         after a reset, RCC_CSR tells this reason for it
 *   pull=N        the card is pulled before SPI byte N
 *   wrerr=N       block N that is written is refused
 *   bad=N         block N of the card cannot be written
 *   garble=N      block N that is written is answered as garbled */
#include "stm32sd.h"

#include "sdcard.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

EXPORT int qemu_plugin_version = PLUGIN_API;

enum { BLOCK = 512, HIGH_CAPACITY_STEP = 512 * 1024 };

struct options options = {.cs_port = 0, .cs_bit = 4, .id = "445249500000000000000001"};

static struct control no_control = {.present = 1};
struct control *control = &no_control;
static sdcard_t card = {.latency = 1, .serial = 1, .start_us = 2000, .read_us = 20, .busy_us = 300};

void fail(const char *what, const char *detail)
{
    fprintf(stderr, "stm32sd: %s: %s\n", what, detail);
    _exit(2);
}

void *map_file(const char *path, uint64_t bytes, uint64_t *size)
{
    struct stat about;
    int fd = open(path, O_RDWR | (bytes != 0 ? O_CREAT : 0), 0666);
    void *data;

    if (fd < 0 || fstat(fd, &about) < 0) {
        fail("cannot open", path);
    }
    if (bytes != 0 && (uint64_t)about.st_size < bytes && ftruncate(fd, (off_t)bytes) < 0) {
        fail("cannot enlarge", path);
    }
    *size = bytes != 0 ? bytes : (uint64_t)about.st_size;
    data = *size == 0 ? MAP_FAILED : mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        fail("cannot map", path);
    }
    close(fd);
    return data;
}

/* ------------------------------------------------------------------ card */

static void open_card(void)
{
    uint64_t size;

    if (options.card == NULL) {
        no_control.present = 0;
        control->present = 0;
        sdcard_remove(&card);
        return;
    }
    card.data = map_file(options.card, 0, &size);
    if (size % HIGH_CAPACITY_STEP != 0) {
        fail("the size of a card image is a multiple of 512 KiB, not that of", options.card);
    }
    card.blocks = (uint32_t)(size / BLOCK);
    card.kind = SDCARD_HIGH;
    sdcard_insert(&card);
    control->present = 1;
}

void select_card(int on)
{
    sdcard_select(&card, on);
}

static uint8_t exchange(uint8_t out)
{
    uint8_t in;

    if (options.cut != 0 && card.bytes + 1 == options.cut) {
        _exit(STATUS_CUT);
    }
    if (card.absent != !control->present) {
        if (control->present && options.card != NULL) {
            sdcard_insert(&card);
        } else {
            sdcard_remove(&card);
        }
    }
    card.now_us++;
    in = sdcard_exchange(&card, out);
    if (card.remove_at == card.bytes) {
        control->present = 0;
    }
    control->spi_bytes = card.bytes;
    control->blocks_written = card.blocks_written;
    control->blocks_read = card.blocks_read;
    return in;
}

/* ------------------------------------------------------------------ SPI1 */

enum { SPI_CR1 = 0x00, SPI_CR2 = 0x04, SPI_SR = 0x08, SPI_DR = 0x0C };
enum { CR1_SPE = 0x40, SR_RXNE = 0x01, SR_TXE = 0x02, SR_OVR = 0x40 };

static struct {
    uint32_t cr1, cr2, sr, received;
} spi = {.sr = SR_TXE};

static uint64_t spi_read(void *opaque, uint64_t offset, unsigned size)
{
    (void)opaque;
    (void)size;
    switch (offset) {
    case SPI_CR1:
        return spi.cr1;
    case SPI_CR2:
        return spi.cr2;
    case SPI_SR:
        return spi.sr;
    case SPI_DR:
        spi.sr &= ~(uint32_t)(SR_RXNE | SR_OVR);
        return spi.received;
    default:
        return 0;
    }
}

static void spi_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    (void)opaque;
    (void)size;
    if (offset == SPI_CR1) {
        spi.cr1 = (uint32_t)value;
    } else if (offset == SPI_CR2) {
        spi.cr2 = (uint32_t)value;
    } else if (offset == SPI_DR && (spi.cr1 & CR1_SPE) != 0) {
        uint8_t in = exchange((uint8_t)value);

        if ((spi.sr & SR_RXNE) != 0) {
            spi.sr |= SR_OVR; /* the byte before was not fetched */
        } else {
            spi.received = in;
            spi.sr |= SR_RXNE;
        }
    }
}

/* ------------------------------------------------------------------ the machine */

OPS(spi);

void *new_region(void)
{
    void *region = calloc(1, MEMORY_REGION_BYTES);

    if (region == NULL) {
        fail("no memory", "for a region");
    }
    return region;
}

void lay(uint64_t address, const memory_ops *ops, void *opaque, const char *name, uint64_t size)
{
    void *region = new_region();

    memory_region_init_io(region, NULL, ops, opaque, name, size);
    memory_region_add_subregion_overlap(get_system_memory(), address, region, PRIORITY);
}

static void on_reset(void *opaque)
{
    (void)opaque;
    spi.cr1 = spi.cr2 = 0;
    spi.sr = SR_TXE;
    reset_chip();
    control->resets++;
}

static void on_machine_done(notifier *self, void *data)
{
    (void)self;
    (void)data;
    lay(0x40013000, &spi_ops, NULL, "stm32sd.spi1", PAGE);
    lay_chip();
    qemu_register_reset(on_reset, NULL);
}

/* ------------------------------------------------------------------ arguments */

static const char *value_of(const char *argument, const char *name)
{
    size_t length = strlen(name);

    return strncmp(argument, name, length) == 0 && argument[length] == '=' ? argument + length + 1
                                                                           : NULL;
}

static int take_number(const char *argument, const char *name, uint64_t *number)
{
    const char *value = value_of(argument, name);
    char *end;

    if (value == NULL) {
        return 0;
    }
    *number = strtoull(value, &end, 0);
    return *value != '\0' && *end == '\0';
}

static int take_text(const char *argument, const char *name, const char **text)
{
    const char *value = value_of(argument, name);

    if (value != NULL) {
        *text = strdup(value);
    }
    return value != NULL;
}

static int take_pin(const char *argument)
{
    const char *value = value_of(argument, "cs");

    if (value == NULL || value[0] < 'A' || value[0] >= 'A' + PORTS) {
        return 0;
    }
    options.cs_port = value[0] - 'A';
    options.cs_bit = atoi(value + 1) & 15;
    return 1;
}

static int take_argument(const char *argument)
{
    static const struct {
        const char *name;
        uint32_t *to;
    } faults[] = {
        {"wrerr", &card.refuse_at},
        {"bad", &card.bad_block},
        {"garble", &card.garble_at},
        {"busy", &card.busy_us},
    };

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        uint64_t number;

        if (take_number(argument, faults[i].name, &number)) {
            *faults[i].to = (uint32_t)number;
            return 1;
        }
    }
    return take_text(argument, "card", &options.card) ||
           take_text(argument, "flash", &options.flash) ||
           take_text(argument, "control", &options.control) ||
           take_text(argument, "uid", &options.id) || take_number(argument, "cut", &options.cut) ||
           take_number(argument, "flashcut", &options.flash_cut) ||
           take_number(argument, "csr", &options.csr) ||
           take_number(argument, "pull", &card.remove_at) || take_pin(argument);
}

EXPORT int qemu_plugin_install(uint64_t id, const void *info, int count, char **arguments)
{
    static notifier machine_done = {.notify = on_machine_done};
    uint64_t size;

    (void)id;
    (void)info;
    for (int i = 0; i < count; i++) {
        if (!take_argument(arguments[i])) {
            fail("cannot use the argument", arguments[i]);
        }
    }
    if (options.control != NULL) {
        control = map_file(options.control, sizeof(*control), &size);
        memset(control, 0, sizeof(*control));
    }
    open_card();
    qemu_add_machine_init_done_notifier(&machine_done);
    return 0;
}
