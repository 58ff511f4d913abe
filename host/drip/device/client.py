"""The typed client of a DRIP device."""

from __future__ import annotations

import itertools
import secrets
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.device.exchange import answer_code, unpack_exact
from drip.device.requests import ClockReading, Requests
from drip.device.stream import LogStream, ReadChunk
from drip.errors import DataError, DeviceError, LinkError

__all__ = ["Client", "ClockReading", "ReadChunk"]

# Fresh tokens tell a frame that is fed again from one that is fed twice by mistake.
_TOKENS = itertools.count(secrets.randbits(32))


class Client(Requests):
    """A device on a byte stream.

    Args:
        transport: The stream; the client closes it.
        timeout_s: How long the device may stay silent before a request fails.
        attempt_s: After how long a request without an answer is repeated.
        busy_s: How long the device may answer BUSY (erasing flash, mounting a card).
        on_event: Called with what the device reports of its own accord, during requests.
        first_id: Of the first request; None draws one.
        clock, sleep: Time in seconds; simulations replace them.
    """

    def __enter__(self) -> Client:
        return self

    def config_get(self) -> dict[int, int]:
        """Read all settings: ``wire.Config`` keys and their values.

        Raises:
            SchemaError: The device was built from another schema.
        """
        self._require_schema("show its settings")
        body = self._request(wire.FrameType.CONFIG_GET)[wire.Response.SIZE :]
        settings: dict[int, int] = {}
        at = 0
        while at + 4 <= len(body):
            key, length = struct.unpack_from("<HH", body, at)
            if length == 4 and at + wire.ConfigItem.SIZE <= len(body):
                settings[key] = wire.ConfigItem.unpack(body, at).value
            at += 4 + length
        return settings

    def config_set(self, settings: Mapping[int, int]) -> None:
        """Change settings.

        Args:
            settings: ``wire.Config`` keys and their new values, 0..2**32-1.

        Raises:
            SchemaError: The device was built from another schema.
            DeviceError: A value is out of range.
        """
        self._require_schema("change its settings")
        items = (
            wire.ConfigItem(key=int(key), length=4, value=int(value)).pack()
            for key, value in settings.items()
        )
        self._request(wire.FrameType.CONFIG_SET, b"".join(items))

    def feed(
        self, frame: bytes | NDArray[Any], *, stream_id: int = 0, token: int | None = None
    ) -> wire.Result:
        """Give the device a frame as if its sensor had captured it.

        Args:
            frame: The frame as captured, 1..``wire.MAX_FRAME_BYTES`` bytes; an array is sent
                row by row, little-endian.
            stream_id: Stream that it belongs to.
            token: 32-bit mark that comes back in the result; None draws a fresh one.

        Returns:
            What the device decided; ``seq`` is the record's when it was kept.

        Raises:
            SchemaError: The device was built from another schema.
            DeviceError: It refused the frame (wrong size, no capture buffer).
        """
        self._require_schema("take frames")
        return self._send_frame(wire.FrameType.FEED, frame, stream_id, token)

    def score(
        self, frame: bytes | NDArray[Any], *, stream_id: int = 0, token: int | None = None
    ) -> wire.Result:
        """Let the device score a frame without logging it; arguments and errors as `feed`."""
        self._require_schema("score frames")
        return self._send_frame(wire.FrameType.SCORE, frame, stream_id, token)

    def read(self, position: int, size: int = wire.MAX_CHUNK_BYTES) -> ReadChunk:
        """Read durable bytes of the log. Works with devices of every schema.

        Args:
            position: Log position.
            size: Bytes wanted; the answer may hold fewer.

        Raises:
            DeviceError: RANGE: nothing durable there; NO_CARD; IO.
        """
        request = wire.ReadRequest(position=position, size=min(size, wire.MAX_CHUNK_BYTES))
        body = self._run(wire.FrameType.READ, request.pack())
        if answer_code(body) != wire.Err.GONE:
            self._exchange.check(body, f"READ at {position}")
        answer = unpack_exact(wire.ReadResponse, body, "READ")
        if answer.code == wire.Err.GONE:
            return ReadChunk(answer.position, b"", end=False, gone=True)
        data = body[wire.ReadResponse.SIZE :]
        if len(data) != answer.size or answer.position != position or answer.size > size:
            raise LinkError(
                f"{self.name} answered READ with {len(data)} bytes at {answer.position}"
                f" instead of {position}",
                "update the firmware of the device",
            )
        return ReadChunk(position, data, end=bool(answer.flags & wire.LogFlag.END))

    def read_ahead(self, end: int) -> LogStream:
        """Read the log as a stream up to a position. Other requests may be made meanwhile.

        Close it when done. The device must have the capability ``STREAM``.
        """
        return LogStream(self._exchange, end, timeout_s=self._timeout_s, attempt_s=self._attempt_s)

    @property
    def can_stream(self) -> bool:
        """Whether the device has the capability ``STREAM``."""
        return bool(self.device.capabilities & wire.Capability.STREAM)

    def ack(self, segment: int, records: int, digest: int) -> int:
        """Tell the device that a segment is safe on this computer; it may reuse the space.

        Args:
            segment: The oldest segment not yet acknowledged.
            records: Records in it.
            digest: CRC-32 over the ``header_crc`` of its records, in order.

        Returns:
            Number of the first segment that is not acknowledged.

        Raises:
            DeviceError: DIGEST: it holds something else; STATE: not the next in order.
        """
        request = wire.Ack(segment=segment, records=records, digest=digest)
        body = self._request(wire.FrameType.ACK, request.pack(), f"ACK of segment {segment}")
        return unpack_exact(wire.AckResponse, body, "ACK").acked_segment

    def sync_log(self) -> None:
        """Make everything that was logged so far durable."""
        self._request(wire.FrameType.SYNC)

    def model_info(self) -> wire.ModelResponse:
        """Read the state of the model slots.

        Raises:
            SchemaError: The device was built from another schema.
        """
        return self._model(wire.ModelOp.INFO)

    def model_begin(
        self, *, total_bytes: int, arena_bytes: int, op_bitmap: int, blob_crc: int, model_id: bytes
    ) -> wire.ModelResponse:
        """Announce a model. ``offset`` of the answer says where to start or to go on.

        Args:
            total_bytes: Size of the blob.
            arena_bytes: Working memory it needs.
            op_bitmap: Operators it uses.
            blob_crc: CRC-32 of the whole blob.
            model_id: 16 bytes, as in its header.
        """
        return self._model(
            wire.ModelOp.BEGIN,
            total_bytes=total_bytes,
            arena_bytes=arena_bytes,
            op_bitmap=op_bitmap,
            blob_crc=blob_crc,
            model_id=model_id,
        )

    def model_data(self, offset: int, chunk: bytes) -> wire.ModelResponse:
        """Send a piece of the announced model, at most ``wire.MAX_CHUNK_BYTES``."""
        return self._model(wire.ModelOp.DATA, chunk, offset=offset)

    def model_trial(self) -> wire.ModelResponse:
        """Check the uploaded model, run its self-test and switch to it on trial."""
        return self._model(wire.ModelOp.TRIAL)

    def model_confirm(self) -> wire.ModelResponse:
        """Make the model on trial the one that boots."""
        return self._model(wire.ModelOp.CONFIRM)

    def model_abort(self) -> wire.ModelResponse:
        """Drop an upload or a trial: back to the confirmed model."""
        return self._model(wire.ModelOp.ABORT)

    def _model(
        self, op: wire.ModelOp, chunk: bytes = b"", **fields: int | bytes
    ) -> wire.ModelResponse:
        self._require_schema("take models")
        request = wire.ModelRequest(op=op, **fields)  # type: ignore[arg-type]
        body = self._request(wire.FrameType.MODEL, request.pack() + chunk, f"MODEL {op.name}")
        return unpack_exact(wire.ModelResponse, body, f"MODEL {op.name}")

    def _send_frame(
        self,
        kind: wire.FrameType,
        captured: bytes | NDArray[Any],
        stream_id: int,
        token: int | None,
    ) -> wire.Result:
        frame = _frame_bytes(captured)
        if not 0 < len(frame) <= wire.MAX_FRAME_BYTES:
            raise DataError(
                f"a frame of {len(frame)} bytes cannot be sent",
                f"frames have 1 to {wire.MAX_FRAME_BYTES} bytes",
            )
        mark = (next(_TOKENS) if token is None else token) & 0xFFFFFFFF
        restarts = 0
        offset = 0
        while True:
            chunk = frame[offset : offset + wire.MAX_CHUNK_BYTES]
            head = wire.Feed(stream_id=stream_id, frame_bytes=len(frame), offset=offset, token=mark)
            try:
                body = self._request(kind, head.pack() + chunk)
            except DeviceError as error:
                # A device that restarted in between wants the frame from its beginning.
                lost_place = error.code in (wire.Err.STATE, wire.Err.RANGE, wire.Err.ARGUMENT)
                if offset == 0 or restarts == 3 or not lost_place:
                    raise
                restarts += 1
                offset = 0
                continue
            offset += len(chunk)
            if offset == len(frame):
                break
        result = unpack_exact(wire.Result, body[wire.Response.SIZE :], kind.name)
        if result.token != mark:
            raise LinkError(
                f"{self.name} answered {kind.name} for another frame",
                "no other program may use the port; otherwise update the firmware",
            )
        return result


def _frame_bytes(frame: bytes | NDArray[Any]) -> bytes:
    if isinstance(frame, np.ndarray):
        return frame.astype(frame.dtype.newbyteorder("<"), copy=False).tobytes()
    return bytes(frame)
