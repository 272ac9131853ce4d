"""The feature table: everything a neural graph carries, declared once.

Back ends emit these features, models read them, and how each batches follows from its row.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ngc.ir.graph import ACTIVATIONS, EDGE_KINDS, NODE_KINDS, NODE_ROLES, POOLS, SCALARS


@dataclass(frozen=True)
class Feature:
    """One feature. ``location``: node, edge, tap (one row per kernel entry) or graph; ``width``:
    columns, 0 for a plain vector, -1 where it depends on the compilation; ``categories``: names of
    the values of a categorical feature; ``increment``: what batching adds, the number of nodes
    before (``nodes``) or nothing; ``axis``: along which batching concatenates."""

    name: str
    location: str
    width: int
    dtype: torch.dtype
    meaning: str
    categories: tuple[str, ...] = ()
    increment: str = ""
    axis: int = 0
    optional: bool = False


FEATURES: tuple[Feature, ...] = (
    Feature("x", "node", len(SCALARS), torch.float32, "bias; mean, var; slope; query, key bias"),
    Feature("node_kind", "node", 0, torch.int64, "how incoming edges combine", NODE_KINDS),
    Feature("node_role", "node", 0, torch.int64, "input, hidden or output", NODE_ROLES),
    Feature("activation", "node", 0, torch.int64, "activation function", ACTIVATIONS),
    Feature("pool", "node", 0, torch.int64, "pooling over positions", POOLS),
    Feature("layer", "node", 0, torch.int64, "longest path from an input"),
    Feature("position_id", "node", 0, torch.int64, "per hidden layer, input and output neuron"),
    Feature("place", "node", 2, torch.int64, "row and column of a neuron per position, else -1"),
    Feature("edge_index", "edge", 0, torch.int64, "source, target", increment="nodes", axis=1),
    Feature("edge_attr", "edge", -1, torch.float32, "kernel, centred in one size", optional=True),
    Feature("edge_value", "tap", 0, torch.float32, "kernels one after another", optional=True),
    Feature("edge_taps", "edge", 0, torch.int32, "entries of each edge's kernel", optional=True),
    Feature("edge_kind", "edge", 0, torch.int64, "operation the edge belongs to", EDGE_KINDS),
    Feature("kernel_size", "edge", 3, torch.int16, "depth, height and width of the kernel"),
    Feature("edge_reversed", "edge", 0, torch.bool, "runs from target to source", optional=True),
)  # fmt: skip

BY_NAME = {feature.name: feature for feature in FEATURES}
