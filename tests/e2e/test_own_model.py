"""The commands of the tutorial on own models, exactly as it prints them."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

import pytest
from written import run

from drip.inspect import inspect_blob

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"


def commands_of(name: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", (TUTORIALS / name).read_text(), re.M | re.S)


def test_the_tutorial_runs_every_command_it_is_about() -> None:
    text = "".join(commands_of("own-model.md"))
    for command in ("train", "convert", "compile", "verify", "inspect", "calibrate", "run"):
        assert f"\ndrip {command} " in text
    assert len(commands_of("own-model.md")) == 5


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(os.name == "nt", reason="the tutorial is written for a POSIX shell")
@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tensorflow", "sklearn", "tflite_micro")),
    reason="needs TensorFlow and tflite-micro: pip install .[train,verify]",
)
def test_own_model(tmp_path: Path) -> None:
    printed = run("\n".join(commands_of("own-model.md")), tmp_path)
    work = tmp_path / "work"
    infos = [inspect_blob((work / f"{name}.drip").read_bytes()) for name in ("mobilenet", "other")]
    for info in infos:
        assert info.cam_head == "direct"
        assert info.features == (3, 3, 128)
        assert info.classes == tuple(f"digit {n}" for n in range(10))
        assert info.frame_scale == pytest.approx(1 / 255, rel=0.01)
    assert infos[0].calibration and not infos[1].calibration
    assert infos[1].operators[-1] == "SOFTMAX"
    right = [int(n) for n in re.findall(r"(\d+) of 397 labelled ones are right", printed)]
    assert len(right) == 2
    assert min(right) > 250
    assert abs(right[0] - right[1]) < 20
