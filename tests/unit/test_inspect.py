"""What drip inspect says of a blob, against the blob itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from drip import cli, wire
from drip.compile import compile_model
from drip.core import Model
from drip.errors import ModelError
from drip.inspect import inspect_blob, slow_layer_text, slow_layers

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")

DIGITS = Path(__file__).parents[2] / "models" / "digits"


def test_the_digits_model() -> None:
    info = inspect_blob((DIGITS / "model.drip").read_bytes())
    model = Model((DIGITS / "model.drip").read_bytes())
    assert info.model_id == model.model_id.hex()
    assert info.total_bytes == (DIGITS / "model.drip").stat().st_size
    assert info.classes == tuple("0123456789")
    assert (info.frame_dtype, info.frame_shape, info.frame_scale) == ("u8", (8, 8, 1), 1 / 16)
    assert (info.cam_head, info.features, info.hidden) == ("direct", (4, 4, 24), 0)
    assert info.arena_bytes == model.arena_bytes
    kinds = [layer.kind for layer in info.layers]
    assert kinds == ["CONV_2D", "MAX_POOL_2D", "CONV_2D", "CONV_2D", "MEAN", "FULLY_CONNECTED"]
    macs = [8 * 8 * 9 * 16, 0, 16 * 9 * 16 * 24, 16 * 9 * 24 * 24, 0, 240]
    assert [layer.macs for layer in info.layers] == macs
    assert info.macs == sum(macs)
    assert info.layers[-1].output == (1, 1, 10)
    assert info.provenance["recipe"] == "digits"


def test_a_layer_that_no_step_can_cut_is_named() -> None:
    info = inspect_blob((DIGITS / "model.drip").read_bytes())
    assert slow_layers(info) == []
    layer = info.layers[2]
    # Four output positions of 3x3x16 taps and 24 channels.
    assert layer.unit_macs == 4 * 9 * 16 * 24
    wide = dataclasses.replace(layer, unit_macs=600_000)
    slow = slow_layers(dataclasses.replace(info, layers=(layer, wide)))
    assert slow == [wide]
    assert "600,000 MACs in one piece" in slow_layer_text(wide)
    assert "about 10 ms" in slow_layer_text(wide)


def test_the_arena_map_holds_every_tensor_while_it_lives() -> None:
    info = inspect_blob((DIGITS / "model.drip").read_bytes())
    names = {tensor.name for tensor in info.tensors}
    assert {"features", "logits"} <= names
    for tensor in info.tensors:
        assert tensor.size == np.prod(tensor.shape)
        assert 0 <= tensor.arena_offset <= info.arena_bytes - tensor.size
        assert tensor.first_op <= tensor.last_op <= len(info.layers)
    for n in range(len(info.layers) + 1):
        alive = [t for t in info.tensors if t.first_op < n <= t.last_op]
        alive.sort(key=lambda t: t.arena_offset)
        # Between two operators, no two tensors that are still needed share a byte.
        for first, second in itertools.pairwise(alive):
            assert first.arena_offset + first.size <= second.arena_offset


def test_what_a_hidden_head_needs_lives_to_the_end() -> None:
    from small_model import small

    info = inspect_blob(compile_model(small("hidden")))
    assert (info.cam_head, info.hidden) == ("hidden", 6)
    assert len([t for t in info.tensors if t.last_op == len(info.layers)]) == 3


def test_calibration_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sklearn = pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
    assert sklearn
    from drip.calibrate import calibrate
    from drip.data import digits

    blob = compile_model((DIGITS / "model.tflite").read_bytes())
    report = calibrate(blob, digits().take(np.arange(300)), target_ratio=0.25)
    path = tmp_path / "model.drip"
    path.write_bytes(report.blob)
    facts = tmp_path / "facts.json"
    assert cli.main(["inspect", str(path), "--json", str(facts)]) == 0
    printed = capsys.readouterr().out
    for words in ("direct, features 4x4x24", "FULLY_CONNECTED", "arena", "25.0%", "cam_evidence"):
        assert words in printed
    read = json.loads(facts.read_text())
    assert read == json.loads(json.dumps(inspect_blob(report.blob).to_json()))
    assert read["macs"] == 147_696
    assert len(read["calibration"]) == len(wire.ScoreKind)
    assert read["calibration"][0]["samples"] == 300
    assert len(read["calibration"][0]["thresholds"]) == 10


def test_damage_is_one_line() -> None:
    blob = bytearray((DIGITS / "model.drip").read_bytes())
    blob[5000] ^= 4
    with pytest.raises(ModelError, match="damaged") as caught:
        inspect_blob(bytes(blob))
    assert "\n" not in caught.value.message and caught.value.hint
