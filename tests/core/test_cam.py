"""Integer Grad-CAM against the slow oracle, for both kinds of head."""

from __future__ import annotations

import struct

import numpy as np
import oracle
import pytest
from drip._core import ffi, lib
from nets import Engine, fix_crc, head_net
from numpy.typing import NDArray

from drip import wire
from drip.compile.blob import unpack_blob
from drip.wire import Err, Section

CLASSES = 3


class Cam:
    """A network with a head, run on one input, beside the tables of its blob."""

    def __init__(self, seed: int, hidden: int, shift: int = 6) -> None:
        rng = np.random.default_rng(seed)
        _, self.blob = head_net(rng, hidden=hidden, classes=CLASSES, shift=shift)
        self.engine = Engine(self.blob)
        assert self.engine.code == 0
        self.engine.run(rng.integers(-128, 128, (5, 4, 2)).astype(np.int8))
        part = unpack_blob(self.blob).find(Section.CAM)
        assert part is not None
        self.head = wire.BlobCam.unpack(part.content)
        content = part.content[wire.BlobCam.SIZE :]
        rows = hidden + hidden % 2 or CLASSES
        self.table = np.frombuffer(content, "<i2", rows * 6).reshape(rows, 6)
        if hidden:
            self.table = oracle.unpaired(self.table.reshape(-1, 6, 2))[:hidden]
        self.dense = np.frombuffer(content, np.int8, -1, rows * 12).reshape(-1, hidden or 1)
        self.cam = ffi.new("drip_cam_t *")
        self.code = lib.drip_cam_open(self.cam, self.engine.nn)

    def weights(self, c: int) -> NDArray[np.int64]:
        if self.head.head == wire.CamHead.DIRECT:
            return oracle.direct_weights(self.table, c)
        hidden = self.engine.read(self.head.hidden_tensor).reshape(-1)
        zero = self.engine.nn.tensors[self.head.hidden_tensor].zero_point
        return oracle.hidden_weights(self.table, self.dense, self.head.shift, hidden > zero, c)

    def sum(self, c: int, minus: int) -> tuple[int, int, list[int]]:
        scratch = ffi.new("int32_t[]", lib.drip_cam_scratch_bytes(self.cam) // 4)
        cells = ffi.new("int32_t[]", self.head.pixels)
        total = ffi.new("int32_t *")
        code = lib.drip_cam_sum(self.cam, c, minus, scratch, cells, total)
        again = ffi.new("int32_t *")
        assert lib.drip_cam_sum(self.cam, c, minus, scratch, ffi.NULL, again) == code
        assert again[0] == total[0]
        return code, total[0], list(cells)


@pytest.mark.parametrize("hidden", [0, 1, 7])
@pytest.mark.parametrize("seed", range(12))
def test_map_and_sum_equal_the_oracle(seed: int, hidden: int) -> None:
    cam = Cam(seed, hidden, shift=5 + seed % 5)
    assert cam.code == 0
    features = cam.engine.read(1)
    for c in range(CLASSES):
        for minus in range(-1, CLASSES):
            weights = cam.weights(c) - (cam.weights(minus) if minus >= 0 else 0)
            expected = oracle.cam_map(weights, features, -20)
            code, total, cells = cam.sum(c, minus)
            assert code == 0
            assert cells == expected.reshape(-1).tolist()
            assert total == oracle.cam_sum(expected)


def test_the_hidden_head_saw_active_and_inactive_units() -> None:
    states = set()
    for seed in range(12):
        cam = Cam(seed, 7)
        states |= set((cam.engine.read(cam.head.hidden_tensor).reshape(-1) > -128).tolist())
    assert states == {False, True}


@pytest.mark.parametrize(("c", "minus"), [(-1, -1), (CLASSES, -1), (0, CLASSES), (1 << 20, 0)])
def test_a_class_that_does_not_exist_is_refused(c: int, minus: int) -> None:
    assert Cam(0, 0).sum(c, minus)[0] == Err.ARGUMENT


def patched(blob: bytes, offset: int, content: bytes) -> Engine:
    """The blob with other bytes in its CAM section."""
    count = wire.BlobHeader.unpack(blob).section_count
    entries = [wire.BlobSection.unpack(blob, 128 + 16 * n) for n in range(count)]
    at = next(entry.offset for entry in entries if entry.kind == Section.CAM) + offset
    return Engine(fix_crc(bytearray(blob[:at] + content + blob[at + len(content) :])))


def opened(engine: Engine) -> int:
    assert engine.code == 0
    return int(lib.drip_cam_open(ffi.new("drip_cam_t *"), engine.nn))


def test_a_table_is_refused_exactly_where_a_sum_could_overflow() -> None:
    _, blob = head_net(np.random.default_rng(0), size=(16, 16))
    # Where all classes agree, one alone decides: 255 * pixels * sum |alpha| <= 2^31 - 1.
    most = ((1 << 31) - 1) // (255 * 256)
    for total, code in ((most, 0), (most + 1, Err.CORRUPT)):
        row = [30000, 0, 0, -(total - 30000), 0, 0]
        assert opened(patched(blob, wire.BlobCam.SIZE, struct.pack("<18h", *row * 3))) == code


def test_two_classes_of_opposite_sign_count_together() -> None:
    _, blob = head_net(np.random.default_rng(0), size=(16, 16))
    half = ((1 << 31) - 1) // (255 * 256) // 12
    for extra, code in ((0, 0), (1, Err.CORRUPT)):
        rows = [half + extra] * 6 + [-half - extra] * 6 + [0] * 6
        assert opened(patched(blob, wire.BlobCam.SIZE, struct.pack("<18h", *rows))) == code


def test_the_bound_of_a_hidden_head_depends_on_its_shift() -> None:
    rng = np.random.default_rng(3)
    _, blob = head_net(rng, hidden=7)
    table = np.full((8, 6), 32767, "<i2").tobytes()
    dense = np.full((CLASSES, 7), 127, np.int8).tobytes()
    # |weight| <= 7 * 32767 * 127 >> shift; fits when it has 16 bits (and 255 * 20 * 6 of them 31).
    assert opened(patched(blob, wire.BlobCam.SIZE, table + dense)) == Err.CORRUPT
    offset = wire.BlobCam.OFFSETS["shift"]
    section = bytearray(wire.BlobCam(2, CLASSES, 6, 7, 20, 10, 3, 0, 1.0).pack()) + table + dense
    assert opened(patched(blob, 0, bytes(section))) == 0
    struct.pack_into("<I", section, offset, 9)
    assert opened(patched(blob, 0, bytes(section))) == Err.CORRUPT


@pytest.mark.parametrize(
    ("name", "value"),
    [("head", 2), ("classes", 2), ("channels", 5), ("hidden", 1), ("pixels", 19), ("shift", 32)],
)
def test_a_head_that_does_not_fit_its_network_is_refused(name: str, value: int) -> None:
    blob = Cam(0, 0).blob
    width = 4 if name in ("pixels", "shift") else 2
    engine = patched(blob, wire.BlobCam.OFFSETS[name], value.to_bytes(width, "little"))
    assert opened(engine) == Err.CORRUPT


def test_a_network_without_a_head_says_so() -> None:
    net, _ = head_net(np.random.default_rng(0))
    assert opened(Engine(net.blob(3, 1))) == Err.NO_CAM
