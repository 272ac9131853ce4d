"""What a zoo has become: counts, accuracies, a hash of all networks; as JSON and a picture."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ngc.train.maker_images import Prepared
from ngc.train.maker_recipe import ZooRecipe
from ngc.train.report import new_figure, save_figure, write_json
from ngc.zoo.importers.made import ABOUT, METRICS, NETWORKS

SUMMARY, PICTURE = "summary.json", "accuracies.png"
LIBRARIES = ("ngc", "torch", "numpy")


def write_summary(
    recipe: ZooRecipe, images: Prepared, folder: Path, command: str
) -> dict[str, object]:
    """Write and return the summary of a zoo that is complete. It follows from the networks, so it
    is the same after a resumed run."""
    networks = sorted(path for path in (folder / NETWORKS).iterdir() if path.is_dir())
    abouts = [json.loads((path / ABOUT).read_text()) for path in networks]
    accuracies = [_accuracies(path) for path in networks]
    every = np.concatenate([list(found.values()) for found in accuracies])
    last = [found[max(found)] for found in accuracies if found]
    summary: dict[str, Any] = {
        "command": command,
        "networks": len(networks),
        "architectures": len({json.dumps(about["architecture"]) for about in abouts}),
        "checkpoints": len(every),
        "stopped": [about["run"] for about in abouts if "stopped" in about],
        "accuracy": {"of the last epoch": _spread(last), "of all checkpoints": _spread(every)},
        "images": {"set": recipe.images.set, **images.facts(), "sha256": images.digest()},
        "sha256": _digest(networks),
        "versions": {name: version(name) for name in LIBRARIES},
        "processor": platform.processor() or platform.machine(),
    }
    write_json(summary, folder / SUMMARY)
    by_epoch: dict[int, list[float]] = {}
    for found in accuracies:
        for epoch, accuracy in found.items():
            by_epoch.setdefault(epoch, []).append(accuracy)
    draw_accuracies(dict(sorted(by_epoch.items())), folder / PICTURE)
    return summary


def _accuracies(network: Path) -> dict[int, float]:
    """Of each checkpoint, by epoch."""
    with (network / METRICS).open(newline="") as file:
        return {int(row["epoch"]): float(row["accuracy"]) for row in csv.DictReader(file)}


def _spread(values: Any) -> dict[str, float]:
    names = ("least", "tenth", "median", "nine tenths", "most")
    figures = np.quantile(np.asarray(values), (0, 0.1, 0.5, 0.9, 1)) if len(values) else ()
    return {name: round(float(figure), 4) for name, figure in zip(names, figures)}


def _digest(networks: list[Path]) -> str:
    """Of the names and contents of all files of all networks."""
    found = hashlib.sha256()
    for path in networks:
        for file in sorted(path.iterdir()):
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            found.update(f"{path.name}/{file.name} {content}\n".encode())
    return found.hexdigest()


def draw_accuracies(by_epoch: dict[int, list[float]], path: Path) -> None:
    """accuracies.png: how many networks reach which accuracy, and how it grows over the epochs."""
    figure = new_figure(9, 3.5)
    counts, growth = figure.subplots(1, 2)
    every = [value for values in by_epoch.values() for value in values]
    if every:
        edges = np.linspace(min(every), max(every) + 1e-9, 41)
        last = list(by_epoch.values())[-1]
        counts.hist(every, edges, label=f"all checkpoints ({len(every):,})", color="C0", alpha=0.5)
        counts.hist(last, edges, label=f"last epoch ({len(last):,})", color="C1")
        counts.legend(fontsize="small")
        names = (0.1, 0.5, 0.9)
        quantiles = np.array([np.quantile(values, names) for values in by_epoch.values()])
        for name, line in zip(names, quantiles.T):
            growth.plot(list(by_epoch), line, marker=".", label=f"quantile {name}")
        growth.legend(fontsize="small")
    counts.set_xlabel("test accuracy")
    counts.set_ylabel("checkpoints")
    growth.set_xlabel("epoch")
    growth.set_ylabel("test accuracy")
    growth.grid(alpha=0.3)
    save_figure(figure, path)
