#!/usr/bin/env python3
"""Fill a PlatformIO core directory without PlatformIO's registry.

PlatformIO takes a package for installed when its folder holds a ``.piopm`` file that fits what the
project asks for. This makes such folders: SCons from PyPI, compiler, cppcheck and upload tools from
the system, and stand-ins for the platforms ``ststm32``, ``native`` and ``espressif32`` that lie
beside this file.

Usage: ``python seed.py FOLDER``, with the Python that has SCons; then
``PLATFORMIO_CORE_DIR=FOLDER pio run``.
"""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLATFORMS = ("ststm32", "native", "espressif32")
TOOLCHAIN = "arm-none-eabi-"
# Versions that platformio.ini and PlatformIO 6.2 ask for.
SCONS = "4.41101.0"
COMPILER = "1.120301.0"
RISCV = "12.2.0"
# Package, version, the program's place in it, program of the system, package of Debian.
TOOLS = (
    ("tool-cppcheck", "1.21100.0", "cppcheck", "cppcheck", "cppcheck"),
    ("tool-openocd", "3.1200.0", "bin/openocd", "openocd", "openocd"),
    ("tool-dfuutil", "1.11.0", "bin/dfu-util", "dfu-util", "dfu-util"),
)


def write_package(folder: Path, kind: str, name: str, version: str) -> None:
    """Make PlatformIO believe that the registry's package lies in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = {"owner": "platformio", "id": None, "name": name, "requirements": None, "uri": None}
    found = {"type": kind, "name": name, "version": version, "spec": spec}
    (folder / ".piopm").write_text(json.dumps(found))
    if kind != "platform":
        about = {"name": name, "version": version, "description": "from this system"}
        (folder / "package.json").write_text(json.dumps(about))


def link(path: Path, target: Path) -> None:
    """Make a symbolic link, in place of what is there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def seed_scons(packages: Path) -> None:
    """SCons of this Python."""
    folder = packages / "tool-scons"
    write_package(folder, "tool", "tool-scons", SCONS)
    (folder / "scons.py").write_text(
        f"import sys\n\nsys.path.insert(0, {sysconfig.get_paths()['purelib']!r})\n"
        "import SCons.Script\n\nSCons.Script.main()\n"
    )


def seed_compiler(packages: Path) -> None:
    """Links to every program of the system's cross compiler."""
    gcc = shutil.which(TOOLCHAIN + "gcc")
    if gcc is None:
        sys.exit("error: arm-none-eabi-gcc is missing; sudo apt-get install gcc-arm-none-eabi")
    folder = packages / "toolchain-gccarmnoneeabi"
    write_package(folder, "tool", folder.name, COMPILER)
    for program in Path(gcc).parent.glob(TOOLCHAIN + "*"):
        link(folder / "bin" / program.name, program)


def seed_riscv(packages: Path) -> None:
    """What the stand-in for Espressif's compilers asks for: the system's, found on the path."""
    write_package(packages / "toolchain-riscv32-esp", "tool", "toolchain-riscv32-esp", RISCV)


def seed_tool(packages: Path, name: str, version: str, place: str, program: str, apt: str) -> None:
    """A link to a program, or a script that says how to get it."""
    folder = packages / name
    write_package(folder, "tool", name, version)
    path = folder / place
    found = shutil.which(program)
    if found is not None:
        link(path, Path(found))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(
        f"#!/bin/sh\necho '{program} is missing; sudo apt-get install {apt}' >&2\nexit 1\n"
    )
    path.chmod(0o755)


def seed(core: Path) -> None:
    """Fill a core directory; what is there already is brought up to date."""
    packages = core / "packages"
    seed_scons(packages)
    seed_compiler(packages)
    seed_riscv(packages)
    for tool in TOOLS:
        seed_tool(packages, *tool)
    for name in PLATFORMS:
        folder = core / "platforms" / name
        shutil.copytree(HERE / name, folder, dirs_exist_ok=True)
        version = json.loads((folder / "platform.json").read_text())["version"]
        write_package(folder, "platform", name, version)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    seed(Path(sys.argv[1]).resolve())
