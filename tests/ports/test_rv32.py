"""The core on RV32IMC, the instruction set of ESP32-C3: bit-exact, with instructions counted.

QEMU's machine `virt` runs the image; under ``-icount shift=0`` its register ``minstret`` counts
every instruction once. The front-end is measured on the emulated Cortex-M4 as well.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.core import Model
from drip.frontend import LogMel

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "firmware" / "core"
BENCH = ROOT / "tools" / "bench_m4"
FLAGS = ["-O2", "-std=c11", "-ffunction-sections", "-fdata-sections", "-fno-jump-tables"]
FLAGS += ["-fno-tree-switch-conversion", "-fno-tree-vectorize", "-nostartfiles", f"-I{BENCH}"]
FLAGS += [f"-I{CORE / 'include'}", "-Wl,--gc-sections"]
RV32 = ["riscv64-unknown-elf-gcc", "-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"]
RV32 += ["-mcmodel=medany", f"-T{ROOT / 'tools' / 'bench_rv32' / 'virt.ld'}"]
RV32 += ["-nostartfiles", str(ROOT / "tools" / "bench_rv32" / "board.c")]
RV32_RUN = ["qemu-system-riscv32", "-M", "virt", "-bios", "none"]
M4 = ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"]
M4 += [f"-T{BENCH / 'stm32f405.ld'}", str(BENCH / "board.c")]
M4_RUN = ["qemu-system-arm", "-M", "netduinoplus2", "-semihosting-config"]
M4_RUN += ["enable=on,target=native"]
TARGETS = {"rv32": (RV32, RV32_RUN), "m4": (M4, M4_RUN)}
PACKAGES = {
    "rv32": "gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc",
    "m4": "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
}


def emulate(
    target: str, folder: Path, sources: list[Path], model: bytes, inputs: bytes, *defines: str
) -> list[list[str]]:
    """Lines of words that the bench program printed."""
    compiler, emulator = TARGETS[target]
    if shutil.which(compiler[0]) is None or shutil.which(emulator[0]) is None:
        pytest.skip(f"needs {compiler[0]} and {emulator[0]}: apt install {PACKAGES[target]}")
    (folder / "model").write_bytes(model)
    (folder / "inputs").write_bytes(inputs)
    image = folder / "image.elf"
    files = [f'-DMODEL_FILE="{folder / "model"}"', f'-DINPUTS_FILE="{folder / "inputs"}"']
    named = [str(source) for source in [*sources, BENCH / "model.S"]]
    command = [*compiler, *FLAGS, *files, *defines, *named, "-o", str(image)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    command = [*emulator, "-display", "none", "-icount", "shift=0", "-monitor", "none"]
    command += ["-serial", "stdio", "-kernel", str(image)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[-1:] == [["end"]], done.stdout[-300:] + done.stderr[-300:]
    return lines


def test_the_reference_model_is_equal_on_rv32(tmp_path: Path) -> None:
    """Every tensor and score of the vectors that all targets share, and how many instructions."""
    blob = (ROOT / "models" / "digits" / "model.drip").read_bytes()
    vectors = json.loads((ROOT / "models" / "digits" / "vectors.json").read_text())
    model = Model(blob)
    cases = vectors["vectors"]
    raw = [np.frombuffer(base64.b64decode(case["frame"]), model.frame_dtype) for case in cases]
    frames = [model.quantise(frame.reshape(model.frame_shape)) for frame in raw]
    sources = [*CORE.glob("src/*.c"), *CORE.glob("src/kernels/*.c"), BENCH / "main.c"]
    inputs = b"".join(frame.tobytes() for frame in frames)
    sizes = ("-DBENCH_ARENA=65536", "-DBENCH_SCRATCH=8192")
    lines = emulate("rv32", tmp_path, sources, blob, inputs, *sizes)
    told = {}
    spent, scored = [], 0
    for words in lines:
        if words[0] == "op":
            told[int(words[1], 16), int(words[2], 16)] = int(words[4], 16)
        if words[0] == "infer":
            spent.append(int(words[2], 16))
        if words[0] == "score":
            got = np.uint32(int(words[3], 16)).astype(np.int32)
            assert got == cases[int(words[1], 16)]["scores"]["cam_evidence"]
            scored += 1
    for number, frame in enumerate(frames):
        for op, (_, content) in enumerate(model.tensors(frame)):
            assert told[number, op] == zlib.crc32(content.tobytes()), (number, op)
    assert len(spent) == scored == len(cases) > 0
    # 147,696 multiply-accumulates; no SIMD, so one instruction each would be a miracle.
    assert 147_696 < max(spent) < 1_400_000
    print(f"digits on rv32imc: {max(spent)} instructions")


@pytest.mark.parametrize("target", list(TARGETS))
def test_the_front_end_is_equal_and_fits_a_step(target: str, tmp_path: Path) -> None:
    mel = LogMel()
    rng = np.random.default_rng(2)
    t = np.arange(mel.window) / mel.sample_rate
    sound = [
        20000 * np.sin(2 * np.pi * 440 * t),
        rng.normal(0, 3000, mel.window),
        np.zeros(mel.window),
        np.where(rng.random(mel.window) < 0.5, -32768, 32767),
        np.round(3 * np.sin(2 * np.pi * 3000 * t)),
    ]
    windows = np.array(sound).astype("<i2")
    sources = [BENCH / "frontend.c"]
    sources += [CORE / "src" / name for name in ("frontend.c", "frontend_fft.c", "bytes.c")]
    lines = emulate(target, tmp_path, sources, mel.section(), windows.tobytes())
    told = [(int(w[2], 16), int(w[3], 16)) for w in lines if w[0] == "window"]
    assert len(told) == len(windows)
    for samples, (_, crc) in zip(windows, told, strict=True):
        assert crc == zlib.crc32(mel.features(samples.astype(np.int16)).tobytes())
    most = max(spent for spent, _ in told)
    # 5 ms: 100 MHz at two cycles per instruction, and 160 MHz. Silence costs next to nothing.
    assert 50_000 < most < {"m4": 250_000, "rv32": 300_000}[target]
    assert told[2][0] < 25_000
    print(f"front-end on {target}: {most} instructions for a window of {mel.fft} points")
