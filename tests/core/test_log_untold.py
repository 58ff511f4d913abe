"""What a full log has refused outlives power in its superblock until a GAP record tells it."""

from __future__ import annotations

import random

import pytest
from cardsim import BLOCK, OK, Log, SimCard, config, format_card
from drip._core import ffi, lib

from drip import wire
from drip.records import parse_segment

Err = wire.Err
STOP, ACKED = wire.FullMode.STOP, wire.FullMode.OVERWRITE_ACKED
SEGMENT_BLOCKS = 8
BLOCKS = 64
LAST = BLOCKS - 1  # where odd superblocks lie
FILLS = bytes([7]) * ((SEGMENT_BLOCKS - 1) * BLOCK - wire.RecordHeader.SIZE)
CHECKPOINT_US = 11_000_000


def full_log(mode: wire.FullMode = ACKED, uuid: bytes = bytes(16)) -> tuple[SimCard, Log]:
    """A log that is full to its last block: no GAP record fits."""
    card = SimCard(bytearray(BLOCKS * BLOCK))
    assert format_card(card, segment_blocks=SEGMENT_BLOCKS, uuid=uuid) == OK
    log = Log(card, config(full_mode=mode))
    while (seq := log.append(FILLS)) > 0:
        pass
    assert (seq, log.log.gap.full) == (Err.FULL, 1)
    return card, log


def refuse(log: Log, count: int) -> None:
    for _ in range(count):
        assert log.append(FILLS) == Err.FULL
        log.sync()


def checkpoint(log: Log) -> None:
    log.card.time_us += CHECKPOINT_US
    assert lib.drip_log_checkpoint_write(log.log) == OK
    log.drive()


def after_power_cut(card: SimCard, settings: object) -> Log:
    """The log on what the card holds now, in a device that has just started."""
    return Log(SimCard(bytearray(card.data)), settings)


def told(log: Log) -> list[int]:
    """`full` of the GAP records in a log."""
    return [
        wire.RecordGap.unpack(record.payload).full
        for data in log.segments().values()
        for record in parse_segment(data).records
        if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
    ]


def make_room(log: Log, segments: int = 2) -> None:
    first = log.acked // log.segment_bytes
    for segment in range(first, first + segments):
        parsed = parse_segment(log.segments()[segment])
        assert log.ack(segment, parsed.count, parsed.digest) == OK


def tell(log: Log) -> list[int]:
    """Make room, go on recording; returns what all GAP records say then."""
    log.settings.full_mode = int(ACKED)
    lib.drip_log_configure(log.log, log.settings)
    make_room(log)
    assert log.append(b"again") > 0
    assert log.sync() == OK
    assert log.log.gap.full == 0
    return told(log)


@pytest.mark.parametrize("restarts", [1, 2, 3])
@pytest.mark.parametrize("mode", [STOP, ACKED])
def test_what_was_refused_before_a_checkpoint_is_told_after_a_power_loss(mode, restarts):
    card, log = full_log(mode)
    refuse(log, 41)
    checkpoint(log)
    refuse(log, 5)  # after the last superblock: these are forgotten
    for _ in range(restarts):
        log = after_power_cut(card, log.settings)
        card = log.card
        assert log.log.gap.full == 42
    refuse(log, 3)
    assert tell(log) == [45]
    log = after_power_cut(card, log.settings)
    assert (log.log.gap.full, told(log)) == (0, [45])


def test_a_checkpoint_without_news_changes_nothing():
    card, log = full_log()
    refuse(log, 9)
    for _ in range(3):
        checkpoint(log)
    assert after_power_cut(card, log.settings).log.gap.full == 10


