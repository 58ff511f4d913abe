"""The log stage on a simulated card: what it promises when nothing fails, and when blocks do."""

from __future__ import annotations

import random
import zlib

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config, format_card

from drip import wire
from drip.records import is_frame, iter_records, parse_records, parse_segment

UUID = bytes(range(16))
Err = wire.Err


def make(
    blocks: int = 128, *, settings: object | None = None, **geometry: int
) -> tuple[SimCard, Log]:
    card = SimCard(bytearray(blocks * BLOCK))
    assert format_card(card, **geometry) == OK
    log = Log(card, settings)
    assert log.state == wire.CardState.READY
    return card, log


def records_of(log: Log) -> list[tuple[int, bytes]]:
    found = []
    for data in log.segments().values():
        parsed = parse_segment(data)
        assert not parsed.damage
        found += [
            (record.header.seq, record.payload)
            for record in parsed.records
            if is_frame(record.header)
        ]
    return found


def payload_of(number: int, size: int) -> bytes:
    return random.Random(number).randbytes(size)


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


def supers_since(card: SimCard, before: int) -> int:
    return sum(block in (0, card.blocks - 1) for block, _ in card.writes[before:])


def test_superblocks_are_ten_seconds_apart_and_never_more_than_segments():
    card, log = make(512)
    before = len(card.writes)
    for number in range(20):
        log.append(bytes(3000))
        assert log.log.next_segment == number + 1
    assert supers_since(card, before) == 0, "no time has passed"
    for number in range(20):
        card.time_us += 9_999_999
        log.append(bytes(3000))
        assert supers_since(card, before) == (number + 1) // 2
    before = len(card.writes)
    card.time_us += 3_600_000_000
    log.drive()
    log.sync()
    assert supers_since(card, before) == 1, "the last segments are noted"
    card.time_us += 3_600_000_000
    log.drive()
    assert supers_since(card, before) == 1, "nothing new to note"


def test_numbers_that_are_used_up_are_reserved_in_time():
    card, log = make(512)
    before = len(card.writes)
    while log.append(bytes(3000)) > 0:
        assert log.log.next_seq < wire.Superblock.unpack(newest_super(card)).next_seq
    assert supers_since(card, before) <= log.log.next_segment // 32 + 1


def newest_super(card: SimCard) -> bytes:
    found = [bytes(card.data[:BLOCK]), bytes(card.data[-BLOCK:])]
    return max(found, key=lambda data: wire.Superblock.unpack(data).generation)


def test_acknowledgements_wait_for_a_superblock_and_so_does_their_space():
    card, log = make(segment_blocks=8)
    while log.append(bytes(3000)) > 0:
        pass
    log.sync()
    for segment in range(3):
        before = len(card.writes)
        assert log.ack(*ack_of(log, segment)) == OK
        assert len(card.writes) == before
    assert log.acked == 3 * log.segment_bytes
    assert Log(SimCard(bytearray(card.data))).acked == 0, "forgotten: the host is asked again"
    assert log.append(bytes(3000)) > 0
    blocks = [block for block, _ in card.writes[before:]]
    assert blocks[0] in (0, card.blocks - 1), "first the superblock that frees the space"
    assert supers_since(card, before) == 1
    for _ in range(2):
        assert log.append(bytes(3000)) > 0
    assert supers_since(card, before) == 1, "it has freed all three"
    assert Log(SimCard(bytearray(card.data))).acked == 3 * log.segment_bytes
    assert log.ack(*ack_of(log, 3)) == OK
    before = len(card.writes)
    card.time_us += 10_000_000
    log.drive()
    assert supers_since(card, before) == 1
    assert Log(card).acked == 4 * log.segment_bytes


def later(log: Log) -> None:
    """Time for a superblock."""
    log.card.time_us += 10_000_000
    log.drive()


def ack_of(log: Log, segment: int) -> tuple[int, int, int]:
    parsed = parse_segment(log.segments()[segment])
    return segment, parsed.count, parsed.digest


def test_overwrite_acked_reuses_acknowledged_segments_only():
    card, log = make(segment_blocks=8)
    count = log.log.super.segment_count
    assert count == 15
    seqs = []
    while (seq := log.append(payload_of(len(seqs), 1000))) > 0:
        seqs.append(seq)
    assert seq == Err.FULL and log.state == wire.CardState.FULL
    log.sync()
    assert [number for number, _ in records_of(log)] == seqs
    assert log.ack(*ack_of(log, 0)) == OK
    assert (log.acked, log.tail) == (log.segment_bytes, 0)
    added = log.append(b"new")
    log.sync()
    assert added == seqs[-1] + 1
    assert log.state == wire.CardState.READY
    assert (log.tail, log.durable) == (log.segment_bytes, count * log.segment_bytes + 2 * BLOCK)
    assert log.read(0) == Err.GONE
    per_segment = 3
    assert [number for number, _ in records_of(log)] == [*seqs[per_segment:], added]
    again = Log(card)
    assert (again.tail, again.durable, again.acked) == (log.tail, log.durable, log.acked)
    assert records_of(again) == records_of(log)


