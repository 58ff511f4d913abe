"""Pull a log over simulated lines, good and bad, and say how much of the line became records.

Both ends are the code that ships: the C core's link, log and device, and `drip.sync`. The line, the
card and the clock are simulated (:mod:`drip.bench.line`), so a run gives the same figures
everywhere. After every run the store must hold exactly the frames that the device has logged.
"""

from __future__ import annotations

import dataclasses
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drip import wire
from drip.bench.line import BITS_PER_BYTE, RX_RING_BYTES, TX_RING_BYTES, Faults, LineEnd, SimDevice
from drip.device.client import Client
from drip.errors import DataError, MissingDependencyError, VerifyError, install_hint
from drip.store import Store
from drip.sync import sync_device

__all__ = [
    "COLUMNS",
    "SCENARIOS",
    "Scenario",
    "WireCost",
    "frame_delays",
    "into_document",
    "measure",
    "rows",
    "smp_efficiency",
    "summary",
    "worst_delays",
]

FRAME_BYTES = 1024
_RECORD_BYTES = wire.RecordHeader.SIZE + FRAME_BYTES
_BEGIN, _END = "<!-- drip bench wire: begin -->\n", "<!-- drip bench wire: end -->"
_SMP_LINE_BYTES = 127
COLUMNS = ("line", "latency", "goodput", "of the line", "records / wire", "lost", "repeated")


@dataclass(frozen=True)
class Scenario:
    """A line to pull over.

    Attributes:
        name: For people and for the JSON.
        faults: What the line does, in both directions.
        latency_s: Each way.
        frames: Frames of 1 KiB in the log.
        error_rate: Byte error rate, of scenarios that differ in nothing else.
        look_s: From one look of the device at its line to the next; between them it computes.
        rings: Bytes that its UART's interrupts hold: to send, received.
    """

    name: str
    faults: Faults = dataclasses.field(default_factory=Faults)
    latency_s: float = 0.001
    frames: int = 500
    error_rate: float | None = None
    look_s: float = 0.0001
    rings: tuple[int, int] = (TX_RING_BYTES, RX_RING_BYTES)


SCENARIOS = (
    Scenario("clean", frames=1000, error_rate=0.0),
    Scenario("clean", latency_s=0.016, frames=1000),
    Scenario("clean", latency_s=0.05, frames=1000),
    Scenario("byte errors 1e-5", Faults(flip=1e-5), error_rate=1e-5),
    Scenario("byte errors 1e-4", Faults(flip=1e-4), error_rate=1e-4),
    Scenario("byte errors 1e-3", Faults(flip=1e-3), error_rate=1e-3),
    Scenario("dropped bytes 1e-4", Faults(drop=1e-4)),
    Scenario("doubled bytes 1e-4", Faults(double=1e-4)),
    Scenario("bursts of 64 bytes 2e-5", Faults(burst=2e-5)),
    Scenario("stalls of 50 ms 2e-5", Faults(stall=2e-5)),
    Scenario("all of it", Faults(1e-4, 1e-4, 1e-4, burst=2e-5, stall=2e-5), latency_s=0.016),
    Scenario("looks every 5 ms, rings 1024 + 2048", look_s=0.005, rings=(1024, 2048)),
    Scenario("looks every 5 ms, rings 512 + 1024", look_s=0.005, rings=(512, 1024)),
    Scenario("looks every 5 ms, rings 128 + 512", look_s=0.005, rings=(128, 512)),
)


