"""Every committed input of the fuzz targets, replayed under ASan and UBSan with any C compiler."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "tests" / "fuzz"
TARGETS = ("blob", "card", "link", "slot", "volume")
COMPILER = shlex.split(os.environ.get("CC", "")) or [
    shutil.which("cc") or shutil.which("clang") or ""
]
FLAGS = [
    "-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer", "-I", str(ROOT / "firmware" / "core" / "include"),
]  # fmt: skip

# Compiling takes its time; the run under sanitizers is the place where it always counts.
pytestmark = [
    pytest.mark.skipif(
        not shutil.which(COMPILER[0]), reason="needs a C compiler with ASan: apt-get install gcc"
    ),
    *([] if "DRIP_SANITIZED" in os.environ else [pytest.mark.slow]),
]


def compile_c(*arguments: str) -> None:
    """Run the compiler; its messages are the failure."""
    # A preloaded sanitizer is meant for the interpreter, not for the compiler.
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(
        [*COMPILER, *FLAGS, *arguments], capture_output=True, text=True, env=clean, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The core, compiled with sanitizers: a folder of objects."""
    folder = tmp_path_factory.mktemp("core")
    sources = sorted((ROOT / "firmware" / "core" / "src").rglob("*.c"))
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(compile_c, "-c", str(source), "-o", str(folder / f"{n}.o"))
            for n, source in enumerate(sources)
        ]
        for job in jobs:
            job.result()
    yield folder
    shutil.rmtree(folder)


def test_the_seeds_are_models_that_open() -> None:
    from nets import Engine

    for path in sorted((FUZZ / "corpus" / "blob").glob("seed-*")):
        assert Engine(path.read_bytes()).code == 0, f"{path.name}: run tests/fuzz/make_corpus.py"


def test_every_target_is_replayed() -> None:
    assert sorted(path.stem for path in FUZZ.glob("*.c")) == list(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_corpus(target: str, core: Path) -> None:
    program = core / target
    objects = [str(path) for path in sorted(core.glob("*.o"))]
    compile_c(
        str(FUZZ / f"{target}.c"), str(FUZZ / "replay" / "main.c"), *objects, "-o", str(program)
    )
    inputs = sorted(str(path) for path in (FUZZ / "corpus" / target).iterdir())
    assert len(inputs) >= 5
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "ASAN_OPTIONS")}
    environment["ASAN_OPTIONS"] = "detect_leaks=0"
    done = subprocess.run(
        [str(program), *inputs], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count(" bytes\n") == len(inputs)
