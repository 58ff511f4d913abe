/* The table of the module, for a native .mpy and for a module of the firmware. */
#include "drip_mp.h"

void *drip_mp_bytes(mp_obj_t object, mp_uint_t flags, uint32_t least, uint32_t *size)
{
    mp_buffer_info_t buffer;

    mp_get_buffer_raise(object, &buffer, flags);
    if (buffer.len < least) {
        return NULL;
    }
    if (size != NULL) {
        *size = (uint32_t)buffer.len;
    }
    return buffer.buf;
}

/* Bytes of the state of a scorer (0) or a board (1). */
mp_obj_t drip_mp_state_bytes(mp_obj_t kind);
mp_obj_t drip_mp_state_bytes(mp_obj_t kind)
{
    uint32_t bytes = mp_obj_get_int(kind) == 0 ? drip_mp_scorer_bytes() : drip_mp_board_bytes();

    return MP_OBJ_NEW_SMALL_INT((mp_int_t)bytes);
}

/* Not static, though nobody else needs them: a native module for RISC-V or Xtensa reads static data from
 * the wrong place. */
MP_DEFINE_CONST_FUN_OBJ_1(drip_mp_state_bytes_obj, drip_mp_state_bytes);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_scorer_open_obj, drip_mp_scorer_open);
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(drip_mp_scorer_bind_obj, 5, 5, drip_mp_scorer_bind);
MP_DEFINE_CONST_FUN_OBJ_3(drip_mp_scorer_config_obj, drip_mp_scorer_config);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_scorer_about_obj, drip_mp_scorer_about);
MP_DEFINE_CONST_FUN_OBJ_3(drip_mp_score_obj, drip_mp_score);
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(drip_mp_cam_obj, 4, 4, drip_mp_cam);
MP_DEFINE_CONST_FUN_OBJ_VAR_BETWEEN(drip_mp_board_open_obj, 7, 7, drip_mp_board_open);
MP_DEFINE_CONST_FUN_OBJ_3(drip_mp_board_flash_obj, drip_mp_board_flash);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_stream_obj, drip_mp_board_stream);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_card_obj, drip_mp_board_card);
MP_DEFINE_CONST_FUN_OBJ_1(drip_mp_board_start_obj, drip_mp_board_start);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_step_obj, drip_mp_board_step);
MP_DEFINE_CONST_FUN_OBJ_3(drip_mp_board_receive_obj, drip_mp_board_receive);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_transmit_obj, drip_mp_board_transmit);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_wants_obj, drip_mp_board_wants);
MP_DEFINE_CONST_FUN_OBJ_3(drip_mp_board_block_obj, drip_mp_board_block);
MP_DEFINE_CONST_FUN_OBJ_3(drip_mp_board_done_obj, drip_mp_board_done);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_offer_obj, drip_mp_board_offer);
MP_DEFINE_CONST_FUN_OBJ_3(drip_mp_board_config_obj, drip_mp_board_config);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_result_obj, drip_mp_board_result);
MP_DEFINE_CONST_FUN_OBJ_2(drip_mp_board_status_obj, drip_mp_board_status);

#ifdef MICROPY_ENABLE_DYNRUNTIME

