"""The engine: operators against a slow oracle, cooperative steps, self-test, what opening checks.

Whole models are compared with tflite-micro elsewhere; here is what converters rarely produce.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import oracle
import pytest
from drip._core import ffi, lib
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import Engine, Net, exact, fix_crc, folded_bias, head_net, random_quant

from drip import wire
from drip.compile.layouts import pack_pairs, pack_planes
from drip.wire import BlobHeader, BlobOp, Err, Op, Section

SCRATCH = 1 << 14


@st.composite
def windows(draw: st.DrawFn) -> dict[str, int]:
    """Shapes, kernel, stride, dilation and padding such that every window starts in the image."""
    found: dict[str, int] = {}
    for axis in "hw":
        size = draw(st.integers(1, 8))
        kernel = draw(st.integers(1, 5))
        dilation = draw(st.sampled_from([1, 1, 1, 2, 3]))
        stride = draw(st.integers(1, 4))
        pad = draw(st.integers(0, (kernel - 1) * dilation))
        out = draw(st.integers(1, (size + pad - 1) // stride + 1))
        found |= {f"in_{axis}": size, f"kernel_{axis}": kernel, f"dilation_{axis}": dilation}
        found |= {f"stride_{axis}": stride, f"pad_{axis}": pad, f"out_{axis}": out}
    return found


def geometry(w: dict[str, int]) -> dict[str, int]:
    names = [f"{n}_{a}" for n in ("kernel", "stride", "dilation") for a in "hw"]
    return {n: w[n] for n in names} | {"pad_top": w["pad_h"], "pad_left": w["pad_w"]}


def undilated(w: dict[str, int]) -> bool:
    return w["dilation_h"] == w["dilation_w"] == 1


def run(net: Net, out: int, x: np.ndarray[Any, Any], budget: int) -> np.ndarray[Any, Any]:
    engine = Engine(net.blob(out))
    assert engine.code == 0
    engine.run(x, budget)
    return engine.read(out)


@settings(max_examples=150)
@given(windows(), st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.booleans())
def test_conv(w: dict[str, int], in_c: int, out_c: int, seed: int, packed: bool) -> None:
    rng = np.random.default_rng(seed)
    zero, low = (int(v) for v in rng.integers(-128, 128, 2))
    weights = rng.integers(-128, 128, (out_c, w["kernel_h"], w["kernel_w"], in_c)).astype(np.int8)
    bias, quant = folded_bias(rng, weights, zero), random_quant(rng, out_c)
    packed = packed and undilated(w)
    net = Net()
    x = net.tensor(w["in_h"], w["in_w"], in_c, zero)
    y = net.tensor(w["out_h"], w["out_w"], out_c, int(rng.integers(-128, 128)))
    net.op(
        Op.CONV_2D, x, y, weights=pack_pairs(weights) if packed else weights.tobytes(),
        bias=bias, quant=quant, clamp_min=low, layout_id=wire.Layout.PAIRS if packed else 0,
        scratch_offset=net.memory(SCRATCH), scratch_bytes=SCRATCH, **geometry(w),
    )  # fmt: skip
    frame = rng.integers(-128, 128, (w["in_h"], w["in_w"], in_c)).astype(np.int8)
    expected = oracle.conv(net.ops[0], frame, weights, bias, quant, (w["out_h"], w["out_w"]))
    np.testing.assert_array_equal(run(net, y, frame, int(rng.integers(1, 500))), expected)


@settings(max_examples=150)
@given(windows(), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2**32 - 1), st.booleans())
def test_depthwise(w: dict[str, int], in_c: int, multiplier: int, seed: int, packed: bool) -> None:
    rng = np.random.default_rng(seed)
    zero, low = (int(v) for v in rng.integers(-128, 128, 2))
    packed = packed and undilated(w)
    multiplier = 1 if packed else multiplier
    out_c = in_c * multiplier
    weights = rng.integers(-128, 128, (w["kernel_h"], w["kernel_w"], out_c)).astype(np.int8)
    bias = folded_bias(rng, weights.reshape(-1, out_c).T, zero)
    quant = random_quant(rng, out_c)
    net = Net()
    x = net.tensor(w["in_h"], w["in_w"], in_c, zero)
    y = net.tensor(w["out_h"], w["out_w"], out_c, int(rng.integers(-128, 128)))
    if packed and w["in_w"] == 1 and w["kernel_w"] == 1 and (w["pad_w"] or w["out_w"] != 1):
        return
    net.op(
        Op.DEPTHWISE_CONV_2D, x, y, depth_multiplier=multiplier, clamp_min=low, bias=bias,
        weights=pack_planes(weights, w["in_w"]) if packed else weights.tobytes(), quant=quant,
        layout_id=wire.Layout.PLANES if packed else 0,
        scratch_offset=net.memory(SCRATCH), scratch_bytes=SCRATCH, **geometry(w),
    )  # fmt: skip
    frame = rng.integers(-128, 128, (w["in_h"], w["in_w"], in_c)).astype(np.int8)
    expected = oracle.depthwise(net.ops[0], frame, weights, bias, quant, (w["out_h"], w["out_w"]))
    np.testing.assert_array_equal(run(net, y, frame, int(rng.integers(1, 500))), expected)


@given(st.integers(1, 40), st.integers(1, 11), st.integers(0, 2**32 - 1), st.booleans())
def test_dense(inputs: int, out_c: int, seed: int, packed: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-128, 128, (out_c, 1, 1, inputs)).astype(np.int8)
    bias, quant = folded_bias(rng, weights, 11), random_quant(rng, out_c)
    net = Net()
    x, y = net.tensor(1, 1, inputs, 11), net.tensor(1, 1, out_c, -7)
    net.op(
        Op.FULLY_CONNECTED, x, y, weights=pack_pairs(weights) if packed else weights.tobytes(),
        bias=bias, quant=quant, layout_id=wire.Layout.PAIRS if packed else 0,
    )  # fmt: skip
    frame = rng.integers(-128, 128, (1, 1, inputs)).astype(np.int8)
    op = BlobOp(
        in0_zero=11, out_zero=-7, clamp_min=-128, clamp_max=127, stride_h=1, stride_w=1,
        dilation_h=1, dilation_w=1,
    )  # fmt: skip
    expected = oracle.conv(op, frame, weights, bias, quant, (1, 1))
    np.testing.assert_array_equal(run(net, y, frame, int(rng.integers(1, 99))), expected)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.booleans())
def test_dense_notes_which_sums_are_positive(
    inputs: int, out_c: int, seed: int, packed: bool
) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-2, 3, (out_c, 1, 1, inputs)).astype(np.int8)
    frame = rng.integers(-2, 3, (1, 1, inputs)).astype(np.int8)
    bias = rng.integers(-2, 3, out_c).astype(np.int32)
    net = Net()
    x, y, signs = (net.tensor(1, 1, n) for n in (inputs, out_c, out_c))
    net.op(
        Op.FULLY_CONNECTED, x, y, in1=signs, bias=bias, quant=[[1 << 30, -20]] * out_c,
        weights=pack_pairs(weights) if packed else weights.tobytes(),
        layout_id=wire.Layout.PAIRS if packed else 0,
    )  # fmt: skip
    engine = Engine(net.blob(y))
    engine.write(signs, np.full(out_c, 77, np.int8))
    engine.run(frame, int(rng.integers(1, 99)))
    sums = weights.reshape(out_c, inputs).astype(int) @ frame.reshape(-1).astype(int) + bias
    # All too small for the int8 result.
    assert not engine.read(y).any()
    assert engine.read(signs).reshape(-1).tolist() == (sums > 0).astype(int).tolist()


@pytest.mark.parametrize("size", [1, 3, 5, 6000])
def test_signs_of_another_number_of_channels_are_refused(size: int) -> None:
    net = Net()
    x, y, signs = (net.tensor(1, 1, n) for n in (2, 4, size))
    net.op(
        Op.FULLY_CONNECTED, x, y, in1=signs, bias=[0] * 4, quant=[[1 << 30, 0]] * 4,
        weights=bytes(8),
    )  # fmt: skip
    assert Engine(net.blob(y)).code == Err.CORRUPT


@given(windows(), st.integers(1, 5), st.integers(0, 2**32 - 1), st.booleans())
def test_pools(w: dict[str, int], channels: int, seed: int, average: bool) -> None:
    w = w | {"dilation_h": 1, "dilation_w": 1}
    for axis in "hw":
        w[f"pad_{axis}"] = min(w[f"pad_{axis}"], w[f"kernel_{axis}"] - 1)
        last = (w[f"in_{axis}"] + w[f"pad_{axis}"] - 1) // w[f"stride_{axis}"]
        w[f"out_{axis}"] = min(w[f"out_{axis}"], last + 1)
    rng = np.random.default_rng(seed)
    net = Net()
    x, y = net.tensor(w["in_h"], w["in_w"], channels), net.tensor(w["out_h"], w["out_w"], channels)
    kind = Op.AVERAGE_POOL_2D if average else Op.MAX_POOL_2D
    net.op(kind, x, y, clamp_min=-100, clamp_max=90, **geometry(w))
    frame = rng.integers(-128, 128, (w["in_h"], w["in_w"], channels)).astype(np.int8)
    expected = oracle.pool(net.ops[0], frame, (w["out_h"], w["out_w"]), average)
    np.testing.assert_array_equal(run(net, y, frame, int(rng.integers(1, 50))), expected)


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, (1 << 31) - 1), st.integers(-31, 0))
def test_scaling_rounds_twice(x: int, mult: int, shift: int) -> None:
    """Through a dense layer with weight 0 and bias x: the clamped result must agree."""
    net = Net()
    a, b = net.tensor(1, 1, 1), net.tensor(1, 1, 1)
    net.op(Op.FULLY_CONNECTED, a, b, weights=b"\0", bias=[x], quant=[[mult, shift]])
    found = run(net, b, np.zeros((1, 1, 1), np.int8), 1)[0, 0, 0]
    assert found == oracle.clamp(oracle.scale(x, mult, shift), -128, 127)


@pytest.mark.parametrize("budget", [1, 7, 100, 5000, 0xFFFFFFFF, 0])
def test_any_budget_gives_the_same_bytes_and_ends(budget: int) -> None:
    rng = np.random.default_rng(2)
    _, blob = head_net(rng, hidden=7)
    frame = rng.integers(-128, 128, (5, 4, 2)).astype(np.int8)
    engine, whole = Engine(blob), Engine(blob)
    steps = engine.run(frame, budget)
    assert whole.run(frame) == 4  # one step never goes past an operator
    assert 4 <= steps <= 20 + 6 + 2 + 1
    for tensor in range(5):
        np.testing.assert_array_equal(engine.read(tensor), whole.read(tensor))


def test_in_place_add_with_itself_and_a_constant() -> None:
    net = Net()
    x = net.tensor(2, 2, 3, 5)
    y = net.tensor(2, 2, 3, 5, at=0)
    offset = net.constant(bytes([1, 2, 3]))
    scale = {"mult0": 1 << 30, "mult1": 1 << 30, "mult2": 1 << 30, "shift2": -18}
    net.op(Op.ADD, x, y, flags=1, in1_zero=0, weights_offset=offset, weights_bytes=3, **scale)
    frame = np.arange(12, dtype=np.int8).reshape(2, 2, 3)
    expected = frame + np.array([1, 2, 3], np.int8)
    np.testing.assert_array_equal(run(net, y, frame, 30), expected)


def test_copy_and_pad_put_bytes_where_they_belong() -> None:
    net = Net()
    x = net.tensor(2, 2, 3, 0)
    joined = net.tensor(2, 2, 5, 0)
    net.op(Op.COPY, x, joined, weights_offset=2, param0=3, param1=5)
    padded = net.tensor(4, 3, 5, -9)
    net.op(Op.PAD, joined, padded, pad_top=1, pad_left=0)
    frame = np.arange(1, 13, dtype=np.int8).reshape(2, 2, 3)
    found = run(net, padded, frame, 1)
    expected = np.full((4, 3, 5), -9, np.int8)
    expected[1:3, :2, :2] = 0
    expected[1:3, :2, 2:] = frame
    np.testing.assert_array_equal(found, expected)


# ---------------------------------------------------------------- self-test


def golden_blob(count: int = 2, wrong: int = -1, declared: int | None = None) -> bytes:
    net, blob = head_net(np.random.default_rng(8))
    engine = Engine(blob)
    digests = []
    for n in range(count):
        rng = ffi.new("drip_rng_t *")
        lib.drip_rng_seed(rng, 40 + n)
        frame = ffi.new("int8_t[]", 40)
        lib.drip_rng_fill(rng, frame, 40)
        engine.run(np.frombuffer(ffi.buffer(frame), np.int8).reshape(5, 4, 2))
        digest = zlib.crc32(engine.read(1).tobytes(), zlib.crc32(engine.read(3).tobytes()))
        digests.append(digest ^ (n == wrong))
    content = wire.BlobGolden(40, count if declared is None else declared).pack()
    net.section(Section.GOLDEN, content + struct.pack(f"<{count}I", *digests), count)
    return net.blob(3, 1, cam_head=wire.CamHead.DIRECT)


def test_the_self_test_counts_its_inputs_and_sees_any_difference() -> None:
    assert lib.drip_nn_selftest(Engine(golden_blob(3)).nn) == 3
    assert lib.drip_nn_selftest(Engine(golden_blob(3, wrong=2)).nn) == Err.SELFTEST
    assert lib.drip_nn_selftest(Engine(golden_blob(2, declared=3)).nn) == Err.CORRUPT
    assert lib.drip_nn_selftest(Engine(golden_blob(0)).nn) == Err.CORRUPT
    assert lib.drip_nn_selftest(Engine(golden_blob(wire.MAX_GOLDEN)).nn) == wire.MAX_GOLDEN
    endless = Engine(golden_blob(wire.MAX_GOLDEN + 1))
    assert lib.drip_nn_selftest(endless.nn) == Err.CORRUPT
    assert lib.drip_nn_selftest(Engine(head_net(np.random.default_rng(0))[1]).nn) == Err.CORRUPT


# ---------------------------------------------------------------- opening


def open_code(blob: bytes, shift: int = 0, size: int | None = None) -> int:
    memory = exact(len(blob) + 16)
    ffi.memmove(memory + shift, blob, len(blob))
    nn = ffi.new("drip_nn_t *")
    return int(lib.drip_nn_open(nn, memory + shift, len(blob) if size is None else size))


def changed(blob: bytes, offset: int, content: bytes) -> bytes:
    return fix_crc(bytearray(blob[:offset] + content + blob[offset + len(content) :]))


def test_what_is_not_a_blob_for_this_core_is_named() -> None:
    blob = head_net(np.random.default_rng(0))[1]
    at = BlobHeader.OFFSETS
    assert open_code(blob) == 0
    assert open_code(blob, shift=8) == Err.ALIGN
    assert open_code(blob, size=len(blob) - 1) == Err.SHORT
    assert open_code(blob, size=127) == Err.SHORT
    assert open_code(b"X" + blob[1:]) == Err.MAGIC
    assert open_code(changed(blob, at["version"], b"\2\0")) == Err.VERSION
    assert open_code(blob[:-1] + bytes([blob[-1] ^ 1])) == Err.CRC
    assert open_code(changed(blob, at["signature_type"], b"\1\0")) == Err.SIGNATURE
    assert open_code(changed(blob, at["op_bitmap"] + 5, b"\1")) == Err.UNSUPPORTED
    assert open_code(changed(blob, at["flags"], b"\1\0")) == Err.UNSUPPORTED
    assert open_code(changed(blob, at["op_bitmap"], b"\2\0")) == Err.CORRUPT
    assert open_code(changed(blob, at["section_count"], b"\xff\xff")) == Err.CORRUPT


def test_an_arena_must_be_large_enough_and_aligned() -> None:
    blob = head_net(np.random.default_rng(0))[1]
    engine = Engine(blob)
    size = engine.nn.arena_bytes
    assert lib.drip_nn_bind(engine.nn, engine.arena, size - 1) == Err.MEMORY
    assert lib.drip_nn_bind(engine.nn, exact(size + 16) + 8, size) == Err.ALIGN
    fresh = ffi.new("drip_nn_t *")
    assert lib.drip_nn_open(fresh, engine.memory, len(blob)) == 0
    assert lib.drip_nn_begin(fresh) == Err.STATE
    assert lib.drip_nn_step(fresh, 1) == Err.STATE
    assert lib.drip_nn_selftest(fresh) == Err.STATE
    assert lib.drip_nn_input(fresh) == ffi.NULL
    assert lib.drip_nn_tensor(fresh, 0, ffi.NULL) == ffi.NULL


def one_conv(**fields: Any) -> Net:
    rng = np.random.default_rng(0)
    net = Net()
    x, y = net.tensor(4, 4, 4), net.tensor(4, 4, 4)
    settings: dict[str, Any] = {"kernel_h": 3, "kernel_w": 3, "pad_top": 1, "pad_left": 1}
    net.op(
        Op.CONV_2D, x, y, weights=bytes(144), bias=np.zeros(4), quant=random_quant(rng, 4),
        **settings | fields,
    )  # fmt: skip
    return net


@pytest.mark.parametrize(
    "fields",
    [
        {"stride_h": 0}, {"kernel_w": 0}, {"dilation_h": 0}, {"kernel_h": 2}, {"pad_top": 3},
        {"stride_w": 2}, {"pad_left": -1}, {"dilation_w": 60000}, {"in0_zero": 128},
        {"out_zero": -129}, {"in1": 2}, {"scratch_offset": 8}, {"scratch_bytes": 4096},
    ],
    ids=str,
)  # fmt: skip
def test_a_convolution_that_contradicts_itself_is_refused(fields: dict[str, int]) -> None:
    assert open_code(one_conv().blob(1)) == 0
    assert open_code(one_conv(**fields).blob(1)) == Err.CORRUPT


def test_an_unknown_weight_layout_is_unsupported() -> None:
    assert open_code(one_conv(layout_id=9).blob(1)) == Err.UNSUPPORTED


def test_constants_beyond_data_and_bad_multipliers_are_refused() -> None:
    for name in ("weights_offset", "bias_offset", "quant_offset"):
        for value in (4096, 2, 0xFFFFFFFC):
            net = one_conv()
            fields = {n: getattr(net.ops[0], n) for n in BlobOp.OFFSETS} | {name: value}
            net.ops[0] = BlobOp(**fields)
            assert open_code(net.blob(1)) == Err.CORRUPT, (name, value)
    for quant in ([-1, -3], [1 << 30, 31], [1 << 30, -32]):
        net = one_conv()
        struct.pack_into("<2i", net.data, net.ops[0].quant_offset + 8, *quant)
        assert open_code(net.blob(1)) == Err.CORRUPT, quant


def test_tensors_must_lie_in_the_arena() -> None:
    for at, size in ((0, 65), (112, 64), (0xFFFFFFF0, 64), (2, 64)):
        net = one_conv()
        old = net.tensors[1]
        net.tensors[1] = wire.BlobTensor(at, size, old.h, old.w, old.c, 0, 0, 1.0)
        assert open_code(net.blob(1)) == Err.CORRUPT, (at, size)
