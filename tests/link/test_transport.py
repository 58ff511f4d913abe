"""Opening a serial port disturbs nobody behind it: lines, hang-up, exclusive use."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import serial

from drip.device import Cancellable, Client, SerialTransport, Transport, memory_pair
from drip.errors import LinkError

if os.name == "nt":
    pytest.skip("ptys are POSIX", allow_module_level=True)

import pty
import termios


class Lines(serial.Serial):
    """A serial port on a pty that has modem lines: notes what they are driven to, and when."""

    driven: list[tuple[str, bool]]
    options: dict[str, object]

    def __init__(self, **options: object) -> None:
        Lines.driven = []
        Lines.options = options
        super().__init__(**options)  # type: ignore[arg-type]

    def _update_dtr_state(self) -> None:
        Lines.driven.append(("dtr", self._dtr_state))

    def _update_rts_state(self) -> None:
        Lines.driven.append(("rts", self._rts_state))


@pytest.fixture
def port() -> Iterator[str]:
    board, ours = pty.openpty()
    yield os.ttyname(ours)
    os.close(board)
    os.close(ours)


def test_lines_are_inactive_from_the_first_moment(
    port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial, "Serial", Lines)
    transport = SerialTransport(port)
    # The port must not be opened by the constructor, which would raise both lines.
    assert Lines.options["port"] is None
    assert Lines.options["exclusive"] is True
    assert {name for name, _ in Lines.driven} == {"dtr", "rts"}
    assert not any(active for _, active in Lines.driven)
    transport.write(b"x")
    transport.close()
    assert not any(active for _, active in Lines.driven)


def test_hang_up_on_close_is_off(port: str) -> None:
    check = os.open(port, os.O_RDWR | os.O_NOCTTY)
    settings = termios.tcgetattr(check)
    settings[2] |= termios.HUPCL
    termios.tcsetattr(check, termios.TCSANOW, settings)
    transport = SerialTransport(port)
    assert not termios.tcgetattr(check)[2] & termios.HUPCL
    transport.close()
    assert not termios.tcgetattr(check)[2] & termios.HUPCL, "it holds for the closing itself"
    os.close(check)


def test_it_is_exclusive_until_it_is_closed(port: str) -> None:
    first = SerialTransport(port)
    with pytest.raises(LinkError, match="in use by another program"):
        SerialTransport(port)
    first.close()
    SerialTransport(port).close()


def test_only_a_reset_that_is_asked_for_moves_a_line(
    port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serial, "Serial", Lines)
    transport = SerialTransport(port)
    Lines.driven.clear()
    assert transport.pulse_reset()
    # DTR together with RTS would start the loader of an ESP32.
    assert Lines.driven == [("rts", True), ("rts", False)]
    transport.close()


def test_a_pty_has_no_reset_line(port: str) -> None:
    transport = SerialTransport(port)
    assert not transport.pulse_reset()
    transport.write(b"still open")
    transport.close()


# ---------------------------------------------------------------- cancellation


def test_a_wait_ends_when_another_thread_says_so() -> None:
    near, far = memory_pair()
    stop = threading.Event()
    transport = Cancellable(near, stop)
    assert isinstance(transport, Transport)
    far.write(b"abc")
    assert transport.read(2, 5.0) == b"ab"
    assert transport.read(9, 0.0) == b"c"
    assert transport.read(9, 0.15) == b""
    transport.write(b"out")
    assert far.read(9, 0.0) == b"out"
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            # Nobody answers, for as long as this.
            Client(transport, timeout_s=500.0).hello()
        except KeyboardInterrupt as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert far.read(99, 20.0), "it has asked"
    stop.set()
    thread.join(20)
    assert len(ended) == 1
    with pytest.raises(KeyboardInterrupt):
        transport.write(b"too late")
    transport.close()
    with pytest.raises(LinkError):
        near.write(b"closed as well")


def test_what_else_a_transport_can_do_is_passed_on(port: str) -> None:
    transport = Cancellable(SerialTransport(port), threading.Event())
    assert transport.name == port
    assert transport.pulse_reset() is False
    transport.close()
