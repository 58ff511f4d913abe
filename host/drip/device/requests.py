"""One request after the other, each repeated until it is answered: what a client is made of.

Every request may reach the device twice: positions, offsets and segment numbers say what is meant,
and a frame that is fed carries a token. So a lost or garbled frame in either direction costs a
repetition and nothing else. Until HELLO has been answered, nothing but HELLO is sent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from drip import wire
from drip.device.exchange import (
    Event,
    Exchange,
    SilenceError,
    answer_code,
    unpack_exact,
    unpack_grown,
)
from drip.device.transport import Transport
from drip.errors import DeviceError, LinkError, SchemaError

__all__ = ["ClockReading", "Requests"]

_RESET_POLL_S = 0.05
# The device goes back to the old rate after 1.5 s.
_BAUD_TRIAL_S, _BAUD_FALLBACK_S, _BAUD_GOODBYE_S = 1.2, 1.6, 0.3
_USUAL_BAUD = (921_600, 460_800, 230_400)
# How often one request may meet a device that has just restarted.
_FORGOTTEN = 4


@dataclass(frozen=True)
class ClockReading:
    """The device's clock beside the host's.

    Attributes:
        boot_id: Boot during which this relation holds.
        device_us: Monotonic microseconds of the device.
        host_us: Microseconds since 1970 (UTC) at the same moment.
        uncertainty_us: Half of the time that the exchange took.
    """

    boot_id: int
    device_us: int
    host_us: int
    uncertainty_us: int

    @property
    def offset_us(self) -> int:
        """What to add to a device time of this boot to get UTC."""
        return self.host_us - self.device_us


class Requests:
    """Asking a device: who and how it is, the time, the rate of the line, a restart.

    The arguments are those of :class:`drip.device.Client`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float = 5.0,
        attempt_s: float = 1.0,
        busy_s: float = 30.0,
        on_event: Callable[[Event], None] | None = None,
        first_id: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._exchange = Exchange(
            transport,
            timeout_s=timeout_s,
            attempt_s=attempt_s,
            busy_s=busy_s,
            on_event=on_event,
            first_id=first_id,
            clock=clock,
            sleep=sleep,
        )
        self._timeout_s, self._attempt_s = timeout_s, min(attempt_s, timeout_s)
        self._hello: wire.Hello | None = None
        self._reset_baud: int | None = None
        self._raised = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the port; a rate that was raised is taken back first."""
        try:
            self._lower_baud()
        finally:
            self._exchange.transport.close()

    @property
    def name(self) -> str:
        """The port, for messages."""
        return self._exchange.name

    @property
    def transport(self) -> Transport:
        """The stream that the client was given."""
        return self._exchange.transport

    @property
    def device(self) -> wire.Hello:
        """Who answered HELLO; asks when nobody has yet."""
        return self._hello if self._hello is not None else self.hello()

    @property
    def bytes_wire(self) -> int:
        """Bytes on the line so far, both directions, everything included."""
        return self._exchange.bytes_sent + self._exchange.bytes_received

    @property
    def repetitions(self) -> int:
        """Requests that had to be sent again."""
        return self._exchange.repetitions

    @property
    def garbled(self) -> int:
        """Runs of received bytes that were no valid frame."""
        return self._exchange.garbled

    def hello(self) -> wire.Hello:
        """Ask who is there. Works with devices of every schema, older and newer.

        Raises:
            LinkError: Nothing answers, or what answers is not a DRIP device.
        """
        request = wire.HelloRequest(
            size=wire.HelloRequest.SIZE,
            version=1,
            protocol=wire.PROTOCOL,
            schema_hash=wire.SCHEMA_HASH,
        )
        try:
            body = self._exchange.run(wire.FrameType.HELLO, request.pack())
        except SilenceError as error:
            if self._find_again():
                return self.device
            raise self._exchange.explain_silence() from error
        self._exchange.check(body, "HELLO")
        self._hello = unpack_grown(wire.Hello, body[wire.Response.SIZE :], "HELLO")
        return self._hello

    def status(self) -> wire.Status:
        """Read counters and states. Works with devices of every schema."""
        body = self._request(wire.FrameType.STATUS)
        return unpack_grown(wire.Status, body[wire.Response.SIZE :], "STATUS")

    def time(self) -> ClockReading:
        """Tell the device the time and learn what its own clock says."""
        before_us = time.time_ns() // 1000
        started = self._exchange.clock()
        request = wire.TimeRequest(unix_us=before_us)
        answer = unpack_exact(
            wire.TimeResponse, self._request(wire.FrameType.TIME, request.pack()), "TIME"
        )
        half_us = int((self._exchange.clock() - started) * 500_000)
        return ClockReading(answer.boot_id, answer.time_us, before_us + half_us, half_us)

    def set_baud(self, baud: int) -> bool:
        """Change the rate of the line on both ends; stay at the old one when that does not work.

        Args:
            baud: Bits per second.

        Returns:
            Whether the line now runs at it. False when board or transport has a fixed rate, or
            nothing is heard at the new one.

        Raises:
            LinkError: The device does not come back at the old rate either.
            DeviceError: It refused.
        """
        before = self.device.baud
        change = _rate_of(self._exchange.transport)
        if self._reset_baud is None:
            self._reset_baud = before
        if baud == before:
            return True
        if change is None or not self.device.capabilities & wire.Capability.BAUD:
            return False
        self._request(wire.FrameType.BAUD, _baud(wire.BaudOp.SET, baud))
        done = False
        try:
            change(baud)
            done = self._confirm_baud()
        except LinkError:
            # The adapter here has no such rate; a port that has gone says so at the next request.
            done = False
        finally:
            if not done:
                change(before)
        if not done:
            self._exchange.sleep(_BAUD_FALLBACK_S)
        self._raised = done and baud != self._reset_baud
        self.hello()
        return done and self.device.baud == baud

    def raise_baud(self, most: int) -> int:
        """Run the line as fast as both ends can; where that does not work it stays as it is.

        Args:
            most: Highest rate to try.

        Returns:
            The rate from now on, bits per second.

        Raises:
            LinkError: The device does not answer any more.
        """
        fastest = min(self.device.baud_most, most)
        # Many adapters end at the first of these, whatever the board can do.
        for baud in sorted({fastest, *(rate for rate in _USUAL_BAUD if rate < fastest)})[::-1][:2]:
            if baud <= self.device.baud:
                break
            with contextlib.suppress(DeviceError):
                if self.set_baud(baud):
                    break
            if _rate_of(self._exchange.transport) is None:
                break
        return self.device.baud

    def _confirm_baud(self) -> bool:
        deadline = self._exchange.clock() + _BAUD_TRIAL_S
        while self._exchange.clock() < deadline:
            with contextlib.suppress(SilenceError):
                answer = self._exchange.run(
                    wire.FrameType.BAUD, _baud(wire.BaudOp.CONFIRM), once=True, wait_s=0.15
                )
                return answer_code(answer) == wire.Err.OK
        return False

    def _lower_baud(self) -> None:
        """Leave the line as it was found; a device that misses this finds back by itself."""
        if not self._raised or self._reset_baud is None:
            return
        self._raised = False
        transport = self._exchange.transport
        getattr(transport, "last_words", lambda: None)()
        with contextlib.suppress(SilenceError, LinkError):
            self._exchange.run(
                wire.FrameType.BAUD,
                _baud(wire.BaudOp.SET, self._reset_baud),
                once=True,
                wait_s=_BAUD_GOODBYE_S,
            )

    def _find_again(self) -> bool:
        """Look for a device that is at its first rate again, where it goes when it restarts."""
        change, before = _rate_of(self._exchange.transport), self._hello
        if not self._raised or self._reset_baud is None or change is None:
            return False
        self._raised = False
        change(self._reset_baud)
        try:
            now = self.hello()
            # Without a restart the line may have become too bad for the higher rate.
            if before is not None and now.boot_id != before.boot_id:
                self.raise_baud(before.baud)
        except LinkError:
            return False
        return True

    def reset(self, *, wait_s: float = 10.0) -> wire.Hello:
        """Restart the device and wait until it answers again.

        Args:
            wait_s: How long the restart may take.

        Raises:
            LinkError: It does not come back.
        """
        boot_id = self.device.boot_id
        deadline = self._exchange.clock() + wait_s
        self._hello = None
        # It may restart before the answer is on the line.
        with contextlib.suppress(SilenceError):
            self._exchange.check(self._exchange.run(wire.FrameType.RESET, b"", once=True), "RESET")
        change = _rate_of(self._exchange.transport)
        if self._reset_baud is not None and change is not None:
            change(self._reset_baud)
            self._raised = False
        while True:
            try:
                hello = self.hello()
            except LinkError:
                if self._exchange.clock() >= deadline:
                    raise
                continue
            # A device without a card cannot count its boots, so time alone must do there.
            if (
                hello.boot_id != boot_id
                or self._exchange.clock() >= deadline
                or not any(hello.log_uuid)
            ):
                return hello
            self._exchange.sleep(_RESET_POLL_S)

    def _require_schema(self, what: str) -> None:
        device = self.device
        if device.schema_hash != wire.SCHEMA_HASH or device.protocol != wire.PROTOCOL:
            raise SchemaError(
                f"{self.name} cannot {what}: its firmware has schema {device.schema_hash:08x},"
                f" this drip has {wire.SCHEMA_HASH:08x}",
                "update the firmware or drip; status and sync work with every version",
            )

    def _request(self, kind: wire.FrameType, body: bytes = b"", what: str = "") -> bytes:
        answer = self._run(kind, body)
        self._exchange.check(answer, what or kind.name)
        return answer

    def _run(self, kind: wire.FrameType, body: bytes) -> bytes:
        if self._hello is None:
            self.hello()
        try:
            return self._run_known(kind, body)
        except SilenceError as error:
            # Once: a device that restarts at every such request must not be asked for ever.
            if self._find_again():
                with contextlib.suppress(SilenceError):
                    return self._run_known(kind, body)
            raise LinkError(
                f"{self.name} stopped answering ({kind.name})",
                "check cable and power, then run the command again: it continues",
            ) from error

    def _run_known(self, kind: wire.FrameType, body: bytes) -> bytes:
        for _ in range(_FORGOTTEN):
            answer = self._exchange.run(kind, body)
            if answer_code(answer) != wire.Err.SCHEMA:
                break
            # A device that restarted has forgotten who asks.
            self.hello()
        return answer


def _baud(op: wire.BaudOp, baud: int = 0) -> bytes:
    return wire.BaudRequest(op=op, baud=baud).pack()


def _rate_of(transport: Transport) -> Callable[[int], None] | None:
    """What changes the rate of a transport, see :class:`drip.device.transport.HasBaud`.

    Not by isinstance: a transport around another one passes its functions on.
    """
    change: Callable[[int], None] | None = getattr(transport, "set_baud", None)
    return change
