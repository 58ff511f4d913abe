"""The command line ``drip``: parses, calls one function of the package, prints what it returned.

Modules are imported inside the commands: ``drip --help`` stays fast, and what needs neither
TensorFlow nor the compiled core runs without them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from drip import __version__, config
from drip.cli import bench as cli_bench
from drip.cli import board as cli_board
from drip.cli import console
from drip.cli import data as cli_data
from drip.cli import device as cli_device
from drip.cli import flash as cli_flash
from drip.cli import micropython as cli_micropython
from drip.cli import model as cli_model
from drip.cli import retrain as cli_retrain
from drip.cli import store as cli_store
from drip.cli import sync as cli_sync
from drip.cli.options import Json

_EPILOG = "Exit codes:\n\n" + "\n\n".join(
    f"{code}: {summary}" for code, summary in console.exit_codes().items()
)

app = typer.Typer(
    help="Let a sensor board decide, frame by frame, what is worth keeping.",
    epilog=_EPILOG,
    rich_markup_mode="rich",
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Without the name of the program; None takes them from the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Accepted after the command too: that is where a user adds it after an error.
    debug = "--debug" in given or bool(os.environ.get("DRIP_DEBUG"))
    rest = [argument for argument in given if argument != "--debug"]
    command = typer.main.get_command(app)
    _leave_reading_to_commands(command)
    return console.run(lambda: command(rest, prog_name="drip", standalone_mode=False), debug=debug)


def _leave_reading_to_commands(command: Any) -> None:
    """A file without permission gets the message and exit code that other bad files get.

    Typer would call it a wrong use of the command line.
    """
    for parameter in command.params:
        described = getattr(parameter, "type_descriptor", None)
        # Where typer keeps it depends on its version.
        places: list[Any] = [
            getattr(parameter, "type", None),
            getattr(described, "parameter_info", None),
        ]
        for place in places:
            if hasattr(place, "readable"):
                place.readable = False
    for inner in getattr(command, "commands", {}).values():
        _leave_reading_to_commands(inner)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    if version:
        print(f"drip {__version__}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="File to write.")] = Path(config.FILE_NAME),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print it, write nothing.")] = False,
) -> None:
    """Write a commented drip.toml: the settings of a project."""
    if show:
        print(config.template(), end="")
        return
    config.write_template(path, force=force)
    print(f"wrote {path}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Working folder; trained models are cached.")] = Path(
        "build/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Reuse nothing of earlier runs.")] = False,
    json_target: Json = None,
) -> None:
    """Run the whole loop on scikit-learn's digits with a simulated board: a smoke test."""
    from drip.demo import run_demo

    result = run_demo(folder, seed=seed, fresh=fresh, progress=console.progress)
    out = console.tables(json_target)
    out.print(_demo_table(result))
    out.print(_stage_table(result))
    out.print(console.facts(_demo_facts(result)))
    out.print(result["caveat"])
    out.print(f"report: {folder / 'report.html'}", soft_wrap=True)
    console.write_json(json_target, result)


def _demo_table(result: dict[str, Any]) -> Table:
    table = Table(title=result["dataset"])
    for column in ("", "frames", "kept of stream", "accuracy", "95 % interval"):
        table.add_column(column, justify="left" if not column else "right")
    for arm in result["arms"].values():
        low, high = arm["ci95"]
        table.add_row(
            arm["label"],
            str(arm["training_frames"]),
            f"{arm['kept_fraction']:.1%}",
            f"{arm['accuracy']:.3f}",
            f"{low:.3f} to {high:.3f}",
        )
    table.caption = (
        f"{result['frames_kept']} of {result['frames_seen']} frames kept, "
        f"{result['saved_fraction']:.1%} saved; {result['test_size']} test frames; "
        f"{result['wire_bytes_sync']} bytes pulled, {result['wire_bytes_deploy']} pushed"
    )
    return table


def _demo_facts(result: dict[str, Any]) -> dict[str, str]:
    equal = "equal to the core's" if result["device_equals_core"] else "NOT the core's"
    return {
        "engine against tflite-micro": result["bit_exact"],
        "kept frames, sensor to store": "equal" if result["retained_verified"] else "DIFFERENT",
        "model on the board before": result["device_model_before"],
        "model pushed": result["pushed_model"],
        "model on the board now": f"{result['device_model_after']}, its answers {equal}",
    }


def _stage_table(result: dict[str, Any]) -> Table:
    table = Table("stage", "seconds")
    for stage in result["stages"]:
        table.add_row(stage["name"], f"{stage['seconds']:.1f}")
    return table


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="Folder that a run wrote.")] = Path("build/demo"),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".html to write; default: in the folder.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the frames as this .png too.")] = None,
) -> None:
    """Draw the figures of a run as one HTML file that needs no network."""
    from drip.report import write_picture, write_report

    print(f"wrote {write_report(folder, output)}")
    if picture is not None:
        print(f"wrote {write_picture(folder, picture)}")


# Flattened: `drip train`, not `drip model train`.
app.add_typer(cli_model.app)
app.add_typer(cli_retrain.app)
app.add_typer(cli_sync.app)
app.add_typer(cli_board.app)
app.add_typer(cli_device.app)
app.add_typer(cli_flash.app)
app.add_typer(cli_micropython.app, name="micropython")
app.add_typer(cli_store.app)
app.add_typer(cli_bench.app, name="bench")
app.add_typer(cli_data.app, name="data")