@dataclass(frozen=True)
class WireCost:
    """What pulling a log took.

    Attributes:
        name, latency_s, error_rate: As in the scenario.
        baud: Bits per second.
        records: Records pulled; all of them were compared.
        record_bytes: Their headers and frames.
        wire_bytes: Bytes on the line, both directions, everything from HELLO to the last ACK.
        seconds: Simulated.
        chunks_lost: Chunks of the stream that were sent again.
        repetitions: Requests that were sent again.
    """

    name: str
    latency_s: float
    error_rate: float | None
    baud: int
    records: int
    record_bytes: int
    wire_bytes: int
    seconds: float
    chunks_lost: int
    repetitions: int

    @property
    def efficiency(self) -> float:
        """Record bytes per byte on the line."""
        return self.record_bytes / self.wire_bytes

    @property
    def goodput(self) -> float:
        """Record bytes per second."""
        return self.record_bytes / self.seconds

    @property
    def share(self) -> float:
        """Goodput as a share of the bytes that one direction of the line can carry."""
        return self.goodput * BITS_PER_BYTE / self.baud

    def to_json(self) -> dict[str, Any]:
        """All figures as plain values."""
        return dataclasses.asdict(self) | {
            "efficiency": self.efficiency,
            "goodput_bytes_per_s": self.goodput,
            "goodput_share": self.share,
        }


def measure(scenario: Scenario, *, baud: int = 921_600, seed: int = 1) -> WireCost:
    """Log frames on a simulated device and sync them over a line.

    Raises:
        VerifyError: The store does not hold exactly what was logged.
        MissingDependencyError: The core was not compiled.
    """
    device = SimDevice(
        baud=baud,
        latency_s=scenario.latency_s,
        faults=scenario.faults,
        seed=seed,
        tx_ring=scenario.rings[0],
        rx_ring=scenario.rings[1],
        step_s=scenario.look_s,
    )
    rng = random.Random(seed)
    frames = [rng.randbytes(FRAME_BYTES) for _ in range(scenario.frames)]
    device.run(1.0)
    device.log_frames(frames)
    end = LineEnd(device)
    client = Client(end, first_id=1, clock=end.clock, sleep=end.sleep)
    started_us = device.now_us
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "store")
        report = sync_device(client, store)
        seconds = (device.now_us - started_us) / 1e6
        stored = store.frames()
        found = [row.tobytes() for row in stored.x]
        numbers = [key.seq for key in stored.keys]
    if found != frames or numbers != list(range(numbers[0], numbers[0] + len(frames))):
        raise VerifyError(f"{scenario.name}: the store does not hold what the device has logged")
    if store.conflicts or report.damaged:
        raise VerifyError(f"{scenario.name}: {store.conflicts} conflicts, {report.damaged}")
    return WireCost(
        name=scenario.name,
        latency_s=scenario.latency_s,
        error_rate=scenario.error_rate,
        baud=baud,
        records=len(frames),
        record_bytes=len(frames) * _RECORD_BYTES,
        wire_bytes=device.to_host.bytes + device.to_device.bytes,
        seconds=seconds,
        chunks_lost=report.chunks_lost,
        repetitions=report.repetitions,
    )


def frame_delays(*, pulled: bool, frames: int = 200, every_s: float = 0.02) -> list[float]:
    """How long a frame is in work, from the sensor's offer until the log has taken all of it.

    Args:
        pulled: While a host pulls a log as fast as the line goes; otherwise nobody talks.
        frames: How many frames of 1 KiB come, from then on.
        every_s: How far apart.

    Returns:
        Simulated seconds, one per frame. The model is left out: what counts is what the link adds.
    """
    device = SimDevice(card_bytes=8 << 20)
    rng = random.Random(1)
    device.run(1.0)
    device.log_frames([rng.randbytes(FRAME_BYTES) for _ in range(400)])
    delays: list[float] = []
    offered_us: float | None = None
    due_us = device.now_us + 1e6
    frame = device.ffi.new("drip_frame_t *")
    data = device.ffi.new("uint8_t[]", rng.randbytes(FRAME_BYTES))
    frame.data, frame.size = data, FRAME_BYTES

    def sense() -> None:
        nonlocal offered_us, due_us
        if offered_us is not None:
            if not device.lib.drip_device_idle(device.device, device.ffi.NULL):
                return
            delays.append((device.now_us - offered_us) / 1e6)
            offered_us = None
        if device.now_us >= due_us and len(delays) < frames:
            if device.lib.drip_device_offer(device.device, frame) != 0:
                raise ValueError("a frame is in work that nobody has offered")
            offered_us, due_us = device.now_us, due_us + every_s * 1e6

    end = LineEnd(device, on_read=sense)
    client = Client(end, first_id=1, clock=end.clock, sleep=end.sleep)
    status = client.status()
    position = status.log_tail
    while len(delays) < frames:
        if not pulled:
            sense()
            device.step()
            continue
        stream = client.read_ahead(status.log_durable)
        while position < status.log_durable and len(delays) < frames:
            position += len(stream.read(position, wire.MAX_CHUNK_BYTES).data)
        stream.close()
        position = status.log_tail
    return delays


