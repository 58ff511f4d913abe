"""Count what an inference costs on a Cortex-M4F: instructions per operator, bytes of code and RAM.

The C core is compiled as a firmware would compile it, linked with one model into an image for
QEMU's ``netduinoplus2`` (STM32F405), and run under ``-icount shift=0``, where a timer of the
machine counts exactly one tick per instruction. The counts are the same on every run and machine;
they are instructions, not cycles. Every tensor's CRC-32 is compared with the host core's.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip import wire
from drip.bench.cycles import CyclePlugin, read_count
from drip.calibrate import MIN_CLASS_SAMPLES, calibrate
from drip.compile.blob import unpack_blob
from drip.core import Model
from drip.data import Dataset
from drip.errors import DataError, MissingDependencyError, ModelError, VerifyError
from drip.wire import Op, ScoreKind, Section

FLAGS = (
    "-O2",
    "-mcpu=cortex-m4",
    "-mthumb",
    "-mfpu=fpv4-sp-d16",
    "-mfloat-abi=hard",
    "-std=c11",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-jump-tables",
    "-fno-tree-switch-conversion",
    "-fno-tree-vectorize",
    "-DDRIP_FRONTEND=0",  # a stage of its own, measured on its own
)
COMPILER = "arm-none-eabi-gcc"
EMULATOR = "qemu-system-arm"
MACHINE = "netduinoplus2"
TIMEOUT_S = 300
VARIANTS = ("dsp", "portable")
# SMLAD: two multiply-accumulates in one instruction, nothing else.
LEAST_INSTRUCTIONS_PER_MAC = 0.5
# What inference needs; the other stages are not part of an engine.
_ENGINE = ("bytes.c", "frame.c", "nn*.c", "kernels/*.c")
_SCORING = ("cam*.c", "score*.c", "policy*.c", "integer*.c")
# The plugin that counts cycles takes memset for the engine's; setting up a policy calls another.
_ASIDE = ("-Dmemset=aside_memset",)
# Of 128 KiB; the rest is for the stack and the scratch of the score.
ARENA_BYTES = 104 * 1024
_SCRATCH_BYTES = 8 * 1024
# drip_thumb_t.
_PICTURE_BYTES = 28
# What the bench itself calls between operators is counted by one and not by the other.
_ESTIMATE_TOLERANCE = 0.02
_BETWEEN_OPERATORS = 200


@dataclass(frozen=True)
class OperatorCost:
    """One operator of a model.

    Attributes:
        index: Position in the blob.
        kind: Operator.
        shape: Of the output: height, width, channels.
        kernel: Height and width.
        macs: Multiply-accumulates, padded taps included.
        instructions: Of one inference; the mean over inputs.
    """

    index: int
    kind: str
    shape: tuple[int, int, int]
    kernel: tuple[int, int]
    macs: int
    instructions: float


@dataclass(frozen=True)
class EngineCost:
    """What a model costs on the target.

    Attributes:
        model: Name of the file.
        variant: Kernels: ``dsp`` or ``portable``.
        macs: Multiply-accumulates of the layers with weights.
        instructions: Of one inference; the mean over inputs.
        cycles: Of one inference, estimated (:mod:`drip.bench.cycles`); the mean over inputs.
        scoring_instructions: Of Grad-CAM, score and decision; the mean over inputs.
        selecting_instructions: The same with the redundancy rule on.
        text_bytes: Code of the engine with all operators.
        linked_text_bytes: Code of the engine that this model's operators need.
        constant_bytes: Section DATA: packed weights, biases, multipliers.
        least_constant_bytes: Weights and biases as the ``.tflite`` has them.
        arena_bytes: Working memory, scratch included.
        least_arena_bytes: Largest sum of tensors alive at the same time.
        stack_bytes: Deepest use of the stack.
        inputs: Number of inputs.
        compared: Tensors whose CRC-32 was equal to the host core's.
        operators: In order.
    """

    model: str
    variant: str
    macs: int
    instructions: float
    cycles: float
    scoring_instructions: float
    selecting_instructions: float
    text_bytes: int
    linked_text_bytes: int
    constant_bytes: int
    least_constant_bytes: int
    arena_bytes: int
    least_arena_bytes: int
    stack_bytes: int
    inputs: int
    compared: int
    operators: tuple[OperatorCost, ...]

    @property
    def instructions_per_mac(self) -> float:
        """Instructions of a whole inference per multiply-accumulate."""
        return self.instructions / self.macs

    @property
    def least_instructions(self) -> float:
        """No Cortex-M4 does better than two multiply-accumulates per instruction."""
        return self.macs * LEAST_INSTRUCTIONS_PER_MAC

    @property
    def scoring_share(self) -> float:
        """Grad-CAM, score and decision as a share of inference."""
        return self.scoring_instructions / self.instructions

    @property
    def selecting_share(self) -> float:
        """The same with the redundancy rule on."""
        return self.selecting_instructions / self.instructions

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return dataclasses.asdict(self) | {
            "instructions_per_mac": round(self.instructions_per_mac, 4),
            "least_instructions": self.least_instructions,
            "scoring_share": round(self.scoring_share, 5),
            "selecting_share": round(self.selecting_share, 5),
        }


def checkout() -> Path:
    """The source tree: an installed package carries neither the C core nor the bench image.

    Raises:
        DataError: This package does not lie in a checkout.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "tools" / "bench_m4" / "main.c").is_file():
        raise DataError("the bench needs the C sources", "run it in a checkout: make setup")
    return root