mp_obj_t mpy_init(mp_obj_fun_bc_t *self, size_t n_args, size_t n_kw, mp_obj_t *args)
{
    MP_DYNRUNTIME_INIT_ENTRY

    mp_store_global(MP_QSTR_state_bytes, MP_OBJ_FROM_PTR(&drip_mp_state_bytes_obj));
    mp_store_global(MP_QSTR_scorer_open, MP_OBJ_FROM_PTR(&drip_mp_scorer_open_obj));
    mp_store_global(MP_QSTR_scorer_bind, MP_OBJ_FROM_PTR(&drip_mp_scorer_bind_obj));
    mp_store_global(MP_QSTR_scorer_config, MP_OBJ_FROM_PTR(&drip_mp_scorer_config_obj));
    mp_store_global(MP_QSTR_scorer_about, MP_OBJ_FROM_PTR(&drip_mp_scorer_about_obj));
    mp_store_global(MP_QSTR_score, MP_OBJ_FROM_PTR(&drip_mp_score_obj));
    mp_store_global(MP_QSTR_cam, MP_OBJ_FROM_PTR(&drip_mp_cam_obj));
    mp_store_global(MP_QSTR_board_open, MP_OBJ_FROM_PTR(&drip_mp_board_open_obj));
    mp_store_global(MP_QSTR_board_flash, MP_OBJ_FROM_PTR(&drip_mp_board_flash_obj));
    mp_store_global(MP_QSTR_board_stream, MP_OBJ_FROM_PTR(&drip_mp_board_stream_obj));
    mp_store_global(MP_QSTR_board_card, MP_OBJ_FROM_PTR(&drip_mp_board_card_obj));
    mp_store_global(MP_QSTR_board_start, MP_OBJ_FROM_PTR(&drip_mp_board_start_obj));
    mp_store_global(MP_QSTR_board_step, MP_OBJ_FROM_PTR(&drip_mp_board_step_obj));
    mp_store_global(MP_QSTR_board_receive, MP_OBJ_FROM_PTR(&drip_mp_board_receive_obj));
    mp_store_global(MP_QSTR_board_transmit, MP_OBJ_FROM_PTR(&drip_mp_board_transmit_obj));
    mp_store_global(MP_QSTR_board_wants, MP_OBJ_FROM_PTR(&drip_mp_board_wants_obj));
    mp_store_global(MP_QSTR_board_block, MP_OBJ_FROM_PTR(&drip_mp_board_block_obj));
    mp_store_global(MP_QSTR_board_done, MP_OBJ_FROM_PTR(&drip_mp_board_done_obj));
    mp_store_global(MP_QSTR_board_offer, MP_OBJ_FROM_PTR(&drip_mp_board_offer_obj));
    mp_store_global(MP_QSTR_board_config, MP_OBJ_FROM_PTR(&drip_mp_board_config_obj));
    mp_store_global(MP_QSTR_board_result, MP_OBJ_FROM_PTR(&drip_mp_board_result_obj));
    mp_store_global(MP_QSTR_board_status, MP_OBJ_FROM_PTR(&drip_mp_board_status_obj));
    mp_store_global(MP_QSTR_VERSION, mp_obj_new_int(DRIP_FIRMWARE_VERSION));

    MP_DYNRUNTIME_INIT_EXIT
}

#else

static const mp_rom_map_elem_t globals_table[] = {
    {MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(MP_QSTR__drip)},
    {MP_ROM_QSTR(MP_QSTR_state_bytes), MP_ROM_PTR(&drip_mp_state_bytes_obj)},
    {MP_ROM_QSTR(MP_QSTR_VERSION), MP_ROM_INT(DRIP_FIRMWARE_VERSION)},
    {MP_ROM_QSTR(MP_QSTR_scorer_open), MP_ROM_PTR(&drip_mp_scorer_open_obj)},
    {MP_ROM_QSTR(MP_QSTR_scorer_bind), MP_ROM_PTR(&drip_mp_scorer_bind_obj)},
    {MP_ROM_QSTR(MP_QSTR_scorer_config), MP_ROM_PTR(&drip_mp_scorer_config_obj)},
    {MP_ROM_QSTR(MP_QSTR_scorer_about), MP_ROM_PTR(&drip_mp_scorer_about_obj)},
    {MP_ROM_QSTR(MP_QSTR_score), MP_ROM_PTR(&drip_mp_score_obj)},
    {MP_ROM_QSTR(MP_QSTR_cam), MP_ROM_PTR(&drip_mp_cam_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_open), MP_ROM_PTR(&drip_mp_board_open_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_flash), MP_ROM_PTR(&drip_mp_board_flash_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_stream), MP_ROM_PTR(&drip_mp_board_stream_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_card), MP_ROM_PTR(&drip_mp_board_card_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_start), MP_ROM_PTR(&drip_mp_board_start_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_step), MP_ROM_PTR(&drip_mp_board_step_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_receive), MP_ROM_PTR(&drip_mp_board_receive_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_transmit), MP_ROM_PTR(&drip_mp_board_transmit_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_wants), MP_ROM_PTR(&drip_mp_board_wants_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_block), MP_ROM_PTR(&drip_mp_board_block_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_done), MP_ROM_PTR(&drip_mp_board_done_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_offer), MP_ROM_PTR(&drip_mp_board_offer_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_config), MP_ROM_PTR(&drip_mp_board_config_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_result), MP_ROM_PTR(&drip_mp_board_result_obj)},
    {MP_ROM_QSTR(MP_QSTR_board_status), MP_ROM_PTR(&drip_mp_board_status_obj)},
};
static MP_DEFINE_CONST_DICT(globals, globals_table);

const mp_obj_module_t drip_mp_module = {
    .base = {&mp_type_module},
    .globals = (mp_obj_dict_t *)&globals,
};
MP_REGISTER_MODULE(MP_QSTR__drip, drip_mp_module);

#endif
