/* The firmware as a host process: the UART is a pty or a TCP port, the card and the flash are files. */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "native.h"

enum {
    SCRATCH_BYTES = 65536,
    DEFAULT_ARENA_BYTES = 1 << 20,
    DEFAULT_SLOT_BYTES = 1 << 20,
    TICK_MS = 5, /* while a group commit may become due */
    IDLE_MS = 100,
    STOP_MS = 3000, /* longer than the device takes */
};

static const char usage[] =
    "usage: drip-native [options]\n"
    "Runs the DRIP firmware as a process. Prints where to connect, one line, and runs until "
    "SIGTERM.\n"
    "\n"
    "  --link PATH    make PATH a symbolic link to the pty\n"
    "  --tcp PORT     serve 127.0.0.1:PORT instead of a pty (0: any free port)\n"
    "  --card IMAGE   SD card image (default: no card)\n"
    "  --flash FILE   model slots and their journal; made when missing (default: no slots)\n"
    "  --slot BYTES   size of a model slot in the flash file (default: 1048576)\n"
    "  --model BLOB   compiled model: goes into the flash when that holds none, or runs as it is\n"
    "  --arena BYTES  working memory for models (default: 1048576)\n"
    "  --id HEX       device id, 32 hex digits (default: made from the path of card or flash)\n"
    "  --help         print this text\n"
    "\n"
    "SIGKILL is its power switch: what was not durable is lost, as on a board.\n";

typedef struct {
    const char *link;
    const char *tcp;
    const char *card;
    const char *flash;
    const char *model;
    const char *id;
    uint32_t arena_bytes;
    uint32_t slot_bytes;
} options_t;

static volatile sig_atomic_t stopped;
static int reset_wanted;
static uint64_t booted_us;

void native_fail(const char *format, ...)
{
    va_list arguments;

    fputs("drip-native: error: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    native_line_close();
    exit(1);
}

/* ------------------------------------------------------------------ port */

static uint64_t host_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static uint64_t time_us(void *context)
{
    (void)context;
    return host_us() - booted_us;
}

static void reset(void *context)
{
    (void)context;
    reset_wanted = 1;
}

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c == '\0' ? NULL : strchr(digits, c >= 'A' && c <= 'F' ? c + 32 : c);

    return found == NULL ? -1 : (int)(found - digits);
}

static void parse_id(const char *text, uint8_t id[16])
{
    int i;

    for (i = 0; i < 32; i++) {
        int digit = hex_digit(text[i]);

        if (digit < 0) {
            break;
        }
        id[i / 2] = (uint8_t)(id[i / 2] << 4 | digit);
    }
    if (i != 32 || text[32] != '\0') {
        native_fail("--id wants 32 hex digits");
    }
}

/* FNV-1a, twice: the same files give the same device. */
static void derive_id(const char *path, uint8_t id[16])
{
    char real[PATH_MAX];
    const char *text = path == NULL || realpath(path, real) == NULL ? "drip-native" : real;
    int half;

    for (half = 0; half < 2; half++) {
        uint64_t hash = 14695981039346656037u + (uint64_t)half;
        const char *c;

        for (c = text; *c != '\0'; c++) {
            hash = (hash ^ (uint8_t)*c) * 1099511628211u;
        }
        memcpy(id + 8 * half, &hash, sizeof(hash));
    }
}

static void make_port(drip_port_t *port, const options_t *options)
{
    memset(port, 0, sizeof(*port));
    port->time_us = time_us;
    port->reset = reset;
    port->boot_reason = DRIP_BOOT_POWER;
    native_line_attach(port);
    native_card_attach(port);
    if (options->flash != NULL) {
        native_flash_attach(port);
    }
    memcpy(port->name, "native", sizeof("native"));
    if (options->id != NULL) {
        parse_id(options->id, port->device_id);
    } else {
        derive_id(options->card != NULL ? options->card : options->flash, port->device_id);
    }
}

/* ------------------------------------------------------------------ options */

static uint32_t parse_number(const char *name, const char *text, unsigned long most)
{
    char *end;
    unsigned long value;

    errno = 0;
    value = strtoul(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value > most) {
        native_fail("--%s wants a number up to %lu, not '%s'", name, most, text);
    }
    return (uint32_t)value;
}

