"""A model made by an enemy, pushed and used: the device refuses or ignores what cannot work."""

from __future__ import annotations

from device_board import TFLITE, DeviceBoard
from flash_model import Flash

from drip import wire
from drip.compile import compile_model
from drip.compile.blob import Part, pack_blob, unpack_blob
from drip.wire import Err, ModelOp, ScoreKind, Section


def calibrated_for_a_score_it_lacks() -> bytes:
    """Without a Grad-CAM head, but with a calibration of a Grad-CAM score."""
    blob = unpack_blob(compile_model(TFLITE.read_bytes(), cam=False))
    head = wire.BlobCalibration(10, wire.KNOTS, 6554, 0, 100, 0, 0, bytes(8)).pack()
    tables = bytes(10 * (4 * wire.KNOTS + 2))
    part = Part(Section.CALIBRATION, head + tables, 1, ScoreKind.CAM_EVIDENCE)
    return pack_blob(blob.header, (*blob.parts, part))


def test_a_setting_that_the_model_cannot_follow_leaves_the_score_as_it_was() -> None:
    device = DeviceBoard(flash=Flash(slot_bytes=32768))
    device.run()
    device.hello()
    assert device.config(score_kind=ScoreKind.MARGIN) == 0
    blob = calibrated_for_a_score_it_lacks()
    assert device.upload(blob).offset == len(blob)
    assert device.model_op(ModelOp.TRIAL).code == 0
    frame = bytes(n % 17 for n in range(64))
    before = device.feed(frame, token=1)
    for value in (0, ScoreKind.CAM_CONTRAST):
        assert device.config(score_kind=value) == Err.NO_CAM
        assert device.hello().score_kind == ScoreKind.MARGIN
        after = device.feed(frame, token=2)
        assert (after.raw_score, after.class_1) == (before.raw_score, before.class_1)
