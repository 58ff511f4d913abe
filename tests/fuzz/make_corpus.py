"""Write the seed inputs of the fuzz targets: real models, conversations, cards and journals, small.

Usage:
    python tests/fuzz/make_corpus.py        writes tests/fuzz/corpus/TARGET/seed-*
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "core"), str(HERE.parent / "unit")]

import numpy as np  # noqa: E402
from cardsim import Log, SimCard, config, format_card  # noqa: E402
from drip._core import ffi, lib  # noqa: E402
from flash_model import Flash  # noqa: E402
from nets import Net, folded_bias, head_net, random_quant  # noqa: E402
from test_hostile import every_operator  # noqa: E402
from tflite_builder import (  # noqa: E402
    NONE,
    RELU,
    SAME,
    VALID,
    TfliteBuilder,
    add_conv,
    add_dense,
    add_mean,
    add_pool,
)
from volumes import find  # noqa: E402

from drip import wire  # noqa: E402
from drip.card.volume import find_region  # noqa: E402
from drip.card.volume_format import format_volume  # noqa: E402
from drip.compile import compile_model  # noqa: E402
from drip.compile.blob import Part, pack_blob, unpack_blob  # noqa: E402
from drip.compile.layouts import pack_pairs  # noqa: E402
from drip.wire import Config, FrameType, ModelOp  # noqa: E402

NOISE, FRAME, TIME, FAULT = range(4)
LINK, MODEL, CARD, FLASH, SENSOR = 1, 2, 4, 8, 0x80
SHORT, LONG = 4, 50  # steps that a device works after a piece
UUID = bytes(range(16))


def classifier(hidden: int = 0, *, cam: bool = True) -> bytes:
    """4x4x1 -> conv 3x3 -> features -> mean [-> hidden ReLU] -> 3 logits, with a Grad-CAM head."""
    build, rng = TfliteBuilder(), np.random.default_rng(3)
    x = build.tensor((1, 4, 4, 1), 0.04, -3, name="in")
    y = add_mean(build, rng, add_conv(build, rng, x, 4, (3, 3), activation=RELU))
    if hidden:
        y = add_dense(build, rng, y, hidden, activation=RELU)
    return compile_model(build.finish([x], [add_dense(build, rng, y, 3, name="logits")]), cam=cam)


def mixed() -> bytes:
    """Depthwise, strided and dilated layers, both pools, in packed layouts, without a head."""
    build, rng = TfliteBuilder(), np.random.default_rng(4)
    x = build.tensor((1, 7, 6, 3), 0.04, -3, name="in")
    y = add_conv(build, rng, x, 6, (3, 2), stride=(2, 1), padding=SAME)
    y = add_conv(build, rng, y, 6, (3, 3), multiplier=1, padding=SAME)
    y = add_conv(build, rng, y, 6, (3, 3), multiplier=2, dilation=(1, 2), padding=SAME)
    y = add_pool(build, y, "MAX_POOL_2D", (2, 2), (2, 2), SAME)
    y = add_pool(build, y, "AVERAGE_POOL_2D", (2, 2), (1, 1), VALID)
    logits = add_dense(build, rng, y, 5, name="logits")
    return compile_model(build.finish([x], [logits]), cam=False)


def residual() -> bytes:
    """Two tensors added, twice: of an odd size, and in place."""
    build, rng = TfliteBuilder(), np.random.default_rng(6)
    x = build.tensor((1, 3, 3, 3), 0.04, -3, name="in")
    y = add_conv(build, rng, x, 3, (3, 3), padding=SAME)
    for _ in range(2):
        out = build.tensor((1, 3, 3, 3), 0.06, 5)
        y = build.op("ADD", [x, y], out, FusedActivationFunction=NONE)
    logits = add_dense(build, rng, add_mean(build, rng, y), 4, name="logits")
    probabilities = build.tensor((1, 4), 1 / 256, -128, name="probabilities")
    build.op("SOFTMAX", [logits], probabilities, Beta=1.0)
    return compile_model(build.finish([x], [probabilities]))


def calibration(classes: int) -> bytes:
    """A calibration section with plain numbers."""
    head = wire.BlobCalibration(classes, wire.KNOTS, 6554, 0, 100, 0, 0, bytes(8)).pack()
    knots = np.tile(np.arange(wire.KNOTS, dtype="<i4") * 100000 - 2000000, classes)
    return head + knots.tobytes() + np.full(classes, 58982, "<u2").tobytes()


def scratch_last() -> bytes:
    """A packed convolution whose scratch ends where the arena ends."""
    net, rng = Net(), np.random.default_rng(5)
    x, y = net.tensor(5, 4, 2, -3), net.tensor(5, 4, 5, 2)
    w = rng.integers(-127, 128, (5, 3, 3, 2)).astype(np.int8)
    net.op(
        wire.Op.CONV_2D, x, y, weights=pack_pairs(w), bias=folded_bias(rng, w, -3),
        quant=random_quant(rng, 5), layout_id=wire.Layout.PAIRS, kernel_h=3, kernel_w=3, pad_top=1,
        pad_left=1, scratch_offset=net.memory(320), scratch_bytes=320,
    )  # fmt: skip
    return net.blob(y)


def misleading() -> bytes:
    """Calibrated for a Grad-CAM score, without a Grad-CAM head."""
    blob = unpack_blob(classifier(cam=False))
    part = Part(wire.Section.CALIBRATION, calibration(3), 1, wire.ScoreKind.CAM_EVIDENCE)
    return pack_blob(blob.header, (*blob.parts, part))


def blobs() -> dict[str, bytes]:
    rng = np.random.default_rng(1)
    return {
        "operators": every_operator(),
        "scratch-last": scratch_last(),
        "direct": head_net(rng, calibration=calibration(3))[1],
        "hidden": head_net(rng, hidden=3)[1],
        "compiled": classifier(),
        "compiled-hidden": classifier(hidden=5),
        "compiled-mixed": mixed(),
        "compiled-residual": residual(),
    }


# ------------------------------------------------------------------ link


def frame(kind: int, number: int, body: bytes = b"", steps: int = SHORT) -> bytes:
    return struct.pack("<BBBH", FRAME | steps << 2, kind, number, len(body)) + body


def noise(content: bytes) -> bytes:
    return bytes([NOISE, len(content)]) + content


def hello() -> bytes:
    request = wire.HelloRequest(size=16, version=1, protocol=1, schema_hash=0)
    return frame(FrameType.HELLO, 1, request.pack())


def settings(**values: int) -> bytes:
    items = (wire.ConfigItem(key=Config[k.upper()], length=4, value=v) for k, v in values.items())
    return frame(FrameType.CONFIG_SET, 2, b"".join(item.pack() for item in items))


def feed(kind: int, number: int, size: int, token: int) -> bytes:
    head = wire.Feed(stream_id=0, frame_bytes=size, offset=0, token=token)
    return frame(kind, number, head.pack() + bytes(range(size)), LONG)


def model_op(op: int, chunk: bytes = b"", **fields: Any) -> bytes:
    request = wire.ModelRequest(op=op, **fields).pack()
    return frame(FrameType.MODEL, 3, request + chunk, LONG)


def upload(blob: bytes, *, cut: bool = False) -> bytes:
    header = wire.BlobHeader.unpack(blob)
    sent = model_op(
        ModelOp.BEGIN, total_bytes=len(blob), arena_bytes=header.arena_bytes,
        op_bitmap=header.op_bitmap, blob_crc=zlib.crc32(blob), model_id=header.model_id,
    )  # fmt: skip
    for at in range(0, len(blob), 1024):
        sent += model_op(ModelOp.DATA, blob[at : at + 1024], offset=at)
        if cut:
            return sent
    return sent + model_op(ModelOp.TRIAL)


def read_all(blocks: int) -> bytes:
    return b"".join(
        frame(FrameType.READ, 4, wire.ReadRequest(position=512 * n, size=1024).pack(), LONG)
        for n in range(0, blocks, 2)
    )


def stream(position: int, size: int, chunk: int, *, fresh: bool = False) -> bytes:
    flags = wire.StreamFlag.FRESH if fresh else 0
    request = wire.ReadRequest(position=position, size=size, chunk=chunk, flags=flags)
    return frame(FrameType.READ, 11, request.pack())


def baud(op: int, rate: int = 0) -> bytes:
    return frame(FrameType.BAUD, 12, wire.BaudRequest(op=op, baud=rate).pack(), LONG)


def left_settings(present: int, values: list[int]) -> bytes:
    """An entry as :c:func:`leave_settings` takes it; checksum and magic are made there."""
    padded = tuple(values) + (0,) * (len(wire.ConfigEntry().values) - len(values))
    return wire.ConfigEntry(generation=9, present=present, values=padded).pack()


def lines() -> dict[str, bytes]:
    blob = classifier()
    ack = wire.Ack(segment=0, records=2, digest=0).pack()
    queries = b"".join(
        frame(kind, 9, wire.TimeRequest(unix_us=1 << 50).pack())
        for kind in (FrameType.STATUS, FrameType.CONFIG_GET, FrameType.TIME, FrameType.BAUD)
    )
    model = struct.pack("<H", len(blob)) + blob
    logging = (
        hello() + settings(policy_kind=2, events=1, commit_ms=0) + bytes([TIME, 5])
        + feed(FrameType.FEED, 5, 16, 1) + feed(FrameType.FEED, 5, 16, 1)
        + feed(FrameType.SCORE, 6, 16, 2) + frame(FrameType.SYNC, 7, steps=LONG) + read_all(6)
        + frame(FrameType.ACK, 8, ack, LONG)
    )  # fmt: skip
    return {
        "bytes": bytes([LINK]) + noise(b"boot\n") + frame(2, 1) + frame(7, 2, bytes(range(256)) * 4)
        + noise(b"\x00\x03\x01") + frame(1, 3, b"\xff" * 600),
        "bytes-endless": bytes([LINK]) + noise(b"\0") + noise(b"\xff" * 255) * 5,
        "bytes-slow": bytes([LINK | 0x30]) + frame(2, 1, bytes(300)) + noise(b"\0\0\xff"),
        "queries": bytes([CARD | 0x50]) + hello() + noise(b"\r\nok\0") + queries
        + frame(FrameType.RESET, 9, steps=LONG) + queries,
        "feed": bytes([MODEL | CARD]) + model + bytes([TIME, 9]) + logging,
        "feed-no-model": bytes([CARD]) + bytes([TIME, 9]) + logging + bytes([FAULT, 2]) + logging,
        "sensor": bytes([MODEL | CARD | SENSOR]) + model + hello()
        + settings(policy_kind=4, every_k=2, seed=3, score_kind=3, random_share=999) + (
            bytes([TIME, 9]) + frame(FrameType.STATUS, 1, steps=LONG)) * 8 + read_all(4),
        "push": bytes([CARD | FLASH]) + hello() + upload(blob) + feed(FrameType.SCORE, 6, 16, 2)
        + model_op(ModelOp.CONFIRM) + model_op(ModelOp.INFO) + frame(FrameType.RESET, 9, steps=LONG)
        + hello() + feed(FrameType.FEED, 7, 16, 3) + model_op(ModelOp.ABORT),
        "push-misleading": bytes([FLASH]) + hello() + settings(score_kind=3) + upload(misleading())
        + settings(score_kind=0) + feed(FrameType.SCORE, 6, 16, 2),
        "stream": bytes([CARD | 0x70]) + bytes([TIME, 9]) + logging + stream(0, 4096, 1024)
        + stream(1024, 9000, 512) + frame(FrameType.STATUS, 9) + stream(512, 600, 1024)
        + stream(0, 8192, 512, fresh=True) + stream(1 << 40, 512, 512) + hello(),
        "stream-queue": bytes([CARD]) + bytes([TIME, 9]) + logging
        + stream(0, 60000, 512) * 9 + bytes([FAULT, 2]) + stream(0, 512, 512) + bytes([FAULT, 0])
        + frame(FrameType.RESET, 9, steps=LONG),
        "baud": bytes([CARD]) + hello() + baud(wire.BaudOp.SET, 921600) + bytes([TIME, 2])
        + baud(wire.BaudOp.CONFIRM) + noise(b"\xfe" * 200) + bytes([TIME, 200]) + noise(b"\xfe")
        + bytes([TIME, 1]) + baud(wire.BaudOp.SET, 460800) + bytes([TIME, 100]) * 2
        + baud(wire.BaudOp.SET, 115201) + baud(wire.BaudOp.SET, 0) + baud(77, 9600)
        + baud(wire.BaudOp.SET, 921600) + baud(wire.BaudOp.SET, 115200),
        "events": bytes([CARD | SENSOR]) + hello() + settings(policy_kind=2, events=1)
        + bytes([TIME, 9]) * 4 + bytes([FAULT, 2]) + bytes([TIME, 255]) + bytes([FAULT, 0])
        + bytes([TIME, 255]) * 2 + stream(0, 4096, 512) + bytes([TIME, 9]) * 3 + settings(events=0),
        "settings": bytes([FLASH | CARD]) + hello() + settings(policy_kind=4, every_k=2)
        + bytes([FAULT, 0xFF]) + left_settings(0x3FF, [2, 4, 100, 1, 7, 3, 50, 512, 1, 1])
        + hello() + frame(FrameType.CONFIG_GET, 4) + bytes([FAULT, 0xFF])
        + left_settings(0xFFFFFFFF, [0xFFFFFFFF] * 27) + hello() + frame(FrameType.CONFIG_GET, 4)
        + settings(threshold=5) + bytes([FAULT, 0xFF]) + left_settings(0x7FF, [9] * 20),
        "push-resumed": bytes([FLASH]) + hello() + upload(blob, cut=True)
        + frame(FrameType.RESET, 9) + hello() + upload(blob) + model_op(ModelOp.CONFIRM),
        "push-damaged": bytes([FLASH]) + hello() + upload(blob[:-1] + b"?") + model_op(ModelOp.INFO)
        + upload(blob) + model_op(ModelOp.ABORT),
    }  # fmt: skip


# ------------------------------------------------------------------ card


def card_seed(image: bytes, mode: int = 0, empty: int = 0, actions: bytes = b"") -> bytes:
    """What card.c takes: mode, actions, empty blocks, image."""
    return bytes([mode]) + actions.ljust(6, b"\x03")[:6] + bytes([empty]) + image


def log_image(records: int, *, blocks: int = 14, ack: bool = False, size: int = 90) -> bytearray:
    card = SimCard(bytearray(blocks * 512))
    assert format_card(card, unit_blocks=1, segment_blocks=4, uuid=UUID) == 0
    log = Log(card, config(commit_ms=0))
    for n in range(records):
        log.append(bytes([n + 1]) * size, time_us=n)
        if ack and n % 4 == 3:
            segment = lib.drip_log_acked(log.log) // log.segment_bytes
            log.ack(segment, log.log.records, log.log.digest)
    log.sync()
    return card.data


def cards() -> dict[str, bytes]:
    plain = log_image(3)
    holed = bytearray(plain)
    holed[:512] = bytes(512)
    rebuilt = bytearray(holed)
    rebuilt[-512:] = bytes(512)
    torn = bytearray(log_image(5))
    torn[3 * 512 : 3 * 512 + 256] = b"\xff" * 256
    return {
        "empty": card_seed(log_image(0), actions=bytes([20, 200, 9, 3, 2, 7])),
        "three": card_seed(plain, actions=bytes([64, 3, 45, 15, 10, 7])),
        "one-superblock": card_seed(holed, mode=0x10),
        "no-superblock": card_seed(rebuilt, empty=2, actions=bytes([97, 97, 97, 15, 2, 3])),
        "torn": card_seed(torn, mode=4, actions=bytes([13, 13, 13, 13, 13, 7])),
        "around": card_seed(
            log_image(14, ack=True, size=500), actions=bytes([253, 253, 2, 6, 3, 15])
        ),
        "full": card_seed(log_image(9, size=500), mode=2, actions=bytes([253] * 5 + [7])),
        "shifted": card_seed(bytes(512) + log_image(2), mode=8, empty=3),
        "faults": card_seed(log_image(2), mode=0x44, actions=bytes([61, 61, 3, 15, 2, 7])),
        "raw": card_seed(plain, mode=1),
    }  # fmt: skip


# ------------------------------------------------------------------ volume


class Watched(SimCard):
    """A card that notes which blocks are read."""

    def _read(self, context: object, block: int, data: object, count: int) -> int:
        self.__dict__.setdefault("seen", set()).add(block)
        return super()._read(context, block, data, count)


def volume_seed(data: bytes) -> bytes:
    """What volume.c takes: mode, size, table, and what differs from zeros or from a plain chain."""
    card = Watched(bytearray(data))
    assert find(card).result == 0
    volume = find_region(io.BytesIO(data), "card", card.blocks).volume
    assert volume is not None
    width = 2 if volume.kind == "fat16" else 4
    seed = struct.pack("<BII", width, card.blocks, volume.fat)
    for number in sorted(card.__dict__["seen"]):
        block = data[512 * number : 512 * number + 512]
        first = (number - volume.fat) * (512 // width)
        plain = bytes(512)
        if number >= volume.fat:
            entries = range(first + 1, first + 1 + 512 // width)
            plain = b"".join(n.to_bytes(4, "little")[:width] for n in entries)
        seed += pieces(number, block, plain)
    return seed


def pieces(number: int, block: bytes, plain: bytes) -> bytes:
    """The parts of 32 bytes in which a block differs from what it would be."""
    found = b""
    for at in range(0, 512, 32):
        if block[at : at + 32] != plain[at : at + 32]:
            found += struct.pack("<IHB", number, at, 32) + block[at : at + 32]
    return found


def volumes() -> dict[str, bytes]:
    found = {}
    with TemporaryDirectory() as folder:
        for fs, mbr in (("fat16", False), ("fat32", True), ("exfat", False), ("exfat", True)):
            path = Path(folder) / f"{fs}{mbr}"
            format_volume(path, (40 if fs == "fat32" else 16) << 20, fs, mbr=mbr)
            found[fs + "-mbr" * mbr] = volume_seed(path.read_bytes())
    found["no-volume"] = struct.pack("<BIIIHB", 0, 64, 0, 0, 0, 4) + b"DRSB"
    return found


# ------------------------------------------------------------------ slot


def push(flash: Flash, port: Any, slot: Any, blob: bytes, last: int) -> None:
    """Upload, try and end with CONFIRM or ABORT."""
    nn = ffi.new("drip_nn_t *")
    lib.drip_slot_open(slot, port, 1 << 16, nn)
    header = wire.BlobHeader.unpack(blob)
    fields = {
        "total_bytes": len(blob), "arena_bytes": header.arena_bytes,
        "op_bitmap": header.op_bitmap, "blob_crc": zlib.crc32(blob), "model_id": header.model_id,
    }  # fmt: skip

    def ask(op: int, chunk: bytes = b"", **values: Any) -> None:
        packed = ffi.from_buffer(wire.ModelRequest(op=op, **values).pack())
        request = ffi.cast("drip_model_request_t *", packed)
        held = ffi.from_buffer(chunk)
        assert lib.drip_slot_request(slot, request, held, len(chunk), 1 << 16) == 0
        finish()

    def finish() -> None:
        while (code := lib.drip_slot_poll(slot)) == wire.Err.BUSY:
            pass
        assert code == 0, code

    ask(ModelOp.BEGIN, **fields)
    for at in range(0, len(blob), 1024):
        ask(ModelOp.DATA, blob[at : at + 1024], offset=at)
    ask(ModelOp.TRIAL)
    if last:
        assert lib.drip_slot_trial(slot, 0) == 0
        finish()
        ask(last)


def slots() -> dict[str, bytes]:
    journal, slot_bytes = 5 * wire.SlotEntry.SIZE + 32, 4096
    found = {}
    first, second = head_net(np.random.default_rng(1))[1], classifier()
    ways = {
        "confirmed": [(first, ModelOp.CONFIRM)],
        "both": [(first, ModelOp.CONFIRM), (second, ModelOp.CONFIRM)],
        "trial": [(first, ModelOp.CONFIRM), (second, 0)],
        "aborted": [(second, ModelOp.ABORT)],
        "aborted-long": [(second, ModelOp.ABORT)],
    }
    requests = {
        "confirmed": bytes([1 | 8 << 3, 2, 2, 2, 3, 6, 5, 0]),
        "both": bytes([1, 2, 2, 3, 7 | 1 << 3, 4, 1 | 5 << 3, 5]),
        "trial": bytes([3, 7 | 1 << 3, 4, 1, 2 | 1 << 3, 2, 2 | 31 << 3, 3]),
        "aborted-long": bytes([1, 2 | 18 << 3, 2 | 17 << 3, 2 | 16 << 3, 2 | 30 << 3, 2, 3, 5]),
        "aborted": bytes([1, 2, 2, 3, 7, 3, 3, 6]),
    }
    for name, pushes in ways.items():
        flash = Flash(slot_bytes, journal)
        port, slot = ffi.new("drip_port_t *"), ffi.new("drip_slot_t *")
        flash.attach(port)
        for blob, last in pushes:
            push(flash, port, slot, blob, last)
        journals = flash.read(2) + flash.read(3)
        content = (flash.read(0) + flash.read(1)).rstrip(b"\xff")
        found[name] = b"\0" + requests[name] + journals + content
    found["erased"] = b"\0" + requests["aborted"] + b"\xff" * 2 * journal
    found["raw"] = b"\1" + found["both"][1:]
    return found


def main() -> None:
    """Write all seeds; what a fuzzer found and somebody added stays."""
    for target, seeds in (
        ("blob", blobs()), ("link", lines()), ("card", cards()), ("slot", slots()),
        ("volume", volumes()),
    ):  # fmt: skip
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("seed-*"):
            old.unlink()
        for name, content in seeds.items():
            (folder / f"seed-{name}").write_bytes(content)
            print(f"{target}/seed-{name}: {len(content)} bytes")


if __name__ == "__main__":
    main()