static void parse_options(int count, char **arguments, options_t *options)
{
    static const struct option known[] = {
        {"link", required_argument, NULL, 'l'},  {"tcp", required_argument, NULL, 't'},
        {"card", required_argument, NULL, 'c'},  {"flash", required_argument, NULL, 'f'},
        {"model", required_argument, NULL, 'm'}, {"arena", required_argument, NULL, 'a'},
        {"slot", required_argument, NULL, 's'},  {"id", required_argument, NULL, 'i'},
        {"help", no_argument, NULL, 'h'},        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(count, arguments, "", known, NULL)) != -1) {
        switch (option) {
        case 'l':
            options->link = optarg;
            break;
        case 't':
            options->tcp = optarg;
            break;
        case 'c':
            options->card = optarg;
            break;
        case 'f':
            options->flash = optarg;
            break;
        case 'm':
            options->model = optarg;
            break;
        case 'a':
            options->arena_bytes = parse_number("arena", optarg, 1ul << 30);
            break;
        case 's':
            options->slot_bytes = parse_number("slot", optarg, 1ul << 30) / 16 * 16;
            break;
        case 'i':
            options->id = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            fputs("try: drip-native --help\n", stderr);
            exit(2);
        }
    }
    if (optind != count) {
        fprintf(stderr, "drip-native: unexpected argument '%s'; try: drip-native --help\n",
                arguments[optind]);
        exit(2);
    }
}

/* ------------------------------------------------------------------ running */

static void *lend(size_t bytes)
{
    void *memory = aligned_alloc(16, (bytes + 15) / 16 * 16);

    if (memory == NULL) {
        native_fail("cannot get %zu bytes of memory", bytes);
    }
    return memory;
}

static void boot(drip_device_t *device, const drip_port_t *port, const drip_device_memory_t *memory)
{
    reset_wanted = 0;
    booted_us = host_us();
    /* Nothing may depend on what RAM held before. */
    memset(device, 0xA5, sizeof(*device));
    memset(memory->arena, 0xA5, memory->arena_bytes);
    memset(memory->capture, 0xA5, memory->capture_bytes);
    memset(memory->scratch, 0xA5, memory->scratch_bytes);
    if (drip_device_init(device, port, memory) < 0) {
        native_fail("the device does not start");
    }
}

static void run(drip_device_t *device, drip_port_t *port, const drip_device_memory_t *memory)
{
    boot(device, port, memory);
    while (!stopped) {
        int more;

        native_line_move();
        more = drip_device_step(device);
        if (reset_wanted) {
            native_line_move();
            port->boot_reason = DRIP_BOOT_REQUEST;
            boot(device, port, memory);
        } else if (!more) {
            native_line_move();
            native_line_sleep(drip_log_pending(&device->log) != 0 ? TICK_MS : IDLE_MS);
        }
    }
}

/* Stopped on purpose, unlike by power loss: what was logged becomes durable, and what was learnt, too. */
static void stop(drip_device_t *device)
{
    uint64_t begun_us = host_us();

    drip_device_restart(device);
    while (!reset_wanted && host_us() - begun_us < STOP_MS * 1000u) {
        native_line_move(); /* an answer may be under way */
        drip_device_step(device);
    }
    native_line_move();
    native_line_close();
    native_card_close();
    native_flash_close();
}

static void load_model(const options_t *options, const drip_port_t *port,
                       drip_device_memory_t *memory)
{
    drip_nn_t nn;
    uint32_t bytes;
    void *blob = native_read_model(options->model, &bytes);
    int code = drip_nn_open(&nn, blob, bytes);

    if (code < 0) {
        native_fail("%s is not a model that this firmware can run (error %d)", options->model,
                    code);
    }
    if (nn.header.arena_bytes > memory->arena_bytes) {
        native_fail("%s needs an arena of %lu bytes; see --arena", options->model,
                    (unsigned long)nn.header.arena_bytes);
    }
    if (options->flash != NULL) {
        native_install(port, blob, bytes, memory->arena_bytes);
        free(blob);
    } else {
        memory->fixed_model = blob;
        memory->fixed_model_bytes = bytes;
    }
}

static void open_files(const options_t *options)
{
    if (options->card != NULL) {
        native_card_open(options->card);
    }
    if (options->flash != NULL) {
        native_flash_open(options->flash, options->slot_bytes);
    }
    if (options->tcp != NULL && options->link != NULL) {
        native_fail("--tcp and --link exclude each other");
    }
    if (options->tcp != NULL) {
        native_line_open_tcp(parse_number("tcp", options->tcp, 65535));
    } else {
        native_line_open_pty(options->link);
    }
}

int main(int count, char **arguments)
{
    static drip_device_t device;
    static drip_port_t port;
    options_t options = {.arena_bytes = DEFAULT_ARENA_BYTES, .slot_bytes = DEFAULT_SLOT_BYTES};
    struct sigaction action = {.sa_handler = on_signal};
    drip_device_memory_t memory = {0};

    parse_options(count, arguments, &options);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
    open_files(&options);
    make_port(&port, &options);
    memory.arena_bytes = options.arena_bytes;
    memory.arena = lend(memory.arena_bytes + 16);
    memory.capture_bytes = DRIP_MAX_FRAME_BYTES;
    memory.capture = lend(memory.capture_bytes);
    memory.scratch_bytes = SCRATCH_BYTES;
    memory.scratch = lend(memory.scratch_bytes);
    if (options.model != NULL) {
        load_model(&options, &port, &memory);
    }
    puts(native_line_address());
    fflush(stdout);
    run(&device, &port, &memory);
    stop(&device);
    return 0;
}
