"""Commands that make models: train, convert, compile, verify, calibrate, run.

Registered by drip.cli. Every one parses, calls one function of the package and prints the result.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from drip import config, units
from drip.cli import console
from drip.cli.options import Json, Seed, Settings, read_model, splits
from drip.errors import ModelError, UsageError, VerifyError
from drip.wire import PERCENTILE_ONE, Config, ScoreKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from drip.calibrate import ScoreCalibration
    from drip.data import Dataset, InputScaling
    from drip.train import TrainResult

app = typer.Typer()


Recipe = Annotated[str | None, typer.Option("--model", help="Recipe, or my.py:function.")]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps.")]
Batch = Annotated[int | None, typer.Option(help="Frames per step.")]
Data = Annotated[Path | None, typer.Option(help=".npz with x, y, classes.")]
Keras = Annotated[Path, typer.Option("--output", "-o", help=".keras to write.")]


@app.command()
def train(
    data: Data = None,
    model: Recipe = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = None,
    output: Keras = Path("model.keras"),
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Train a small CNN on the fit part of the labelled data."""
    from drip.models import load_builder
    from drip.train import train as train_model

    chosen = config.load(settings)
    options = config.override(chosen.model, builder=model, steps=steps, batch=batch)
    parts = splits(chosen, data, seed)
    scaling = _scaling(chosen, parts.fit)
    _check_folder(output)
    with console.progress("training") as on_progress:
        result = train_model(
            load_builder(options.builder),
            parts.fit,
            validation=parts.test,
            steps=options.steps,
            batch=options.batch,
            seed=_seed(chosen, seed),
            scaling=scaling,
            learning_rate=options.learning_rate,
            on_progress=on_progress,
        )
    _finish_training(
        result, output, parts.fit, len(parts.test), scaling, _seed(chosen, seed), json_target
    )


@app.command()
def convert(
    model: Annotated[Path, typer.Argument(help=".keras of drip train or your own.")],
    representative: Annotated[
        Path | None, typer.Option(help=".npz whose frames show the range of every activation.")
    ] = None,
    own: Annotated[
        str | None,
        typer.Option("--model", help="my.py:function whose file defines layers of your own."),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=".tflite to write.")] = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Quantise a Keras model to an int8 .tflite with the outputs logits and features."""
    from drip.convert import convert_file
    from drip.data import InputScaling, load_npz
    from drip.models.registry import custom_objects

    chosen = config.load(settings)
    if not model.is_file():
        raise ModelError(f"no such file: {model}", "pass a .keras file")
    given = None if representative is None else load_npz(representative)
    frames = splits(chosen, None, None).fit if given is None else given
    facts = _read_facts(model)
    scaling = InputScaling.from_json(facts) if facts else _scaling(chosen, frames)
    classes = tuple(facts.get("classes", frames.classes))
    metadata: dict[str, Any] = {key: facts[key] for key in ("data_digest", "seed") if key in facts}
    target = output or model.with_suffix(".tflite")
    blob = convert_file(
        model,
        frames.x,
        scaling=scaling,
        classes=classes,
        metadata=metadata,
        custom_objects=None if own is None else custom_objects(own),
    )
    _write_bytes(target, blob)
    console.tables(json_target).print(
        f"wrote {target}: {len(blob)} bytes, {_says(scaling)}", soft_wrap=True, highlight=False
    )
    figures = {"file": str(target), "bytes": len(blob), "classes": list(classes)}
    console.write_json(json_target, figures | scaling.to_json())


@app.command("compile")
def compile_(
    model: Annotated[Path, typer.Argument(help="Full-int8 .tflite.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="What it was trained on: calibration will refuse these frames; names the "
            "classes of a .tflite that drip convert did not make."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help=".drip to write.")] = None,
    no_cam: Annotated[
        bool, typer.Option("--no-cam", help="Inference only: frames get no score.")
    ] = False,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Compile an int8 .tflite to a model blob (.drip) that boards run in place."""
    from drip.compile import InputSpec, compile_model
    from drip.compile.frames import guess_scaling
    from drip.data import sample_hashes
    from drip.inspect import inspect_blob, slow_layer_text, slow_layers
    from drip.tflite_file import read_metadata

    chosen = config.load(settings)
    tflite = read_model(model, ".tflite")
    spec, hashes, note = None, None, ""
    if data is not None:
        frames = splits(chosen, data, None).fit
        hashes = sample_hashes(frames.x)
        if not read_metadata(tflite):
            scaling = _scaling(chosen, frames)
            if chosen.preprocessing.scale is None:
                scaling = guess_scaling(tflite, frames.x, scaling)
            spec, note = (
                InputSpec(scaling, frames.classes or None, frames.frame_shape),
                f", {_says(scaling)}",
            )
    blob = compile_model(
        tflite, cam=not no_cam, source_name=model.name, spec=spec, training_hashes=hashes
    )
    target = output or model.with_suffix(".drip")
    _write_bytes(target, blob)
    info = inspect_blob(blob)
    out = console.tables(json_target)
    out.print(f"wrote {target}: {len(blob)} bytes{note}", soft_wrap=True, highlight=False)
    for layer in slow_layers(info):
        out.print(f"note: {slow_layer_text(layer)}", soft_wrap=True, highlight=False)
    console.write_json(json_target, {"file": str(target)} | info.to_json())


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help=".drip of drip compile.")],
    json_target: Json = None,
) -> None:
    """Show what a model blob holds: layers, memory, calibration."""
    from drip.inspect import inspect_blob, print_info

    info = inspect_blob(read_model(model, ".drip"))
    print_info(info, console.tables(json_target))
    console.write_json(json_target, info.to_json())


