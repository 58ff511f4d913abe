"""Put a lowered, planned model together as a blob."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from drip import __version__, wire
from drip.compile.blob import Part, pack_blob
from drip.compile.graph import Graph, read_graph
from drip.compile.head import (
    CamTables,
    Head,
    find_head,
    find_logits,
    make_tables,
    note_signs,
    pair_units,
)
from drip.compile.layouts import fast_requant
from drip.compile.lower import lower
from drip.compile.packing import pack_program
from drip.compile.plan import Plan, plan_arena
from drip.compile.program import NO_TENSOR, Program, Step, Value
from drip.data.scaling import InputScaling
from drip.errors import ModelError
from drip.tflite_file import read_metadata
from drip.wire import (
    BlobAffine,
    BlobCam,
    BlobCamLayer,
    BlobGolden,
    BlobHeader,
    BlobInput,
    BlobOp,
    BlobQuant,
    BlobTensor,
    CamHead,
    Dtype,
    GoldenFlag,
    OpFlag,
    Section,
)

META_VERSION = 1
GOLDEN_SEED = 1
GOLDEN_COUNT = 3
# Enough to catch calibration on training data without shipping a hash per training sample.
SKETCH_SIZE = 256
SKETCH_BYTES = 6
_WEIGHT_ALIGN = 16
_DTYPES = {"uint8": Dtype.U8, "int8": Dtype.I8, "int16": Dtype.I16}
_METADATA_USED = ("classes", "frame_dtype", "frame_shape", "scale", "offset", "version")


@dataclass(frozen=True)
class InputSpec:
    """What a model that carries no metadata of DRIP's expects.

    Attributes:
        scaling: From raw frames to the model's real input; None = the raw frames are what the
            model's input tensor holds.
        classes: Class names; None = "0", "1", ...
        frame_shape: Of a raw frame, when the scaling has a front-end: ``(samples,)`` or
            ``(samples, 1)``.
    """

    scaling: InputScaling | None = None
    classes: tuple[str, ...] | None = None
    frame_shape: tuple[int, ...] = ()


def compile_model(
    tflite: bytes,
    *,
    cam: bool = True,
    source_name: str = "",
    spec: InputSpec | None = None,
    training_hashes: Sequence[bytes] | None = None,
    parent: str = "",
) -> bytes:
    """Compile a full-int8 ``.tflite`` to a model blob.

    Args:
        tflite: Content of the file.
        cam: Require a Grad-CAM head; False compiles for inference only.
        source_name: File name, recorded in the blob.
        spec: Overrides what the file's metadata says about frames and classes.
        training_hashes: ``drip.data.sample_hashes`` of the training frames; a sketch of them is
            recorded so that calibration can refuse these frames.
        parent: Id (hex) of the model that this one replaces.

    Returns:
        The blob; same input, same bytes.

    Raises:
        ModelError: The file is damaged, or something in it is not supported; names it.
        MissingDependencyError: The compiled core is not installed.
    """
    graph = read_graph(tflite)
    metadata = read_metadata(tflite)
    program = lower(graph)
    logits = find_logits(program)
    head = find_head(program, logits) if cam else None
    if head is not None:
        program, head = note_signs(program, head)
    keep = {logits, *program.outputs}
    if head is not None:
        keep |= {head.features, *head.masks}
    program = pack_program(program)
    plan = plan_arena(program, tuple(keep))
    classes = _classes(program.values[logits], metadata, spec, cam)
    meta = _meta(metadata, source_name, parent, training_hashes)
    assembly = _Assembly(graph, program, plan, logits, head, classes)
    scaling = _scaling(graph, program, metadata, spec)
    if spec is not None and spec.frame_shape:
        assembly.frame_shape = spec.frame_shape
    else:
        assembly.frame_shape = tuple(int(n) for n in metadata.get("frame_shape", ()))
    parts = assembly.parts(scaling)
    header = assembly.header(hashlib.sha256(tflite).digest(), scaling)
    meta |= assembly.meta()
    tail = Part(Section.META, json.dumps(meta, sort_keys=True, separators=(",", ":")).encode(), 1)
    return _with_golden(header, parts, tail)


def _with_golden(header: BlobHeader, parts: list[Part], tail: Part) -> bytes:
    """Let the core itself say what it computes, and record that."""
    from drip.core import Model

    sound = any(part.kind == Section.FRONTEND for part in parts)

    def packed(digests: list[int]) -> bytes:
        content = BlobGolden(GOLDEN_SEED, GOLDEN_COUNT).pack()
        content += np.array(digests, "<u4").tobytes()
        flag = GoldenFlag.SOUND if sound else GoldenFlag.INPUT
        golden = Part(Section.GOLDEN, content, GOLDEN_COUNT, flag)
        return pack_blob(header, (*parts, golden, tail))

    model = Model(packed([0] * GOLDEN_COUNT))
    blob = packed([model.golden_digest(n) for n in range(GOLDEN_COUNT)])
    Model(blob).selftest()
    return blob


class _Assembly:
    def __init__(
        self,
        graph: Graph,
        program: Program,
        plan: Plan,
        logits: int,
        head: Head | None,
        classes: tuple[str, ...],
    ) -> None:
        self.graph = graph
        self.program = program
        self.plan = plan
        self.logits = logits
        self.head = head
        self.classes = classes
        self.data = bytearray()
        self.frame_shape: tuple[int, ...] = ()
        used = {program.input, logits, *program.outputs}
        for step in plan.steps:
            used.update((*step.reads, step.out))
        if head is not None:
            used.update((head.features, *head.masks))
        self.order = sorted(used, key=lambda i: (i < 0, abs(i)))
        self.number = {index: n for n, index in enumerate(self.order)}
        self.ops = [self._op(step) for step in plan.steps]
        if len(self.order) >= NO_TENSOR or len(self.ops) >= NO_TENSOR:
            raise ModelError("the model has too many tensors", "65534 are supported")

    def header(self, source_sha256: bytes, scaling: InputScaling) -> BlobHeader:
        bitmap = 0
        for step in self.plan.steps:
            bitmap |= 1 << int(step.kind)
        head = self.head
        return BlobHeader(
            op_bitmap=bitmap,
            arena_bytes=self._arena_bytes(scaling),
            source_sha256=source_sha256,
            class_count=len(self.classes),
            cam_head=CamHead.NONE if head is None else head.kind,
            input_tensor=self.number[self.program.input],
            logits_tensor=self.number[self.logits],
            features_tensor=NO_TENSOR if head is None else self.number[head.features],
        )

    def parts(self, scaling: InputScaling) -> list[Part]:
        tensors = b"".join(self._tensor(i) for i in self.order)
        parts = [
            Part(Section.TENSORS, tensors, len(self.order)),
            Part(Section.OPS, b"".join(op.pack() for op in self.ops), len(self.ops)),
            Part(Section.DATA, bytes(self.data), len(self.data)),
            _input_part(self._input(), self._frame_shape(scaling), scaling),
        ]
        if scaling.frontend is not None:
            parts.append(Part(Section.FRONTEND, scaling.frontend.section(), 1))
        if self.head is not None:
            parts.append(self._cam(self.head))
        if self.classes:
            names = [_short(name) for name in self.classes]
            content = b"".join(bytes([len(n)]) + n for n in names)
            parts.append(Part(Section.CLASSES, content, len(names)))
        return parts

    def meta(self) -> dict[str, Any]:
        return {
            "tensors": [
                {"index": i if i >= 0 else self.program.values[i].root,
                 "name": self.program.values[i].name}
                for i in self.order
            ],
            "live_bytes": self.plan.live_bytes,
            "outputs": [self.number[i] for i in self.program.outputs],
        }  # fmt: skip

    def _input(self) -> Value:
        return self.program.values[self.program.input]

    def _frame_shape(self, scaling: InputScaling) -> tuple[int, ...]:
        if scaling.frontend is None:
            shape = self.graph.tensors[self.graph.inputs[0]].shape[1:]
            return shape or (self._input().size,)
        features = scaling.input_shape(self.frame_shape or (0,))
        if int(np.prod(features)) != self._input().size:
            raise ModelError(
                f"the front-end makes {list(features)} features of a frame"
                f" {list(self.frame_shape)}, the model takes {self._input().size}",
                "convert the model with the front-end that it was trained with",
            )
        return self.frame_shape

    def _arena_bytes(self, scaling: InputScaling) -> int:
        """The front-end works behind the input, or before it (drip_nn_load)."""
        if scaling.frontend is None:
            return self.plan.arena_bytes
        at, work = self.plan.offsets[self.program.input], 4 * scaling.frontend.fft
        if work <= at:
            return self.plan.arena_bytes
        return max(self.plan.arena_bytes, -(-(at + self._input().size) // 16) * 16 + work)

    def _tensor(self, index: int) -> bytes:
        value = self.program.values[index]
        return BlobTensor(
            self.plan.offsets[index], value.size, value.h, value.w, value.c, 0,
            value.zero_point, float(value.scale),
        ).pack()  # fmt: skip

    def _append(self, content: bytes, align: int) -> int:
        self.data += bytes(-len(self.data) % align)
        offset = len(self.data)
        self.data += content
        return offset

    def _op(self, step: Step) -> BlobOp:
        fields = dict(step.fields)
        if step.weights is not None:
            fields["weights_offset"] = self._append(step.weights.tobytes(), _WEIGHT_ALIGN)
            fields["weights_bytes"] = step.weights.size
        if step.bias is not None:
            fields["bias_offset"] = self._append(step.bias.astype("<i4").tobytes(), 4)
            pairs = b"".join(BlobQuant(m, s).pack() for m, s in step.quant)
            fields["quant_offset"] = self._append(pairs, 4)
            shifts = np.array([shift for _, shift in step.quant], np.int32)
            if fast_requant(fields["clamp_min"], fields["clamp_max"], shifts):
                fields["flags"] = OpFlag.FAST_REQUANT
        for name, value in fields.items():
            limit = 32767 if name.startswith("pad") else 0xFFFFFFFF
            if value > limit or (name in _U16_FIELDS and value > 65535):
                raise ModelError(f"a layer's {name} of {value} is too large", "make it smaller")
        second = step.in1 if step.signs == NO_TENSOR else step.signs
        return BlobOp(
            kind=step.kind,
            in0=self.number[step.in0],
            in1=NO_TENSOR if second == NO_TENSOR else self.number[second],
            out=self.number[step.out],
            **fields,
        )

    def _cam(self, head: Head) -> Part:
        features = self.program.values[head.features]
        classes = self.program.values[self.logits].size
        if classes > wire.MAX_CLASSES:
            raise ModelError(
                f"a model with {classes} classes cannot have a Grad-CAM head",
                f"{wire.MAX_CLASSES} are supported; --no-cam compiles for inference only",
            )
        tables: CamTables = make_tables(head, features.positions)
        fixed = BlobCam(
            head=head.kind,
            classes=classes,
            channels=features.c,
            hidden=0 if head.hidden is None else len(tables.table),
            pixels=features.positions,
            shift=tables.shift,
            hidden_tensor=NO_TENSOR if head.hidden is None else self.number[head.hidden],
            uppers=len(head.uppers),
            scale=tables.weight_scale * float(features.scale),
        ).pack()
        for upper, (shift, matrix) in zip(head.uppers, tables.uppers, strict=True):
            fixed += BlobCamLayer(len(matrix), self.number[upper.active], shift).pack()
        table = tables.table if head.hidden is None else pair_units(tables.table)
        content = fixed + table.astype("<i2").tobytes() + tables.dense.tobytes()
        content += b"".join(matrix.tobytes() for _, matrix in tables.uppers)
        return Part(Section.CAM, content, 1)


_U16_FIELDS = (
    "kernel_h", "kernel_w", "stride_h", "stride_w", "dilation_h", "dilation_w", "depth_multiplier",
)  # fmt: skip


def _input_part(value: Value, shape: tuple[int, ...], scaling: InputScaling) -> Part:
    """The affine map from raw frames to the int8 input, in fixed point."""
    elements = int(np.prod(shape))
    if len(shape) > 4 or any(n > 65535 for n in shape):
        raise ModelError(f"a frame of shape {list(shape)} is not supported", "at most 4 axes")
    scales = np.atleast_1d(np.asarray(scaling.scale, np.float64))
    offsets = np.atleast_1d(np.asarray(scaling.offset, np.float64))
    count = max(len(scales), len(offsets))
    if count not in (1, value.c):
        raise ModelError(
            f"the input scaling has {count} channels, the model {value.c}", "give one per channel"
        )
    affine = b""
    for scale, offset in zip(
        np.broadcast_to(scales, count), np.broadcast_to(offsets, count), strict=True
    ):
        affine += _affine(float(scale), float(offset), value).pack()
    itemsize = np.dtype(scaling.dtype).itemsize
    if elements * itemsize > wire.MAX_FRAME_BYTES:
        raise ModelError(
            f"a frame of {elements * itemsize} bytes is too large",
            f"{wire.MAX_FRAME_BYTES} bytes are supported",
        )
    fixed = BlobInput(
        dtype=_DTYPES[scaling.dtype],
        rank=len(shape),
        channels=count,
        shape=(*shape, *(1,) * (4 - len(shape))),
        frame_bytes=elements * itemsize,
        scale=float(scales[0]),
        offset=float(offsets[0]),
    ).pack()
    return Part(Section.INPUT, fixed + affine, count)


def _affine(scale: float, offset: float, value: Value) -> BlobAffine:
    """Q = floor(raw * factor + start + 1/2) in fixed point, as precise as 32 bits allow."""
    factor = scale / float(value.scale)
    start = offset / float(value.scale) + value.zero_point + 0.5
    shift = 31
    while shift > 0 and abs(factor) * (1 << shift) >= (1 << 31) - 1:
        shift -= 1
    mult = round(factor * (1 << shift))
    if not mult or abs(mult) >= 1 << 31 or not abs(start) < 1 << 30:
        raise ModelError(
            f"the input scaling {scale:g} / {offset:g} does not fit the model's input",
            "the scaling must map raw frames to the range the model was quantised with",
        )
    return BlobAffine(mult, shift, math.floor(start * (1 << shift)))


def _scaling(
    graph: Graph, program: Program, metadata: dict[str, Any], spec: InputSpec | None
) -> InputScaling:
    if spec is not None and spec.scaling is not None:
        return spec.scaling
    if "frame_dtype" in metadata:
        scaling = InputScaling.from_json(metadata)
        if scaling.dtype not in _DTYPES:
            raise ModelError(f"frames of type {scaling.dtype} are not supported", "use integers")
        return scaling
    # Without metadata a frame is what the input tensor holds: uint8 as stored, else int8.
    outer = graph.tensors[graph.inputs[0]]
    if outer.dtype == "uint8" and len(outer.scales) == 1:
        scale, zero = float(outer.scales[0]), int(outer.zero_points[0])
        return InputScaling("uint8", scale, -scale * zero)
    value = program.values[program.input]
    scale = float(value.scale)
    return InputScaling("int8", scale, -scale * value.zero_point)


def _classes(
    logits: Value, metadata: dict[str, Any], spec: InputSpec | None, cam: bool
) -> tuple[str, ...]:
    names: tuple[str, ...] | None = None
    if spec is not None and spec.classes is not None:
        names = spec.classes
    elif "classes" in metadata:
        listed = metadata["classes"]
        if not isinstance(listed, list):
            raise ModelError("the model's class names are damaged", "convert the model again")
        names = tuple(str(n) for n in listed)
    if names is None or (cam and not names):
        many = logits.size > wire.MAX_CLASSES
        names = () if many else tuple(str(n) for n in range(logits.size))
    if not cam and spec is None and len(names) != logits.size:
        # An autoencoder: its outputs are no classes.
        return ()
    if names and len(names) != logits.size:
        raise ModelError(
            f"{len(names)} class names for {logits.size} logits", "give one name per logit"
        )
    if cam and not names:
        raise ModelError("the model has no classes", "--no-cam compiles for inference only")
    return names


def _short(name: str) -> bytes:
    """UTF-8 of at most 255 bytes, cut between characters."""
    return name.encode()[:255].decode("utf-8", "ignore").encode()


def sketch(hashes: Sequence[bytes]) -> str:
    """The smallest hashes of a set, so that a shared part of two sets shows; base64."""
    short = sorted({h[:SKETCH_BYTES] for h in hashes})[:SKETCH_SIZE]
    return base64.b64encode(b"".join(short)).decode()


def read_sketch(text: str) -> set[bytes]:
    """Undo :func:`sketch`."""
    raw = base64.b64decode(text)
    return {raw[i : i + SKETCH_BYTES] for i in range(0, len(raw), SKETCH_BYTES)}


def _meta(
    metadata: dict[str, Any],
    source_name: str,
    parent: str,
    training_hashes: Sequence[bytes] | None,
) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "version": META_VERSION,
        "source": source_name,
        "compiler": __version__,
        "provenance": {k: v for k, v in metadata.items() if k not in _METADATA_USED},
    }
    if parent:
        fields["parent"] = parent
    if training_hashes is not None:
        fields["training"] = {"samples": len(training_hashes), "sketch": sketch(training_hashes)}
    return fields
