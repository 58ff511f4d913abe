"""Byte streams to a device: serial port or pty, TCP (ser2net, simulators), in memory (tests).

Opening a port must not disturb what is behind it: no reset through DTR/RTS, no hang-up on close,
and nobody else may use the port at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import serial
import serial.tools.list_ports

from drip.errors import LinkError, UsageError

if os.name != "nt":
    import termios

__all__ = [
    "HasBaud",
    "MemoryTransport",
    "SerialTransport",
    "TcpTransport",
    "Transport",
    "memory_pair",
    "open_transport",
]

_RESET_PULSE_S = 0.1
_GONE_HINT = "check the cable and power, then run the command again: it continues where it stopped"


@runtime_checkable
class Transport(Protocol):
    """A byte stream that may lose, delay or garble bytes; the layer above repairs that.

    Attributes:
        name: How messages call it: the port or the URL.
    """

    name: str

    def read(self, size: int, timeout_s: float) -> bytes:
        """Return 1 to ``size`` bytes as soon as there are any, or ``b""`` after ``timeout_s``.

        Raises:
            LinkError: The stream has ended.
        """
        ...

    def write(self, data: bytes) -> None:
        """Send all of ``data``.

        Raises:
            LinkError: The stream has ended or takes no bytes.
        """
        ...

    def close(self) -> None:
        """Release the stream; harmless when repeated."""
        ...


@runtime_checkable
class HasBaud(Protocol):
    """A transport whose rate can be changed while it is open."""

    def set_baud(self, baud: int) -> None:
        """Send and receive at another rate, once all bytes written have left.

        Raises:
            LinkError: The port cannot.
        """
        ...


def open_transport(port: str, *, baud: int = 115200, timeout_s: float = 5.0) -> Transport:
    """Open the byte stream that a port name or URL stands for.

    Args:
        port: ``/dev/ttyACM0``, ``COM3``, a pty, ``tcp:HOST:PORT`` or ``tcp://HOST:PORT``.
        baud: Bits per second, serial ports only.
        timeout_s: How long a TCP connection may take to open.

    Raises:
        UsageError: A TCP address without a port.
        LinkError: It cannot be opened.
    """
    if port.startswith("tcp:"):
        host, _, number = port[4:].removeprefix("//").rstrip("/").rpartition(":")
        if not host or not number.isdigit() or not 0 < int(number) < 65536:
            raise UsageError(f"{port} is not an address", "write it as tcp:HOST:PORT")
        return TcpTransport(host.strip("[]"), int(number), timeout_s=timeout_s)
    return SerialTransport(port, baud=baud)


class SerialTransport:
    """A serial port, or a pty.

    Args:
        port: Name of the port.
        baud: Bits per second.

    Raises:
        LinkError: The port is missing, in use, or not a serial port.
    """

    def __init__(self, port: str, *, baud: int = 115200) -> None:
        self.name = port
        # Set before opening: many boards reset on an edge of DTR or RTS.
        handle = serial.Serial(
            port=None, baudrate=baud, timeout=0, write_timeout=5, exclusive=_exclusive()
        )
        handle.dtr = False
        handle.rts = False
        handle.port = port
        try:
            handle.open()
            self._keep_line_on_close(handle)
        except (OSError, ValueError) as error:
            with contextlib.suppress(OSError):
                handle.close()
            raise _explain_open(port, error) from error
        self._handle = handle

    @staticmethod
    def _keep_line_on_close(handle: serial.Serial) -> None:
        if os.name == "nt":
            return
        settings = termios.tcgetattr(handle.fileno())
        settings[2] &= ~termios.HUPCL
        termios.tcsetattr(handle.fileno(), termios.TCSANOW, settings)

    def read(self, size: int, timeout_s: float) -> bytes:
        """See :class:`Transport`."""
        try:
            if os.name == "nt":
                self._handle.timeout = timeout_s
                data = bytes(self._handle.read(1))
                return data + bytes(self._handle.read(min(size - 1, self._handle.in_waiting)))
            ready, _, _ = select.select([self._handle.fileno()], [], [], max(0.0, timeout_s))
            if not ready:
                return b""
            data = os.read(self._handle.fileno(), size)
        except (OSError, ValueError, TypeError) as error:
            raise LinkError(f"{self.name} has gone: {_reason(error)}", _GONE_HINT) from error
        if not data:
            raise LinkError(f"{self.name} has gone: unplugged or switched off", _GONE_HINT)
        return data

    def write(self, data: bytes) -> None:
        """See :class:`Transport`."""
        try:
            self._handle.write(data)
        except serial.SerialTimeoutException as error:
            raise LinkError(
                f"{self.name} takes no bytes", "check the cable; flow control must be off"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise LinkError(f"{self.name} has gone: {_reason(error)}", _GONE_HINT) from error

    def pulse_reset(self) -> bool:
        """Restart the board over RTS, as the auto-reset circuit of many boards does.

        DTR stays inactive, so that an ESP32 starts its program and not its loader.

        Returns:
            Whether the port has such a line; a pty has none.
        """
        try:
            self._handle.rts = True
            time.sleep(_RESET_PULSE_S)
            self._handle.rts = False
        except OSError:
            return False
        return True

    def set_baud(self, baud: int) -> None:
        """See :class:`HasBaud`."""
        try:
            self._handle.flush()
            self._handle.baudrate = baud
        except (OSError, ValueError) as error:
            raise LinkError(
                f"{self.name} cannot run at {baud} baud: {_reason(error)}", "choose another rate"
            ) from error

    def close(self) -> None:
        """See :class:`Transport`."""
        with contextlib.suppress(OSError):
            self._handle.close()


class TcpTransport:
    """A TCP connection to a simulator or a serial server (ser2net in raw mode).

    Raises:
        LinkError: Nobody listens there.
    """

    def __init__(self, host: str, port: int, *, timeout_s: float = 5.0) -> None:
        self.name = f"tcp:{host}:{port}"
        try:
            self._socket = socket.create_connection((host, port), timeout=timeout_s)
        except OSError as error:
            raise LinkError(
                f"cannot connect to {self.name}: {_reason(error)}",
                "check the address and that the device or serial server runs",
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._write_timeout_s = timeout_s

    def read(self, size: int, timeout_s: float) -> bytes:
        """See :class:`Transport`."""
        try:
            ready, _, _ = select.select([self._socket], [], [], max(0.0, timeout_s))
            if not ready:
                return b""
            data = self._socket.recv(size)
        except (OSError, ValueError) as error:
            raise LinkError(f"{self.name} has gone: {_reason(error)}", _GONE_HINT) from error
        if not data:
            raise LinkError(f"{self.name} was closed by the other side", _GONE_HINT)
        return data

    def write(self, data: bytes) -> None:
        """See :class:`Transport`."""
        try:
            self._socket.settimeout(self._write_timeout_s)
            self._socket.sendall(data)
        except (OSError, ValueError) as error:
            raise LinkError(f"{self.name} has gone: {_reason(error)}", _GONE_HINT) from error

    def close(self) -> None:
        """See :class:`Transport`."""
        self._socket.close()


class MemoryTransport:
    """One end of a byte stream inside this process.

    Args:
        on_write: Gets every block of bytes that is written.
        name: How messages call it.
    """

    def __init__(self, on_write: Callable[[bytes], object], name: str = "memory") -> None:
        self.name = name
        self._on_write = on_write
        self._incoming = bytearray()
        self._arrived = threading.Condition()
        self._closed = False

    def inject(self, data: bytes) -> None:
        """Make ``data`` readable; any thread may call it."""
        with self._arrived:
            self._incoming += data
            self._arrived.notify_all()

    def read(self, size: int, timeout_s: float) -> bytes:
        """See :class:`Transport`."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._incoming or self._closed, max(0.0, timeout_s))
            data = bytes(self._incoming[:size])
            del self._incoming[:size]
            if not data and self._closed:
                raise LinkError(f"{self.name} was closed", _GONE_HINT)
            return data

    def write(self, data: bytes) -> None:
        """See :class:`Transport`."""
        if self._closed:
            raise LinkError(f"{self.name} was closed", _GONE_HINT)
        self._on_write(data)

    def close(self) -> None:
        """See :class:`Transport`."""
        with self._arrived:
            self._closed = True
            self._arrived.notify_all()


