/* Stage 2, nn: runs a compiled int8 network in place from memory-mapped flash or RAM.
 *
 * Arithmetic is TensorFlow Lite Micro's, bit for bit (double rounding). */
#ifndef DRIP_NN_H
#define DRIP_NN_H

#include "drip/frame.h"
#include "drip/frontend.h"
#include "drip/wire.h"

/* A network that was opened. Treat the members as private; 320 bytes at most. */
typedef struct {
    const uint8_t *blob;
    const drip_blob_tensor_t *tensors;
    const drip_blob_op_t *ops;
    const uint8_t *data; /* weights, biases, multipliers */
    uint32_t data_bytes;
    uint8_t *arena;
    uint32_t arena_bytes; /* needed */
    uint16_t tensor_count;
    uint16_t op_count;
    uint16_t op; /* next or running operator */
    uint16_t reserved;
    uint32_t row; /* progress inside it */
    drip_frame_input_t input;
    drip_frontend_t frontend; /* desc.fft 0 = none */
    drip_blob_header_t header;
} drip_nn_t;

/* Checks a blob completely and prepares to run it: magic, version, CRC, sections, every offset and
 * size that inference will use, operators, signature. After DRIP_ERR_OK no byte of the blob can make
 * the core read or write outside the blob or the arena.
 *
 * Memory: nothing is copied but the header; `blob` must stay mapped and unchanged, and start at a
 * multiple of DRIP_BLOB_ALIGN. Context: owner. Takes one pass over the blob (CRC).
 * Range: arenas up to 8 MiB; blobs up to 2 GiB - 1; at most 64 sections.
 * Returns DRIP_ERR_OK, _ALIGN, _SHORT, _MAGIC, _VERSION, _CRC, _SIGNATURE, _UNSUPPORTED, _CORRUPT. */
int drip_nn_open(drip_nn_t *nn, const void *blob, uint32_t blob_bytes);

/* Gives the network its working memory.
 *
 * Memory: `arena` of at least header.arena_bytes, aligned to 16, owned by the caller.
 * Returns DRIP_ERR_OK, _ALIGN or _MEMORY. */
int drip_nn_bind(drip_nn_t *nn, void *arena, uint32_t arena_bytes);

/* Returns the address of the int8 input in the arena (input.elements bytes). Write it, then begin. */
int8_t *drip_nn_input(const drip_nn_t *nn);

/* Turns a piece of a captured frame into the input: up to 1024 elements, or with a front-end one window of
 * sound. `done` elements are there already; begin with 0, and begin to infer when all are there. With a
 * front-end the arena is used for work, so results of the inference before are gone.
 *
 * Context: owner. Under 5 ms on a 100 MHz Cortex-M4.
 * Returns how many elements are there now, at most input.elements; DRIP_ERR_STATE without an arena, or
 * DRIP_ERR_RANGE when the frame is not as long as the model wants. */
int drip_nn_load(drip_nn_t *nn, const drip_frame_t *frame, uint32_t done);

/* Starts an inference over what is in the input. Returns DRIP_ERR_OK, or _STATE without an arena. */
int drip_nn_begin(drip_nn_t *nn);

/* Works for about `budget` multiply-accumulates, at least one unit of one operator (an output
 * position, four of them or a channel, by kernel), and never past the end of an operator: so that
 * every tensor can be read before its memory is used again.
 *
 * Context: owner. A budget of 300000 stays under 5 ms on a 100 MHz Cortex-M4.
 * Returns 1 while there is more to do, 0 when the outputs are ready. */
int drip_nn_step(drip_nn_t *nn, uint32_t budget);

/* Looks at a tensor: valid after its operator has finished, until its memory is used again; outputs,
 * logits and what a Grad-CAM head reads stay valid until the next drip_nn_begin. The input
 * is overwritten by inference: write all of it before each drip_nn_begin.
 *
 * `desc` may be NULL. Returns NULL for a tensor that does not exist. */
const int8_t *drip_nn_tensor(const drip_nn_t *nn, uint16_t tensor, const drip_blob_tensor_t **desc);

/* Finds a section of the blob; `index` counts sections of the same kind from 0.
 *
 * Returns the section's table entry, or NULL. */
const drip_blob_section_t *drip_nn_section(const drip_nn_t *nn, uint16_t kind, uint16_t index);

/* The golden self-test in pieces, for an owner that must not block: load input n until all elements are there,
 * step until the inference is done, check it; n counts from 0.
 *
 * Load makes a piece of the input: all of it, or one window when the golden inputs are sound, which so tests
 * the front-end, too. `done` elements are there already; with the last of them the inference is begun.
 * Context: owner. Under 5 ms on a 100 MHz Cortex-M4.
 * Load returns how many elements are there now (input.elements at most), DRIP_ERR_CORRUPT without a usable
 * golden section or past its end, DRIP_ERR_STATE without an arena, DRIP_ERR_RANGE (`done` is no begin of a
 * piece). Check returns DRIP_ERR_OK or _SELFTEST. */
int drip_nn_selftest_load(drip_nn_t *nn, uint32_t n, uint32_t done);
int drip_nn_selftest_check(const drip_nn_t *nn, uint32_t n);

/* Runs the golden self-test of the blob: needs the arena, blocks for `count` inferences.
 *
 * Returns the number of inputs tested (>= 1), DRIP_ERR_SELFTEST on the first difference,
 * DRIP_ERR_CORRUPT without a golden section, DRIP_ERR_STATE without an arena. */
int drip_nn_selftest(drip_nn_t *nn);

/* Bit n is set when this build can run operator n (enum DRIP_OP_*). */
uint64_t drip_nn_op_bitmap(void);

#endif
