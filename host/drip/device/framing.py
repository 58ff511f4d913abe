"""Link frames: header, body and CRC-32, COBS-encoded between zero bytes (docs/SPEC.md)."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from cobs import cobs

from drip import wire

__all__ = ["Frame", "FrameReader", "encode_frame"]

_CRC_BYTES = 4
_FRAME_BYTES = wire.FrameHeader.SIZE + wire.MAX_BODY_BYTES + _CRC_BYTES
# COBS adds one byte per 254; a longer run without a zero byte cannot become a frame.
_ENCODED_BYTES = _FRAME_BYTES + _FRAME_BYTES // 254 + 1
_STRAY_BYTES = 160


@dataclass(frozen=True)
class Frame:
    """A frame whose checksum was right.

    Attributes:
        type: ``wire.FrameType``, with ``wire.RESPONSE`` set in a response.
        id: Request id.
        body: What follows the frame header.
    """

    type: int
    id: int
    body: bytes


def encode_frame(frame_type: int, request_id: int, body: bytes = b"") -> bytes:
    """Return a frame as it goes over the line, delimiters at both ends.

    The leading delimiter ends whatever the receiver took for the start of a frame before.

    Raises:
        ValueError: The body is longer than ``wire.MAX_BODY_BYTES``.
    """
    if len(body) > wire.MAX_BODY_BYTES:
        raise ValueError(f"a body of {len(body)} bytes exceeds {wire.MAX_BODY_BYTES}")
    content = wire.FrameHeader(type=frame_type, flags=0, id=request_id).pack() + body
    content += zlib.crc32(content).to_bytes(_CRC_BYTES, "little")
    return b"\0" + bytes(cobs.encode(content)) + b"\0"


class FrameReader:
    """Finds frames in a byte stream; what is no frame is counted and forgotten.

    Attributes:
        errors: Runs of bytes that were not a valid frame.
        stray: The last bytes that were not part of a frame (boot text, a stranger's answer).
    """

    def __init__(self) -> None:
        self.errors = 0
        self.stray = b""
        self._run = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[Frame]:
        """Take received bytes; return the frames that they complete, in order."""
        frames: list[Frame] = []
        *ended, rest = data.split(b"\0")
        for part in ended:
            self._extend(part)
            frame = self._finish()
            if frame is not None:
                frames.append(frame)
        self._extend(rest)
        return frames

    def pending(self) -> bytes:
        """Return the bytes received since the last delimiter, at most one frame's worth."""
        return bytes(self._run)

    def _extend(self, part: bytes) -> None:
        self._run += part
        if len(self._run) > _ENCODED_BYTES:
            self._note_stray()
            self._overlong = True
            self._run.clear()

    def _finish(self) -> Frame | None:
        if not self._run and not self._overlong:
            return None
        frame = None if self._overlong else _decode(bytes(self._run))
        if frame is None:
            self.errors += 1
            self._note_stray()
        self._run.clear()
        self._overlong = False
        return frame

    def _note_stray(self) -> None:
        self.stray = (self.stray + bytes(self._run))[-_STRAY_BYTES:]


def _decode(run: bytes) -> Frame | None:
    try:
        content = bytes(cobs.decode(run))
    except cobs.DecodeError:
        return None
    if not wire.FrameHeader.SIZE + _CRC_BYTES <= len(content) <= _FRAME_BYTES:
        return None
    if zlib.crc32(content[:-_CRC_BYTES]) != int.from_bytes(content[-_CRC_BYTES:], "little"):
        return None
    header = wire.FrameHeader.unpack(content)
    return Frame(header.type, header.id, content[wire.FrameHeader.SIZE : -_CRC_BYTES])
