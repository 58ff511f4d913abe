"""Commands that talk to one board: status, monitor, config, time, score, feed, deploy.

Registered by drip.cli. None of them needs TensorFlow; only score --compare needs the compiled core.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from drip import config, units
from drip.cli import console
from drip.cli.options import Json, Port, Settings, board, read_model, splits
from drip.errors import DripError, UsageError, VerifyError

if TYPE_CHECKING:
    from drip import wire
    from drip.device import Client
    from drip.device.exchange import Event

app = typer.Typer()

# Of the message, not of the board.
_FRAMING = ("size", "version", "reserved")
_ROWS, _EVENTS = 20, 8


@app.command()
def status(port: Port = None, settings: Settings = None, json_target: Json = None) -> None:
    """Ask a board what it has seen, kept and stored."""
    from drip import wire
    from drip.device import monitor

    with board(port, config.load(settings)) as client:
        reading = monitor.read(client)
    state = reading.status
    figures = {
        "port": reading.port,
        "device_id": reading.hello.device_id.hex(),
        "model_id": reading.hello.model_id.hex(),
        **{
            key: list(value[: reading.hello.class_count]) if isinstance(value, bytes) else value
            for key, value in dataclasses.asdict(state).items()
            if key not in _FRAMING
        },
        "card_state": monitor.name(wire.CardState, state.card_state),
        "model_state": monitor.name(wire.SlotState, state.model_state),
    }
    console.tables(json_target).print(console.facts(monitor.describe(reading)))
    console.write_json(json_target, figures)


@app.command("monitor")
def watch(
    port: Port = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once and end.")] = False,
    every: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")
    ] = 1.0,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Watch a board: rate, kept share, scores, card, events. With --json one line per look."""
    from drip.device import monitor
    from drip.device.states import describe_event

    chosen = config.load(settings)
    out = console.tables(json_target)
    if once:
        with board(port, chosen) as client:
            reading = monitor.read(client)
        out.print(console.facts(monitor.describe(reading)))
        console.write_json(json_target, reading.figures())
        return
    news: list[str] = []
    recent: collections.deque[str] = collections.deque(maxlen=_EVENTS)

    def note(event: Event) -> None:
        news.append(describe_event(event))
        recent.append(f"{time.strftime('%H:%M:%S')} {news[-1]}")

    def open_board() -> AbstractContextManager[Client]:
        return board(port, chosen, fast=True, on_event=note)

    # Ctrl-C is how it ends.
    with contextlib.suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as view:
        for found in monitor.follow(open_board, every):
            if isinstance(found, DripError):
                view.update(Text(found.message, style="red"), refresh=True)
                continue
            shown = monitor.describe(found)
            if recent:
                shown["events"] = "\n".join(recent)
            view.update(console.facts(shown), refresh=True)
            _write_line(json_target, found.figures() | {"events": list(news)})
            news.clear()


def _write_line(json_target: str | None, figures: dict[str, object]) -> None:
    if json_target == "-":
        print(json.dumps(figures, sort_keys=True), flush=True)
    elif json_target is not None:
        console.write_json(json_target, figures)


@app.command("config")
def configure(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]... [PORT]", help="Such as target=30% board."),
    ] = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Show or change how a board decides: target=30% random_share=5% score_kind=margin ..."""
    from drip.device import settings as board_config

    texts = list(arguments or [])
    ports = [text for text in texts if "=" not in text]
    if len(ports) > 1:
        raise UsageError(f"two ports given: {', '.join(ports)}", "settings are KEY=VALUE")
    wanted = board_config.parse_assignments(text for text in texts if "=" in text)
    with board(ports[0] if ports else None, config.load(settings)) as client:
        before = client.config_get()
        if wanted:
            client.config_set(wanted)
        now = client.config_get() if wanted else before
    table = Table("setting", "value", *(["before"] if wanted else []))
    for key, value in now.items():
        changed = key in before and before[key] != value
        row = [board_config.name_of(key), board_config.show(key, value)]
        if wanted:
            row.append(board_config.show(key, before[key]) if changed else "")
        table.add_row(*row)
    console.tables(json_target).print(table)
    console.write_json(json_target, {board_config.name_of(key): now[key] for key in now})


@app.command("time")
def show_time(port: Port = None, settings: Settings = None, json_target: Json = None) -> None:
    """Give a board the time and compare the clocks; drip sync does it too."""
    with board(port, config.load(settings)) as client:
        clock = client.time()
    figures = {
        "boot_id": clock.boot_id,
        "device_us": clock.device_us,
        "host_us": clock.host_us,
        "offset_us": clock.offset_us,
        "uncertainty_us": clock.uncertainty_us,
    }
    seconds, micros = divmod(clock.host_us, 1_000_000)
    shown = {
        "time here": f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{micros:06d} UTC",
        "board has run for": f"{units.duration(clock.device_us / 1e6)}, boot {clock.boot_id}",
        "known to within": units.duration(clock.uncertainty_us / 1e6),
    }
    console.tables(json_target).print(console.facts(shown))
    console.write_json(json_target, figures)


@app.command()
def score(
    frames: Annotated[Path, typer.Argument(help=".npz, .npy or the bytes of one frame.")],
    port: Port = None,
    model: Annotated[
        Path | None, typer.Option("--compare", help=".drip: score here too, fail on a difference.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first frames.")] = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Let a board score frames without keeping them, and check that it scores as the core here."""
    from drip.device import parity

    loaded = parity.load_frames(frames, limit)
    blob = None if model is None else read_model(model, ".drip")
    with board(port, config.load(settings)) as client:
        with console.progress("frames") as on_progress:
            results = parity.score_frames(client, loaded, on_progress)
        found = None if blob is None else parity.compare(client, loaded, results, blob)
        name = client.name
    out = console.tables(json_target)
    out.print(_score_table(results))
    figures: dict[str, object] = {"results": [_result_figures(result) for result in results]}
    if found is not None:
        figures["differences"] = [dataclasses.asdict(item) for item in found]
    console.write_json(json_target, figures)
    if found:
        first = found[0]
        raise VerifyError(
            f"{name} differs from the core here in {len({item.frame for item in found})} of"
            f" {len(results)} frames; first: frame {first.frame}, {first.field}"
            f" {first.board} instead of {first.host}",
            "firmware and drip must be built from the same sources",
        )
    if found is not None:
        out.print(f"{len(results)} frames: board and core agree in every value")


