"""Data sets from what people have: folders of pictures or sounds, tables, and known collections.

Every importer reads one item after the other and hands it to an :class:`~drip.data.npz_stream.
NpzWriter`, so that a source may be larger than memory. Frames stay as captured, in integers.
"""

from __future__ import annotations

import csv
import io
import re
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drip.data.dataset import cannot_read, read_arrays
from drip.data.npz_stream import NpzWriter
from drip.errors import DataError, MissingDependencyError, UsageError
from drip.frontend import LogMel

KINDS = ("images", "wav", "csv", "keras", "jpegpack")
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")

_PACK = (
    "jpeg_header", "classes", "train_data", "train_offsets", "y_train",
    "test_data", "test_offsets", "y_test",
)  # fmt: skip
_PACK_HINT = "an .npz of frames is a data set already; a pack of JPEGs holds jpeg_header and more"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Grouping:
    """Where the group key of a file comes from.

    Attributes:
        pattern: Regular expression that is searched in the path below the source folder, with
            forward slashes; its first parenthesis is the key, e.g. ``"([0-9a-f]+)_nohash"`` for
            the speaker of a Speech Commands clip. None = no groups.
    """

    pattern: str | None = None

    def __post_init__(self) -> None:
        try:
            groups = re.compile(self.pattern or "()").groups
        except re.error as error:
            raise UsageError(f"the group pattern is no regular expression: {error}", "") from error
        if groups < 1:
            raise UsageError("the group pattern marks nothing", "put parentheses around the key")

    def key(self, name: str) -> str | None:
        """The key of a file.

        Raises:
            DataError: The pattern does not occur in the name.
        """
        if self.pattern is None:
            return None
        found = re.search(self.pattern, name)
        if found is None or found[1] is None:
            raise DataError(f"{name} has no group", f"the pattern is {self.pattern}")
        return found[1]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Height and width of ``"HxW"``.

    Raises:
        UsageError: It is something else.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise UsageError(f"{text} is no size", "write HEIGHTxWIDTH, for example 48x48")
    return int(found[1]), int(found[2])


def detect(source: str) -> str:
    """Guess the kind of a source.

    Raises:
        DataError: Nothing that can be imported is there.
    """
    if source.startswith("keras:"):
        return "keras"
    path = Path(source)
    if path.suffix == ".npz":
        return "jpegpack"
    if path.suffix == ".csv":
        return "csv"
    for file in path.rglob("*") if path.is_dir() else ():
        suffix = file.suffix.lower()
        if suffix in IMAGES:
            return "images"
        if suffix in (".wav", ".csv"):
            return suffix[1:]
    raise DataError(
        f"nothing to import in {source}",
        "expected a folder of classes with pictures or .wav files, .csv, .npz, or keras:NAME",
    )


