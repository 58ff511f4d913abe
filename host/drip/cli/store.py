"""Commands around the store: what is in it, SQL, export, import, labels.

Registered by drip.cli. None of them needs TensorFlow; only drawing a Grad-CAM needs the core.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from drip import config, units
from drip.cli import console
from drip.cli.options import Json, Settings, Where, read_model
from drip.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from drip.store import Store

app = typer.Typer()
store_app = typer.Typer(help="Look into a store, ask it in SQL, export and import frames.")
app.add_typer(store_app, name="store")

At = Annotated[
    str | None,
    typer.Option("--store", metavar="STORE", help="Folder or URL; default: drip.toml."),
]
ModelFile = Annotated[
    Path | None, typer.Option("--model", help=".drip that gives classes their names.")
]

Files = Annotated[
    Path | None,
    typer.Option(help="Folder of the pictures that a JSON names; default: where it is."),
]

_NO_CLASS = 0xFFFF
_NAME = 16  # characters of a device's id that tell it from others

_STATS = """
    SELECT device_id AS device, count(*) AS frames, CAST(sum(bytes) AS BIGINT) AS bytes,
           count(label) FILTER (label <> 'reject') AS labelled,
           count(*) FILTER (label = 'reject') AS rejected,
           count(DISTINCT log_uuid) AS logs, count(DISTINCT nullif(model_id, '')) AS models,
           min(utc_us) AS first, max(utc_us) AS last
    FROM frames GROUP BY device_id ORDER BY device_id NULLS LAST"""
_LABELS = "SELECT label, count(*) AS frames FROM labels GROUP BY label ORDER BY label"


def _open(where: str | None, settings: Path | None) -> Store:
    from drip.store import Store

    return Store.open(config.load(settings).store.path if where is None else where)


@store_app.command("ls")
def list_frames(
    where: Where = None,
    limit: Annotated[int, typer.Option(min=1, help="Newest frames to show.")] = 20,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Show the newest frames."""
    store = _open(where, settings)
    found = store.query(
        "SELECT log_uuid || ':' || seq AS key, device_id AS device, utc_us AS time, time_source,"
        " dtype, shape, class_1, round(percentile / 65535, 3) AS percentile, label"
        f" FROM frames ORDER BY ingested_at DESC, log_uuid, seq DESC LIMIT {limit}"
    )
    rows = [
        (
            "" if row["time"] is None else f"{row['time']:%m-%d %H:%M:%S}",
            "" if row["class_1"] == _NO_CLASS else row["class_1"],
            row["percentile"],
            row["label"],
            row["key"],
        )
        for row in found.to_pylist()
    ]
    columns = ("time (UTC)", "guess", "score", "label", "key")
    console.tables(json_target).print(_list(columns, rows))
    console.write_json(json_target, _plain(found))


@store_app.command()
def stats(where: Where = None, settings: Settings = None, json_target: Json = None) -> None:
    """Count frames, bytes and labels, per device and per label."""
    store = _open(where, settings)
    devices, labels = store.query(_STATS), store.query(_LABELS)
    out = console.tables(json_target)
    shown = [
        (
            (row["device"] or "")[:_NAME],
            *(row[name] for name in ("frames", "bytes", "labelled", "rejected")),
            *("" if row[n] is None else f"{row[n]:%Y-%m-%d}" for n in ("first", "last")),
        )
        for row in devices.to_pylist()
    ]
    out.print(_list(("device", *devices.column_names[1:5], "first", "last"), shown))
    if labels.num_rows:
        out.print(_rows(labels))
    frames = sum(devices["frames"].to_pylist())
    size = sum(devices["bytes"].to_pylist())
    out.print(f"{frames} frames, {units.size(size)}, {store.conflicts} conflicts")
    figures = {
        "frames": frames,
        "bytes": size,
        "conflicts": store.conflicts,
        "devices": _plain(devices),
        "labels": {row["label"]: row["frames"] for row in labels.to_pylist()},
    }
    console.write_json(json_target, figures)


@store_app.command()
def ingest(where: Where = None, settings: Settings = None, json_target: Json = None) -> None:
    """Bring in what an interrupted drip sync has pulled; needs no board, may be repeated."""
    from drip.sync import ingest_spool

    report = ingest_spool(_open(where, settings))
    figures = dataclasses.asdict(report)
    shown = {"new frames": report.new, "were there already": report.duplicates}
    if report.conflicts:
        shown["conflicts"] = report.conflicts
    console.tables(json_target).print(console.facts(shown))
    console.write_json(json_target, figures)


