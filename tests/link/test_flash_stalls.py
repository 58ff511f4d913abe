"""Boards whose processor stands still while flash is erased say BUSY before, and only then."""

from __future__ import annotations

import pytest
from device_board import DeviceBoard, begin_fields, digits_model, model_id
from flash_model import Flash

from drip import wire


def new_device(*, stalls: bool) -> DeviceBoard:
    device = DeviceBoard(flash=Flash(slot_bytes=32768, journal_bytes=512))
    device.card.port.flash_stalls = 1 if stalls else 0
    device.hello()
    return device


def begin(device: DeviceBoard, blob: bytes) -> list[tuple[int, int]]:
    """Ask to begin an upload; return id and code of every answer."""
    fields = begin_fields(blob)
    request = wire.ModelRequest(op=wire.ModelOp.BEGIN, **fields)  # type: ignore[arg-type]
    device.post(wire.FrameType.MODEL, request.pack())
    device.run()
    frames = [frame for frame in device.answers() if frame.type != wire.FrameType.EVENT]
    return [(frame.id, wire.ModelResponse.unpack(frame.body).code) for frame in frames]


@pytest.mark.parametrize("stalls", [False, True])
def test_an_erase_is_announced_where_it_stalls(stalls: bool) -> None:
    answers = begin(new_device(stalls=stalls), digits_model())
    numbers = {number for number, _ in answers}
    assert len(numbers) == 1
    busy = [int(wire.Err.BUSY)] if stalls else []
    assert [code for _, code in answers] == [*busy, 0]


def test_asking_again_is_answered_at_once() -> None:
    """What the host does when it was told BUSY and its repetition arrives after the erase."""
    device = new_device(stalls=True)
    begin(device, digits_model())
    assert [code for _, code in begin(device, digits_model())] == [0]


def test_a_model_is_pushed_as_elsewhere() -> None:
    device = new_device(stalls=True)
    blob = digits_model("dd" * 16)
    begin(device, blob)
    assert device.upload(blob).offset == len(blob)
    assert device.model_op(wire.ModelOp.TRIAL).code == 0
    assert device.model_op(wire.ModelOp.CONFIRM).code == 0
    device.boot()
    assert device.hello().model_id == model_id(blob)
