/* QEMU plugin: estimated Cortex-M4 cycles and exact instructions of chosen functions.
 *
 * Arguments: fn=START:END, hexadecimal addresses, any number of them; out=FILE.
 * At exit FILE gets one line, "instructions N cycles N".
 *
 * Costs follow the instruction timing table of Arm's Cortex-M4 Technical Reference Manual (DDI 0439),
 * with zero-wait memory: most instructions take 1; a load 2, or 1 right behind another single load or
 * store; LDRD and STRD 3; LDM, STM, PUSH and POP 1 + registers; a branch 3 (taken, two to refill the
 * pipeline; not-taken ones are overestimated); divisions 7 of 2 to 12. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is used of QEMU's plugin API, version 1; Debian ships no header for it. */
typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { PLUGIN_API = 1, INLINE_ADD = 0 };
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
                                           void (*call)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int op,
                                                void *counter, uint64_t add);
void qemu_plugin_register_atexit_cb(plugin_id id, void (*call)(plugin_id, void *), void *data);

__attribute__((visibility("default"))) int qemu_plugin_version = PLUGIN_API;

enum { MAX_RANGES = 256 };

static struct {
    uint64_t start;
    uint64_t end;
} ranges[MAX_RANGES];
static int range_count;
static uint64_t instructions, cycles;
static const char *out_path;

static int is_counted(uint64_t address)
{
    for (int i = 0; i < range_count; i++) {
        if (address >= ranges[i].start && address < ranges[i].end) {
            return 1;
        }
    }
    return 0;
}

/* Registers in a list. */
static unsigned bits(unsigned list)
{
    return (unsigned)__builtin_popcount(list);
}

enum { COST_BRANCH = 3, COST_DUAL = 3, COST_DIVIDE = 7 };

/* Cycles of a 16-bit instruction; sets *memory for a single load or store. */
static unsigned cost_narrow(unsigned op, int after_memory, int *memory)
{
    unsigned load = after_memory ? 1 : 2;

    if ((op & 0xF800) == 0x4800) { /* LDR literal */
        *memory = 1;
        return load;
    }
    if ((op & 0xF000) == 0x5000) { /* load and store, register offset */
        *memory = 1;
        return (op & 0x0E00) >= 0x0600 ? load : 1;
    }
    if ((op & 0xE000) == 0x6000 || (op & 0xE000) == 0x8000) { /* immediate offset, SP-relative */
        *memory = 1;
        return (op & 0x0800) != 0 ? load : 1;
    }
    if ((op & 0xFE00) == 0xB400 || (op & 0xF000) == 0xC000) { /* PUSH, LDM, STM */
        return 1 + bits(op & ((op & 0xF000) == 0xC000 ? 0xFFu : 0x1FFu));
    }
    if ((op & 0xFE00) == 0xBC00) { /* POP */
        return 1 + bits(op & 0x1FF) + ((op & 0x100) != 0 ? COST_BRANCH - 1 : 0);
    }
    if (((op & 0xF000) == 0xD000 && (op & 0x0E00) != 0x0E00) || (op & 0xF800) == 0xE000 ||
        (op & 0xFF00) == 0x4700 || (op & 0xF500) == 0xB100) { /* B, BX, BLX, CBZ, CBNZ */
        return COST_BRANCH;
    }
    return 1;
}

static unsigned cost_wide(unsigned first, unsigned second, int after_memory, int *memory)
{
    if ((first & 0xFE40) == 0xE840) { /* LDRD, STRD, table branches */
        return COST_DUAL;
    }
    if ((first & 0xFE40) == 0xE800) { /* LDM, STM */
        return 1 + bits(second) + ((second & 0x8000) != 0 ? COST_BRANCH - 1 : 0);
    }
    if ((first & 0xFE00) == 0xF800) { /* single load and store */
        *memory = 1;
        return (first & 0x0010) != 0 && !after_memory ? 2 : 1;
    }
    if ((first & 0xF800) == 0xF000 && (second & 0x8000) != 0) {
        /* Bcc, B, BL; the hints and barriers that share the encoding are not worth telling apart. */
        return COST_BRANCH;
    }
    if ((first & 0xFFD0) == 0xFB90) { /* SDIV, UDIV */
        return COST_DIVIDE;
    }
    return 1;
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *tb)
{
    int after_memory = 0;

    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint16_t word[2] = {0, 0};
        size_t size = qemu_plugin_insn_size(insn);
        int memory = 0;
        unsigned cost;

        memcpy(word, qemu_plugin_insn_data(insn), size < 4 ? size : 4);
        cost = size == 2 ? cost_narrow(word[0], after_memory, &memory)
                         : cost_wide(word[0], word[1], after_memory, &memory);
        after_memory = memory;
        if (is_counted(qemu_plugin_insn_vaddr(insn))) {
            qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD, &instructions, 1);
            qemu_plugin_register_vcpu_insn_exec_inline(insn, INLINE_ADD, &cycles, cost);
        }
    }
}

static void on_exit_write(plugin_id id, void *data)
{
    FILE *out = fopen(out_path, "w");

    (void)id;
    (void)data;
    if (out == NULL ||
        fprintf(out, "instructions %" PRIu64 " cycles %" PRIu64 "\n", instructions, cycles) < 0 ||
        fclose(out) != 0) {
        fprintf(stderr, "cycles: cannot write %s\n", out_path);
        _Exit(2);
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info,
                                                               int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out_path = strdup(argv[i] + 4);
        } else if (strncmp(argv[i], "fn=", 3) == 0 && range_count < MAX_RANGES &&
                   sscanf(argv[i] + 3, "%" SCNx64 ":%" SCNx64, &ranges[range_count].start,
                          &ranges[range_count].end) == 2) {
            range_count++;
        } else {
            fprintf(stderr, "cycles: cannot use argument %s\n", argv[i]);
            return 1;
        }
    }
    if (out_path == NULL) {
        fprintf(stderr, "cycles: out=FILE is missing\n");
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_atexit_cb(id, on_exit_write, NULL);
    return 0;
}
