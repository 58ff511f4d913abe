"""Data sets: files, splits, hashes and input scaling."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drip.data import (
    DIGITS_SCALING,
    Dataset,
    InputScaling,
    count_shared_samples,
    default_scaling,
    digits,
    load_npz,
    sample_hashes,
    save_npz,
    split,
)
from drip.errors import DataError, DripError, ModelError


def make(n: int = 60, classes: int = 3, *, seed: int = 0, groups: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, 4, 3, 1)).astype(np.uint8)
    names = tuple(f"class {c}" for c in range(classes))
    group = np.arange(n) % groups if groups else None
    return Dataset(x, np.arange(n) % classes, names, group)


def assert_one_line(error: DripError) -> None:
    assert error.message and "\n" not in error.message
    assert error.hint and "\n" not in error.hint


def test_digits_are_as_captured() -> None:
    data = digits()
    assert data.x.shape == (1797, 8, 8, 1)
    assert data.x.dtype == np.uint8
    assert (data.x.min(), data.x.max()) == (0, 16)
    assert data.classes == tuple("0123456789")
    assert np.bincount(data.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    # Splits are disjoint by content only if no two frames are the same.
    assert len(set(sample_hashes(data.x))) == 1797


def test_take_and_concat_keep_frames_and_labels() -> None:
    data = make(groups=5)
    picked = data.take([7, 0, 7])
    assert np.array_equal(picked.x, data.x[[7, 0, 7]])
    assert picked.y.tolist() == [1, 0, 1]
    assert picked.group is not None and picked.group.tolist() == [2, 0, 2]
    assert len(data.take([])) == 0
    joined = Dataset.concat(picked, data.take(data.y == 2))
    assert len(joined) == 3 + 20
    assert np.array_equal(joined.x[3:], data.x[data.y == 2])


def test_concat_refuses_other_frames_and_classes() -> None:
    data = make()
    wide = Dataset(data.x.astype(np.int16), data.y, data.classes)
    renamed = Dataset(data.x, data.y, ("a", "b", "c"))
    for other in (wide, renamed):
        with pytest.raises(DataError) as caught:
            Dataset.concat(data, other)
        assert_one_line(caught.value)


def test_digest_sees_every_field_but_not_memory_layout() -> None:
    data = make()
    same = Dataset(np.asfortranarray(data.x), data.y.copy(), data.classes)
    assert same.digest() == data.digest()
    assert len(data.digest()) == 64
    x = data.x.copy()
    x[5, 1, 1, 0] ^= 1
    y = data.y.copy()
    y[0] = -1
    others = [
        Dataset(x, data.y, data.classes),
        Dataset(data.x, y, data.classes),
        Dataset(data.x, data.y, ("a", "b", "c")),
        Dataset(data.x.view(np.int8), data.y, data.classes),
        Dataset(data.x.reshape(60, 3, 4, 1), data.y, data.classes),
    ]
    assert len({data.digest(), *(other.digest() for other in others)}) == 6


def test_npz_round_trip(tmp_path: Path) -> None:
    data = make(groups=4)
    save_npz(tmp_path / "set.npz", data)
    back = load_npz(tmp_path / "set.npz")
    assert back.digest() == data.digest()
    assert back.group is not None and np.array_equal(back.group, np.arange(60) % 4)
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]


def test_npz_with_train_and_test_parts(tmp_path: Path) -> None:
    a, b = make(10), make(6, seed=1)
    np.savez(
        tmp_path / "two.npz",
        x_train=a.x,
        y_train=a.y.astype(np.uint8),
        x_test=b.x.astype(">i2"),
        y_test=b.y,
        classes=np.array(a.classes),
        subject_test=np.arange(6),
    )
    train, test = (load_npz(tmp_path / "two.npz", part=part) for part in ("train", "test"))
    assert train.digest() == a.digest()
    assert test.x.dtype == np.dtype(np.int16) and test.x.dtype.isnative
    assert np.array_equal(test.x, b.x)
    assert test.group is not None and test.group.tolist() == [0, 1, 2, 3, 4, 5]


def test_npz_without_labels_is_unlabelled(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=make(5).x)
    data = load_npz(tmp_path / "x.npz")
    assert data.y.tolist() == [-1] * 5
    assert data.classes == ()


X = make(6).x
Y = make(6).y
NAMES = np.array(["a", "b", "c"])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"frames": X, "y": Y}, "no x_train"),
        ({"x": X.astype(np.float32), "y": Y, "classes": NAMES}, "float32"),
        ({"x": X.astype(np.uint16), "y": Y, "classes": NAMES}, "uint16"),
        ({"x": X[:, 0, 0, 0], "y": Y, "classes": NAMES}, "[6]"),
        ({"x": X[:, :0], "y": Y, "classes": NAMES}, "[6, 0, 3, 1]"),
        ({"x": X, "y": Y[:5], "classes": NAMES}, "6 frames"),
        ({"x": X, "y": Y.astype(np.float64), "classes": NAMES}, "float64"),
        ({"x": X, "y": Y[:, None], "classes": NAMES}, "[6, 1]"),
        ({"x": X, "y": Y + 1, "classes": NAMES}, "1 to 3"),
        ({"x": X, "y": Y - 2, "classes": NAMES}, "-2 to 0"),
        ({"x": X, "y": Y, "classes": np.array(["a", "a", "b"])}, "same name"),
        ({"x": X, "y": Y, "classes": NAMES[None]}, "[1, 3]"),
        ({"x": X, "y": Y, "classes": NAMES, "group": np.arange(5)}, "groups"),
        ({"x": X, "y": np.array([1, "a", 2, 3, 4, 5], object)}, "not a readable"),
    ],
)
def test_unusable_npz_is_one_line(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError) as caught:
        load_npz(tmp_path / "bad.npz")
    assert says in caught.value.message
    assert "bad.npz" in caught.value.message
    assert_one_line(caught.value)


def test_npz_never_unpickles(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "exploded"),)

    (tmp_path / "bomb.npz").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DataError) as caught:
        load_npz(tmp_path / "bomb.npz")
    assert "pickle" not in caught.value.message.replace(str(tmp_path), "")
    assert not (tmp_path / "exploded").exists()


def test_files_that_are_not_npz(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", X)
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    for name in ("bare.npy", "text.npz", "empty.npz", "folder.npz", "missing.npz"):
        with pytest.raises(DataError) as caught:
            load_npz(tmp_path / name)
        assert_one_line(caught.value)
    with pytest.raises(DataError, match="part"):
        load_npz(tmp_path / "bare.npy", part="both")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_npz_loads_equal_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("npz")
    original = make(8)
    save_npz(folder / "set.npz", original)
    content = bytearray((folder / "set.npz").read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (folder / "set.npz").write_bytes(content)
    try:
        loaded = load_npz(folder / "set.npz")
    except DataError as error:
        assert_one_line(error)
    else:
        # A flip in a field of the archive that nobody reads, or in a member's name.
        assert np.array_equal(loaded.x, original.x)


def test_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "set.npz"
    save_npz(target, make(5))
    before = target.read_bytes()

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left") as caught:
        save_npz(target, make(50))
    assert_one_line(caught.value)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["set.npz"]
    with pytest.raises(DataError):
        save_npz(tmp_path / "no" / "folder.npz", make(5))


def test_split_is_exact_disjoint_stratified_and_repeatable() -> None:
    data = digits()
    parts = split(data, seed=3, fit=200, calibration=100, stream=1000, test=400)
    sizes = [len(p) for p in (parts.fit, parts.calibration, parts.stream, parts.test)]
    assert sizes == [200, 100, 1000, 400]
    hashes = [
        h
        for p in (parts.fit, parts.calibration, parts.stream, parts.test)
        for h in sample_hashes(p.x)
    ]
    assert len(set(hashes)) == 1700
    for part, size in zip((parts.fit, parts.stream), (200, 1000), strict=True):
        share = np.bincount(data.y) * size / len(data)
        assert np.abs(np.bincount(part.y) - share).max() <= 1
    again = split(data, seed=3, fit=200, calibration=100, stream=1000, test=400)
    other = split(data, seed=4, fit=200, calibration=100, stream=1000, test=400)
    assert again.fit.digest() == parts.fit.digest() and again.test.digest() == parts.test.digest()
    assert other.fit.digest() != parts.fit.digest()


def test_split_by_fractions_shuffles_each_part() -> None:
    parts = split(make(200), seed=0, fit=0.2, calibration=0.1, stream=0.5, test=0.2)
    assert [len(parts.fit), len(parts.calibration), len(parts.stream), len(parts.test)] == [
        40,
        20,
        100,
        40,
    ]
    assert parts.stream.y.tolist() != sorted(parts.stream.y.tolist())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1000), groups=st.integers(4, 40))
def test_split_never_cuts_a_group(seed: int, groups: int) -> None:
    data = make(240, groups=groups)
    parts = split(data, seed=seed, fit=0.3, calibration=0.1, stream=0.4, test=0.2)
    seen: set[int] = set()
    total = 0
    for part in (parts.fit, parts.calibration, parts.stream, parts.test):
        assert part.group is not None and len(part) > 0
        members = set(part.group.tolist())
        assert not seen & members
        seen |= members
        total += len(part)
    assert total == 240


def test_split_with_many_groups_meets_its_sizes() -> None:
    parts = split(make(600, groups=60), seed=1, fit=200, calibration=100, stream=200, test=100)
    assert [len(parts.fit), len(parts.calibration), len(parts.stream), len(parts.test)] == [
        200,
        100,
        200,
        100,
    ]


@pytest.mark.parametrize(
    "sizes",
    [
        {"fit": 50, "calibration": 50, "stream": 50, "test": 50},
        {"fit": 0, "calibration": 5, "stream": 5, "test": 5},
        {"fit": 1.5, "calibration": 5, "stream": 5, "test": 5},
        {"fit": -3, "calibration": 5, "stream": 5, "test": 5},
        {"fit": 0.001, "calibration": 5, "stream": 5, "test": 5},
    ],
)
def test_split_refuses_impossible_sizes(sizes: dict[str, float]) -> None:
    with pytest.raises(DataError) as caught:
        split(make(), seed=0, **sizes)
    assert_one_line(caught.value)


def test_shared_samples_are_counted() -> None:
    data = make(20)
    assert count_shared_samples(data.x[:10], data.x[10:]) == 0
    assert count_shared_samples(data.x[:12], data.x[10:]) == 2
    # The same bytes in another shape are another frame.
    assert count_shared_samples(data.x.reshape(20, 12), data.x) == 0


def test_scaling_applies_and_survives_json() -> None:
    raw = np.array([[[0, 16]], [[8, 4]]], np.uint8)
    assert DIGITS_SCALING.apply(raw).tolist() == [[[0.0, 1.0]], [[0.5, 0.25]]]
    per_channel = InputScaling("int16", (0.5, 2.0), (1.0, -1.0))
    assert per_channel.apply(np.array([[2, 3]], np.int16)).tolist() == [[2.0, 5.0]]
    assert InputScaling.from_json(per_channel.to_json()) == per_channel
    assert InputScaling.from_json(DIGITS_SCALING.to_json()) == DIGITS_SCALING


def test_scaling_refuses_nonsense() -> None:
    for bad in (0.0, float("nan"), float("inf"), (1.0, 0.0)):
        with pytest.raises(DataError):
            InputScaling("uint8", bad)
    with pytest.raises(DataError):
        InputScaling("float32", 1.0)
    with pytest.raises(DataError, match="int16"):
        DIGITS_SCALING.apply(np.zeros((1, 8, 8, 1), np.int16))
    with pytest.raises(DataError, match="3 channels"):
        InputScaling("uint8", (1.0, 2.0)).apply(np.zeros((1, 4, 4, 3), np.uint8))
    for fields in ({}, {"frame_dtype": "uint8", "scale": "x", "offset": 0}):
        with pytest.raises(ModelError):
            InputScaling.from_json(fields)


def test_default_scaling_fits_the_type() -> None:
    assert default_scaling(make()) == InputScaling("uint8", 1 / 255)
    x = np.random.default_rng(0).normal(1000, 200, (50, 20, 3)).astype(np.int16)
    scaled = default_scaling(Dataset(x, np.zeros(50, np.int64), ("a",))).apply(x)
    assert abs(float(scaled.mean())) < 1e-3
    assert abs(float(scaled.std()) - 1) < 1e-3
    flat = Dataset(np.full((3, 4, 2), 7, np.int16), np.zeros(3, np.int64), ("a",))
    assert np.isfinite(default_scaling(flat).apply(flat.x)).all()


def test_data_and_models_import_without_tensorflow() -> None:
    code = (
        "import sys; import drip.data, drip.models, drip.train, drip.convert;"
        " assert not {'tensorflow', 'keras', 'tflite', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
