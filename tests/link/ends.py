"""Ends of a link in memory: the compiled C link on ports whose bytes the tests can touch."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import pytest
from cobs import cobs

core = pytest.importorskip("drip._core", reason="needs the compiled core: run make setup")
ffi, lib = core.ffi, core.lib


@dataclass(frozen=True)
class Received:
    """A frame as the C link handed it over."""

    type: int
    id: int
    body: bytes


def reference_encoding(frame_type: int, frame_id: int, body: bytes) -> bytes:
    """Encode a frame with independent code: PyPI's cobs and zlib."""
    content = bytes([frame_type, 0]) + frame_id.to_bytes(2, "little") + body
    content += zlib.crc32(content).to_bytes(4, "little")
    return b"\0" + cobs.encode(content) + b"\0"


class End:
    """One `drip_link_t`; `incoming` and `outgoing` are its wires."""

    def __init__(self, *, takes: int = 1 << 20) -> None:
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.takes = takes
        self.gives = 1 << 20
        self._read = ffi.callback("int(void *, uint8_t *, uint32_t)", self._on_read)
        self._write = ffi.callback("int(void *, const uint8_t *, uint32_t)", self._on_write)
        self.port = ffi.new("drip_port_t *")
        self.port.link_read = self._read
        self.port.link_write = self._write
        self.link = ffi.new("drip_link_t *")
        lib.drip_link_init(self.link, self.port)

    def _on_read(self, _context: object, data: object, size: int) -> int:
        count = min(size, self.gives, len(self.incoming))
        ffi.memmove(data, bytes(self.incoming[:count]), count)
        del self.incoming[:count]
        return count

    def _on_write(self, _context: object, data: object, size: int) -> int:
        count = min(size, self.takes)
        self.outgoing += ffi.buffer(data, count)[:]
        return count

    def send(self, frame_type: int, frame_id: int, body: bytes) -> int:
        """Send a frame, or return what kept it from being sent."""
        place = lib.drip_link_body(self.link)
        if place == ffi.NULL:
            return lib.DRIP_ERR_BUSY
        ffi.memmove(place, body, min(len(body), lib.DRIP_MAX_BODY_BYTES))
        return lib.drip_link_send(self.link, frame_type, frame_id, len(body))

    def pump(self) -> bytes:
        """Send until nothing waits; return what went out."""
        for _ in range(100_000):
            if not lib.drip_link_busy(self.link):
                break
            lib.drip_link_pump(self.link)
        sent = bytes(self.outgoing)
        self.outgoing.clear()
        return sent

    def receive(self, data: bytes) -> list[Received]:
        """Take bytes from the wire; return the frames found in them."""
        self.incoming += data
        frames = []
        out = ffi.new("drip_link_frame_t *")
        idle = 0
        while idle < 2:
            if lib.drip_link_poll(self.link, out):
                body = ffi.buffer(out.body, out.body_size)[:]
                frames.append(Received(out.header.type, out.header.id, body))
            elif not self.incoming:
                idle += 1
        return frames
