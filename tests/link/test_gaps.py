"""What a board has noted as missing reaches whoever pulls it: over the line, and from the card."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from cardsim import SimCard, format_card

from drip import cli
from drip.card import inspect_image
from drip.card.pull import pull_card
from drip.device import connect, launch_native, native_binary
from drip.errors import MissingDependencyError
from drip.gaps import NO_GAPS, Gaps
from drip.store import Store
from drip.sync import sync_device
from drip.wire import Config, FullMode, PolicyKind

try:
    native_binary()
except MissingDependencyError as error:
    pytest.skip(f"{error.message}: {error.hint}", allow_module_level=True)


def test_words_name_only_what_there_is():
    assert str(NO_GAPS) == ""
    assert str(Gaps(full=2) + Gaps(full=1, evicted=4)) == (
        "3 records refused by a full card, 4 records evicted to make room"
    )


def test_evictions_are_told_by_sync_pull_and_inspect(tmp_path: Path, capsys):
    image = tmp_path / "card.img"
    card = SimCard(bytearray(128 * 512))
    assert format_card(card, segment_blocks=16) == 0
    image.write_bytes(bytes(card.data))
    assert inspect_image(image).gaps == NO_GAPS
    settings = {Config.POLICY_KIND: PolicyKind.ALL, Config.FULL_MODE: FullMode.EVICT}
    with launch_native(card=image) as device:
        with connect(device.url) as client:
            client.config_set(settings)
            for number in range(120):
                assert client.feed(random.Random(number).randbytes(1000)).keep == 1
            client.sync_log()
            evicted = client.status().records_evicted
            assert evicted > 10
            store = Store.open(tmp_path / "store", create=True)
            assert sync_device(client, store, keep=True).gaps == Gaps(evicted=evicted)
        assert cli.main(["sync", device.url, str(tmp_path / "store")]) == 0
    assert f"{evicted} records evicted to make room" in " ".join(capsys.readouterr().out.split())
    assert inspect_image(image).gaps == Gaps(evicted=evicted)
    assert pull_card(image, Store.open(tmp_path / "other", create=True)).gaps.evicted == evicted
    figures = tmp_path / "inspect.json"
    assert cli.main(["card", "inspect", str(image), "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["gaps"]["evicted"] == evicted
    assert cli.main(["card", "pull", str(image), str(tmp_path / "third")]) == 0
    assert "evicted to make room" in " ".join(capsys.readouterr().out.split())
