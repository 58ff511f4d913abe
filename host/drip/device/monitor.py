"""What a board is doing: its counters as people read them, once or again and again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from drip import units, wire
from drip.device.client import Client
from drip.device.states import card_trouble, name
from drip.errors import DeviceError, LinkError, SchemaError

__all__ = ["Reading", "describe", "follow", "name", "read"]


@dataclass(frozen=True)
class Reading:
    """Counters of a board at one moment.

    Attributes:
        port: Where it hangs.
        hello: Who it is.
        status: Its counters.
        frames_per_s: Since the reading before, or since it started.
        kept_share: Share of frames kept since then; None when it saw none.
    """

    port: str
    hello: wire.Hello
    status: wire.Status
    frames_per_s: float
    kept_share: float | None

    @property
    def waiting_bytes(self) -> int:
        """Bytes on the card that no host has acknowledged."""
        return max(0, self.status.log_end - self.status.log_acked)

    @property
    def card_fill(self) -> float | None:
        """Share of the card that these take; None without a log."""
        capacity = self.status.log_capacity
        return self.waiting_bytes / capacity if capacity else None

    def figures(self) -> dict[str, object]:
        """All that changes, for scripts."""
        status = self.status
        return {
            "port": self.port,
            "device_id": self.hello.device_id.hex(),
            "model_id": self.hello.model_id.hex(),
            "boot_id": status.boot_id,
            "uptime_s": status.uptime_ms / 1000,
            "powered_s": status.powered_s,
            "frames_seen": status.frames_seen,
            "frames_kept": status.frames_kept,
            "frames_per_s": self.frames_per_s,
            "kept_share": self.kept_share,
            "score_histogram": list(status.histogram),
            "waiting_bytes": self.waiting_bytes,
            "card_bytes": status.log_capacity,
            "card_fill": self.card_fill,
            "card_state": name(wire.CardState, status.card_state),
            "card_hint": next(iter(_what_to_do(status.card_state).values()), None),
            "queue_high_water": status.queue_high_water,
            "infer_us": status.infer_us,
            "link_errors": status.link_errors,
            "card_errors": status.card_errors,
        }


def read(client: Client, before: Reading | None = None) -> Reading:
    """Ask a board for its counters.

    Args:
        client: The board, of any schema.
        before: The reading that rate and share count from; None, or one of an earlier boot, counts
            from the start of the board.
    """
    status = client.status()
    hello = client.device
    old = wire.Status()
    if before is not None and _same_boot(before.status, status):
        old = before.status
    elif before is not None:
        hello = client.hello()
    seconds = (status.uptime_ms - old.uptime_ms) / 1000
    seen = status.frames_seen - old.frames_seen
    kept = status.frames_kept - old.frames_kept
    return Reading(
        client.name,
        hello,
        status,
        seen / seconds if seconds > 0 else 0.0,
        kept / seen if seen > 0 else None,
    )


def follow(
    open_board: Callable[[], AbstractContextManager[Client]],
    every_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Reading | LinkError]:
    """Read a board for ever; one that goes away is waited for.

    Args:
        open_board: Opens a client of it.
        every_s: Seconds between two readings.
        sleep: Waits that long.

    Yields:
        A reading, or why there is none.

    Raises:
        LinkError: There is no board to begin with.
    """
    before: Reading | None = None
    while True:
        try:
            with open_board() as client, events_of(client):
                while True:
                    before = read(client, before)
                    yield before
                    sleep(every_s)
        except LinkError as error:
            if before is None:
                raise
            yield error
            sleep(every_s)


@contextlib.contextmanager
def events_of(client: Client) -> Iterator[None]:
    """Have a board report what happens, for as long as somebody listens."""
    # A board of another schema only refuses; its counters can be read all the same.
    with contextlib.suppress(SchemaError, DeviceError):
        client.config_set({wire.Config.EVENTS: 1})
    try:
        yield
    except LinkError:
        raise
    except BaseException:
        with contextlib.suppress(SchemaError, DeviceError, LinkError):
            client.config_set({wire.Config.EVENTS: 0})
        raise


def describe(reading: Reading) -> dict[str, object]:
    """Lines for people: what, and its value with a unit."""
    hello, status = reading.hello, reading.status
    version = f"{hello.firmware >> 16}.{hello.firmware >> 8 & 255}.{hello.firmware & 255}"
    port = hello.port.rstrip(b"\0").decode("ascii", "replace")
    share = "-" if reading.kept_share is None else units.percent(reading.kept_share)
    lines: dict[str, object] = {
        "port": reading.port,
        "board": f"{hello.device_id.hex()} ({port or 'unnamed'}, firmware {version})",
        "running for": f"{units.duration(status.uptime_ms / 1000)}, boot {status.boot_id}",
        "model": _model(hello, status),
        "frames": f"{status.frames_seen} seen, {status.frames_kept} kept"
        f" ({units.percent(status.frames_kept, status.frames_seen)})",
        "rate": f"{reading.frames_per_s:.3g} frames/s, {share} kept",
        "not kept": f"{status.frames_dropped_policy} unimportant,"
        f" {status.frames_dropped_queue} without room,"
        f" {status.frames_dropped_card} lost by the card",
        "scores, 0 to 100 %": f"[{units.sparkline(status.histogram)}]",
        "card": _card(reading),
        **_what_to_do(status.card_state),
        "decision takes": units.duration(status.infer_us / 1e6) if status.infer_us else "-",
    }
    if status.powered_s:
        lines["powered, all boots"] = f"{units.duration(status.powered_s)} (as the card has it)"
    if status.queue_high_water:
        lines["longest queue, frames"] = str(status.queue_high_water)
    if status.records_evicted:
        lines["evicted"] = f"{status.records_evicted} records made room for others"
    if status.log_damaged:
        lines["damage"] = f"{status.log_damaged} places on the card, found when it was mounted"
    if status.link_errors or status.card_errors:
        lines["errors"] = f"{status.link_errors} on the line, {status.card_errors} of the card"
    if status.faults:
        lines["faults"] = (
            f"{status.faults} since power-on; the last at {status.fault_pc:#010x}, called from"
            f" {status.fault_lr:#010x}, cause {status.fault_cause:#x}"
        )
    if status.stack_free:
        lines["stack"] = f"{status.stack_free} bytes were never used"
    if status.last_error not in (wire.Err.OK, wire.Err.NO_MODEL):
        lines["last error"] = name(wire.Err, status.last_error).replace("_", " ")
    return lines


def _model(hello: wire.Hello, status: wire.Status) -> str:
    if not any(hello.model_id):
        return "none: it keeps every frame"
    return (
        f"{hello.model_id.hex()} ({name(wire.SlotState, status.model_state)},"
        f" {hello.class_count} classes, score {name(wire.ScoreKind, hello.score_kind)})"
    )


def _what_to_do(card_state: int) -> dict[str, object]:
    trouble = card_trouble(card_state)
    if trouble is None and card_state == wire.CardState.FULL:
        return {"what to do": "frames are lost until there is room: drip sync"}
    return {} if trouble is None else {"what to do": trouble[1]}


def _card(reading: Reading) -> str:
    state = name(wire.CardState, reading.status.card_state)
    fill = reading.card_fill
    if fill is None:
        return state
    bar = "█" * round(10 * min(1.0, fill))
    text = (
        f"{state} [{bar:·<10}] {units.percent(fill)}:"
        f" {units.size(reading.waiting_bytes)} of {units.size(reading.status.log_capacity)} wait"
    )
    pending = reading.status.records_pending
    return f"{text}, {pending} frames not yet durable" if pending else text


def _same_boot(a: wire.Status, b: wire.Status) -> bool:
    return a.boot_id == b.boot_id and a.uptime_ms <= b.uptime_ms and a.frames_seen <= b.frames_seen
