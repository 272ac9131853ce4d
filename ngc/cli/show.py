"""``ngc show``: the stages of a compilation as tables or as stable text."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir
from rich.table import Table

from ngc.cli.settings import Settings
from ngc.cli.tables import add_row, count, make_table, sizes
from ngc.compiler import lower_with_shapes, simplify
from ngc.coverage import ABSENT, FOLDED, Coverage
from ngc.errors import OptionError
from ngc.frontends.models import load
from ngc.ir.graph import (
    ACTIVATIONS,
    EDGE_KINDS,
    NODE_KINDS,
    NODE_ROLES,
    POOLS,
    Graph,
    NodeGroup,
)
from ngc.ir.graph_text import group_names, params_of, print_graph, scalars_of
from ngc.ir.program import Program
from ngc.ir.source import Source
from ngc.ir.text import print_program
from ngc.passes.graph.emit import emit
from ngc.passes.graph.number import Number
from ngc.passes.graph.pipeline import build_graph, graph_passes
from ngc.passes.normalize.pipeline import NORMALISE_PIPELINE, normalise
from ngc.passes.pipeline import PROGRAM_PIPELINE
from ngc.passes.wire import wire

LEVELS = ("onnx", "program", "graph")


@dataclass(frozen=True, eq=False)
class Stage:
    """One level of one model: ``content`` is what is shown."""

    level: str
    content: Source | Program | Graph
    notes: tuple[str, ...] = ()
    program: Program | None = None
    coverage: Coverage | None = None


def pass_names(settings: Settings) -> dict[str, tuple[str, ...]]:
    """The passes that run with these options, in order, by level."""
    empty = Program("", (), (), ())
    graph = (step.name for step in graph_passes(empty, settings.options, 0))
    return {
        "onnx": NORMALISE_PIPELINE,
        "program": ("lower", *PROGRAM_PIPELINE),
        "graph": ("emit", *graph, "kernel"),
    }


def level_of(name: str, settings: Settings) -> str:
    """The level that a pass works on."""
    by_level = pass_names(settings)
    for level, names in by_level.items():
        if name in names:
            return level
    every = [name for names in by_level.values() for name in names]
    near = difflib.get_close_matches(name, every, n=1)
    listed = "; ".join(f"{level}: {', '.join(names)}" for level, names in by_level.items())
    raise OptionError(
        f"no pass {name!r} runs with these options. Passes are {listed}",
        hint=f"--after {near[0]}" if near else "",
    )


def read_stages(model: str, settings: Settings, level: str | None, after: str) -> list[Stage]:
    """The stages to show: one level or all of them, or what one pass leaves."""
    if after:
        found = level_of(after, settings)
        if level not in (None, found):
            raise OptionError(f"{after} is a pass of level {found}", hint=f"--level {found}")
        return [_stopped(model, settings, found, after)]
    levels = [level] if level else list(LEVELS)
    if levels == ["onnx"]:
        return [_stopped(model, settings, "onnx", "")]
    compiled = settings.compile(model)
    stages = {
        "onnx": Stage("onnx", compiled.source),
        "program": Stage("program", compiled.program),
        "graph": Stage("graph", compiled.plan.graph, (), compiled.program, compiled.coverage),
    }
    return [stages[name] for name in levels]


def _stopped(model: str, settings: Settings, level: str, after: str) -> Stage:
    """The model as it is after one pass."""
    options, budget = settings.options, settings.budget
    source = load(model, settings.inputs, budget=budget)
    if level == "onnx":
        return Stage("onnx", normalise(source, options, after=after), source.notes)
    source = normalise(source, options)
    lowered, notes = lower_with_shapes(source, settings.shapes, settings.dims, budget)
    notes = (*source.notes, *notes, *lowered.notes)
    if level == "program":
        program = lowered.program if after == "lower" else simplify(lowered.program, after)
        return Stage("program", program, notes)
    program = simplify(lowered.program)
    wiring = wire(program, options.input_axes, budget.max_elements, options.recurrent)
    if after == "emit":
        graph = emit(wiring)
    else:
        graph = build_graph(wiring, options, budget.max_elements, after)
    if not graph.groups:  # not numbered yet: the table and the text go by groups
        graph = Number(program)(graph)
    return Stage("graph", graph, notes, program)


def stage_text(stage: Stage) -> str:
    """The stable text form of a stage."""
    match stage.content:
        case Program():
            return print_program(stage.content)
        case Graph():
            assert stage.program is not None
            return print_graph(stage.content, stage.program)
    # Without the weights: they are declared with type and shape.
    return onnx_ir.to_onnx_text(stage.content.model, exclude_initializers=True).rstrip() + "\n"


# --- tables -------------------------------------------------------------------------------------


def _type(value: onnx_ir.Value) -> str:
    tensor = value.const_value
    if tensor is not None:
        return f"{tensor.dtype.name.lower()} {sizes(tensor.shape)}"
    dtype = value.dtype.name.lower() if value.dtype is not None else "?"
    return f"{dtype} {sizes(value.shape) if value.shape is not None else '?'}"


def stage_tables(stage: Stage, nodes: bool) -> list[Table]:
    """The tables of a stage; with ``nodes`` single nodes too."""
    match stage.content:
        case Program():
            return [_program_table(stage.content, nodes)]
        case Graph():
            assert stage.program is not None
            tables = [
                _group_table(stage.content, stage.program, nodes),
                _block_table(stage.content, stage.program, nodes),
            ]
            return [*tables, coverage_table(stage.coverage)] if stage.coverage else tables
    return list(_onnx_tables(stage.content, nodes))


def _onnx_tables(source: Source, nodes: bool) -> Iterator[Table]:
    graph = source.model.graph
    opsets = ", ".join(
        f"{d or 'ai.onnx'} {v}" for d, v in sorted(source.model.opset_imports.items())
    )
    ends = make_table(
        f"{source.name}: inputs and outputs", ("", "name", "type"), (), f"opset {opsets}"
    )
    for value in graph.inputs:
        if value.name not in graph.initializers:
            add_row(ends, "input", value.name, _type(value))
    for value in graph.outputs:
        add_row(ends, "output", value.name, _type(value))
    yield ends
    tensors = [v.const_value for v in graph.initializers.values() if v.const_value is not None]
    floating = [t for t in tensors if t.dtype.is_floating_point()]
    total = sum(int(t.size) for t in floating)
    listed = list(graph)
    kinds = Counter((node.op_type, node.domain or "ai.onnx") for node in listed)
    caption = (
        f"{count(len(listed))} nodes of {len(kinds)} operators; {count(len(floating))} "
        f"floating-point initializers with {count(total)} entries"
    )
    if nodes:
        table = make_table(f"{source.name}: nodes", ("node", "operator", "outputs"), (), caption)
        for node in listed:
            add_row(table, node.name, node.op_type, ", ".join(str(v.name) for v in node.outputs))
    else:
        table = make_table(
            f"{source.name}: operators", ("operator", "domain", "nodes"), ("nodes",), caption
        )
        for (op_type, domain), number in sorted(
            kinds.items(), key=lambda kind: (-kind[1], kind[0])
        ):
            add_row(table, op_type, domain, count(number))
    yield table


def _program_table(program: Program, nodes: bool) -> Table:
    sizes_of = {param.name: param.size for param in program.params}
    caption = (
        f"{count(len(program.ops))} operations; {count(len(program.params))} parameters "
        f"with {count(sum(sizes_of.values()))} entries; outputs "
        + ", ".join(f"{name} = {ref}" for name, ref in program.outputs)
    )
    columns = ("value", "operation", "reads", "shape", "parameters", *(["node"] if nodes else []))
    table = make_table(f"program {program.name}", columns, (), caption)
    for op in program.ops:
        fn = getattr(op, "fn", "")
        name = f"{op.mnemonic} {fn}" if fn else op.mnemonic
        operands = (
            f"{role}={params_of(slots, program.params)}" for role, slots in op.operands.items()
        )
        cells = [op.out.name, name, ", ".join(op.inputs), sizes(op.out.shape), "\n".join(operands)]
        add_row(table, *cells, *([op.origin] if nodes else []))
    return table


def _group_table(graph: Graph, program: Program, nodes: bool) -> Table:
    caption = f"{count(graph.num_nodes)} neurons in {count(len(graph.groups))} groups"
    columns = ("group", "neurons", "kind", "role", "activation", "pool", "layer", "parameters")
    numbers = ("neurons", "layer")
    extra = ("numbers", "positions") if nodes else ()
    table = make_table(f"graph {graph.name}: nodes", (*columns, *extra), numbers, caption)
    for group in graph.groups:
        add_row(
            table, *_group_cells(graph, group, program), *(_numbers(graph, group) if nodes else ())
        )
    return table


def _group_cells(graph: Graph, group: NodeGroup, program: Program) -> list[str]:
    """What the nodes of a group have in common."""
    table, k = graph.nodes, group.start
    named = scalars_of(graph, group, program.params)
    return [
        group.name,
        count(group.size),
        NODE_KINDS[table.kind[k]],
        NODE_ROLES[table.role[k]],
        ACTIVATIONS[table.activation[k]] if table.activation[k] else "",
        POOLS[table.pool[k]] if table.pool[k] else "",
        str(table.layer[k]),
        "\n".join(f"{role}={name}" for role, name in named.items()),
    ]


def _numbers(graph: Graph, group: NodeGroup) -> tuple[str, str]:
    """Node numbers of a group, and its position ids."""
    ids = np.unique(graph.nodes.position_id[group.start : group.start + group.size])
    last = group.start + group.size - 1
    return _range(group.start, last), _range(int(ids[0]), int(ids[-1]))


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _block_table(graph: Graph, program: Program, nodes: bool) -> Table:
    layout = "ragged kernels"
    if graph.layout is not None:
        size = "x".join(str(n) for n in graph.layout.kernel) or "1"
        layout = f"padded to {size}: {graph.layout.width * graph.layout.directions} columns"
    caption = f"{count(graph.num_edges)} edges, {count(graph.num_taps)} kernel entries, {layout}"
    if graph.reverse != "none":
        caption += f"; reverse={graph.reverse}"
    columns = ("from", "to", "kind", "kernel", "edges", "weights", *(["numbers"] if nodes else []))
    table = make_table(f"graph {graph.name}: edges", columns, ("edges",), caption)
    rows: dict[tuple[str, ...], int] = {}
    start = 0
    for block in graph.blocks:
        cells = [
            group_names(block.src, graph).replace("%", ""),
            group_names(block.dst, graph).replace("%", ""),
            f"{EDGE_KINDS[block.category]}{' (reversed)' if block.reverse else ''}",
            "x".join(str(n) for n in block.kernel),
            params_of(block.slots, program.params),
        ]
        if block.reverse:
            cells[0], cells[1] = cells[1], cells[0]
        if nodes:
            cells.append(_range(start, start + block.num_edges - 1))
        start += block.num_edges
        rows[tuple(cells)] = rows.get(tuple(cells), 0) + block.num_edges
    for (source, target, kind, kernel, *rest), number in rows.items():
        add_row(table, source, target, kind, kernel, count(number), *rest)
    return table


def coverage_table(report: Coverage) -> Table:
    """Where the parameters are; those that are not on the graph, with the reason."""
    entries: dict[str, int] = {}
    states = Counter(fate.state for fate in report.fates)
    for fate in report.fates:
        entries[fate.state] = entries.get(fate.state, 0) + int(np.prod(fate.shape, dtype=np.int64))
    caption = "; ".join(f"{states[s]} {s} ({count(entries[s])} entries)" for s in states)
    listed = [*report.of(FOLDED), *report.of(ABSENT)]
    title = f"parameters that are not on the graph: {len(listed) or 'none'}"
    table = make_table(title, ("parameter", "shape", "fate", "reason"), (), caption)
    for fate in listed:
        add_row(table, fate.name, sizes(fate.shape), fate.state, fate.reason or "unknown")
    return table