def test_the_superblock_says_what_a_gap_record_will_say():
    card, log = full_log()
    log.log.gap.card, log.log.gap.damaged, log.log.gap.evicted = 2, 3, 4
    checkpoint(log)
    copy = wire.Superblock.unpack(bytes(card.writes[-1][1]))
    assert (copy.untold, copy.gaps) == ((1, 2, 3, 4), 0)
    again = after_power_cut(card, log.settings)
    gap = again.log.gap
    assert (gap.full, gap.card, gap.damaged, gap.evicted) == (1, 2, 3, 4)
    tell(again)
    checkpoint(again)
    copy = wire.Superblock.unpack(bytes(again.card.writes[-1][1]))
    assert (copy.untold, copy.gaps) == ((0, 0, 0, 0), 1)


@pytest.mark.parametrize("rounds", [1, 4])
def test_a_power_loss_at_every_write_tells_no_frame_twice_and_loses_none_of_a_superblock(rounds):
    """Between a superblock and the GAP record, and behind that, old or new or in part."""
    card, log = full_log()
    start, refused, known = len(card.writes), 1, 0
    before = bytearray(card.data)
    at: list[tuple[int, int]] = []  # per write: refused so far, and of these in a superblock

    def note() -> None:
        nonlocal known
        for block, _ in card.writes[start + len(at) :]:
            known = refused if block in (0, LAST) else known
            at.append((refused, known))

    for number in range(rounds):
        refuse(log, 3 + number)
        refused += 3 + number
        checkpoint(log)
        note()
        refuse(log, 2)
        refused += 2
        make_room(log, 1)
        assert log.append(FILLS if number % 2 else bytes(700)) > 0
        log.sync()
        checkpoint(log)
        note()
        while log.append(FILLS) > 0:
            note()
        refused += 1
        note()
    writes = card.writes[start:]
    assert len(writes) == len(at) > 5 * rounds
    exact = 0
    least = 0
    for number, (block, data) in enumerate(writes):
        old = bytes(before[block * BLOCK : (block + 1) * BLOCK])
        torn = random.Random(number).randrange(1, BLOCK)
        for now in (old, data[:torn] + old[torn:], data):
            cut = SimCard(bytearray(before))
            cut.data[block * BLOCK : (block + 1) * BLOCK] = now
            settings = log.settings
            first = Log(cut, settings)
            sums = []
            for again in (first, Log(cut, settings), Log(cut, settings)):
                sums.append(again.log.gap.full + sum(told(again)))
            assert len(set(sums)) == 1
            lower = least if now != data else at[number][1]
            assert lower <= sums[0] <= at[number][0], (number, block)
            exact += lower == at[number][0]
            if again.log.gap.full > 0:
                make_room(again, 1) if again.log.card == wire.CardState.FULL else None
                while again.append(b"x") == Err.FULL:
                    sums[0] += 1
                    make_room(again, 1)
                again.sync()
                assert sum(told(again)) + again.log.gap.full == sums[0]
        before[block * BLOCK : (block + 1) * BLOCK] = data
        least = max(least, at[number][1])
    assert exact > len(writes)


def test_a_card_that_was_pulled_and_put_back_counts_once():
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    refuse(log, 4)
    for _ in range(3):
        card.absent = True
        log.sync()
        log.mount()
        card.absent = False
        assert log.mount() == wire.CardState.READY
        assert log.log.gap.full == 11
    assert tell(log) == [11]


def test_what_one_card_has_to_tell_is_not_told_by_another():
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    refuse(log, 4)
    other, others = full_log(uuid=bytes([1] * 16))
    refuse(others, 19)
    checkpoint(others)
    assert lib.drip_log_mount(log.log, other.port, log.settings, 0, 0) == OK
    log.drive()
    # The four that no superblock has are told where there is a card.
    assert log.log.gap.full == 20 + 4
    assert after_power_cut(card, log.settings).log.gap.full == 7


@pytest.mark.parametrize("tries", [1, 2, 4])
def test_a_superblock_that_cannot_be_written_loses_no_count(tries):
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    refuse(log, 4)
    for _ in range(tries):
        card.write_errors = {0, LAST}
        checkpoint(log)
        assert log.state == wire.CardState.ERROR
        log.mount()
        assert log.state == wire.CardState.ERROR
        card.write_errors = set()
        assert log.mount() == wire.CardState.READY
        assert log.log.gap.full == 11
        refuse(log, 1)
        log.log.gap.full -= 1
    assert tell(log) == [11]


