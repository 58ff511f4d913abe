"""A model that hears: its frame is raw sound, and the core makes the features before it infers."""

from __future__ import annotations

import dataclasses
import sys
import zlib
from pathlib import Path
from typing import Any

import frontend_oracle
import numpy as np
import pytest

from drip import wire
from drip.compile import InputSpec, compile_model
from drip.compile.blob import Part, pack_blob, unpack_blob
from drip.data import InputScaling
from drip.errors import DataError, DeviceError, ModelError
from drip.frontend import LogMel
from drip.wire import BlobFrontend, BlobInput, Err, Section

core = pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))
import tflite_builder as tb  # noqa: E402 - beside the unit tests

from drip.core import Model  # noqa: E402 - after the core is known to be there

MEL = LogMel(sample_rate=8000, window=256, hop=128, fft=256, mels=20, high_hz=4000)
SAMPLES = 256 + 14 * 128 + 40  # 15 windows, and some samples that make none


def net(rows: int = 15, mels: int = 20) -> bytes:
    rng = np.random.default_rng(3)
    build = tb.TfliteBuilder()
    x = build.tensor((1, rows, mels, 1), 1 / 255, -128, name="in")
    y = tb.add_conv(build, rng, x, 6, (3, 3), activation=tb.RELU)
    y = tb.add_dense(build, rng, tb.add_mean(build, rng, y), 4, name="logits")
    return build.finish([x], [y])


def hearing(shape: tuple[int, ...] = (SAMPLES, 1)) -> bytes:
    scaling = InputScaling("int16", 1 / 255, frontend=MEL)
    return compile_model(net(), spec=InputSpec(scaling, frame_shape=shape))


def clips(count: int = 4) -> Any:
    rng = np.random.default_rng(5)
    t = np.arange(SAMPLES) / 8000
    tones = np.sin(2 * np.pi * rng.uniform(200, 3000, (count, 1)) * t)
    sound = tones * rng.uniform(50, 20000, (count, 1)) + rng.normal(0, 20, (count, SAMPLES))
    return np.round(sound).astype(np.int16)


def test_it_computes_what_the_same_net_computes_from_features() -> None:
    sound = clips()
    plain = Model(compile_model(net(), spec=InputSpec(InputScaling("uint8", 1 / 255))))
    model = Model(hearing())
    assert (model.frame_shape, model.frame_dtype) == ((SAMPLES, 1), np.int16)
    assert model.input_shape == (15, 20)
    features = MEL.features(sound)
    for clip, picture in zip(sound, features, strict=True):
        got = model.quantise(clip[:, None]).ravel()
        assert got.tolist() == plain.quantise(picture).ravel().tolist()
        assert len(set(got.tolist())) > 20
    logits, maps = model.run(sound[..., None])
    wanted_logits, wanted_maps = plain.run(features)
    assert logits.tolist() == wanted_logits.tolist()
    assert maps is not None
    assert wanted_maps is not None
    assert maps.tolist() == wanted_maps.tolist()
    raw = model.score_all(sound[..., None]).raw
    assert raw.tolist() == plain.score_all(features).raw.tolist()
    assert model.selftest() == 3


def golden_sound(seed: int, windows: int) -> Any:
    """The windows of a golden input, as docs/SPEC.md draws them."""
    rows = []
    for window in range(windows):
        rng = core.ffi.new("drip_rng_t *")
        core.lib.drip_rng_seed(rng, seed + window * wire.MAX_GOLDEN)
        kind, level, samples = core.lib.drip_rng_next(rng), 0, []
        for _ in range(MEL.window):
            drawn = core.lib.drip_rng_next(rng) & 0xFFFF
            level += (drawn - (drawn >> 15 << 16) - level) >> (kind & 3)
            samples.append(level >> (kind >> 2 & 7))
        rows.append(frontend_oracle.features(MEL.section(), np.array(samples, np.int16))[0])
    return np.array(rows)


def digests(model: Model, count: int = 3) -> list[int]:
    return [model.golden_digest(n) for n in range(count)]


def test_golden_inputs_are_sound_that_goes_through_the_front_end() -> None:
    blob = hearing()
    model = Model(blob)
    golden = unpack_blob(blob).find(Section.GOLDEN, wire.GoldenFlag.SOUND)
    assert golden is not None
    fixed = wire.BlobGolden.unpack(golden.content)
    told = np.frombuffer(golden.content[wire.BlobGolden.SIZE :], "<u4").tolist()
    plain = Model(compile_model(net(), spec=InputSpec(InputScaling("uint8", 1 / 255))))
    for n in range(fixed.count):
        picture = golden_sound(fixed.seed + n, 15)[..., None]
        assert len(np.unique(picture)) > 60
        logits, features = plain.run(picture[None])
        assert features is not None
        assert told[n] == zlib.crc32(features.tobytes(), zlib.crc32(logits.tobytes()))
    assert digests(model) == told