@app.command()
def verify(
    model: Annotated[Path, typer.Argument(help="Full-int8 .tflite.")],
    inputs: Annotated[int, typer.Option(min=1, help="Random inputs to run.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the random inputs.")] = 0,
    data: Annotated[Path | None, typer.Option(help=".npz with real frames to run too.")] = None,
    json_target: Json = None,
) -> None:
    """Compare every intermediate tensor of the C core with the tflite-micro interpreter."""
    from drip.data import load_npz
    from drip.verify import verify as verify_model

    real = None if data is None else load_npz(data).x
    tflite = read_model(model, ".tflite")
    with console.progress("inputs") as on_progress:
        report = verify_model(tflite, inputs=inputs, seed=seed, real=real, on_progress=on_progress)
    table = Table("tensor", "shape", "bytes", "differ", "largest difference")
    for tensor in report.tensors:
        shape = "x".join(str(size) for size in tensor.shape)
        counts = (tensor.compared, tensor.mismatches, tensor.largest)
        table.add_row(tensor.name, shape, *(str(count) for count in counts))
    console.tables(json_target).print(table)
    console.write_json(json_target, report.to_json())
    if report.mismatches:
        raise VerifyError(
            f"{report.mismatches} of {report.compared} bytes differ from tflite-micro",
            "report this defect with the .tflite",
        )


