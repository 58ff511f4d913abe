"""The log stage on a simulated card: what it promises when nothing fails."""

from __future__ import annotations

import random
import zlib

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config
from logs import UUID, ack_of, make, payload_of, records_of

from drip import wire
from drip.records import parse_segment

Err = wire.Err


@pytest.mark.parametrize("busy", [0, 3])
@pytest.mark.parametrize("size", [1, 7, 64, 440, 448, 449, 512, 1000, 2944, 3000, 3520])
def test_what_is_synced_is_read_back(size, busy):
    card, log = make(256)
    card.polls_busy = busy
    expected = []
    for number in range(20):
        payload = payload_of(number, size)
        expected.append((log.append(payload, class_1=number), payload))
        if number % 3 == 2:
            assert log.sync() == OK
    log.sync()
    assert log.pending == 0
    assert [seq for seq, _ in expected] == list(range(1, 21))
    assert records_of(log) == expected
    assert records_of(Log(card)) == expected


def test_record_headers_carry_what_the_caller_and_the_log_know():
    _, log = make()
    log.append(b"abc", time_us=7, flags=3, stream_id=2, raw_score=-5, percentile=9, class_1=4)
    log.sync()
    (record,) = parse_segment(log.segments()[0]).records
    header = record.header
    assert (header.seq, header.boot_id, header.payload_bytes, header.header_bytes) == (1, 1, 3, 64)
    assert (header.time_us, header.flags, header.stream_id) == (7, 3, 2)
    assert (header.raw_score, header.percentile, header.class_1) == (-5, 9, 4)
    assert header.payload_crc == zlib.crc32(b"abc")
    place = zlib.crc32(UUID + (0).to_bytes(4, "little"))
    assert header.header_crc == zlib.crc32(header.pack()[:60], place)
    assert record.position == BLOCK


def test_largest_frames_and_refused_sizes():
    _, log = make(2048, segment_blocks=256)
    payloads = [payload_of(number, wire.MAX_FRAME_BYTES) for number in range(4)]
    for payload in payloads:
        assert log.append(payload) > 0
    log.sync()
    assert [payload for _, payload in records_of(log)] == payloads
    assert log.append(b"") == Err.ARGUMENT
    assert log.append(bytes(wire.MAX_FRAME_BYTES + 1)) == Err.ARGUMENT
    _, small = make(segment_blocks=8)
    assert small.append(bytes(7 * BLOCK - 64)) > 0
    assert small.append(bytes(7 * BLOCK - 63)) == Err.ARGUMENT


def test_nothing_is_durable_before_a_sync_and_the_end_is_a_block_boundary_after_it():
    _, log = make()
    log.append(bytes(100))
    assert (log.pending, log.durable) == (1, BLOCK)
    assert log.read(BLOCK) == Err.RANGE
    log.sync()
    assert (log.pending, log.durable) == (0, 2 * BLOCK)


def test_full_blocks_are_durable_at_once():
    card, log = make(settings=config(commit_ms=1000))
    assert [log.append(bytes(100)) > 0 and log.pending for _ in range(6)] == [1, 2, 3, 1, 2, 3]
    assert log.durable == 2 * BLOCK
    assert len(records_of(Log(SimCard(bytearray(card.data))))) == 3
    log.append(bytes(5 * BLOCK - 6 * 168 - 64))
    assert (log.pending, log.durable) == (0, 6 * BLOCK)
    assert len(records_of(Log(card))) == 7


def test_group_commit_by_bytes_and_by_time():
    card, log = make(settings=config(commit_ms=1000, commit_bytes=300))
    log.append(bytes(100))
    assert log.pending == 1
    log.append(bytes(100))
    assert log.pending == 0
    log.append(bytes(10))
    card.time_us += 999_999
    log.drive()
    assert log.pending == 1
    card.time_us += 1
    log.drive()
    assert log.pending == 0
    _, eager = make(settings=config(commit_ms=0))
    eager.append(b"x")
    assert eager.pending == 0


def test_no_block_with_synced_bytes_is_written_twice():
    card, log = make(512)
    chance = random.Random(3)
    synced: set[int] = set()
    for number in range(300):
        first = len(card.writes)
        log.append(payload_of(number, chance.randrange(1, 1500)))
        log.sync()
        blocks = {block for block, _ in card.writes[first:]} - {0, card.blocks - 1}
        if log.tail > 0 or log.append(b"") != Err.ARGUMENT:
            break
        assert not blocks & synced
        synced |= blocks
    assert len(synced) > 100


