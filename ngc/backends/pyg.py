"""Neural graphs as PyTorch Geometric data."""

from __future__ import annotations

from dataclasses import dataclass
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
    if not isinstance(weights, Tensor):
        found = f"weights are a {type(weights).__module__}.{type(weights).__name__}"
        raise OptionError(f"{found}, not a torch tensor", hint="torch.as_tensor(weights)")
    if not weights.dtype.is_floating_point:
        raise OptionError(f"weights have dtype {weights.dtype}", hint="weights.float()")
    if weights.dim() not in (1, 2) or weights.shape[-1] != plan.program.num_slots:
        raise OptionError(
            f"weights have shape {list(weights.shape)}",
            hint=f"[..., {plan.program.num_slots}] with at most one axis before: 0, 1, parameters",
        )
    edge_name = "edge_attr" if plan.padded else "edge_value"
    x, edges = plan.node_features(weights), plan.edge_features(weights)
    if weights.dim() == 1:
        features = {"x": x, **plan.structure(weights.device), edge_name: edges}
        return NeuralGraph(**{name: features[name] for name in BY_NAME if name in features})
    many, device = len(weights), weights.device
    frame = plan.of_batch((many, device), lambda: _frame(plan, many, device))
    numbers = {"x": x.flatten(0, 1), edge_name: edges.flatten(0, 1)}
    sizes = {"x": x.shape[1], edge_name: edges.shape[1]}
    return frame.filled(numbers, sizes)


@dataclass(frozen=True, eq=False)
class _Frame:
    """A batch of one plan's graphs without their numbers: the same for all weights.

    ``starts`` [many + 1] counts graphs; ``slices`` and ``increments`` are PyG's, for taking the
    batch apart.
    """

    features: dict[str, Tensor]
    slices: dict[str, Tensor]
    increments: dict[str, Tensor]
    batch: Tensor
    ptr: Tensor
    starts: Tensor

    def filled(self, numbers: dict[str, Tensor], sizes: dict[str, int]) -> Batch:
        """What ``Batch.from_data_list`` would give. ``sizes``: rows of one graph."""
        features = self.features | numbers
        ordered = {name: features[name] for name in BY_NAME if name in features}
        batch = Batch(_base_cls=NeuralGraph, **ordered)
        names = list(batch.to_dict())  # in the order of Data
        batch.batch, batch.ptr = self.batch, self.ptr
        batch._num_graphs = len(self.starts) - 1
        slices = self.slices | {name: self.starts * size for name, size in sizes.items()}
        nothing = torch.zeros_like(self.starts[:-1])
        increments = self.increments | dict.fromkeys(sizes, nothing)
        batch._slice_dict = {name: slices[name] for name in names}
        batch._inc_dict = {name: increments[name] for name in names}
        return batch


def _frame(plan: Plan, many: int, device: torch.device) -> _Frame:
    starts, ptr = torch.arange(many + 1), torch.arange(many + 1, device=device) * plan.num_nodes
    features, slices, increments = {}, {}, {}
    for name, value in plan.structure(device).items():
        feature = BY_NAME[name]
        if feature.increment == "nodes":
            features[name] = (value[:, None, :] + ptr[:-1, None]).flatten(1)
        else:
            features[name] = value.expand(many, *value.shape).flatten(0, 1)
        slices[name] = starts * value.shape[feature.axis]
        increments[name] = starts[:-1] * (plan.num_nodes if feature.increment == "nodes" else 0)
    batch = torch.arange(many, device=device).repeat_interleave(plan.num_nodes)
    return _Frame(features, slices, increments, batch, ptr, starts)


def edge_features(graph: Data) -> Tensor | None:
    """The numeric edge feature, padded or ragged."""
    padded = graph.get("edge_attr")
    return padded if padded is not None else graph.get("edge_value")


def lift(plan: Plan, graph: Data, shared: str = "check") -> Tensor:
    """Weights [slots] of a graph with the plan's structure, or [many, slots] of a batch of them.

    ``shared`` as in ``Plan.lift``.
    """
    many = graph.num_graphs if isinstance(graph, Batch) else 1
    rows = plan.num_edges if plan.padded else plan.graph.num_taps
    width = (plan.edge_width,) if plan.padded else ()
    x = _require("x", graph.get("x"), (many * plan.num_nodes, BY_NAME["x"].width))
    name = "edge_attr" if plan.padded else "edge_value"
    edges = _require(name, edge_features(graph), (many * rows, *width))
    if not isinstance(graph, Batch):
        return plan.lift(x, edges, shared)
    if (graph.ptr.diff() != plan.num_nodes).any():
        raise OptionError(
            f"the batch holds graphs that have not {plan.num_nodes} nodes, as the plan has",
            hint="to_data_list(), and lift each graph with its own plan",
        )
    parts = zip(x.unflatten(0, (many, -1)), edges.unflatten(0, (many, -1)))
    return torch.stack([plan.lift(*part, shared) for part in parts])


def _require(name: str, found: Tensor | None, expected: tuple[int, ...]) -> Tensor:
    if found is None or tuple(found.shape) != expected:
        shape = "is not there" if found is None else f"has shape {list(found.shape)}"
        raise OptionError(
            f"{name} {shape}; of this plan it has shape {list(expected)}",
            hint="the plan that the graph was bound with",
        )
    return found
