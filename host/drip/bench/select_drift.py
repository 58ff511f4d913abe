"""Retention under drift: how far what a device keeps is from its target, before and after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from drip.bench.select import Place
from drip.bench.select_data import load_pool, make_view
from drip.bench.select_decide import load_decisions
from drip.bench.select_plan import Plan
from drip.errors import DataError


def drift_rows(plan: Plan, place: Place) -> list[dict[str, Any]]:
    """One row per data set, seed, protocol, policy and share: retention in all and by phase.

    Args:
        plan: Its device policies have been decided.
        place: Where the decisions are.

    Raises:
        DataError: The decisions of a view are missing.
    """
    rows = []
    pools = {dataset: load_pool(dataset, place.data) for dataset in plan.datasets}
    for dataset, seed, protocol in plan.views():
        phase = make_view(pools[dataset], seed, protocol).phase
        for keep in plan.keep:
            path = place.decisions(plan, dataset, seed, protocol, keep)
            if not path.exists():
                raise DataError(f"no decisions {path.name}", "run the phase decide")
            decisions = load_decisions(path)
            for policy in plan.device_policies:
                kept = decisions[f"{policy.name}/keep"]
                rows.append(
                    {
                        "dataset": dataset,
                        "seed": seed,
                        "protocol": protocol,
                        "policy": policy.name,
                        "keep": keep,
                        "retention": float(kept.mean()),
                        "before": float(kept[phase == 0].mean()),
                        "after": float(kept[phase == 1].mean()),
                    }
                )
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """Means over seeds, and the worst seed's distance from the target in points."""
    lines = [
        "| data set | drift | policy | target | kept | before | after | worst seed off by |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for case in sorted({(r["dataset"], r["protocol"], r["policy"], r["keep"]) for r in rows}):
        own = [r for r in rows if (r["dataset"], r["protocol"], r["policy"], r["keep"]) == case]
        means = [sum(r[k] for r in own) / len(own) for k in ("retention", "before", "after")]
        worst = max(abs(r["retention"] - case[3]) for r in own)
        lines.append(
            f"| {case[0]} | {case[1]} | {case[2]} | {case[3]:.0%} | "
            + " | ".join(f"{m:.1%}" for m in means)
            + f" | {100 * worst:.1f} |"
        )
    return "\n".join(lines) + "\n"


def write_drift(plan: Plan, place: Place) -> list[dict[str, Any]]:
    """Write ``NAME.json`` and ``NAME.md`` and return the rows."""
    import json

    from drip.data.files import write_atomic

    rows = drift_rows(plan, place)
    texts = {
        "json": json.dumps(rows, indent=1) + "\n",
        "md": f"# {plan.name}: retention\n\n{markdown(rows)}",
    }
    for suffix, text in texts.items():
        path: Path = place.out / f"{plan.name}.{suffix}"
        content = text.encode()
        write_atomic(path, lambda file, content=content: file.write(content))  # type: ignore[misc]
    return rows
