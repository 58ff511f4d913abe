"""Where a log goes on: on cards that answer wrongly once, with bad blocks, and in full segments."""

from __future__ import annotations

import dataclasses
import random
import zlib

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config, format_card

from drip import wire
from drip.errors import CardError
from drip.records import is_frame, parse_segment

Err = wire.Err


def make(blocks: int = 256, segment_blocks: int = 32, **settings: int) -> tuple[SimCard, Log]:
    card = SimCard(bytearray(blocks * BLOCK))
    assert format_card(card, segment_blocks=segment_blocks) == OK
    return card, Log(card, config(**settings))


def frames(log: Log) -> dict[int, bytes]:
    """Frames of intact records by sequence number; none is there twice."""
    found: dict[int, bytes] = {}
    for data in log.segments().values():
        try:
            parsed = parse_segment(data)
        except CardError:
            continue
        for record in parsed.records:
            if is_frame(record.header):
                assert record.header.seq not in found, "twice"
                found[record.header.seq] = record.payload
    return found


def gaps(log: Log) -> wire.RecordGap:
    """Sums of what the GAP records say."""
    total = wire.RecordGap()
    for data in log.segments().values():
        try:
            parsed = parse_segment(data)
        except CardError:
            continue
        for record in parsed.records:
            if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP:
                gap = wire.RecordGap.unpack(record.payload)
                total = wire.RecordGap(
                    full=total.full + gap.full,
                    card=total.card + gap.card,
                    damaged=total.damaged + gap.damaged,
                    evicted=total.evicted + gap.evicted,
                )
    return total


def test_a_segment_that_is_full_to_the_last_byte_ends_there():
    """Its end is a multiple of the distance of marks, but no mark follows."""
    card, log = make()
    room = log.segment_bytes - wire.SegmentHeader.SIZE
    seq = log.append(bytes([7]) * (room - wire.RecordHeader.SIZE))
    assert log.sync() == OK
    assert log.durable == log.segment_bytes
    again = Log(card, log.settings)
    assert again.durable == again.segment_bytes
    assert list(frames(again)) == [seq]
    assert again.append(b"x" * 100) > seq and again.sync() == OK
    assert len(frames(again)) == 2


def wrong_bits(chance: random.Random) -> list[int]:
    """Bits of a block: of what starts one, of what ends one, and others."""
    return [3, 100, BLOCK * 8 - 1, *(chance.randrange(BLOCK * 8) for _ in range(3))]


@pytest.mark.parametrize("seed", range(6))
def test_one_wrong_answer_to_a_mount_costs_nothing(seed):
    """Each read of a mount in turn comes back with a flipped bit; then the log is written on."""
    chance = random.Random(seed)
    card, log = make(512, chance.choice([8, 64]))
    given: dict[int, bytes] = {}
    for _ in range(chance.randrange(5, 60)):
        payload = chance.randbytes(chance.choice([1, 60, 440, 448, 700, 3000]))
        seq = log.append(payload)
        assert seq > 0
        given[seq] = payload
        if chance.random() < 0.4:
            assert log.sync() == OK
        card.time_us += chance.randrange(3_000_000)
        log.drive()
    assert log.sync() == OK
    before = bytes(card.data)
    reads = card.reads
    Log(SimCard(bytearray(before)), log.settings)
    fresh = SimCard(bytearray(before))
    Log(fresh, log.settings)
    reads = fresh.reads
    assert reads > 5
    for number in range(reads):
        for bit in wrong_bits(chance):
            liar = SimCard(bytearray(before), lie_at=number, lie=bit)
            misled = Log(liar, log.settings)
            assert misled.state == wire.CardState.READY
            for size in (500, 3000):
                assert misled.append(bytes(size)) > max(given)
                assert misled.sync() == OK
            found = frames(Log(SimCard(bytearray(liar.data)), log.settings))
            missing = set(given) - set(found)
            assert not missing, f"read {number} of {reads}, bit {bit}"
            assert all(found[seq] == payload for seq, payload in given.items())


