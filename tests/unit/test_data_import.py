"""Importing data sets, and streaming those that are larger than memory."""

from __future__ import annotations

import json
import tracemalloc
import wave
import zipfile
from pathlib import Path

import numpy as np
import pytest

from drip.cli import main
from drip.data import load_npz, split
from drip.data.importing import (
    Grouping,
    Table,
    detect,
    import_csv,
    import_images,
    import_jpegpack,
    import_keras,
    import_wav,
    parse_size,
)
from drip.data.npz_stream import NpzWriter, stream_npz
from drip.errors import DataError, UsageError
from drip.frontend import LogMel

PIL = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install pillow")


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (6, 4)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.new("RGB", size, colour).save(path)


def sound(path: Path, samples: np.ndarray, rate: int = 16000, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


# ------------------------------------------------------------------ streaming


def test_what_is_written_is_read_by_both_readers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-999, 999, (50, 4, 3)).astype(np.int16)
    path = tmp_path / "a.npz"
    with NpzWriter(path) as writer:
        for n, frame in enumerate(x):
            writer.add(frame, f"c{n % 3}" if n % 7 else None, f"g{n // 10}")
    whole = load_npz(path)
    assert (whole.x == x).all() and whole.x.dtype == np.int16
    assert whole.classes == ("c1", "c2", "c0") and whole.y[0] == -1 and whole.y[1] == 0
    assert whole.group is not None and whole.group.tolist() == [n // 10 for n in range(50)]
    stream = stream_npz(path)
    parts = list(stream.batches(16))
    assert [len(p) for p in parts] == [16, 16, 16, 2] and len(stream) == 50
    assert (np.concatenate([p.x for p in parts]) == x).all()
    assert (np.concatenate([p.y for p in parts]) == whole.y).all()
    assert (stream.frame_shape, stream.dtype) == ((4, 3), np.int16)
    # Groups survive into a split that never cuts them.
    parts4 = split(whole, seed=0, fit=10, calibration=10, stream=10, test=10)
    groups = [set(p.group.tolist()) for p in (parts4.fit, parts4.test) if p.group is not None]
    assert len(groups) == 2 and not groups[0] & groups[1]


def test_neither_direction_holds_the_frames_in_memory(tmp_path: Path) -> None:
    path, frame = tmp_path / "big.npz", np.zeros((64, 64, 3), np.uint8)
    tracemalloc.start()
    with NpzWriter(path) as writer:
        for n in range(2000):
            frame[0, 0, 0] = n % 251
            writer.add(frame, "a")
    seen = sum(int(p.x[:, 0, 0, 0].sum()) for p in stream_npz(path).batches(64))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == sum(n % 251 for n in range(2000))
    # 24.6 MB of frames.
    assert peak < 8_000_000


def test_a_failed_import_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_bytes(b"old")
    with pytest.raises(DataError, match="a frame is"), NpzWriter(path) as writer:
        writer.add(np.zeros((2, 2), np.uint8), "a")
        writer.add(np.zeros((2, 3), np.uint8), "a")
    with pytest.raises(DataError, match="no frames"), NpzWriter(path):
        pass
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_damaged_files_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        stream_npz(tmp_path / "none.npz")
    path = tmp_path / "a.npz"
    with NpzWriter(path) as writer:
        for _ in range(9):
            writer.add(np.arange(100, dtype=np.uint8), 0)
        writer.name_classes(["a"])
    with zipfile.ZipFile(path) as archive:
        contents = {n: archive.read(n) for n in archive.namelist()}
    contents["x.npy"] = contents["x.npy"][:-50]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    with pytest.raises(DataError, match="truncated"):
        list(stream_npz(path).batches(4))
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match="no readable data set"):
        stream_npz(path)


# ------------------------------------------------------------------ sources


