"""Plans and weights -> batches for learned models (``graphs.py``); predicted edits -> weights."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from ngc.backends.graphs import Block, Ends, GraphBatch, Part, Structure
from ngc.backends.probes import Prober
from ngc.errors import OptionError
from ngc.ir.graph import NODE_ROLES
from ngc.ir.slots import FIRST_SLOT
from ngc.plan import Plan

_STRUCTURES: WeakKeyDictionary[Plan, dict[torch.device, Structure]] = WeakKeyDictionary()


def bind_blocks(plan: Plan, weights: Tensor, prober: Prober | None = None) -> GraphBatch:
    """The graphs of weights [many, slots] as a batch with one part.

    ``prober`` lets models run the networks on inputs of their own. Differentiable in the weights;
    on their device.
    """
    part = bind_part(plan, weights, prober)
    return join([(part, torch.arange(len(weights), device=weights.device))])


def bind_part(plan: Plan, weights: Tensor, prober: Prober | None = None) -> Part:
    """The graphs of weights [many, slots] as one part of a batch."""
    if weights.dim() != 2 or weights.shape[1] != plan.program.num_slots:
        raise OptionError(
            f"weights have shape {list(weights.shape)}, not [networks, {plan.program.num_slots}]",
            where=plan.program.name,
            hint="weights[None] for one network; with_weights or pack for those of others",
        )
    structure = structure_of(plan, weights.device)
    activations = None if prober is None else prober.on(weights)
    return Part(structure, plan.node_features(weights), plan.forward_values(weights), activations)


def join(parts: Sequence[tuple[Part, Tensor]]) -> GraphBatch:
    """One batch of parts of different architectures, each with the places [graphs] of its graphs in
    the batch."""
    places = torch.cat([place for _, place in parts])
    return GraphBatch(tuple(part for part, _ in parts), torch.argsort(places))


def structure_of(plan: Plan, device: torch.device | str = "cpu") -> Structure:
    """What all graphs of a plan share; made once."""
    device = torch.device(device)
    made = _STRUCTURES.setdefault(plan, {})
    if device not in made:
        made[device] = _structure(plan, device)
    return made[device]


def _structure(plan: Plan, device: torch.device) -> Structure:
    layout = plan.graph.layout
    if layout is None:
        raise OptionError(
            "learned models read padded kernels, these are ragged", hint="storage=padded"
        )
    blocks, start = [], 0
    for block in plan.graph.blocks:
        if block.reverse:
            continue
        src, dst = (Ends.of(torch.from_numpy(ends).to(device)) for ends in (block.src, block.dst))
        stop = start + block.num_edges
        columns = tuple(layout.columns(block).tolist())
        separate = layout.linear_column and columns == (layout.width - 1,)
        blocks.append(Block(src, dst, start, stop, block.category, columns, separate))
        start = stop
    features = plan.structure(device)
    features.pop("edge_reversed", None)
    for name in ("edge_kind", "kernel_size"):
        features[name] = features[name][:start]
    features["edge_index"] = features["edge_index"][:, :start]
    return Structure(
        key=plan.hash,
        features=features,
        rank=torch.from_numpy(_ranks(plan)).to(device),
        blocks=tuple(blocks),
        width=layout.width,
        linear_column=layout.linear_column,
        reverse=plan.graph.reverse,
        weight_mask=plan.slot_table("edge_slots", device) >= FIRST_SLOT,
        scalar_mask=plan.slot_table("node_slots", device) >= FIRST_SLOT,
    )


def _ranks(plan: Plan) -> np.ndarray:
    """Inputs and outputs one by one, hidden neurons by layer: like position ids, but counted from
    zero for each role, so that outputs have the same ids in networks of any depth."""
    nodes = plan.graph.nodes
    rank = np.zeros(len(nodes), dtype=np.int64)
    for role, name in enumerate(NODE_ROLES):
        chosen = nodes.role == role
        if name == "hidden":
            rank[chosen] = np.unique(nodes.layer[chosen], return_inverse=True)[1]
        else:
            rank[chosen] = np.arange(chosen.sum())
    return rank


def scatter_edits(plan: Plan, nodes: Tensor, edges: Tensor) -> Tensor:
    """Predicted changes of node scalars [many, n, 6] and kernels [many, e, width] -> of the weights
    [many, slots]: ``lift`` for changes.

    Entries that share a parameter give their mean; constants do not change. Differentiable.
    """
    tables = [plan.slot_table(name, nodes.device) for name in ("node_slots", "edge_slots")]
    slots = torch.cat([table.flatten() for table in tables]).long()
    numbers = torch.cat([nodes.flatten(1), edges.flatten(1)], dim=1)
    total = numbers.new_zeros(len(numbers), plan.program.num_slots).index_add(1, slots, numbers)
    shares = torch.bincount(slots, minlength=plan.program.num_slots).clamp(min=1)
    constant = torch.arange(plan.program.num_slots, device=nodes.device) < FIRST_SLOT
    return (total / shares).masked_fill(constant, 0)
