"""The benchmark decides as the firmware does: 500 frames through the native device, one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install .[train]")
from device_board import digits_model, new_card

from drip.bench.select_data import load_pool, make_view
from drip.bench.select_decide import decide
from drip.bench.select_plan import Policy
from drip.calibrate import calibrate
from drip.device import connect
from drip.device.launch import launch_native, native_binary
from drip.errors import DripError

try:
    native_binary()
except DripError as error:
    pytest.skip(f"{error}: {error.hint}", allow_module_level=True)

KEEP = 0.4
TRACKER = {"POLICY_KIND": "TARGET", "TARGET": "@keep", "REDUNDANCY": 65536}


@pytest.mark.parametrize("score", ["CAM_EVIDENCE", "MARGIN", "RANDOM"])
def test_500_frames_through_the_native_firmware(tmp_path: Path, score: str) -> None:
    view = make_view(load_pool("digits", tmp_path), 0, "bursty")
    view = type(view)(
        view.fit, view.calibration, view.validation, view.test, view.stream.take(np.arange(500)),
        view.labels[:500], view.item[:500], view.phase[:500],
    )  # fmt: skip
    policy = Policy("p", settings={"SCORE_KIND": score, "RANDOM_SHARE": 3277, **TRACKER})
    expected = decide(digits_model(), view, (policy,), KEEP)["p/keep"]
    card, model = tmp_path / "card.img", tmp_path / "model.drip"
    card.write_bytes(bytes(new_card(8192).data))
    ready = calibrate(digits_model(), view.calibration, target_ratio=KEEP, force=True)
    model.write_bytes(ready.blob)
    with launch_native(card=card, model=model) as device, connect(device.url) as client:
        client.config_set(policy.resolve(KEEP))
        kept = np.array([client.feed(frame).keep for frame in view.stream.x], bool)
    assert (kept == expected).all()
    assert 0.25 < kept.mean() < 0.55
