"""Build MicroPython interpreters, and the native modules of DRIP for them.

The interpreter's source is Debian's source package, pinned by hash, fetched with the archive that
this machine's own apt is set up for. Everything lies in build/micropython and is made once.

Usage: python tools/micropython/build.py [unix] [unix_own] [modules] [dist] [mps2_an386]
       [virt_rv32] [wasm]
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MODULE = ROOT / "firmware" / "micropython"
BUILD = ROOT / "build" / "micropython"
SOURCE = BUILD / "source"
# With the module in it; the objects of the core land beside its build folder.
OWN = BUILD / "unix_own" / "build" / "micropython"
UNIX = SOURCE / "ports" / "unix" / "build-standard" / "micropython"
MPY_CROSS = SOURCE / "mpy-cross" / "build" / "mpy-cross"
DIST = BUILD / "dist"
WASM = BUILD / "wasm"

PACKAGE = "micropython"
VERSION = "1.25.0+ds-1"
SUITE = "trixie"
TARBALL = "micropython_1.25.0+ds.orig.tar.xz"
TARBALL_SHA256 = "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea"

# Architectures that are built and tested. xtensawin goes through the same Makefile, but only with
# the vendor's compiler, which Debian does not have.
COMPILERS = {
    "x64": ("gcc", "gcc"),
    "armv6m": ("arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
    "armv7m": ("arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
    "armv7emsp": ("arm-none-eabi-gcc", "gcc-arm-none-eabi libnewlib-arm-none-eabi"),
    "rv32imc": ("riscv64-unknown-elf-gcc", "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf"),
}
UNVERIFIED = {"xtensawin": ("xtensa-esp32-elf-gcc", "(Espressif's toolchain)")}
# What ends the address of an archive of Debian; cloud images have a list of mirrors there.
_ARCHIVE = re.compile(r"\S+/debian(\.list)?/?")
_UNIX_OPTIONS = (
    "MICROPY_PY_BTREE=0",
    "MICROPY_PY_SSL=0",
    "MICROPY_SSL_MBEDTLS=0",
    "MICROPY_PY_FFI=0",
    "FROZEN_MANIFEST=",
)


class BuildError(Exception):
    """Something is missing or failed; the message says what, and how to get it."""


def run(command: Sequence[str | os.PathLike[str]], log: Path, **options: object) -> None:
    """Run a command quietly.

    Raises:
        BuildError: It failed; the last lines of its output are in the message.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        done = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, **options)  # type: ignore[call-overload]
    if done.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise BuildError(f"{' '.join(map(str, command))} failed (see {log}):\n{last}")


# ---------------------------------------------------------------------- the source


