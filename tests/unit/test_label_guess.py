"""Accepting the model's guesses, and labelling in the terminal."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from test_store import LOG_A, record

from drip import cli
from drip.errors import DataError
from drip.label import confident, terminal
from drip.store import REJECT, RecordKey, Store

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "model.drip"
CLASSES = ("cat", "dog", "eel")


def judged(store: Store, margins: list[int], right: list[bool], first: int = 0) -> None:
    """Frames guessed as cat with these margins; labelled cat, or dog where the guess is wrong."""
    keys = range(first, first + len(margins))
    store.append(
        [
            record(n, class_1=0, logit_1=margin - 100, logit_2=-100, model_id="aa")
            for n, margin in zip(keys, margins, strict=True)
        ]
    )
    labels = {
        RecordKey(LOG_A, n): "cat" if hit else "dog" for n, hit in zip(keys, right, strict=True)
    }
    store.append_labels(labels, "somebody")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


def test_wilson_lower() -> None:
    # By hand for 9 of 10 and z = 1.6449: centre 1.03528, spread 0.20819, over 1.27055.
    assert confident.wilson_lower(9, 10) == pytest.approx(0.6525, abs=5e-4)
    assert confident.wilson_lower(0, 0) == 0.0
    assert confident.wilson_lower(0, 5) == 0.0
    assert confident.wilson_lower(200, 200) == pytest.approx(200 / (200 + 1.6448536**2))


def test_guesses_are_accepted_above_the_margin_that_proved_right(store: Store) -> None:
    # Right above 20, one half right below.
    margins = [n % 40 for n in range(400)]
    judged(store, margins, [m >= 20 or n % 2 == 0 for n, m in enumerate(margins)])
    store.append(
        [
            record(1000 + m, class_1=1, logit_1=m - 100, logit_2=-100, model_id="aa")
            for m in range(40)
        ]
    )
    found = confident.propose(store, CLASSES, 0.97)
    assert found.margin == 20
    assert (found.judged, found.right) == (200, 200)
    assert found.bound == pytest.approx(0.98665, abs=1e-4)
    assert found.labels == {RecordKey(LOG_A, 1000 + m): "dog" for m in range(20, 40)}
    assert (found.left, found.per_class()) == (20, {"dog": 20})
    assert store.labels().keys().isdisjoint(found.labels), "nothing is written unasked"
    assert confident.accept(store, found) == 20
    events = store.query("SELECT DISTINCT source, confidence FROM label_events ORDER BY source")
    assert events["source"].to_pylist() == ["model:margin>=20", "somebody"]
    assert events["confidence"].to_pylist()[0] == pytest.approx(found.bound)
    # Labels that a model gave do not make the next round look better.
    again = confident.propose(store, CLASSES, 0.97)
    assert (again.judged, again.labels) == (200, {})


def test_too_few_labels_show_nothing(store: Store) -> None:
    judged(store, [50] * 20, [True] * 20)
    with pytest.raises(DataError, match="20 labelled frames of this model do not show"):
        confident.propose(store, CLASSES, 0.95)
    assert confident.propose(store, CLASSES, 0.85).judged == 20
    with pytest.raises(DataError, match="cannot be shown"):
        confident.propose(store, CLASSES, 1.0)


def test_rejected_frames_count_as_wrong_and_other_models_do_not_count(store: Store) -> None:
    judged(store, [50] * 40, [True] * 40)
    store.append_labels({RecordKey(LOG_A, n): REJECT for n in range(10)}, "somebody")
    store.append([record(500, class_1=0, model_id="bb")])
    found = confident.propose(store, CLASSES, 0.5, "aa")
    assert (found.judged, found.right, found.labels) == (40, 30, {})


def session(
    store: Store, answers: list[str], everything: bool = False, **options: Any
) -> tuple[int, str]:
    screen = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor")
    given = iter(answers)

    def ask(_: str) -> str:
        try:
            return next(given)
        except StopIteration:
            raise EOFError from None

    frames = terminal.candidates(store, CLASSES, everything)
    written = terminal.label_frames(store, frames, CLASSES, screen, ask, **options)
    assert isinstance(screen.file, io.StringIO)
    return written, screen.file.getvalue()


def test_one_by_one(store: Store) -> None:
    store.append([record(n, class_1=n % 3, percentile=60000 - n) for n in range(6)])
    seen: list[Any] = []

    def cam(x: Any) -> Any:
        seen.append(x)
        return np.array([[0.0, 1.0]])

    answers = ["", "2", "nonsense", "9", "r", "u", "dog", "s"]
    written, shown = session(store, answers, cam=cam)
    labels = {key.seq: label for key, label in store.labels().items()}
    # 0: the guess, 1: by number, 2: rejected, undone, by name; 3: skipped; then the end of input.
    assert labels == {0: "cat", 1: "eel", 2: "dog"}
    assert written == 3
    assert "guess: dog" in shown
    assert "1 of 6" in shown
    assert "score: 0.916" in shown
    assert "Grad-CAM" in shown
    assert [int(x[0, 0]) for x in seen] == [0, 1, 2, 3, 2, 3, 4], "undo shows a frame again"
    again, _ = session(store, ["q"])
    assert again == 0
    assert [c.key.seq for c in terminal.candidates(store, CLASSES)] == [3, 4, 5]
    assert len(terminal.candidates(store, CLASSES, everything=True)) == 6


def test_labels_survive_an_interruption(store: Store) -> None:
    store.append([record(n, class_1=0) for n in range(30)])
    frames = terminal.candidates(store, CLASSES)
    calls = iter(range(100))

    def ask(_: str) -> str:
        if next(calls) == 20:
            raise KeyboardInterrupt
        return "1"

    with pytest.raises(KeyboardInterrupt):
        terminal.label_frames(store, frames, CLASSES, Console(file=io.StringIO()), ask)
    assert list(store.labels().values()) == ["dog"] * 20
    assert len(list((store.path / "labels").glob("*.parquet"))) == 2, "not one file per label"


@pytest.mark.parametrize(
    ("shape", "columns", "lines"),
    [
        ((8, 8, 1), 24, 12),
        ((32, 32, 3), 32, 16),
        ((50, 6), 6, 25),
        ((7,), 35, 3),
        ((49, 90), 30, 9),
    ],
)
def test_pictures_fit_the_terminal(shape: tuple[int, ...], columns: int, lines: int) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    rows = terminal.draw(values).plain.splitlines()
    assert {len(row) for row in rows} == {columns}
    assert len(rows) == lines


def test_a_drawing_shows_dark_to_bright() -> None:
    text = terminal.draw(np.array([[0, 255], [255, 0]], np.int16), width=2)
    assert text.plain == "▀▀\n"
    assert [str(span.style) for span in text.spans] == [
        "rgb(0,0,0) on rgb(255,255,255)",
        "rgb(255,255,255) on rgb(0,0,0)",
    ]


# ------------------------------------------------------------------ commands


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.chdir(tmp_path)
    shutil.copy(DIGITS, tmp_path / "m.drip")
    return lambda *words: cli.main([str(word) for word in words])


def test_commands_of_the_store(
    command: Callable[..., int], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.append([record(n, class_1=n) for n in range(3)])
    store.append_labels({RecordKey(LOG_A, 0): "3"}, "x")
    assert command("store", "stats", "store", "--json", "-") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["frames"], figures["bytes"], figures["labels"]) == (3, 18, {"3": 1})
    assert figures["devices"][0]["labelled"] == 1
    assert command("store", "ls", "store", "--limit", 2, "--json", "-") == 0
    assert [row["key"] for row in json.loads(capsys.readouterr().out)] == [
        f"{LOG_A}:2",
        f"{LOG_A}:1",
    ]
    assert command("store", "ls", "store") == 0
    assert f"{LOG_A}:2" in capsys.readouterr().out, "a key in full, to be passed on"
    assert command("store", "sql", "SELECT max(seq) AS m FROM frames", "--store", "store") == 0
    assert "2" in capsys.readouterr().out
    assert command("store", "sql", "SELECT 1 FROM nowhere", "--store", "store") == 11
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    assert "DESCRIBE frames" in captured.err
    assert (
        command("store", "export", "out", "--as", "studio", "--model", "m.drip", "--store", "store")
        == 0
    )
    assert len(json.loads((tmp_path / "out/tasks.json").read_text())) == 3
    # The keys mean nothing there; the pictures do.
    capsys.readouterr()
    assert command("store", "import", "out", "--store", "copied", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == {"known_frames": 0, "labels": 1, "new_frames": 3}
    for picture in (tmp_path / "out/frames").iterdir():
        picture.unlink()
    assert command("store", "import", "out/tasks.json", "--store", "fresh") == 4
    assert "--files" in capsys.readouterr().err
    assert not (tmp_path / "fresh").exists()
    assert command("store", "export", "sorted", "--labelled", "--store", "store") == 0
    assert command("store", "import", "sorted", "--store", "fresh", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1]) == {
        "known_frames": 0,
        "labels": 1,
        "new_frames": 1,
    }


def test_commands_of_labels(
    command: Callable[..., int], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.append([record(n, class_1=3, logit_1=50, logit_2=0) for n in range(60)])
    (tmp_path / "labels.csv").write_text(
        "key,label\n" + "".join(f"{LOG_A}:{n},3\n" for n in range(50))
    )
    assert command("label", "store", "--from", "labels.csv") == 0
    assert len(store.labels()) == 50
    assert command("label", "store", "--model", "m.drip", "--accept", "0.9") == 2
    assert "add --yes" in capsys.readouterr().err
    assert len(store.labels()) == 50
    assert command("label", "store", "--model", "m.drip", "--accept", "0.9", "--yes") == 0
    assert len(store.labels()) == 60
    assert command("label", "store") == 2
    assert command("label", "store", "--from", "x", "--accept", "0.9") == 2
    assert command("label", "nowhere", "--from", "labels.csv") == 11
