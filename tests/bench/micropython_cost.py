"""What DRIP costs under MicroPython, beside the C firmware: instructions, RAM, bytes.

    make micropython
    python tests/bench/micropython_cost.py [MODEL.drip ...]

Both run on a Cortex-M4F in QEMU with ``-icount shift=0``, where a timer counts instructions: one by
one in C, in steps of 40 in MicroPython (a timer of 25 MHz). The C firmware's share is the core with
the flags of ``drip bench engine`` and the calls that ``drip.Scorer`` makes. Every raw score is
compared with the host core's. The command fails when a frame needs over 5 % more instructions than
in C.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "micropython"))

from interpreters import build  # noqa: E402 - beside the tests
from mpy_boards import CORTEX_M4F, board_files, emulate  # noqa: E402 - beside the tests

from drip.bench import engine  # noqa: E402 - after the folders
from drip.core import Model  # noqa: E402 - after the folders

FRAMES = 4
ALLOWED = 1.05
_ICOUNT = ("-icount", "shift=0")
_STAGES = ("bytes", "frame*", "nn*", "kernels/*", "cam*", "score*", "policy*", "integer*")
# Of instructions, one tick of the timer that MicroPython reads.
_TICK = 40

_MEASURE = """
import gc, json
from time import ticks_cpu, ticks_diff
def used():
    gc.collect()
    return gc.mem_alloc()
out = {}
frames = [open("/rom/frame%d" % n, "rb").read() for n in range(FRAMES)]
empty = used()
begin = ticks_cpu()
import drip
imported = ticks_cpu()
scorer = drip.Scorer("/rom/model.drip")
scorer.score(frames[0])
first = ticks_cpu()
out["import"], out["first"] = imported - begin, first - begin
out["scorer_bytes"] = used()
del scorer
out["import_bytes"] = used() - empty
out["scorer_bytes"] -= empty + out["import_bytes"]
scorer = drip.Scorer("/rom/model.drip")
nothing = ticks_cpu()
nothing = ticks_cpu() - nothing
out["frames"] = rows = []
for frame in frames:
    begin = ticks_cpu()
    result = scorer.score(frame)
    rows.append((ticks_cpu() - begin - nothing, result.raw))
