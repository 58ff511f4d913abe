#!/usr/bin/env python3
"""Integer Grad-CAM of the core against tf.GradientTape, for every kind of head, on real images.

Pass an .npz with x_train, y_train, x_test, y_test, classes and frames of about 28x28, such as
MNIST; none comes with the sources. Without one, scikit-learn's digits are used.
Exit code 1 if any rank correlation is below the bound.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

import own_models as own
from test_cam_float import float_scores, spearman

from drip.compile import compile_model
from drip.convert import convert
from drip.core import Model
from drip.data import DIGITS_SCALING, Dataset, InputScaling, digits, load_npz
from drip.train import train

BOUND = 0.995
TEST = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, help=".npz; default: digits")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.data is None:
        whole, scaling = digits(), DIGITS_SCALING
        fit, test = whole.take(np.arange(900)), whole.take(np.arange(900, 1797))
    else:
        fit, test = load_npz(arguments.data), load_npz(arguments.data, part="test")
        scaling = InputScaling("uint8", 1 / 255)
        fit, test = fit.take(np.arange(len(fit))[:10_000]), test.take(np.arange(len(test))[:TEST])
    print(
        f"{'head':32} {'accuracy':>8} {'frames':>6} {'evidence':>9} {'frames':>6} {'contrast':>9}"
    )
    worst = 1.0
    for name in own.heads(1):
        row = measure(name, fit, test, scaling, arguments.steps, arguments.seed)
        accuracy, results = row
        cells = " ".join(f"{n:6} {rho:9.5f}" for n, rho in results)
        print(f"{name:32} {accuracy:8.3f} {cells}", flush=True)
        worst = min(worst, *(rho for n, rho in results if n > 50))
    print(f"smallest rank correlation {worst:.5f}, bound {BOUND}")
    return 0 if worst >= BOUND else 1


def measure(
    name: str, fit: Dataset, test: Dataset, scaling: InputScaling, steps: int, seed: int
) -> tuple[float, list[tuple[int, float]]]:
    """Accuracy, and frames and rank correlation for evidence and for contrast."""

    def build(shape: tuple[int, ...], classes: int) -> Any:
        return own.with_head(*own.heads(classes)[name], shape=shape)

    trained = train(build, fit, steps=steps, seed=seed, scaling=scaling).model
    model = Model(compile_model(convert(trained, fit.x, scaling=scaling, classes=fit.classes)))
    scores = model.score_all(test.x)
    results = []
    for minus in (None, scores.class_2):
        ours = np.empty(len(test))
        for n, frame in enumerate(test.x):
            other = None if minus is None else int(minus[n])
            units, total = model.cam_units(frame, int(scores.class_1[n]), other)
            ours[n] = total * model.cam_scale / units.size
        real = float_scores(trained, scaling.apply(test.x), scores.class_1, minus)
        some = (ours > 0) & (real > 0)
        results.append((int(some.sum()), spearman(ours[some], real[some])))
    return float((scores.class_1 == test.y).mean()), results


if __name__ == "__main__":
    sys.exit(main())
