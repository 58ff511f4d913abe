"""How much a lossless codec saves on sensor frames, and what it costs on a Cortex-M4.

Two codecs that a small board could hold, frame by frame, without any state between frames:

- delta + Rice: every element is predicted by its left neighbour of the same channel (``left``), or
  by the median of left, above and left + above - corner (``median``; LOCO-I, Weinberger, Seroussi,
  Sapiro 2000); differences modulo 2^bits, zigzag, in blocks of 16 with one Rice parameter each
  (4 bits; 15 = all zero; quotients from 16 on as plain values).
- LZ: heatshrink's format (one tag bit; literal of 8 bits, or distance of ``window`` and length of 4
  bits), greedy.

Sizes are computed here, exactly; zlib -9 shows what there is to get. Instructions of delta + Rice
come from tests/bench/codec.c in QEMU, which must give the same sizes. A record's header of 64 bytes
is not part of any figure.

Usage: python tests/bench/codec.py FOLDER [--frames N] [--no-emulator]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
BLOCK, LIMIT, ALL_ZERO_BITS = 16, 16, 4


@dataclass(frozen=True)
class Source:
    """Frames of one kind, and the net of tests/bench/engine.json that would infer on them."""

    name: str
    file: str
    key: str
    net: str
    share: float = 1.0  # of that net's instructions, for frames smaller than its input


SOURCES = (
    Source("MNIST 28x28", "mnist.npz", "x_test", ""),
    Source("CIFAR-10 32x32x3", "cifar10_tiny_jpegpack.npz", "x_test", "resnet8"),
    Source("PlantVillage 48x48x3", "plantvillage12_48px.npz", "x_test", "mobilenet", 0.25),
    Source("PlantVillage 16x16x3", "plantvillage12_16px_tiny.npz", "x_test", "digits", 1.0),
    Source("speech mels 49x40", "speech_commands_bed_cat_happy.npz", "x_test", "ds-cnn-49x40"),
    Source(
        "speech int16, 1 s", "speech_commands_bed_cat_happy.npz", "raw_int16_16k", "ds-cnn-49x40"
    ),
    Source("IMU 50x6 int16", "phone_watch_har_imu50hz.npz", "x_test", "imu-50x6"),
)


def load(folder: Path, source: Source) -> np.ndarray[Any, Any]:
    """Frames ``[N, ...]`` as captured."""
    path = folder / source.file
    if "jpegpack" in source.file:
        spec = importlib.util.spec_from_file_location("pack", folder / "cifar10_jpegpack.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return np.asarray(module.load(path)[source.key])
    return np.asarray(np.load(path)[source.key])


def residuals(frames: np.ndarray[Any, Any], median: bool) -> np.ndarray[Any, Any]:
    """Zigzag differences ``[N, elements]`` of frames ``[N, ...]``."""
    count = len(frames)
    flat = frames.reshape(count, -1).astype(np.int64)
    step = 1 if frames.ndim == 2 else frames.shape[-1]
    guess = np.zeros_like(flat)
    guess[:, step:] = flat[:, :-step]
    if median:
        row = frames.shape[2] * step
        left, above = flat[:, row:-step], flat[:, step:-row]
        corner = flat[:, : -row - step]
        low, high = np.minimum(left, above), np.maximum(left, above)
        med = np.where(corner >= high, low, np.where(corner <= low, high, left + above - corner))
        guess[:, row + step :] = med
    bits = frames.dtype.itemsize * 8
    d = (flat - guess + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
    return np.where(d >= 0, 2 * d, -2 * d - 1)


def rice_bytes(frames: np.ndarray[Any, Any], median: bool) -> np.ndarray[Any, Any]:
    """Bytes of each frame by delta + Rice."""
    found = residuals(frames, median)
    bits = frames.dtype.itemsize * 8
    total = np.zeros(len(found), np.int64)
    for at in range(0, found.shape[1], BLOCK):
        block = found[:, at : at + BLOCK]
        mean = block.sum(axis=1) * 11 >> 8
        k = np.minimum(np.array([int(m).bit_length() for m in mean]), 14)[:, None]
        q = block >> k
        cost = np.where(q < LIMIT, q + 1 + k, LIMIT + bits).sum(axis=1)
        total += ALL_ZERO_BITS + np.where(block.any(axis=1), cost, 0)
    return (total + 7) // 8


def lz_bytes(data: bytes, window: int, length: int = 4) -> int:
    """Bytes of one frame by greedy LZ in heatshrink's format."""
    bits = at = 0
    least = (1 + window + length) // 9 + 1
    while at < len(data):
        start, best = max(0, at - (1 << window)), 0
        while best < min(1 << length, len(data) - at):
            # Matches may overlap what they produce, as in any LZ77.
            if data.find(data[at : at + best + 1], start, at + best) < 0:
                break
            best += 1
        if best >= least:
            bits += 1 + window + length
            at += best
        else:
            bits += 9
            at += 1
    return (bits + 7) // 8


