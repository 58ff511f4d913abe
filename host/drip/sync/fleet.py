"""Several boards at once: one thread each, one store for all.

A thread ends at the next wait for its board once it is told to stop, as an interrupted command
does: what has arrived is spooled, and the next run goes on there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from drip.device.client import Client
from drip.device.opening import connect
from drip.device.transport import Transport
from drip.errors import CardError, DeviceError, DripError, LinkError
from drip.store import AppendReport, Store
from drip.sync import SyncReport, sync_device

__all__ = ["BoardResult", "Line", "Options", "sync_boards", "watch_boards"]

_TICK_S = 0.1
_SCAN_S = 0.5
_RETRY_S = (1.0, 30.0)
_RESET_PULSE_S = 10.0

Progress = Callable[[str, int, int], None]
"""Called with (port, bytes done, bytes in all), from any thread."""


@dataclass(frozen=True)
class Line:
    """How to open a port.

    Attributes:
        baud: Bits per second, serial ports only.
        timeout_s: How long a device may stay silent.
        reset: Restart the board first, by request.
        pulse: Restart a board that is silent over the port's lines. Only for a port that somebody
            has named: on another one this may restart a stranger's device.
        max_baud: Raise the rate up to this where the board offers it; 0: never.
    """

    baud: int = 115200
    timeout_s: float = 5.0
    reset: bool = False
    pulse: bool = False
    max_baud: int = 0


@dataclass(frozen=True)
class Options:
    """What a sync does, as for :func:`drip.sync.sync_device`.

    Attributes:
        keep: Free nothing on the devices.
        dry_run: Only say how much waits.
    """

    keep: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class BoardResult:
    """What became of one board.

    Attributes:
        port: Where it hangs.
        device_id: Hex, None when nobody has answered there.
        report: What was done, None when nothing was.
        error: What ended it, None when nothing went wrong.
    """

    port: str
    device_id: str | None = None
    report: SyncReport | None = None
    error: DripError | None = None


def _open(port: str, line: Line, stop: threading.Event) -> Client:
    def prepare(client: Client, opened: Transport) -> None:
        if line.reset:
            _reset(client, opened, line.pulse)

    return connect(
        port,
        baud=line.baud,
        timeout_s=line.timeout_s,
        max_baud=line.max_baud,
        stop=stop,
        prepare=prepare,
    )


def _reset(client: Client, transport: Transport, may_pulse: bool) -> None:
    try:
        client.hello()
    except LinkError:
        # A board that hangs can only be restarted from outside, where the port has such a line.
        pulse = getattr(transport, "pulse_reset", None) if may_pulse else None
        if pulse is None or not pulse():
            raise
        _wait_hello(client)
        return
    client.reset()


def _wait_hello(client: Client) -> None:
    until = time.monotonic() + _RESET_PULSE_S
    while True:
        try:
            client.hello()
            return
        except LinkError:
            if time.monotonic() >= until:
                raise


def sync_boards(
    ports: Sequence[str],
    store: Store,
    *,
    line: Line,
    options: Options,
    on_progress: Progress | None = None,
) -> list[BoardResult]:
    """Pull from several boards at the same time.

    Args:
        ports: Their ports.
        store: Where the records of all of them go.
        line: How to open the ports.
        options: What to do with each.
        on_progress: See :data:`Progress`.

    Returns:
        One result per port, in their order; an error of one board does not disturb the others.

    Raises:
        KeyboardInterrupt: As soon as every thread has stopped.
    """
    stop = threading.Event()
    results: dict[str, BoardResult] = {}
    broken: list[BaseException] = []

    def work(port: str) -> None:
        name: str | None = None
        try:
            with _open(port, line, stop) as client:
                name = client.device.device_id.hex()
                report = sync_device(
                    client,
                    store,
                    keep=options.keep,
                    dry_run=options.dry_run,
                    on_progress=_for(port, on_progress),
                )
            results[port] = BoardResult(port, name, report)
        except DripError as error:
            results[port] = BoardResult(port, name, error=error)
        except KeyboardInterrupt:
            results[port] = BoardResult(port, name)
        except BaseException as error:
            broken.append(error)

    _run([threading.Thread(target=work, args=(port,), daemon=True) for port in ports], stop)
    if broken:
        raise broken[0]
    return [results[port] for port in ports]


def watch_boards(
    find: Callable[[], Sequence[str]],
    store: Store,
    *,
    line: Line,
    options: Options,
    every_s: float,
    on_news: Callable[[BoardResult], None],
    on_progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> list[BoardResult]:
    """Keep pulling from boards that come and go, until interrupted.

    Args:
        find: Names the ports where boards may be, each time it is asked.
        store: Where the records of all of them go.
        line: How to open the ports.
        options: What to do with each; a dry run makes no sense here.
        every_s: How long to wait between two looks at a board.
        on_news: Called, one at a time, when a board answers (no report, no error), with every
            report that brought something, and with every error that is not the one before.
        on_progress: See :data:`Progress`.
        stop: Set it to end everything, as Ctrl-C does.

    Returns:
        One result per port that ever had a board, its reports added up.

    Raises:
        StoreError: The store cannot be written; nothing unsaved was freed on a device.
    """
    watch = _Watch(store, line, options, every_s, on_news, on_progress, stop or threading.Event())
    return watch.run(find)


class _Watch:
    def __init__(
        self,
        store: Store,
        line: Line,
        options: Options,
        every_s: float,
        on_news: Callable[[BoardResult], None],
        on_progress: Progress | None,
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._line = line
        self._options = options
        self._every_s = every_s
        self._on_news = on_news
        self._on_progress = on_progress
        self._stop = stop
        self._lock = threading.Lock()
        self._totals: dict[str, BoardResult] = {}
        self._present: frozenset[str] = frozenset()
        self._broken: list[BaseException] = []

    def run(self, find: Callable[[], Sequence[str]]) -> list[BoardResult]:
        threads: dict[str, threading.Thread] = {}
        try:
            while not self._stop.is_set():
                self._present = frozenset(find())
                for port in sorted(self._present):
                    if port not in threads or not threads[port].is_alive():
                        threads[port] = threading.Thread(
                            target=self._follow, args=(port,), daemon=True
                        )
                        threads[port].start()
                self._stop.wait(_SCAN_S)
        except KeyboardInterrupt:
            pass
        finally:
            self._stop.set()
            for thread in threads.values():
                thread.join()
        if self._broken:
            raise self._broken[0]
        return [self._totals[port] for port in sorted(self._totals)]

    def _follow(self, port: str) -> None:
        """Stay with a port for as long as it exists."""
        wait_s, most_s = _RETRY_S
        said = ""
        line = self._line
        try:
            while port in self._present and not self._stop.is_set():
                try:
                    with _open(port, line, self._stop) as client:
                        wait_s, said, line = _RETRY_S[0], "", replace(line, reset=False)
                        with self._lock:
                            self._on_news(BoardResult(port, client.device.device_id.hex()))
                        self._serve(port, client)
                except (LinkError, DeviceError) as error:
                    said = self._complain(port, error, said)
                self._stop.wait(wait_s)
                wait_s = min(2 * wait_s, most_s)
        except KeyboardInterrupt:
            pass
        except BaseException as error:
            # A full disk, or a defect: no other board would fare better.
            self._broken.append(error)
            self._stop.set()

    def _serve(self, port: str, client: Client) -> None:
        said = ""
        done: tuple[bytes, int, int] | None = None
        name = client.device.device_id.hex()
        while not self._stop.is_set():
            try:
                status = client.status()
                waits = status.log_end > status.log_acked
                # What is kept waits for ever; only new frames are worth a look.
                state = (client.device.log_uuid, status.boot_id, status.frames_kept)
                if waits and not (self._options.keep and state == done):
                    report = sync_device(
                        client,
                        self._store,
                        keep=self._options.keep,
                        on_progress=_for(port, self._on_progress),
                    )
                    done = state
                    self._tell(port, name, report)
                said = ""
            except CardError as error:
                said = self._complain(port, error, said)
            self._stop.wait(self._every_s)

    def _tell(self, port: str, name: str, report: SyncReport) -> None:
        with self._lock:
            before = self._totals.get(port, BoardResult(port))
            total = report if before.report is None else _add(before.report, report)
            self._totals[port] = BoardResult(port, name, total)
            added = report.store or AppendReport()
            if added.new or added.conflicts or report.damaged or report.gone_bytes:
                self._on_news(BoardResult(port, name, report))

    def _complain(self, port: str, error: DripError, said: str) -> str:
        if error.message != said:
            with self._lock:
                self._on_news(BoardResult(port, error=error))
        return error.message


def _add(a: SyncReport, b: SyncReport) -> SyncReport:
    """Add up two reports of one board."""
    return replace(
        b,
        bytes_wire=a.bytes_wire + b.bytes_wire,
        bytes_log=a.bytes_log + b.bytes_log,
        pending_bytes=a.pending_bytes + b.pending_bytes,
        records=a.records + b.records,
        segments=a.segments + b.segments,
        acked=a.acked + b.acked,
        store=(a.store or AppendReport()) + (b.store or AppendReport()),
        damaged=a.damaged + b.damaged,
        gone_bytes=a.gone_bytes + b.gone_bytes,
        repetitions=a.repetitions + b.repetitions,
        seconds=a.seconds + b.seconds,
    )


def _for(port: str, on_progress: Progress | None) -> Callable[[int, int], None] | None:
    if on_progress is None:
        return None
    tell = on_progress
    return lambda done, total: tell(port, done, total)


def _run(threads: Sequence[threading.Thread], stop: threading.Event) -> None:
    """Run threads to their end; on Ctrl-C tell them to stop, and wait until they have."""
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK_S)
    except KeyboardInterrupt:
        stop.set()
        for thread in threads:
            thread.join()
        raise