def test_pictures_with_groups(tmp_path: Path) -> None:
    for leaf in (1, 2):
        picture(tmp_path / "in" / "red" / f"leaf{leaf}_0.png", (250, 0, 0))
        picture(tmp_path / "in" / "blue" / f"leaf{leaf}_1.bmp", (0, 0, 250))
    path = tmp_path / "a.npz"
    assert detect(str(tmp_path / "in")) == "images"
    with NpzWriter(path) as writer:
        import_images(tmp_path / "in", writer, size=(3, 5), grouping=Grouping(r"leaf(\d+)_"))
    data = load_npz(path)
    assert data.classes == ("blue", "red") and data.y.tolist() == [0, 0, 1, 1]
    assert data.frame_shape == (3, 5, 3) and data.x[3, 0, 0].tolist() == [250, 0, 0]
    assert data.group is not None and data.group.tolist() == [0, 1, 0, 1]
    with NpzWriter(path) as writer:
        import_images(tmp_path / "in", writer, grey=True)
    assert load_npz(path).frame_shape == (4, 6, 1) and load_npz(path).group is None


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    picture(tmp_path / "in" / "a" / "1.png", (1, 2, 3))
    picture(tmp_path / "in" / "a" / "2.png", (1, 2, 3), (9, 9))
    with pytest.raises(DataError, match=r"2\.png") as caught, NpzWriter(tmp_path / "a") as writer:
        import_images(tmp_path / "in", writer)
    assert "--size" in caught.value.hint
    (tmp_path / "in" / "a" / "3.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="no readable picture"), NpzWriter(tmp_path / "a") as writer:
        import_images(tmp_path / "in", writer, size=(4, 4))
    with pytest.raises(DataError, match="has no group"), NpzWriter(tmp_path / "a") as writer:
        import_images(tmp_path / "in", writer, grouping=Grouping("leaf(x)"))
    with pytest.raises(UsageError, match="marks nothing"):
        Grouping("leaf")
    with pytest.raises(UsageError, match="no size"):
        parse_size("3")


def test_sounds_become_log_mel_pictures_or_samples(tmp_path: Path) -> None:
    pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
    t = np.arange(16000) / 16000
    for n, hz in enumerate((300, 3000)):
        sound(tmp_path / "in" / f"w{n}" / f"abc{n}_nohash_0.wav", 9000 * np.sin(2 * np.pi * hz * t))
    sound(tmp_path / "in" / "w0" / "short_nohash_1.wav", np.full(800, 99))
    path = tmp_path / "a.npz"
    grouping = Grouping("([a-z0-9]+)_nohash")
    with NpzWriter(path) as writer:
        import_wav(tmp_path / "in", writer, front_end=LogMel(), grouping=grouping)
    data = load_npz(path)
    assert data.x.dtype == np.uint8 and data.frame_shape == (49, 40, 1)
    assert data.y.tolist() == [0, 0, 1] and data.group is not None
    assert data.group.tolist() == [0, 1, 2]
    loudest = data.x[[0, 2]].mean(1).argmax(1).ravel()
    assert loudest[0] < 12 < 24 < loudest[1]
    with NpzWriter(path) as writer:
        import_wav(tmp_path / "in", writer, seconds=0.5)
    raw = load_npz(path)
    assert raw.x.dtype == np.int16 and raw.frame_shape == (8000, 1)
    assert raw.x[1, 799, 0] == 99 and raw.x[1, 800:].max() == 0


def test_sounds_that_cannot_be_used(tmp_path: Path) -> None:
    sound(tmp_path / "in" / "a" / "1.wav", np.zeros(100), rate=8000)
    with pytest.raises(DataError, match="8000 Hz, not 16000"), NpzWriter(tmp_path / "a") as writer:
        import_wav(tmp_path / "in", writer, front_end=LogMel())
    sound(tmp_path / "in" / "a" / "1.wav", np.zeros(100), channels=2)
    with pytest.raises(DataError, match="2 channels"), NpzWriter(tmp_path / "a") as writer:
        import_wav(tmp_path / "in", writer)
    (tmp_path / "in" / "a" / "1.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match="no readable WAV"), NpzWriter(tmp_path / "a") as writer:
        import_wav(tmp_path / "in", writer)


def test_windows_of_a_table(tmp_path: Path) -> None:
    rows = ["ax,ay,what,who"]
    for who, start in (("p1", 0), ("p2", 100)):
        rows += [f"{start + n},{-n / 2},{'run' if n >= 8 else 'rest'},{who}" for n in range(16)]
    source = tmp_path / "a.csv"
    source.write_text("\n".join(rows) + "\n")
    table = Table(("ax", "ay"), 8, 4, "what", "who", scale=2.0)
    with NpzWriter(tmp_path / "a.npz") as writer:
        import_csv(source, writer, table)
    data = load_npz(tmp_path / "a.npz")
    # Of three windows per person, the middle one is half and half.
    assert data.classes == ("rest", "run") and data.y.tolist() == [0, 1, 0, 1]
    assert data.group is not None and data.group.tolist() == [0, 0, 1, 1]
    assert data.x.dtype == np.int16 and data.x[2, 0].tolist() == [200, 0]
    assert data.x[1, 1].tolist() == [18, -9]
    with pytest.raises(DataError, match="no column nix"), NpzWriter(tmp_path / "b") as writer:
        import_csv(source, writer, Table(("nix",), 8, 4))
    source.write_text("ax\n1\nx\n")
    with pytest.raises(DataError, match="row 3"), NpzWriter(tmp_path / "b") as writer:
        import_csv(source, writer, Table(("ax",), 2, 1))
    source.write_text("ax\n1\n40000\n")
    with (
        pytest.raises(DataError, match="does not fit 16 bits"),
        NpzWriter(tmp_path / "b") as writer,
    ):
        import_csv(source, writer, Table(("ax",), 2, 1))


def test_folders_of_tables_name_the_class(tmp_path: Path) -> None:
    for name in ("walk/s1_a", "walk/s2_a", "sit/s1_b"):
        file = tmp_path / "in" / f"{name}.csv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("a,b\n" + "\n".join(f"{n},{n}" for n in range(9)) + "\n")
    assert detect(str(tmp_path / "in")) == "csv"
    with NpzWriter(tmp_path / "a.npz") as writer:
        import_csv(tmp_path / "in", writer, Table(("a", "b"), 4, 4), grouping=Grouping(r"(s\d)_"))
    data = load_npz(tmp_path / "a.npz")
    assert data.classes == ("sit", "walk") and data.y.tolist() == [0, 0, 1, 1, 1, 1]
    assert data.group is not None and data.group.tolist() == [0, 0, 0, 0, 1, 1]


def test_a_pack_of_jpegs(tmp_path: Path) -> None:
    import io

    files = []
    for n in range(5):
        buffer = io.BytesIO()
        PIL.new("RGB", (8, 8), (40 * n, 0, 0)).save(buffer, "JPEG")
        files.append(buffer.getvalue())
    head = 0
    while len({f[: head + 1] for f in files}) == 1:
        head += 1
    bodies = [f[head:-2] for f in files]
    arrays = {"classes": np.array(["a", "b"]), "jpeg_header": np.frombuffer(files[0][:head], "u1")}
    for part, own in (("train", bodies[:3]), ("test", bodies[3:])):
        arrays[f"{part}_data"] = np.frombuffer(b"".join(own), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, own)])
        arrays[f"y_{part}"] = np.arange(len(own)) % 2
    np.savez(tmp_path / "p.npz", **arrays)
    with NpzWriter(tmp_path / "a.npz") as writer:
        import_jpegpack(tmp_path / "p.npz", writer)
    train, test = (load_npz(tmp_path / "a.npz", part=p) for p in ("train", "test"))
    assert len(train) == 3 and len(test) == 2 and train.classes == ("a", "b")
    assert abs(int(test.x[1, 4, 4, 0]) - 160) < 6
    assert len(stream_npz(tmp_path / "a.npz", part="test")) == 2
    np.savez(tmp_path / "q.npz", x=np.zeros(3))
    with pytest.raises(DataError, match="no pack of JPEG"), NpzWriter(tmp_path / "b") as writer:
        import_jpegpack(tmp_path / "q.npz", writer)