def gaps_of(log: Log) -> list[wire.RecordGap]:
    return [
        wire.RecordGap.unpack(record.payload)
        for data in log.segments().values()
        for record in parse_segment(data).records
        if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
    ]


def test_the_log_says_what_is_not_in_it():
    card, log = make(segment_blocks=8)
    while log.append(bytes(1000)) > 0:
        pass
    card.time_us = 5_000
    assert log.append(bytes(1000)) == Err.FULL
    assert log.append(bytes(1000)) == Err.FULL
    log.sync()
    assert log.ack(*ack_of(log, 0)) == OK
    card.time_us = 9_000
    assert log.append(b"after the gap") > 0
    log.sync()
    (gap,) = gaps_of(log)
    assert (gap.full, gap.card, gap.damaged) == (3, 0, 0)
    assert (gap.first_us, gap.last_us) == (5_000, 9_000)
    card.absent = True
    log.append(b"lost")
    log.append(b"lost, too")
    log.sync()
    card.absent = False
    assert log.mount() == wire.CardState.READY
    assert log.append(b"again") > 0
    log.sync()
    assert [(gap.full, gap.card) for gap in gaps_of(log)] == [(3, 0), (0, 2)]


def full_log(size: int) -> tuple[SimCard, Log]:
    """A log in mode STOP with records of a size, and two more refused at 5 ms."""
    card, log = make(segment_blocks=8, settings=config(full_mode=wire.FullMode.STOP))
    while log.append(bytes([7]) * size) > 0:
        pass
    card.time_us = 5_000
    assert log.append(bytes(size)) == Err.FULL
    return card, log


def test_a_sync_tells_what_a_full_log_has_refused():
    """Else a power loss would take it: the counts wait in memory for the next record."""
    card, log = full_log(900)
    log.sync()
    there = records_of(log)
    assert log.state == wire.CardState.FULL
    (gap,) = gaps_of(Log(SimCard(bytearray(card.data)), log.settings))
    assert gap.full == 2
    writes = len(card.writes)
    log.sync()
    assert len(card.writes) == writes, "it was told"
    assert log.append(bytes(900)) == Err.FULL
    assert records_of(log) == there


@pytest.mark.parametrize("flushing", [True, False])
def test_what_a_full_log_has_refused_is_written_over_nothing(flushing):
    """There is room for it in the block that is being written, and none behind that."""
    card, log = make(segment_blocks=8)
    seqs = []
    while True:
        result, seq, keep = log.start_append(payload_of(len(seqs), 1000))
        if result != OK:
            break
        log.drive()
        seqs.append(seq)
    assert result == Err.FULL and log.pending > 0
    if not flushing:
        log.drive()
    assert log.sync() == OK
    del keep
    assert (log.state, log.pending, log.log.gap.full) == (wire.CardState.FULL, 0, 1)
    again = Log(SimCard(bytearray(card.data)), log.settings)
    assert [number for number, _ in records_of(again)] == seqs


def test_a_record_of_what_is_missing_names_its_boot():
    card, log = make(segment_blocks=8)
    log.append(b"lost")
    card.absent = True
    log.sync()
    card.absent = False
    assert log.mount() == wire.CardState.READY
    log.sync()
    (record,) = [
        record for data in log.segments().values() for record in parse_segment(data).records
    ]
    assert wire.RecordGap.unpack(record.payload).card == 1
    assert record.header.boot_id == log.log.boot_id == 2


def test_stop_mode_keeps_even_what_is_acknowledged():
    _, log = make(settings=config(full_mode=wire.FullMode.STOP))
    while log.append(bytes(1000)) > 0:
        pass
    log.sync()
    for segment in range(3):
        assert log.ack(*ack_of(log, segment)) == OK
    assert log.append(bytes(1000)) == Err.FULL
    assert log.tail == 0


