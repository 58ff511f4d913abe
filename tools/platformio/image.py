#!/usr/bin/env python3
"""Say what a board image costs: flash and RAM per module, stack, interrupts, and which models fit.

Reads what ``build.sh`` left behind: the image, its linker map, and the call graphs with stack use
that GCC wrote beside the objects (``-fcallgraph-info=su``). Fails when the image is over its
budget, the deepest call path does not fit the stack, interrupts are masked somewhere, or handling a
received byte may take longer than the next one needs to arrive.

Usage: ``python image.py [--json FILE] ENVIRONMENT ...``
"""

from __future__ import annotations

import argparse
import collections
import json
import re
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The complete image without the model, and RAM without arena and frame buffers. An image that can
# run any model has all operators in it; one that is built for its own model alone has not.
FLASH_BUDGET = 48 * 1024
ALL_OPERATORS_BUDGET = 56 * 1024
SENSOR_BUDGET = 60 * 1024
RAM_BUDGET = 16 * 1024
OWN_OPERATORS = "_own"  # the environments of the second kind end like this
SENSOR = "_imu"  # and those with a motion sensor beside all operators like this
# Ten bits at 921600 baud, in cycles of 168 MHz.
BYTE_CYCLES = 1800
# Entering and leaving an interrupt with the FPU's registers, flash wait states included.
INTERRUPT_CYCLES = 12 + 12 + 17 + 10
# Loads, taken branches and wait states: no instruction of the handlers takes longer on average.
CYCLES_PER_INSTRUCTION = 3
INTERRUPT_STACK = 26 * 4
# Those of I2C only with a motion sensor; the two never interrupt each other, and count both.
HANDLERS = ("uart_isr", "clock_isr", "i2c_event_isr", "i2c_error_isr")
LIBRARY_STACK = 32  # mem* of newlib, written in assembly: GCC tells nothing about them

MODULES = (
    ("engine", r"core/src/(kernels/|nn|frame|frontend|bytes)"),
    ("score", r"core/src/(cam|score|policy)"),
    ("card", r"core/src/(log|volume)"),
    ("device", r"core/src/(device|link|wire)"),
    ("slots", r"core/src/slot"),
    ("drivers", r"src/drivers/"),
    ("port", r"src/ports/"),
    ("library", r"\.a\("),
)
# Sections that are not part of the budgets: what a model and its frames need.
FRAMES = (".frames",)
MODEL = (".model",)


@dataclass
class Image:
    """What the files of one environment say.

    Attributes:
        flash, ram: Bytes per module, without model, arena and frame buffers.
        symbols: Addresses.
        model_bytes: Of the model in the image.
        stack: Deepest path and its functions.
        handlers: Instructions of the interrupt handlers, all branches counted.
        masked: Places where interrupts are masked.
    """

    name: str
    flash: collections.Counter[str] = field(default_factory=collections.Counter)
    ram: collections.Counter[str] = field(default_factory=collections.Counter)
    symbols: dict[str, int] = field(default_factory=dict)
    model_bytes: int = 0
    frame_bytes: int = 0
    stack_bytes: int = 0
    stack: tuple[int, list[str]] = (0, [])
    handlers: dict[str, int] = field(default_factory=dict)
    masked: list[str] = field(default_factory=list)

    @property
    def arena_bytes(self) -> int:
        """What the linker left over for the arena."""
        return self.symbols["arena_end"] - self.symbols["arena_start"]

    @property
    def room(self) -> int:
        """Bytes of flash that a model in the image may take."""
        used = self.symbols["data_source"] - self.symbols["model_start"]
        return self.symbols["flash_end"] - self.symbols["data_source"] + used

    @property
    def slot_bytes(self) -> int:
        """Bytes that a pushed model may have."""
        return (self.symbols["slots_end"] - self.symbols["slots_start"]) // 2

    @property
    def flash_budget(self) -> int:
        """Bytes that it may take."""
        if self.name.endswith(OWN_OPERATORS):
            return FLASH_BUDGET
        return SENSOR_BUDGET if self.name.endswith(SENSOR) else ALL_OPERATORS_BUDGET

    @property
    def byte_cycles(self) -> int:
        """Cycles, at most, from a received byte to the end of its handling."""
        return INTERRUPT_CYCLES + CYCLES_PER_INSTRUCTION * self.handlers["uart_isr"]


