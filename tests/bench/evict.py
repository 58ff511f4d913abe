"""What a full log loses because it gives up its oldest segment, and not its worst frames.

Usage: python tests/bench/evict.py

A stream of frames goes through the compiled log on a simulated card of 16 segments, in mode EVICT.
What it holds in the end is compared with the best frames of the whole stream, as many as it holds.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))

from cardsim import BLOCK, Log, SimCard, config, format_card

from drip import wire
from drip.records import is_frame, parse_segment

SEGMENT_BLOCKS = 64
SEGMENTS = 16
FRAME_BYTES = 1000


def stored(kind: str, turns: int) -> tuple[list[int], list[int]]:
    """Percentiles offered and kept after a stream as long as the log `turns` times over."""
    chance = random.Random(1)
    card = SimCard(bytearray((SEGMENTS * SEGMENT_BLOCKS + 16) * BLOCK))
    format_card(card, segment_blocks=SEGMENT_BLOCKS)
    settings = config(full_mode=wire.FullMode.EVICT)
    settings.class_floor = 2
    log = Log(card, settings)
    count = turns * SEGMENTS * SEGMENT_BLOCKS * BLOCK // (FRAME_BYTES + 64)
    offered = []
    for number in range(count):
        percentile = chance.randrange(65536)
        if kind == "bursts" and number % 400 < 40:
            percentile = 58000 + chance.randrange(7536)
        if kind == "kept":  # what a threshold at 10 % lets through
            percentile = 58982 + chance.randrange(6554)
        for _ in range(3):
            seq = log.append(bytes(FRAME_BYTES), percentile=percentile, class_1=number % 4)
            if seq != wire.Err.BUSY:
                break
        assert seq > 0
        offered.append(percentile)
        card.writes.clear()
    log.sync()
    kept = [
        record.header.percentile
        for data in log.segments().values()
        for record in parse_segment(data).records
        if is_frame(record.header)
    ]
    return offered, kept


def main() -> None:
    """Print a table: the mean percentile kept, at best, and with the oldest overwritten."""
    print("stream   log lengths  kept  ideal  newest  share of the ideal set")
    for kind in ("even", "bursts", "kept"):
        for turns in (2, 5, 20):
            offered, kept = stored(kind, turns)
            best = sorted(offered)[-len(kept) :]
            newest = offered[-len(kept) :]
            share = sum(value >= best[0] for value in kept) / len(kept)
            mean = [sum(values) / len(values) / 655.35 for values in (kept, best, newest)]
            print(
                f"{kind:8} {turns:11}  {mean[0]:4.1f}  {mean[1]:5.1f}  {mean[2]:6.1f}  {share:.2f}"
            )


if __name__ == "__main__":
    main()