def counted(frames: np.ndarray[Any, Any], median: bool, sizes: np.ndarray[Any, Any]) -> float:
    """Mean instructions per frame in QEMU, whose sizes must be ours."""
    step = 1 if frames.ndim == 2 else frames.shape[-1]
    row = frames.shape[2] * step if median else 0
    head = struct.pack("<5I", len(frames), frames[0].size, frames.dtype.itemsize, step, row)
    bench = ROOT / "tools" / "bench_m4"
    with tempfile.TemporaryDirectory() as folder:
        inputs, image = Path(folder) / "inputs.bin", Path(folder) / "image.elf"
        inputs.write_bytes(head + frames.tobytes())
        flags = ["-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard", "-O2"]
        command = [
            "arm-none-eabi-gcc", *flags, "-std=gnu11", "-ffreestanding", f"-I{bench}",
            f'-DMODEL_FILE="{inputs}"', f'-DINPUTS_FILE="{inputs}"',
            str(Path(__file__).with_suffix(".c")), str(bench / "board.c"), str(bench / "model.S"),
            "-nostartfiles", f"-T{bench / 'stm32f405.ld'}", "-o", str(image), "-lgcc", "-lc_nano",
        ]  # fmt: skip
        subprocess.run(command, check=True)
        emulate = [
            "qemu-system-arm", "-machine", "netduinoplus2", "-nographic", "-icount", "shift=0",
            "-monitor", "none", "-serial", "stdio", "-semihosting-config",
            "enable=on,target=native", "-kernel", str(image),
        ]  # fmt: skip
        done = subprocess.run(
            emulate, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
        )
    rows = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("frame")]
    assert [int(size, 16) for _, size in rows] == list(sizes[: len(frames)]), "sizes differ"
    return float(np.mean([int(spent, 16) for spent, _ in rows]))


def measure(folder: Path, wanted: int, emulator: bool) -> Iterator[tuple[str, ...]]:
    """One row per source and codec."""
    engine = json.loads((ROOT / "tests" / "bench" / "engine.json").read_text())
    for source in SOURCES:
        frames = load(folder, source)
        frames = frames[np.random.default_rng(1).permutation(len(frames))[:wanted]]
        plain = frames[0].nbytes
        raw = [frame.tobytes() for frame in frames]
        variants = [("left + Rice", False)]
        if frames.ndim == 4:
            variants.append(("median + Rice", True))
        for name, median in variants:
            sizes = rice_bytes(frames, median)
            spent = share = "-"
            if emulator:
                # 600 KiB of flash take so many frames.
                few = max(1, min(20, 200_000 // plain))
                mean = counted(frames[:few], median, sizes)
                spent = f"{mean:,.0f}"
                if source.net:
                    share = f"{100 * mean / (engine[source.net + '/dsp'] * source.share):.1f}%"
            yield source.name, name, f"{100 * (1 - sizes.mean() / plain):.1f}%", spent, share
        lz = frames[: min(len(raw), 40)]
        for window in (8, 11):
            mean = np.mean([lz_bytes(frame.tobytes(), window) for frame in lz])
            yield (
                source.name,
                f"LZ, window {1 << window}",
                f"{100 * (1 - mean / plain):.1f}%",
                "-",
                "-",
            )
        mean = np.mean([len(zlib.compress(data, 9)) for data in raw])
        yield source.name, "zlib -9", f"{100 * (1 - mean / plain):.1f}%", "-", "-"


def main() -> int:
    """Print the table of docs/BENCHMARKS.md."""
    parser = argparse.ArgumentParser(description="Measure lossless codecs on sensor frames.")
    parser.add_argument("folder", type=Path, help="data sets, as .npz files")
    parser.add_argument("--frames", type=int, default=200, help="of each set (default: 200)")
    parser.add_argument("--no-emulator", action="store_true", help="sizes only")
    asked = parser.parse_args()
    print("| frames | codec | saved | instructions per frame | of an inference |")
    print("|---|---|---:|---:|---:|")
    for row in measure(asked.folder, asked.frames, not asked.no_emulator):
        print("| " + " | ".join(row) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
