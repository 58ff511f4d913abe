"""What `make size` refuses: images over budget, masked interrupts, models that do not fit."""

from __future__ import annotations

import importlib.util
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "digits" / "model.drip"
ARENA, FRAME = 1152, 64
SYMBOLS = {
    "arena_start": 0x20008000,
    "arena_end": 0x20008000 + ARENA,
    "model_start": 0x08010000,
    "data_source": 0x08010000 + 12496,
    "flash_end": 0x08010000 + 20000,
}


@pytest.fixture(scope="module")
def image() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "image", ROOT / "tools" / "platformio" / "image.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["image"] = module
    spec.loader.exec_module(module)
    return module


def one(image: ModuleType, name: str = "board", **fields: Any) -> Any:
    made = image.Image(name, symbols=dict(SYMBOLS), model_bytes=12496, frame_bytes=FRAME)
    made.stack_bytes, made.stack = 2560, (1000, ["main"])
    made.handlers = {"uart_isr": 46, "clock_isr": 10}
    for field, value in fields.items():
        setattr(made, field, value)
    return made


@pytest.mark.parametrize(
    ("name", "most"), [("board", 56 * 1024), ("board_own", 48 * 1024), ("board_imu", 60 * 1024)]
)
def test_the_last_byte_of_flash_counts(image: ModuleType, name: str, most: int) -> None:
    fits = one(image, name)
    fits.flash.update(core=most - 100, port=100)
    assert image.faults_of(fits) == []
    fits.flash["port"] += 1
    assert image.faults_of(fits) == [f"{most + 1} bytes of flash are over the budget of {most}"]


def test_ram_stack_and_interrupts_have_limits(image: ModuleType) -> None:
    full = one(image)
    full.ram["port"] = 16 * 1024
    assert image.faults_of(full) == []
    full.ram["port"] += 1
    (said,) = image.faults_of(full)
    assert "16385 bytes of RAM" in said
    (said,) = image.faults_of(one(image, stack=(2561, ["main"])))
    assert "needs 2561 of 2560 bytes of stack" in said
    (said,) = image.faults_of(one(image, handlers={"uart_isr": 600, "clock_isr": 10}))
    assert "of 1800 cycles" in said


def test_masked_interrupts_are_found_in_the_code(
    image: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = [
        "08000200 <uart_isr>:",
        " 8000200:\tldr\tr3, [pc, #8]",
        " 8000202:\tbx\tlr",
        "08000210 <clock_isr>:",
        " 8000210:\tbx\tlr",
        "08000220 <other>:",
        " 8000220:\tmrs\tr0, PRIMASK",
        " 8000224:\tbx\tlr",
    ]
    monkeypatch.setattr(image, "tool", lambda name: name)
    monkeypatch.setattr(image, "run", lambda *command: "\n".join(code))
    clean = one(image)
    image.read_code(clean, Path("firmware.elf"))
    assert clean.handlers == {"uart_isr": 2, "clock_isr": 1}
    assert image.faults_of(clean) == []
    for masking in ("cpsid\ti", "msr\tPRIMASK, r0", "msr\tBASEPRI, r0"):
        code[-2] = f" 8000220:\t{masking}"
        masked = one(image)
        image.read_code(masked, Path("firmware.elf"))
        (said,) = image.faults_of(masked)
        assert said.startswith("interrupts are masked in other: ")


def test_a_model_is_summed_up_or_does_not_fit(image: ModuleType, tmp_path: Path) -> None:
    assert image.model_needs(MODEL) == (12496, ARENA, FRAME)
    board = one(image)
    board.flash["core"], board.ram["port"] = 50_000, 15_000
    assert image.misfits(board, MODEL) == []
    assert image.sums(board, MODEL) == (50_000 + 12_496, 15_000 + ARENA + FRAME)
    board.symbols["arena_end"] -= 1
    assert image.misfits(board, MODEL) == ["needs 1152 bytes of arena, board has 1151"]
    assert image.sums(board, MODEL) is None
    assert "bytes per frame" in image.misfits(one(image, frame_bytes=FRAME - 1), MODEL)[0]
    large = tmp_path / "large.drip"
    large.write_bytes(MODEL.read_bytes() + bytes(20_001 - 12_496))
    assert image.misfits(one(image), large) == ["needs 20001 bytes of flash, board has 20000"]
    # An image for its own model has no operators for another.
    assert image.sums(one(image, "board_own"), MODEL) is not None
    other = tmp_path / "other.drip"
    other.write_bytes(MODEL.read_bytes() + struct.pack("<4I", 0, 0, 0, 0))
    assert image.sums(one(image), other) is not None
    assert image.sums(one(image, "board_own"), other) is None
