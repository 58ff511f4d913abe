"""Check the objects of the C core against the rules that let one source run everywhere.

Every file of the core is compiled for each target and its object is read. An object may not hold
data of its own (.data, .bss, .rodata: a MicroPython native module cannot link them), may not call
anything but mem*, the rest of the core and the 32-bit integer helpers of the compiler, may not use
floating point, and may not contain a switch table.

Usage: python tools/build/check_core.py [--target x86-64|cortex-m4|rv32imc] [--source FILE ...]
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "firmware" / "core"

RULES = [
    "-O2",
    "-fno-jump-tables",
    "-fno-tree-switch-conversion",
    "-fno-tree-vectorize",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Werror",
]
# What distributions switch on by default would add symbols and sections that no board build has.
NEUTRAL = [
    "-std=c11",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-U_FORTIFY_SOURCE",
]
MEMORY = frozenset({"memcpy", "memmove", "memset", "memcmp"})
# Integer division where the processor has none, and bit counting: in libgcc of every target.
HELPERS = frozenset(
    {
        "__aeabi_idiv",
        "__aeabi_idivmod",
        "__aeabi_uidiv",
        "__aeabi_uidivmod",
        "__bswapsi2",
        "__clzsi2",
        "__ctzsi2",
        "__divsi3",
        "__modsi3",
        "__mulsi3",
        "__popcountsi2",
        "__udivsi3",
        "__umodsi3",
    }
)
FORBIDDEN_SECTION = re.compile(
    r"\.(data|bss|rodata|tdata|tbss|sdata|sbss|srodata|init_array|fini_array|ctors|dtors)(\.|\d|$)"
)
SWITCH_TABLE = re.compile(r"\s(tbb|tbh)\s|__gnu_thumb1_case")
ARM_FLOAT = re.compile(r"\s(v[a-z]+\.f(?:16|32|64)\S*)\s")


@dataclass(frozen=True)
class Target:
    """One processor the core must fit.

    Attributes:
        name: Name on the command line.
        prefix: Prefix of the binutils and the compiler.
        package: Debian packages that bring the compiler and mem* declarations.
        flags: Flags that choose the processor.
        variants: Flags of each compilation; sizes are those of the first.
    """

    name: str
    prefix: str
    package: str
    flags: tuple[str, ...]
    variants: tuple[tuple[str, ...], ...] = ((),)

    @property
    def compiler(self) -> str:
        """The C compiler; CC chooses it for the machine itself."""
        return self.prefix + "gcc" if self.prefix else os.environ.get("CC", "cc")


TARGETS = (
    Target(
        "x86-64",
        "" if platform.machine() in ("x86_64", "AMD64") else "x86_64-linux-gnu-",
        "gcc-x86-64-linux-gnu",
        ("-m64", "-fcf-protection=none"),
    ),
    Target(
        "cortex-m4",
        "arm-none-eabi-",
        "gcc-arm-none-eabi libnewlib-arm-none-eabi",
        ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"),
    ),
    Target(
        "rv32imc",
        "riscv64-unknown-elf-",
        "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf",
        ("-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"),
        # At -O2 variable 64-bit shifts are expanded in place; only -Os calls a helper for them,
        # as other compilers and the native modules of MicroPython do.
        variants=((), ("-Os",)),
    ),
)


class ToolMissingError(Exception):
    """A compiler is not installed; the message says which package brings it."""


@dataclass(frozen=True)
class Report:
    """What one object holds.

    Attributes:
        source: The C file.
        text_bytes: Size of its code.
        violations: One line per broken rule, empty when the object is fine.
    """

    source: Path
    text_bytes: int
    violations: tuple[str, ...]


@dataclass(frozen=True)
class _Object:
    text_bytes: int
    sections: tuple[tuple[str, int], ...]
    undefined: frozenset[str]
    defined: frozenset[str]
    common: frozenset[str]
    disassembly: str


def core_sources() -> list[Path]:
    """Return every C file of the core, sorted."""
    return sorted((CORE / "src").rglob("*.c"))


def check(target: Target, sources: Sequence[Path], extra: Sequence[str] = ()) -> list[Report]:
    """Compile sources for a target and report what their objects break.

    Args:
        target: The processor.
        sources: C files that may call each other.
        extra: More compiler flags, after the usual ones.

    Returns:
        One report per source, in order. A file that does not compile is a violation.

    Raises:
        ToolMissingError: If the compiler or objdump of the target is not installed.
    """
    for tool in (target.compiler, target.prefix + "objdump"):
        if shutil.which(tool) is None:
            raise ToolMissingError(
                f"{tool} is missing; install it with: sudo apt-get install {target.package}"
            )
    columns = [_check_variant(target, sources, (*flags, *extra)) for flags in target.variants]
    return [
        dataclasses.replace(
            row[0],
            violations=tuple(dict.fromkeys(line for report in row for line in report.violations)),
        )
        for row in zip(*columns, strict=True)
    ]


def _check_variant(target: Target, sources: Sequence[Path], extra: Sequence[str]) -> list[Report]:
    with tempfile.TemporaryDirectory() as scratch:
        objects = [
            _compile(target, source, Path(scratch) / f"{number}.o", extra)
            for number, source in enumerate(sources)
        ]
    defined = frozenset().union(*(item.defined for item in objects if isinstance(item, _Object)))
    return [_judge(source, item, defined) for source, item in zip(sources, objects, strict=True)]


def _compile(target: Target, source: Path, output: Path, extra: Iterable[str]) -> _Object | str:
    command = [target.compiler, *NEUTRAL, *RULES, *target.flags, *extra]
    command += [f"-I{CORE / 'include'}", "-c", str(source), "-o", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line]
        return (lines or done.stderr.splitlines() or ["compiler failed"])[0]
    disassembly = subprocess.run(
        [target.prefix + "objdump", "-dr", "--no-show-raw-insn", str(output)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    with output.open("rb") as stream:
        return _read(ELFFile(stream), disassembly)


def _read(elf: ELFFile, disassembly: str) -> _Object:
    sections = tuple((section.name, section["sh_size"]) for section in elf.iter_sections())
    names: dict[str, set[str]] = {"undefined": set(), "defined": set(), "common": set()}
    for table in elf.iter_sections():
        if not isinstance(table, SymbolTableSection):
            continue
        for symbol in table.iter_symbols():
            index = symbol["st_shndx"]
            if symbol.name == "" or symbol["st_info"]["bind"] == "STB_LOCAL":
                continue
            kind = {"SHN_UNDEF": "undefined", "SHN_COMMON": "common"}.get(index, "defined")
            names[kind].add(symbol.name)
    return _Object(
        text_bytes=sum(size for name, size in sections if name.startswith(".text")),
        sections=sections,
        undefined=frozenset(names["undefined"]) - {"_GLOBAL_OFFSET_TABLE_"},
        defined=frozenset(names["defined"]),
        common=frozenset(names["common"]),
        disassembly=disassembly,
    )


def _judge(source: Path, item: _Object | str, defined: frozenset[str]) -> Report:
    if isinstance(item, str):
        return Report(source, 0, (f"does not compile: {item}",))
    violations = [
        f"{size} bytes in {name}: the core may hold no data of its own"
        for name, size in item.sections
        if size and FORBIDDEN_SECTION.match(name)
    ]
    violations += [f"common symbol {name}: no file-scope data" for name in sorted(item.common)]
    violations += [
        f"calls {name}: only mem*, the core and 32-bit integer helpers are allowed"
        for name in sorted(item.undefined - MEMORY - HELPERS - defined)
    ]
    if SWITCH_TABLE.search(item.disassembly):
        violations.append("switch table in the code: see -fno-jump-tables")
    floats = sorted(set(ARM_FLOAT.findall(item.disassembly)))
    if floats:
        violations.append(f"floating point instructions: {', '.join(floats)}")
    return Report(source, item.text_bytes, tuple(violations))


def _label(source: Path) -> str:
    return source.relative_to(CORE).as_posix() if source.is_relative_to(CORE) else str(source)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check and print a table; return 0 if every object is fine, 1 if not, 2 without compilers."""
    parser = argparse.ArgumentParser(description="Check the rules of the C core on its objects.")
    parser.add_argument("--target", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument("--source", action="append", type=Path, help="default: the whole core")
    options = parser.parse_args(arguments)
    sources = options.source or core_sources()
    if not sources:
        print(f"error: no C sources under {CORE / 'src'}", file=sys.stderr)
        return 2
    targets = [item for item in TARGETS if not options.target or item.name in options.target]
    try:
        reports = {target.name: check(target, sources) for target in targets}
    except ToolMissingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    width = max(len(_label(source)) for source in sources)
    print("text bytes".ljust(width), *(name.rjust(10) for name in reports))
    for row in zip(sources, *reports.values(), strict=True):
        print(
            _label(row[0]).ljust(width), *(str(report.text_bytes).rjust(10) for report in row[1:])
        )
    totals = [sum(report.text_bytes for report in column) for column in reports.values()]
    print("total".ljust(width), *(str(total).rjust(10) for total in totals))
    broken = 0
    for name, column in reports.items():
        for report in column:
            for violation in report.violations:
                print(f"{_label(report.source)}: {name}: {violation}", file=sys.stderr)
                broken += 1
    if broken:
        print(f"error: {broken} broken core rules", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
