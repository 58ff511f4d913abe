"""The report: from a run folder alone, as one page that needs nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from drip import report
from drip.errors import DataError

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install .[train]")


def arm(label: str, kept: float) -> dict[str, Any]:
    return {
        "label": label,
        "kept_fraction": kept,
        "training_frames": 10,
        "accuracy": 0.5,
        "ci95": [0.4, 0.6],
    }


def result() -> dict[str, Any]:
    return {
        "dataset": "<b>digits</b>",
        "caveat": "a smoke test",
        "seed": 0,
        "frames_seen": 4,
        "frames_kept": 2,
        "saved_fraction": 0.5,
        "retained_verified": True,
        "bit_exact": "150 inputs, every tensor equal",
        "test_size": 10,
        "device_model_after": "00ff",
        "wire_bytes_sync": 1000,
        "wire_bytes_deploy": 2000,
        "arms": {"initial": arm("nothing", 0.0), "full": arm("everything", 1.0)},
        "curve": {"drip": [arm("kept", 0.5)], "random": [arm("random", 0.5)]},
        "stages": [{"name": "train", "seconds": 1.5}],
    }


def frames() -> report.Frames:
    return report.Frames(
        percentile=np.array([0.1, 0.4, 0.8, 0.9]),
        kept=np.array([False, False, True, True]),
        by_chance=np.array([False, False, False, True]),
        thresholds=np.array([0.5, 0.6]),
        images=np.zeros((2, 8, 8), np.float32),
        cams=np.ones((2, 4, 4), np.float32),
        captions=("one", "two"),
        image_kept=np.array([True, False]),
    )


def test_a_page_from_a_run_folder(tmp_path: Path) -> None:
    report.save_run(tmp_path, result(), frames())
    page = report.write_report(tmp_path).read_text()
    assert "&lt;b&gt;digits&lt;/b&gt;" in page and "<b>digits" not in page
    assert page.count('src="data:image/svg+xml;base64,') == page.count("<img ") == 4
    assert "http" not in page
    for text in (
        "2 (50.0%)",
        "40.0% to 60.0%",
        "1,000",
        "2,000",
        "00ff",
        "1.5 s",
        "every tensor equal",
    ):
        assert text in page
    picture = report.write_picture(tmp_path, tmp_path / "frames.png")
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "damage",
    [
        {"arms": {}},
        {"arms": {"initial": {}}},
        {"arms": 1},
        {"bit_exact": None},
        {"curve": {}},
        {"stages": [{}]},
        {"frames_kept": None, "saved_fraction": "x"},
    ],
)
def test_figures_that_are_not_of_a_run_are_refused(tmp_path: Path, damage: dict[str, Any]) -> None:
    report.save_run(tmp_path, result() | damage, frames())
    with pytest.raises(DataError, match="damaged run folder"):
        report.write_report(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["frames.npz", "result.json"]


@pytest.mark.parametrize("name", ["result.json", "frames.npz"])
def test_what_is_missing_or_damaged_is_named(tmp_path: Path, name: str) -> None:
    report.save_run(tmp_path, result(), frames())
    (tmp_path / name).write_bytes(b"{")
    with pytest.raises(DataError, match="damaged run folder"):
        report.load_run(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing"):
        report.load_run(tmp_path)


def test_figures_without_arms_are_refused(tmp_path: Path) -> None:
    report.save_run(tmp_path, result(), frames())
    (tmp_path / "result.json").write_text(json.dumps([]))
    with pytest.raises(DataError, match="no arms"):
        report.load_run(tmp_path)
