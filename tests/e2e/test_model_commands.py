"""The commands that make a model, one after the other, as a user types them."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from drip import cli, config, errors
from drip.data import Dataset, Splits, digits, save_npz, split
from drip.device import connect, launch_native
from drip.label import TruthLabels
from drip.store import Store, StoreRecord

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="TensorFlow is missing: pip install .[train]",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drip.toml, data and a model taken all the way to a calibrated blob."""
    folder = tmp_path_factory.mktemp("project")
    save_npz(folder / "data.npz", digits())
    settings = ["--config", str(folder / "drip.toml")]
    config.write_template(folder / "drip.toml")
    model = str(folder / "model")
    for arguments in (
        ["train", "--steps", "150", "-o", f"{model}.keras", "--json", f"{model}.train", *settings],
        ["convert", f"{model}.keras", *settings],
        ["compile", f"{model}.tflite", "--data", str(folder / "data.npz"), *settings],
        ["calibrate", f"{model}.drip", "-o", f"{model}.calibrated.drip", *settings],
    ):
        assert cli.main(arguments) == 0, arguments
    return folder


@pytest.fixture(scope="module")
def parts() -> Splits:
    """The parts into which the commands cut the data."""
    shares = config.Config().data
    return split(
        digits(),
        seed=shares.seed,
        fit=shares.fit,
        calibration=shares.calibration,
        stream=shares.stream,
        test=shares.test,
    )


@pytest.fixture
def retrain_command(project: Path, parts: Splits, tmp_path: Path) -> list[str]:
    """`drip retrain` of a deployed model with a store of 100 labelled frames."""
    kept = parts.stream.take(range(100))
    store = Store.open(tmp_path / "store", create=True)
    store.append([_record(seq, frame.tobytes()) for seq, frame in enumerate(kept.x)])
    labels = tmp_path / "labels.csv"
    rows = [f"{'ab' * 16}:{n},{kept.classes[y]}\n" for n, y in enumerate(kept.y)]
    labels.write_text("key,label\n" + "".join(rows))
    base = tmp_path / "base.drip"
    base.write_bytes((project / "model.calibrated.drip").read_bytes())
    command = ["retrain", str(tmp_path / "store"), "--base", str(base), "--labels", str(labels)]
    return [*command, "--config", str(project / "drip.toml"), "--margin", "0.05"]


def test_training_reports_what_it_measured(project: Path) -> None:
    figures = json.loads((project / "model.train").read_text())
    assert figures["steps"] == 150
    assert figures["test_size"] == 179
    assert figures["accuracy"] > 0.8


