"""A model pushed to the device, request by request: trial, confirmation, refusal."""

from __future__ import annotations

import zlib

from device_board import FRAMES, begin_fields, board, digits_model, model_id, new_flash

from drip import wire
from drip.wire import Err, ModelOp, SlotState


def test_a_model_is_pushed_tried_and_confirmed():
    flash = new_flash()
    device = board(flash=flash)
    second = digits_model("aa" * 16)
    assert device.upload(second).offset == len(second)
    trial = device.model_op(ModelOp.TRIAL)
    assert (trial.code, trial.state) == (0, SlotState.TRIAL)
    assert trial.active_id == model_id(second)
    assert device.model_op(ModelOp.TRIAL) == trial
    assert device.feed(FRAMES[0]).model_id == model_id(second)[:8]
    assert device.status().model_state == SlotState.TRIAL
    device.boot()
    assert device.hello().model_id == model_id(digits_model())
    assert device.model_op(ModelOp.BEGIN, **begin_fields(second)).offset == len(second)
    assert device.model_op(ModelOp.TRIAL).code == 0
    confirmed = device.model_op(ModelOp.CONFIRM)
    assert (confirmed.code, confirmed.state) == (0, SlotState.CONFIRMED)
    assert confirmed.confirmed_id == model_id(second)
    device.boot()
    assert device.hello().model_id == model_id(second)


def test_a_model_that_fails_its_self_test_is_rejected_and_the_old_one_answers():
    device = board(flash=new_flash())
    result = device.feed(FRAMES[5])
    blob = bytearray(digits_model("bb" * 16))
    header = wire.BlobHeader.unpack(blob)
    sections = [
        wire.BlobSection.unpack(blob, header.header_bytes + 16 * n)
        for n in range(header.section_count)
    ]
    golden = next(s for s in sections if s.kind == wire.Section.GOLDEN)
    blob[golden.offset + golden.size - 1] ^= 1
    blob[12:16] = zlib.crc32(blob[16:]).to_bytes(4, "little")
    device.upload(bytes(blob))
    answer = device.model_op(ModelOp.TRIAL)
    assert (answer.code, answer.active_id) == (Err.SELFTEST, model_id(digits_model()))
    again = device.feed(FRAMES[5], token=2)
    assert (again.raw_score, again.class_1) == (result.raw_score, result.class_1)
    assert device.model_op(ModelOp.CONFIRM).code == Err.STATE


def test_what_is_no_model_is_rejected_on_trial():
    device = board(flash=new_flash())
    blob = digits_model()
    broken = blob[:1000] + b"\xff" * 200 + blob[1200:]
    fields = begin_fields(blob) | {"blob_crc": zlib.crc32(broken)}
    answer = device.model_op(ModelOp.BEGIN, **fields)
    while answer.offset < len(broken):
        chunk = broken[answer.offset : answer.offset + 1024]
        answer = device.model_op(ModelOp.DATA, chunk, offset=answer.offset)
    assert device.model_op(ModelOp.TRIAL).code == Err.CRC
    assert device.feed(FRAMES[0]).model_id == model_id(blob)[:8]


def test_abort_on_trial_brings_the_old_model_back():
    device = board(flash=new_flash())
    device.upload(digits_model("cc" * 16))
    assert device.model_op(ModelOp.TRIAL).active_id == model_id(digits_model("cc" * 16))
    assert device.model_op(ModelOp.ABORT).active_id == model_id(digits_model())
    assert device.feed(FRAMES[0]).model_id == model_id(digits_model())[:8]


def test_models_that_do_not_fit_are_refused():
    device = board(flash=new_flash())
    fields = begin_fields(digits_model())
    assert device.model_op(ModelOp.BEGIN, **fields | {"arena_bytes": 1 << 17}).code == Err.MEMORY
    assert device.model_op(ModelOp.BEGIN, **fields | {"total_bytes": 32769}).code == Err.FULL
    unsupported = device.model_op(ModelOp.BEGIN, **fields | {"op_bitmap": 1 << 50})
    assert unsupported.code == Err.UNSUPPORTED
    assert board().model_op(ModelOp.BEGIN, **fields).code == Err.UNSUPPORTED
