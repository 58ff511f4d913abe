"""How good the frames are that a full log keeps.

Usage: python tests/bench/evict.py

Streams of frames go through the compiled log on a simulated card of 16 segments, in mode EVICT.
What it holds in the end is compared with the best frames of the whole stream, as many as it holds;
with the newest ones; and with what is kept when no frame is refused ("all taken").

even    percentiles as likely as one another
bursts  every tenth frame comes in a burst of high ones
kept    what a threshold at 10 % lets through
days    ten swings of the best percentile, between 20 and 100
fall    even at first; in the second half no percentile is above 12.5
rare    even, and one frame in 100 of another class, none of them above 5; floor: 2 of each class
"""

from __future__ import annotations

import math
import random
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))

from cardsim import BLOCK, Log, SimCard, config, format_card

from drip import wire
from drip.records import is_frame, parse_segment

SEGMENT_BLOCKS = 64
SEGMENTS = 16
FRAME_BYTES = 1000
STREAMS = ("even", "bursts", "kept", "days", "fall", "rare")


@dataclass(frozen=True)
class Held:
    """Percentiles in the log, frames of the rare class in it, and block writes per block taken."""

    kept: list[int]
    rare: int
    writes: float


def stream(kind: str, count: int) -> list[tuple[int, int]]:
    """Percentile and class of each frame."""
    chance = random.Random(1)
    frames = []
    for number in range(count):
        percentile, class_1 = chance.randrange(65536), number % 4
        if kind == "bursts" and number % 400 < 40:
            percentile = 58000 + chance.randrange(7536)
        if kind == "kept":
            percentile = 58982 + chance.randrange(6554)
        if kind == "days":
            percentile = int(percentile * (0.6 + 0.4 * math.sin(number * 20 * math.pi / count)))
        if kind == "fall" and number > count // 2:
            percentile //= 8
        if kind == "rare" and number % 100 == 7:
            percentile, class_1 = percentile // 20, 9
        frames.append((percentile, class_1))
    return frames


def stored(frames: list[tuple[int, int]], refuse: bool = True) -> Held:
    """Send a stream through the log."""
    card = SimCard(bytearray((SEGMENTS * SEGMENT_BLOCKS + 16) * BLOCK))
    format_card(card, segment_blocks=SEGMENT_BLOCKS)
    settings = config(full_mode=wire.FullMode.EVICT)
    settings.class_floor = 2
    log = Log(card, settings)
    taken = writes = 0
    for percentile, class_1 in frames:
        for _ in range(3):
            if not refuse:
                log.log.super.scratch = bytes(128)  # forgets that the log was ever full
            seq = log.append(bytes(FRAME_BYTES), percentile=percentile, class_1=class_1)
            if seq != wire.Err.BUSY:
                break
        assert seq >= 0
        taken += seq > 0
        writes += len(card.writes)
        card.writes.clear()
    log.sync()
    held = [
        record.header
        for data in log.segments().values()
        for record in parse_segment(data).records
        if is_frame(record.header)
    ]
    return Held(
        [header.percentile for header in held],
        sum(header.class_1 == 9 for header in held),
        writes / (taken * (FRAME_BYTES + wire.RecordHeader.SIZE) / BLOCK),
    )


def mean(values: list[int]) -> float:
    return sum(values) / len(values) / 655.36


def main() -> None:
    """Print a table: the mean percentile kept, at best, and with the oldest overwritten."""
    print("        log            mean percentile        share of  writes per     rare class")
    print("stream  lengths  kept  ideal  newest  all taken  ideal set  block taken  kept of")
    for kind in STREAMS:
        for turns in (2, 5, 20):
            frames = stream(kind, turns * SEGMENTS * SEGMENT_BLOCKS * BLOCK // (FRAME_BYTES + 64))
            held, plain = stored(frames), stored(frames, refuse=False)
            offered = [percentile for percentile, _ in frames]
            best = sorted(offered)[-len(held.kept) :]
            share = sum(value >= best[0] for value in held.kept) / len(held.kept)
            rare = f"{held.rare:4} {len(frames) // 100:7}" if kind == "rare" else ""
            print(
                f"{kind:7} {turns:7}  {mean(held.kept):4.1f}  {mean(best):5.1f}"
                f"  {mean(offered[-len(held.kept) :]):6.1f}  {mean(plain.kept):9.1f}"
                f"  {share:9.2f}  {held.writes:11.2f}  {rare}".rstrip(),
                flush=True,
            )


if __name__ == "__main__":
    main()
