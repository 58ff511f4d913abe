"""What the front-end costs on a Cortex-M4 and on RV32IMC, and an inference on RV32.

Runs in QEMU (tests/ports/emulated.py): instructions, not cycles, the most of some windows of sound.
Features, tensors and scores are compared with the host core's; the command fails when one differs.

Usage: python tests/bench/frontend.py [--document docs/BENCHMARKS.md]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np

from drip.core import Model
from drip.frontend import LogMel

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "ports"))
from emulated import BENCH, CORE, emulate, text_bytes  # noqa: E402 - beside the tests of the ports

BEGIN = "<!-- tests/bench/frontend.py: begin -->\n"
END = "<!-- tests/bench/frontend.py: end -->"
FRONT_ENDS = {"16 kHz": LogMel(), "8 kHz": LogMel.at_rate(8000, 20)}
SOURCES = [CORE / "src" / name for name in ("frontend.c", "frontend_fft.c")]


def sounds(mel: LogMel) -> np.ndarray:
    """Windows: a tone, noise, full scale, a faint tone, silence."""
    rng = np.random.default_rng(2)
    t = np.arange(mel.window) / mel.sample_rate
    made = [
        20000 * np.sin(2 * np.pi * 440 * t),
        rng.normal(0, 3000, mel.window),
        np.where(rng.random(mel.window) < 0.5, -32768, 32767),
        np.round(3 * np.sin(2 * np.pi * 3000 * t)),
        np.zeros(mel.window),
    ]
    return np.array(made).astype("<i2")


def window_cost(target: str, mel: LogMel) -> int:
    """The most instructions of a window."""
    windows = sounds(mel)
    sources = [BENCH / "frontend.c", *SOURCES, CORE / "src" / "bytes.c"]
    with tempfile.TemporaryDirectory() as folder:
        lines = emulate(target, Path(folder), sources, mel.section(), windows.tobytes())
    told = [(int(w[2], 16), int(w[3], 16)) for w in lines if w[0] == "window"]
    wanted = [zlib.crc32(mel.features(samples.astype(np.int16)).tobytes()) for samples in windows]
    if [crc for _, crc in told] != wanted:
        sys.exit(f"error: features on {target} differ from the host core's")
    return max(spent for spent, _ in told)


def inference_cost(target: str, blob: bytes) -> int:
    """The most instructions of an inference."""
    model = Model(blob)
    frames = np.random.default_rng(0).integers(-128, 128, (3, *model.input_shape), np.int8)
    sources = [*CORE.glob("src/*.c"), *CORE.glob("src/kernels/*.c"), BENCH / "main.c"]
    sizes = ("-DBENCH_ARENA=65536", "-DBENCH_SCRATCH=8192")
    with tempfile.TemporaryDirectory() as folder:
        lines = emulate(target, Path(folder), sources, blob, frames.tobytes(), *sizes)
    told = {(int(w[1], 16), int(w[2], 16)): int(w[4], 16) for w in lines if w[0] == "op"}
    for number, frame in enumerate(frames):
        for op, (_, content) in enumerate(model.tensors(frame)):
            if told[number, op] != zlib.crc32(content.tobytes()):
                sys.exit(f"error: operator {op} on {target} differs from the host core's")
    return max(int(w[2], 16) for w in lines if w[0] == "infer")


def code_cost(target: str) -> int:
    """Bytes of code of the front-end."""
    with tempfile.TemporaryDirectory() as folder:
        return text_bytes(target, Path(folder), SOURCES)


def table() -> str:
    """All of it, as Markdown."""
    rows = [("", "Cortex-M4", "RV32IMC"), ("---", "---:", "---:")]
    for name, mel in FRONT_ENDS.items():
        cost = {target: window_cost(target, mel) for target in ("m4", "rv32")}
        what = f"log-mel at {name}: a window of {mel.window} samples"
        what += f" (FFT of {mel.fft} points, {mel.mels} bands)"
        rows.append((what, f"{cost['m4']:,}", f"{cost['rv32']:,}"))
        count = mel.windows(mel.sample_rate)
        times = [f"{count * cost[target] / 1e6:.1f} M" for target in ("m4", "rv32")]
        rows.append((f"its {count} windows of a second", *times))
        section = f"{len(mel.section()):,} B"
        rows.append(("its tables in the model", section, section))
        work = f"{4 * mel.fft:,} B"
        rows.append(("arena it works in, while no inference runs", work, work))
    code = [f"{code_cost(target):,} B" for target in ("m4", "rv32")]
    rows.append(("code of the front-end", *code))
    blob = (ROOT / "models" / "digits" / "model.drip").read_bytes()
    spent = [f"{inference_cost(target, blob):,}" for target in ("m4", "rv32")]
    rows.append(("an inference of `digits` (147,696 MACs; M4: DSP kernels)", *spent))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def main() -> None:
    """Print the table, or put it into a document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--document", type=Path, help="bring the table in this .md up to date")
    arguments = parser.parse_args()
    made = table()
    print(made, end="")
    if arguments.document is not None:
        before, _, rest = arguments.document.read_text().partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            sys.exit(f"error: {arguments.document} has no place for this table")
        arguments.document.write_text(before + BEGIN + made + END + after)


if __name__ == "__main__":
    main()
