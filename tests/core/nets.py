"""Small networks put together by hand, and the engine around them, for tests of the core."""

from __future__ import annotations

import ctypes
import dataclasses
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from drip._core import ffi, lib
from numpy.typing import NDArray

from drip import wire
from drip.compile.blob import Part, pack_blob
from drip.compile.head import pair_units
from drip.compile.layouts import pack_pairs, pairs_scratch_bytes
from drip.wire import BlobHeader, BlobOp, BlobTensor, Dtype, Layout, Op, Section

NO_TENSOR = 65535
WHOLE = 0xFFFFFFFF

_libc = ctypes.CDLL(None)
_libc.aligned_alloc.restype = ctypes.c_void_p
_libc.aligned_alloc.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
_libc.free.argtypes = [ctypes.c_void_p]


def exact(size: int) -> Any:
    """Zeroed memory, 16-aligned, at most 15 bytes too long: AddressSanitizer guards its end."""
    size = -(-max(size, 1) // 16) * 16
    at = _libc.aligned_alloc(16, size)
    assert at
    ctypes.memset(at, 0, size)
    return ffi.gc(ffi.cast("uint8_t *", at), lambda p: _libc.free(int(ffi.cast("uintptr_t", p))))


def fix_crc(blob: bytearray) -> bytes:
    """The blob with the checksum that its bytes have now."""
    if len(blob) >= 16:
        struct.pack_into("<I", blob, BlobHeader.OFFSETS["crc"], zlib.crc32(blob[16:]))
    return bytes(blob)


@dataclass
class Net:
    """Collects tensors, operators and constants; ``blob`` packs them."""

    tensors: list[BlobTensor] = field(default_factory=list)
    ops: list[BlobOp] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)
    arena: int = 0
    parts: list[Part] = field(default_factory=list)
    header: BlobHeader = field(default_factory=BlobHeader)

    def memory(self, size: int) -> int:
        """Reserve bytes of the arena; returns the offset."""
        at = self.arena
        self.arena += -(-size // 16) * 16
        return at

    def tensor(self, h: int, w: int, c: int, zero: int = 0, at: int | None = None) -> int:
        """Add a tensor, in memory of its own unless `at` says where; returns its number."""
        offset = self.memory(h * w * c) if at is None else at
        self.tensors.append(BlobTensor(offset, h * w * c, h, w, c, 0, zero, 1.0))
        return len(self.tensors) - 1

    def constant(self, content: bytes, align: int = 16) -> int:
        """Append to DATA; returns the offset."""
        self.data += bytes(-len(self.data) % align)
        at = len(self.data)
        self.data += content
        return at

    def op(self, kind: Op, in0: int, out: int, **fields: Any) -> None:
        """Add an operator; ``weights``, ``bias`` and ``quant`` (pairs) go to DATA."""
        defaults: dict[str, Any] = {
            "in1": NO_TENSOR, "clamp_min": -128, "clamp_max": 127, "depth_multiplier": 1,
            "kernel_h": 1, "kernel_w": 1, "stride_h": 1, "stride_w": 1, "dilation_h": 1,
            "dilation_w": 1, "in0_zero": self.tensors[in0].zero_point,
            "out_zero": self.tensors[out].zero_point,
        }  # fmt: skip
        fields = defaults | fields
        if "weights" in fields:
            content = bytes(fields.pop("weights"))
            fields |= {"weights_offset": self.constant(content), "weights_bytes": len(content)}
        if "bias" in fields:
            bias = np.asarray(fields.pop("bias"), "<i4").tobytes()
            quant = np.asarray(fields.pop("quant"), "<i4").tobytes()
            fields |= {
                "bias_offset": self.constant(bias, 4),
                "quant_offset": self.constant(quant, 4),
            }
        self.ops.append(BlobOp(kind=kind, in0=in0, out=out, **fields))

    def section(self, kind: Section, content: bytes, count: int = 1, flags: int = 0) -> None:
        """Add any other section."""
        self.parts.append(Part(kind, content, count, flags))

    def blob(self, logits: int, features: int = NO_TENSOR, **header: Any) -> bytes:
        """Pack; the first tensor is the input, an int8 frame that needs no conversion."""
        first = self.tensors[0]
        shape = (first.h, first.w, first.c, 1)
        frame = wire.BlobInput(Dtype.I8, 3, 1, shape, first.size, 1.0, 0.0).pack()
        bitmap = 0
        for op in self.ops:
            bitmap |= 1 << op.kind
        head = dataclasses.replace(
            self.header,
            op_bitmap=bitmap,
            arena_bytes=self.arena,
            class_count=self.tensors[logits].size,
            input_tensor=0,
            logits_tensor=logits,
            features_tensor=features,
            **header,
        )
        tensors = b"".join(t.pack() for t in self.tensors)
        ops = b"".join(o.pack() for o in self.ops)
        parts = (
            Part(Section.TENSORS, tensors, len(self.tensors)),
            Part(Section.OPS, ops, len(self.ops)),
            Part(Section.DATA, bytes(self.data), len(self.data)),
            Part(Section.INPUT, frame + wire.BlobAffine(1, 0, 0).pack(), 1),
            *self.parts,
        )
        return pack_blob(head, parts)


class Engine:
    """An opened network. ``code`` is what opening (and binding) said; use it only when 0."""

    def __init__(self, blob: bytes, arena_limit: int = 1 << 22) -> None:
        self.memory = exact(len(blob))
        ffi.memmove(self.memory, blob, len(blob))
        self.nn = ffi.new("drip_nn_t *")
        self.code = lib.drip_nn_open(self.nn, self.memory, len(blob))
        if self.code == 0:
            size = self.nn.arena_bytes
            self.arena = exact(min(size, arena_limit))
            self.code = lib.drip_nn_bind(self.nn, self.arena, min(size, arena_limit))

    def read(self, tensor: int) -> NDArray[np.int8]:
        """Content of a tensor, ``[h, w, c]``."""
        desc = self.nn.tensors[tensor]
        content = lib.drip_nn_tensor(self.nn, tensor, ffi.NULL)
        flat = np.frombuffer(ffi.buffer(content, desc.size), np.int8).copy()
        return flat.reshape(desc.h, desc.w, desc.c)

    def write(self, tensor: int, values: NDArray[np.int8]) -> None:
        """Put values into a tensor."""
        content = lib.drip_nn_tensor(self.nn, tensor, ffi.NULL)
        target = ffi.cast("int8_t *", content)
        ffi.memmove(target, np.ascontiguousarray(values).tobytes(), values.size)

    def run(self, x: NDArray[np.int8], budget: int = WHOLE) -> int:
        """Infer; returns the number of steps."""
        ffi.memmove(lib.drip_nn_input(self.nn), np.ascontiguousarray(x).tobytes(), x.size)
        assert lib.drip_nn_begin(self.nn) == 0
        steps = 1
        while lib.drip_nn_step(self.nn, budget) > 0:
            steps += 1
        return steps


def random_quant(
    rng: np.random.Generator, channels: int, low: int = -9, high: int = -4
) -> NDArray[np.int32]:
    """Multipliers and shifts (left > 0, low <= shift < high) of output channels."""
    mult = rng.integers(1 << 30, (1 << 31) - 1, channels)
    return np.stack([mult, rng.integers(low, high, channels)], 1).astype(np.int32)


def folded_bias(
    rng: np.random.Generator, weights: NDArray[np.int8], zero: int
) -> NDArray[np.int32]:
    """Random biases with the input offset folded in; `weights` is ``[channels, ...]``."""
    flat = weights.reshape(len(weights), -1).astype(np.int64)
    return (rng.integers(-500, 500, len(weights)) - zero * flat.sum(1)).astype(np.int32)


def head_net(
    rng: np.random.Generator,
    *,
    hidden: int = 0,
    classes: int = 3,
    shift: int = 6,
    size: tuple[int, int] = (5, 4),
    calibration: bytes | None = None,
    packed: bool = False,
) -> tuple[Net, bytes]:
    """Convolution 3x3 -> 6 features -> mean [-> hidden ReLU] -> logits, with a Grad-CAM head.

    With `packed` the convolution has its weights as the compiler lays them out, not plain.
    """
    net = Net()
    x = net.tensor(*size, 2, -3)
    features = net.tensor(*size, 6, -20)
    w = rng.integers(-127, 128, (6, 3, 3, 2)).astype(np.int8)
    layout = {}
    if packed:
        scratch = pairs_scratch_bytes(3, 3, 2)
        layout = {
            "layout_id": Layout.PAIRS,
            "scratch_offset": net.memory(scratch),
            "scratch_bytes": scratch,
        }
    net.op(
        Op.CONV_2D, x, features, weights=pack_pairs(w) if packed else w.tobytes(),
        bias=folded_bias(rng, w, -3), quant=random_quant(rng, 6, -9, -7), kernel_h=3, kernel_w=3,
        pad_top=1, pad_left=1, clamp_min=-20, **layout,
    )  # fmt: skip
    pooled = net.tensor(1, 1, 6, -20)
    net.op(Op.MEAN, features, pooled, mult0=(1 << 35) // (size[0] * size[1]), shift0=-4)
    last, width = pooled, 6
    if hidden:
        last = net.tensor(1, 1, hidden, -128)
        w = rng.integers(-127, 128, (hidden, 6)).astype(np.int8)
        net.op(
            Op.FULLY_CONNECTED, pooled, last, weights=w.tobytes(), bias=folded_bias(rng, w, -20),
            quant=random_quant(rng, hidden, -9, -7), clamp_min=-128,
        )  # fmt: skip
        width = hidden
    logits = net.tensor(1, 1, classes, 5)
    w = rng.integers(-127, 128, (classes, width)).astype(np.int8)
    net.op(
        Op.FULLY_CONNECTED, last, logits, weights=w.tobytes(),
        bias=folded_bias(rng, w, -128 if hidden else -20),
        quant=random_quant(rng, classes, -9, -7),
    )  # fmt: skip
    table = rng.integers(-900, 900, (hidden or classes, 6)).astype("<i2")
    dense = rng.integers(-127, 128, (classes, hidden)).astype(np.int8)
    kind = wire.CamHead.HIDDEN if hidden else wire.CamHead.DIRECT
    tensor = last if hidden else NO_TENSOR
    fixed = wire.BlobCam(kind, classes, 6, hidden, size[0] * size[1], shift, tensor, 0, 1.0).pack()
    if hidden:
        table = pair_units(table)
    net.section(Section.CAM, fixed + table.tobytes() + dense.tobytes())
    if calibration is not None:
        net.section(Section.CALIBRATION, calibration, 1, wire.ScoreKind.CAM_EVIDENCE)
    return net, net.blob(logits, features, cam_head=kind)
