"""Pulling kept frames from a device into a store, so that none is ever lost or counted twice.

For each segment, in this order: read it, verify every record and the digest, put the raw bytes on
the disk (spool, file and folder synced), acknowledge it to the device. Only then, in a step of its
own that may be repeated, the records enter the store. Whatever is interrupted is done again by the
next run: before the acknowledgement the device still has the segment, after it the spool has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from drip import wire
from drip.device.client import Client
from drip.device.states import card_trouble
from drip.disk import file_lock
from drip.errors import CardError, DeviceError, LinkError
from drip.gaps import NO_GAPS, Gaps
from drip.store import AppendReport, Store, StoreRecord
from drip.sync.pull import Pull
from drip.sync.spool import (
    LogNotes,
    RecordMark,
    SpooledLog,
    clock_notes,
    mark_of,
    store_records,
)

__all__ = ["SyncReport", "ingest_log", "ingest_spool", "sync_device"]

_MOUNT_S = 30.0
_INGEST_BYTES = 64 << 20
_RESUMPTIONS = 3


@dataclass(frozen=True)
class SyncReport:
    """What a sync did.

    Attributes:
        bytes_wire: Bytes on the line, both directions, everything included.
        bytes_log: Bytes of the log that were read.
        pending_bytes: Bytes of the log that waited on the device when it began.
        records: Records read, those already in the store included.
        segments: Segments read, in part or whole.
        acked: Segments that the device has freed.
        open_segment: A segment is still being written to and was left to the next sync.
        store: What became of the records; None after a dry run.
        damaged: What could not be read from the card, one line each.
        gaps: What the device has noted as missing, in the segments read.
        gone_bytes: Bytes of the log that the device gave up before they could be read.
        repetitions: Requests that had to be sent again.
        chunks_lost: Pieces of the log that were lost on the line and sent again.
        seconds: How long it took.
    """

    bytes_wire: int = 0
    bytes_log: int = 0
    pending_bytes: int = 0
    records: int = 0
    segments: int = 0
    acked: int = 0
    open_segment: bool = False
    store: AppendReport | None = None
    damaged: tuple[str, ...] = ()
    gaps: Gaps = NO_GAPS
    gone_bytes: int = 0
    repetitions: int = 0
    chunks_lost: int = 0
    seconds: float = 0.0


def sync_device(
    client: Client,
    store: Store,
    *,
    keep: bool = False,
    dry_run: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> SyncReport:
    """Pull everything that a device has logged and not yet had acknowledged.

    Args:
        client: The device, of any schema.
        store: Where the records go.
        keep: Do not acknowledge: the device frees nothing.
        dry_run: Only say how much waits; nothing changes on either side.
        on_progress: Called with log bytes done and in all.

    Raises:
        LinkError: The device stopped answering; running it again continues.
        CardError: The device has no usable card, or sends something that is no log.
        DeviceError: The device refused a request.
        StoreError: The disk is full or read-only; nothing unsaved was freed on the device.
    """
    started, wire_before, again_before = time.monotonic(), client.bytes_wire, client.repetitions
    status = _wait_for_card(client)
    if dry_run:
        waiting = max(0, status.log_durable - status.log_acked)
        return SyncReport(
            bytes_wire=client.bytes_wire - wire_before,
            pending_bytes=waiting,
            seconds=time.monotonic() - started,
        )
    device = client.hello()
    log = SpooledLog(store.spool, device.log_uuid)
    pulls: list[Pull] = []
    # Two programs that pull one device would only hinder each other, and the spool has one owner.
    with file_lock(log.folder / ".lock"):
        try:
            while True:
                pull = Pull(client, log, keep=keep, on_progress=on_progress)
                pulls.append(pull)
                found = _pull(client, log, pull, device, last=len(pulls) > _RESUMPTIONS)
                if found is None:
                    break
                device = found
        except (CardError, DeviceError, LinkError):
            ingest_log(store, log, pulls[-1].acked_below)
            raise
        added = ingest_log(store, log, pull.acked_below)
    # A run after a restart of the board reads some segments once more.
    gaps = {segment: found for pull in pulls for segment, found in pull.gaps.items()}
    return SyncReport(
        bytes_wire=client.bytes_wire - wire_before,
        bytes_log=sum(pull.bytes_log for pull in pulls),
        pending_bytes=pulls[0].pending,
        records=sum(pull.records for pull in pulls),
        segments=sum(pull.segments for pull in pulls),
        acked=sum(pull.acked for pull in pulls),
        open_segment=pull.left_open,
        store=added,
        damaged=tuple(dict.fromkeys(line for pull in pulls for line in pull.damaged)),
        gaps=sum(gaps.values(), NO_GAPS),
        gone_bytes=sum(pull.gone_bytes for pull in pulls),
        repetitions=client.repetitions - again_before,
        chunks_lost=sum(pull.chunks_lost for pull in pulls),
        seconds=time.monotonic() - started,
    )


def _pull(
    client: Client, log: SpooledLog, pull: Pull, device: wire.Hello, *, last: bool
) -> wire.Hello | None:
    """Run a pull; when it broke off because the device restarted, return who has come back."""
    try:
        clock = client.time()
        log.note(device.device_id.hex(), {clock.boot_id: clock.offset_us})
        client.sync_log()
        pull.run(client.status())
    except (CardError, DeviceError, LinkError):
        found = None if last else _found_again(client, device)
        if found is None:
            raise
        return found
    return None


def _found_again(client: Client, before: wire.Hello) -> wire.Hello | None:
    """Look for a device that has restarted; it may not know the newest acknowledgements any more.

    Returns:
        Who answers when going on makes sense, None when what went wrong was something else.
    """
    try:
        _wait_for_card(client)
        now = client.hello()
    except (CardError, DeviceError, LinkError):
        return None
    changed = now.boot_id != before.boot_id or now.baud < before.baud
    return now if changed and now.log_uuid == before.log_uuid else None


def ingest_spool(store: Store) -> AppendReport:
    """Bring what lies in the spool into the store; needs no device.

    A run of :func:`sync_device` that was cut off after an acknowledgement leaves records there. It
    may be repeated; what is in the store already counts as a duplicate.
    """
    total = AppendReport()
    for folder in sorted(store.spool.glob("*-*-*-*-*")) if store.spool.is_dir() else []:
        log = SpooledLog(store.spool, bytes.fromhex(folder.name.replace("-", "")))
        with file_lock(log.folder / ".lock"):
            total += ingest_log(store, log, acked_below=0)
    return total


def _wait_for_card(client: Client) -> wire.Status:
    deadline = time.monotonic() + _MOUNT_S
    while True:
        status = client.status()
        if status.card_state != wire.CardState.MOUNTING or time.monotonic() >= deadline:
            break
        time.sleep(0.05)
    trouble = card_trouble(status.card_state)
    if trouble is not None:
        what, hint = trouble
        raise CardError(f"{client.name} {what}", hint)
    return status


def ingest_log(
    store: Store,
    log: SpooledLog,
    acked_below: int,
    notes: LogNotes | None = None,
    counted: Collection[RecordMark] = (),
) -> AppendReport:
    """Append what is spooled; forget the segments below ``acked_below`` once that is safe.

    Args:
        store: Where the records go.
        log: Their log.
        acked_below: Segments below this need not be kept in the spool.
        notes: What is known of the whole log's clock; by default what the spooled segments say.
        counted: Records that this run has brought already, and that no report shall count again.
    """
    if notes is None:
        found = (log.parsed(segment) for segment in log.segments())
        notes = clock_notes(log.notes(), (parsed for parsed in found if parsed is not None))
    log.note(notes.device_id, notes.utc_offset_us)
    total = AppendReport()
    rows: list[StoreRecord] = []
    size = 0
    for segment in log.segments():
        parsed = log.parsed(segment)
        if parsed is None:
            # The disk has spoilt the file; the device still has the segment, or nobody has.
            log.put_aside(segment)
            log.drop(segment)
            continue
        rows += [row for row in store_records(parsed, notes) if mark_of(row) not in counted]
        size += parsed.end
        if size >= _INGEST_BYTES:
            total += store.append(rows)
            rows, size = [], 0
    total += store.append(rows)
    for segment in log.segments():
        if segment < acked_below:
            log.drop(segment)
    return total
