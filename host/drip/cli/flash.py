"""The command that puts firmware on a board. Registered by drip.cli; it needs PlatformIO."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from drip import config
from drip.cli import console
from drip.cli.options import Json, Port, Settings

app = typer.Typer()


@app.command("flash")
def flash_board(
    port: Port = None,
    environment: Annotated[
        str, typer.Option("--env", help="Board: an environment of platformio.ini.")
    ] = "nucleo_f446re",
    model: Annotated[
        Path | None, typer.Option(help=".drip to put into the image; default: platformio.ini's.")
    ] = None,
    upload_port: Annotated[
        str | None, typer.Option(help="For the uploader, where it needs one.")
    ] = None,
    wait: Annotated[
        float, typer.Option(min=1, max=600, help="Seconds until the board must answer.")
    ] = 20.0,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Build the firmware with a model in it, upload it, and wait until the board answers."""
    from drip import flash

    chosen = config.load(settings)
    report = flash.flash(
        flash.find_project(Path.cwd()),
        environment,
        port or chosen.board.port or flash.only_port(),
        model=model,
        baud=chosen.board.baud,
        wait_s=wait,
        arguments=() if upload_port is None else ("--upload-port", upload_port),
        on_stage=console.note,
    )
    out = console.tables(json_target)
    rows = {
        "board": f"{report.board} on {report.port}, {report.device_id.hex()}",
        "model": report.model_id.hex() if any(report.model_id) else "none",
        "took": f"{report.seconds:.1f} s",
    }
    out.print(console.facts(rows))
    if report.is_slot_model:
        out.print("It answers with the model that was pushed last: slots go before the image.")
    figures = dataclasses.asdict(report)
    figures |= {key: value.hex() for key, value in figures.items() if isinstance(value, bytes)}
    console.write_json(json_target, figures)