def archive_entry(
    folder: Path = Path("/etc/apt"), share: Path = Path("/usr/share")
) -> tuple[str, str]:
    """Find the Debian archive that this machine's apt uses, or on Ubuntu the one that it knows of.

    Returns:
        Its URI, and the options that go into brackets of a one-line entry.

    Raises:
        BuildError: No archive is known here.
    """
    for path in sorted((folder / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
            uri = fields.get("URIs", "").split()
            if uri and _ARCHIVE.fullmatch(uri[0]):
                key = fields.get("Signed-By", "").strip()
                return uri[0], f"signed-by={key}" if key.startswith("/") else ""
    lists = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*.list"))]
    for path in lists:
        for line in path.read_text().splitlines() if path.is_file() else ():
            found = re.match(r"deb(?:-src)?\s+(?:\[(.*?)\]\s+)?(\S+)\s", line)
            if found and _ARCHIVE.fullmatch(found[2]):
                key = re.search(r"signed-by=\S+", found[1] or "")
                return found[2], key[0] if key else ""
    known = share / "python-apt" / "templates" / "Debian.info"
    keys = share / "keyrings" / "debian-archive-keyring.gpg"
    if known.is_file() and keys.is_file():
        uri = re.findall(r"^BaseURI:\s*(\S+/debian)/?$", known.read_text(), re.MULTILINE)
        if uri:
            return uri[0], f"signed-by={keys}"
    raise BuildError(
        "no Debian archive is known here; on Ubuntu: sudo apt-get install debian-archive-keyring "
        f"python-apt-common; or put {TARBALL} (Debian's source package {PACKAGE} {VERSION}) "
        f"into {BUILD}"
    )


def fetch() -> Path:
    """Return the pinned tarball; download it once.

    Raises:
        BuildError: It cannot be had, or it is not what was pinned.
    """
    target = BUILD / TARBALL
    if not target.is_file():
        BUILD.mkdir(parents=True, exist_ok=True)
        uri, options = archive_entry()
        print(f"fetching {TARBALL}")
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            base = Path(scratch)
            _download(base, f"deb-src [{options}] {uri} {SUITE} main\n".replace("[] ", ""))
            shutil.copy(base / "get" / TARBALL, base / "checked")
            verify(base / "checked")
            (base / "checked").replace(target)
    verify(target)
    return target


def _download(base: Path, entry: str) -> None:
    """Let apt, with lists of its own, put the source package into the folder get."""
    need("apt-get", "apt")
    for name in ("sources.list.d", "lists/partial", "cache/archives/partial", "get"):
        (base / name).mkdir(parents=True)
    (base / "sources.list").write_text(entry)
    apt = ["apt-get", "-q", "-o", f"Dir::Etc::sourcelist={base / 'sources.list'}"]
    apt += ["-o", f"Dir::Etc::sourceparts={base / 'sources.list.d'}"]
    apt += ["-o", f"Dir::State::lists={base / 'lists'}"]
    apt += ["-o", f"Dir::Cache={base / 'cache'}"]
    if os.geteuid() == 0:
        apt += ["-o", "APT::Sandbox::User=root"]
    log = BUILD / "fetch.log"
    try:
        run([*apt, "update"], log)
        run([*apt, "source", "--download-only", f"{PACKAGE}={VERSION}"], log, cwd=base / "get")
    except BuildError as error:
        said = re.findall(r"^[EW]: (.*)$", log.read_text(errors="replace"), re.MULTILINE)
        raise BuildError(
            f"cannot fetch {PACKAGE} {VERSION} from the archive of {SUITE}: "
            f"{said[0] if said else 'apt failed'} (all of it: {log})"
        ) from error


def verify(tarball: Path) -> None:
    """Compare a file with the pinned hash.

    Raises:
        BuildError: They differ.
    """
    digest = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if digest != TARBALL_SHA256:
        raise BuildError(f"{tarball} has SHA-256 {digest}, not {TARBALL_SHA256}; remove it")


def source() -> Path:
    """Return the unpacked source tree."""
    if not (SOURCE / "py" / "dynruntime.mk").is_file():
        tarball = fetch()
        print(f"unpacking {tarball.name}")
        partial = BUILD / "unpacking"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(tarball) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(partial, filter="data")
            else:
                archive.extractall(partial)
        (inner,) = partial.iterdir()
        shutil.rmtree(SOURCE, ignore_errors=True)
        inner.rename(SOURCE)
        partial.rmdir()
    return SOURCE


def make(*arguments: str | os.PathLike[str], log: str) -> None:
    """Run make, politely, with two jobs."""
    for tool in ("make", "gcc"):
        need(tool, tool)
    run(["nice", "-n", "5", "make", "-j2", *arguments], BUILD / f"{log}.log")


def need(tool: str, package: str) -> None:
    """Raise BuildError when a program is missing."""
    if shutil.which(tool) is None:
        raise BuildError(f"{tool} is missing; install it with: sudo apt-get install {package}")


# ---------------------------------------------------------------------- interpreters


def mpy_cross() -> Path:
    """Build the cross compiler of MicroPython."""
    source()
    if not MPY_CROSS.is_file():
        print("building mpy-cross")
        make("-C", SOURCE / "mpy-cross", log="mpy-cross")
    return MPY_CROSS


def unix() -> Path:
    """Build the interpreter for this computer."""
    mpy_cross()
    if not UNIX.is_file():
        print("building MicroPython for this computer")
        make("-C", SOURCE / "ports" / "unix", *_UNIX_OPTIONS, log="unix")
    return UNIX


def unix_own() -> Path:
    """Build the interpreter for this computer with DRIP as a module of the firmware."""
    mpy_cross()
    print("building MicroPython for this computer with drip in it")
    options = [*_UNIX_OPTIONS, f"BUILD={OWN.parent}", f"USER_C_MODULES={MODULE}"]
    make("-C", SOURCE / "ports" / "unix", *options, log="unix_own")
    return OWN


def emulated(board: str) -> Path:
    """Build the interpreter for a machine of QEMU: MPS2_AN386 (Cortex-M4F) or VIRT_RV32."""
    mpy_cross()
    image = BUILD / board.lower() / "firmware.elf"
    folder = HERE / "boards" / board
    files = [*folder.rglob("*"), *folder.parent.glob("*.*")]
    ours = max((path.stat().st_mtime for path in files), default=0.0)
    if image.is_file() and image.stat().st_mtime > ours:
        return image
    print(f"building MicroPython for {board}")
    # Objects of other settings look up to date to make.
    shutil.rmtree(image.parent, ignore_errors=True)
    options = [f"BOARD={board}", f"BOARD_DIR={folder}", f"BUILD={image.parent}"]
    options += ["MICROPY_HEAP_SIZE=1048576"]
    if board == "VIRT_RV32":
        need(*COMPILERS["rv32imc"])
        # Debian's assembler knows the CSR instructions only under the older specification.
        options += [
            "FROZEN_MANIFEST=",
            "AFLAGS=-misa-spec=2.2 -mabi=ilp32 -march=rv32imac",
            "RV32_ARCH=rv32imac",
        ]
    else:
        need(*COMPILERS["armv7emsp"])
        options += [f"FROZEN_MANIFEST={folder / 'manifest.py'}"]
        # Freezing asks for a folder of libraries with a README.md, which Debian leaves out.
        options += [f"MPY_LIB_DIR={HERE}"]
    make("-C", SOURCE / "ports" / "qemu", *options, log=board.lower())
    return image


def wasm() -> Path:
    """Fetch the interpreter for WebAssembly, pinned by hash, which node runs."""
    need("npm", "nodejs npm")
    WASM.mkdir(parents=True, exist_ok=True)
    wanted = ROOT / "tests" / "micropython" / "wasm"
    current = all(
        (WASM / path.name).is_file() and (WASM / path.name).read_bytes() == path.read_bytes()
        for path in wanted.iterdir()
    )
    if not (current and (WASM / "node_modules").is_dir()):
        print("fetching MicroPython for WebAssembly")
        for path in wanted.iterdir():
            shutil.copy(path, WASM)
        shutil.rmtree(WASM / "node_modules", ignore_errors=True)
        run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            BUILD / "wasm.log",
            cwd=WASM,
        )
    return WASM / "run.mjs"


# ---------------------------------------------------------------------- native modules


def module(arch: str) -> Path:
    """Build the native module for an architecture, and check its objects."""
    from lint import check_objects

    mpy_cross()
    need(*{**COMPILERS, **UNVERIFIED}[arch])
    for name, package in (("elftools", "pyelftools"), ("ar", "ar")):
        if importlib.util.find_spec(name) is None:
            raise BuildError(
                f"the linker of native modules needs {package}; install it with: "
                f"{sys.executable} -m pip install {package}"
            )
    folder = BUILD / "modules" / arch
    folder.mkdir(parents=True, exist_ok=True)
    options = [f"MPY_DIR={SOURCE}", f"ARCH={arch}", f"BUILD={folder}", f"PYTHON={sys.executable}"]
    makefile = MODULE / "src" / "Makefile"
    make("-C", folder, "-f", makefile, *options, log=f"module-{arch}")
    broken = check_objects(arch, sorted(folder.glob("*.o")))
    if broken:
        raise BuildError("a native module cannot link this:\n" + "\n".join(broken))
    return folder / f"native_{arch}.mpy"


def modules() -> dict[str, Path]:
    """Build the native module for every architecture that CI builds."""
    built = {}
    for arch in COMPILERS:
        built[arch] = module(arch)
        print(f"{arch:10} {built[arch].stat().st_size:7} bytes")
    return built


def python_part(folder: Path) -> None:
    """Put the files of the package that fit every processor into a folder, compiled to bytecode."""
    cross = mpy_cross()
    folder.mkdir(parents=True)
    # As source, so that it can explain itself where no .mpy file can be loaded.
    shutil.copy(MODULE / "drip" / "__init__.py", folder)
    for path in sorted((MODULE / "drip").glob("*.py")):
        if path.name != "__init__.py":
            command = [cross, "-s", path.name, "-o", folder / f"{path.stem}.mpy", path]
            run(command, folder.parent / "mpy.log")
    (folder.parent / "mpy.log").unlink()


def package(archs: Sequence[str] = tuple(COMPILERS), folder: Path = DIST) -> Path:
    """Assemble what a board gets: the folder drip, and one folder per architecture."""
    shutil.rmtree(folder, ignore_errors=True)
    python_part(folder / "drip")
    for arch in archs:
        (folder / f"{arch}_6.3").mkdir()
        shutil.copy(module(arch), folder / f"{arch}_6.3")
    shutil.copy(MODULE / "package.json", folder)
    return folder


TARGETS: dict[str, Callable[[], object]] = {
    "unix": unix,
    "unix_own": unix_own,
    "modules": modules,
    "dist": package,
    "mps2_an386": lambda: emulated("MPS2_AN386"),
    "virt_rv32": lambda: emulated("VIRT_RV32"),
    "wasm": wasm,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what is named; return 0, or 1 when something is missing or failed."""
    parser = argparse.ArgumentParser(description="Build MicroPython and DRIP's module for it.")
    parser.add_argument("target", nargs="*", help=f"{', '.join(TARGETS)}; default: all")
    parser.add_argument("--arch", help="build the module for this architecture only")
    options = parser.parse_args(arguments)
    unknown = set(options.target) - set(TARGETS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    try:
        if options.arch:
            print(module(options.arch))
        for name in options.target or ([] if options.arch else list(TARGETS)):
            TARGETS[name]()
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(HERE))
    sys.exit(main())