def check_tools() -> None:
    """Make sure that cross compiler and emulator are there.

    Raises:
        MissingDependencyError: One is not.
    """
    for tool, package in ((COMPILER, "gcc-arm-none-eabi"), (EMULATOR, "qemu-system-arm")):
        if shutil.which(tool) is None:
            raise MissingDependencyError(f"{tool} is not installed", f"apt install {package}")


def measure(
    blobs: dict[str, bytes],
    *,
    variants: Sequence[str] = VARIANTS,
    inputs: int = 1,
    seed: int = 0,
) -> list[EngineCost]:
    """Run models on the emulated target.

    Args:
        blobs: Content of ``.drip`` files by name.
        variants: Kernels to measure.
        inputs: Random inputs per model.
        seed: Of the inputs.

    Raises:
        VerifyError: A tensor differs from the host core's.
        ModelError: The target refuses a model or has too little memory for it.
        MissingDependencyError: Cross compiler, emulator or compiled core are missing.
        DataError: Not in a checkout.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="drip-bench-") as folder:
        for variant in variants:
            target = Target(Path(folder) / variant, variant)
            results += [target.measure(n, blob, inputs, seed) for n, blob in blobs.items()]
    return results


_WITH_WEIGHTS = (Op.CONV_2D.name, Op.DEPTHWISE_CONV_2D.name, Op.FULLY_CONNECTED.name)


def _blob_ops(blob: bytes) -> tuple[list[wire.BlobOp], list[wire.BlobTensor]]:
    parts = unpack_blob(blob)
    ops, tensors = parts.find(Section.OPS), parts.find(Section.TENSORS)
    assert ops is not None and tensors is not None
    return (
        [wire.BlobOp.unpack(ops.content, n * wire.BlobOp.SIZE) for n in range(ops.count)],
        [
            wire.BlobTensor.unpack(tensors.content, n * wire.BlobTensor.SIZE)
            for n in range(tensors.count)
        ],
    )


def _operators(blob: bytes, run: _Run, inputs: int) -> tuple[OperatorCost, ...]:
    ops, tensors = _blob_ops(blob)
    spent = [0] * len(ops)
    for (_, index), (instructions, _crc) in run.ops.items():
        spent[index] += instructions
    return tuple(
        OperatorCost(
            index,
            Op(op.kind).name,
            (tensors[op.out].h, tensors[op.out].w, tensors[op.out].c),
            (op.kernel_h, op.kernel_w),
            op.macs,
            spent[index] / inputs,
        )
        for index, op in enumerate(ops)
    )


def _least_constants(blob: bytes) -> int:
    """Weights as plain int8 and biases as int32, without padding or multipliers."""
    ops, tensors = _blob_ops(blob)
    total = 0
    for op in ops:
        out = tensors[op.out]
        if op.kind == Op.DEPTHWISE_CONV_2D:
            total += op.kernel_h * op.kernel_w * out.c + 4 * out.c
        elif op.kind == Op.CONV_2D:
            total += op.kernel_h * op.kernel_w * tensors[op.in0].c * out.c + 4 * out.c
        elif op.kind == Op.FULLY_CONNECTED:
            total += tensors[op.in0].size * out.size + 4 * out.size
    return total


def _compare(name: str, model: Model, frames: NDArray[np.int8], run: _Run) -> int:
    ops, _ = _blob_ops(model.blob)
    # A CONCATENATION is several COPYs into one tensor, whole after the last one.
    complete = {op.out: index for index, op in enumerate(ops)}
    for number, frame in enumerate(frames):
        for index, (tensor, content) in enumerate(model.tensors(frame)):
            if index != complete[tensor]:
                continue
            expected = zlib.crc32(content.tobytes())
            if run.ops[number, index][1] != expected:
                raise VerifyError(
                    f"{name}: tensor {tensor} of operator {index} differs on the target",
                    "the kernels of the target are not bit-exact: report this",
                )
    kind = _kind(model)
    # The host refuses to score what has no two classes; the board's answer to it means nothing.
    scored = run.raws.items() if model.header.class_count >= 2 else ()
    for number, raw in scored:
        if raw != model.score(frames[number], kind, quantised=True).raw:
            raise VerifyError(
                f"{name}: the score of input {number} differs on the target",
                "Grad-CAM on the target is not bit-exact: report this",
            )
    for number, crc in run.looks.items():
        cells = model.thumbnail(frames[number], quantised=True).tobytes()
        if crc != zlib.crc32(cells.ljust(_PICTURE_BYTES, b"\0")):
            raise VerifyError(
                f"{name}: the picture of input {number} differs on the target",
                "the redundancy rule on the target is not bit-exact: report this",
            )
    return len(complete) * len(frames)


def _calibrated(blob: bytes) -> bytes:
    """The model as a board runs it: percentiles are looked up, and that costs something."""
    model = Model(blob)
    if model.header.class_count < 2:
        return blob
    rng = np.random.default_rng(0)
    shape = (MIN_CLASS_SAMPLES, *model.frame_shape)
    if model.frame_dtype.kind == "f":
        x = rng.normal(size=shape).astype(model.frame_dtype)
    else:
        limits = np.iinfo(model.frame_dtype)
        x = rng.integers(limits.min, limits.max, shape, model.frame_dtype, endpoint=True)
    data = Dataset(x, np.zeros(len(x), np.int64), unpack_blob(blob).classes())
    kind = _kind(model)
    return calibrate(blob, data, target_ratio=0.3, force=True, kinds=[kind]).blob


def _kind(model: Model) -> ScoreKind:
    return ScoreKind.CAM_EVIDENCE if model.has_cam else ScoreKind.MARGIN


class Target:
    """The core compiled for the target with one variant of kernels.

    Args:
        folder: A new folder for objects and images.
        variant: ``dsp`` or ``portable``.

    Raises:
        MissingDependencyError: Cross compiler or emulator are missing.
        DataError: Not in a checkout.
    """

    def __init__(self, folder: Path, variant: str) -> None:
        check_tools()
        self.root = checkout()
        self.folder = folder
        self.variant = variant
        folder.mkdir(parents=True)
        self.flags = [*FLAGS, f"-I{self.root / 'firmware' / 'core' / 'include'}"]
        if variant == "portable":
            self.flags.append("-DDRIP_PORTABLE")
        self.engine = [self._object(source) for source in self._sources(_ENGINE)]
        bench = self.root / "tools" / "bench_m4"
        sizes = [f"-DBENCH_ARENA={ARENA_BYTES}", f"-DBENCH_SCRATCH={_SCRATCH_BYTES}"]
        self.objects = [
            *(path for path in self.engine if path.stem != "dispatch"),
            *(
                self._object(source, _ASIDE if source.stem == "policy" else ())
                for source in self._sources(_SCORING)
            ),
            *(self._object(bench / name, sizes) for name in ("board.c", "main.c")),
        ]

    def measure(self, name: str, blob: bytes, inputs: int = 1, seed: int = 0) -> EngineCost:
        """Run one model.

        Args:
            name: Of the model.
            blob: Content of a ``.drip``.
            inputs: Random inputs.
            seed: Of the inputs.

        Raises:
            VerifyError: A tensor differs from the host core's.
            ModelError: The target refuses the model or has too little memory for it.
        """
        rng = np.random.default_rng(seed)
        blob = _calibrated(blob)
        model = Model(blob)
        frames = rng.integers(-128, 128, (inputs, *model.input_shape), np.int8)
        image, linked = self._link(name, blob, frames, model.arena_bytes)
        count = image.with_suffix(".cycles")
        plugin = self._cycles.arguments(self._inference(image), count)
        run = _Run.parse(name, _emulate(image, plugin))
        compared = _compare(name, model, frames, run)
        operators = _operators(blob, run, inputs)
        counted, timed = read_count(count), sum(run.totals)
        between = len(run.ops) + inputs
        allowed = _ESTIMATE_TOLERANCE * timed + _BETWEEN_OPERATORS * between
        if abs(counted.instructions - timed) > allowed:
            raise VerifyError(
                f"{name}: the timer counts {timed} instructions, the plugin {counted.instructions}",
                "the estimate of cycles counts other functions than the timer: report this",
            )
        data = unpack_blob(blob).find(Section.DATA)
        return EngineCost(
            model=name,
            variant=self.variant,
            macs=sum(o.macs for o in operators if o.kind in _WITH_WEIGHTS),
            instructions=sum(run.totals) / inputs,
            cycles=counted.cycles / inputs,
            scoring_instructions=sum(run.scores) / inputs,
            selecting_instructions=sum(run.selected) / inputs,
            text_bytes=self.text_bytes,
            linked_text_bytes=linked,
            constant_bytes=0 if data is None else len(data.content),
            least_constant_bytes=_least_constants(blob),
            arena_bytes=model.arena_bytes,
            least_arena_bytes=int(model.meta["live_bytes"]),
            stack_bytes=max(run.stacks),
            inputs=inputs,
            compared=compared,
            operators=operators,
        )

    @functools.cached_property
    def _cycles(self) -> CyclePlugin:
        return CyclePlugin(self.root, self.folder, EMULATOR)

    def _inference(self, image: Path) -> list[tuple[int, int]]:
        """Address and size of the functions that run between the start and end of an inference."""
        scoring = {source.stem for source in self._sources(_SCORING)}
        outside = {
            name
            for path in self.objects
            if path.stem in {"bytes", "frame", "nn_load", "nn_open"} | scoring
            for name, _, _ in _functions(path)
        }
        return [
            (start, size)
            for name, start, size in _functions(image)
            if name not in outside and (not _OTHER.match(name) or name.startswith("mem"))
        ]

    def _sources(self, patterns: Sequence[str]) -> list[Path]:
        source = self.root / "firmware" / "core" / "src"
        return sorted({path for pattern in patterns for path in source.glob(pattern)})

    def _object(self, source: Path, defines: Sequence[str] = (), name: str = "") -> Path:
        target = self.folder / f"{name or source.stem}.o"
        if not target.exists():
            _tool([COMPILER, *self.flags, *defines, "-c", str(source), "-o", str(target)])
        return target

    @functools.cached_property
    def text_bytes(self) -> int:
        """Code of the engine with all operators, not linked."""
        return sum(_text(path) for path in self.engine)

    def _link(
        self, name: str, blob: bytes, frames: NDArray[np.int8], arena: int
    ) -> tuple[Path, int]:
        """The image of a model, and the code of the engine that is in it."""
        if arena > ARENA_BYTES:
            raise ModelError(
                f"{name} needs an arena of {arena} bytes", f"{MACHINE} has {ARENA_BYTES} to spare"
            )
        bench = self.root / "tools" / "bench_m4"
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        model, inputs = folder / "model.bin", folder / "inputs.bin"
        model.write_bytes(blob)
        inputs.write_bytes(frames.tobytes())
        # The dispatcher alone decides which kernels are linked.
        source = self.root / "firmware" / "core" / "src" / "kernels" / "dispatch.c"
        bitmap = wire.BlobHeader.unpack(blob).op_bitmap
        dispatch = self._object(source, [f"-DDRIP_OPS={bitmap}u"], f"dispatch-{bitmap:x}")
        image = folder / "image.elf"
        _tool(
            [
                COMPILER, *self.flags, f'-DMODEL_FILE="{model}"', f'-DINPUTS_FILE="{inputs}"',
                str(bench / "model.S"), str(dispatch), *(str(o) for o in self.objects),
                "-nostartfiles", f"-T{bench / 'stm32f405.ld'}", "-Wl,--gc-sections",
                "-o", str(image),
            ]
        )  # fmt: skip
        return image, _linked_text(image)


# Functions in an image that are not the engine: other stages, the bench itself, the C library.
_OTHER = re.compile(
    r"drip_(cam|score|policy)_|drip_nn_section$|drip_log2$|board_|aside_memset"
    r"|(main|reset|fault|run|score|look|decide|policy_start|stack_used|mem\w+)$|__"
)


def _functions(image: Path) -> list[tuple[str, int, int]]:
    """Name, address and size in bytes of every function of an image or object."""
    fields = [
        line.split()
        for line in _tool(["arm-none-eabi-nm", "--print-size", str(image)]).splitlines()
    ]
    return [(f[3], int(f[0], 16), int(f[1], 16)) for f in fields if len(f) == 4 and f[2] in "tT"]


def _linked_text(image: Path) -> int:
    """Bytes of the engine's functions in an image."""
    return sum(size for name, _, size in _functions(image) if not _OTHER.match(name))


