"""`drip bench wire`: what it promises about the line, and that it can fail."""

from __future__ import annotations

import dataclasses
import functools
import json

import pytest

pytest.importorskip("drip._core", reason="needs the compiled core: run make setup")

from drip._core import ffi

from drip import cli, wire
from drip.bench import wire as bench
from drip.bench.line import RX_RING_BYTES, TX_RING_BYTES, Faults, LineEnd, SimDevice
from drip.device import Client
from drip.errors import DataError, LinkError, VerifyError


@pytest.fixture(scope="module")
def clean():
    return bench.measure(bench.SCENARIOS[0])


def test_a_clean_line_carries_little_but_records(clean):
    assert clean.records == 1000
    assert clean.efficiency >= 0.97
    assert clean.share >= 0.95
    assert (clean.chunks_lost, clean.repetitions) == (0, 0)


def test_a_run_repeats():
    scenario = bench.Scenario("again", Faults(flip=1e-4), frames=60)
    first = bench.measure(scenario)
    assert first.chunks_lost > 0
    assert bench.measure(scenario) == first
    assert bench.measure(scenario, seed=2) != first


@pytest.mark.parametrize(
    "scenario", [case for case in bench.SCENARIOS if case.faults != Faults()], ids=lambda s: s.name
)
def test_no_fault_of_the_line_changes_a_record(scenario):
    cost = bench.measure(dataclasses.replace(scenario, frames=100), seed=7)
    assert cost.records == 100
    assert 0.2 < cost.share < 1


def test_a_busy_device_fills_the_line_when_its_rings_hold_what_it_sends_between_two_looks():
    busy = {case.rings: case for case in bench.SCENARIOS if case.look_s == 0.005}
    large, small = (
        bench.measure(dataclasses.replace(busy[rings], frames=120))
        for rings in ((1024, 2048), (128, 512))
    )
    assert (large.chunks_lost, large.repetitions) == (0, 0)
    assert large.share > 0.85 > 0.3 > small.share


def test_a_store_that_differs_fails_the_run(monkeypatch):
    log_frames = SimDevice.log_frames

    def log_one_less(self, frames):
        log_frames(self, frames[:-1])

    monkeypatch.setattr(SimDevice, "log_frames", log_one_less)
    with pytest.raises(VerifyError):
        bench.measure(bench.Scenario("short", frames=5))


def test_the_baseline_is_computed_with_the_published_package():
    pytest.importorskip("smp", reason="needs the package smp: pip install .[bench]")
    assert 0.72 < bench.smp_efficiency() < 0.74


def test_the_summary_has_the_figures_that_others_read(clean):
    found = bench.summary([clean], 0.73)
    assert found["efficiency_1k"] == clean.efficiency
    assert found["smp_efficiency"] == 0.73
    assert found["goodput_by_error_rate"] == {"0": clean.share}
    assert found["link_ram_bytes"] + found["uart_ring_bytes"] <= 2560


def test_everything_that_the_link_keeps_counts_as_its_memory(clean):
    """Whatever of the device only the line needs: the members between which its requests live."""
    lines = {"link", "reader", "baud", "held"}
    members = dict(ffi.typeof("drip_device_t").fields)
    sizes = {name: ffi.sizeof(members[name].type) for name in lines}
    found = bench.summary([clean], 0.73)
    assert found["link_ram_bytes"] == sum(sizes.values())
    assert found["uart_ring_bytes"] == RX_RING_BYTES + TX_RING_BYTES
    assert sizes["link"] <= 2 * (wire.MAX_BODY_BYTES + 8) + 64


def test_the_command_prints_the_figures_for_scripts(monkeypatch, capsys):
    pytest.importorskip("smp", reason="needs the package smp: pip install .[bench]")
    few = [
        dataclasses.replace(case, frames=40)
        for case in bench.SCENARIOS
        if case.error_rate is not None
    ]
    monkeypatch.setattr(bench, "SCENARIOS", few)
    monkeypatch.setattr(bench, "frame_delays", functools.partial(bench.frame_delays, frames=5))
    assert cli.main(["bench", "wire", "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"efficiency_1k", "smp_efficiency", "goodput_by_error_rate", "link_ram_bytes"} <= set(
        found
    )
    assert set(found["goodput_by_error_rate"]) == {"0", "1e-05", "0.0001", "0.001"}
    assert found["frame_delay_ms"]["pulled"] > 0
    assert found["smp_efficiency"] == pytest.approx(0.727, abs=0.001)


def test_the_table_goes_between_its_marks(clean):
    document = "a\n" + bench._BEGIN + "old\n" + bench._END + "\nb"
    made = bench.into_document([clean], 0.73, document)
    assert made.startswith("a\n") and made.endswith("\nb") and "old" not in made
    assert bench.into_document([clean], 0.73, made) == made
    with pytest.raises(DataError):
        bench.into_document([clean], 0.73, "nothing")


def test_a_host_that_pulls_holds_a_frame_up_by_a_few_milliseconds_only(clean):
    """A frame waits for the link once per transfer of its own, for one READ of the card."""
    quiet, pulled = (bench.frame_delays(pulled=pulled, frames=40) for pulled in (False, True))
    assert len(quiet) == len(pulled) == 40
    # A READ of 1 KiB takes the simulated card 0.9 ms, and a record has at most three transfers.
    read_s, step_s, transfers = 900e-6, 100e-6, 3
    assert max(pulled) > min(quiet) > 0
    assert max(pulled) - max(quiet) <= transfers * (read_s + 2 * step_s)


def test_a_cable_that_is_out_ends_in_a_message():
    device = SimDevice(card_bytes=1 << 20, segment_bytes=32 << 10)
    end = LineEnd(device)
    client = Client(end, clock=end.clock, sleep=end.sleep)
    assert client.hello().port.rstrip(b"\0") == b"simulated"
    end.cut_at_us = device.now_us
    with pytest.raises(LinkError):
        client.status()
    end.cut_at_us = None
    assert client.status().card_state == wire.CardState.READY