@store_app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One query, in DuckDB's SQL.")],
    where: At = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Ask the store. Tables: frames, records, labels, label_events, conflicts."""
    found = _open(where, settings).query(query)
    console.tables(json_target).print(_rows(found))
    console.write_json(json_target, _plain(found))


@store_app.command()
def export(
    target: Annotated[Path, typer.Argument(help="Folder to make; for npz the file.")],
    form: Annotated[
        Literal["classes", "csv", "npz", "studio"], typer.Option("--as", help="How.")
    ] = "classes",
    labelled: Annotated[bool, typer.Option("--labelled", help="Only frames with a label.")] = False,
    model: ModelFile = None,
    where: At = None,
    settings: Settings = None,
) -> None:
    """Write frames and labels for other tools: folders by class, CSV, npz, Label Studio."""
    from drip.store.export import export_store

    store = _open(where, settings)
    classes = () if model is None else _classes(model)
    count = export_store(store, target, form, classes, labelled)
    print(f"wrote {count} frames to {target}")


@store_app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="Folders by class, labels.csv, .npz, or JSON of Label Studio.")
    ],
    where: At = None,
    files: Files = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Bring in frames and labels; what the store has already gets only its label."""
    from drip.store.imports import import_files

    path = config.load(settings).store.path if where is None else where
    report = import_files(path, source, files)
    figures = {"new_frames": report.new, "known_frames": report.known, "labels": report.labels}
    console.tables(json_target).print(console.facts(figures))
    console.write_json(json_target, figures)


@app.command()
def label(
    where: Where = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="labels.csv, folders by class, .npz, JSON of Label Studio."),
    ] = None,
    accept: Annotated[
        float | None,
        typer.Option(
            "--accept",
            min=0.5,
            max=0.9999,
            help="Accept the model's guesses where this precision is shown.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before --accept writes.")] = False,
    files: Files = None,
    everything: Annotated[bool, typer.Option("--all", help="Labelled frames too.")] = False,
    model: ModelFile = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Say what frames show: from a file, by the model's guess, or one by one in the terminal."""
    if source is not None and accept is not None:
        raise UsageError("--from and --accept exclude each other", "run drip label twice")
    store = _open(where, settings)
    if source is not None:
        _from_file(store, source, files, json_target)
        return
    if model is None:
        raise UsageError(
            "no model given",
            "name the one that scored the frames: --model M.drip; or labels: --from FILE",
        )
    if accept is not None:
        _accept(store, _classes(model), accept, yes, json_target)
        return
    _one_by_one(store, model, everything)


def _from_file(store: Store, source: Path, files: Path | None, json_target: str | None) -> None:
    from drip.store.imports import label_from

    report = label_from(store, source, files)
    figures = {
        "labels written": report.labels,
        "frames with a label there": report.labelled,
        "frames without one there": report.unlabelled,
        "frames there that this store lacks": report.unknown,
    }
    console.tables(json_target).print(console.facts(figures))
    console.write_json(json_target, vars(report))


def _accept(
    store: Store, classes: tuple[str, ...], precision: float, yes: bool, json_target: str | None
) -> None:
    from drip.label import confident

    found = confident.propose(store, classes, precision)
    figures: dict[str, Any] = {
        "margin of at least": found.margin,
        "labelled frames of such a margin": found.judged,
        "of these the model had right": found.right,
        "precision, 95 % sure of at least": f"{found.bound:.4f}",
        "frames to be labelled": len(found.labels),
        "frames left to you": found.left,
    }
    out = console.tables(json_target)
    out.print(console.facts(figures | {f"as {k}": n for k, n in found.per_class().items()}))
    if found.labels and not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody to ask", "add --yes to write these labels")
        typer.confirm("Write these labels?", abort=True, err=json_target == "-")
    written = confident.accept(store, found)
    out.print(f"{written} labels written")
    console.write_json(
        json_target,
        {
            "margin": found.margin,
            "judged": found.judged,
            "right": found.right,
            "bound": found.bound,
            "written": written,
            "left": found.left,
        },
    )


def _one_by_one(store: Store, model: Path, everything: bool) -> None:
    from rich.console import Console

    from drip.label import terminal

    if not sys.stdin.isatty():
        raise UsageError("nobody to ask", "labels from a file: --from; by precision: --accept")
    classes = _classes(model)
    frames = terminal.candidates(store, classes, everything)
    screen = Console()
    written = terminal.label_frames(
        store, frames, classes, screen, lambda prompt: screen.input(prompt), _cam(model)
    )
    screen.print(f"{written} labels written, {len(frames) - written} frames left")


def _cam(path: Path) -> Callable[[NDArray[Any]], NDArray[np.float32]] | None:
    """Grad-CAM of the model's own guess, None where it cannot be had."""
    from drip.errors import DripError

    try:
        from drip.core import Model

        core = Model(read_model(path, ".drip"))
    except (ImportError, DripError):
        return None
    if core.cam_scale == 0.0:
        return None
    return core.cam


def _classes(model: Path) -> tuple[str, ...]:
    from drip.compile.blob import unpack_blob

    return unpack_blob(read_model(model, ".drip")).classes()


def _plain(table: Any) -> list[dict[str, Any]]:
    """Rows that JSON can hold: times as ISO 8601, bytes as hex."""

    def plain(value: Any) -> Any:
        if hasattr(value, "isoformat"):
            return value.isoformat()
        if isinstance(value, bytes):
            return value.hex()
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        return [plain(item) for item in value] if isinstance(value, list) else str(value)

    return [{name: plain(value) for name, value in row.items()} for row in table.to_pylist()]


def _rows(found: Any) -> Table:
    table = Table(*found.column_names)
    for row in _plain(found):
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    return table


def _list(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """A table for 80 columns whose cells are never cut; the last may take two lines."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(name, no_wrap=name != columns[-1], overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if value is None else str(value)) for value in row))
    return table
