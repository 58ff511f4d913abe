"""What a device says is missing from its log: GAP records, added up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from drip import wire
from drip.records import Record

__all__ = ["NO_GAPS", "Gaps", "gaps_of"]


@dataclass(frozen=True)
class Gaps:
    """Sums over GAP records.

    Attributes:
        full: Records refused because nothing could be overwritten.
        card: Records accepted that a failing card did not take, or lost.
        damaged: Places on the card that could not be used when it was mounted.
        evicted: Records dropped to make room.
    """

    full: int = 0
    card: int = 0
    damaged: int = 0
    evicted: int = 0

    def __add__(self, other: Gaps) -> Gaps:
        """Both together."""
        return Gaps(
            self.full + other.full,
            self.card + other.card,
            self.damaged + other.damaged,
            self.evicted + other.evicted,
        )

    def __str__(self) -> str:
        """In words; empty when nothing is missing."""
        parts = {
            "records refused by a full card": self.full,
            "records lost by the card": self.card,
            "damaged places, found by the board": self.damaged,
            "records evicted to make room": self.evicted,
        }
        return ", ".join(f"{count} {what}" for what, count in parts.items() if count)


NO_GAPS = Gaps()


def gaps_of(records: Iterable[Record]) -> Gaps:
    """Add up the GAP records among these."""
    total = Gaps()
    for record in records:
        kind = record.header.flags >> wire.RECORD_KIND_SHIFT
        if kind == wire.RecordKind.GAP and len(record.payload) >= wire.RecordGap.SIZE:
            gap = wire.RecordGap.unpack(record.payload)
            total += Gaps(gap.full, gap.card, gap.damaged, gap.evicted)
    return total