def fail_gap_record(log: Log, since: int) -> None:
    """Let the write of a GAP record fail that counts more than the last superblock does."""
    make_room(log)
    block = log.log.super.data_block + 1
    result, _, keep = log.start_append(b"there is room")
    assert result == OK
    while log.card.writes[-1][0] != block - 1:
        lib.drip_log_step(log.log)
    log.log.gap.full += since
    # The header of the new segment can be written, the block with the records not.
    log.card.write_errors = {block}
    log.drive()
    assert log.state == wire.CardState.ERROR
    log.card.write_errors = set()
    del keep


@pytest.mark.parametrize("mounts", [1, 3])
def test_a_gap_record_that_cannot_be_written_is_told_again(mounts):
    """Whole, also what no superblock has."""
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    refuse(log, 2)
    fail_gap_record(log, 5)
    for _ in range(mounts):
        assert log.mount() == wire.CardState.READY
        assert (log.log.gap.full, log.log.gap.card) == (14, 1)
    assert log.append(b"again") > 0
    log.sync()
    assert told(log) == [14]
    assert after_power_cut(card, log.settings).log.gap.full == 0


def test_a_gap_record_that_cannot_be_written_is_told_on_the_card_that_follows():
    _, log = full_log()
    refuse(log, 6)
    fail_gap_record(log, 5)
    other, others = full_log(uuid=bytes([1] * 16))
    checkpoint(others)
    assert lib.drip_log_mount(log.log, other.port, log.settings, 0, 0) == OK
    log.drive()
    assert (log.log.gap.full, log.log.gap.card) == (1 + 12, 1)


def test_what_memory_knows_outlives_a_header_that_may_hide_a_gap_record():
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    refuse(log, 3)
    newest = log.log.next_segment - 1
    header = log.log.super.data_block + newest % log.log.super.segment_count * SEGMENT_BLOCKS
    card.data[header * BLOCK + 40] ^= 1
    for _ in range(3):
        assert log.mount() == wire.CardState.READY
        assert log.log.gap.full == 10
    assert after_power_cut(card, log.settings).log.gap.full == 0


@pytest.mark.parametrize("steps", range(0, 40, 3))
def test_a_card_that_is_pulled_in_the_middle_of_a_mount_loses_no_count(steps):
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    refuse(log, 2)
    assert lib.drip_log_mount(log.log, card.port, log.settings, 0, 0) == OK
    for _ in range(steps):
        lib.drip_log_step(log.log)
    card.absent = True
    log.drive()
    card.absent = False
    assert log.mount() == wire.CardState.READY
    assert log.log.gap.full == 9


def test_a_gap_record_that_was_written_though_the_card_says_no_counts():
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    make_room(log)
    block = log.log.super.data_block + 1
    result, _, keep = log.start_append(b"there is room")
    assert result == OK
    while card.writes[-1][0] != block - 1:
        lib.drip_log_step(log.log)
    log.log.gap.full += 5  # behind the superblock
    while log.log.task == 0 or log.log.block_fill == 0:
        lib.drip_log_step(log.log)
    written = bytes(ffi.buffer(log.log.block.bytes))
    card.write_errors = {block}
    log.drive()
    assert log.state == wire.CardState.ERROR
    card.write_errors = set()
    card.data[block * BLOCK : (block + 1) * BLOCK] = written
    assert log.mount() == wire.CardState.READY
    assert (told(log), log.log.gap.full) == ([12], 0)
    del keep


def test_damage_that_every_mount_finds_is_counted_once():
    card, log = full_log()
    refuse(log, 2)
    checkpoint(log)
    newest = log.log.next_segment - 1
    header = log.log.super.data_block + newest % log.log.super.segment_count * SEGMENT_BLOCKS
    card.data[header * BLOCK + 40] ^= 1
    counts = []
    for _ in range(4):
        log = Log(card, log.settings)
        checkpoint(log)
        counts.append((log.log.gap.damaged, log.log.damaged))
    assert counts == [(1, 1)] * 4


