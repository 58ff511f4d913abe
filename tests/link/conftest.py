"""Link tests use the simulated card and flash of the core's tests, and share stores and boards."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from fleets import feed

from drip.card import format_image
from drip.device import NativeDevice, launch_native, native_binary
from drip.errors import MissingDependencyError
from drip.store import Store

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def cards(tmp_path: Path) -> list[Path]:
    try:
        native_binary()
    except MissingDependencyError as error:
        pytest.skip(f"{error.message}: {error.hint}")
    images = [tmp_path / f"card{number}.img" for number in range(3)]
    for image in images:
        format_image(image, 2 << 20)
    return images


@pytest.fixture
def boards(cards: list[Path]) -> Iterator[list[NativeDevice]]:
    """Three boards without a model, which keep every frame; each has 20 frames of its own."""
    with ExitStack() as stack:
        running = [stack.enter_context(launch_native(card=card)) for card in cards]
        for number, device in enumerate(running):
            feed(device.url, 20, number)
        yield running
