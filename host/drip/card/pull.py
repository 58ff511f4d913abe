"""Pulling frames from a card, or an image of one, into a store: the same records as over serial.

The card is only read. Records go through the same spool and the same ingest step as those of
:mod:`drip.sync`; what is in the store already is known by log UUID and sequence number. Nothing is
acknowledged: the device still hands over what it has, and frees it then.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass

from drip import wire
from drip.card import SegmentReport, damage_of, open_log
from drip.card.log import CardLog
from drip.disk import file_lock
from drip.gaps import NO_GAPS, Gaps, gaps_of
from drip.records import seal_segment_header
from drip.store import AppendReport, Store
from drip.sync import ingest_log
from drip.sync.spool import (
    LogNotes,
    RecordMark,
    SpooledLog,
    clock_notes,
    mark_of,
    store_records,
)

__all__ = ["CardPullReport", "pull_card"]

_BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class CardPullReport:
    """What a pull from a card did.

    Attributes:
        segments: Segments read.
        records: Intact records in them, those already in the store included.
        store: What became of them and of what an earlier run had left in the spool, each counted
            once.
        damaged: What could not be read, one line each.
        gaps: What the device has noted as missing in these segments.
    """

    segments: int
    records: int
    store: AppendReport
    damaged: tuple[str, ...]
    gaps: Gaps = NO_GAPS


def pull_card(
    path: str | os.PathLike[str],
    store: Store,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> CardPullReport:
    """Bring every intact record of a card into a store.

    Args:
        path: Image or block device of a card, a folder where it is mounted, or a copied log file.
        store: Where the records go.
        on_progress: Called with segments done and in all.

    Raises:
        CardError: There is no log.
        StoreError: The disk is full or read-only; running it again continues.
    """
    segments = records = waiting = 0
    damaged: list[str] = []
    gaps = NO_GAPS
    with contextlib.ExitStack() as stack:
        card = stack.enter_context(open_log(path))
        log = SpooledLog(store.spool, card.superblock.log_uuid)
        stack.enter_context(file_lock(log.folder / ".lock"))
        notes = _whole_clock(card, log)
        # What an earlier run left may be better than what the card now holds.
        added = ingest_log(store, log, 0, notes)
        left = {mark for segment in log.segments() for mark in _marks(log, segment)}
        total = card.segment_total if on_progress is not None else 0
        for segment, data in card.segments():
            damaged += damage_of(segment)
            gaps += gaps_of(segment.parsed.records)
            segments += 1
            records += segment.parsed.frames
            if segment.parsed.count:
                log.put(segment.number, _spooled(segment, data))
                waiting += segment.parsed.end
            if waiting >= _BATCH_BYTES:
                added += ingest_log(store, log, segment.number + 1, notes, left)
                waiting = 0
            if on_progress is not None:
                on_progress(segments, total)
        if waiting:
            added += ingest_log(store, log, segment.number + 1, notes, left)
    return CardPullReport(segments, records, added, tuple(damaged), gaps)


def _marks(log: SpooledLog, segment: int) -> list[RecordMark]:
    parsed = log.parsed(segment)
    return [] if parsed is None else [mark_of(row) for row in store_records(parsed, log.notes())]


def _whole_clock(card: CardLog, log: SpooledLog) -> LogNotes | None:
    """What all records of a card say about its clock; None when one batch sees them all.

    A boot's clock may lie behind its frames, and rows that are in the store are not dated again.
    """
    size = card.segment_total * card.superblock.segment_blocks * wire.BLOCK_BYTES
    # Half: the superblock may not know the newest segments yet.
    if size < _BATCH_BYTES // 2 and not log.segments():
        return None
    spooled = (log.parsed(segment) for segment in log.segments())
    there = (segment.parsed for segment, _ in card.segments())
    known = (parsed for parsed in itertools.chain(spooled, there) if parsed is not None)
    return clock_notes(log.notes(), known)


def _spooled(segment: SegmentReport, data: bytes) -> bytes:
    """The used bytes of a segment; in place of a damaged header, what is known of it."""
    end = -(-segment.parsed.end // wire.BLOCK_BYTES) * wire.BLOCK_BYTES
    if segment.header_damaged:
        data = seal_segment_header(segment.parsed.header) + data[wire.SegmentHeader.SIZE :]
    return data[:end]
