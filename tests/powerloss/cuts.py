"""What a card holds when power fails at a given block write, and what must be true after it.

The workload runs once; its block writes are noted in order. The card after a cut is then the card
before plus the writes up to the cut, the last of them whole, in part, or not at all.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cardsim import BLOCK, OK, Log, SimCard, config, format_card

from drip import wire
from drip.records import is_frame, parse_segment

BLOCKS = 64
SEGMENT_BLOCKS = 8


@dataclass
class Promise:
    """What the log has said, and after how many block writes.

    Attributes:
        given: Sequence number to payload and block writes so far, of every accepted append.
        durable: Sequence number to block writes at which it was called durable.
        segment_of: Sequence number to segment, of durable records.
        acked: Block writes and first segment that is not acknowledged, ascending.
        sure: The same as superblocks say: what was acknowledged since may be forgotten.
    """

    given: dict[int, tuple[bytes, int]] = field(default_factory=dict)
    durable: dict[int, int] = field(default_factory=dict)
    segment_of: dict[int, int] = field(default_factory=dict)
    acked: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])
    sure: list[tuple[int, int]] = field(default_factory=lambda: [(0, 0)])

    def sure_at(self, writes: int) -> int:
        return max(segment for at, segment in self.sure if at <= writes)


@dataclass(frozen=True)
class Recording:
    """A finished workload: the card before it, its block writes, what was promised."""

    before: bytes
    writes: Sequence[tuple[int, bytes]]
    promise: Promise


def record(seed: int, operations: int, segment_blocks: int = SEGMENT_BLOCKS) -> Recording:
    """Run appends of all sizes, syncs, acknowledgements and restarts until the ring has turned."""
    chance = random.Random(seed)
    card = SimCard(bytearray(chance.randbytes(BLOCKS * BLOCK)))
    assert format_card(card, uuid=chance.randbytes(16), segment_blocks=segment_blocks) == OK
    before = bytes(card.data)
    card.writes.clear()
    log = Log(card, config(commit_bytes=chance.choice([0, 1024, 4096])))
    promise = Promise()
    waiting: list[int] = []

    def note() -> None:
        if log.pending == 0 and waiting:
            for segment, data in log.segments().items():
                for found in parse_segment(data).records:
                    promise.segment_of[found.header.seq] = segment
            for seq in waiting:
                promise.durable[seq] = len(card.writes)
            waiting.clear()

    for _ in range(operations):
        action = chance.choices(["append", "sync", "ack", "restart"], [10, 4, 3, 0.3])[0]
        if action == "append":
            largest = (segment_blocks - 1) * BLOCK - 64
            size = chance.choice([1, 64, 440, 448, 449, 700, 1500, largest])
            payload = chance.randbytes(size) if chance.random() < 0.8 else bytes(size)
            started = len(card.writes)
            seq = log.append(payload)
            if seq > 0:
                assert seq not in promise.given
                promise.given[seq] = (payload, started)
                waiting.append(seq)
            else:
                action = "ack"
        if action == "sync":
            log.sync()
            assert log.pending == 0
        if action == "ack" and log.acked < log.durable:
            segment = log.acked // log.segment_bytes
            parsed = parse_segment(log.segments()[segment])
            if log.ack(segment, parsed.count, parsed.digest) == OK:
                promise.acked.append((len(card.writes), segment + 1))
        if action == "restart":
            waiting.clear()
            log = Log(card, log.settings)
        card.time_us += chance.randrange(2_000_000)
        log.drive()
        promise.sure.append((len(card.writes), log.log.acked_durable))
        note()
    return Recording(before, tuple(card.writes), promise)


def cuts(
    before: bytes, writes: Sequence[tuple[int, bytes]], torn: Sequence[str]
) -> Iterator[tuple[int, str, bytes]]:
    """Yield the card after a cut at every write: number of whole writes, kind of tear, content."""
    card = bytearray(before)
    for done, (block, new) in enumerate(writes):
        at = block * BLOCK
        old = bytes(card[at : at + BLOCK])
        for kind in torn:
            card[at : at + BLOCK] = tear(kind, old, new, done)
            yield done, kind, bytes(card)
        card[at : at + BLOCK] = new
    yield len(writes), "none", bytes(card)


def tear(kind: str, old: bytes, new: bytes, seed: int) -> bytes:
    """What a block holds whose write was cut."""
    chance = random.Random(seed)
    where = chance.randrange(1, BLOCK)
    if kind == "none":
        return old
    if kind == "first":
        return new[:where] + old[where:]
    if kind == "last":
        return old[:where] + new[where:]
    if kind == "noise":
        return chance.randbytes(BLOCK)
    raise ValueError(kind)


@dataclass(frozen=True)
class Made:
    """A record that a recovery has made; block writes since its mount when given and durable."""

    payload: bytes
    given: int
    durable: int


def check_after(
    card: bytes, promise: Promise, writes: int, kind: str
) -> tuple[SimCard, dict[int, Made]]:
    """Mount a card after a cut, check every promise, go on recording, check again.

    Args:
        card: Its content.
        promise: What was said before.
        writes: Block writes that were finished when power failed.
        kind: Of the tear.

    Returns:
        The card as this recovery leaves it, and the records it has made.
    """
    simulated = SimCard(bytearray(card))
    log = Log(simulated, config())
    assert log.state == wire.CardState.READY
    made: dict[int, Made] = {}
    check_promises(log, read_all(log, kind), promise, writes, made)

    used = {seq for seq, (_, at) in promise.given.items() if at <= writes}
    for number in range(2):
        payload = bytes([number + 1]) * (300 + 100 * number)
        given = len(simulated.writes)
        seq = log.append(payload)
        if seq == wire.Err.FULL:
            acknowledge_oldest(log)
            seq = log.append(payload)
        assert seq > max(used, default=0), "sequence numbers are never reused"
        used.add(seq)
        assert log.sync() == OK and log.pending == 0
        made[seq] = Made(payload, given, len(simulated.writes))
    check_promises(log, read_all(log, kind), promise, writes, made)
    again = Log(SimCard(bytearray(simulated.data)), config())
    assert again.state == wire.CardState.READY
    check_promises(again, read_all(again, kind), promise, writes, made)
    return simulated, made


def read_all(log: Log, kind: str) -> list[tuple[int, int, bytes]]:
    """Segment, sequence number and payload of all durable frames; notes of gaps are left out.

    A block whose first half is lost can show a later record behind the remains of one that was
    never durable; no other damage may be seen.
    """
    found = []
    for segment, data in log.segments().items():
        parsed = parse_segment(data)
        assert kind == "last" or not parsed.damage, parsed.damage
        frames = [item for item in parsed.records if is_frame(item.header)]
        found += [(segment, item.header.seq, item.payload) for item in frames]
    return found


def check_promises(
    log: Log,
    found: list[tuple[int, int, bytes]],
    promise: Promise,
    writes: int,
    made: dict[int, Made],
) -> None:
    sequence = [seq for _, seq, _ in found]
    assert sequence == sorted(set(sequence)), "in order, nothing twice"
    for _, seq, payload in found:
        if seq in made:
            assert payload == made[seq].payload
        else:
            assert seq in promise.given and promise.given[seq][1] <= writes, "invented"
            assert payload == promise.given[seq][0]
    sure = promise.sure_at(writes)
    assert log.acked >= sure * log.segment_bytes, "what a superblock says is not forgotten"
    present = set(sequence)
    tail = log.tail // log.segment_bytes
    for seq, at in promise.durable.items():
        if at <= writes and seq not in present:
            segment = promise.segment_of[seq]
            assert segment < tail, f"record {seq} is lost"
            assert segment < log.acked // log.segment_bytes, f"record {seq} was overwritten"
    assert set(made) <= present


def acknowledge_oldest(log: Log) -> None:
    segment = log.acked // log.segment_bytes
    parsed = parse_segment(log.segments()[segment])
    assert log.ack(segment, parsed.count, parsed.digest) == OK