def keep_appending(card: SimCard, log: Log, payload: bytes) -> int:
    """Append and sync as a device does: mount again when the card has failed. Sequence number."""
    for _ in range(10):
        seq = log.append(payload)
        if seq > 0 and log.sync() == OK and log.pending == 0:
            return seq
        card.time_us += 1_000_000
        log.mount()
    raise AssertionError("the log never goes on")


@pytest.mark.parametrize("block", [5, 6, 12, 13, 30])
@pytest.mark.parametrize("size", [200, 1500])
def test_a_block_that_can_never_be_written_is_passed_by(block, size):
    """Also when a segment would begin there (blocks 4, 12, 20 ...)."""
    card, log = make(128, 8)
    card.write_errors.add(block)
    given = {}
    for number in range(12 if size == 1500 else 60):
        payload = bytes([number + 1]) * size
        given[keep_appending(card, log, payload)] = payload
    again = Log(SimCard(bytearray(card.data)), log.settings)
    for reader in (log, again):
        assert {seq: frames(reader).get(seq) for seq in given} == given
    assert log.log.errors > 0
    assert gaps(again).damaged + gaps(again).card > 0


@pytest.mark.parametrize("copy", [0, 127])
def test_a_superblock_that_can_never_be_written_is_done_without(copy):
    card, log = make(128, 8)
    card.write_errors.add(copy)
    given = {}
    for number in range(12):
        card.time_us += 11_000_000
        log.drive()
        given[keep_appending(card, log, bytes([number + 1]) * 900)] = number
    assert set(frames(Log(SimCard(bytearray(card.data)), log.settings))) >= set(given)


def test_a_block_that_can_never_be_written_does_not_stop_a_log_that_evicts():
    card, log = make(160, 16, full_mode=wire.FullMode.EVICT)
    card.write_errors.add(4 + 16 * 2)  # where a segment begins
    for number in range(400):
        keep_appending(card, log, bytes([number % 251 + 1]) * 900)
    assert log.log.evicted > 100
    assert len(frames(log)) > 50


def test_records_that_a_cut_has_garbled_are_counted_by_their_numbers():
    card, log = make(256, 64, commit_ms=0)
    given = [log.append(bytes([number + 1]) * 900) for number in range(12)]
    block = 4 + 1 + 6
    card.data[block * BLOCK : (block + 2) * BLOCK] = random.Random(1).randbytes(2 * BLOCK)
    again = Log(card, log.settings)
    seq = again.append(b"next")
    assert again.sync() == OK
    lost = [number for number in given if number not in frames(again)]
    assert 1 <= len(lost) <= 3
    assert gaps(again).card == len(lost)
    assert seq > max(given)


@pytest.mark.parametrize("mounts", [1, 2, 3])
@pytest.mark.parametrize("segments", [1, 2])
def test_a_loss_is_told_however_often_power_fails_before_the_next_record(segments, mounts):
    """The newest segments are noise: what shows it is the place of the header that comes next."""
    card, log = make(256, 8, commit_ms=0)
    given = [log.append(bytes([number + 1]) * 900) for number in range(20)]
    first = 4 + 8 * (log.log.next_segment - segments)
    size = segments * 8 * BLOCK
    card.data[first * BLOCK : first * BLOCK + size] = random.Random(1).randbytes(size)
    for _ in range(mounts):
        log = Log(card, log.settings)
        assert log.log.damaged == 1
    assert log.append(b"next") > max(given)
    assert log.sync() == OK
    assert len(set(given) - set(frames(log))) > 1
    assert gaps(log).damaged == 1
    assert Log(card, log.settings).log.damaged == 0, "told once"