def test_the_core_answers_as_the_labels_say(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob, data = str(project / "model.calibrated.drip"), str(project / "data.npz")
    assert cli.main(["run", blob, data, "--limit", "500", "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["labelled"] == len(figures["class_1"]) == 500
    assert figures["right"] > 400
    assert len(set(figures["percentile"])) > 100


@pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="tflite-micro is missing: pip install .[verify] (Linux x86-64)",
)
def test_every_tensor_equals_the_interpreters(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["verify", str(project / "model.tflite"), "--inputs", "20", "--json", "-"]
    assert cli.main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["inputs"] == 20
    assert figures["mismatches"] == 0
    assert figures["compared"] > 20_000


def test_calibration_refuses_what_was_trained_on(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob, data = project / "model.drip", str(project / "data.npz")
    before = blob.read_bytes()
    assert cli.main(["calibrate", str(blob), "--data", data]) == errors.DataError.exit_code
    assert "were in training" in capsys.readouterr().err
    assert blob.read_bytes() == before


def test_a_damaged_blob_is_refused(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blob = bytearray((project / "model.drip").read_bytes())
    blob[len(blob) // 2] ^= 1
    damaged = tmp_path / "damaged.drip"
    damaged.write_bytes(blob)
    data = str(project / "data.npz")
    assert cli.main(["run", str(damaged), data]) == errors.ModelError.exit_code
    assert "checksum" in capsys.readouterr().err
    assert cli.main(["run", str(tmp_path / "none.drip"), data]) == errors.ModelError.exit_code
    assert cli.main(["compile", str(damaged)]) == errors.ModelError.exit_code
    assert cli.main(["convert", str(damaged), "--representative", data]) == 5
    assert sorted(item.name for item in tmp_path.iterdir()) == ["damaged.drip"]


def test_retraining_needs_a_store(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["retrain", "--config", str(project / "drip.toml")]
    assert cli.main(arguments) == errors.StoreError.exit_code
    assert "drip sync" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="the native device needs POSIX terminals")
def test_kept_frames_and_their_labels_train_the_next_model(
    project: Path, parts: Splits, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pulled from a board, labelled in a CSV file, trained on together with the seed."""
    card, store = str(tmp_path / "card.img"), str(tmp_path / "store")
    labels, model = tmp_path / "labels.csv", tmp_path / "next.keras"
    figures = tmp_path / "next.figures"
    retrain = ["retrain", "--store", store, "--labels", str(labels), "--steps", "20"]
    retrain += ["-o", str(model), "--json", str(figures), "--config", str(project / "drip.toml")]

    def pull(frames: Dataset) -> int:
        with connect(board.url) as client:
            kept = sum(bool(client.feed(frame).keep) for frame in frames.x)
        assert cli.main(["sync", board.url, store]) == 0
        known = TruthLabels(frames.x, [frames.classes[label] for label in frames.y])
        held = Store.open(store).frames()
        rows = zip(held.keys, known.label(held.keys, held.x), strict=True)
        labels.write_text("key,label\n" + "".join(f"{key},{label or ''}\n" for key, label in rows))
        return kept

    assert cli.main(["card", "format", card, "--size", "2M"]) == 0
    with launch_native(card=card, model=project / "model.calibrated.drip") as board:
        kept = pull(parts.stream)
        assert 20 < kept < len(parts.stream)
        assert cli.main(retrain) == 0
        result = json.loads(figures.read_text())
        assert (result["frames_kept"], result["frames_labelled"]) == (kept, kept)
        assert result["steps"] == 20
        before = model.read_bytes()
        leaked = pull(parts.test)
        assert leaked > 0
        capsys.readouterr()
        # What measures must not train.
        assert cli.main(retrain) == errors.DataError.exit_code
        assert f"{leaked} validation frames" in capsys.readouterr().err
        assert model.read_bytes() == before


def test_a_deployed_model_is_replaced_by_a_better_one_only(
    retrain_command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Base, card, history; and a refusal that leaves nothing behind."""
    better, command = tmp_path / "better.drip", retrain_command
    assert cli.main([*command, "--steps", "150", "-o", str(better)]) == 0
    card = json.loads((tmp_path / "better.card.json").read_text())
    assert card["data"]["kept"] == 100 and card["acceptable"]
    assert card["data"]["store"]["records"] == 100

    capsys.readouterr()
    assert cli.main(["history", str(better), "--json", "-"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert [Path(one["file"]).name for one in line] == ["better.drip", "base.drip"]
    assert line[0]["parent"] == line[1]["model_id"] == card["parent"]
    # Nothing answers at that port, but the card is shown first.
    assert cli.main(["deploy", str(better), str(tmp_path / "nothing")]) == 8
    assert "on 179 held-out frames" in capsys.readouterr().err

    worse = tmp_path / "worse.drip"
    command[-1] = "0.0"
    assert cli.main([*command, "--steps", "1", "-o", str(worse)]) == 6
    assert "worse than the deployed one" in capsys.readouterr().err
    assert not list(tmp_path.glob("worse*"))
    assert cli.main([*command, "--steps", "1", "-o", str(worse), "--force"]) == 0
    assert json.loads((tmp_path / "worse.card.json").read_text())["forced"] is True


_STOPPED_BY_ITSELF = """
import os, sys
from drip import cli, retrain

save = retrain._save_checkpoint

def save_and_stop(*state):
    save(*state)
    os.kill(os.getpid(), int(sys.argv[1]))

retrain._save_checkpoint = save_and_stop
sys.exit(cli.main(sys.argv[2:]))
"""


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")
def test_a_stopped_retrain_goes_on_to_the_same_model(
    retrain_command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed and interrupted in the middle: what comes out is bit for bit the same."""
    command = [*retrain_command[:-1], "1.0", "--steps", "150", "-o"]
    assert cli.main([*command, str(tmp_path / "whole.drip")]) == 0
    stopped = tmp_path / "stopped.drip"
    command.append(str(stopped))

    def stop(kind: signal.Signals) -> tuple[int, str]:
        """Exit code and messages of a run that gets a signal after its next epoch."""
        run = [sys.executable, "-c", _STOPPED_BY_ITSELF, str(int(kind)), *command]
        done = subprocess.run(run, stderr=subprocess.PIPE, text=True, timeout=120, check=False)
        assert not stopped.exists()
        return done.returncode, done.stderr

    assert stop(signal.SIGKILL)[0] == -signal.SIGKILL
    code, said = stop(signal.SIGINT)
    assert code == 130
    assert "the same command goes on" in said
    capsys.readouterr()
    assert cli.main(command) == 0
    assert "went on from epoch 2, where it had been stopped" in capsys.readouterr().err
    assert stopped.read_bytes() == (tmp_path / "whole.drip").read_bytes()
    whole_card = (tmp_path / "whole.card.json").read_text()
    assert (tmp_path / "stopped.card.json").read_text() == whole_card
    assert not list(tmp_path.glob(".*")), "no checkpoint is left behind"


def _record(seq: int, frame: bytes) -> StoreRecord:
    return StoreRecord(
        log_uuid="ab" * 16,
        seq=seq,
        device_id="d0",
        boot_id=1,
        time_us=seq,
        utc_us=None,
        time_source="unknown",
        stream_id=0,
        raw_score=0,
        percentile=0,
        policy=0,
        score_kind=0,
        flags=0,
        class_1=0,
        class_2=1,
        logit_1=0,
        logit_2=0,
        model_id="",
        frame=frame,
        dtype="uint8",
        shape=(8, 8, 1),
        scale=1.0,
        offset=0.0,
        header_crc=seq,
        payload_crc=seq,
    )
