"""What ``ngc data`` prints of a set of INRs."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.table import Table

from ngc.cli.tables import add_row, make_table, show_tables
from ngc.train.images import SPLITS
from ngc.train.inr_sets import PUBLISHED_STATISTICS, InrSet


def describe(found: InrSet, path: Path) -> None:
    lines = [f"{path}: {path.stat().st_size:,} bytes"]
    if found.origin.get("command"):
        lines.append(f"made by: {found.origin['command']}")
    show_tables([_set_table(found), _layer_table(found), _convention_table(found)], lines)


def _set_table(found: InrSet) -> Table:
    columns = ("split", "networks", "classes", "PSNR 10 %", "median", "90 %")
    table = make_table(f"{len(found):,} INRs", columns, columns[1:])
    for name in SPLITS:
        part = found.of_split(name)
        if not len(part):
            continue
        known = part.psnr[~part.psnr.isnan()]
        marks = torch.quantile(known, torch.tensor([0.1, 0.5, 0.9])).tolist() if len(known) else ()
        shown = [f"{mark:.1f} dB" for mark in marks] or ["-"] * 3
        add_row(table, name, f"{len(part):,}", len(part.label.unique()), *shown)
    return table


def _layer_table(found: InrSet) -> Table:
    published = {f"published {name}": rows for name, rows in PUBLISHED_STATISTICS.items()}
    rows = found.statistics()
    if any(len(rows) != len(other) for other in published.values()):
        published = {}  # of another depth
    columns = ("layer", "weights mean", "std", "biases mean", "bias std", *published)
    note = "published: std of weights / of biases" if published else ""
    table = make_table("Statistics of each layer", columns, columns[1:], note)
    for k, row in enumerate(rows):
        others = (f"{of[k][0]:.4f} / {of[k][1]:.4f}" for of in published.values())
        figures = (row.weight_mean, row.weight_std, row.bias_mean, row.bias_std)
        add_row(table, f"seq.{k}", *(f"{figure:.4f}" for figure in figures), *others)
    return table


def _convention_table(found: InrSet) -> Table:
    table = make_table("Conventions", ("name", "value"))
    for name, value in found.conventions.to_dict().items():
        add_row(table, name, ",".join(map(str, value)) if isinstance(value, list) else value)
    return table
