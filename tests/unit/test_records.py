"""Reading raw segments: what is intact is found, whatever surrounds it."""

from __future__ import annotations

import dataclasses
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drip import wire
from drip.errors import CardError
from drip.records import iter_records, parse_records, parse_segment

UUID = bytes(range(16))
SEGMENT_BYTES = 16384


def segment_header(number: int = 3, first_seq: int = 1, **fields: int) -> bytes:
    header = wire.SegmentHeader(
        magic=wire.SEGMENT_MAGIC,
        version=wire.SEGMENT_VERSION,
        header_bytes=wire.SegmentHeader.SIZE,
        log_uuid=UUID,
        segment=number,
        first_seq=first_seq,
        segment_bytes=SEGMENT_BYTES,
        **fields,
    )
    raw = header.pack()[:-4]
    return raw + zlib.crc32(raw).to_bytes(4, "little")


def record(
    seq: int,
    payload: bytes,
    *,
    segment: int = 3,
    uuid: bytes = UUID,
    extension: bytes = b"",
    boot_id: int = 0,
) -> bytes:
    header = wire.RecordHeader(
        magic=wire.RECORD_MAGIC,
        version=wire.RECORD_VERSION + bool(extension),
        header_bytes=wire.RecordHeader.SIZE + len(extension),
        payload_bytes=len(payload),
        seq=seq,
        boot_id=boot_id,
        payload_crc=zlib.crc32(extension + payload),
    )
    raw = header.pack()[:-4]
    crc = zlib.crc32(raw, zlib.crc32(uuid + segment.to_bytes(4, "little")))
    whole = raw + crc.to_bytes(4, "little") + extension + payload
    return whole + bytes(-len(whole) % 8)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % wire.BLOCK_BYTES)


def test_a_healthy_segment():
    raw = [record(1, b"abc"), record(2, bytes(1000)), record(9, b"x" * 64)]
    data = segment_header() + raw[0] + padded(raw[1]) + raw[2]
    parsed = parse_segment(data)
    assert [item.header.seq for item in parsed.records] == [1, 2, 9]
    assert [item.payload for item in parsed.records] == [b"abc", bytes(1000), b"x" * 64]
    base = 3 * SEGMENT_BYTES
    assert parsed.records[0].position == base + 512
    assert parsed.records[1].position == base + 512 + len(raw[0])
    digest = 0
    for item in raw:
        digest = zlib.crc32(item[60:64], digest)
    assert (parsed.count, parsed.digest, parsed.end) == (3, digest, len(data))
    assert not parsed.damage and not parsed.torn and not parsed.finished
    assert parse_segment(padded(data) + bytes(512)).finished


def test_what_is_not_yet_complete_is_not_there_yet():
    data = segment_header() + record(1, b"abc") + record(2, bytes(1000))
    for size in range(512, len(data)):
        parsed = parse_segment(data[:size])
        assert parsed.count == (size >= 512 + 72)
        assert not parsed.damage


@pytest.mark.parametrize(
    "stranger",
    [
        record(2, b"other log", uuid=bytes(16)),
        record(2, b"other segment", segment=2),
        record(1, b"seen before"),
        record(2, b"")[:64] + bytes(8),
        record(2, bytes(wire.MAX_FRAME_BYTES))[:64],
    ],
)
def test_records_of_elsewhere_do_not_count(stranger):
    data = segment_header() + record(1, b"first") + stranger + record(3, b"third")
    assert [item.header.seq for item in parse_segment(data).records] == [1, 3]


def test_records_before_the_first_of_the_segment_do_not_count():
    data = segment_header(first_seq=5) + record(4, b"stale") + record(5, b"mine")
    assert [item.header.seq for item in parse_segment(data).records] == [5]


def test_headers_of_a_later_version_are_skipped_as_long_as_they_say():
    data = segment_header() + record(1, b"longer header", extension=b"new field!......")
    (found,) = parse_segment(data + record(2, b"next")).records[:1]
    assert found.payload == b"longer header"
    assert found.header.header_bytes == 80
    assert parse_segment(data + record(2, b"next")).count == 2


def test_a_damaged_record_is_named_and_the_next_one_found():
    data = bytearray(segment_header() + record(1, b"a" * 99) + record(2, b"b" * 99))
    data += record(3, b"c" * 99)
    data[512 + 168 + 64] ^= 1
    parsed = parse_segment(bytes(data))
    assert [item.header.seq for item in parsed.records] == [1, 3]
    (damage,) = parsed.damage
    assert damage.reason == "frame of record 2 is damaged"
    assert damage.position == 3 * SEGMENT_BYTES + 512 + 168
    data[512 + 168 + 4] ^= 1
    (damage,) = parse_segment(bytes(data)).damage
    assert damage.reason == "no record header"


def test_what_a_power_loss_cut_short_is_not_damage():
    block = padded(record(1, b"a") + record(2, b"cut" * 200)[:300])
    data = segment_header() + block + record(7, b"after", boot_id=1)
    parsed = parse_segment(data)
    assert [item.header.seq for item in parsed.records] == [1, 7]
    assert not parsed.damage
    assert [item.reason for item in parsed.torn] == ["frame of record 2 is damaged"]
    same_boot = segment_header() + block + record(7, b"after", boot_id=0)
    assert parse_segment(same_boot).damage and not parse_segment(same_boot).torn


def test_headers_that_are_none():
    good = segment_header()
    for bad in (
        b"",
        good[:511],
        bytes(512),
        good[:100] + b"x" + good[101:],
    ):
        with pytest.raises(CardError):
            parse_segment(bad)


def test_records_can_be_read_behind_a_damaged_header():
    data = bytes(512) + record(1, b"abc")
    header = dataclasses.replace(wire.SegmentHeader.unpack(segment_header()), crc=0, boot_id=0)
    assert [item.payload for item in parse_records(data, header).records] == [b"abc"]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.binary(min_size=1, max_size=700), max_size=12),
    st.lists(st.tuples(st.integers(0, 9000), st.binary(min_size=1, max_size=40)), max_size=6),
)
def test_damage_costs_the_records_it_touches_and_no_other(payloads, damage):
    data, spans = bytearray(segment_header()), {}
    for seq, payload in enumerate(payloads, 1):
        raw = record(seq, payload)
        spans[seq] = (len(data), len(data) + 64 + len(payload), payload)
        data += raw if seq % 3 else padded(raw)
    size = len(data)
    before = bytes(data)
    for at, noise in damage:
        at = 512 + at % max(1, size - 512)
        data[at : at + len(noise)] = noise
    data = data[:size]
    header = wire.SegmentHeader.unpack(segment_header())
    found = {item.header.seq: item.payload for item in iter_records(bytes(data), header)}
    untouched = {
        seq: payload
        for seq, (start, stop, payload) in spans.items()
        if data[start:stop] == before[start:stop]
    }
    assert found == untouched


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=4000))
def test_any_bytes_are_read_without_an_exception(noise):
    parsed = parse_segment(segment_header() + noise)
    assert parsed.count == len(parsed.records)
    with pytest.raises(CardError):
        parse_segment(noise)