def _text(path: Path) -> int:
    fields = _tool(["arm-none-eabi-size", str(path)]).splitlines()[1].split()
    return int(fields[0])


def _tool(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise DataError(f"{Path(command[0]).name}: {lines[0].strip()}", "is the checkout whole?")
    return done.stdout


def _emulate(image: Path, plugin: Sequence[str] = ()) -> str:
    command = [EMULATOR, *plugin, "-machine", MACHINE, "-nographic", "-icount", "shift=0"]
    command += ["-monitor", "none", "-serial", "stdio"]
    command += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
            env={**os.environ, "QEMU_AUDIO_DRV": "none"},
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(
            f"the emulated target did not finish in {TIMEOUT_S} s", "measure fewer inputs"
        ) from error
    return done.stdout


@dataclass(frozen=True)
class _Run:
    """What the image printed."""

    ops: dict[tuple[int, int], tuple[int, int]]
    totals: list[int]
    scores: list[int]
    selected: list[int]
    raws: dict[int, int]
    looks: dict[int, int]
    stacks: list[int]

    @classmethod
    def parse(cls, name: str, output: str) -> _Run:
        run = cls({}, [], [], [], {}, {}, [])
        ended = False
        for line in output.splitlines():
            kind, *numbers = line.split()
            values = [int(n, 16) for n in numbers] if kind != "fault" else []
            if kind == "open" and values[0] != 0:
                code = wire.Err(values[0] - (1 << 32)).name
                raise ModelError(f"the target refuses {name}: {code}", "compile it again")
            if kind == "op":
                run.ops[values[0], values[1]] = values[2], values[3]
            elif kind == "infer":
                run.totals.append(values[1])
            elif kind == "score":
                run.scores.append(values[1])
                run.raws[values[0]] = values[2] - (values[2] >> 31 << 32)
            elif kind == "select":
                run.selected.append(values[1])
            elif kind == "look":
                run.looks[values[0]] = values[1]
            elif kind == "stack":
                run.stacks.append(values[0])
            ended |= kind == "end"
        if not ended:
            raise DataError(f"{name}: the emulated target crashed", "report this with the model")
        return run
