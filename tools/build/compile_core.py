"""Compile the C core for the host: the `drip._core` extension and the `drip-native` device.

The package's build hook (hatch_build.py), `make` and the sanitizer run all call this file, so the
core is compiled the same way everywhere. The Python view of the core is the preprocessed public
headers; nothing is declared twice.

Usage:
    python tools/build/compile_core.py              into host/drip, where an editable install looks
    python tools/build/compile_core.py --sanitize   an overlay package under build/sanitize
    python tools/build/compile_core.py --cdef       print what cffi sees of the headers
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from cffi import FFI
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "firmware" / "core"
INCLUDE = CORE / "include"
NATIVE = ROOT / "firmware" / "ports" / "native"
PACKAGE = ROOT / "host" / "drip"

# Python's own flags define signed overflow (-fwrapv); the compilers of boards do not.
CORE_FLAGS = ["-std=c11", "-O2", "-fno-wrapv"]
SANITIZE = [
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-g",
]
# Free-threaded CPython has no limited API, so its extension is tied to one version.
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


class BuildError(Exception):
    """The core cannot be compiled here; the message is one line for the user."""


def core_sources() -> list[Path]:
    """Return every C file of the core, sorted, so that builds are repeatable."""
    sources = sorted((CORE / "src").rglob("*.c"))
    if not sources:
        raise BuildError(f"no C sources under {CORE / 'src'}; is the checkout or sdist complete?")
    return sources


def public_headers() -> list[Path]:
    """Return the public headers of the core, sorted."""
    headers = sorted((INCLUDE / "drip").glob("*.h"))
    if not headers:
        raise BuildError(f"no headers under {INCLUDE / 'drip'}; is the checkout or sdist complete?")
    return headers


def _include_all() -> str:
    return "".join(f'#include "drip/{header.name}"\n' for header in public_headers())


def _compiler() -> Any:
    """Return setuptools' compiler as `build_ext` would set it up, honouring CC and CFLAGS."""
    command = build_ext(Distribution())
    command.ensure_finalized()
    from setuptools._distutils.ccompiler import new_compiler
    from setuptools._distutils.sysconfig import customize_compiler

    compiler = new_compiler(compiler=command.compiler)
    customize_compiler(compiler)
    if compiler.compiler_type == "msvc":
        compiler.initialize()
    return compiler


def _preprocess(compiler: Any, source: Path, include_dirs: list[Path]) -> str:
    if compiler.compiler_type == "msvc":
        command = [compiler.cc, "/nologo", "/EP", *(f"/I{path}" for path in include_dirs), source]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    output = source.with_suffix(".i")
    compiler.preprocess(
        str(source),
        output_file=str(output),
        include_dirs=[str(path) for path in include_dirs],
        extra_postargs=["-P", "-nostdinc"],
    )
    return output.read_text()


def cdef() -> str:
    """Return the declarations of all public headers as cffi reads them.

    The standard headers are replaced by empty ones because cffi knows their types itself.
    """
    with tempfile.TemporaryDirectory() as scratch:
        fake = Path(scratch)
        for name in ("stdint.h", "stddef.h", "stdbool.h", "string.h", "limits.h"):
            (fake / name).touch()
        source = fake / "headers.c"
        source.write_text(_include_all())
        text = _preprocess(_compiler(), source, [fake, INCLUDE])
    text = re.sub(r"\b_Static_assert\s*\(.*?\)\s*;", "", text, flags=re.DOTALL)
    text = re.sub(r"^#.*$", "", text, flags=re.MULTILINE)
    return _ALIGNED_BODY.sub(_leave_layout_to_compiler, text)


_ATTRIBUTE = re.compile(r"\s*__attribute__\s*\(\(.*?\)\)(?=\s*[;,=])", flags=re.DOTALL)
_ALIGNED_BODY = re.compile(r"\{[^{}]*__attribute__[^{}]*\}")


def _leave_layout_to_compiler(body: re.Match[str]) -> str:
    """Rewrite a struct with aligned members: cffi knows no attributes, but can ask the compiler."""
    return _ATTRIBUTE.sub("", body.group())[:-1] + "    ...;\n}"


