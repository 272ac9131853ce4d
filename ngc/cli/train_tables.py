"""Tables of runs and predictions."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from ngc.cli.tables import add_row, count, make_table
from ngc.train.runs import Run, differing, figure

if TYPE_CHECKING:
    from ngc.train.predict import Prediction


def result_table(folder: Path, metrics: Mapping[str, Any]) -> Table:
    """What a run has found: validation and test of its best epoch."""
    seeds = metrics.get("seeds")
    caption = f"{metrics['model']}, {metrics['parameters']:,} parameters, {metrics['regime']}"
    if seeds:
        caption += f"; mean and deviation over seeds {', '.join(map(str, seeds))}"
    table = make_table(
        f"{folder}", ("metric", "validation", "test"), ("validation", "test"), caption
    )
    for name, value in metrics["test"].items():
        add_row(table, name, figure(metrics["validation"].get(name, "-")), figure(value))
    return table


# Columns of a terminal that has room for all there is to say of a run.
WIDE = 130


def runs_table(out: Path, runs: Sequence[Run]) -> Table:
    """One row a run; in a narrow terminal what tells runs apart."""
    wide = shutil.get_terminal_size().columns >= WIDE
    kept = None if wide else ("run", "model", "epochs", "test")
    numbers = ("networks", "epochs", "parameters", "minutes")
    columns = ("run", "task", "model", "regime", *numbers, "test")
    caption = "" if runs else "none yet: ngc run RECIPE"
    shown = [name for name in columns if kept is None or name in kept]
    table = make_table(f"{out}: {len(runs)} run(s)", shown, numbers, caption)
    table.columns[0].no_wrap = True  # to be copied
    for run in runs:
        task, model = run.recipe.get("task", {}), run.recipe.get("model", {})
        cells = {
            "run": run.path.name, "task": task.get("name", "?"), "model": model.get("name", "?"),
            **_figures(run),
        }  # fmt: skip
        add_row(table, *(cells[name] for name in shown))
    return table


def _figures(run: Run) -> dict[str, str]:
    """What a run is measured by, and what it found."""
    metrics = run.metrics
    if not metrics:
        done = f"{run.epochs_done} of {run.epochs_wanted}"
        return {
            "regime": "-", "networks": "-", "epochs": done, "parameters": "-", "minutes": "-",
            "test": "not ended",
        }  # fmt: skip
    return {
        "regime": metrics["regime"],
        "networks": count(metrics["data"]["train"]),
        "epochs": str(metrics["epochs"]["trained"]) + (" in all" if "seeds" in metrics else ""),
        "parameters": count(metrics["parameters"]),
        "minutes": f"{run.time['train_seconds'] / 60:.1f}" if run.time else "-",
        "test": ", ".join(f"{name} {figure(value)}" for name, value in metrics["test"].items()),
    }


def comparison_table(runs: Sequence[Run]) -> Table:
    """One column a run: figures, then the keys in which their recipes differ."""
    names = [str(run.path) for run in runs]
    table = make_table(f"{len(runs)} run(s)", ("", *names))
    figures = [_figures(run) for run in runs]
    for key in figures[0]:
        if key != "test":
            add_row(table, key, *(one[key] for one in figures))
    for split in ("validation", "test"):
        found = [run.metrics.get(split, {}) for run in runs]
        for name in dict.fromkeys(name for one in found for name in one):
            add_row(table, f"{split} {name}", *(figure(one.get(name, "-")) for one in found))
    for key, values in differing(runs).items():
        add_row(table, key, *values)
    return table


def prediction_table(classes: Sequence[str], found: Sequence[Prediction]) -> Table:
    """One row a network."""
    table = make_table(
        f"{len(found)} network(s)", ("model", "class", "confidence"), ("confidence",)
    )
    for one in found:
        assert one.probabilities is not None
        best = int(one.probabilities.argmax())
        add_row(table, one.file, classes[best], f"{float(one.probabilities[best]):.1%}")
    return table


def number_table(target: str, found: Sequence[Prediction]) -> Table:
    """One row a network: the mean over the models of a run, and their spread."""
    several = any(one.values is not None and len(one.values) > 1 for one in found)
    columns = ("model", target, *(["spread over seeds"] if several else []))
    table = make_table(f"{len(found)} network(s)", columns, columns[1:])
    for one in found:
        assert one.values is not None
        spread = [f"{float(one.values.std()):.3f}"] if several else []
        add_row(table, one.file, f"{float(one.values.mean()):.3f}", *spread)
    return table


def edit_table(found: Sequence[Prediction], written: Sequence[Path]) -> Table:
    """One row a network."""
    from ngc.train.networks import weight_change

    columns = ("model", "edited", "change of a weight (root mean square)")
    table = make_table(f"{len(found)} network(s)", columns, columns[-1:])
    for one, path in zip(found, written):
        assert one.edited is not None
        add_row(table, one.file, path, f"{weight_change(one.edited - one.weights):.6f}")
    return table
