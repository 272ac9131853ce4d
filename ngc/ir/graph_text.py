"""Stable text of a neural graph without weights: node groups and edge blocks, then the layout."""

from __future__ import annotations

from ngc.ir.graph import (
    ACTIVATIONS,
    NO_SCALAR,
    NODE_KINDS,
    NODE_ROLES,
    POOLS,
    SCALARS,
    EdgeBlock,
    Graph,
)
from ngc.ir.program import Param, Program
from ngc.ir.slots import FIRST_SLOT, Slots


def print_graph(graph: Graph, program: Program) -> str:
    """One line a group, one line a block, in order.

    ``3..7`` are the nodes 3 to 6; ``bias=@fc.bias`` says that the group's biases are that
    parameter's entries.
    """
    lines = [f"graph {graph.name} {{"]
    nodes = graph.nodes
    for group in graph.groups:
        k = group.start
        words = [
            f"%{group.name}",
            NODE_KINDS[nodes.kind[k]],
            NODE_ROLES[nodes.role[k]],
            f"[{group.size}]",
            f"nodes={group.start}..{group.start + group.size}",
            f"layer={nodes.layer[k]}",
        ]
        if nodes.activation[k]:
            words.append(f"act={ACTIVATIONS[nodes.activation[k]]}")
        if nodes.pool[k]:
            words.append(f"pool={POOLS[nodes.pool[k]]}")
        rows = nodes.scalars[k : k + group.size]
        for column, (name, empty) in enumerate(zip(SCALARS, NO_SCALAR)):
            if (rows[:, column] != empty).any():
                words.append(f"{name}={_params(Slots.of(rows[:, column]), program.params)}")
        places = nodes.place[k : k + group.size]
        if (places >= 0).any():
            rows_, columns = (places.max(axis=0) + 1).tolist()
            words.append(f"places={rows_}x{columns}")
        lines.append("  " + " ".join(words))
    for block in graph.blocks:
        lines.append("  " + _block(block, graph, program))
    if graph.layout is not None:
        size = "x".join(str(n) for n in graph.layout.kernel) or "1"
        extra = " linear_column" if graph.layout.linear_column else ""
        many = f" directions={graph.layout.directions}" if graph.layout.directions > 1 else ""
        lines.append(f"  layout {size}{extra}{many}")
    lines.append("}")
    return "\n".join(lines) + "\n"


def _block(block: EdgeBlock, graph: Graph, program: Program) -> str:
    g, i, o = block.src.shape[0], block.src.shape[1], block.dst.shape[1]
    shape = f"[{i},{o}]" if g == 1 else f"{g}x[{i},{o}]"
    kernel = "x".join(str(n) for n in block.kernel)
    words = [
        f"{_ends(block.src, graph)} -> {_ends(block.dst, graph)} : {block.kind}",
        shape,
        *([f"kernel={kernel}"] if kernel else []),
        f"weight={_params(block.slots, program.params)}",
        *(["reverse"] if block.reverse else []),
    ]
    return " ".join(words)


def _ends(nodes: object, graph: Graph) -> str:
    """Names of the groups that the nodes belong to."""
    import numpy as np

    starts = np.array([group.start for group in graph.groups])
    found = np.unique(np.searchsorted(starts, np.asarray(nodes).reshape(-1), side="right") - 1)
    return ",".join(f"%{graph.groups[k].name}" for k in found) if len(starts) else "?"


def _params(slots: Slots, params: tuple[Param, ...]) -> str:
    """The parameters that an array of slots speaks of, with the constants 0 and 1 as numbers."""
    import numpy as np

    starts = np.array([param.offset for param in params])
    if slots.entries is None:
        entries = np.array([slots.offset])
    else:
        entries = np.unique(slots.numpy())
    names = [str(int(e)) for e in entries if e < FIRST_SLOT]
    places = np.unique(np.searchsorted(starts, entries[entries >= FIRST_SLOT], side="right") - 1)
    return "+".join([*names, *(f"@{params[k].name}" for k in places)])
