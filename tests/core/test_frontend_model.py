"""A model that hears: its frame is raw sound, and the core makes the features before it infers."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip.compile import InputSpec, compile_model
from drip.compile.blob import Part, pack_blob, unpack_blob
from drip.data import InputScaling
from drip.errors import DataError, ModelError
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
