"""The whole loop on real digits, as ``make demo`` runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from drip import wire

pytestmark = pytest.mark.slow

# 40 s a run on two idle cores; other tests may share them.
TIMEOUT_S = 500


def run_demo(folder: Path, *options: str) -> dict[str, Any]:
    target = folder / "figures.json"
    command = [sys.executable, "-m", "drip", "demo", "--folder", str(folder / "demo")]
    done = subprocess.run(
        [*command, "--json", str(target), *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(target.read_text())
    for shown in ("device_model_before", "device_model_after"):
        assert figures[shown] in done.stdout
    assert "equal to the core's" in " ".join(done.stdout.replace("│", " ").split())
    return figures


def without_times(figures: dict[str, Any]) -> dict[str, Any]:
    """What must repeat. The log's UUID is drawn anew, and with it a few COBS bytes differ."""
    skipped = ("stages", "wire_bytes_sync", "wire_bytes_deploy")
    return {key: value for key, value in figures.items() if key not in skipped}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, run_demo(folder)


def test_the_loop_is_whole(first: tuple[Path, dict[str, Any]]) -> None:
    _, figures = first
    assert figures["frames_seen"] == 900
    assert 0 < figures["frames_kept"] < 900
    assert figures["saved_fraction"] == pytest.approx(1 - figures["frames_kept"] / 900)
    assert figures["retained_verified"] is True
    assert figures["segments_acknowledged"] >= 1
    assert figures["device_model_after"] == figures["pushed_model"]
    assert figures["device_model_after"] != figures["device_model_before"]
    assert figures["device_equals_core"] is True


def test_the_comparison_is_fair(first: tuple[Path, dict[str, Any]]) -> None:
    _, figures = first
    arms = figures["arms"]
    kept = figures["frames_kept"]
    assert arms["retrained"]["training_frames"] == arms["initial"]["training_frames"] + kept
    assert arms["random"]["training_frames"] == arms["retrained"]["training_frames"]
    assert arms["full"]["training_frames"] == arms["initial"]["training_frames"] + 900
    assert figures["test_size"] == 497
    for name in ("initial", "retrained", "full", "random"):
        assert figures[f"accuracy_{name}"] == arms[name]["accuracy"]
        low, high = arms[name]["ci95"]
        assert low <= arms[name]["accuracy"] <= high
    # Far above chance, and below what would hint at test frames in training; no order is claimed.
    assert all(0.8 < arms[name]["accuracy"] < 1 for name in arms)


def test_the_report_needs_no_network(first: tuple[Path, dict[str, Any]]) -> None:
    folder, figures = first
    page = (folder / "demo/report.html").read_text()
    assert figures["device_model_after"] in page
    assert page.count("<img ") == 4
    outside = [link for link in re.findall(r'(?:src|href)="([^"]*)"', page) if link[:5] != "data:"]
    assert outside == []


def test_same_seed_same_figures(first: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, figures = first
    again = run_demo(tmp_path, "--fresh")
    assert without_times(again) == without_times(figures)


def test_a_rerun_reuses_models(
    first: tuple[Path, dict[str, Any]],
) -> None:
    folder, figures = first
    cached = sorted((folder / "demo/cache").glob("*.tflite"))
    stamps = [path.stat().st_mtime_ns for path in cached]
    again = run_demo(folder)
    assert [path.stat().st_mtime_ns for path in cached] == stamps
    assert without_times(again) == without_times(figures)


def test_the_device_holds_the_pushed_model_after_the_demo(
    first: tuple[Path, dict[str, Any]],
) -> None:
    from drip.device import connect, launch_native

    folder, figures = first
    files = folder / "demo/device"
    with (
        launch_native(card=files / "card.img", flash=files / "flash.bin") as device,
        connect(device.url) as client,
    ):
        assert client.device.model_id.hex() == figures["device_model_after"]
        status = client.status()
        assert status.card_state == wire.CardState.READY
        assert status.log_acked == status.log_durable
