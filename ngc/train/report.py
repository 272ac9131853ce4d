"""Files of a run for people to read: metrics as JSON and CSV, curves, confusion, pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ngc.files import write_beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 120


def write_json(content: Mapping[str, Any], path: Path) -> None:
    text = json.dumps(content, indent=2) + "\n"
    write_beside(path, lambda file: file.write(text.encode()))


def write_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """metrics.csv: a row for each epoch, counted from 1."""
    text = io.StringIO()
    if history:
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "epoch": int(row["epoch"]) + 1} for row in history)
    write_beside(path, lambda file: file.write(text.getvalue().encode()))


def write_columns(columns: Mapping[str, Iterable[Any]], path: Path) -> None:
    """A table as CSV; numbers to six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values()):
        writer.writerow(value if isinstance(value, str) else f"{value:.6g}" for value in row)
    write_beside(path, lambda file: file.write(text.getvalue().encode()))


def draw_curves(histories: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """curves.png: each metric over the epochs, training dashed; one colour for each run."""
    found = [history for history in histories.values() if history]
    if not found:
        return
    names = [name.removeprefix("train_") for name in found[0][0] if name.startswith("train_")]
    figure = new_figure(5 * len(names), 3.5)
    for number, metric in enumerate(names):
        axes = figure.add_subplot(1, len(names), number + 1)
        for color, (label, history) in enumerate(histories.items()):
            epochs = [row["epoch"] + 1 for row in history]
            style: dict[str, Any] = {"color": f"C{color % 10}", "linewidth": 1.2}
            train, validation = (
                [row[f"{split}_{metric}"] for row in history] for split in ("train", "validation")
            )
            prefix = f"{label} " if len(histories) > 1 else ""
            axes.plot(epochs, train, linestyle="--", label=f"{prefix}train", **style)
            axes.plot(epochs, validation, label=f"{prefix}validation", **style)
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    save_figure(figure, path)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str], path: Path) -> None:
    """confusion.png: rows are the true classes, columns the predicted ones; counts."""
    figure = new_figure(0.5 * len(classes) + 2, 0.5 * len(classes) + 2)
    axes = figure.add_subplot()
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column]:
            color = "white" if share[row, column] > 0.5 else "black"
            text = str(matrix[row, column])
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize="small")
    axes.set_xticks(
        range(len(classes)), classes, rotation=45 if len(max(classes, key=len)) > 2 else 0
    )
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    save_figure(figure, path)


# Families of networks that a picture tells apart; the rest are drawn together.
SHOWN_GROUPS = 10


def draw_scatter(
    true: np.ndarray, predicted: np.ndarray, groups: Sequence[str], path: Path
) -> None:
    """scatter.png: predicted against true, one colour for each of the largest groups."""
    figure = new_figure(5.5, 5)
    axes = figure.add_subplot()
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
    for name, chosen in _largest(groups):
        axes.scatter(true[chosen], predicted[chosen], s=6, alpha=0.6, label=name)
    axes.set_xlabel("true")
    axes.set_ylabel("predicted")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small", markerscale=2)
    save_figure(figure, path)


def draw_residuals(residuals: np.ndarray, groups: Sequence[str], path: Path) -> None:
    """residuals.png: predicted minus true, a box for each of the largest groups."""
    found = _largest(groups)
    figure = new_figure(0.7 * len(found) + 2.5, 4)
    axes = figure.add_subplot()
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.boxplot(
        [residuals[chosen] for _, chosen in found], widths=0.6, flierprops={"markersize": 2}
    )
    labels = [f"{name}\n({len(chosen)})" for name, chosen in found]
    axes.set_xticks(range(1, len(found) + 1), labels, rotation=45, ha="right", fontsize="small")
    axes.set_ylabel("predicted - true")
    axes.grid(alpha=0.3, axis="y")
    save_figure(figure, path)


def _largest(groups: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """Places of each of the largest groups, by name, then those of all others."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    order = np.argsort(-np.bincount(group), kind="stable")
    kept = sorted(order[:SHOWN_GROUPS].tolist())
    found = [(str(names[k]), np.flatnonzero(group == k)) for k in kept]
    rest = np.flatnonzero(~np.isin(group, kept))
    return [*found, ("others", rest)] if len(rest) else found


def draw_pictures(rows: Mapping[str, np.ndarray], path: Path) -> None:
    """Pictures [n, channels, height, width] in rows of n, each row named; clamped to [0, 1]."""
    count = min(len(pictures) for pictures in rows.values())
    figure = new_figure(1.1 * count + 0.6, 1.2 * len(rows))
    for row, (name, pictures) in enumerate(rows.items()):
        for column in range(count):
            axes = figure.add_subplot(len(rows), count, row * count + column + 1)
            picture = np.moveaxis(np.clip(pictures[column], 0, 1), 0, -1)
            grey = picture.shape[-1] == 1
            axes.imshow(picture[..., 0] if grey else picture, cmap="gray", vmin=0, vmax=1)
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(name)
    save_figure(figure, path)


def save_picture(picture: np.ndarray, path: Path) -> None:
    """One picture [channels, height, width] as a PNG file, clamped to [0, 1]."""
    from PIL import Image

    pixels = np.rint(np.clip(np.moveaxis(picture, 0, -1), 0, 1) * 255).astype(np.uint8)
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    write_beside(path, lambda file: image.save(file, format="PNG"))


def new_figure(width: float, height: float) -> Figure:
    """A figure without a window or global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, path: Path) -> None:
    """As PNG. A figure that belongs to no window is drawn by matplotlib's Agg."""
    write_beside(path, lambda file: figure.savefig(file, format="png", dpi=DPI))
