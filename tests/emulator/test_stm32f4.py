"""The STM32F4's start-up and fault handling, in QEMU with a debugger at hand."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from boards import firmware, in_qemu, needs

from drip import wire
from drip.device import Kind, connect
from drip.errors import DripError

PC, SP = 15, 13
# RCC_CSR; the pin is pulled by the chip's own resets, too.
BROWN_OUT, PIN, POWER, SOFTWARE, WATCHDOG, WINDOW = (1 << bit for bit in range(25, 31))
NOWHERE = 0x30000000


@dataclass
class Board:
    """QEMU's machine without our plugin: no clock ever becomes ready, there is no card."""

    url: str
    debugger: Path
    symbols: dict[str, int]

    def jump(self, register: int, value: int) -> None:
        """Stop the processor, change one of its registers, let it run on."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(10)
            line.connect(str(self.debugger))
            # QEMU takes single registers only from debuggers that have asked what there are. Of its
            # own accord it reports once more that it has stopped: answers are told by their start.
            steps = {
                "?": rb"\$T[^#]*#..",
                "qXfer:features:read:target.xml:0,40": rb"\$[lm][^#]*#..",
                f"P{register:x}={value.to_bytes(4, 'little').hex()}": rb"\$OK#..",
            }
            for command, wanted in steps.items():
                line.sendall(b"+$%s#%02x" % (command.encode(), sum(command.encode()) & 0xFF))
                answer = b""
                while not re.search(wanted, answer):
                    answer += line.recv(4096)
            line.sendall(b"+$D#44")  # detach: it runs on
            line.recv(64)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    needs(Kind.QEMU)
    debugger = tmp_path / "gdb"
    command = ["qemu-system-arm", "-M", "netduinoplus2", "-display", "none", "-monitor", "none"]
    command += ["-serial", "null", "-serial", "pty", "-kernel", str(firmware())]
    command += ["-chardev", f"socket,path={debugger},server=on,wait=off,id=gdb"]
    command += ["-gdb", "chardev:gdb"]
    listed = subprocess.run(
        ["arm-none-eabi-nm", str(firmware())], check=True, capture_output=True, text=True
    ).stdout
    symbols = {words[2]: int(words[0], 16) for words in map(str.split, listed.splitlines())}
    # A pipe would hold back the name of the pty.
    said = tmp_path / "said"
    with (
        said.open("wb") as out,
        subprocess.Popen(["stdbuf", "-oL", *command], stdout=out, stderr=out) as process,
    ):
        try:
            until = time.monotonic() + 20
            while not (found := re.search(r"redirected to (\S+) ", said.read_text())):
                assert time.monotonic() < until, said.read_text()
                time.sleep(0.05)
            yield Board(found[1], debugger, symbols)
        finally:
            process.kill()


def status_after_restart(url: str, faults: int) -> wire.Status:
    """The status of a board that restarts in a moment."""
    until = time.monotonic() + 30
    while True:
        with contextlib.suppress(DripError), connect(url, timeout_s=2.0) as client:
            status = client.status()
            if status.faults >= faults:
                return status
        assert time.monotonic() < until, "the board did not come back"
        time.sleep(0.1)


def test_it_runs_without_any_clock_but_its_own(board: Board) -> None:
    with connect(board.url, timeout_s=10) as client:
        hello, status = client.device, client.status()
    assert hello.port.rstrip(b"\0") == b"nucleo_f446re"
    # An RC oscillator is not exact enough for more.
    assert hello.baud_most == wire.LINK_BAUD_DEFAULT
    assert hello.slot_bytes == 128 * 1024
    arena = board.symbols["arena_end"] - board.symbols["arena_start"]
    assert hello.arena_bytes == arena
    assert status.card_state != wire.CardState.READY
    assert status.faults == 0
    stack = board.symbols["stack_top"] - board.symbols["stack_bottom"]
    assert stack // 4 < status.stack_free < stack


def test_a_fault_is_recorded_and_survives_the_restart(board: Board) -> None:
    with connect(board.url, timeout_s=10) as client:
        assert client.status().faults == 0
    board.jump(PC, NOWHERE)
    status = status_after_restart(board.url, 1)
    assert (status.faults, status.fault_pc) == (1, NOWHERE)
    assert status.fault_cause & 0x100  # IBUSERR: an instruction could not be fetched


def test_a_stack_that_overflows_is_a_fault_and_no_silent_damage(board: Board) -> None:
    with connect(board.url, timeout_s=10) as client:
        assert client.status().faults == 0
    board.jump(SP, board.symbols["stack_bottom"])
    status = status_after_restart(board.url, 1)
    # Where it was is only known when the processor could still note it.
    assert status.faults == 1
    assert status.fault_cause != 0


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (PIN | SOFTWARE, wire.BootReason.REQUEST),
        (PIN, wire.BootReason.REQUEST),
        (PIN | WATCHDOG, wire.BootReason.WATCHDOG),
        (PIN | WINDOW, wire.BootReason.WATCHDOG),
        (PIN | BROWN_OUT, wire.BootReason.POWER),
        (PIN | POWER | BROWN_OUT, wire.BootReason.POWER),
    ],
    ids=["software", "pin", "watchdog", "window watchdog", "brown-out", "power"],
)
def test_it_tells_why_it_started(flags: int, reason: wire.BootReason) -> None:
    needs(Kind.QEMU)
    events: list[object] = []
    with (
        in_qemu({"csr": flags}) as board,
        connect(board.url, on_event=events.append) as client,
    ):
        client.reset()
        client.status()
    told = [event.state for event in events if isinstance(event, wire.EventState)]
    assert told == [wire.BootReason.POWER, reason]
