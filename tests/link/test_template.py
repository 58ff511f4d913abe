"""The template of a port: it compiles on every target, runs, and its manual is complete."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "firmware" / "ports" / "template"
CORE = ROOT / "firmware" / "core"
WARNINGS = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
COMPILERS = {
    "cc": ["cc"],
    "arm-none-eabi-gcc": ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb"],
    "riscv64-unknown-elf-gcc": [
        "riscv64-unknown-elf-gcc",
        "-march=rv32imc",
        "-mabi=ilp32",
        "--specs=picolibc.specs",
    ],
}
MEMBERS = re.findall(
    r"^    \S.*?\(\*(\w+)\)|^    (?:uint\w+|void|char) \*?(\w+)(?:\[16\])?;",
    (CORE / "include" / "drip" / "port.h").read_text(),
    flags=re.MULTILINE,
)
MEMBERS = [function or variable for function, variable in MEMBERS]


@pytest.mark.parametrize("name", COMPILERS)
def test_it_compiles_without_warnings(name, tmp_path):
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}; CONTRIBUTING.md says how to install it")
    for source in TEMPLATE.glob("*.c"):
        command = [*COMPILERS[name], *WARNINGS, f"-I{CORE / 'include'}", f"-I{TEMPLATE}"]
        command += ["-c", str(source), "-o", str(tmp_path / f"{source.stem}.o")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_it_answers_on_its_uart(tmp_path):
    """The template's rings and the core, with a HELLO typed into the receive interrupt."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: sudo apt-get install gcc")
    probe = tmp_path / "probe.c"
    probe.write_text("""
#include <stdio.h>
#include "drip/device.h"
#include "port.h"
static _Alignas(16) uint8_t arena[1024], capture[1024], scratch[1024];
int main(void)
{
    static drip_device_t device;
    drip_port_t port;
    drip_device_memory_t memory = {arena, 1024, capture, 1024, scratch, 1024, NULL, 0};
    int c;
    board_start(&port);
    if (drip_device_init(&device, &port, &memory) != 0) return 1;
    while ((c = getchar()) != EOF) board_on_uart_received((uint8_t)c);
    for (int i = 0; i < 1000; i++) { board_on_millisecond(); drip_device_step(&device); }
    while ((c = board_on_uart_ready()) >= 0) putchar(c);
    return 0;
}
""")
    sources = [*CORE.glob("src/*.c"), *CORE.glob("src/kernels/*.c"), TEMPLATE / "port.c", probe]
    binary = tmp_path / "probe"
    command = ["cc", "-std=c11", "-O0", f"-I{CORE / 'include'}", f"-I{TEMPLATE}"]
    subprocess.run([*command, *map(str, sources), "-o", str(binary)], check=True)
    from drip import wire
    from drip.device.framing import FrameReader, encode_frame

    request = wire.HelloRequest(size=16, version=1, protocol=1, schema_hash=wire.SCHEMA_HASH)
    typed = b"noise" + encode_frame(wire.FrameType.HELLO, 7, request.pack())
    done = subprocess.run([binary], input=typed, capture_output=True, check=True)
    frame, event = FrameReader().feed(done.stdout)
    boot = wire.EventState.unpack(event.body)
    assert (boot.kind, boot.state) == (wire.Event.BOOT, wire.BootReason.UNKNOWN)
    hello = wire.Hello.unpack(frame.body, 4)
    assert (frame.id, hello.port.rstrip(b"\0")) == (7, b"template")
    assert (hello.card_state, hello.model_id) == (wire.CardState.ABSENT, bytes(16))
    assert hello.schema_hash == wire.SCHEMA_HASH


def test_template_and_manual_speak_of_every_member_of_the_port():
    assert len(MEMBERS) == 25
    manual = (ROOT / "docs" / "PORTING.md").read_text()
    port = (TEMPLATE / "port.c").read_text()
    for member in MEMBERS:
        assert f"`{member}`" in manual, member
        if member != "context":
            assert f"port->{member}" in port, member