@app.command()
def calibrate(
    model: Annotated[Path, typer.Argument(help=".drip of drip compile.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Frames not trained on; default: the calibration part of drip.toml's."),
    ] = None,
    target_ratio: Annotated[float | None, typer.Option(help="Share of frames to keep.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Room on the card, such as 8G: sets the share instead.")
    ] = None,
    days: Annotated[float, typer.Option(help="With --budget: it shall last so long.")] = 30.0,
    rate: Annotated[float, typer.Option(help="With --budget: frames per second.")] = 1.0,
    scores: Annotated[
        str | None,
        typer.Option(help="Scores to calibrate, the model's own first; default: all it has."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Even on frames trained on.")] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".drip to write; default: in place.")
    ] = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Set a model's thresholds so that a board keeps the wanted share of frames."""
    from drip.calibrate import calibrate as calibrate_model
    from drip.data import load_npz

    chosen = config.load(settings)
    policy = config.override(chosen.policy, target_ratio=target_ratio)
    blob = read_model(model, ".drip")
    frames = splits(chosen, None, None).calibration if data is None else load_npz(data)
    wanted = policy.target_ratio
    if budget is not None:
        if target_ratio is not None:
            raise UsageError("--target-ratio and --budget both set the share", "give one of them")
        wanted = _ratio_for(budget, days, rate, frames.x[0].nbytes)
    with console.progress("frames") as on_progress:
        report = calibrate_model(
            blob,
            frames,
            target_ratio=wanted,
            force=force,
            kinds=None if scores is None else _score_kinds(scores),
            on_progress=on_progress,
        )
    target = output or model
    _write_bytes(target, report.blob)
    table = Table("score", "frames", "kept", "share", "95 % interval")
    for score in report.scores:
        low, high = score.ci95
        counts = (str(score.samples), str(score.kept), f"{score.ratio:.3f}")
        table.add_row(score.kind.name.lower(), *counts, f"{low:.3f} to {high:.3f}")
    out = console.tables(json_target)
    out.print(f"share to keep {report.target_ratio:.3f}")
    out.print(table)
    out.print(_class_table(report.scores[0]))
    if report.shared:
        out.print(f"{report.shared} of the frames were in training: the shares are misleading")
    out.print(f"wrote {target}", soft_wrap=True)
    console.write_json(json_target, report.to_json())


def _ratio_for(budget: str, days: float, rate: float, frame_bytes: int) -> float:
    from drip.calibrate import ratio_for_budget

    try:
        room = units.parse_size(budget)
    except ValueError as error:
        raise UsageError(str(error), "for example --budget 8G --days 30 --rate 2") from error
    return ratio_for_budget(
        room, seconds=days * 86400, frames_per_second=rate, frame_bytes=frame_bytes
    )


def _score_kinds(text: str) -> list[ScoreKind]:
    known = {kind.name.lower(): kind for kind in ScoreKind}
    names = [name.strip().lower().replace("-", "_") for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UsageError(f"no score is called {name}", f"there are: {', '.join(known)}")
    return [known[name] for name in names]


def _class_table(score: ScoreCalibration) -> Table:
    """What each predicted class keeps."""
    table = Table(
        f"predicted class ({score.kind.name.lower()})", "frames", "kept", "share", "95 % interval"
    )
    for c in score.classes:
        name = f"{c.name} (too few: as all together)" if c.pooled else c.name
        counts = (str(c.samples), str(c.kept), f"{c.ratio:.3f}")
        table.add_row(name, *counts, f"{c.ci95[0]:.3f} to {c.ci95[1]:.3f}")
    return table


@app.command()
def explain(
    model: Annotated[Path, typer.Argument(help=".drip that decides, or decided.")],
    frame: Annotated[
        str, typer.Argument(help=".npz of frames, .npy of one, or LOG_UUID:SEQ in the store.")
    ],
    index: Annotated[int, typer.Option(min=0, help="Number of the frame in an .npz.")] = 0,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the board, as of drip config.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Picture to write.")] = Path(
        "explain.png"
    ),
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Draw why a frame is kept or not: map, logits, score, threshold, rule."""
    from drip import explain as explaining
    from drip.device.settings import parse_assignments

    blob = read_model(model, ".drip")
    if frame.endswith((".npz", ".npy")):
        chosen = {Config(key): value for key, value in parse_assignments(changes or []).items()}
        found = explaining.explain_frame(blob, _frame_of(Path(frame), index), chosen)
    elif changes:
        raise UsageError("--set is for frames of a file", "a board has decided on this record")
    else:
        record = explaining.find_record(config.load(settings).store.path, frame)
        found = explaining.explain_record(blob, record)
    explaining.draw(found, output)
    figures = found.to_json()
    facts = {k: v for k, v in figures.items() if k not in ("cam", "logits") and v is not None}
    out = console.tables(json_target)
    out.print(console.facts(facts))
    out.print(f"wrote {output}", soft_wrap=True)
    console.write_json(json_target, figures)


def _frame_of(path: Path, index: int) -> NDArray[Any]:
    """One frame of a file."""
    import numpy as np

    from drip.data import load_npz
    from drip.data.dataset import load_npy

    if path.suffix == ".npy":
        return load_npy(path)
    frames = load_npz(path)
    if index >= len(frames):
        raise UsageError(f"{path} has {len(frames)} frames", "number them from 0")
    return np.asarray(frames.x[index])


@app.command()
def run(
    model: Annotated[Path, typer.Argument(help=".drip of drip compile.")],
    data: Annotated[Path, typer.Argument(help=".npz with frames as captured.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first frames.")] = None,
    json_target: Json = None,
) -> None:
    """Score frames on this computer with the code that runs on boards."""
    from drip.core import Model
    from drip.data import load_npz

    core = Model(read_model(model, ".drip"))
    frames = load_npz(data)
    scores = core.score_all(frames.x[:limit])
    columns = {name: values.tolist() for name, values in vars(scores).items()}
    known = frames.y[: len(scores.class_1)] >= 0
    hits = int((scores.class_1 == frames.y[: len(known)])[known].sum())
    table = Table("frame", "class", "runner-up", "raw score", "percentile")
    for index in range(min(10, len(known))):
        table.add_row(
            str(index),
            core.classes[columns["class_1"][index]],
            core.classes[columns["class_2"][index]],
            str(columns["raw"][index]),
            f"{columns['percentile'][index] / PERCENTILE_ONE:.3f}",
        )
    out = console.tables(json_target)
    out.print(table)
    out.print(f"{len(known)} frames; {hits} of {int(known.sum())} labelled ones are right")
    console.write_json(
        json_target,
        {"model_id": core.model_id.hex(), "labelled": int(known.sum()), "right": hits, **columns},
    )


def _finish_training(
    result: TrainResult,
    output: Path,
    data: Dataset,
    test_size: int,
    scaling: InputScaling,
    seed: int,
    json_target: str | None,
    **figures: int,
) -> None:
    facts = {
        "classes": list(data.classes),
        "data_digest": data.digest(),
        "seed": seed,
        **scaling.to_json(),
    }
    _save_keras(result.model, output, facts)
    # An autoencoder has no accuracy.
    accuracy = result.history.get("validation_accuracy", [None])[0]
    measured = "" if accuracy is None else f", accuracy {accuracy:.3f} on {test_size} frames"
    console.tables(json_target).print(
        f"wrote {output}: {result.steps} steps in {result.seconds:.1f} s{measured}", soft_wrap=True
    )
    console.write_json(
        json_target,
        {
            "accuracy": accuracy,
            "test_size": test_size,
            "steps": result.steps,
            "epochs": result.epochs,
            "seconds": result.seconds,
            **figures,
        },
    )


def _seed(chosen: config.Config, option: int | None) -> int:
    return chosen.data.seed if option is None else option


def _scaling(chosen: config.Config, frames: Dataset) -> InputScaling:
    from drip.data import InputScaling, default_scaling
    from drip.frontend import LogMel

    options = chosen.preprocessing
    frontend = None
    if options.frontend is not None:
        frontend = LogMel.at_rate(options.sample_rate, options.mels)
    if options.scale is None:
        return default_scaling(frames, frontend)
    return InputScaling(str(frames.x.dtype), options.scale, options.offset, frontend)


def _says(scaling: InputScaling) -> str:
    """How frames are scaled, for the user to see whether that was meant."""
    if isinstance(scaling.scale, tuple) or isinstance(scaling.offset, tuple):
        return f"input = {scaling.dtype} frame, scaled by channel"
    return f"input = {scaling.dtype} frame * {scaling.scale:.6g} + {scaling.offset:.6g}"


def _facts_path(model: Path) -> Path:
    return model.with_suffix(".json")


def _save_keras(model: Any, path: Path, facts: dict[str, Any]) -> None:
    """Save a Keras model and, beside it, what only its training knew: scaling and class names."""
    temporary = path.with_name(f".{path.stem}.tmp.keras")
    try:
        model.save(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    console.write_json(str(_facts_path(path)), facts)


def _read_facts(model: Path) -> dict[str, Any]:
    path = _facts_path(model)
    if not path.exists():
        return {}
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise ModelError(f"cannot read {path}: {reason}", "run drip train again") from error
    if not isinstance(facts, dict):
        raise ModelError(f"{path} is not what drip train wrote", "run drip train again")
    return facts


def _check_folder(path: Path) -> None:
    """Refuse before minutes of work what could only fail after them."""
    if not path.resolve().parent.is_dir():
        raise UsageError(f"no such folder: {path.parent}", "create it first")


def _write_bytes(path: Path, content: bytes) -> None:
    from drip.data.files import write_atomic

    _check_folder(path)
    write_atomic(path, lambda stream: stream.write(content))
