"""What `drip retrain` and `drip history` refuse before any work, and what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drip import cli, errors
from drip.data import Dataset, save_npz
from drip.store import REJECT, Store
from drip.store.imports import import_into

CLASSES = tuple("0123456789")
RETRAIN = ["retrain", "store", "--data", "data.npz", "--base", "base.drip"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set, a deployed model, and a store of frames without labels."""
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    from drip.compile import compile_model

    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).integers(0, 17, (210, 8, 8, 1), np.uint8)
    y = np.arange(210) % 10
    save_npz("data.npz", Dataset(x[:200], y[:200], CLASSES))
    save_npz("kept.npz", Dataset(x[200:], np.full(10, -1), CLASSES))
    import_into(Store.open("store", create=True), Path("kept.npz"))
    model = Path(__file__).parents[2] / "models/digits/model.tflite"
    Path("base.drip").write_bytes(compile_model(model.read_bytes()))
    return tmp_path


def test_a_store_without_labels(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(RETRAIN) == errors.DataError.exit_code
    said = capsys.readouterr().err
    assert "no frame of store has a label" in said
    assert "drip label" in said


def test_frames_without_labels_are_told(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install '.[train]'")
    store = Store.open("store")
    keys = store.keys()
    store.append_labels({keys[0]: "1", keys[1]: REJECT}, "test")
    # Stopped by what comes next: a method that there is not.
    assert cli.main([*RETRAIN, "--pruning", "best", "-o", "new.drip"]) == 2
    said = capsys.readouterr().err
    assert "8 of 9 frames have no label and are left out" in said
    assert "no pruning method best" in said


def test_the_first_model_is_not_overwritten_by_default(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("model.drip").write_bytes(b"the parent of base.drip")
    assert cli.main(RETRAIN) == errors.UsageError.exit_code
    assert "name the new model with -o" in capsys.readouterr().err
    assert Path("model.drip").read_bytes() == b"the parent of base.drip"


def test_history_looks_only_where_something_is(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["history", "base.drip"]) == 0
    assert cli.main(["history", "base.drip", "--folder", "nowhere"]) == errors.UsageError.exit_code
    assert "no such folder: nowhere" in capsys.readouterr().err