def run(*command: str) -> str:
    """Output of a program."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def tool(name: str) -> str:
    """A program of the cross compiler: of the system, or of PlatformIO's package."""
    found = shutil.which("arm-none-eabi-" + name)
    if found is None:
        home = Path.home() / ".platformio" / "packages" / "toolchain-gccarmnoneeabi" / "bin"
        found = shutil.which("arm-none-eabi-" + name, path=str(home))
    if found is None:
        sys.exit("error: arm-none-eabi-" + name + " is missing")
    return found


def module_of(path: str) -> str:
    """The module that an object file belongs to."""
    return next((name for name, where in MODULES if re.search(where, path)), "other")


def read_map(image: Image, text: str) -> None:
    """Sum up the linker map: input sections by the object they come from."""
    text = text[text.index("Linker script and memory map") :]
    output = ""
    # A long section name stands on a line of its own.
    text = re.sub(r"(?m)^( ?\.\S+)\n\s+(0x)", r"\1 \2", text)
    for line in text.splitlines():
        if re.match(r"\.\S+", line):
            output = line.split()[0]
        found = re.match(r" (\.\S+|COMMON)\s+0x[0-9a-f]+\s+0x([0-9a-f]+) (\S.*)", line)
        if found is None or output in (".comment", ".ARM.attributes") or ".debug" in output:
            continue
        size, module = int(found[2], 16), module_of(found[3])
        if output in MODEL:
            image.model_bytes += size
        elif output in FRAMES:
            image.frame_bytes += size
        elif output in (".bss", ".noinit"):
            image.ram[module] += size
        elif output in (".vectors", ".boot", ".text"):
            image.flash[module] += size
        elif output == ".data":
            image.ram[module] += size
            image.flash[module] += size


def read_sections(image: Image, elf: Path) -> None:
    """Take the sums from the image itself: alignment between sections counts, too."""
    sizes = {
        words[0]: int(words[1])
        for words in map(str.split, run(tool("size"), "-A", "-d", str(elf)).splitlines())
        if len(words) == 3 and words[1].isdigit()
    }
    in_flash = sum(sizes.get(name, 0) for name in (".vectors", ".boot", ".text", ".data"))
    in_ram = sum(sizes.get(name, 0) for name in (".noinit", ".data", ".bss"))
    image.stack_bytes = sizes[".stack"]
    image.flash["padding"] = in_flash - sum(image.flash.values())
    image.ram["padding"] = in_ram - sum(image.ram.values())
    image.ram["stack"] = image.stack_bytes


def read_call_graph(folder: Path) -> tuple[dict[str, int], dict[str, set[str]]]:
    """Stack use and callees of every function, from GCC's call graphs."""
    stack: dict[str, int] = {}
    calls: dict[str, set[str]] = collections.defaultdict(set)
    for path in sorted(folder.rglob("*.ci")):
        text = path.read_text()
        for title, label in re.findall(r'node: \{ title: "([^"]+)" label: "([^"]*)"', text):
            found = re.search(r"(\d+) bytes \((static|dynamic|dynamic,bounded)\)", label)
            if found is not None:
                stack[title] = int(found[1])
        for source, target in re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', text):
            calls[source].add(target)
    return stack, calls


def deepest(stack: dict[str, int], calls: dict[str, set[str]], start: str) -> tuple[int, list[str]]:
    """The call path that needs most stack.

    A call through a pointer may go to any function that nobody calls by name: in this firmware
    those are the functions of the port and of the buses.
    """
    called = {target for name in stack for target in calls.get(name, ())}
    by_pointer = [name for name in stack if name not in called and name != start]
    known: dict[str, tuple[int, list[str]]] = {}

    def measure(name: str, above: tuple[str, ...]) -> tuple[int, list[str]]:
        if name in above:
            sys.exit(f"error: {name} calls itself: its stack has no bound")
        if name not in known:
            targets = set(calls.get(name, ()))
            through = "__indirect_call" in targets
            targets -= {"__indirect_call"}
            # A function reached by pointer does not call through pointers into the core again.
            if through and not any(step in by_pointer for step in above):
                targets |= set(by_pointer)
            below = [measure(target, (*above, name)) for target in targets if target in stack]
            most = max(below, default=(0, []))
            if not below and targets:
                most = (LIBRARY_STACK, [])
            result = stack[name] + most[0], [name, *most[1]]
            if through:
                return result
            known[name] = result
        return known[name]

    return measure(start, ())