del scorer, result
before = used()
drip.Device
out["device_code_bytes"] = used() - before
before = used()
device = drip.Device("/rom/model.drip", link=drip.Link())
out["device_bytes"] = used() - before
print(json.dumps(out))
"""


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        model: Name.
        c: Instructions of a frame in C; the mean.
        python: The same under MicroPython, from the call of ``score()`` to its return.
        c_first: Instructions from reset to the first score in C.
        python_first: From the line ``import drip`` to the first score.
        python_import: Of these, for ``import drip``.
        import_bytes: RAM that ``import drip`` takes, by ``gc.mem_alloc``.
        scorer_bytes: RAM of a ``Scorer`` with the model in it.
        device_code_bytes: RAM of the code of ``drip.device``.
        device_bytes: RAM of a ``Device`` with the model in it.
        model_bytes: Of the model.
    """

    model: str
    c: float
    python: float
    c_first: int
    python_first: int
    python_import: int
    import_bytes: int
    scorer_bytes: int
    device_code_bytes: int
    device_bytes: int
    model_bytes: int

    @property
    def ratio(self) -> float:
        """Instructions of a frame under MicroPython per instruction in C."""
        return self.python / self.c


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def in_c(folder: Path, model: Path, frames: list[bytes]) -> tuple[list[tuple[int, int]], int]:
    """Return instructions and raw score of every frame, and instructions until the first score."""
    engine.check_tools()
    core, bench = ROOT / "firmware" / "core", ROOT / "tools" / "bench_m4"
    inputs, image = folder / "inputs.bin", folder / "frame.elf"
    inputs.write_bytes(b"".join(frames))
    sources = [path for stage in _STAGES for path in sorted((core / "src").glob(f"{stage}.c"))]
    sources += [bench / "board.c", bench / "model.S", Path(__file__).parent / "micropython_frame.c"]
    defines = {
        "BENCH_ARENA": engine.ARENA_BYTES,
        "BENCH_SCRATCH": 8192,
        "MODEL_FILE": f'"{model}"',
        "INPUTS_FILE": f'"{inputs}"',
    }
    command = [engine.COMPILER, *engine.FLAGS, f"-I{core / 'include'}", f"-I{core / 'src'}"]
    command += [f"-I{bench}", *(f"-D{name}={value}" for name, value in defines.items())]
    command += ["-nostartfiles", f"-T{bench / 'stm32f405.ld'}", "-Wl,--gc-sections"]
    _run([*command, *map(str, sources), "-o", str(image)])
    command = [engine.EMULATOR, "-machine", engine.MACHINE, *_ICOUNT, "-nographic"]
    command += ["-monitor", "none", "-serial", "stdio"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    lines = [line.split() for line in _run(command).splitlines()]
    found = [(line[0], [int(word, 16) for word in line[1:]]) for line in lines]
    rows = [(n[0], n[1] - (n[1] >> 31 << 32)) for kind, n in found if kind == "frame"]
    return rows, next(numbers[0] for kind, numbers in found if kind == "first")


def measure(model: Path, name: str = "") -> Cost:
    """Run a model in C and under MicroPython.

    Raises:
        AssertionError: A raw score differs from the host core's.
    """
    blob = model.read_bytes()
    host = Model(blob)
    rng = np.random.default_rng(0)
    shape, dtype = host.frame_shape, host.frame_dtype
    limits = np.iinfo(dtype)
    clips = rng.integers(limits.min, limits.max, (FRAMES, *shape), dtype, endpoint=True)
    wanted = [host.score(clip).raw for clip in clips]
    frames = [clip.tobytes() for clip in clips]
    with tempfile.TemporaryDirectory(prefix="drip-bench-") as scratch:
        folder = Path(scratch)
        rows, c_first = in_c(folder, model.resolve(), frames)
        files = {"model.drip": blob} | {f"frame{n}": frame for n, frame in enumerate(frames)}
        image = board_files(folder / "board", "armv7emsp", files)
        with emulate(CORTEX_M4F, image, folder, _ICOUNT) as board:
            said = json.loads(board.repl.run(_MEASURE.replace("FRAMES", str(FRAMES))))
    assert [raw for _, raw in rows] == wanted, "C"
    assert [raw for _, raw in said["frames"]] == wanted, "MicroPython"
    return Cost(
        name or model.parent.name,
        sum(count for count, _ in rows) / FRAMES,
        sum(ticks for ticks, _ in said["frames"]) * _TICK / FRAMES,
        c_first,
        said["first"] * _TICK,
        said["import"] * _TICK,
        said["import_bytes"],
        said["scorer_bytes"],
        said["device_code_bytes"],
        said["device_bytes"],
        len(blob),
    )


def table(costs: list[Cost]) -> str:
    """Return the costs as Markdown."""
    lines = [
        "| model | frame, C | MicroPython | ratio | first score, C | MicroPython |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {c.model} | {c.c:,.0f} | {c.python:,.0f} | {c.ratio:.3f} | {c.c_first:,} |"
        f" {c.python_first:,} |"
        for c in costs
    ]
    lines += ["", "| model | its bytes | `Scorer` | `Device` |", "|---|---:|---:|---:|"]
    lines += [
        f"| {c.model} | {c.model_bytes:,} | {c.scorer_bytes:,} | {c.device_bytes:,} |"
        for c in costs
    ]
    some = costs[0]
    lines += [
        "",
        f"`import drip`: {some.import_bytes:,} bytes of RAM, {some.python_import:,} instructions; "
        f"the code of `drip.Device`: {some.device_code_bytes:,} bytes.",
    ]
    return "\n".join(lines)


def sizes(folder: Path) -> str:
    """Return the bytes of every file of the package as Markdown."""
    files = [*sorted(folder.glob("*_6.3/*.mpy")), *sorted((folder / "drip").iterdir())]
    lines = ["| file | bytes |", "|---|---:|"]
    return "\n".join(lines + [f"| {path.name} | {path.stat().st_size:,} |" for path in files])


def main() -> int:
    """Print the tables; return 1 when a frame costs too much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path)
    models = parser.parse_args().models or [ROOT / "models" / "digits" / "model.drip"]
    costs = [measure(model) for model in models]
    print(table(costs), sizes(build.package()), sep="\n\n")
    broken = [cost.model for cost in costs if cost.ratio > ALLOWED]
    if broken:
        print(f"error: over {ALLOWED} of C: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