def build_extension(destination: Path, *, sanitize: bool = False) -> Path:
    """Compile the core into `_core` under `destination` and return the file.

    Args:
        destination: Folder of the package `drip` that will hold the extension.
        sanitize: Build with AddressSanitizer and UBSan; Python must then preload their runtimes.
    """
    ffi = FFI()
    ffi.cdef(cdef())
    ffi.set_source("drip._core", _include_all())
    flags = [] if os.name == "nt" else [*CORE_FLAGS, "-fvisibility=hidden"]
    if sanitize:
        flags += SANITIZE
    with tempfile.TemporaryDirectory() as scratch:
        glue = Path(scratch) / "_core.c"
        ffi.emit_c_code(str(glue))
        extension = Extension(
            "drip._core",
            sources=[str(glue), *(str(path) for path in core_sources())],
            include_dirs=[str(INCLUDE)],
            define_macros=[("Py_LIMITED_API", "0x030A0000")] if LIMITED_API else [],
            extra_compile_args=flags,
            extra_link_args=SANITIZE if sanitize else [],
            py_limited_api=LIMITED_API,
        )
        command = build_ext(Distribution({"name": "drip", "ext_modules": [extension]}))
        command.build_lib = f"{scratch}/lib"
        command.build_temp = f"{scratch}/obj"
        command.ensure_finalized()
        command.run()
        built = Path(command.get_outputs()[0])
        return _install(built, destination / built.name)


def build_native(destination: Path, *, sanitize: bool = False) -> Path | None:
    """Compile the firmware as a host process into `destination`, or return None on Windows."""
    if os.name == "nt":
        print("drip-native is not built on Windows: it needs POSIX terminals", file=sys.stderr)
        return None
    ports = sorted(NATIVE.glob("*.c"))
    if not ports:
        raise BuildError(f"no C sources under {NATIVE}; is the checkout or sdist complete?")
    compiler = _compiler()
    flags = ["-Wall", "-Wextra", *(SANITIZE if sanitize else [])]
    include_dirs = [str(INCLUDE), str(NATIVE)]
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for paths, chosen in ((core_sources(), CORE_FLAGS), (ports, ["-std=gnu11", "-O2"])):
            objects += compiler.compile(
                [str(path.relative_to(ROOT)) for path in paths],
                output_dir=scratch,
                include_dirs=include_dirs,
                extra_postargs=[*chosen, *flags],
            )
        compiler.link_executable(
            objects,
            "drip-native",
            output_dir=scratch,
            extra_postargs=SANITIZE if sanitize else [],
        )
        return _install(Path(scratch) / "drip-native", destination / "_bin" / "drip-native")


def _install(built: Path, target: Path) -> Path:
    """Move a file into place in one step: a running device keeps the old one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.copy2(built, temporary)
    temporary.replace(target)
    return target


def build_sanitized(destination: Path) -> Path:
    """Make an overlay of the package whose compiled parts carry the sanitizers.

    Everything else is a link to host/drip, so `PYTHONPATH=<returned folder>` tests the same Python.
    """
    package = destination / "drip"
    package.mkdir(parents=True, exist_ok=True)
    for old in package.iterdir():
        if old.is_symlink():
            old.unlink()
    for entry in PACKAGE.iterdir():
        if not entry.name.startswith(("_core.", "_bin", "__pycache__")):
            (package / entry.name).symlink_to(entry)
    build_extension(package, sanitize=True)
    build_native(package, sanitize=True)
    return destination


def main() -> int:
    """Run the command line described at the top of this file."""
    parser = argparse.ArgumentParser(description="Compile the C core for this machine.")
    parser.add_argument("--sanitize", action="store_true", help="ASan/UBSan into build/sanitize")
    parser.add_argument("--cdef", action="store_true", help="print the cffi declarations and stop")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    try:
        if arguments.cdef:
            print(cdef())
        elif arguments.sanitize:
            print(build_sanitized(ROOT / "build" / "sanitize"))
        else:
            print(build_extension(PACKAGE))
            print(build_native(PACKAGE) or "")
    except (BuildError, CCompilerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
