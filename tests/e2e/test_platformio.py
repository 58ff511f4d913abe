"""PlatformIO as its users use it: builds, uploads by command line only, models that do not fit."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIO = ROOT / "build" / "platformio" / "venv" / "bin" / "pio"
CORE = ROOT / "build" / "platformio" / "core"
MODEL = ROOT / "models" / "digits" / "model.drip"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PIO.is_file(), reason="needs PlatformIO: run make firmware"),
]


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """Nothing else builds meanwhile: images come and go here (build.sh takes the same lock)."""
    with (ROOT / "build" / "platformio" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def pio(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run PlatformIO on the packages that tools/platformio/seed.py has made."""
    environment = {
        **os.environ,
        "PLATFORMIO_CORE_DIR": str(CORE),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
        **variables,
    }
    return subprocess.run(
        [str(PIO), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.fixture
def uploader(tmp_path: Path) -> Path:
    """Upload tools that write down how they were called; the real ones come back afterwards."""
    note = tmp_path / "called"
    tools = [
        CORE / "packages" / "tool-openocd" / "bin" / "openocd",
        CORE / "packages" / "tool-dfuutil" / "bin" / "dfu-util",
    ]
    for tool in tools:
        tool.unlink(missing_ok=True)
        tool.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >{note}\n")
        tool.chmod(0o755)
    yield note
    seed = ROOT / "tools" / "platformio" / "seed.py"
    subprocess.run([str(PIO.parent / "python"), str(seed), str(CORE)], check=True)


def test_stlink_programs_the_elf(uploader: Path) -> None:
    """Not the flat image: sectors that it does not name, the journal's, stay as they are."""
    board = "nucleo_f446re"
    done = pio("run", "-e", board, "-t", "upload")
    assert done.returncode == 0, done.stdout + done.stderr
    called = uploader.read_text().splitlines()
    assert called[called.index("-f") + 1] == "interface/stlink.cfg"
    assert "target/stm32f4x.cfg" in called
    elf = f".pio/build/{board}/firmware.elf"
    assert called[-1] == f"program {{{elf}}} verify reset; shutdown;"
    assert (ROOT / elf).is_file()


def test_dfu_writes_the_flat_image_from_the_start_of_flash(uploader: Path, tmp_path: Path) -> None:
    settings = tmp_path / "platformio.ini"
    text = (ROOT / "platformio.ini").read_text()
    head = "[env:black_f407ve]\n"
    settings.write_text(text.replace(head, head + "upload_protocol = dfu\n"))
    done = pio("run", "-d", str(ROOT), "-c", str(settings), "-e", "black_f407ve", "-t", "upload")
    assert done.returncode == 0, done.stdout + done.stderr
    called = uploader.read_text().splitlines()
    binary = ".pio/build/black_f407ve/firmware.bin"
    assert called[-6:] == ["-a", "0", "-s", "0x08000000:leave", "-D", binary]
    content = (ROOT / binary).read_bytes()
    stack, reset = struct.unpack_from("<II", content)
    assert 0x20000000 < stack <= 0x20020000
    assert 0x08000000 <= reset < 0x08010000 and reset & 1


def test_monitor_runs_at_the_rate_after_reset() -> None:
    done = pio("project", "config", "--json-output")
    assert done.returncode == 0, done.stderr
    config = {name: dict(options) for name, options in json.loads(done.stdout)}
    assert config["stm32f4"]["monitor_speed"] in (115200, "115200")


def test_check_reports_no_defect_that_the_c_style_check_would_not() -> None:
    done = pio(
        "check",
        "-e",
        "nucleo_f446re",
        "--fail-on-defect=high",
        "--src-filters=+<firmware/ports/stm32f4/>",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def model_with(path: Path, *, arena: int) -> Path:
    content = bytearray(MODEL.read_bytes())
    struct.pack_into("<I", content, 24, arena)
    path.write_bytes(content)
    return path


def test_a_model_that_does_not_fit_is_refused_at_build_time(tmp_path: Path) -> None:
    # Over an image that is there already, too.
    assert pio("run", "-e", "nucleo_f446re").returncode == 0
    hungry = model_with(tmp_path / "hungry.drip", arena=100 * 1024)
    done = pio("run", "-e", "nucleo_f446re", DRIP_MODEL=str(hungry))
    assert done.returncode != 0
    assert "needs 102400 bytes of arena" in done.stderr
    assert not (ROOT / ".pio" / "build" / "nucleo_f446re" / "firmware.elf").exists()

    large = tmp_path / "large.drip"
    large.write_bytes(MODEL.read_bytes() + bytes(200 * 1024))
    done = pio("run", "-e", "nucleo_f446re", DRIP_MODEL=str(large))
    assert done.returncode != 0
    assert "region `flash' overflowed" in done.stdout + done.stderr

    (tmp_path / "none.drip").write_bytes(b"no model at all")
    done = pio("run", "-e", "nucleo_f446re", DRIP_MODEL=str(tmp_path / "none.drip"))
    assert done.returncode != 0
    assert "is no compiled model" in done.stdout
    assert pio("run", "-e", "nucleo_f446re").returncode == 0


def test_the_native_environment_is_the_native_port() -> None:
    done = pio("run", "-e", "native")
    assert done.returncode == 0, done.stdout + done.stderr
    program = ROOT / ".pio" / "build" / "native" / "program"
    help_text = subprocess.run([str(program), "--help"], capture_output=True, text=True)
    assert "--card" in help_text.stdout + help_text.stderr