def memory_pair() -> tuple[MemoryTransport, MemoryTransport]:
    """Return the two ends of a byte stream: what one writes, the other reads."""
    left = MemoryTransport(lambda data: right.inject(data), "memory:left")
    right = MemoryTransport(lambda data: left.inject(data), "memory:right")
    return left, right


def _exclusive() -> bool | None:
    # On Windows a port is exclusive anyway and pyserial refuses to be told otherwise.
    return None if os.name == "nt" else True


def _explain_open(port: str, error: Exception) -> LinkError:
    number = getattr(error, "errno", None)
    if number == errno.ENOENT or (os.name != "nt" and not Path(port).exists()):
        known = ", ".join(sorted(item.device for item in serial.tools.list_ports.comports()))
        return LinkError(f"no such port: {port}", f"ports here: {known or 'none'}")
    if number in (errno.EACCES, errno.EPERM):
        return LinkError(
            f"no permission to open {port}",
            "add yourself to the group that owns it (often: sudo usermod -aG dialout $USER)",
        )
    if number in (errno.EBUSY, errno.EWOULDBLOCK) or "lock" in str(error):
        return LinkError(f"{port} is in use by another program", "close the other program first")
    return LinkError(
        f"cannot open {port} as a serial port: {_reason(error)}",
        "name a serial port, a pty or tcp:HOST:PORT",
    )


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
