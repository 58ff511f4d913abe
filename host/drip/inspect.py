"""What is inside a model blob: layers, sizes, arena, head, calibration. Needs no compiled core."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drip import wire
from drip.compile.blob import Blob, unpack_blob
from drip.errors import ModelError
from drip.wire import (
    BlobCalibration,
    BlobCam,
    BlobInput,
    BlobOp,
    BlobTensor,
    CamHead,
    Dtype,
    Layout,
    Op,
    ScoreKind,
    Section,
)

if TYPE_CHECKING:
    from rich.console import Console

_NO_TENSOR = 65535
_WEIGHTED = (Op.CONV_2D, Op.DEPTHWISE_CONV_2D, Op.FULLY_CONNECTED)
STEP_MACS = 300_000  # of one step of the device (firmware/core/src/device_internal.h)
_CONV_COLUMNS = 4  # output positions that the DSP convolution computes together
_DENSE_ROWS = 4  # outputs of a unit of a dense layer
_QUANT_BYTES = 12  # bias, multiplier and shift of an output channel


@dataclass(frozen=True)
class TensorInfo:
    """A tensor: where it lies in the arena, and when (first and last operator that touch it)."""

    name: str
    shape: tuple[int, int, int]
    arena_offset: int
    size: int
    first_op: int
    last_op: int


@dataclass(frozen=True)
class LayerInfo:
    """An operator.

    Attributes:
        kind: Name of the operator.
        name: Of the tensor it writes.
        output: Height, width, channels.
        macs: Multiply-accumulates, padding included; 0 for operators without weights.
        constant_bytes: Weights, biases and multipliers.
        arena_bytes: Of input, output and scratch together.
        layout: Weight layout.
        unit_macs: Of the smallest piece that the engine can stop after; 0 without weights.
    """

    kind: str
    name: str
    output: tuple[int, int, int]
    macs: int
    constant_bytes: int
    arena_bytes: int
    layout: int
    unit_macs: int


@dataclass(frozen=True)
class CalibrationInfo:
    """A calibration section: the share to keep, and the threshold per class (0..65535)."""

    kind: str
    samples: int
    target_ratio: float
    thresholds: tuple[int, ...]


@dataclass(frozen=True)
class BlobInfo:
    """A model blob, described."""

    model_id: str
    source_sha256: str
    source: str
    total_bytes: int
    constant_bytes: int
    arena_bytes: int
    live_bytes: int
    macs: int
    frame_dtype: str
    frame_shape: tuple[int, ...]
    frame_scale: float
    frame_offset: float
    classes: tuple[str, ...]
    cam_head: str
    features: tuple[int, int, int] | None
    hidden: int
    operators: tuple[str, ...]
    golden_inputs: int
    layers: tuple[LayerInfo, ...]
    tensors: tuple[TensorInfo, ...]
    calibration: tuple[CalibrationInfo, ...]
    provenance: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return dataclasses.asdict(self)


def inspect_blob(content: bytes) -> BlobInfo:
    """Describe a blob.

    Raises:
        ModelError: Not a blob, another version, or damaged.
    """
    blob = unpack_blob(content)
    try:
        return _describe(blob)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ModelError(
            f"the blob's sections contradict each other ({error})", "compile the model again"
        ) from error


def _need(blob: Blob, kind: Section) -> bytes:
    part = blob.find(kind)
    if part is None:
        raise ValueError(f"no {kind.name} section")
    return part.content


def _describe(blob: Blob) -> BlobInfo:
    header, meta = blob.header, blob.meta()
    raw_ops, raw_tensors = _need(blob, Section.OPS), _need(blob, Section.TENSORS)
    ops = [BlobOp.unpack(raw_ops, n) for n in range(0, len(raw_ops), BlobOp.SIZE)]
    tensors = [
        BlobTensor.unpack(raw_tensors, n) for n in range(0, len(raw_tensors), BlobTensor.SIZE)
    ]
    names = [str(t.get("name", "")) for t in meta.get("tensors", [])]
    names += [""] * (len(tensors) - len(names))
    frame = BlobInput.unpack(_need(blob, Section.INPUT))
    cam = blob.find(Section.CAM)
    golden = next((part for part in blob.parts if part.kind == Section.GOLDEN), None)
    layers = tuple(_layer(op, tensors, names) for op in ops)
    has_features = header.features_tensor != _NO_TENSOR
    return BlobInfo(
        model_id=header.model_id.hex(),
        source_sha256=header.source_sha256.hex(),
        source=str(meta.get("source", "")),
        total_bytes=header.total_bytes,
        constant_bytes=len(_need(blob, Section.DATA)),
        arena_bytes=header.arena_bytes,
        live_bytes=int(meta.get("live_bytes", 0)),
        macs=sum(layer.macs for layer in layers),
        frame_dtype=Dtype(frame.dtype).name.lower(),
        frame_shape=tuple(frame.shape[: frame.rank]),
        frame_scale=frame.scale,
        frame_offset=frame.offset,
        classes=blob.classes(),
        cam_head=CamHead(header.cam_head).name.lower(),
        features=_shape(tensors[header.features_tensor]) if has_features else None,
        hidden=0 if cam is None else BlobCam.unpack(cam.content).hidden,
        operators=tuple(op.name for op in Op if header.op_bitmap >> op & 1),
        golden_inputs=0 if golden is None else golden.count,
        layers=layers,
        tensors=_tensors(blob, ops, tensors, names),
        calibration=tuple(_calibrations(blob)),
        provenance=dict(meta.get("provenance", {})),
    )


def slow_layer_text(layer: LayerInfo) -> str:
    """What such a layer means, in one line."""
    return (
        f"{layer.kind} {layer.name}: {layer.unit_macs:,} MACs in one piece; the device answers"
        f" nobody for about {layer.unit_macs * 5 / STEP_MACS:.0f} ms at 100 MHz"
    )


def _shape(tensor: BlobTensor) -> tuple[int, int, int]:
    return tensor.h, tensor.w, tensor.c


def _layer(op: BlobOp, tensors: list[BlobTensor], names: list[str]) -> LayerInfo:
    out = tensors[op.out]
    weighted = op.kind in _WEIGHTED
    reads = [op.in0] if op.in1 == _NO_TENSOR else [op.in0, op.in1]
    places = {tensors[n].arena_offset: tensors[n].size for n in (*reads, op.out)}
    return LayerInfo(
        kind=Op(op.kind).name,
        name=names[op.out],
        output=_shape(out),
        macs=op.macs if weighted else 0,
        constant_bytes=op.weights_bytes + (out.c * _QUANT_BYTES if weighted else 0),
        arena_bytes=sum(places.values()) + op.scratch_bytes,
        layout=op.layout_id,
        unit_macs=_unit_macs(op, out.c) if weighted else 0,
    )


def _unit_macs(op: BlobOp, channels: int) -> int:
    """Multiply-accumulates of one unit of an operator, as the DSP kernels cut it."""
    plain = op.layout_id == Layout.PLAIN
    if op.kind == Op.CONV_2D:
        return min(op.macs, op.weights_bytes * (1 if plain else _CONV_COLUMNS))
    if op.kind == Op.DEPTHWISE_CONV_2D:
        return op.weights_bytes if plain else op.macs // channels
    return min(op.macs, _DENSE_ROWS * op.macs // channels)


def slow_layers(info: BlobInfo) -> list[LayerInfo]:
    """Layers that the engine cannot cut into steps of ``STEP_MACS``, slowest first.

    While one unit of such a layer runs, the device answers nobody: ``unit_macs / STEP_MACS`` times
    the 5 ms of a step on a 100 MHz Cortex-M4.
    """
    slow = [layer for layer in info.layers if layer.unit_macs > STEP_MACS]
    return sorted(slow, key=lambda layer: -layer.unit_macs)


def _tensors(
    blob: Blob, ops: list[BlobOp], tensors: list[BlobTensor], names: list[str]
) -> tuple[TensorInfo, ...]:
    header = blob.header
    first: dict[int, int] = {header.input_tensor: -1}
    last: dict[int, int] = {}
    kept = {header.logits_tensor, header.features_tensor}
    for n, op in enumerate(ops):
        first.setdefault(op.out, n)
        if op.kind == Op.FULLY_CONNECTED and op.in1 != _NO_TENSOR:
            # A second result, for the Grad-CAM head.
            first[op.in1], kept = n, {*kept, op.in1}
        for index in (op.in0, op.in1, op.out):
            if index != _NO_TENSOR:
                last[index] = n
    for index in kept:
        if index != _NO_TENSOR:
            last[index] = len(ops)
    return tuple(
        TensorInfo(
            names[n], _shape(t), t.arena_offset, t.size, first.get(n, -1), last.get(n, len(ops))
        )
        for n, t in enumerate(tensors)
    )


def _calibrations(blob: Blob) -> list[CalibrationInfo]:
    found = []
    for part in blob.parts:
        if part.kind != Section.CALIBRATION:
            continue
        fixed = BlobCalibration.unpack(part.content)
        at = BlobCalibration.SIZE + 4 * fixed.knots * fixed.classes
        thresholds = memoryview(part.content)[at : at + 2 * fixed.classes].cast("H")
        found.append(
            CalibrationInfo(
                ScoreKind(part.flags).name.lower(),
                fixed.samples,
                fixed.target_ratio / wire.PERCENTILE_ONE,
                tuple(thresholds),
            )
        )
    return found


def print_info(info: BlobInfo, console: Console) -> None:
    """Print a description as tables."""
    from rich.table import Table

    summary = Table.grid(padding=(0, 2))
    for label, value in _summary(info):
        summary.add_row(label, value)
    console.print(summary)
    layers = Table("operator", "output", "MACs", "constants", "arena", "tensor", title="layers")
    for layer in info.layers:
        layers.add_row(
            layer.kind,
            "x".join(map(str, layer.output)),
            f"{layer.macs:,}",
            f"{layer.constant_bytes:,}",
            f"{layer.arena_bytes:,}",
            layer.name[:40],
        )
    console.print(layers)
    arena = Table("bytes", "from operator", "to", "shape", "tensor", title="arena")
    for tensor in sorted(info.tensors, key=lambda t: (t.arena_offset, t.first_op)):
        arena.add_row(
            f"{tensor.arena_offset:,} - {tensor.arena_offset + tensor.size:,}",
            "input" if tensor.first_op < 0 else str(tensor.first_op),
            "end" if tensor.last_op >= len(info.layers) else str(tensor.last_op),
            "x".join(map(str, tensor.shape)),
            tensor.name[:40],
        )
    console.print(arena)
    if info.calibration:
        table = Table("score", "frames", "share to keep", "thresholds", title="calibration")
        for entry in info.calibration:
            low, high = min(entry.thresholds), max(entry.thresholds)
            table.add_row(
                entry.kind, str(entry.samples), f"{entry.target_ratio:.1%}", f"{low} - {high}"
            )
        console.print(table)


def _summary(info: BlobInfo) -> list[tuple[str, str]]:
    head = info.cam_head
    if info.features is not None:
        head += f", features {'x'.join(map(str, info.features))}"
    if info.hidden:
        head += f", {info.hidden} hidden units"
    names = ", ".join(info.classes[:12]) + (" ..." if len(info.classes) > 12 else "")
    return [
        ("model", info.model_id),
        ("source", f"{info.source or '?'} (SHA-256 {info.source_sha256[:16]})"),
        ("size", f"{info.total_bytes:,} bytes, constants {info.constant_bytes:,}"),
        ("arena", f"{info.arena_bytes:,} bytes; tensors alive at once sum to {info.live_bytes:,}"),
        ("work", f"{info.macs:,} MACs, {len(info.layers)} operators"),
        (
            "frame",
            f"{info.frame_dtype} {list(info.frame_shape)},"
            f" real = raw * {info.frame_scale:g} + {info.frame_offset:g}",
        ),
        ("classes", f"{len(info.classes)}: {names}" if info.classes else "none"),
        ("Grad-CAM head", head),
        ("self-test", f"{info.golden_inputs} golden inputs"),
        ("calibration", f"{len(info.calibration)} scores" if info.calibration else "none"),
        *(("slow layer", slow_layer_text(layer)) for layer in slow_layers(info)),
    ]
