"""Wall time of records: CLOCK records, what a host has noted, and estimates for the rest."""

from __future__ import annotations

from drip import wire
from drip.records import ParsedSegment, Record
from drip.sync.spool import LogNotes, clock_notes, store_records

UTC = 1_700_000_000_000_000


def segment(*records: tuple[int, int, int | None]) -> ParsedSegment:
    """Records as boot, monotonic time, and for a CLOCK record the UTC that it states."""
    made = []
    for seq, (boot, time_us, unix_us) in enumerate(records):
        kind = wire.RecordKind.FRAME if unix_us is None else wire.RecordKind.CLOCK
        clock = wire.RecordClock(unix_us=unix_us or 0, time_us=time_us).pack()
        payload = b"frame" if unix_us is None else clock
        header = wire.RecordHeader(
            seq=seq, boot_id=boot, time_us=time_us, flags=kind << wire.RECORD_KIND_SHIFT
        )
        made.append(Record(header, payload, 0))
    header = wire.SegmentHeader(log_uuid=bytes(16))
    return ParsedSegment(header, tuple(made), (), (), 0, len(made), 0, True)


def times(parsed: ParsedSegment, notes: LogNotes) -> list[tuple[int | None, str]]:
    rows = store_records(parsed, clock_notes(notes, [parsed]))
    return [(row.utc_us, row.time_source) for row in rows]


def test_a_clock_record_dates_all_frames_of_its_boot():
    parsed = segment((3, 10, None), (3, 20, UTC + 20), (3, 40, None))
    assert times(parsed, LogNotes()) == [(UTC + 10, "host_clock"), (UTC + 40, "host_clock")]


def test_what_the_host_has_noted_goes_first():
    parsed = segment((3, 10, None), (3, 20, UTC + 20))
    assert times(parsed, LogNotes(None, {3: UTC + 7})) == [(UTC + 17, "host_clock")]


def test_boots_that_no_host_has_seen_are_estimated_from_the_one_before():
    parsed = segment((1, 5, None), (2, 50, UTC + 50), (2, 90, None), (4, 7, None), (6, 1, None))
    assert times(parsed, LogNotes()) == [
        (None, "unknown"),
        (UTC + 90, "host_clock"),
        (UTC + 90 + 7, "estimate"),
        (UTC + 90 + 7 + 1, "estimate"),
    ]


def test_a_clock_that_says_nonsense_is_not_believed():
    parsed = segment((1, 5, 1), (1, 5, None), (2, 5, 2**64 - 1), (2, 6, None))
    assert times(parsed, LogNotes()) == [(1, "host_clock"), (None, "unknown")]
