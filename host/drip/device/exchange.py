"""Requests and answers on a byte stream: repeat until answered, wait while the device is busy."""

from __future__ import annotations

import itertools
import secrets
import struct
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from drip import wire
from drip.device.framing import Frame, FrameReader, encode_frame
from drip.device.transport import Transport
from drip.errors import DeviceError, LinkError, SchemaError

__all__ = ["Event", "Exchange", "SilenceError", "answer_code", "unpack_exact", "unpack_grown"]

Event = wire.EventKept | wire.EventState | wire.EventDrift
"""What a device reports of its own accord."""

_EVENTS: dict[int, type[wire.EventKept] | type[wire.EventState] | type[wire.EventDrift]] = {
    wire.Event.KEPT: wire.EventKept,
    wire.Event.CARD: wire.EventState,
    wire.Event.BOOT: wire.EventState,
    wire.Event.DRIFT: wire.EventDrift,
}

_CODE_BYTES = 2
_GARBLED_GRACE_S = 0.05
_BACKOFF_S = (0.001, 0.05)

_HINTS = {
    wire.Err.ARGUMENT: "a frame must have the size that the model takes, a setting a valid value",
    wire.Err.BUSY: "try again in a moment",
    wire.Err.NO_CARD: "insert a card that was formatted for DRIP",
    wire.Err.NO_MODEL: "push a model with: drip deploy",
    wire.Err.FULL: "free space on the device with: drip sync",
    wire.Err.NO_CAM: "choose a score that needs no Grad-CAM, or push a model with a CAM head",
    wire.Err.SELFTEST: "compile the model again; the device still runs the old one",
    wire.Err.MEMORY: "the model needs more memory than the device has; make it smaller",
    wire.Err.SIGNATURE: "push an unsigned model",
}

_Struct = TypeVar("_Struct", covariant=True)


class _Layout(Protocol[_Struct]):
    """A generated structure class of :mod:`drip.wire`."""

    @property
    def SIZE(self) -> int: ...  # noqa: N802 (the name in drip.wire)

    def unpack(self, data: bytes | memoryview, offset: int = 0) -> _Struct: ...


class SilenceError(Exception):
    """A request was not answered in time. Never reaches the user."""