def _result_figures(result: wire.Result) -> dict[str, object]:
    figures = dataclasses.asdict(result)
    figures = {key: value for key, value in figures.items() if key not in ("reserved", "token")}
    return figures | {"model_id": result.model_id.hex()}


def _score_table(results: list[wire.Result]) -> Table:
    columns = ("frame", "class", "runner-up", "logits", "raw score", "percentile")
    table = Table(*columns)
    for number, item in enumerate(results[:_ROWS]):
        table.add_row(
            str(number),
            str(item.class_1),
            str(item.class_2),
            f"{item.logit_1}, {item.logit_2}",
            str(item.raw_score),
            units.percent(item.percentile, 65535),
        )
    if len(results) > _ROWS:
        table.caption = f"the first {_ROWS} of {len(results)}"
    return table


@app.command()
def feed(
    port: Port = None,
    data: Annotated[
        Path | None, typer.Option(help=".npz of frames; default: the stream part of drip.toml's.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first frames.")] = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Give a board frames as if its sensor had captured them: it keeps or drops each."""
    from drip.data import load_npz

    chosen = config.load(settings)
    frames = (splits(chosen, None, None).stream if data is None else load_npz(data)).x[:limit]
    kept = 0
    with board(port, chosen) as client, console.progress("frames") as on_progress:
        for done, frame in enumerate(frames, 1):
            kept += client.feed(frame).keep
            on_progress(done, len(frames))
    figures = {"frames_fed": len(frames), "frames_kept": kept}
    console.tables(json_target).print(console.facts(figures))
    console.write_json(json_target, figures)


@app.command()
def deploy(
    model: Annotated[Path, typer.Argument(help=".drip of drip compile.")],
    port: Port = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Push a model to a board: upload, self-test, switch; on failure the old one stays."""
    from drip.compile.blob import unpack_blob
    from drip.deploy import deploy as push
    from drip.lineage import card_path, read_card, summary

    blob = read_model(model, ".drip")
    if card_path(model).exists():
        card = read_card(model, unpack_blob(blob).header.model_id.hex())
        said = ["the card beside it is of another model"] if card is None else summary(card)
        for line in said:
            console.note(line)
    with board(port, config.load(settings), fast=True) as client:
        before = client.device
        with console.progress("bytes") as on_progress:
            report = push(client, blob, on_progress=on_progress)
        after = client.device
    out = console.tables(json_target)
    out.print(_models_table(before, after))
    sent = f"{units.size(report.bytes_sent)} of {units.size(len(blob))} sent"
    if report.resumed_at:
        sent += f", {units.size(report.resumed_at)} were there from an earlier try"
    out.print(
        f"{sent}; slot {report.slot} boots from now on"
        f" ({units.size(report.bytes_wire)} on the line, {units.duration(report.seconds)})"
    )
    figures = dataclasses.asdict(report)
    figures |= {key: value.hex() for key, value in figures.items() if isinstance(value, bytes)}
    console.write_json(json_target, figures)


def _models_table(before: wire.Hello, after: wire.Hello) -> Table:
    from drip import wire
    from drip.device import monitor

    table = Table("", "model", "classes", "score")
    for when, hello in (("before", before), ("after", after)):
        if not any(hello.model_id):
            table.add_row(when, "none")
            continue
        score_kind = monitor.name(wire.ScoreKind, hello.score_kind)
        table.add_row(when, hello.model_id.hex(), str(hello.class_count), score_kind)
    return table