def read_code(image: Image, elf: Path) -> None:
    """Count the handlers' instructions, and look for masked interrupts."""
    name, counts = "", collections.Counter[str]()
    for line in run(tool("objdump"), "-d", "--no-show-raw-insn", str(elf)).splitlines():
        start = re.match(r"[0-9a-f]+ <(.+)>:", line)
        if start is not None:
            name = start[1]
        elif re.match(r"\s+[0-9a-f]+:\s+[a-z]", line):
            counts[name] += 1
            if re.search(r"\bcpsid\b|\bmsr\s+(primask|basepri|faultmask)", line, re.IGNORECASE):
                image.masked.append(f"{name}: {line.strip()}")
    image.handlers = {handler: counts[handler] for handler in ("uart_isr", "clock_isr")}


def read_image(name: str) -> Image:
    """Everything about an environment that was built."""
    folder = ROOT / ".pio" / "build" / name
    elf = folder / "firmware.elf"
    if not elf.is_file():
        sys.exit(f"error: {name} is not built; run: make firmware")
    image = Image(name)
    for line in run(tool("nm"), str(elf)).splitlines():
        words = line.split()
        if len(words) == 3:
            image.symbols[words[2]] = int(words[0], 16)
    read_map(image, (folder / "firmware.map").read_text())
    read_sections(image, elf)
    read_code(image, elf)
    stack, calls = read_call_graph(folder)
    # What the linker has thrown away is called by nobody.
    stack = {title: use for title, use in stack.items() if title.split(":")[-1] in image.symbols}
    # Handlers are no part of main's path; each may come on top of it.
    found = [entry for entry in HANDLERS if entry in stack]
    handlers = [deepest(stack, calls, entry)[0] for entry in found]
    for entry in (*found, "reset_handler", "fault_handler", "fault_record"):
        stack.pop(entry, None)
    depth, path = deepest(stack, calls, "main")
    image.stack = depth + sum(handlers) + len(handlers) * INTERRUPT_STACK, path
    return image


def faults_of(image: Image) -> list[str]:
    """What is wrong with an image; empty when nothing is."""
    faults = []
    flash, ram = sum(image.flash.values()), sum(image.ram.values())
    if flash > image.flash_budget:
        faults.append(f"{flash} bytes of flash are over the budget of {image.flash_budget}")
    if ram > RAM_BUDGET:
        faults.append(f"{ram} bytes of RAM are over the budget of {RAM_BUDGET}")
    if image.stack[0] > image.stack_bytes:
        faults.append(f"a call path needs {image.stack[0]} of {image.stack_bytes} bytes of stack")
    if image.byte_cycles > BYTE_CYCLES:
        faults.append(f"a received byte takes {image.byte_cycles} of {BYTE_CYCLES} cycles")
    faults += [f"interrupts are masked in {place}" for place in image.masked]
    return faults


def model_needs(path: Path) -> tuple[int, int, int]:
    """Bytes of blob, arena and frame of a compiled model."""
    data = path.read_bytes()
    if data[:4] != b"DRIP" or len(data) < 128:
        raise ValueError(f"{path} is no compiled model")
    (arena,) = struct.unpack_from("<I", data, 24)
    (header,) = struct.unpack_from("<H", data, 6)
    (sections,) = struct.unpack_from("<H", data, 28)
    frame = 0
    for index in range(sections):
        kind, _, offset, _, _ = struct.unpack_from("<HHIII", data, header + 16 * index)
        if kind == SECTION_INPUT:
            (frame,) = struct.unpack_from("<I", data, offset + 12)
    return len(data), arena, frame


# enum DRIP_SECTION_*, and the place of frame_bytes in blob_input: docs/SPEC.md.
SECTION_INPUT = 4