class Exchange:
    """One request at a time over a transport.

    Args:
        transport: The stream.
        timeout_s: How long the device may stay silent before a request fails.
        attempt_s: After how long a request without an answer is repeated.
        busy_s: How long the device may answer BUSY (erasing flash, mounting a card).
        on_event: Called with what the device reports of its own accord.
        first_id: Of the first request; None draws one.
        clock, sleep: Time in seconds; simulations replace them.

    Attributes:
        bytes_received, bytes_sent: On the line, everything included.
        repetitions: Requests that were sent again.
        on_answer: Gets answers that nobody waits for: to requests that were only posted.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float,
        attempt_s: float,
        busy_s: float,
        on_event: Callable[[Event], None] | None,
        first_id: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.transport = transport
        self.clock = clock
        self.sleep = sleep
        self.bytes_received = 0
        self.bytes_sent = 0
        self.repetitions = 0
        self.on_answer: Callable[[Frame], None] | None = None
        self._timeout_s = timeout_s
        self._attempt_s = min(attempt_s, timeout_s)
        self._busy_s = busy_s
        self._on_event = on_event
        self._reader = FrameReader()
        # A random start keeps answers to an earlier program's requests from matching.
        self._ids = itertools.count(secrets.randbelow(0x10000) if first_id is None else first_id)
        self._echoed = False
        self._restarts = 0

    @property
    def name(self) -> str:
        """The port, for messages."""
        return self.transport.name

    @property
    def garbled(self) -> int:
        """Runs of received bytes that were no valid frame."""
        return self._reader.errors

    def run(
        self,
        kind: wire.FrameType,
        body: bytes,
        *,
        once: bool = False,
        wait_s: float | None = None,
    ) -> bytes:
        """Send a request until it is answered by something other than BUSY.

        Args:
            kind: Type of the request.
            body: Its body.
            once: Do not repeat it.
            wait_s: How long to wait for an answer before repeating it; None: as usual.

        Returns:
            The body of the answer; its first two bytes are the result code.

        Raises:
            SilenceError: Nothing came back in time.
            LinkError: The stream has ended.
        """
        request_id = next(self._ids) & 0xFFFF
        data = encode_frame(kind, request_id, body)
        start = self.clock()
        silent_until, busy_until = start + self._timeout_s, start + self._busy_s
        backoff_s, most_s = _BACKOFF_S
        self.repetitions -= 1
        while True:
            self.repetitions += 1
            self.transport.write(data)
            self.bytes_sent += len(data)
            attempt_s = self._attempt_s if wait_s is None else wait_s
            left_s = silent_until - self.clock()
            answer = self._await(kind, request_id, min(attempt_s, left_s))
            now = self.clock()
            if answer is None:
                if once or now >= silent_until:
                    raise SilenceError
            elif answer_code(answer) != wire.Err.BUSY or now >= busy_until:
                return answer
            else:
                silent_until = now + self._timeout_s
                self.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, most_s)

    def post(self, kind: wire.FrameType, body: bytes) -> int:
        """Send a request without waiting; return the id that its answers will carry."""
        request_id = next(self._ids) & 0xFFFF
        data = encode_frame(kind, request_id, body)
        self.transport.write(data)
        self.bytes_sent += len(data)
        return request_id

    def pump(self, wait_s: float) -> None:
        """Take what arrives within a time, or as soon as anything does."""
        data = self.transport.read(4096, wait_s)
        self.bytes_received += len(data)
        for frame in self._reader.feed(data):
            self._take_other(frame)

    def check(self, body: bytes, what: str) -> None:
        """Raise what a negative result code means.

        Raises:
            SchemaError, DeviceError: The device refused the request.
        """
        code = answer_code(body)
        if code >= 0:
            return
        if code == wire.Err.SCHEMA:
            raise SchemaError(
                f"{self.name} refused {what}: host and device have different schemas",
                "update the firmware or drip; status and sync work with every version",
            )
        try:
            known = wire.Err(code)
        except ValueError:
            raise DeviceError(f"{self.name} refused {what}: code {code}", code) from None
        text = known.name.lower().replace("_", " ")
        raise DeviceError(f"{self.name} refused {what}: {text}", code, _HINTS.get(known, ""))

    def explain_silence(self) -> LinkError:
        """Return the error for a port on which nobody has answered HELLO."""
        stray = self._reader.stray + self._reader.pending()
        if stray:
            text = "".join(chr(byte) if 32 <= byte < 127 else " " for byte in stray)
            said = " ".join(text.split())[:60]
            return LinkError(
                f"{self.name} is not a DRIP device"
                + (f": it said {said!r}" if said else ": it sends something else"),
                "name the board's port; a wrong baud rate also looks like this",
            )
        if self._echoed:
            return LinkError(
                f"{self.name} is not a DRIP device: it only echoes", "name the board's port"
            )
        return LinkError(
            f"nothing answers on {self.name}",
            "check cable, power, baud rate and that the DRIP firmware runs",
        )

    def _await(self, kind: wire.FrameType, request_id: int, wait_s: float) -> bytes | None:
        until = self.clock() + wait_s
        garbled, restarts = self._reader.errors, self._restarts
        while True:
            left = until - self.clock()
            data = self.transport.read(4096, max(0.0, left))
            self.bytes_received += len(data)
            answer = None
            for frame in self._reader.feed(data):
                if frame.type == kind | wire.RESPONSE and frame.id == request_id:
                    answer = frame.body
                else:
                    self._take_other(frame)
            if answer is not None and len(answer) >= _CODE_BYTES:
                return answer
            if self._reader.errors != garbled or self._restarts != restarts:
                # That may have been the answer, or the device has forgotten what it was asked: ask
                # again soon, not at once, should it still come.
                garbled, restarts = self._reader.errors, self._restarts
                until = min(until, self.clock() + _GARBLED_GRACE_S)
            if not data and left <= 0:
                return None

    def _take_other(self, frame: Frame) -> None:
        if frame.type != wire.FrameType.EVENT:
            self._echoed |= not frame.type & wire.RESPONSE
            if self.on_answer is not None:
                self.on_answer(frame)
            return
        if len(frame.body) < 2:
            return
        (event,) = struct.unpack_from("<H", frame.body)
        self._restarts += event == wire.Event.BOOT
        if self._on_event is None:
            return
        shape = _EVENTS.get(event)
        # Newer boards may know other kinds, and longer ones.
        if shape is not None and len(frame.body) >= shape.SIZE:
            self._on_event(shape.unpack(frame.body))


def answer_code(body: bytes) -> int:
    """Return the result code that every answer starts with."""
    return int.from_bytes(body[:_CODE_BYTES], "little", signed=True)


def unpack_exact(shape: _Layout[_Struct], body: bytes, what: str) -> _Struct:
    """Read a structure of this schema.

    Raises:
        LinkError: The answer is too short.
    """
    if len(body) < shape.SIZE:
        raise LinkError(
            f"the answer to {what} is only {len(body)} bytes", "update the firmware of the device"
        )
    return shape.unpack(body)


def unpack_grown(shape: _Layout[_Struct], data: bytes, what: str) -> _Struct:
    """Read a structure that other versions may have shorter or longer: absent fields are zero.

    Raises:
        LinkError: The answer does not even hold its own size.
    """
    if len(data) < 4:
        raise LinkError(
            f"the answer to {what} is only {len(data)} bytes", "update the firmware of the device"
        )
    known = data[: min(int.from_bytes(data[:2], "little"), shape.SIZE)]
    return shape.unpack(known + bytes(shape.SIZE - len(known)))
