#!/usr/bin/env python3
"""Make reference models from recipes.toml: .tflite, .drip, test vectors and manifest.json each."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from drip.compile import compile_model
from drip.data import DIGITS_SCALING, Dataset, InputScaling, default_scaling, digits, split
from drip.data.files import write_atomic
from drip.tflite_file import read_metadata

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "host" / "drip"
# What decides over the bytes of a .tflite, besides its recipe and the versions of its tools.
SOURCES = ("models/*.py", "data/*.py", "train.py", "convert.py", "tflite_file.py")
VECTORS = 8


def main() -> int:
    recipes = tomllib.loads((HERE / "recipes.toml").read_text())
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(recipes))
    parser.add_argument("--all", action="store_true", help="every recipe")
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="default: beside this file")
    parser.add_argument("--cached", action="store_true", help="train only what has changed")
    parser.add_argument(
        "--derive", action="store_true", help="no training: only what follows from the .tflite"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, name stale files, exit 1 if any"
    )
    arguments = parser.parse_args()
    names = list(recipes) if arguments.all else arguments.names
    if arguments.derive or arguments.check:
        names = names or sorted(p.parent.name for p in arguments.output.glob("*/model.tflite"))
    unknown = [name for name in names if name not in recipes]
    if unknown or not names:
        parser.error(f"choose from {', '.join(recipes)}")
    stale = []
    for name in names:
        folder = arguments.output / name
        if arguments.check:
            stale += stale_files(folder, recipes[name])
        elif arguments.derive:
            derive(folder, recipes[name])
        elif not (arguments.cached and is_current(folder, recipes[name])):
            make(name, recipes[name], folder)
            if arguments.cached:
                write(folder / "key", key_of(recipes[name]).encode())
    for line in stale:
        print(line)
    return 1 if stale else 0


def make(name: str, recipe: dict[str, Any], folder: Path) -> None:
    """Train, convert, compile."""
    from drip.convert import convert
    from drip.models import load_builder
    from drip.train import train

    fit, test, scaling = load(recipe)
    result = train(
        load_builder(recipe["builder"]),
        fit,
        validation=test,
        steps=recipe["steps"],
        seed=recipe["seed"],
        scaling=scaling,
    )
    blob = convert(
        result.model,
        fit.x,
        scaling=scaling,
        classes=fit.classes,
        metadata={"data_digest": fit.digest(), "seed": recipe["seed"], "recipe": name},
    )
    manifest: dict[str, Any] = {
        "recipe": name,
        "data_digest": fit.digest(),
        "versions": read_metadata(blob)["versions"],
    }
    if test is not None:
        manifest["keras_accuracy"] = result.history["validation_accuracy"][0]
        manifest["test_size"] = len(test)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "model.tflite", blob)
    write_json(folder / "manifest.json", manifest)
    derive(folder, recipe)
    print(f"{name}: {len(blob)} bytes, {result.seconds:.1f} s of training")


def derive(folder: Path, recipe: dict[str, Any]) -> None:
    """Compile, make vectors, and list all files with their hashes."""
    from vectors import make_vectors

    tflite = (folder / "model.tflite").read_bytes()
    blob = compiled(tflite, recipe)
    write(folder / "model.drip", blob)
    write_json(folder / "vectors.json", make_vectors(tflite, blob, frames(recipe)), indent=1)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = listed(folder)
    write_json(folder / "manifest.json", manifest)


def stale_files(folder: Path, recipe: dict[str, Any]) -> list[str]:
    """What in a folder is not what the sources make of it now; needs no TensorFlow."""
    from vectors import differences

    tflite, blob = ((folder / f"model.{kind}").read_bytes() for kind in ("tflite", "drip"))
    found = []
    if compiled(tflite, recipe) != blob:
        found.append(f"{folder / 'model.drip'}: the compiler makes other bytes (--derive)")
    for difference in differences(json.loads((folder / "vectors.json").read_text()), blob):
        found.append(f"{folder / 'vectors.json'}: {difference}")
    if json.loads((folder / "manifest.json").read_text())["files"] != listed(folder):
        found.append(f"{folder / 'manifest.json'}: sizes or hashes differ (--derive)")
    return found


def is_current(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether a model was made by these very sources; brings what is derived up to date."""
    path = folder / "key"
    if not path.exists() or path.read_text() != key_of(recipe):
        return False
    derive(folder, recipe)
    return True


def key_of(recipe: dict[str, Any]) -> str:
    """Hash of a recipe and of the code that follows it."""
    sha = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode())
    for pattern in SOURCES:
        for path in sorted(PACKAGE.glob(pattern)):
            sha.update(path.read_bytes())
    return sha.hexdigest()


def compiled(tflite: bytes, recipe: dict[str, Any]) -> bytes:
    """The blob; an autoencoder has no classes and no Grad-CAM."""
    return compile_model(tflite, cam=bool(recipe.get("classes", 1)), source_name="model.tflite")


def listed(folder: Path) -> dict[str, dict[str, Any]]:
    """Sizes and hashes of the files of a model."""
    return {
        name: {
            "bytes": len((folder / name).read_bytes()),
            "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
        }
        for name in ("model.tflite", "model.drip", "vectors.json")
    }


def load(recipe: dict[str, Any]) -> tuple[Dataset, Dataset | None, InputScaling]:
    """Frames to fit, frames to test or None, and their scaling."""
    if recipe["data"] == "digits":
        data = digits()
        parts = split(
            data,
            seed=recipe["seed"],
            fit=recipe["fit"],
            calibration=1,
            stream=1,
            test=recipe["test"],
        )
        return parts.fit, parts.test, DIGITS_SCALING
    rng = np.random.default_rng(recipe["seed"])
    limits = np.iinfo(recipe["dtype"])
    x = rng.integers(limits.min, limits.max + 1, (64, *recipe["frame"])).astype(recipe["dtype"])
    classes = tuple(str(c) for c in range(max(1, recipe["classes"])))
    y = rng.integers(0, len(classes), len(x))
    if recipe["data"] == "patterns":
        pattern = rng.integers(limits.min, limits.max + 1, (len(classes), *recipe["frame"]))
        x = ((pattern[y] + x) // 2).astype(x.dtype)
    data = Dataset(x, y, classes)
    return data, None, default_scaling(data)


def frames(recipe: dict[str, Any]) -> Any:
    """Frames of the vectors: seen ones, random ones, and the two most extreme."""
    fit, test, _ = load(recipe)
    real = (fit if test is None else test).x[:VECTORS]
    limits = np.iinfo(real.dtype)
    noise = np.random.default_rng(1).integers(limits.min, limits.max + 1, real.shape)
    ends = np.stack([np.full(real.shape[1:], end) for end in (limits.min, limits.max)])
    return np.concatenate([real, noise, ends]).astype(real.dtype)


def write(path: Path, content: bytes) -> None:
    """Replace a file."""
    write_atomic(path, lambda file: file.write(content))


def write_json(path: Path, value: Any, indent: int = 2) -> None:
    """Replace a file by JSON."""
    write(path, (json.dumps(value, indent=indent, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    sys.exit(main())
