"""Commands that measure: ``drip bench ...``.

Registered by drip.cli. Every one parses, calls the package and prints the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from drip.cli import console
from drip.cli.options import Json

_LEFT = 2

app = typer.Typer(help="Measure what DRIP costs.", no_args_is_help=True)


@app.command()
def engine(
    models: Annotated[
        list[Path] | None,
        typer.Argument(help=".drip or .tflite files, or folders of NAME/model.tflite."),
    ] = None,
    kernels: Annotated[
        str | None, typer.Option(help="dsp or portable; default: both, one after the other.")
    ] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Random inputs per model.")] = 1,
    operators: Annotated[bool, typer.Option("--operators", help="Show every operator.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(help="Write the instruction counts to this .json.")
    ] = None,
    check: Annotated[
        Path | None, typer.Option(help="Fail on over 2 % more instructions than this .json.")
    ] = None,
    document: Annotated[
        Path | None, typer.Option(help="Bring the table in this .md up to date.")
    ] = None,
    json_target: Json = None,
) -> None:
    """Count instructions and bytes of inference on an emulated Cortex-M4F."""
    from drip.bench import engine as bench
    from drip.bench import engine_report as report
    from drip.data.files import write_atomic
    from drip.errors import UsageError

    if kernels is not None and kernels not in bench.VARIANTS:
        raise UsageError(f"unknown kernels {kernels}", f"choose {' or '.join(bench.VARIANTS)}")
    blobs = report.load_models(models or [Path("build/nets")])
    costs = bench.measure(
        blobs, variants=bench.VARIANTS if kernels is None else (kernels,), inputs=inputs
    )
    out = console.tables(json_target)
    rows = report.rows(costs)
    for part in (report.SPEED, report.SIZE):
        out.print(
            _table([report.COLUMNS[n] for n in part], [[row[n] for n in part] for row in rows])
        )
    for cost in costs if operators else ():
        columns = ("", "operator", "output", "kernel", "MACs", "instructions", "per MAC")
        table = _table(columns, report.operator_rows(cost))
        table.title = f"{cost.model}, {cost.variant}"
        out.print(table)
    for line in report.check(costs, check) if check is not None else ():
        out.print(line)
    if baseline is not None:
        console.write_json(str(baseline), report.baseline(costs))
    if document is not None:
        text = report.into_document(costs, document.read_text())
        write_atomic(document, lambda stream: stream.write(text.encode()))
    console.write_json(json_target, [cost.to_json() for cost in costs])


@app.command()
def wire(
    baud: Annotated[int, typer.Option(min=9600, help="Bits per second.")] = 921_600,
    seed: Annotated[int, typer.Option(help="Of the line's faults.")] = 1,
    document: Annotated[
        Path | None, typer.Option(help="Bring the table in this .md up to date.")
    ] = None,
    json_target: Json = None,
) -> None:
    """Pull a log over simulated lines: goodput, efficiency, and no record wrong or missing."""
    from drip.bench import wire as bench
    from drip.data.files import write_atomic

    smp = bench.smp_efficiency()
    costs = [bench.measure(scenario, baud=baud, seed=seed) for scenario in bench.SCENARIOS]
    out = console.tables(json_target)
    out.print(_table(bench.COLUMNS, bench.rows(costs)))
    compared = sum(cost.records for cost in costs)
    out.print(
        f"SMP's serial framing: {smp:.1%} records / wire. All {compared} records were compared."
    )
    if document is not None:
        text = bench.into_document(costs, smp, document.read_text())
        write_atomic(document, lambda stream: stream.write(text.encode()))
    delays = bench.worst_delays()
    out.print(
        f"A frame is in work for {delays['quiet']} ms at most, for {delays['pulled']} ms while a"
        " host pulls."
    )
    console.write_json(json_target, bench.summary(costs, smp, delays))


@app.command()
def select(
    plan: Annotated[
        Path | None, typer.Option(help="What to compare (.json); default: the quick plan.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The quick plan: digits, 2 seeds, minutes.")
    ] = False,
    data: Annotated[Path, typer.Option(help="Folder of the data sets.")] = Path("data"),
    out: Annotated[Path, typer.Option(help="Folder of models, decisions and results.")] = Path(
        "build/select"
    ),
    phase: Annotated[
        list[str] | None,
        typer.Option(help="first, prepare, decide, train, report; alone: rounds, drift."),
    ] = None,
    trainer: Annotated[str, typer.Option(help="keras, or jax for many networks at once.")] = (
        "keras"
    ),
    runner: Annotated[str, typer.Option(help="processes or ray.")] = "processes",
    jobs: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    document: Annotated[
        Path | None, typer.Option(help="Bring the run's short table in this .md up to date.")
    ] = None,
    json_target: Json = None,
) -> None:
    """Compare what policies keep: train on it, and measure against random and full data."""
    from drip.bench import select as bench
    from drip.bench import select_report as report
    from drip.bench.select_plan import QUICK, Plan
    from drip.data.files import write_atomic
    from drip.errors import UsageError

    if quick and plan is not None:
        raise UsageError("--quick is a plan of its own", "leave out --quick or --plan")
    place = bench.Place(data, out, trainer, runner, jobs, say=console.note)
    chosen = Plan.load(plan or QUICK)
    if phase in (["rounds"], ["drift"]):
        from drip.bench import select_drift, select_rounds

        special = select_rounds.write_rounds if phase == ["rounds"] else select_drift.write_drift
        console.write_json(json_target, special(chosen, place))
        return
    rows = bench.run(chosen, place, phase or bench.PHASES).rows
    entries = report.write(chosen, rows, place)
    if document is not None:
        text = report.into_document(chosen.name, entries, document.read_text())
        write_atomic(document, lambda stream: stream.write(text.encode()))
    names = [name for name in report.SHORT if name in report.columns(entries)]
    console.tables(json_target).print(_table(names, report.table(entries, names)))
    console.write_json(json_target, entries)


@app.command()
def prune(
    data: Annotated[
        str, typer.Option(help="cifar10, mnist, plants, speech, imu or digits.")
    ] = "cifar10",
    net: Annotated[str, typer.Option(help="stem-cnn or resnet8.")] = "stem-cnn",
    folder: Annotated[Path, typer.Option(help="Where the data sets are.")] = Path("data"),
    rows: Annotated[
        Path, typer.Option(help="Results, one JSON line each; what is there is not done again.")
    ] = Path("build/prune/rows.jsonl"),
    levels: Annotated[str, typer.Option(help="Shares pruned.")] = "0.5,0.7",
    methods: Annotated[str | None, typer.Option(help="Default: all.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 5,
    epochs: Annotated[int, typer.Option(min=1, help="Of a full training.")] = 40,
    batch: Annotated[int, typer.Option(min=1, help="Frames per step.")] = 128,
    trainer: Annotated[
        str, typer.Option(help="keras: one after the other; jax: side by side.")
    ] = "keras",
    at_once: Annotated[int, typer.Option(min=1, help="With jax: trainings side by side.")] = 16,
    engine: Annotated[
        str, typer.Option(help="With keras: processes of this machine, or ray (RAY_ADDRESS).")
    ] = "processes",
    jobs: Annotated[int, typer.Option(min=1, help="With keras: workers.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Digits, 50 % pruned, 2 seeds: minutes on 2 cores.")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose period, a, eps and c on validation instead.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Draw accuracy against cost (.png).")] = None,
    document: Annotated[
        Path | None, typer.Option(help="Bring the tables in this .md up to date.")
    ] = None,
    json_target: Json = None,
) -> None:
    """Train with every way to prune data: accuracy against total cost, scoring included."""
    from drip.bench import prune as bench
    from drip.bench import prune_report as report
    from drip.data.files import write_atomic

    plan = bench.plan_of(data, net, levels, seeds, epochs, methods, batch, quick=quick)
    bench.start_backend(trainer)
    out = console.tables(json_target)
    if tune:
        best = bench.tune(plan, folder, rows, trainer=trainer, at_once=at_once)
        out.print(console.facts({name: str(settings) for name, settings in best.items()}))
        console.write_json(json_target, best)
        return
    seconds = bench.estimate(plan, folder, rows, trainer=trainer, at_once=at_once)
    console.note(f"about {seconds / 60 / jobs:.0f} min; stop and start again at will")
    with console.progress("trainings") as on_progress:
        bench.run(
            plan,
            folder,
            rows,
            trainer=trainer,
            at_once=at_once,
            engine=engine,
            jobs=jobs,
            on_progress=on_progress,
        )
    lines = report.summarise(bench.load_rows(rows))
    for title, group in report.by_group(lines):
        text = [[row[n] for n in report.SHORT] for row in report.table(group)]
        table = _table([report.COLUMNS[n] for n in report.SHORT], text)
        table.title = title
        out.print(table)
    for line in report.verdicts(lines):
        out.print(line, soft_wrap=True, highlight=False)
    if plot is not None:
        report.plot(lines, plot)
    if document is not None:
        page = report.into_document(lines, document.read_text())
        write_atomic(document, lambda stream: stream.write(page.encode()))
    console.write_json(json_target, report.to_json(lines))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < _LEFT else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
