"""Why a frame was kept: figures from the core, words for every rule, a picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from drip.errors import DataError, UsageError
from drip.wire import Config, Drop, PolicyKind, Reason, ScoreKind

pytest.importorskip("drip._core", reason="needs the compiled core: make setup")
from drip.core import Model
from drip.explain import draw, explain_frame, explain_record, find_record, rule_of
from drip.store import Store, StoreRecord

BLOB = (Path(__file__).parents[2] / "models" / "digits" / "model.drip").read_bytes()
UUID = "0102030405060708090a0b0c0d0e0f10"


def frame(seed: int = 0) -> np.ndarray:
    model = Model(BLOB)
    rng = np.random.default_rng(seed)
    return rng.integers(0, 17, model.frame_shape).astype(model.frame_dtype)


def record(seed: int = 0, *, model_id: str | None = None) -> StoreRecord:
    model, one = Model(BLOB), frame(seed)
    score = model.score(one)
    return StoreRecord(
        log_uuid=UUID, seq=seed, device_id=None, boot_id=1, time_us=5, utc_us=None,
        time_source="unknown", stream_id=0, raw_score=score.raw, percentile=40000,
        policy=PolicyKind.TARGET, score_kind=ScoreKind.CAM_EVIDENCE,
        flags=Reason.THRESHOLD | Reason.BURST, class_1=score.class_1, class_2=score.class_2,
        logit_1=score.logit_1, logit_2=score.logit_2,
        model_id=model_id or model.model_id[:8].hex(), frame=one.tobytes(), dtype=one.dtype.name,
        shape=one.shape, scale=1.0, offset=0.0, header_crc=1, payload_crc=2 + seed,
    )  # fmt: skip


def test_every_rule_has_words() -> None:
    assert all(rule_of(reason) for reason in Reason)
    assert all(rule_of(0, drop) for drop in Drop if drop != Drop.NONE)
    assert rule_of(Reason.RANDOM_SHARE | Reason.THRESHOLD) == (
        "its score reached the threshold of its class; drawn for the random share"
    )
    assert rule_of(0, 77) == "drop code 77"


def test_a_frame_is_explained_by_what_the_device_does() -> None:
    one = frame()
    model = Model(BLOB)
    score = model.score(one, ScoreKind.RANDOM)
    settings = {
        Config.SCORE_KIND: ScoreKind.RANDOM,
        Config.POLICY_KIND: PolicyKind.THRESHOLD,
        Config.THRESHOLD: score.percentile + 1,
        Config.RANDOM_SHARE: 0,
    }
    found = explain_frame(BLOB, one, settings)
    assert (found.keep, found.rule) == (False, rule_of(0, Drop.SCORE))
    assert (found.raw, found.class_1) == (score.raw, score.class_1)
    assert found.threshold == (score.percentile + 1) / 65535
    assert found.cam is not None and np.array_equal(found.cam, model.cam(one))
    assert found.logits.argmax() == found.class_1
    kept = explain_frame(BLOB, one, settings | {Config.THRESHOLD: score.percentile})
    assert (kept.keep, kept.rule) == (True, rule_of(Reason.THRESHOLD))


def test_a_record_keeps_what_its_board_noted() -> None:
    found = explain_record(BLOB, record())
    assert (found.policy, found.score, found.percentile) == (
        "target",
        "cam_evidence",
        40000 / 65535,
    )
    assert found.rule == rule_of(Reason.THRESHOLD | Reason.BURST)
    assert found.same_model and found.threshold is None
    assert json.loads(json.dumps(found.to_json()))["keep"] is True
    other = explain_record(BLOB, record(model_id="00" * 8))
    assert not other.same_model


def test_records_are_found_by_their_key(tmp_path: Path) -> None:
    store = Store.open(tmp_path, create=True)
    store.append([record(0), record(1)])
    assert find_record(tmp_path, f"{UUID}:1") == record(1)
    assert find_record(tmp_path, f"{UUID[:6]}:0").seq == 0
    with pytest.raises(DataError, match="0 records"):
        find_record(tmp_path, f"{UUID}:7")
    with pytest.raises(UsageError):
        find_record(tmp_path, "x")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures_are_drawn(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install .[train]")
    path = tmp_path / f"x.{suffix}"
    draw(explain_frame(BLOB, frame()), path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == "png" else b"<?xml")
    with pytest.raises(UsageError):
        draw(explain_frame(BLOB, frame()), tmp_path / "x.bmp")


def test_the_command_draws_frames_of_a_file_and_of_the_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install .[train]")
    from drip import cli

    monkeypatch.chdir(tmp_path)
    np.save("one.npy", frame())
    Path("m.drip").write_bytes(BLOB)
    options = ["--set", "policy_kind=none", "-o", "a.png", "--json", "-"]
    assert cli.main(["explain", "m.drip", "one.npy", *options]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["keep"], figures["rule"]) == (False, rule_of(0, Drop.SCHEDULE))
    Store.open("drip-store", create=True).append([record()])
    Path("drip.toml").write_text('[store]\npath = "drip-store"\n')
    assert cli.main(["explain", "m.drip", f"{UUID}:0", "-o", "b.png"]) == 0
    assert Path("a.png").stat().st_size > 5000 < Path("b.png").stat().st_size
    assert cli.main(["explain", "m.drip", f"{UUID}:9"]) == DataError.exit_code