@pytest.mark.parametrize("at", range(BlobFrontend.SIZE + 4, len(MEL.section()), 71))
def test_one_wrong_bit_in_the_tables_fails_the_self_test(at: int) -> None:
    blob = hearing()

    def flip(content: bytes) -> bytes:
        high = at | 1  # the upper byte of a value: a bit that features can show
        return content[:high] + bytes([content[high] ^ 0x10]) + content[high + 1 :]

    try:
        model = Model(changed(blob, Section.FRONTEND, flip))
    except ModelError:
        return  # the core sees that it cannot be
    with pytest.raises(ModelError, match="golden"):
        model.selftest()


def test_golden_inputs_before_the_front_end_still_count_and_unknown_ones_do_not() -> None:
    """As models were compiled before, and what a later host might make."""
    taken = unpack_blob(hearing())

    def flagged(flags: int, told: list[int]) -> bytes:
        content = wire.BlobGolden(1, len(told)).pack() + np.array(told, "<u4").tobytes()
        parts = [part for part in taken.parts if part.kind != Section.GOLDEN]
        return pack_blob(taken.header, (*parts, Part(Section.GOLDEN, content, len(told), flags)))

    plain = Model(compile_model(net(), spec=InputSpec(InputScaling("uint8", 1 / 255))))
    assert Model(flagged(0, digests(plain))).selftest() == 3
    with pytest.raises(ModelError, match="golden"):
        Model(flagged(wire.GoldenFlag.SOUND, digests(plain))).selftest()
    with pytest.raises(ModelError, match="contradicts"):
        Model(flagged(2, digests(plain))).selftest()
    content = wire.BlobGolden(1, 1).pack() + bytes(4)
    deaf = unpack_blob(plain.blob)
    parts = [part for part in deaf.parts if part.kind != Section.GOLDEN]
    sound = Part(Section.GOLDEN, content, 1, wire.GoldenFlag.SOUND)
    with pytest.raises(ModelError, match="contradicts"):
        Model(pack_blob(deaf.header, (*parts, sound))).selftest()


def test_golden_inputs_come_in_pieces_of_a_window() -> None:
    model = Model(hearing())
    load, nn = core.lib.drip_nn_selftest_load, model._nn
    assert [load(nn, 0, done) for done in (0, 20, 280)] == [20, 40, 300]
    assert [load(nn, 0, done) for done in (1, 300, 301, 2**31)] == [Err.RANGE] * 4
    assert load(nn, 3, 0) == Err.CORRUPT
    unbound = core.ffi.new("drip_nn_t *", nn[0])
    unbound.arena = core.ffi.NULL
    assert load(unbound, 0, 0) == Err.STATE
    plain = Model(compile_model(net()))
    assert load(plain._nn, 0, 0) == 300
    assert load(plain._nn, 0, 300) == Err.RANGE


def test_the_arena_has_room_for_the_front_end() -> None:
    model, plain = Model(hearing()), Model(compile_model(net()))
    at = model._nn.tensors[model.header.input_tensor].arena_offset
    assert model.arena_bytes >= min(at, 300 + 4 * MEL.fft)
    assert model.arena_bytes <= max(plain.arena_bytes, at + 304 + 4 * MEL.fft)


def test_a_flat_frame_is_the_same_sound() -> None:
    sound = clips(1)
    flat, column = Model(hearing((SAMPLES,))), Model(hearing())
    assert flat.run(sound)[0].tolist() == column.run(sound[..., None])[0].tolist()


def test_pieces_are_windows_and_anything_else_is_refused() -> None:
    model = Model(hearing())
    frame = core.ffi.new("drip_frame_t *")
    data = core.ffi.new("uint8_t[]", clips(1).tobytes())
    frame.data, frame.size = data, 2 * SAMPLES
    load, nn = core.lib.drip_nn_load, model._nn
    assert [load(nn, frame, done) for done in (0, 20, 280, 300)] == [20, 40, 300, 300]
    assert [load(nn, frame, done) for done in (1, 301, 2**31)] == [Err.RANGE] * 3
    target = core.lib.drip_nn_input(nn)
    view = core.ffi.addressof(nn, "input")
    assert core.lib.drip_frame_quantise(view, frame, 0, 300, target) == Err.RANGE
    frame.size -= 2
    assert load(nn, frame, 0) == Err.RANGE
    unbound = core.ffi.new("drip_nn_t *", nn[0])
    unbound.arena = core.ffi.NULL
    assert load(unbound, frame, 0) == Err.STATE


def changed(blob: bytes, kind: Section, change: Any, arena_bytes: int | None = None) -> bytes:
    taken = unpack_blob(blob)
    parts = tuple(
        dataclasses.replace(part, content=change(part.content)) if part.kind == kind else part
        for part in taken.parts
    )
    header = taken.header
    if arena_bytes is not None:
        header = dataclasses.replace(header, arena_bytes=arena_bytes)
    return pack_blob(header, parts)


