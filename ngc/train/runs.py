"""Run folders: naming, finding and reading them, and rows to compare them by.

    runs/NAME-001/  recipe.yaml versions.json metrics.json metrics.csv curves.png ... checkpoints/

A run with several seeds has a folder ``seed-N`` of that form for each, and beside them the mean and
deviation over all. A folder without ``metrics.json`` is of a run that has not ended.
"""

from __future__ import annotations

import csv
import json
import shlex
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ngc.errors import NgcError, OptionError

RECIPE, METRICS, HISTORY = "recipe.yaml", "metrics.json", "metrics.csv"
VERSIONS, TIME, CHECKPOINTS = "versions.json", "time.json", "checkpoints"


@dataclass(frozen=True)
class Run:
    """What a run folder says. ``metrics`` is empty while the run has not ended."""

    path: Path
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    time: dict[str, Any]

    @property
    def epochs_done(self) -> int:
        """Over all seeds."""
        folders = [self.path, *self.path.glob("seed-*")]
        return sum(len(read_history(folder / HISTORY)) for folder in folders)

    @property
    def epochs_wanted(self) -> int:
        """At most, over all seeds."""
        return int(self.recipe["train"]["epochs"]) * len(self.recipe["seeds"])


def new_folder(out: Path, name: str) -> Path:
    """OUT/NAME-001, or the next number that is free; made."""
    out.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = out / f"{name}-{number:03d}"
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def is_run(path: Path) -> bool:
    return (path / RECIPE).is_file()


def require_run(path: Path) -> None:
    """Refuse what is no run folder."""
    if not is_run(path):
        holds_runs = path.is_dir() and any(is_run(inner) for inner in path.iterdir())
        option = f" --out {shlex.quote(str(path))}" if holds_runs else ""
        raise OptionError(
            f"it has no {RECIPE}, so it is no run folder",
            where=str(path),
            hint=f"ngc runs{option}, to list runs",
        )


def read_run(path: Path) -> Run:
    """Of a run folder, or of one seed in it."""
    require_run(path)
    try:
        recipe = yaml.safe_load((path / RECIPE).read_text())
    except yaml.YAMLError as error:
        raise OptionError(f"its {RECIPE} is damaged: {error}", where=str(path)) from error
    if not _is_resolved(recipe):
        raise OptionError(f"its {RECIPE} is damaged: it is no whole recipe", where=str(path))
    return Run(path, recipe, read_json(path / METRICS), read_json(path / TIME))


def _is_resolved(recipe: object) -> bool:
    """Whether it has what is read of every recipe that a run has written in full."""
    if not isinstance(recipe, dict):
        return False
    train, model = recipe.get("train"), recipe.get("model")
    whole = isinstance(train, dict) and isinstance(train.get("epochs"), int)
    named = isinstance(model, dict) and isinstance(model.get("name"), str)
    return whole and named and isinstance(recipe.get("seeds"), list)


def find_runs(out: Path, skipped: Callable[[NgcError], None]) -> list[Run]:
    """All runs below a folder, by name; ``skipped`` is told of those that cannot be read."""
    if not out.is_dir():
        return []
    found = []
    for path in sorted(out.iterdir()):
        if is_run(path):
            try:
                run = read_run(path)
                run.epochs_done  # noqa: B018  reads the history
            except NgcError as error:
                skipped(error)
            else:
                found.append(run)
    return found


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file, empty where there is no file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise OptionError(f"it is damaged: {error}", where=str(path)) from error
    if not isinstance(found, dict):
        raise OptionError("it holds no object", where=str(path))
    return found


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, epochs counted from 0; none where there is no file."""
    if not path.is_file():
        return []
    try:
        with path.open(newline="") as file:
            rows = [{name: float(v) for name, v in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError) as error:  # a cell that is no number, or is not there
        raise OptionError(f"it is damaged: {error}", where=str(path)) from error
    return [{**row, "epoch": row["epoch"] - 1} for row in rows]


# --- several seeds ------------------------------------------------------------------------------


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and sample standard deviation, as in the paper's tables."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "deviation": deviation, "values": list(values)}


def over_seeds(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Metrics of a run from those of its seeds: what they share, and the spread of the rest."""
    first = found[0]
    shared = {key: value for key, value in first.items() if all(m.get(key) == value for m in found)}
    return {
        **shared,
        "seeds": [metrics["seed"] for metrics in found],
        "epochs": {"trained": sum(metrics["epochs"]["trained"] for metrics in found)},
        **{
            split: {
                name: spread([metrics[split][name] for metrics in found]) for name in first[split]
            }
            for split in ("validation", "test")
        },
    }


def figure(value: object) -> str:
    """A metric, or mean and deviation of it over seeds."""
    if isinstance(value, Mapping):
        digits = 4 if value["mean"] >= 0.1 else 5
        return f"{value['mean']:.{digits}f} \u00b1 {value['deviation']:.{digits}f}"
    if isinstance(value, float):
        return f"{value:.4f}" if value >= 0.1 else f"{value:.5f}"
    return str(value)


# --- side by side -------------------------------------------------------------------------------


def differing(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Keys in which the recipes of some runs differ, each with the value in each of them."""
    flat = [dict(_flat(run.recipe)) for run in runs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = {key: [_shown(one.get(key)) for one in flat] for key in keys}
    return {key: row for key, row in rows.items() if len(set(row)) > 1}


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