def misfits(image: Image, path: Path) -> list[str]:
    """Why a model cannot be in an image; empty when it can."""
    blob, arena, frame = model_needs(path)
    have = (
        ("bytes of flash", blob, image.room),
        ("bytes of arena", arena, image.arena_bytes),
        ("bytes per frame", frame, image.frame_bytes),
    )
    return [
        f"needs {need} {what}, {image.name} has {room}" for what, need, room in have if need > room
    ]


def print_image(image: Image) -> None:
    """The report of one environment."""
    print(f"{image.name}: bytes without model, arena and frame buffers")
    names = [name for name, _ in MODULES] + ["other", "stack", "padding"]
    for name in names:
        if image.flash[name] or image.ram[name]:
            print(f"  {name:10} {image.flash[name]:8} flash {image.ram[name]:8} RAM")
    flash, ram = sum(image.flash.values()), sum(image.ram.values())
    print(f"  {'sum':10} {flash:8} flash {ram:8} RAM")
    print(f"  {'budget':10} {image.flash_budget:8} flash {RAM_BUDGET:8} RAM")
    print(f"  model {image.model_bytes} in a room of {image.room}; slots of {image.slot_bytes}")
    print(f"  arena {image.arena_bytes}, frame buffer {image.frame_bytes}")
    print(f"  stack: {image.stack[0]} of {image.stack_bytes} bytes on the deepest path, interrupts")
    print(f"    included: {' > '.join(image.stack[1])}")
    print(f"  received byte: {image.handlers['uart_isr']} instructions at most, no masked section:")
    print(
        f"    under {image.byte_cycles} of {BYTE_CYCLES} cycles; tick {image.handlers['clock_isr']}"
    )


def sums(image: Image, path: Path) -> tuple[int, int] | None:
    """Flash and RAM of an image with a model, its arena and one frame; None: it does not fit."""
    blob, arena, frame = model_needs(path)
    # Such an image has nothing but what its own model needs.
    is_other = image.name.endswith(OWN_OPERATORS) and -(-blob // 16) * 16 != image.model_bytes
    if is_other or misfits(image, path):
        return None
    return sum(image.flash.values()) + blob, sum(image.ram.values()) + arena + frame


def print_models(images: list[Image], models: list[Path]) -> None:
    """What each model needs, and flash and RAM in sum where it fits."""
    width = max(17, *(len(image.name) for image in images))
    print("\nflash and RAM in sum, with arena and one frame; -: does not fit")
    names = " ".join(f"{image.name:>{width}}" for image in images)
    print(f"{'model':18} {'blob':>8} {'arena':>8} {'frame':>8} {names}")
    for path in models:
        name = path.parent.name if path.stem == "model" else path.stem
        needs = " ".join(f"{need:8}" for need in model_needs(path))
        found = [sums(image, path) for image in images]
        shown = ["-" if both is None else f"{both[0]} {both[1]:7}" for both in found]
        print(f"{name:18} {needs} {' '.join(f'{text:>{width}}' for text in shown)}")


def main() -> None:
    """Report on the environments named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--check-model", type=Path, help="only say whether this model fits")
    parser.add_argument("names", nargs="+", metavar="ENVIRONMENT")
    options = parser.parse_args()
    images = [read_image(name) for name in options.names]
    if options.check_model is not None:
        faults = [fault for image in images for fault in misfits(image, options.check_model)]
        if faults:
            sys.exit("\n".join(f"error: {options.check_model.name} {fault}" for fault in faults))
        return
    for image in images:
        print_image(image)
    models = [ROOT / "models" / "digits" / "model.drip"]
    print_models(images, models + sorted((ROOT / "build" / "nets").rglob("model.drip")))
    if options.json is not None:
        figures = {
            image.name: {
                "flash": dict(image.flash),
                "ram": dict(image.ram),
                "stack_bytes": image.stack[0],
                "byte_cycles": image.byte_cycles,
                "arena_bytes": image.arena_bytes,
            }
            for image in images
        }
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    faults = [f"{image.name}: {fault}" for image in images for fault in faults_of(image)]
    if faults:
        sys.exit("\n".join(f"error: {fault}" for fault in faults))


if __name__ == "__main__":
    main()
