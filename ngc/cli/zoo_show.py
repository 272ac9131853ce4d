"""What ``ngc zoo`` prints of a zoo."""

from __future__ import annotations

from collections import Counter

import torch
from rich.table import Table

from ngc.cli.tables import add_row, make_table, show_tables
from ngc.zoo.store import Zoo

SHOWN = 12  # architectures
MARKS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def describe(zoo: Zoo) -> None:
    facts = zoo.facts
    on_disk = sum(path.stat().st_size for path in zoo.path.rglob("*") if path.is_file())
    weights = sum(
        place.count * place.parameters * place.dtype.itemsize
        for places in zoo.places
        for _, place in places
    )
    lines = [
        f"{zoo.path}: {on_disk:,} bytes, {on_disk / max(weights, 1):.3f} times its weights "
        f"({facts['dtype']})",
        f"imported from: {facts['source']} ({facts['importer']})",
        f"columns: {', '.join(zoo.table)}",
    ]
    tables = [_architecture_table(zoo)]
    if "accuracy" in zoo.table:
        tables.append(_accuracy_table(zoo))
    show_tables(tables, lines)


def _architecture_table(zoo: Zoo) -> Table:
    counts = torch.bincount(zoo.architecture, minlength=len(zoo.architectures))
    order = sorted(range(len(counts)), key=lambda k: (-int(counts[k]), zoo.architectures.hashes[k]))
    left = len(order) - SHOWN
    note = f"and {left:,} more architectures" if left > 0 else ""
    title = f"{len(zoo):,} networks of {len(order):,} architectures"
    if "run" in zoo.table:
        title += f", {len(set(zoo.table['run'])):,} runs"
    columns = ("architecture", "networks", "parameters", "operations")
    table = make_table(title, columns, ("networks", "parameters"), note)
    for number in order[:SHOWN]:
        one = zoo.architectures[number]
        ops = Counter(op.mnemonic for op in one.program.ops)
        listed = ", ".join(f"{count} {name}" for name, count in ops.items() if name != "input")
        add_row(table, one.hash, f"{int(counts[number]):,}", f"{one.num_parameters:,}", listed)
    return table


def _accuracy_table(zoo: Zoo) -> Table:
    """Quantiles, of all networks and of each split."""
    columns = ("split", "networks", "known", *(f"{100 * mark:.0f} %" for mark in MARKS))
    table = make_table("Distribution of accuracy", columns, columns[1:])
    accuracy = zoo.numbers("accuracy")
    splits = zoo.table.get("split", [])
    for name in ("all", *sorted(set(splits) - {""})):
        here = torch.tensor([name in ("all", split) for split in splits or ["all"] * len(zoo)])
        known = accuracy[here][~accuracy[here].isnan()]
        wanted = torch.tensor(MARKS, dtype=known.dtype)
        marks = torch.quantile(known, wanted).tolist() if len(known) else []
        shown = [f"{mark:.4f}" for mark in marks] or ["-"] * len(MARKS)
        add_row(table, name, f"{int(here.sum()):,}", f"{len(known):,}", *shown)
    return table
