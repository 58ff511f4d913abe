"""Reading log bytes from a device: streamed where it can, block by block where its card fails."""

from __future__ import annotations

from drip import wire
from drip.device.client import Client
from drip.device.exchange import SilenceError
from drip.device.stream import LogStream, ReadChunk
from drip.errors import DeviceError, LinkError

__all__ = ["GoneError", "LogReader"]

_ATTEMPTS = 4


class GoneError(Exception):
    """The device has given up a position.

    Args:
        position: Where to go on.
    """

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class LogReader:
    """Log positions of one device.

    Args:
        client: The device.

    Attributes:
        stream: What was asked for ahead; None reads chunk by chunk.
        bytes_log: Bytes of the log that were read.
        damaged: What could not be read, one line each.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.stream: LogStream | None = None
        self.bytes_log = 0
        self.damaged: list[str] = []

    def read(self, position: int, size: int, *, ahead: bool = False) -> bytes:
        """Read log bytes; whole blocks, so there may be more than ``size``."""
        blocks = -(-size // wire.BLOCK_BYTES) * wire.BLOCK_BYTES
        try:
            if ahead and self.stream is not None:
                chunk = self._read_stream(self.stream, position, blocks)
            else:
                chunk = self.client.read(position, min(blocks, wire.MAX_CHUNK_BYTES))
        except DeviceError as error:
            if error.code == wire.Err.RANGE:
                return b""
            if error.code == wire.Err.IO:
                return self._read_blocks(position, blocks)
            raise
        if chunk.gone:
            raise GoneError(chunk.position)
        self.bytes_log += len(chunk.data)
        return chunk.data

    def _read_blocks(self, position: int, size: int) -> bytes:
        """Read block by block, up to a whole chunk; what stays unreadable becomes zeros."""
        stop = position - position % wire.MAX_CHUNK_BYTES + wire.MAX_CHUNK_BYTES
        data = b""
        for at in range(position, min(stop, position + size), wire.BLOCK_BYTES):
            data += self._read_block(at)
        self.bytes_log += len(data)
        return data

    def _read_block(self, position: int) -> bytes:
        for _ in range(_ATTEMPTS):
            try:
                chunk = self.client.read(position, wire.BLOCK_BYTES)
            except DeviceError as error:
                if error.code != wire.Err.IO:
                    raise
                continue
            if chunk.gone:
                raise GoneError(chunk.position)
            return chunk.data
        self.damaged.append(f"position {position}: the card cannot read this block")
        return bytes(wire.BLOCK_BYTES)

    def _read_stream(self, stream: LogStream, position: int, size: int) -> ReadChunk:
        try:
            return stream.read(position, size)
        except SilenceError as error:
            raise LinkError(
                f"{self.client.name} stopped answering (READ)",
                "check cable and power, then run the command again: it continues",
            ) from error
