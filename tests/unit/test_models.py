"""Reference models: the committed one is what the sources make, and every recipe runs."""

from __future__ import annotations

import copy
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from drip.compile import compile_model
from drip.core import Model
from drip.errors import ModelError
from drip.inspect import inspect_blob

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
DIGITS = MODELS / "digits"
BUILT = ROOT / "build" / "models"
RECIPES: dict[str, Any] = tomllib.loads((MODELS / "recipes.toml").read_text())

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")

# Features, hidden units and million multiplications of each recipe.
HEADS: dict[str, tuple[tuple[int, int, int] | None, int, float]] = {
    "digits": ((4, 4, 24), 0, 0.15),
    "digits-hidden": ((4, 4, 24), 32, 0.15),
    "digits-flatten": ((4, 4, 24), 24, 0.16),
    "imu-50x6": ((1, 13, 32), 0, 0.10),
    "imu-128x3": ((1, 32, 32), 0, 0.23),
    "ds-cnn": ((25, 5, 64), 0, 2.66),
    "ds-cnn-49x40": ((25, 20, 64), 0, 10.62),
    "mobilenet": ((3, 3, 256), 0, 7.49),
    "resnet8": ((8, 8, 64), 0, 12.50),
    "wakeword": ((15, 1, 128), 32, 0.83),
    "autoencoder": (None, 0, 0.26),
}


def load_script(name: str) -> Any:
    """A module beside the recipes, which is no package."""
    spec = importlib.util.spec_from_file_location(f"models_{name}", MODELS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def vectors_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "vectors.json").read_text())
    return found


def test_every_recipe_is_tested() -> None:
    assert set(HEADS) == set(RECIPES)


def test_the_committed_blob_is_what_the_compiler_makes() -> None:
    done = subprocess.run(
        [sys.executable, str(MODELS / "make.py"), "--check"], capture_output=True, text=True
    )
    # What it prints is the list of stale files.
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert sum(path.stat().st_size for path in DIGITS.iterdir()) < 50_000


def test_vectors_hold_on_this_machine() -> None:
    vectors = vectors_of(DIGITS)
    assert len(vectors["vectors"]) == 18
    assert all(len(v["tensors"]) == 6 and "cam" in v for v in vectors["vectors"])
    assert load_script("vectors").differences(vectors, (DIGITS / "model.drip").read_bytes()) == []


@pytest.mark.parametrize("field", ["input", "logits", "classes", "cam", "scores", "tensors"])
def test_a_wrong_vector_is_noticed(field: str) -> None:
    wrong = copy.deepcopy(vectors_of(DIGITS))
    vector = wrong["vectors"][3]
    if field == "tensors":
        vector["tensors"]["13"] = "00000000"
    elif field == "cam":
        vector["cam"]["crc"] = "00000000"
    elif field == "scores":
        vector["scores"]["margin"] += 1
    else:
        vector[field] = None
    found = load_script("vectors").differences(wrong, (DIGITS / "model.drip").read_bytes())
    assert found == [f"frame 3: {'tensor features' if field == 'tensors' else field}"]


def test_stale_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    folder.mkdir()
    for path in DIGITS.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    blob = compile_model((folder / "model.tflite").read_bytes(), source_name="other")
    (folder / "model.drip").write_bytes(blob)
    done = subprocess.run(
        [sys.executable, str(MODELS / "make.py"), "--check", "-o", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert [line.split(": ")[1] for line in done.stdout.splitlines()] == [
        "the compiler makes other bytes (--derive)",
        "sizes or hashes differ (--derive)",
    ]


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest) -> Path:
    """The folder of a recipe's model, trained only when its recipe or the sources changed."""
    name = request.param
    for module, extra in (("tensorflow", "train"), ("tflite_micro", "verify")):
        pytest.importorskip(module, reason=f"needs {module}: pip install .[{extra}]")
    command = [sys.executable, str(MODELS / "make.py"), name, "--cached", "-o", str(BUILT)]
    subprocess.run(command, check=True, capture_output=True)
    return BUILT / str(name)


@pytest.mark.slow
@pytest.mark.parametrize("made", RECIPES, indirect=True)
def test_every_recipe_compiles_runs_and_verifies(made: Path) -> None:
    from drip.verify import verify

    tflite, blob = ((made / f"model.{kind}").read_bytes() for kind in ("tflite", "drip"))
    features, hidden, millions = HEADS[made.name]
    info = inspect_blob(blob)
    assert (info.features, info.hidden) == (features, hidden)
    assert info.macs / 1e6 == pytest.approx(millions, abs=0.006)
    assert info.arena_bytes > 0 and info.live_bytes > 0
    if features is None:
        with pytest.raises(ModelError, match="no Grad-CAM head") as caught:
            compile_model(tflite)
        assert "--no-cam" in caught.value.hint
        with pytest.raises(ModelError, match="no two classes"):
            Model(blob).score(np.zeros(640, np.int8))
    report = verify(tflite, inputs=50, blob=blob)
    assert (report.inputs, report.mismatches) == (50, 0)
    vectors = vectors_of(made)
    assert load_script("vectors").differences(vectors, blob) == []
    model = Model(blob)
    assert model.selftest() == info.golden_inputs == 3
    assert model.has_cam == (features is not None)


@pytest.mark.slow
@pytest.mark.parametrize("made", ["digits"], indirect=True)
def test_the_committed_model_can_be_made_again(made: Path) -> None:
    """Byte for byte with the versions that made it; other versions must be as good."""
    versions = [
        json.loads((folder / "manifest.json").read_text())["versions"] for folder in (made, DIGITS)
    ]
    accuracy = json.loads((made / "manifest.json").read_text())["keras_accuracy"]
    assert accuracy > 0.95
    if versions[0] == versions[1]:
        size = (made / "model.tflite").stat().st_size
        assert size == (DIGITS / "model.tflite").stat().st_size
