"""Formats that are stable: bytes written once are read for ever (docs/SPEC.md, Compatibility).

The samples were written when the formats were declared stable. They are never made anew: where one
is no longer read, the change breaks what is on cards and boards.
"""

from __future__ import annotations

import base64
import dataclasses
import zlib

import numpy as np
import pytest
from device_board import ROOT, DeviceBoard, new_card
from flash_model import Flash, ffi
from test_settings import settings

from drip import wire
from drip.compile.blob import Part, pack_blob, unpack_blob
from drip.data import digits
from drip.records import parse_segment
from drip.simulate import Device
from drip.wire import Config, Err, FrameType, PolicyKind, ScoreKind, Section


def sample(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


# Header of a segment and its first three records.
SEGMENT = sample(
    "eNrtkrtKRDEQhie3k+TsSTJiYSkWvoXCgqtbeits7MTSWhCLRbAStLYQsRMRFCxsBJ/AwtpKsFEbC7FQ8JjbWViw"
    "E8HCH5JJSDLfH2Y6C4tdAkCBUMZFIZUuW5WxDrxIHkHnPC960Fc6I0yB8uvmZm8SfkEqj9G8IfCvn6pz8HC4eUva"
    "7W/q3NT+ua7rk0/BfIPAOCDsrb/u7j8eLY1sDW8czz9NA5SOhgcSsQixMpWONdJGplQoYihcYqDlQjF/Ab10w6eZ"
    "P7dDBvjXnr92JxgBDRPwUTf81ZXLsZtye8bnxWSZY+R6I1WMBl2KDmNyQp2KPrR1wZpwiI41fJb5L0NsgH/m+XAq"
    "mAQOXXjr8++vLman3PK75xqL4U3RKjF5lzbM2n8vOHEGZTSgki9qi9TR5i/08BcB8D/G"
)

# Settings in the journal of a board.
SETTINGS = bytes.fromhex(
    "445243460100000001000000fffe03000600000005000000d20400004d000000070000000900000032000000"
    "00100000000000000100000060ea0000204e000080510100400000002c010000030000000000010064000000"
    "000000000000000000000000000000000000000000000000000000000000000000000000a01709be"
)

# Calibration of the margin of ten digits.
CALIBRATION = sample(
    "eNpt1MsvnGEUBvCPhYW4fF/ahJmdvRWJXf8Dm+4sJNKNP0BF4tKpS9AanUFVh8EMo+hgXGbUKHUpbWKCtomkNpro"
    "rgtpbBpNxHhOPG9yMjHyG7v3Pec8551cq8Q6rMyyqrItK2VB/tWjs6JQbUM6nW6CZ9AK7dAJL+gl9EAvvAIf+aGP"
    "+uE1DMEwBGEcJmEK3sEszMMixOEDfIQf6oxBnhGgMQjDBM8x5Kw5nrdAMZ69xPNXecca7xEbsAl7cABH8DN992lk"
    "/9K7lz32q3qCqpYJ9hZhbzMQZQ1y/zJrSKg6krxb7MA+pOCYNfyFZugiM38v5y4zGmA9b9WMQ2o+06zDzGSRNazD"
    "Fn0muf8QvsMJa7iEbmbt432S6xveOcKedaZRZmEyiLF/07vOIclaJIdPsK3mcAoXcA110AIeNQuvqsvP2sy+jFBQ"
    "zWNS7Z/JJ6p2RupcYU1Szzf4Bf/gPzyFDu5DF9+AV+XhYyaDFFC7P8rdHefOmGwy939D5ZLiWziDP5zDc/bs5y4O"
    "MAvT6xj7DfGecMZeTrP396p/vaMrzCmhcpFMvvBtSB5PoJ61mFl0q3mYLPSuBFSN4XuyiN3zRpN8F7u8X2Zxzp1s"
    "5u+S2YO+jLc5qmYRVvlPqfc5q96GyT6u+jdvVPbyK9+G7MNvuAFruSxeFj9KyPfdnzVfXVhdGLEr7Jn8iO1xavIc"
    "p8KO2G0FDwvKH3gcxzl317uHXTnux8U57lJXqUv+3wIdXcyM"
)
# Percentile and threshold of twelve frames.
EXPECTED = [
    (65194, 45874), (56173, 45874), (44032, 45874), (52224, 45874),
    (62805, 45874), (8192, 46285), (61849, 45874), (43008, 46285),
    (12288, 44032), (40277, 45874), (15360, 45874), (16384, 45874),
]  # fmt: skip
# The settings in it, and in a body of CONFIG_SET.
VALUES = {
    Config.SCORE_KIND: 6,
    Config.POLICY_KIND: 5,
    Config.THRESHOLD: 1234,
    Config.RANDOM_SHARE: 77,
    Config.SEED: 7,
    Config.EVERY_K: 9,
    Config.COMMIT_MS: 50,
    Config.COMMIT_BYTES: 4096,
    Config.FULL_MODE: 1,
    Config.THRESHOLD_HIGH: 60000,
    Config.TARGET: 20000,
    Config.PACE_S: 86400,
    Config.BURST: 64,
    Config.FLOOR_SHARE: 300,
    Config.FLOOR_COUNT: 3,
    Config.REDUNDANCY: 65536,
    Config.DRIFT_LIMIT: 100,
}
# Settings that came later, and what they are where nobody has set them.
LATER = {Config.EVENTS: 0, Config.CLASS_FLOOR: 2}
REQUEST = bytes.fromhex(
    "0100040006000000 0200040005000000 03000400d2040000 040004004d000000 0500040007000000"
    "0600040009000000 0700040032000000 0800040000100000 0a00040001000000 0b00040060ea0000"
    "0c000400204e0000 0d00040080510100 0e00040040000000 0f0004002c010000 1000040003000000"
    "1100040000000100 1200040064000000"
)


def configurable() -> DeviceBoard:
    device = DeviceBoard(card=new_card(), flash=Flash())
    device.run()
    device.hello()
    return device


def test_records_are_read() -> None:
    found = parse_segment(SEGMENT)
    header = found.header
    assert (header.log_uuid, header.segment, header.boot_id) == (bytes(range(16)), 0, 1)
    assert (header.segment_bytes, header.first_seq, header.next_seq) == (32768, 1, 1)
    stream = header.streams[0]
    assert (stream.dtype, stream.rank, stream.shape[:3]) == (wire.Dtype.U8, 3, (8, 8, 1))
    assert (stream.scale, header.stream_count) == (0.0625, 1)
    frames = digits().x[600:603]
    assert [r.payload for r in found.records] == [frame.tobytes() for frame in frames]
    facts = [
        (h.seq, h.time_us, h.boot_id, h.flags, h.raw_score, h.percentile)
        for h in (record.header for record in found.records)
    ]
    assert facts == [
        (1, 1200, 1, 1, -21, 65194),
        (2, 101200, 1, 1, -65, 56173),
        (3, 201200, 1, 1, -81, 44032),
    ]
    first = found.records[0].header
    assert (first.policy_id, first.score_kind) == (PolicyKind.TARGET, ScoreKind.MARGIN)
    assert (first.class_1, first.class_2, first.logit_1, first.logit_2) == (2, 1, 37, 16)
    assert first.model_id.hex() == "8f77f48e99e9a157"


def test_a_newer_record_with_a_longer_header_is_read() -> None:
    """Fields are added at the end: version and length say so, and what is known stays in place."""
    first = parse_segment(SEGMENT).records[0]
    extension = b"newfield"
    header = dataclasses.replace(
        first.header,
        version=wire.RECORD_VERSION + 1,
        header_bytes=wire.RecordHeader.SIZE + len(extension),
        payload_crc=zlib.crc32(extension + first.payload),
    )
    raw = header.pack()[:-4]
    crc = zlib.crc32(raw, zlib.crc32(bytes(range(16)) + bytes(4)))
    newer = raw + crc.to_bytes(4, "little") + extension + first.payload
    content = SEGMENT[: wire.SegmentHeader.SIZE] + newer
    found = parse_segment(content + bytes(-len(content) % wire.BLOCK_BYTES))
    assert [r.payload for r in found.records] == [first.payload]


def test_settings_in_a_journal_are_read() -> None:
    flash = Flash()
    ffi.memmove(flash.areas[2], SETTINGS, len(SETTINGS))
    device = DeviceBoard(card=new_card(), flash=flash)
    device.run()
    device.hello()
    assert settings(device) == VALUES | LATER


def test_a_request_with_settings_is_understood() -> None:
    assert b"".join(wire.ConfigItem(k, 4, v).pack() for k, v in VALUES.items()) == REQUEST
    device = configurable()
    assert device.code(FrameType.CONFIG_SET, REQUEST) == Err.OK
    assert settings(device) == VALUES | LATER


@pytest.mark.parametrize(
    ("key", "length"), [(0, 4), (max(Config) + 1, 4), (0x7FFF, 4), (Config.TARGET, 8)]
)
def test_what_is_unknown_in_a_request_is_refused_by_its_key(key: int, length: int) -> None:
    device = configurable()
    before = settings(device)
    items = (wire.ConfigItem(Config.THRESHOLD, 4, 5), wire.ConfigItem(key, length, 1))
    body = device.ask(FrameType.CONFIG_SET, b"".join(item.pack() for item in items))
    answer = wire.Response.unpack(body)
    assert (answer.code, answer.detail) == (Err.ARGUMENT, key)
    assert settings(device) == before  # all or nothing


def test_calibration_is_read() -> None:
    blob = unpack_blob((ROOT / "models" / "digits" / "model.drip").read_bytes())
    part = Part(Section.CALIBRATION, CALIBRATION, 10, int(ScoreKind.MARGIN))
    device = Device(
        pack_blob(blob.header, (*blob.parts, part)),
        settings={
            Config.POLICY_KIND: PolicyKind.THRESHOLD,
            Config.RANDOM_SHARE: 0,
            Config.REDUNDANCY: 0,
        },
    )
    assert device.score_kind == ScoreKind.MARGIN
    results = device.run(digits().x[600:612])
    assert [(r.percentile, r.threshold) for r in results] == EXPECTED
    head = wire.BlobCalibration.unpack(CALIBRATION)
    assert (head.classes, head.knots, head.samples) == (10, 33, 600)
    assert head.target_ratio == round(0.3 * 65535)
    knots = np.frombuffer(CALIBRATION, "<i4", 330, wire.BlobCalibration.SIZE).reshape(10, 33)
    assert (np.diff(knots, axis=1) >= 0).all()