def test_acknowledgements_come_in_order_with_the_right_digest():
    card, log = make()
    for number in range(10):
        log.append(payload_of(number, 1000))
    log.sync()
    first = ack_of(log, 0)
    assert log.ack(*ack_of(log, 1)) == Err.STATE
    assert log.ack(first[0], first[1] + 1, first[2]) == Err.DIGEST
    assert log.ack(first[0], first[1], first[2] ^ 1) == Err.DIGEST
    assert log.acked == 0
    assert log.ack(*first) == OK
    assert log.acked == log.segment_bytes
    assert log.ack(0, 99, 99) == OK, "repeating is harmless"
    assert log.ack(99, 0, 0) == Err.STATE
    later(log)
    assert Log(card).acked == log.segment_bytes


def test_acknowledging_the_open_segment_closes_it():
    card, log = make()
    log.append(b"first")
    log.sync()
    stale = ack_of(log, 0)
    log.append(b"second")
    assert log.ack(*stale) == Err.DIGEST, "there is more in it by now"
    assert log.pending == 0
    assert log.ack(*ack_of(log, 0)) == OK
    assert log.acked == log.durable == log.segment_bytes
    assert log.read(log.durable) == Err.RANGE
    later(log)
    assert Log(card).durable == log.durable
    assert log.append(b"third") == 3
    log.sync()
    assert parse_segment(log.segments()[1]).records[0].payload == b"third"


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


# --------------------------------------------------- cards that are not as they should be


def test_geometry_that_makes_no_sense_is_refused():
    card = SimCard(bytearray(128 * BLOCK))
    for wrong in (
        {"unit_blocks": 3},
        {"unit_blocks": 0},
        {"segment_blocks": 6},
        {"segment_blocks": 1},
        {"segment_blocks": 64},
        {"unit_blocks": 64},
        {"blocks": 129},
        {"blocks": 3},
        {"first_block": 127, "blocks": 1},
        {"first_block": 0xFFFFFFF0, "blocks": 0x20},
    ):
        assert format_card(card, **wrong) == Err.ARGUMENT, wrong
    assert not card.writes


def test_segments_are_aligned_on_the_card_wherever_the_region_starts():
    card = SimCard(bytearray(256 * BLOCK))
    assert format_card(card, first_block=13, blocks=200, unit_blocks=16) == OK
    log = Log(card, first_block=13)
    assert log.state == wire.CardState.READY
    assert (13 + log.log.super.data_block) % 16 == 0
    payloads = [payload_of(number, 1000) for number in range(30)]
    for payload in payloads:
        assert log.append(payload) > 0
    log.sync()
    assert [payload for _, payload in records_of(Log(card, first_block=13))] == payloads
    assert not any(card.data[: 13 * BLOCK]) and not any(card.data[213 * BLOCK :])


def test_a_card_without_a_log_is_foreign_and_one_that_is_gone_is_absent():
    card = SimCard(bytearray(64 * BLOCK))
    log = Log(card)
    assert log.state == wire.CardState.FOREIGN
    assert not card.writes, "somebody else's card is left alone"
    assert log.append(b"x") == Err.NO_CARD
    assert log.sync() == Err.NO_CARD
    assert log.read(0) == Err.NO_CARD
    assert log.ack(0, 0, 0) == Err.NO_CARD
    card.absent = True
    assert log.mount() == wire.CardState.ABSENT


def test_a_card_pulled_and_put_back_goes_on():
    card, log = make()
    log.append(b"kept")
    log.sync()
    card.absent = True
    log.append(b"lost")
    log.sync()
    assert log.state == wire.CardState.ABSENT
    assert log.append(b"refused") == Err.NO_CARD
    card.absent = False
    assert log.mount() == wire.CardState.READY
    assert log.append(b"after") > 2
    log.sync()
    assert [payload for _, payload in records_of(log)] == [b"kept", b"after"]


def test_a_write_error_stops_the_log_and_a_remount_keeps_what_was_durable():
    card, log = make()
    log.append(b"kept")
    log.sync()
    card.write_errors = set(range(card.blocks))
    log.append(b"lost")
    log.sync()
    assert log.state == wire.CardState.ERROR
    assert log.log.errors > 0 and log.log.last_error == Err.IO
    assert (log.pending, log.log.lost) == (1, 0)
    card.write_errors = set()
    assert log.mount() == wire.CardState.READY
    assert (log.pending, log.log.lost) == (0, 1), "never silently"
    assert [payload for _, payload in records_of(log)] == [b"kept"]


