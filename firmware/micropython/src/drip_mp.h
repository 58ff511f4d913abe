/* The C core as a MicroPython module: one source for a native .mpy and for a module built into firmware.
 *
 * Every function takes buffers that Python owns, and returns a number: >= 0 is a result, < 0 a
 * DRIP_ERR_*. Nothing here allocates, raises (but for objects that are no buffers), prints or
 * waits. Python keeps every buffer that it has lent until it lets go of the state. */
#ifndef DRIP_MP_H
#define DRIP_MP_H

#ifdef MICROPY_ENABLE_DYNRUNTIME
#include "py/dynruntime.h"
#else
#include "py/obj.h"
#include "py/runtime.h"
#endif

#include "drip/device.h"

/* Address and size of a buffer. Returns NULL when it is smaller than `least`. */
void *drip_mp_bytes(mp_obj_t object, mp_uint_t flags, uint32_t least, uint32_t *size);

/* What the functions below do: scorer.c, board.c */
mp_obj_t drip_mp_scorer_open(mp_obj_t state, mp_obj_t blob);
mp_obj_t drip_mp_scorer_bind(size_t count, const mp_obj_t *arguments);
mp_obj_t drip_mp_scorer_config(mp_obj_t state, mp_obj_t key, mp_obj_t value);
mp_obj_t drip_mp_scorer_about(mp_obj_t state, mp_obj_t out);
mp_obj_t drip_mp_score(mp_obj_t state, mp_obj_t frame, mp_obj_t out);
mp_obj_t drip_mp_cam(size_t count, const mp_obj_t *arguments);

mp_obj_t drip_mp_board_open(size_t count, const mp_obj_t *arguments);
mp_obj_t drip_mp_board_flash(mp_obj_t state, mp_obj_t slots, mp_obj_t journals);
mp_obj_t drip_mp_board_stream(mp_obj_t state, mp_obj_t description);
mp_obj_t drip_mp_board_card(mp_obj_t state, mp_obj_t blocks);
mp_obj_t drip_mp_board_start(mp_obj_t state);
mp_obj_t drip_mp_board_step(mp_obj_t state, mp_obj_t elapsed_us);
mp_obj_t drip_mp_board_receive(mp_obj_t state, mp_obj_t data, mp_obj_t size);
mp_obj_t drip_mp_board_transmit(mp_obj_t state, mp_obj_t data);
mp_obj_t drip_mp_board_wants(mp_obj_t state, mp_obj_t out);
mp_obj_t drip_mp_board_block(mp_obj_t state, mp_obj_t index, mp_obj_t data);
mp_obj_t drip_mp_board_done(mp_obj_t state, mp_obj_t what, mp_obj_t code);
mp_obj_t drip_mp_board_offer(mp_obj_t state, mp_obj_t frame);
mp_obj_t drip_mp_board_config(mp_obj_t state, mp_obj_t key, mp_obj_t value);
mp_obj_t drip_mp_board_result(mp_obj_t state, mp_obj_t out);
mp_obj_t drip_mp_board_status(mp_obj_t state, mp_obj_t out);

/* Bytes of the states above. */
uint32_t drip_mp_scorer_bytes(void);
uint32_t drip_mp_board_bytes(void);

#endif
