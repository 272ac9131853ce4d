"""Stable text of a neural graph without weights: node groups and edge blocks, then the layout."""

from __future__ import annotations

import numpy as np

from ngc.ir.graph import (
    ACTIVATIONS,
    EDGE_KINDS,
    NO_SCALAR,
    NODE_KINDS,
    NODE_ROLES,
    POOLS,
    SCALARS,
    EdgeBlock,
    Graph,
    NodeGroup,
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
        named = scalars_of(graph, group, program.params)
        words += [f"{role}={params}" for role, params in named.items()]
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
    kind = EDGE_KINDS[block.category]
    words = [
        f"{group_names(block.src, graph)} -> {group_names(block.dst, graph)} : {kind}",
        shape,
        *([f"kernel={kernel}"] if kernel else []),
        f"weight={params_of(block.slots, program.params)}",
        *(["reverse"] if block.reverse else []),
    ]
    return " ".join(words)


def scalars_of(graph: Graph, group: NodeGroup, params: tuple[Param, ...]) -> dict[str, str]:
    """The parameters of a group's nodes, by role (bias, mean, ...)."""
    rows = graph.nodes.scalars[group.start : group.start + group.size]
    return {
        role: params_of(Slots.of(rows[:, column]), params)
        for column, (role, empty) in enumerate(zip(SCALARS, NO_SCALAR))
        if (rows[:, column] != empty).any()
    }


def group_names(nodes: np.ndarray, graph: Graph) -> str:
    """Names of the groups that the nodes belong to."""
    starts = np.array([group.start for group in graph.groups])
    found = np.unique(np.searchsorted(starts, nodes.reshape(-1), side="right") - 1)
    return ",".join(f"%{graph.groups[k].name}" for k in found) if len(starts) else "?"


def _spans_several(slots: Slots, starts: np.ndarray) -> bool:
    """Whether the slots may be of more than one parameter, of which the first slots are given."""
    if slots.entries is not None:
        return True
    reach = [step * (size - 1) for size, step in zip(slots.shape, slots.strides)]
    ends = [slots.offset + sum(r for r in reach if r * sign > 0) for sign in (-1, 1)]
    first, last = np.searchsorted([FIRST_SLOT, *starts], ends, side="right")
    return bool(first != last)


def params_of(slots: Slots, params: tuple[Param, ...]) -> str:
    """The parameters that an array of slots speaks of, with the constants 0 and 1 as numbers."""
    starts = np.array([param.offset for param in params])
    several = _spans_several(slots, starts)
    entries = np.unique(slots.numpy()) if several else np.array([slots.offset])
    names = [str(int(e)) for e in entries if e < FIRST_SLOT]
    places = np.unique(np.searchsorted(starts, entries[entries >= FIRST_SLOT], side="right") - 1)
    return "+".join([*names, *(f"@{params[k].name}" for k in places)])
