"""Tables on a terminal: what the commands print."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ngc.cli.settings import printable

if TYPE_CHECKING:
    from ngc.compiler import Compilation
    from ngc.proof import Verification
    from ngc.symmetry import SymmetryGroup


def make_table(
    title: str, columns: Sequence[str], numbers: Sequence[str] = (), caption: str = ""
) -> Table:
    """An empty table; the columns called ``numbers`` are aligned right."""
    table = Table(
        title=Text(printable(title), style="bold"),
        caption=Text(printable(caption)),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in columns:
        right = name in numbers
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def add_row(table: Table, *cells: object) -> None:
    """A row of plain text: names from models are no markup."""
    texts = (cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in cells)
    table.add_row(*texts)


def show_tables(tables: Sequence[Table], lines: Sequence[str] = ()) -> None:
    """Print tables, and lines after them, as wide as the terminal or as ``COLUMNS`` says at most.

    Into a pipe, without ``COLUMNS``, tables take the width that they need.
    """
    console = Console(file=sys.stdout, highlight=False)
    for table in tables:
        if not console.is_terminal and not os.environ.get("COLUMNS"):
            needed = console.measure(table, options=console.options.update(width=10_000))
            console.width = max(needed.maximum, 80)
        # Titles and captions of rich wrap at the width of their table.
        title, caption, table.title, table.caption = table.title, table.caption, None, None
        console.print(title, soft_wrap=True)
        if table.row_count:
            console.print(table)
        if caption:
            console.print(caption, soft_wrap=True, style="dim")
        console.print()
    for line in lines:
        console.print(Text(printable(line)), soft_wrap=True)


def count(number: int) -> str:
    return f"{number:,}"


def sizes(shape: Iterable[object]) -> str:
    return f"[{','.join(str(n) for n in shape)}]"


# --- one table a command ------------------------------------------------------------------------


def compiled_table(
    models: Sequence[str], compilations: Sequence[Compilation], output: Path
) -> Table:
    """One row a network of the file."""
    numbers = ("number", "nodes", "edges", "kernel entries", "parameters")
    table = make_table(
        f"{output}: {len(models)} graph(s)", ("number", "model", *numbers[1:]), numbers
    )
    for number, (model, one) in enumerate(zip(models, compilations)):
        graph = one.plan.graph
        parameters = sum(param.size for param in one.program.params)
        figures = (graph.num_nodes, graph.num_edges, graph.num_taps, parameters)
        add_row(table, number, model, *(count(n) for n in figures))
    return table


def verification_table(model: str, verification: Verification) -> Table:
    """One row a check."""
    verdict = "is proven" if verification.passed else "is NOT what the graph computes"
    table = make_table(f"{model} {verdict}", ("check", "result", "figure"))
    for check in verification.checks:
        result = Text("pass", style="green") if check.passed else Text("FAIL", style="bold red")
        add_row(table, check.name, result, check.figure)
    return table


def verification_lines(verification: Verification) -> list[str]:
    """What was found by each check that failed."""
    return [
        f"{check.name}: {check.detail}"
        for check in verification.checks
        if check.detail and not check.passed
    ]


def symmetry_table(model: str, group: SymmetryGroup) -> Table:
    """One row a family, inner families indented."""
    from ngc.symmetry import describe

    rows = describe(group)
    power = group.log10_order
    families = "1 family" if len(rows) == 1 else f"{len(rows)} families"
    order = f"{round(10**power):,}" if power < 6 else f"10^{power:.1f}"
    caption = f"{families}; order of the group: {order}"
    table = make_table(
        f"{model}: neurons that can be permuted",
        ("family", "size", "copies", "log10 of the order", "values whose neurons move together"),
        ("size", "copies", "log10 of the order"),
        caption,
    )
    for row in rows:
        name = f"{'  ' * row.depth}{row.name}"
        log10 = row.copies * math.lgamma(row.size + 1) / math.log(10)
        figures = (count(row.size), count(row.copies), f"{log10:.1f}")
        add_row(table, name, *figures, ", ".join(row.ties))
    return table


def operator_table() -> Table:
    """One row an operator with rules of its own."""
    import ngc.passes.lower  # noqa: F401  (registers the rules)
    from ngc.passes.lower.base import RULES

    caption = f"{len(RULES)} operators; the others where they depend on no input"
    table = make_table(
        "Operators that compile", ("operator", "domain", "rules since opset"), (), caption
    )
    for (domain, op_type), rules in sorted(RULES.items()):
        versions = ", ".join(str(rule.since) for rule in rules)
        add_row(table, op_type, domain or "ai.onnx", versions)
    return table
