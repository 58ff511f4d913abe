"""Check the objects of a native module against what the linker of .mpy files gets wrong in silence.

The core's objects are held to its own rules (tools/build/check_core.py): no data at all. The
module's table may hold function objects (.data.rel.ro, which the linker relocates), but nothing
static: a linker for RISC-V or Xtensa reads local data from the wrong place without a word.

Usage: python tools/micropython/lint.py ARCH OBJECT ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools" / "build"))

from check_core import FORBIDDEN_SECTION, HELPERS, MEMORY  # noqa: E402 - needs the path

# Objects of the module's table: only these may have data, and only to be relocated.
_TABLE = "mp_module.o"
_RELOCATED = (".data.rel.ro", ".rodata")
# 64-bit products and shifts of processors that have none, from libgcc, which is linked in.
_LIBGCC = frozenset({"__aeabi_lmul", "__aeabi_llsl", "__aeabi_llsr", "__aeabi_lasr", "__muldi3"})
_SHARED = frozenset({"mp_fun_table", "mp_native_qstr_table", "_GLOBAL_OFFSET_TABLE_"})


def _symbols(elf: ELFFile) -> list[object]:
    return [
        symbol
        for table in elf.iter_sections()
        if isinstance(table, SymbolTableSection)
        for symbol in table.iter_symbols()
    ]


def _check_data(path: Path, elf: ELFFile) -> list[str]:
    broken = []
    for number, section in enumerate(elf.iter_sections()):
        size = int(section["sh_size"])
        if not size or not FORBIDDEN_SECTION.match(section.name):
            continue
        if path.name != _TABLE or not section.name.startswith(_RELOCATED):
            broken.append(f"{path.name}: {size} bytes in {section.name}: no data of its own")
            continue
        for symbol in _symbols(elf):
            info = symbol["st_info"]  # type: ignore[index]
            if (
                symbol["st_shndx"] == number  # type: ignore[index]
                and info["bind"] == "STB_LOCAL"
                and info["type"] == "STT_OBJECT"
            ):
                broken.append(f"{path.name}: {symbol.name} is static data")  # type: ignore[attr-defined]
    return broken


def check_objects(arch: str, objects: Sequence[Path]) -> list[str]:
    """Check the objects of one module.

    Args:
        arch: Architecture, for the messages.
        objects: Every object that is linked, so that calls among them are known.

    Returns:
        One line per broken rule.
    """
    broken: list[str] = []
    defined: set[str] = set()
    wanted: dict[str, set[str]] = {}
    for path in objects:
        with path.open("rb") as stream:
            elf = ELFFile(stream)
            broken += _check_data(path, elf)
            for symbol in _symbols(elf):
                name, place = symbol.name, symbol["st_shndx"]  # type: ignore[attr-defined,index]
                if place == "SHN_COMMON":
                    broken.append(f"{path.name}: {name} is a common symbol")
                elif symbol["st_info"]["bind"] == "STB_LOCAL" or not name:  # type: ignore[index]
                    continue
                elif place == "SHN_UNDEF":
                    wanted.setdefault(path.name, set()).add(name)
                else:
                    defined.add(name)
    allowed = MEMORY | HELPERS | _LIBGCC | _SHARED | defined
    for file, names in sorted(wanted.items()):
        broken += [
            f"{file}: calls {name}, which no native module has"
            for name in sorted(names - allowed)
            if not name.startswith("mp_type_") and not name.startswith("__gnu_thumb1_case")
        ]
    return [f"{arch}: {line}" for line in broken]


def main(arguments: Sequence[str]) -> int:
    """Print what is broken; return 1 when something is."""
    broken = check_objects(arguments[0], [Path(name) for name in arguments[1:]])
    print("\n".join(broken) or f"{len(arguments) - 1} objects are fine")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
