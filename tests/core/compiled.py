"""Compiles C of the firmware together with models from the tests, for use from Python."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "firmware" / "core" / "include"
# What the headers that drivers include declare.
DECLARED = [ROOT / "firmware" / "core" / "src" / name for name in ("bytes.c", "frame.c", "wire.c")]
FLAGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-wrapv"]
CHECKS = ["-fsanitize=undefined", "-fno-sanitize-recover=all"]
# AddressSanitizer needs its runtime in the interpreter: tools/build/sanitize_tests.sh does that.
ADDRESS = ["-fsanitize=address"] if os.environ.get("DRIP_SANITIZED") else []


def _declarations(headers: list[Path], include: list[Path], folder: Path) -> str:
    fake = folder / "fake"
    fake.mkdir()
    for name in ("stdint.h", "stddef.h", "string.h"):
        (fake / name).touch()
    source = folder / "headers.c"
    source.write_text("".join(f'#include "{header.name}"\n' for header in headers))
    paths = [f"-I{path}" for path in (fake, *include)]
    command = [os.environ.get("CC", "cc"), "-E", "-P", "-nostdinc", *paths, str(source)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return re.sub(r"\b_Static_assert\s*\(.*?\)\s*;", "", text, flags=re.DOTALL)


def load(
    name: str,
    sources: list[Path],
    headers: list[Path],
    folder: Path,
    objects: Sequence[Path] = (),
) -> ModuleType:
    """Compile `sources` into a module that offers what `headers` declare.

    Args:
        name: Of the module; one per test run.
        sources: C files.
        headers: What Python sees; their folders are searched for includes.
        folder: Takes what is built.
        objects: Linked, too.
    """
    cffi = pytest.importorskip("cffi", reason="cffi is missing: pip install cffi")
    if os.name == "nt" or shutil.which(os.environ.get("CC", "cc").split()[0]) is None:
        pytest.skip("needs a C compiler: install gcc or clang")
    include = sorted({path.parent for path in (*sources, *headers)} | {CORE})
    ffi = cffi.FFI()
    ffi.cdef(_declarations(headers, include, folder))
    ffi.set_source(
        name,
        "".join(f'#include "{header.name}"\n' for header in headers),
        sources=[str(path) for path in (*sources, *DECLARED)],
        include_dirs=[str(path) for path in include],
        extra_objects=[str(path) for path in objects],
        extra_compile_args=[*FLAGS, *CHECKS, *ADDRESS],
        extra_link_args=[*CHECKS, *ADDRESS],
    )
    built = Path(ffi.compile(tmpdir=str(folder)))
    spec = importlib.util.spec_from_file_location(name, built)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
