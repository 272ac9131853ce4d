"""Neural graphs as PyTorch Geometric data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Batch, Data

from ngc.backends.schema import BY_NAME
from ngc.errors import OptionError
from ngc.plan import Plan


class NeuralGraph(Data):
    """A neural graph. Its features batch as the feature table (``schema.py``) says."""

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        feature = BY_NAME.get(key)
        if feature is None:
            return super().__inc__(key, value, *args, **kwargs)
        return self.num_nodes if feature.increment == "nodes" else 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        feature = BY_NAME.get(key)
        if feature is None:
            return super().__cat_dim__(key, value, *args, **kwargs)
        return feature.axis


def bind(plan: Plan, weights: Tensor) -> NeuralGraph | Batch:
    """The graph of weights [slots], or a batch of the graphs of weights [many, slots].

    Differentiable in the weights; on their device; without a loop over networks.
    """
    if weights.shape[-1] != plan.program.num_slots or weights.dim() not in (1, 2):
        raise OptionError(
            f"weights have shape {list(weights.shape)}",
            hint=f"[..., {plan.program.num_slots}] with at most one axis before: 0, 1, parameters",
        )
    edge_name = "edge_attr" if plan.padded else "edge_value"
    structure = plan.structure(weights.device)
    x, edges = plan.node_features(weights), plan.edge_features(weights)
    if weights.dim() == 1:
        features = {"x": x, **structure, edge_name: edges}
        return NeuralGraph(**{name: features[name] for name in BY_NAME if name in features})
    return _batch(plan, structure, x, edge_name, edges)


def _batch(
    plan: Plan, structure: dict[str, Tensor], x: Tensor, edge_name: str, edges: Tensor
) -> Batch:
    """What ``Batch.from_data_list`` would give, made at once."""
    many, num_nodes = x.shape[0], plan.num_nodes
    device = x.device
    counts = torch.arange(many + 1, device=device)
    slices: dict[str, Tensor] = {}
    increments: dict[str, Tensor] = {}
    features: dict[str, Tensor] = {}
    per_graph = {"x": x, edge_name: edges}
    for name, feature in BY_NAME.items():
        if name in per_graph:
            value = per_graph[name]
            size = value.shape[1]
            features[name] = value.flatten(0, 1)
        elif name in structure:
            value = structure[name]
            size = value.shape[feature.axis]
            if feature.increment == "nodes":
                offset = counts[:-1, None] * num_nodes
                features[name] = (value[:, None, :] + offset).flatten(1)
            else:
                features[name] = value.expand(many, *value.shape).flatten(0, 1)
        else:
            continue
        slices[name] = counts.cpu() * size
        step = num_nodes if feature.increment == "nodes" else 0
        increments[name] = counts[:-1].cpu() * step
    batch = Batch(_base_cls=NeuralGraph)
    for name, value in features.items():
        batch[name] = value
    batch.batch = torch.arange(many, device=device).repeat_interleave(num_nodes)
    batch.ptr = counts * num_nodes
    batch._num_graphs = many
    batch._slice_dict = slices
    batch._inc_dict = increments
    return batch


def edge_features(graph: Data) -> Tensor:
    """The numeric edge feature, padded or ragged."""
    return graph.edge_attr if graph.edge_attr is not None else graph.edge_value


def lift(plan: Plan, graph: Data, shared: str = "check") -> Tensor:
    """Weights [slots] of a graph with the plan's structure; see ``Plan.lift``."""
    return plan.lift(graph.x, edge_features(graph), shared)


def lift_batch(plan: Plan, graphs: Sequence[Data], shared: str = "check") -> Tensor:
    """Weights [many, slots] of several graphs."""
    return torch.stack([lift(plan, graph, shared) for graph in graphs])