def test_the_unused_end_of_a_closed_segment_reads_as_zeros():
    card, log = make(segment_blocks=8)
    for number in range(60):
        log.append(payload_of(number, 1000))
        log.sync()
        if log.acked < log.durable - 2 * log.segment_bytes:
            assert log.ack(*ack_of(log, log.acked // log.segment_bytes)) == OK
    assert log.tail > 0, "the ring has turned"
    for fresh in (log, Log(card)):
        number = fresh.tail // fresh.segment_bytes
        data = fresh.segments()[number]
        assert len(data) == fresh.segment_bytes
        assert not any(data[parse_segment(data).end :])


def test_reads_are_of_whole_blocks_inside_one_segment():
    _, log = make()
    for number in range(8):
        log.append(payload_of(number, 1000))
    log.sync()
    assert log.read(100) == Err.ARGUMENT
    assert log.read(0, 511) == Err.ARGUMENT
    assert len(log.read(0, 1023)) == BLOCK
    whole = log.read(0, 64 * BLOCK)
    assert len(whole) == log.segment_bytes
    assert log.read(6 * BLOCK, 4 * BLOCK) == whole[6 * BLOCK :]
    assert log.read(1 << 40) == Err.RANGE


def test_reading_goes_on_while_recording():
    """Every step may be a read or a write: neither waits for the other, both are right."""
    card, log = make(1024, segment_blocks=16)
    for number in range(20):
        log.append(payload_of(number, 700))
    log.sync()
    expected = b"".join(log.segments().values())
    card.polls_busy = 2
    lib, keep, got, position = log_lib(), [], b"", 0
    out = ffi_new(2 * BLOCK)
    number = 100
    while position < len(expected):
        assert lib.drip_log_read(log.log, position, out, 2 * BLOCK) == OK
        while (result := lib.drip_log_read_poll(log.log)) == Err.BUSY:
            if not lib.drip_log_busy(log.log):
                started, _, buffer = log.start_append(payload_of(number, 3000))
                keep.append(buffer)
                number += started == OK
            lib.drip_log_step(log.log)
        assert result > 0
        got += bytes(out)[:result]
        position += result
    assert got == expected
    log.drive()
    log.sync()
    stored = dict(records_of(log))
    assert [stored[seq] for seq in range(21, 21 + number - 100)] == [
        payload_of(n, 3000) for n in range(100, number)
    ]


def log_lib():
    from drip._core import lib

    return lib


def ffi_new(size: int):
    from drip._core import ffi

    return ffi.new("uint8_t[]", size)


def test_sequence_numbers_and_boots_go_on_and_are_never_reused():
    card, log = make()
    seen = [log.append(b"a"), log.append(b"b")]
    log.sync()
    seen.append(log.append(b"lost: never synced"))
    for boot in range(2, 6):
        log = Log(card)
        assert log.log.boot_id == boot
        seen.append(log.append(b"c"))
        log.sync()
        seen.append(log.append(b"lost again"))
    assert sorted(set(seen)) == seen
    assert [payload for _, payload in records_of(log)] == [b"a", b"b", b"c", b"c", b"c", b"c"]


def checkpoint_of(log: Log, size: int = wire.CHECKPOINT_BYTES) -> int | bytes:
    from drip._core import ffi, lib

    out = ffi.new("uint8_t[]", max(size, 1))
    length = lib.drip_log_checkpoint_get(log.log, out, size)
    return bytes(out)[:length] if length >= 0 else length


def set_checkpoint(log: Log, content: bytes) -> int:
    from drip._core import lib

    return lib.drip_log_checkpoint_set(log.log, content, len(content))


def test_a_checkpoint_comes_back_with_the_superblock_that_took_it():
    card, log = make()
    assert checkpoint_of(log) == b""
    assert set_checkpoint(log, bytes(257)) == Err.ARGUMENT
    for content in (bytes(range(256)), b"short"):
        assert set_checkpoint(log, content) == OK
        assert checkpoint_of(log) == content
        assert checkpoint_of(log, len(content) - 1) == Err.ARGUMENT
        card.time_us += 3_600_000_000
        while log.log.next_segment == 0 or log.log.open == 0:
            log.append(bytes(100))
        segment = log.log.next_segment
        while log.log.next_segment == segment:
            log.append(bytes(1000))
        log = Log(card)
        assert checkpoint_of(log) == content
    card.data[:BLOCK] = card.data[-BLOCK:] = bytes(BLOCK)
    log = Log(card)
    assert (log.state, checkpoint_of(log)) == (wire.CardState.READY, b"")


def test_segments_describe_streams():
    from drip._core import ffi, lib

    _, log = make()
    streams = ffi.new("drip_stream_t[2]")
    streams[0].id, streams[0].dtype, streams[0].rank = 1, int(wire.Dtype.U8), 2
    streams[0].shape = [8, 8, 1, 1]
    streams[1].id = 5
    assert lib.drip_log_streams(log.log, streams, 5) == Err.ARGUMENT
    assert lib.drip_log_streams(log.log, streams, 2) == OK
    log.append(b"x")
    log.sync()
    header = parse_segment(log.segments()[0]).header
    assert header.stream_count == 2
    assert (header.streams[0].id, header.streams[0].shape) == (1, (8, 8, 1, 1))
    assert header.streams[1].id == 5
