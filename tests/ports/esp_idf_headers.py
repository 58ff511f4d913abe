#!/usr/bin/env python3
"""Compile the ESP32 port against the headers of a real ESP-IDF, without Espressif's compilers.

Usage: python tests/ports/esp_idf_headers.py ESP_IDF [--target esp32c3 [--sdkconfig FILE]]

ESP_IDF is a checkout, or its headers alone. For ESP32-C3 objects are made with Debian's RISC-V
compiler; for ESP32 and ESP32-S3 the same compiler, told that it is Xtensa's, checks names, types
and arguments. Nothing is linked. FILE is a sdkconfig.h that ESP-IDF's kconfgen has made for the
target; without one, the least that the headers ask for is in ``SDKCONFIG`` below.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PORT = ROOT / "firmware" / "ports" / "esp32"
DRIVERS = ROOT / "firmware" / "drivers"
SOURCES = (*sorted(PORT.glob("*.c")), DRIVERS / "mic.c", DRIVERS / "imu.c")
OPTIONS = {
    "plain": (),
    "motion sensor": ("-DBOARD_SENSOR_IMU=1",),
    "microphone": ("-DBOARD_SENSOR_MIC=1",),
    "USB": ("-DBOARD_LINE_USB=1",),
    "SDMMC": ("-DBOARD_CARD_SDMMC=1",),
    "slots on the card": ("-DBOARD_SLOTS_CARD=1",),
}
LACKS = {"esp32": {"USB"}, "esp32s3": set(), "esp32c3": {"SDMMC"}}
TARGETS = tuple(LACKS)
# Components that the port's drivers do not need; some shadow headers of others.
LEFT_OUT = {
    "bt", "openthread", "esp_wifi", "wpa_supplicant", "mbedtls", "lwip", "unity", "cmock", "ulp",
    "esp_phy", "esp_coex", "ieee802154", "protocomm", "linux", "idf_test", "esp_tee", "esp_stdio",
}  # fmt: skip
OTHER_CHIP = re.compile(r"^(esp32\w*|linux|esp8684)$")
SDKCONFIG = """
CONFIG_IDF_TARGET_{UPPER}=1
CONFIG_IDF_TARGET_ARCH_{ARCH}=1
CONFIG_IDF_TARGET="{TARGET}"
CONFIG_IDF_FIRMWARE_CHIP_ID=0x0005
CONFIG_FREERTOS_HZ=1000
CONFIG_FREERTOS_MAX_TASK_NAME_LEN=16
CONFIG_FREERTOS_THREAD_LOCAL_STORAGE_POINTERS=1
CONFIG_FREERTOS_TASK_NOTIFICATION_ARRAY_ENTRIES=1
CONFIG_FREERTOS_IDLE_TASK_STACKSIZE=1536
CONFIG_FREERTOS_TIMER_TASK_PRIORITY=1
CONFIG_FREERTOS_TIMER_TASK_STACK_DEPTH=2048
CONFIG_FREERTOS_TIMER_QUEUE_LENGTH=10
CONFIG_FREERTOS_TIMER_SERVICE_TASK_NAME="Tmr Svc"
CONFIG_FREERTOS_TIMER_SERVICE_TASK_CORE_AFFINITY=0x7FFFFFFF
CONFIG_FREERTOS_QUEUE_REGISTRY_SIZE=0
CONFIG_FREERTOS_MAX_PRIORITIES=25
CONFIG_FREERTOS_ISR_STACKSIZE=1536
CONFIG_FREERTOS_CHECK_STACKOVERFLOW_NONE=1
CONFIG_FREERTOS_NUMBER_OF_CORES={CORES}
CONFIG_FREERTOS_TICK_SUPPORT_SYSTIMER=1
CONFIG_FREERTOS_SYSTICK_USES_SYSTIMER=1
CONFIG_ESP_SYSTEM_PANIC_SILENT_REBOOT=1
CONFIG_ESP_COREDUMP_ENABLE=1
CONFIG_ESP_COREDUMP_ENABLE_TO_FLASH=1
CONFIG_ESP_COREDUMP_DATA_FORMAT_ELF=1
CONFIG_ESP_COREDUMP_SUMMARY_STACKDUMP_SIZE=1024
CONFIG_ESP_MAIN_TASK_STACK_SIZE=3584
CONFIG_LOG_DEFAULT_LEVEL=0
CONFIG_LOG_MAXIMUM_LEVEL=0
CONFIG_LOG_VERSION=1
CONFIG_LOG_VERSION_1=1
CONFIG_SOC_SERIES_{UPPER}=1
CONFIG_COMPILER_OPTIMIZATION_PERF=1
CONFIG_APP_RETRIEVE_LEN_ELF_SHA=9
CONFIG_ESP_EFUSE_BLOCK_REV_MIN_FULL=0
CONFIG_SPI_FLASH_BROWNOUT_RESET=1
CONFIG_SOC_RTC_MEM_SUPPORTED=1
CONFIG_SOC_RTC_FAST_MEM_SUPPORTED=1
"""


def include_folders(idf: Path, target: str) -> list[Path]:
    """Every include folder of the components that holds for a chip."""
    arch = "riscv" if target == "esp32c3" else "xtensa"
    other = {"riscv", "xtensa"} - {arch}
    found = set()
    names = {
        "include", "register", "platform_include", "legacy", "FreeRTOS-Kernel", "esp_additions",
        target, "freertos", arch, "private_include",
    }  # fmt: skip
    for path in (idf / "components").rglob("*"):
        parts = path.relative_to(idf / "components").parts
        if not path.is_dir() or parts[0] in LEFT_OUT or parts[0] in other:
            continue
        if any(OTHER_CHIP.match(part) and part != target for part in parts):
            continue
        if other & set(parts) or {"test_apps", "host_test", "FreeRTOS-Kernel-SMP"} & set(parts):
            continue
        if path.name in names:
            found.add(path)
    # Shallow first: components/X/include before what lies deeper.
    return sorted(found, key=lambda path: (len(path.parts), path))


def sdkconfig(target: str) -> str:
    """What ``idf.py menuconfig`` would write for a chip, as far as the headers ask."""
    filled = SDKCONFIG.format(
        UPPER=target.upper(),
        ARCH="RISCV" if target == "esp32c3" else "XTENSA",
        TARGET=target,
        CORES=1 if target == "esp32c3" else 2,
    )
    if target == "esp32c3":
        filled += "CONFIG_FREERTOS_UNICORE=1\nCONFIG_ESP_SYSTEM_SINGLE_CORE_MODE=1\n"
    lines = (line.partition("=") for line in filled.split("\n") if line)
    return "".join(f"#define {name} {value}\n" for name, _, value in lines)


def version(idf: Path) -> str:
    """Major.minor.patch of an ESP-IDF."""
    text = (idf / "components/esp_common/include/esp_idf_version.h").read_text()
    return ".".join(re.findall(r"ESP_IDF_VERSION_(?:MAJOR|MINOR|PATCH)\s+(\d+)", text)[:3])


def check(idf: Path, target: str, folder: Path, config: str) -> int:
    """Compile every file with every option. Returns how many did not."""
    # ESP-IDF 5.5 has newlib by default; the compiler here has picolibc.
    config = config.replace("CONFIG_LIBC_NEWLIB 1", "CONFIG_LIBC_PICOLIBC 1")
    (folder / "sdkconfig.h").write_text(config)
    command = ["riscv64-unknown-elf-gcc", "-mabi=ilp32", "--specs=picolibc.specs", "-std=gnu17"]
    command += ["-march=rv32imc_zicsr_zifencei", "-O2", "-Wall", "-Wextra", "-Werror"]
    command += ["-DESP_PLATFORM=1", "-D_GNU_SOURCE", f"-I{folder}"]
    command += ["-c"] if target == "esp32c3" else ["-D__XTENSA__=1", "-fsyntax-only"]
    command += [f"-I{path}" for path in (ROOT / "firmware/core/include", DRIVERS, PORT)]
    command += [flag for path in include_folders(idf, target) for flag in ("-isystem", str(path))]
    failed = 0
    for name, flags in OPTIONS.items():
        if name in LACKS[target]:
            continue
        for source in SOURCES:
            output = [] if target != "esp32c3" else ["-o", str(folder / f"{source.stem}.o")]
            done = subprocess.run(
                [*command, *flags, str(source), *output], capture_output=True, text=True
            )
            if done.returncode != 0:
                failed += 1
                print(f"{target}, {name}: {source.name}\n{done.stderr[:3000]}")
        print(f"ESP-IDF {version(idf)}, {target}, {name}: {len(SOURCES)} files, {failed} failed")
    return failed


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("idf", type=Path, help="folder of ESP-IDF")
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--sdkconfig", type=Path, help="sdkconfig.h of the target")
    arguments = parser.parse_args()
    targets = arguments.target or TARGETS
    if arguments.sdkconfig is not None and len(targets) != 1:
        parser.error("--sdkconfig goes with one --target")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for target in targets:
            made = arguments.sdkconfig
            config = sdkconfig(target) if made is None else made.read_text()
            failed += check(arguments.idf, target, Path(folder), config)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
