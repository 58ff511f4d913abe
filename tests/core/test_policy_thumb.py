"""The small pictures by which near-duplicates are known, against numpy."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from drip._core import ffi, lib
from nets import Engine, Net

from drip.wire import Op


def toward_zero(total: Any, count: int) -> int:
    return int(np.trunc(int(total) / count))


def looks(part: Any) -> Any:
    """At most four lines of a cell, evenly."""
    count = min(4, len(part))
    return part[:: len(part) // count][:count]


def reference(x: Any) -> list[int]:
    """Cells of an int8 input ``[h, w, c]``: 5 x 5 of a picture, stretches of a series."""
    h, w, c = x.shape
    if h == 1 or w == 1:
        series = x.reshape(h * w, c) if h * w > 1 else x.reshape(c, 1)
        apart = series.shape[1] if series.shape[1] <= 14 else 1
        rows = min(8, 28 // apart, len(series))
        cuts = [i * len(series) // rows for i in range(rows + 1)]
        pieces = [looks(series[a:b]) for a, b in itertools.pairwise(cuts)]
        cells = [p[:, k::apart] for p in pieces for k in range(apart)]
    else:
        ys = [i * h // min(h, 5) for i in range(min(h, 5) + 1)]
        xs = [i * w // min(w, 5) for i in range(min(w, 5) + 1)]
        cells = [
            looks(x[a:b, d:e]) for a, b in itertools.pairwise(ys) for d, e in itertools.pairwise(xs)
        ]
    means = [toward_zero(cell.astype(int).sum(), cell.size) for cell in cells]
    centre = toward_zero(sum(means), len(means))
    return [int(np.clip(128 + m - centre, 0, 255)) for m in means]


def engine(h: int, w: int, c: int) -> Engine:
    net = Net()
    x = net.tensor(h, w, c)
    out = net.tensor(h, w, c)
    net.op(Op.REQUANTIZE, x, out, mult0=1 << 30, shift0=1)
    return Engine(net.blob(out))


@pytest.mark.parametrize(
    "shape",
    [(8, 8, 1), (28, 28, 1), (32, 32, 3), (7, 11, 2), (49, 40, 1), (3, 9, 1), (5, 5, 1),
     (128, 1, 6), (1, 128, 3), (90, 1, 9), (1, 40, 14), (40, 1, 15), (1, 1, 30), (1, 1, 4),
     (1, 5, 1)],
)  # fmt: skip
def test_the_picture_is_the_mean_centred_grid(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(2)
    net = engine(*shape)
    size = int(np.prod(shape))
    for low, high in ((-128, 128), (100, 128), (-128, -120)):
        x = rng.integers(low, high, shape).astype(np.int8)
        x[: shape[0] // 2] //= 2
        ffi.memmove(lib.drip_nn_input(net.nn), x.tobytes(), size)
        thumb: Any = ffi.new("drip_thumb_t *")
        cells = lib.drip_policy_thumb(net.nn, thumb)
        assert list(thumb.cell[0:cells]) == reference(x)
        assert not any(thumb.cell[cells:28])


def test_the_distance_is_the_mean_difference_in_sixteenths() -> None:
    a, b = ffi.new("drip_thumb_t *"), ffi.new("drip_thumb_t *")
    a.cell = [255, 0, 128, 133] + [0] * 24
    b.cell = [0, 255, 129, 133] + [0] * 24
    assert lib.drip_policy_distance(a, b, 4) == (255 + 255 + 1) * 16 // 4
    assert lib.drip_policy_distance(a, a, 4) == 0


def test_a_look_costs_nothing_while_the_rule_is_off() -> None:
    net = engine(5, 5, 1)
    policy: Any = ffi.new("drip_policy_t *")
    config: Any = ffi.new("drip_policy_config_t *")
    lib.drip_policy_defaults(config)
    config.redundancy = 0
    assert lib.drip_policy_init(policy, config) == 0
    lib.drip_policy_look(policy, net.nn)
    assert policy.thumb_cells == 0
    config.redundancy = 1
    assert lib.drip_policy_configure(policy, config) == 0
    lib.drip_policy_look(policy, net.nn)
    assert policy.thumb_cells == 25