def test_frames_missing_in_the_newest_segment_are_counted_once():
    """Every mount finds them again until a segment is opened; what a card lost before adds up."""
    card = SimCard(bytearray(BLOCKS * BLOCK))
    assert format_card(card, segment_blocks=SEGMENT_BLOCKS) == OK
    log = Log(card, config())
    for number in range(5):
        assert log.append(bytes([number + 1]) * 400) > 0
        log.sync()
    first = log.log.super.data_block
    card.data[(first + 2) * BLOCK : (first + 4) * BLOCK] = bytes(2 * BLOCK)
    log = Log(card, log.settings)
    assert log.log.gap.card == 2
    card.absent = True
    log.append(b"lost")
    card.absent = False
    assert log.mount() == wire.CardState.READY
    assert log.log.gap.card == 3
    for _ in range(3):
        checkpoint(log)
        log = Log(card, log.settings)
        assert log.log.gap.card == 3
    assert log.append(b"again") > 0
    log.sync()
    cards = [
        wire.RecordGap.unpack(record.payload).card
        for data in log.segments().values()
        for record in parse_segment(data).records
        if record.header.flags >> wire.RECORD_KIND_SHIFT == wire.RecordKind.GAP
    ]
    assert cards == [3]
    assert Log(card, log.settings).log.gap.card == 0


def test_a_gap_record_in_front_of_the_last_mark_counts():
    card = SimCard(bytearray(256 * BLOCK))
    assert format_card(card, segment_blocks=64) == OK
    log = Log(card, config())
    fills = bytes(63 * BLOCK - wire.LogMark.SIZE - wire.RecordHeader.SIZE)
    while log.append(fills) > 0:
        pass
    checkpoint(log)
    make_room(log, 1)
    for size in (10, 15_000, 5_000):
        assert log.append(bytes(size)) > 0
        log.sync()
        assert told(log) == [1]
        assert after_power_cut(card, log.settings).log.gap.full == 0


def test_a_damaged_header_that_may_hide_a_gap_record_tells_nothing_twice():
    card, log = full_log()
    refuse(log, 6)
    checkpoint(log)
    make_room(log)
    assert log.append(bytes(700)) > 0
    assert told(log) == [7]
    assert log.append(FILLS) > 0
    card.data[(log.log.super.data_block + SEGMENT_BLOCKS) * BLOCK + 40] ^= 1
    again = after_power_cut(card, log.settings)
    assert again.log.gap.damaged > 0
    assert again.log.gap.full == 0


def newest_header(log: Log) -> int:
    state = log.log.super
    newest = (log.log.next_segment - 1) % state.segment_count
    return int(state.data_block + newest * SEGMENT_BLOCKS)


def test_a_newest_header_that_is_unreadable_once_costs_a_running_device_nothing() -> None:
    card, log = full_log()
    tell(log)
    while log.append(FILLS) > 0:
        pass
    refuse(log, 19)
    checkpoint(log)
    untold = log.log.gap.full
    card.read_errors = {newest_header(log)}
    assert log.mount() == wire.CardState.READY and log.log.gap.full == untold
    card.read_errors = set()
    assert log.mount() == wire.CardState.READY and log.log.gap.full == untold
    assert tell(log)[-1] == untold


def test_what_was_refused_while_the_newest_header_was_unreadable_is_told_after_a_power_cut() -> (
    None
):
    card, log = full_log()
    tell(log)
    while log.append(FILLS) > 0:
        pass
    checkpoint(log)
    card = SimCard(bytearray(card.data))
    card.read_errors = {newest_header(log)}
    log = Log(card, log.settings)
    refuse(log, 50)
    checkpoint(log)
    untold = log.log.gap.full
    assert untold >= 50
    log = after_power_cut(card, log.settings)
    assert log.log.gap.full == untold