def test_collections_of_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("keras", reason="needs Keras: pip install .[train]")
    from drip.models.backend import keras

    def load() -> object:
        x = np.arange(5 * 4, dtype=np.uint8).reshape(5, 2, 2)
        return (x[:3], np.array([0, 1, 2])), (x[3:], np.array([[3], [0]]))

    monkeypatch.setattr(keras().datasets.mnist, "load_data", load)
    with NpzWriter(tmp_path / "a.npz") as writer:
        import_keras("mnist", writer)
    test = load_npz(tmp_path / "a.npz", part="test")
    assert test.frame_shape == (2, 2, 1) and test.y.tolist() == [3, 0]
    assert test.classes == ("0", "1", "2", "3")

    def fail() -> object:
        raise OSError("no route to host")

    monkeypatch.setattr(keras().datasets.mnist, "load_data", fail)
    with pytest.raises(DataError, match="no route to host"), NpzWriter(tmp_path / "b") as writer:
        import_keras("mnist", writer)
    with pytest.raises(DataError, match="no collection os"), NpzWriter(tmp_path / "b") as writer:
        import_keras("os", writer)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "in" / "red" / "1.png", (250, 0, 0))
    out = tmp_path / "a.npz"
    given = ["data", "import", str(tmp_path / "in"), "-o", str(out), "--size", "2x2", "--json", "-"]
    assert main(given) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["frames"], facts["classes"], facts["groups"]) == (1, 1, 0)
    assert load_npz(out).frame_shape == (2, 2, 3)
    assert main(["data", "import", str(tmp_path / "none"), "-o", str(out)]) == DataError.exit_code
    assert "nothing to import" in capsys.readouterr().err
    with pytest.raises(UsageError):
        parse_size("x")
