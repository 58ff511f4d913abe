"""Commands that replace models: retrain, history.

Registered by drip.cli. Every one parses, calls one function of the package and prints the result.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from drip import config
from drip.cli import console
from drip.cli.model import (
    Batch,
    Data,
    Recipe,
    Steps,
    _check_folder,
    _finish_training,
    _scaling,
    _seed,
    _write_bytes,
)
from drip.cli.options import Json, Seed, Settings, Where, read_model, splits
from drip.errors import DataError, UsageError

if TYPE_CHECKING:
    from drip.data import Dataset, Splits
    from drip.improve import Comparison

app = typer.Typer()


@app.command()
def retrain(
    where: Where = None,
    base: Annotated[
        Path | None,
        typer.Option(help="Deployed .drip: make the model that may replace it, or refuse."),
    ] = None,
    data: Data = None,
    store: Annotated[str | None, typer.Option(help="The same as STORE.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with key,label, or .npz of labelled frames that may be among them."),
    ] = None,
    model: Recipe = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = None,
    pruning: Annotated[
        str, typer.Option(help="With --base: infobatch, uniform, eps-greedy, ucb, rs2 or full.")
    ] = "infobatch",
    prune: Annotated[
        float, typer.Option(help="Share left out; of infobatch, of the easy frames.")
    ] = 0.5,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Show rare classes as often as common ones.")
    ] = False,
    robust: Annotated[
        bool, typer.Option("--robust", help="A loss that stands wrong labels.")
    ] = False,
    margin: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="How much worse it may be; 0.01 = one point.")
    ] = 0.01,
    force: Annotated[bool, typer.Option("--force", help="Even when it is worse.")] = False,
    engine: Annotated[
        Literal["here", "ray"],
        typer.Option(help="With --base: here, or a worker of the cluster at RAY_ADDRESS."),
    ] = "here",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --base .drip, else .keras to write."),
    ] = None,
    settings: Settings = None,
    json_target: Json = None,
) -> None:
    """Train from scratch on the fit part and the labelled frames that boards kept."""
    from drip.label import apply_labels, label_source
    from drip.models import load_builder
    from drip.retrain import Recipe as Training
    from drip.store import Store

    chosen = config.load(settings)
    options = config.override(chosen.model, builder=model, steps=steps, batch=batch)
    parts = splits(chosen, data, seed)
    path = where or store or chosen.store.path
    target = output or Path("model.keras" if base is None else "model.drip")
    _check_folder(target)
    if base is not None and output is None and target.exists():
        # It may well be the parent of the model that is replaced.
        raise UsageError(f"{target} is there already", "name the new model with -o")
    deployed = None if base is None else read_model(base, ".drip")
    kept_store = Store.open(path)
    source = chosen.labels.path if labels is None else labels
    if source is not None:
        apply_labels(kept_store, label_source(source), parts.fit.classes)
    kept = kept_store.dataset(parts.fit.classes)
    _check_labels(kept, str(path))
    if deployed is None:
        if engine != "here":
            raise UsageError("--engine goes with --base", "name the deployed model")
        _plain(parts, kept, chosen, options, _seed(chosen, seed), target, json_target)
        return
    if base is not None and target.resolve() == base.resolve():
        raise UsageError(f"{target} is the deployed model", "name another file with -o")
    from drip.improve import improve, improve_on_ray
    from drip.lineage import summary, write_card

    training = Training(
        pruning=pruning,
        prune=prune,
        steps=options.steps,
        batch=options.batch,
        learning_rate=options.learning_rate,
        balanced=balanced,
        robust=robust,
    )
    checkpoints = target.parent.resolve() / f".{target.stem}.checkpoints"
    settled: dict[str, Any] = {
        "builder_name": options.builder,
        "scaling": _scaling(chosen, parts.fit),
        "recipe": training,
        "seed": _seed(chosen, seed),
        "target_ratio": chosen.policy.target_ratio,
        "margin": margin,
        "force": force,
        "checkpoints": checkpoints,
        "store": {"path": str(path), "records": len(kept_store)},
    }
    if engine == "ray":
        result = improve_on_ray(deployed, parts, kept, **settled)
    else:
        builder = load_builder(options.builder)
        with _resumable(checkpoints), console.progress("training") as on_progress:
            result = improve(
                deployed, parts, kept, builder=builder, on_progress=on_progress, **settled
            )
    if result.resumed_at:
        console.note(f"went on from epoch {result.resumed_at}, where it had been stopped")
    _write_bytes(target, result.blob)
    _write_bytes(target.with_suffix(".tflite"), result.tflite)
    write_card(target, result.card)
    # What trainings on other labels had left there is of no more use.
    shutil.rmtree(checkpoints, ignore_errors=True)
    out = console.tables(json_target)
    out.print(_comparison(result.comparison))
    for line in summary(result.card):
        out.print(line, soft_wrap=True, highlight=False)
    out.print(f"wrote {target} and its card", soft_wrap=True, highlight=False)
    console.write_json(json_target, result.card)


@contextlib.contextmanager
def _resumable(checkpoints: Path) -> Iterator[None]:
    """Whoever stops a training is told that it is not lost."""
    try:
        yield
    except KeyboardInterrupt:
        if any(checkpoints.glob("*.npz")):
            console.note("stopped; the same command goes on after the last whole epoch")
        raise


def _check_labels(kept: Dataset, store: str) -> None:
    """Refuse to train without a single frame of the store, and say how many do not count.

    Raises:
        DataError: None has a label.
    """
    unlabelled = int((kept.y < 0).sum())
    if unlabelled == len(kept):
        raise DataError(
            f"no frame of {store} has a label", "label them: drip label, or --labels FILE"
        )
    if unlabelled:
        console.note(f"{unlabelled} of {len(kept)} frames have no label and are left out")


def _plain(
    parts: Splits,
    kept: Dataset,
    chosen: config.Config,
    options: config.ModelConfig,
    seed: int,
    target: Path,
    json_target: str | None,
) -> None:
    """Without a deployed model to hold it against: a .keras to convert."""
    from drip.data import Dataset
    from drip.models import load_builder
    from drip.retrain import retrain as retrain_model

    scaling = _scaling(chosen, parts.fit)
    with console.progress("training") as on_progress:
        result = retrain_model(
            parts.fit,
            kept,
            validation=parts.test,
            builder=load_builder(options.builder),
            scaling=scaling,
            seed=seed,
            steps=options.steps,
            batch=options.batch,
            on_progress=on_progress,
        )
    _finish_training(
        result,
        target,
        Dataset.concat(parts.fit, kept),
        len(parts.test),
        scaling,
        seed,
        json_target,
        frames_kept=len(kept),
        frames_labelled=int((kept.y >= 0).sum()),
    )


def _comparison(comparison: Comparison) -> Table:
    """Both models side by side on the held-out frames."""
    old, new = comparison.deployed, comparison.candidate
    table = Table("on held-out frames", "deployed", "new", "points")
    rows: list[tuple[str, Any, Any]] = [
        ("accuracy", old.accuracy, new.accuracy),
        ("balanced accuracy", old.balanced_accuracy, new.balanced_accuracy),
        *((f"class {c}", old.per_class.get(c, 0.0), new.per_class[c]) for c in new.per_class),
    ]
    for name, a, b in rows:
        table.add_row(name, f"{100 * a:.1f} %", f"{100 * b:.1f} %", f"{100 * (b - a):+.1f}")
    table.add_row(
        "calibration error", f"{old.calibration_error:.3f}", f"{new.calibration_error:.3f}", ""
    )
    table.add_row("before quantisation", "", f"{100 * comparison.candidate_float:.1f} %", "")
    return table


@app.command()
def history(
    model: Annotated[Path, typer.Argument(help=".drip whose ancestors to show.")],
    folders: Annotated[
        list[Path] | None, typer.Option("--folder", help="Where else older models are.")
    ] = None,
    json_target: Json = None,
) -> None:
    """Show what a model was trained on and which models it comes from."""
    from drip.lineage import history as line_of

    for folder in folders or ():
        if not folder.is_dir():
            raise UsageError(f"no such folder: {folder}", "older models are looked for there")
    line = line_of(model, folders or ())
    table = Table("model", "file", "data", "seed", "frames", "accuracy", "gain")
    for one in line:
        card = one.card or {}
        measured = card.get("measured", {})
        table.add_row(
            one.model_id[:16],
            "not here" if one.path is None else one.path.name,
            one.data_digest[:12],
            "" if one.seed is None else str(one.seed),
            str(card.get("data", {}).get("frames", "")),
            f"{100 * measured['candidate']['accuracy']:.1f} %" if measured else "",
            f"{100 * measured['gain']:+.1f}" if measured else "",
        )
    console.tables(json_target).print(table)
    console.write_json(json_target, [one.to_json() for one in line])
