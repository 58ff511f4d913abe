"""Commands around boards: simulated ones (device) and card images (card).

Registered by drip.cli. None of them needs TensorFlow or the compiled core.
"""

from __future__ import annotations

import dataclasses
import enum
import signal
from pathlib import Path
from typing import Annotated

import typer

from drip import config, units
from drip.cli import console
from drip.cli.options import Json, Settings, Where
from drip.device.launch import Kind
from drip.errors import CardError, LinkError, UsageError

app = typer.Typer()

device = typer.Typer(help="Simulated boards: as a process of this computer, or in an emulator.")
card = typer.Typer(help="Cards and card images: make them, look into them.")
app.add_typer(device, name="device")
app.add_typer(card, name="card")


def _bytes(given: str | int) -> int:
    """A size such as 8M; the suffixes K, M and G are powers of 1024. Defaults come as numbers."""
    try:
        return units.parse_size(str(given))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Size = Annotated[int, typer.Option(parser=_bytes, metavar="SIZE", help="Such as 64M or 8G.")]


@device.command("start")
def device_start(
    kind: Annotated[
        Kind, typer.Option(help="A process of this computer, or an image in an emulator.")
    ] = Kind.NATIVE,
    card_image: Annotated[
        Path | None, typer.Option("--card", help="Image of its card, of drip card format.")
    ] = None,
    flash: Annotated[
        Path | None, typer.Option(help="File with its model slots; made when missing.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help=".drip to run while the flash holds none.")
    ] = None,
    link: Annotated[Path | None, typer.Option(help="Make this a symbolic link to its pty.")] = None,
    tcp: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Serve this port instead; 0: any.")
    ] = None,
    firmware: Annotated[
        Path | None, typer.Option(help="Image to emulate; default: of make firmware, the Nucleo.")
    ] = None,
    any_card: Annotated[
        bool, typer.Option("--any-card", help="Even a card without a log, as a board would.")
    ] = False,
) -> None:
    """Start a simulated board, print its port, run until interrupted."""
    from drip.card import open_log
    from drip.device import launch

    if card_image is not None and not any_card:
        with open_log(card_image):
            pass

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    # Otherwise a plain kill would leave the board running without its owner.
    before = signal.signal(signal.SIGTERM, stop)
    try:
        with launch(
            kind,
            card=card_image,
            flash=flash,
            model=model,
            link=link,
            tcp=tcp,
            firmware=firmware,
        ) as board:
            print(board.url, flush=True)
            code = board.wait()
    except KeyboardInterrupt:
        return
    finally:
        signal.signal(signal.SIGTERM, before)
    if code:
        raise LinkError(f"the simulated board ended with status {code}", "see what it printed")


class FileSystem(str, enum.Enum):
    """What a card image holds beside the log."""

    FAT16 = "fat16"
    FAT32 = "fat32"
    EXFAT = "exfat"
    RAW = "raw"


@card.command("format")
def card_format(
    image: Annotated[Path, typer.Argument(help="Image file to make, or where a card is mounted.")],
    size: Size = 64 << 20,
    fs: Annotated[
        FileSystem, typer.Option(help="File system of an image; raw: the log and nothing else.")
    ] = FileSystem.RAW,
    mbr: Annotated[
        bool, typer.Option("--mbr", help="Put a partition table into the image.")
    ] = False,
    unit: Annotated[
        int | None,
        typer.Option(parser=_bytes, metavar="SIZE", help="Erase unit of the card it is for."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file, with all frames on it.")
    ] = False,
    json_target: Json = None,
) -> None:
    """Make a card image with an empty log, or add log files to a mounted card."""
    from drip.card import format_image
    from drip.card.mounted import find_mount, format_mounted
    from drip.card.volume_format import format_volume

    out = console.tables(json_target)
    if image.is_dir():
        made = format_mounted(find_mount(image), size, force=force, unit_bytes=unit)
        out.print(
            f"made the log files in {image}: log {made.log_uuid.hex()}",
            soft_wrap=True,
            highlight=False,
        )
        console.write_json(json_target, {"file": str(image), "log_uuid": made.log_uuid.hex()})
        return
    if image.exists() and not image.is_file():
        raise CardError(
            f"{image} is a device", "make an image and write it there, or mount the card"
        )
    if image.exists() and not force:
        raise CardError(f"{image} exists", "its frames would be lost; replace it with --force")
    if fs is FileSystem.RAW:
        if mbr:
            raise UsageError("a raw image has no partition table", "choose a file system with --fs")
        superblock = format_image(image, size, unit_bytes=unit)
    else:
        superblock = format_volume(image, size, fs.value, mbr=mbr, unit_bytes=unit)
    out.print(
        f"wrote {image}: {size} bytes, log {superblock.log_uuid.hex()}",
        soft_wrap=True,
        highlight=False,
    )
    figures = {"file": str(image), "bytes": size, "log_uuid": superblock.log_uuid.hex()}
    console.write_json(json_target, figures)


@card.command("inspect")
def card_inspect(
    image: Annotated[Path, typer.Argument(help="Card image, mounted card or copied DRIP00.LOG.")],
    json_target: Json = None,
) -> None:
    """Show what a card holds and what is damaged on it."""
    from drip.card import inspect_image

    found = inspect_image(image)
    figures = {
        "log_uuid": found.superblock.log_uuid.hex(),
        "file_system": found.file_system,
        "first_block": found.first_block,
        "superblocks": list(found.superblocks),
        "segments": len(found.segments),
        "acknowledged": sum(segment.acked for segment in found.segments),
        "records": found.records,
        "oldest_seq": None if found.oldest is None else found.oldest.seq,
        "newest_seq": None if found.newest is None else found.newest.seq,
        "bytes_used": found.bytes_used,
        "bytes_total": found.bytes_total,
        "gaps": dataclasses.asdict(found.gaps),
        "damage": list(found.damage),
    }
    readable = figures | {"gaps": str(found.gaps) or "none"}
    console.tables(json_target).print(console.facts(readable))
    console.write_json(json_target, figures)
    if found.damage:
        raise CardError(
            f"{image}: damaged in {len(found.damage)} places, first: {found.damage[0]}",
            "drip card pull and drip sync still pull what is intact",
        )


@card.command("pull")
def card_pull(
    image: Annotated[Path, typer.Argument(help="Card image, mounted card or copied DRIP00.LOG.")],
    store: Where = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Pull the frames on a card into a store; those that drip sync brought count once."""
    from drip.card import open_log
    from drip.card.pull import pull_card
    from drip.store import Store

    # What is no card must not leave an empty store behind.
    with open_log(image):
        pass
    into = Store.open(config.load(settings).store.path if store is None else store, create=True)
    with console.progress("pulling segments") as on_progress:
        report = pull_card(image, into, on_progress=on_progress)
    figures = dataclasses.asdict(report)
    added = figures.pop("store")
    figures |= {f"store_{key}": value for key, value in added.items()}
    readable = figures | {"gaps": str(report.gaps) or "none"}
    console.tables(json_target).print(console.facts(readable))
    console.write_json(json_target, figures)
