"""Golden tests of graph passes: program text in, graph text out."""

from __future__ import annotations

import difflib
import textwrap

from ngc.ir.check import check
from ngc.ir.graph import Graph
from ngc.ir.graph_text import print_graph
from ngc.ir.program import Program
from ngc.options import Options
from ngc.passes.graph.base import GraphPass
from ngc.passes.graph.emit import emit
from ngc.passes.graph.kernel import KernelPadding
from ngc.passes.graph.number import Number
from ngc.passes.graph.pipeline import graph_passes
from ngc.passes.wire import wire
from tests.passes.program.golden import program_of


def steps_of(program: Program, options: Options) -> dict[str, GraphPass]:
    """All passes by name, at these options."""
    steps = graph_passes(program, options, max_taps=10_000)
    directions = 3 if options.reverse == "features" else 1
    steps.append(KernelPadding(options.kernel, options.linear_as, directions))
    return {step.name: step for step in steps}


def graph_after(body: str, *names: str, **options: object) -> tuple[Program, Graph, GraphPass]:
    """The emitted graph after the passes of these names, and the last of them."""
    program = program_of(body)
    check(program)
    steps = steps_of(program, Options(**options))  # type: ignore[arg-type]
    graph = emit(wire(program))
    for name in names:
        graph = steps[name](graph)
    return program, graph, steps[names[-1] if names else "number"]


def golden(body: str, names: str, after: str, **options: object) -> Graph:
    """The passes (words of ``names``) turn a program's emitted graph into this text; the last of
    them changes nothing more when it is run again."""
    program, graph, last = graph_after(body, *names.split(), **options)
    numbered = graph if graph.groups else Number(program)(graph)
    found = print_graph(numbered, program).splitlines()[1:-1]
    expected = textwrap.indent(textwrap.dedent(after).strip(), "  ").splitlines()
    differences = "\n".join(difflib.unified_diff(expected, found, "expected", "found", lineterm=""))
    assert not differences, f"\n{differences}"
    if names:
        assert last(graph) is graph
    return numbered


def unchanged(body: str, names: str, **options: object) -> None:
    """The last of the passes returns the same object."""
    *before, last = names.split()
    _, graph, _ = graph_after(body, *before, **options)
    program = program_of(body)
    assert steps_of(program, Options(**options))[last](graph) is graph  # type: ignore[arg-type]
