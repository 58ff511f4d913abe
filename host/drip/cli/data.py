"""Commands about data sets: ``drip data ...``.

Registered by drip.cli. Every one parses, calls the package and prints the result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from drip.cli import console
from drip.cli.options import Json

app = typer.Typer(help="Make data sets.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Make data sets."""


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder of classes with pictures or .wav files, .csv file or folder,"
            " jpegpack .npz, or keras:NAME."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz to write.")],
    kind: Annotated[
        str | None, typer.Option(help="images, wav, csv, keras or jpegpack; default: guessed.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Searched in a file's path below SOURCE; its parenthesis is the group key.",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Pictures: resize to this.")
    ] = None,
    grey: Annotated[bool, typer.Option("--grey", help="Pictures: one channel.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="Sounds: keep the samples.")] = False,
    seconds: Annotated[float, typer.Option(min=0.01, help="Sounds: length of a clip.")] = 1.0,
    rate: Annotated[int, typer.Option(min=1000, help="Sounds: samples per second.")] = 16000,
    mels: Annotated[int, typer.Option(min=1, max=64, help="Sounds: mel bands.")] = 40,
    columns: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Tables: the channels.")
    ] = None,
    window: Annotated[int, typer.Option(min=1, help="Tables: rows of a window.")] = 50,
    hop: Annotated[
        int | None, typer.Option(min=1, help="Tables: rows to the next window; default: half.")
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="Tables: column of the class.")] = None,
    group_column: Annotated[
        str | None, typer.Option(help="Tables: column of the group key.")
    ] = None,
    scale: Annotated[float, typer.Option(help="Tables: factor to 16-bit integers.")] = 1.0,
    json_target: Json = None,
) -> None:
    """Make a data set (.npz) from pictures, sounds, tables or a known collection.

    Groups (person, leaf, device) keep what belongs together in one part when data is split.
    """
    from drip.data import importing
    from drip.data.npz_stream import NpzWriter
    from drip.errors import DataError, UsageError
    from drip.frontend import LogMel

    chosen = kind or importing.detect(source)
    if chosen not in importing.KINDS:
        raise UsageError(f"no kind {chosen}", f"kinds: {', '.join(importing.KINDS)}")
    grouping, path = importing.Grouping(group), Path(source)
    if chosen != "keras" and not path.exists():
        raise DataError(f"no such file or folder: {source}", "check the path")
    with console.progress("importing") as on_progress, NpzWriter(output) as writer:
        if chosen == "images":
            importing.import_images(
                path,
                writer,
                size=importing.parse_size(size),
                grey=grey,
                grouping=grouping,
                on_progress=on_progress,
            )
        elif chosen == "wav":
            scaled = rate / 16000
            front_end = LogMel(
                sample_rate=rate,
                window=round(640 * scaled),
                hop=round(320 * scaled),
                mels=mels,
                high_hz=min(7600.0, rate / 2),
            )
            importing.import_wav(
                path,
                writer,
                front_end=None if raw else front_end,
                seconds=seconds,
                grouping=grouping,
                on_progress=on_progress,
            )
        elif chosen == "csv":
            names = tuple(c.strip() for c in (columns or "").split(",") if c.strip())
            table = importing.Table(
                names, window, hop or max(1, window // 2), label_column, group_column, scale
            )
            importing.import_csv(path, writer, table, grouping=grouping, on_progress=on_progress)
        elif chosen == "keras":
            importing.import_keras(source.removeprefix("keras:"), writer)
        else:
            importing.import_jpegpack(path, writer, on_progress)
    facts = {
        "file": str(output),
        "frames": writer.frames,
        "classes": len(writer.classes),
        "groups": writer.groups,
    }
    console.tables(json_target).print(console.facts(facts))
    console.write_json(json_target, facts)