def test_a_block_that_cannot_be_read_harms_only_its_read():
    card, log = make()
    for number in range(10):
        log.append(payload_of(number, 1000))
    log.sync()
    bad = log.log.super.data_block + 3
    card.read_errors = {bad}
    assert log.read(3 * BLOCK, BLOCK) == Err.IO
    assert log.state == wire.CardState.READY
    assert isinstance(log.read(4 * BLOCK, BLOCK), bytes)
    assert log.append(b"on it goes") > 0


def test_an_unreadable_block_in_the_newest_segment_is_never_written_over():
    card, log = make()
    for _ in range(3):
        log.append(bytes(200))
        log.sync()
    last = log.log.super.data_block + 3
    before = bytes(card.data[last * BLOCK : (last + 1) * BLOCK])
    card.read_errors = {last}
    again = Log(card)
    assert again.state == wire.CardState.READY and again.log.damaged > 0
    assert again.append(b"goes elsewhere") > 3
    again.sync()
    card.read_errors = set()
    assert bytes(card.data[last * BLOCK : (last + 1) * BLOCK]) == before
    payloads = [payload for _, payload in records_of(again)]
    assert payloads == [bytes(200)] * 3 + [b"goes elsewhere"]
    assert again.ack(0, 123, 456) == Err.DIGEST
    card.read_errors = {last}
    assert again.ack(0, 123, 456) == OK, "what the log could not read it cannot dispute"


def test_one_damaged_superblock_costs_no_record():
    for broken in (0, 127):
        card, log = make()
        for number in range(10):
            log.append(payload_of(number, 1000))
        log.sync()
        log.ack(*ack_of(log, 0))
        later(log)
        expected, acked = records_of(log), log.acked
        newest = log.log.super.generation % 2 == (broken == 127)
        card.data[broken * BLOCK + 100] ^= 1
        again = Log(card)
        assert again.state == wire.CardState.READY
        assert records_of(again) == expected
        # What was acknowledged last is forgotten with the newest copy: the host is asked again.
        assert again.acked == (0 if newest else acked)
        assert again.append(b"x") > 10


