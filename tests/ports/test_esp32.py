"""The ESP32 port: it compiles against the interface that it uses, and its queues lose nothing.

ESP-IDF itself is not needed: `esp32_stubs` has the names and argument lists, and what has no
behaviour there is not run. Linking and hardware are not covered; docs/BOARDS.md says so.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from drip.wire import Err

ROOT = Path(__file__).resolve().parents[2]
PORT = ROOT / "firmware" / "ports" / "esp32"
DRIVERS = ROOT / "firmware" / "drivers"
INCLUDES = [f"-I{path}" for path in (ROOT / "firmware" / "core" / "include", DRIVERS, PORT)]
STUBS = Path(__file__).resolve().parent / "esp32_stubs"
GCC = "riscv64-unknown-elf-gcc"
CROSS = [GCC, "-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs", "-std=gnu17", "-O2"]
STRICT = ["-Wall", "-Wextra", "-Wconversion", "-Werror"]
OPTIONS = {
    "plain": [],
    "motion sensor": ["-DBOARD_SENSOR_IMU=1"],
    "microphone": ["-DBOARD_SENSOR_MIC=1"],
    "USB": ["-DBOARD_LINE_USB=1"],
    "SDMMC": ["-DBOARD_CARD_SDMMC=1"],
    "slots on the card": ["-DBOARD_SLOTS_CARD=1"],
}
TARGETS = {
    "ESP32": ("plain", "motion sensor", "microphone", "SDMMC", "slots on the card"),
    "ESP32S3": tuple(OPTIONS),
    "ESP32C3": ("plain", "motion sensor", "microphone", "USB", "slots on the card"),
}

needs_cross = pytest.mark.skipif(
    shutil.which(GCC) is None,
    reason=f"needs {GCC}: apt install gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
)


@needs_cross
@pytest.mark.parametrize(
    ("target", "option"), [(target, name) for target, names in TARGETS.items() for name in names]
)
def test_it_compiles_without_warnings(target: str, option: str, tmp_path: Path) -> None:
    for source in [*PORT.glob("*.c"), DRIVERS / "mic.c"]:
        command = [*CROSS, *STRICT, f"-DCONFIG_IDF_TARGET_{target}=1", *OPTIONS[option]]
        command += [f"-I{STUBS}", *INCLUDES, "-c", str(source), "-o", str(tmp_path / "x.o")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), source.name


@needs_cross
def test_two_sensors_at_once_and_other_chips_are_refused() -> None:
    command = [*CROSS, f"-I{STUBS}", *INCLUDES, "-fsyntax-only", str(PORT / "sensor.c")]
    for flags, said in (
        (["-DCONFIG_IDF_TARGET_ESP32=1", "-DBOARD_SENSOR_IMU", "-DBOARD_SENSOR_MIC"], "one sensor"),
        (["-DCONFIG_IDF_TARGET_ESP32H2=1"], "this port knows"),
    ):
        done = subprocess.run([*command, *flags], capture_output=True, text=True)
        assert done.returncode != 0
        assert said in done.stderr


@needs_cross
def test_the_model_lies_in_the_image_at_a_multiple_of_16(tmp_path: Path) -> None:
    model = ROOT / "models" / "digits" / "model.drip"
    out = tmp_path / "model.o"
    define = f'-DDRIP_MODEL_FILE="{model}"'
    subprocess.run([*CROSS[:3], define, "-c", str(PORT / "model.S"), "-o", str(out)], check=True)
    text = subprocess.run(
        ["riscv64-unknown-elf-objdump", "-h", "-t", str(out)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    section = re.search(r"\.rodata\.drip_model +([0-9a-f]+) .*?2\*\*(\d+)", text)
    end = re.search(r"^([0-9a-f]+) .* model_end$", text, re.MULTILINE)
    assert section is not None
    assert end is not None
    assert (int(section[2]), int(end[1], 16)) == (4, model.stat().st_size)
    assert bytes.fromhex(section[1].zfill(8)) == model.stat().st_size.to_bytes(4, "big")


@needs_cross
@pytest.mark.slow
def test_cmake_builds_core_port_and_model(tmp_path: Path) -> None:
    """ESP-IDF's project.cmake has a stand-in among the stubs; all else is CMake's and ours."""
    if shutil.which("cmake") is None or shutil.which("make") is None:
        pytest.skip("needs cmake and make: apt install cmake make")
    cpu = " ".join(CROSS[1:4])
    command = ["cmake", "-S", ROOT, "-B", tmp_path, "-G", "Unix Makefiles", "-Wno-dev"]
    command += [f"-DCMAKE_C_COMPILER={GCC}", "-DCMAKE_SYSTEM_NAME=Generic"]
    command += [f"-DCMAKE_C_FLAGS={cpu} -Wall -Wextra -Werror", f"-DCMAKE_ASM_FLAGS={cpu}"]
    command += ["-DCMAKE_TRY_COMPILE_TARGET_TYPE=STATIC_LIBRARY"]
    model = Path("models") / "digits" / "model.drip"
    # As idf.py is called: a path from the project's folder; nothing; the one that is taken then.
    for option, size in (
        (f"-DDRIP_MODEL={model}", True),
        ("-DDRIP_MODEL=", False),
        ("-UDRIP_MODEL", True),
    ):
        for step in ([*command, option], ["cmake", "--build", tmp_path]):
            done = subprocess.run(
                step, capture_output=True, text=True, env={**os.environ, "IDF_PATH": str(STUBS)}
            )
            assert done.returncode == 0, done.stdout + done.stderr
        archive = tmp_path / "firmware" / "libfirmware.a"
        listed = subprocess.run(
            ["riscv64-unknown-elf-nm", "-A", archive], capture_output=True, text=True, check=True
        ).stdout
        end = re.search(r"model\.S\S*:([0-9a-f]+) R model_end$", listed, re.MULTILINE)
        assert end is not None
        assert int(end[1], 16) == ((ROOT / model).stat().st_size if size else 0)
    objects = subprocess.run(
        ["riscv64-unknown-elf-ar", "t", archive], capture_output=True, text=True, check=True
    ).stdout
    core = ROOT / "firmware" / "core" / "src"
    folders = (core.glob("*.c"), core.glob("kernels/*.c"), PORT.glob("*.c"))
    wanted = {path.name for folder in folders for path in folder} | {"imu.c", "mic.c", "model.S"}
    assert {name.removesuffix(".obj") for name in objects.split()} == wanted


THREADS = r"""
#include <pthread.h>
#include <stdio.h>
#include "job.h"
#include "ring.h"
enum { BYTES = 3000000, JOBS = 20000 };
static ring_t ring;
static desk_t desk;
static uint8_t byte_of(uint32_t n) { return (uint8_t)(n * 2654435761u >> 24); }
static void *put(void *none)
{
    uint8_t piece[700];
    for (uint32_t n = 0; n < BYTES;) {
        uint32_t size = 1 + n % 699, done = 0;
        if (size > BYTES - n) size = BYTES - n;
        for (uint32_t i = 0; i < size; i++) piece[i] = byte_of(n + i);
        while (done < size) done += ring_put(&ring, piece + done, size - done);
        n += size;
    }
    return none;
}
static void *work(void *none)
{
    job_t job;
    for (uint32_t n = 0; n < JOBS;)
        if (desk_take(&desk, &job)) {
            *(uint32_t *)job.data += job.at;
            n++;
            desk_finish(&desk, (int)job.count);
        }
    return none;
}
int main(void)
{
    pthread_t a, b;
    uint8_t piece[900];
    uint32_t sum = 0, wanted = 0;
    pthread_create(&a, NULL, put, NULL);
    for (uint32_t n = 0; n < BYTES;) {
        uint32_t got = ring_look(&ring, piece, 1 + n % 899);
        uint32_t used = got > 3 ? got - 2 : got; /* what the driver did not take stays */
        for (uint32_t i = 0; i < used; i++) if (piece[i] != byte_of(n + i)) return 1;
        ring_drop(&ring, used);
        n += used;
    }
    pthread_join(a, NULL);
    if (!ring_empty(&ring) || desk_poll(&desk) != DRIP_ERR_OK) return 2;
    pthread_create(&b, NULL, work, NULL);
    for (uint32_t n = 0; n < JOBS; n++) {
        job_t job = {.kind = 1, .at = n, .count = n % 7, .data = &sum};
        int result;
        if (desk_post(&desk, &job) != DRIP_ERR_OK) return 3;
        while ((result = desk_poll(&desk)) == DRIP_ERR_BUSY) continue;
        wanted += n;
        if (result != (int)(n % 7) || sum != wanted) return 4;
    }
    pthread_join(b, NULL);
    return 0;
}
"""


def test_ring_and_desk_between_two_threads(tmp_path: Path) -> None:
    """Every byte and every job once, in order; ThreadSanitizer sees no race."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: apt install gcc")
    probe = tmp_path / "threads.c"
    probe.write_text(THREADS)
    binary = tmp_path / "threads"
    command = ["cc", "-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-pthread", *INCLUDES]
    sources = [str(path) for path in (probe, PORT / "ring.c", PORT / "job.c")]
    built = subprocess.run([*command, *sources, "-o", binary], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([binary], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


# UART0's own pins of each chip, which boards lead to their USB connector.
UART_PINS = {"ESP32": (1, 3), "ESP32S3": (43, 44), "ESP32C3": (21, 20)}
# A card that works; writes of two blocks that fail, whatever the question after them says; of one.
WRITES = [0, Err.IO, Err.IO, Err.IO, Err.IO, Err.TIMEOUT]


@pytest.mark.parametrize(
    ("target", "card"),
    [("ESP32", "SPI"), ("ESP32", "SDMMC"), ("ESP32S3", "SDMMC"), ("ESP32C3", "SPI")],
)
def test_the_line_has_its_pins_and_no_failed_write_passes(
    target: str, card: str, tmp_path: Path
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler: apt install gcc")
    command = ["cc", "-std=gnu11", "-g", "-fsanitize=undefined", f"-I{STUBS}", *INCLUDES]
    command += [f"-DCONFIG_IDF_TARGET_{target}=1", f"-DBOARD_CARD_SDMMC={int(card == 'SDMMC')}"]
    sources = [Path(__file__).with_name("esp32_drivers.c"), PORT / "ring.c"]
    built = subprocess.run(
        [*command, *sources, "-o", tmp_path / "drivers"], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    done = subprocess.run([tmp_path / "drivers"], capture_output=True, text=True, check=True)
    tx, rx = UART_PINS[target]
    lines = done.stdout.splitlines()
    assert lines[:4] == [
        "uart 0 at 115200",
        f"pins of 0: {tx} {rx} -1 -1",
        "driver of 0: 4096 4096 0 0",
        "line 0",
    ]
    # Of SPI ESP-IDF looks at the status itself.
    status = [Err.IO, Err.IO] if card == "SDMMC" else [0, 0]
    assert lines[4:] == ["card 0", *(f"write {int(code)}" for code in [*WRITES, *status, 0])]


def test_partitions_fit_the_flash_and_hold_two_slots() -> None:
    text = (ROOT / "partitions.csv").read_text()
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    table = {}
    for name, kind, subtype, offset, size in csv.reader(rows, skipinitialspace=True):
        table[name] = (kind, subtype, int(offset, 0), int(size, 0))
    end = 0x9000  # after the bootloader and this table
    for kind, _, offset, size in table.values():
        assert offset >= end
        assert offset % (0x10000 if kind == "app" else 0x1000) == size % 0x1000 == 0
        end = offset + size
    assert end <= 4 << 20
    kind, subtype, offset, size = table["drip"]
    slots = (PORT / "slots_partition.c").read_text()
    journal = 16 * 1024
    assert "JOURNAL_BYTES = 16 * 1024, SUBTYPE = 0x40" in slots
    assert (kind, subtype) == ("data", "0x40")
    # Mapped by pages of 64 KiB: whole pages, and slots that are whole sectors.
    assert offset % 0x10000 == 0
    assert (size - 2 * journal) // 2 == 1 << 20
    assert table["coredump"][:2] == ("data", "coredump")


def test_defaults_keep_the_line_binary_and_name_the_partitions() -> None:
    lines = (ROOT / "sdkconfig.defaults").read_text().splitlines()
    for wanted in (
        "CONFIG_ESP_CONSOLE_NONE=y",
        "CONFIG_ESP_CONSOLE_SECONDARY_NONE=y",
        "CONFIG_BOOTLOADER_LOG_LEVEL_NONE=y",
        'CONFIG_PARTITION_TABLE_CUSTOM_FILENAME="partitions.csv"',
        "CONFIG_FREERTOS_HZ=1000",
        "CONFIG_ESP_TASK_WDT_PANIC=y",
        "CONFIG_ESP_COREDUMP_ENABLE_TO_FLASH=y",
    ):
        assert wanted in lines


PIO = ROOT / "build" / "platformio" / "venv" / "bin" / "pio"


@needs_cross
@pytest.mark.slow
@pytest.mark.skipif(not PIO.exists(), reason="needs PlatformIO: make firmware")
@pytest.mark.parametrize("board", ["esp32dev", "esp32-s3-devkitc-1", "esp32-c3-devkitm-1"])
def test_platformio_compiles_core_and_port_to_objects(board: str) -> None:
    """With the stand-in for Espressif's platform, and the RISC-V compiler for all three."""
    script = ROOT / "tools" / "platformio" / "build.sh"
    done = subprocess.run([str(script), board], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    archive = ROOT / ".pio" / "build" / board / "libobjects.a"
    listed = subprocess.run(
        ["riscv64-unknown-elf-nm", "-A", str(archive)], capture_output=True, text=True, check=True
    ).stdout
    for defined in ("app_main", "drip_device_step", "drip_nn_load", "drip_mic_put", "model_start"):
        assert re.search(rf" [TR] {defined}$", listed, re.MULTILINE), defined
    wanted = [
        "line.c",
        "card.c",
        "slots.c",
        "slots_partition.c",
        "cardstore.c",
        "system.c",
        "sensor.c",
        "worker.c",
        "ring.c",
    ]
    objects = {path.name for path in (archive.parent / "src" / "ports" / "esp32").iterdir()}
    assert {name[:-1] + "o" for name in wanted} <= objects