def test_a_day_of_checkpoints_and_segments_writes_a_superblock_at_most_every_ten_seconds():
    """A checkpoint changes every second; there are more segments than superblocks."""
    card, log = make(4096, 8)
    card.writes.clear()
    last, count = -(10**9), 0
    checkpoint = bytearray(32)
    chance = random.Random(5)
    from drip._core import ffi, lib

    for second in range(0, 86_400, 2):
        card.time_us = second * 1_000_000
        checkpoint[:4] = second.to_bytes(4, "little")
        assert lib.drip_log_checkpoint_set(log.log, ffi.from_buffer(checkpoint), 32) == OK
        if second % 20 == 0:
            while log.append(bytes(chance.randrange(1, 1500))) == Err.FULL:
                number = log.acked // log.segment_bytes
                data = log.read(log.acked, log.segment_bytes)
                parsed = parse_segment(data)
                assert log.ack(number, parsed.count, parsed.digest) == OK
        log.drive()
        supers = [item for item in card.writes if item[0] in (0, card.blocks - 1)]
        card.writes.clear()
        if supers and second > 0:
            # Two at once: a segment may only be overwritten when its acknowledgement is noted.
            assert len(supers) <= 2
            count += 1
            if len(supers) == 1 and log.log.next_segment < 500:
                assert second - last >= 10
            last = second
    assert 86_400 // 61 <= count <= 8640


def sealed(struct: object) -> bytes:
    """A block whose last four bytes are the checksum of the others, as on a card."""
    content = struct.pack()[:-4]  # type: ignore[attr-defined]
    return content + zlib.crc32(content).to_bytes(4, "little")


@pytest.mark.parametrize("seed", range(150))
def test_a_card_that_lies_with_good_checksums_is_mounted_in_few_reads(seed):
    """Superblocks, headers and marks whose checksums are right and whose numbers are not."""
    chance = random.Random(seed)
    blocks, size = 512, chance.choice([2, 8, 32, 64])
    card = SimCard(bytearray(chance.randbytes(blocks * BLOCK)))
    assert format_card(card, segment_blocks=size) == OK
    plain = wire.Superblock.unpack(bytes(card.data[:BLOCK]))
    big = [0, 1, 5, 40, 1 << 16, 0x7FFEFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
    for block in (0, blocks - 1):
        if chance.random() < 0.7:
            changed = dataclasses.replace(
                plain,
                generation=chance.choice(big),
                next_segment=chance.choice(big),
                acked_segment=chance.choice(big),
                tail_segment=chance.choice(big),
                next_seq=chance.choice([0, 1, 1 << 40, (1 << 64) - 1]),
                boot_id=chance.choice(big),
            )
            card.data[block * BLOCK : (block + 1) * BLOCK] = sealed(changed)
        elif chance.random() < 0.5:
            card.data[block * BLOCK : (block + 1) * BLOCK] = bytes(BLOCK)
    start = chance.choice(big)
    for slot in range(plain.segment_count):
        number = start - start % plain.segment_count + slot
        number += chance.choice([0, 0, 1, plain.segment_count])
        header = wire.SegmentHeader(
            magic=wire.SEGMENT_MAGIC,
            version=wire.SEGMENT_VERSION,
            header_bytes=wire.SegmentHeader.SIZE,
            log_uuid=plain.log_uuid,
            segment=number & 0xFFFFFFFF,
            boot_id=chance.choice(big),
            first_seq=chance.choice([0, 1, 1 << 40]),
            next_seq=chance.choice([0, 1, (1 << 64) - 1]),
            segment_bytes=size * BLOCK,
            previous_records=chance.choice(big),
            previous_bytes=chance.choice(big),
            acked_segment=chance.choice(big),
            data_block=plain.data_block,
            unit_blocks=plain.unit_blocks,
            segment_count=plain.segment_count,
            region_blocks=plain.region_blocks,
            tail_segment=chance.choice(big),
            victim=chance.choice([0, 0, 1, number & 0xFFFFFFFF]),
        )
        at = (plain.data_block + slot * size) * BLOCK
        card.data[at : at + BLOCK] = sealed(header)
    card.reads = 0
    log = Log(card, config(full_mode=chance.choice([0, 1, 2])))
    assert card.reads <= 160
    assert log.state in (wire.CardState.READY, wire.CardState.FOREIGN)
    for _ in range(3):
        log.append(bytes(700))
        log.sync()
    reads = card.reads
    for position in (0, log.tail, log.durable - BLOCK):
        if 0 <= position < 1 << 62:
            log.read(position // BLOCK * BLOCK)
    assert card.reads <= reads + 12