def test_both_superblocks_gone_are_rebuilt_from_the_segments():
    for turns in (0, 2):
        card, log = make()
        written = 0
        while log.durable < (turns * 15 + 4) * log.segment_bytes:
            written = log.append(payload_of(written, 1000))
            log.sync()
            if log.durable - log.acked > 3 * log.segment_bytes:
                assert log.ack(*ack_of(log, log.acked // log.segment_bytes)) == OK
        expected, boot = records_of(log), log.log.boot_id
        card.data[:BLOCK] = bytes(BLOCK)
        card.data[-BLOCK:] = bytes(BLOCK)
        again = Log(card)
        assert again.state == wire.CardState.READY
        assert records_of(again) == expected
        assert again.log.boot_id > boot
        assert log.acked - again.acked <= log.segment_bytes
        assert again.append(b"x") > written
        assert Log(card).state == wire.CardState.READY


def test_a_damaged_segment_header_hides_nothing():
    card, log = make()
    for number in range(10):
        log.append(payload_of(number, 1000))
    log.sync()
    expected = {number: parse_segment(data).records for number, data in log.segments().items()}
    newest = max(expected)
    at = (log.log.super.data_block + newest * 8) * BLOCK
    header = parse_segment(bytes(card.data[at : at + 8 * BLOCK])).header
    card.data[at + 40] ^= 255
    again = Log(card)
    assert again.log.damaged == 1
    assert again.durable == (newest + 1) * log.segment_bytes, "nothing is added to it"
    assert tuple(iter_records(again.segments()[newest], header)) == expected[newest]
    assert again.append(b"x") > 10
    again.sync()
    assert parse_segment(again.segments()[newest + 1]).records[0].payload == b"x"


def test_damage_inside_the_newest_segment_costs_the_records_it_touches():
    card, log = make(segment_blocks=16)
    for number in range(5):
        log.append(payload_of(number, 1000))
        log.sync()
    at = (log.log.super.data_block + 1) * BLOCK
    card.data[at + 3 * BLOCK + 70] ^= 1
    again = Log(card)
    parsed = parse_segment(again.segments()[0])
    assert [record.header.seq for record in parsed.records] == [1, 3, 4, 5]
    assert [damage.reason for damage in parsed.damage] == ["frame of record 2 is damaged"]
    assert again.ack(0, parsed.count, parsed.digest) == OK


def test_an_earlier_log_on_the_card_is_never_read_as_the_new_one():
    card, log = make()
    for number in range(40):
        log.append(payload_of(number, 1000))
        log.sync()
    assert format_card(card, uuid=bytes(16)) == OK
    log = Log(card)
    assert (log.tail, log.durable) == (0, 0)
    seq = log.append(b"the only one")
    log.sync()
    assert records_of(log) == [(seq, b"the only one")]
    assert records_of(Log(card)) == [(seq, b"the only one")]


def test_frames_that_look_like_records_are_not_taken_for_records():
    card, log = make(segment_blocks=16)
    log.append(b"original")
    log.sync()
    inner = log.segments()[0][BLOCK : 2 * BLOCK]
    log.append(bytes(448) + inner)
    log.sync()
    # The record that holds the copy loses its header.
    at = (log.log.super.data_block + 2) * BLOCK
    card.data[at + 5] ^= 1
    again = Log(card)
    assert [payload for _, payload in records_of_any(again)] == [b"original"]


def records_of_any(log: Log) -> list[tuple[int, bytes]]:
    return [
        (record.header.seq, record.payload)
        for number, data in log.segments().items()
        for record in parse_records(
            data,
            wire.SegmentHeader(
                log_uuid=UUID,
                segment=number,
                header_bytes=BLOCK,
                segment_bytes=log.segment_bytes,
            ),
        ).records
    ]


@pytest.mark.parametrize("seed", range(8))
def test_device_and_host_agree_on_what_a_damaged_segment_holds(seed):
    chance = random.Random(seed)
    card, log = make(256, segment_blocks=64)
    while log.durable < log.segment_bytes * 3 // 4:
        log.append(chance.randbytes(chance.choice([1, 100, 448, 800, 2000])))
        if chance.random() < 0.5:
            log.sync()
    log.sync()
    good, start = bytes(card.data), (log.log.super.data_block + 1) * BLOCK
    counts = set()
    for _ in range(40):
        card.data[:] = good
        for _ in range(chance.randrange(1, 6)):
            at, other = (start + chance.randrange(63) * BLOCK for _ in range(2))
            kind = chance.choice(["flip", "copy", "zero", "shift"])
            if kind == "flip":
                card.data[at + chance.randrange(BLOCK)] ^= 1 << chance.randrange(8)
            elif kind == "copy":
                card.data[at : at + BLOCK] = card.data[other : other + BLOCK]
            elif kind == "zero":
                card.data[at : at + BLOCK] = bytes(BLOCK)
            else:
                size = 8 * chance.randrange(1, 60)
                card.data[at + size : at + 2 * BLOCK] = card.data[at : at + 2 * BLOCK - size]
        again = Log(card)
        parsed = parse_segment(again.segments()[0])
        assert again.ack(0, parsed.count + 1, parsed.digest) == Err.DIGEST
        assert again.ack(0, parsed.count, parsed.digest) == OK
        counts.add(parsed.count)
    assert len(counts) > 3


def test_hostile_superblocks_are_refused():
    card, log = make()
    log.append(b"x")
    log.sync()
    chance = random.Random(1)
    good = wire.Superblock.unpack(bytes(card.data[:BLOCK]))
    fields = [name for name in wire.Superblock.OFFSETS if name not in ("crc", "magic")]
    for _ in range(400):
        name = chance.choice([n for n in fields if isinstance(getattr(good, n), int)])
        limit = 1 << (16 if name in ("version", "header_bytes") else 32)
        values = dict(good.__dict__)
        values[name] = chance.choice([0, 1, 3, limit - 1, limit // 2, chance.randrange(limit)])
        raw = wire.Superblock(**values).pack()
        raw = raw[:-4] + zlib.crc32(raw[:-4]).to_bytes(4, "little")
        hostile = SimCard(bytearray(card.data))
        hostile.data[:BLOCK] = raw
        hostile.data[-BLOCK:] = raw
        again = Log(hostile)
        assert again.state in (
            wire.CardState.READY,
            wire.CardState.FOREIGN,
            wire.CardState.ERROR,
        )
        if again.state == wire.CardState.READY:
            again.append(b"y")
            again.sync()


def test_any_noise_on_the_card_ends_in_a_state_and_never_outside_of_it():
    chance = random.Random(7)
    card, log = make()
    for number in range(30):
        log.append(payload_of(number, chance.randrange(1, 2000)))
    log.sync()
    for _ in range(150):
        noisy = SimCard(bytearray(card.data))
        for _ in range(chance.choice([1, 10, 100, 2000])):
            noisy.data[chance.randrange(len(noisy.data))] = chance.randrange(256)
        again = Log(noisy)
        if again.state == wire.CardState.READY:
            seq = again.append(b"new")
            again.sync()
            if again.state == wire.CardState.READY:
                assert seq == Err.FULL or (seq, b"new") in records_of_any(again)