def import_images(
    source: Path,
    writer: NpzWriter,
    *,
    size: tuple[int, int] | None = None,
    grey: bool = False,
    grouping: Grouping | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Pictures in one folder per class.

    Args:
        source: Folder of folders; a class is named by the first folder below it.
        writer: Takes uint8 ``[height, width, 3 or 1]``.
        size: Height and width to resize to; None = as they are, which must be all alike.
        grey: One channel.
        grouping: Of the files.
        on_progress: Called with (files done, files).

    Raises:
        DataError: A file is no picture, or there are none.
        MissingDependencyError: Pillow is not installed.
    """
    image = _pillow()
    for path, name, label in _files(source, IMAGES, writer, on_progress):
        try:
            with image.open(path) as picture:
                pixels = picture.convert("L" if grey else "RGB")
                if size is not None:
                    pixels = pixels.resize((size[1], size[0]), image.Resampling.LANCZOS)
                frame = np.asarray(pixels, np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise DataError(f"{path} is no readable picture", "remove it") from error
        frame = frame[:, :, None] if frame.ndim == 2 else frame
        try:
            writer.add(frame, label, (grouping or Grouping()).key(name))
        except DataError as error:
            hint = "resize: --size HEIGHTxWIDTH" if size is None else error.hint
            raise DataError(f"{path}: {error.message}", hint) from error


def import_wav(
    source: Path,
    writer: NpzWriter,
    *,
    front_end: LogMel | None = None,
    seconds: float = 1.0,
    grouping: Grouping | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Sounds in one folder per class, as log-mel pictures or as samples.

    Args:
        source: Folder of folders of 16-bit mono WAV files.
        writer: Takes uint8 ``[windows, mels, 1]``, or int16 ``[samples, 1]``.
        front_end: Makes the features; None = keep the samples.
        seconds: Clips are cut to this length, or filled with zeros.
        grouping: Of the files.
        on_progress: Called with (files done, files).

    Raises:
        DataError: A file is of another format or rate, or there are none.
    """
    rate = front_end.sample_rate if front_end is not None else 0
    for path, name, label in _files(source, (".wav",), writer, on_progress):
        samples, own = _read_wav(path)
        rate = rate or own
        if own != rate:
            raise DataError(f"{path} has {own} Hz, not {rate}", "resample it, or set --rate")
        length = round(seconds * rate)
        clip = np.zeros(length, np.int16)
        clip[: len(samples)] = samples[:length]
        frame = clip[:, None] if front_end is None else front_end.features(clip)
        writer.add(frame, label, (grouping or Grouping()).key(name))


def _read_wav(path: Path) -> tuple[NDArray[np.int16], int]:
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getsampwidth(), file.getnchannels()) != (2, 1):
                raise DataError(
                    f"{path} has {file.getnchannels()} channels of {8 * file.getsampwidth()} bits",
                    "convert it to 16-bit mono",
                )
            raw = file.readframes(file.getnframes())
            rate = file.getframerate()
    except (wave.Error, EOFError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is cut off"
        raise DataError(f"{path} is no readable WAV file: {reason}", "remove it") from error
    return np.frombuffer(raw[: len(raw) // 2 * 2], "<i2").astype(np.int16), rate


@dataclass(frozen=True)
class Table:
    """How windows are cut from a table of samples.

    Attributes:
        columns: Names of the channels.
        window, hop: Rows of a window, and from one to the next.
        label: Name of the column with the class; None = the folder, or unlabelled.
        group: Name of the column with the group key; None = the pattern of the files.
        scale: Sample values are multiplied by this and rounded to int16.
        majority: Least share of a window's rows with its label; other windows are left out.
    """

    columns: tuple[str, ...]
    window: int
    hop: int
    label: str | None = None
    group: str | None = None
    scale: float = 1.0
    majority: float = 0.6

    def __post_init__(self) -> None:
        if not self.columns or self.window < 1 or self.hop < 1 or not 0 < self.majority <= 1:
            raise UsageError("windows need columns, a length and a hop", "see --columns, --window")


def import_csv(
    source: Path,
    writer: NpzWriter,
    table: Table,
    *,
    grouping: Grouping | None = None,
    on_progress: Progress | None = None,
) -> None:
    """Windows of samples from one table, or from a folder of tables, one per recording.

    A change of group inside a table starts a new recording; no window crosses it.

    Args:
        source: File or folder; in a folder, the first folder below it may name the class.
        writer: Takes int16 ``[window, channels]``.
        table: How to cut.
        grouping: Of the files, where no column says it.
        on_progress: Called with (files done, files).

    Raises:
        DataError: A column is missing, or a value is no number or does not fit.
    """
    files: Iterator[tuple[Path, str, str | None]]
    if source.is_file():
        files = iter([(source, source.name, None)])
    else:
        files = _files(source, (".csv",), None, on_progress)
    for path, name, folder in files:
        key = (grouping or Grouping()).key(name)
        for values, labels, group in _recordings(path, table):
            start = 0
            while start + table.window <= len(values):
                at = slice(start, start + table.window)
                label = _majority(labels[at], table.majority) if table.label else folder
                if label is not None or not table.label:
                    writer.add(values[at], label, group if table.group else key)
                start += table.hop


def _recordings(
    path: Path, table: Table
) -> Iterator[tuple[NDArray[np.int16], list[str], str | None]]:
    rows: list[list[int]] = []
    labels: list[str] = []
    last: str | None = None
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            wanted = [*table.columns, *filter(None, (table.label, table.group))]
            missing = [c for c in wanted if c not in (reader.fieldnames or ())]
            if missing:
                raise DataError(
                    f"{path} has no column {', '.join(missing)}",
                    f"it has {', '.join(reader.fieldnames or ('none',))[:200]}",
                )
            for row in reader:
                group = row[table.group] if table.group else None
                if group != last and rows:
                    yield np.array(rows, np.int16), labels, last
                    rows, labels = [], []
                last = group
                rows.append([_integer(row[c], table.scale) for c in table.columns])
                labels.append(row[table.label] if table.label else "")
    except OSError as error:
        raise cannot_read(path, error, "pass a .csv file, or a folder of them") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no text in UTF-8", "save it as CSV, UTF-8") from error
    except (TypeError, ValueError, OverflowError, csv.Error) as error:
        raise DataError(f"{path}, row {len(rows) + 2}: {error}", "mend the table") from error
    if rows:
        yield np.array(rows, np.int16), labels, last


def _integer(text: str, scale: float) -> int:
    value = round(float(text) * scale)
    if not -32768 <= value <= 32767:
        raise ValueError(f"{text} times {scale:g} does not fit 16 bits")
    return value


def _majority(labels: list[str], least: float) -> str | None:
    names, counts = np.unique(labels, return_counts=True)
    best = int(np.argmax(counts))
    return str(names[best]) if counts[best] >= least * len(labels) else None


def import_keras(name: str, writer: NpzWriter) -> None:
    """One of the collections that Keras downloads: mnist, fashion_mnist, cifar10, cifar100.

    Raises:
        DataError: There is no such collection, or it cannot be downloaded.
        MissingDependencyError: Keras is not installed.
    """
    from drip.models.backend import keras

    collection = getattr(keras().datasets, name, None)
    if name not in ("mnist", "fashion_mnist", "cifar10", "cifar100") or collection is None:
        raise DataError(f"no collection {name}", "use mnist, fashion_mnist, cifar10 or cifar100")
    try:
        parts = collection.load_data()
    except Exception as error:
        raise DataError(
            f"{name} cannot be downloaded: {error}".splitlines()[0], "check the network"
        ) from error
    count = int(max(np.max(y) for _, y in parts)) + 1
    writer.name_classes([str(c) for c in range(count)])
    for part, (x, y) in zip(("train", "test"), parts, strict=True):
        for frame, label in zip(x, np.ravel(y), strict=True):
            writer.add(frame if frame.ndim == 3 else frame[..., None], int(label), part=part)


def import_jpegpack(source: Path, writer: NpzWriter, on_progress: Progress | None = None) -> None:
    """An ``.npz`` of JPEG pictures that share one header.

    Arrays: ``jpeg_header``, and per part ``PART_data`` (bytes), ``PART_offsets``, ``y_PART``; and
    ``classes``.

    Raises:
        DataError: The file is of another form.
        MissingDependencyError: Pillow is not installed.
    """
    image = _pillow()
    arrays = read_arrays(source, _PACK_HINT)
    missing = [name for name in _PACK if name not in arrays]
    if missing:
        raise DataError(f"{source} is no pack of JPEG pictures: no {missing[0]}", _PACK_HINT)
    try:
        header = arrays["jpeg_header"].tobytes()
        writer.name_classes([str(c) for c in arrays["classes"]])
        total = len(arrays["y_train"]) + len(arrays["y_test"])
        done = 0
        for part in ("train", "test"):
            data, at = arrays[f"{part}_data"].tobytes(), arrays[f"{part}_offsets"]
            for n, label in enumerate(arrays[f"y_{part}"]):
                picture = header + data[at[n] : at[n + 1]] + b"\xff\xd9"
                frame = np.asarray(image.open(io.BytesIO(picture)).convert("RGB"), np.uint8)
                writer.add(frame, int(label), part=part)
                done += 1
                if on_progress is not None and (done % 500 == 0 or done == total):
                    on_progress(done, total)
    except (OSError, ValueError, IndexError, TypeError) as error:
        reason = (str(error) or "damaged").splitlines()[0][:100]
        raise DataError(f"{source}: its pictures are damaged ({reason})", _PACK_HINT) from error


def _files(
    source: Path, suffixes: tuple[str, ...], writer: NpzWriter | None, on_progress: Progress | None
) -> Iterator[tuple[Path, str, str | None]]:
    """Path, name below the source and class of every file, in order of name."""
    found = sorted(p for p in source.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
    if not found:
        raise DataError(f"no {' '.join(suffixes)} files below {source}", "check the folder")
    names = [p.relative_to(source).as_posix() for p in found]
    classes = [n.split("/")[0] if "/" in n else None for n in names]
    if writer is not None:
        writer.name_classes(sorted({c for c in classes if c is not None}))
    for n, item in enumerate(zip(found, names, classes, strict=True), 1):
        yield item
        if on_progress is not None:
            on_progress(n, len(found))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("pictures need Pillow", "pip install pillow") from error
    return Image