def field(name: str, value: int) -> Any:
    at = BlobFrontend.OFFSETS[name]
    return lambda content: content[:at] + value.to_bytes(2, "little") + content[at + 2 :]


@pytest.mark.parametrize(
    ("name", "value"), [("hop", 100), ("hop", 0), ("hop", 512), ("mels", 19), ("window", 300)]
)
def test_a_front_end_that_does_not_fit_is_refused(name: str, value: int) -> None:
    blob = hearing()
    with pytest.raises(ModelError, match="contradicts"):
        Model(changed(blob, Section.FRONTEND, field(name, value)))


def test_a_frame_of_another_type_or_too_little_arena_is_refused() -> None:
    blob = hearing()

    def eight(content: bytes) -> bytes:
        desc = BlobInput.unpack(content)
        desc = dataclasses.replace(desc, dtype=1, frame_bytes=SAMPLES)
        return desc.pack() + content[BlobInput.SIZE :]

    with pytest.raises(ModelError, match="contradicts"):
        Model(changed(blob, Section.INPUT, eight))
    short = Model(blob).arena_bytes - 16
    with pytest.raises(ModelError, match="contradicts"):
        Model(changed(blob, Section.TENSORS, bytes, short))


def test_a_second_section_is_not_read() -> None:
    taken = unpack_blob(hearing())
    extra = Part(Section.FRONTEND, b"", 1)
    model = Model(pack_blob(taken.header, (*taken.parts, extra)))
    assert (
        model.run(clips(1)[..., None])[0].tolist()
        == Model(hearing()).run(clips(1)[..., None])[0].tolist()
    )


def test_what_cannot_be_compiled_says_why() -> None:
    scaling = InputScaling("int16", 1 / 255, frontend=MEL)
    with pytest.raises(ModelError, match=r"\[14, 20, 1\] features"):
        compile_model(net(), spec=InputSpec(scaling, frame_shape=(SAMPLES - 128, 1)))
    with pytest.raises(DataError, match="no sound"):
        compile_model(net(), spec=InputSpec(scaling, frame_shape=(SAMPLES, 2)))
    with pytest.raises(DataError, match="no sound"):
        compile_model(net(), spec=InputSpec(scaling))
    with pytest.raises(DataError, match="takes int16"):
        InputScaling("uint8", 1.0, frontend=MEL)


def test_scaling_and_its_json() -> None:
    scaling = InputScaling("int16", 2 / 255, -1.0, MEL)
    assert InputScaling.from_json(scaling.to_json()) == scaling
    sound = clips()
    wanted = MEL.features(sound).astype(np.float32) * np.float32(2 / 255) - 1
    assert np.array_equal(scaling.apply(sound[..., None]), wanted)
    assert np.array_equal(scaling.apply(sound[0]), wanted[0])
    assert "frontend" not in InputScaling("uint8", 1.0).to_json()
    broken = scaling.to_json()
    broken["frontend"]["fft"] = 100
    with pytest.raises(ModelError, match="no usable input scaling"):
        InputScaling.from_json(broken)


def test_a_device_scores_raw_sound(tmp_path: Path) -> None:
    """The whole firmware as a process: the frame goes over the line as samples."""
    from drip.device import connect
    from drip.device.launch import launch_native, native_binary

    try:
        native_binary()
    except Exception as error:
        pytest.skip(f"needs drip-native ({error}): make setup")
    path = tmp_path / "m.drip"
    path.write_bytes(hearing())
    model = Model(hearing())
    with launch_native(model=path) as device, connect(device.url) as client:
        for clip in clips():
            result = client.score(clip[:, None])
            wanted = model.score(clip[:, None])
            assert (result.raw_score, result.class_1, result.logit_1) == (
                wanted.raw,
                wanted.class_1,
                wanted.logit_1,
            )


def test_a_device_tries_the_front_end_before_it_takes_a_model(tmp_path: Path) -> None:
    """The self-test of a push goes through the tables that the push brought."""
    from drip.deploy import deploy
    from drip.device import connect
    from drip.device.launch import launch_native, native_binary

    try:
        native_binary()
    except Exception as error:
        pytest.skip(f"needs drip-native ({error}): make setup")
    good = hearing()
    taken = unpack_blob(good)
    part = taken.find(Section.FRONTEND)
    assert part is not None
    # Another edge between two bands: a front-end that the core takes, but not the model's.
    edges = BlobFrontend.SIZE + 2 * (128 + MEL.fft // 4 + 1)
    moved = bytearray(part.content)
    moved[edges + 10] += 1
    bad = changed(good, Section.FRONTEND, lambda _: bytes(moved))
    with launch_native(flash=tmp_path / "flash") as device, connect(device.url) as client:
        with pytest.raises(DeviceError) as caught:
            deploy(client, bad)
        assert caught.value.code == Err.SELFTEST
        assert deploy(client, good).after_id == unpack_blob(good).header.model_id
        clip = clips(1)[0][:, None]
        assert client.score(clip).raw_score == Model(good).score(clip).raw