def smp_efficiency(frames: int = 100) -> float:
    """Record bytes per wire byte in the serial framing of Zephyr's SMP.

    Computed with the published package `smp`: base64 in lines of 127 bytes, the records in requests
    of 1 KiB. Headers, CBOR and the other direction are left out, so the real figure is lower.

    Raises:
        MissingDependencyError: The package `smp` is not installed.
    """
    try:
        from smp.packet import encode
    except ImportError as error:
        raise MissingDependencyError(
            "the baseline needs the package smp", install_hint("bench")
        ) from error
    records = random.Random(1).randbytes(frames * _RECORD_BYTES)
    size = wire.MAX_CHUNK_BYTES
    pieces = (records[at : at + size] for at in range(0, len(records), size))
    sent = sum(len(line) for piece in pieces for line in encode(piece, _SMP_LINE_BYTES))
    return len(records) / sent


def worst_delays() -> dict[str, float]:
    """The longest that a frame is in work, in ms: when nobody talks, and while a host pulls."""
    return {
        name: round(1000 * max(frame_delays(pulled=pulled)), 1)
        for name, pulled in (("quiet", False), ("pulled", True))
    }


def summary(
    costs: Sequence[WireCost], smp: float, delays: dict[str, float] | None = None
) -> dict[str, Any]:
    """What `--json` prints; `delays` are those of :func:`worst_delays`."""
    from drip._core import ffi

    clean = next(cost for cost in costs if cost.error_rate == 0.0)
    parts = ("drip_link_t", "drip_reader_t", "drip_baud_t", "drip_link_frame_t")
    link_bytes = sum(ffi.sizeof(name) for name in parts)
    return {
        "efficiency_1k": clean.efficiency,
        "smp_efficiency": smp,
        "goodput_1ms": clean.share,
        "goodput_by_latency_ms": {
            f"{1000 * cost.latency_s:g}": cost.share for cost in costs if cost.name == clean.name
        },
        "goodput_by_error_rate": {
            f"{cost.error_rate:g}": cost.share for cost in costs if cost.error_rate is not None
        },
        "link_ram_bytes": link_bytes,
        "uart_ring_bytes": TX_RING_BYTES + RX_RING_BYTES,
        "frame_delay_ms": delays,
        "records_compared": sum(cost.records for cost in costs),
        "lines": [cost.to_json() for cost in costs],
    }


def rows(costs: Sequence[WireCost]) -> list[list[str]]:
    """Lines of a table with `COLUMNS`."""
    return [
        [
            cost.name,
            f"{1000 * cost.latency_s:g} ms",
            f"{cost.goodput / 1000:.1f} kB/s",
            f"{cost.share:.1%}",
            f"{cost.efficiency:.1%}",
            str(cost.chunks_lost),
            str(cost.repetitions),
        ]
        for cost in costs
    ]


def into_document(costs: Sequence[WireCost], smp: float, document: str) -> str:
    """A document with its table of the wire brought up to date.

    Raises:
        DataError: It has no place for the table.
    """
    before, begin, rest = document.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise DataError("the document has no place for the table", f"add {_BEGIN + _END}")
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|---|---:|---:|---:|---:|---:|---:|",
        *("| " + " | ".join(row) + " |" for row in rows(costs)),
        f"| SMP's serial framing, clean | | | | {smp:.1%} | | |",
    ]
    return before + begin + "\n".join(lines) + "\n" + end + after
