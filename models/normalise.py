"""Standardise the numbers on a graph before a model reads them (paper, Sec. 2.4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from ngc.backends.graphs import GraphBatch, Part, Structure
from ngc.backends.schema import SCALARS
from ngc.errors import OptionError
from ngc.models.limits import Fault, require

MODES = ("off", "dataset", "layer")
EPSILON = 1e-8  # of a variance: a layer whose numbers are all alike is only shifted


class Normalise(nn.Module):
    """Kernels and biases shifted and scaled by mean and deviation of the training set.

    ``dataset``: one mean and deviation for all kernels and one for all biases; ``layer``: for each
    layer of the graph (that of the target neuron); ``off``: as they are. Only parameters take part:
    padding and the constant weights of identity edges stay what they are. Other node scalars
    (BatchNorm statistics, PRelu slopes) are treated like biases, each in its own column.
    """

    kernel_mean: Tensor
    kernel_deviation: Tensor
    scalar_mean: Tensor
    scalar_deviation: Tensor

    def __init__(self, mode: str, num_layers: int) -> None:
        super().__init__()
        if mode not in MODES:
            raise OptionError(f"normalise cannot be {mode!r}", hint=f"one of {', '.join(MODES)}")
        self.mode, self.num_layers = mode, num_layers
        for name, columns in (("kernel", 1), ("scalar", len(SCALARS))):
            self.register_buffer(f"{name}_mean", torch.zeros(num_layers, columns))
            self.register_buffer(f"{name}_deviation", torch.ones(num_layers, columns))

    @torch.no_grad()
    def fit(self, batches: Iterable[GraphBatch]) -> None:
        """Take the statistics of the training graphs."""
        if self.mode == "off":
            return
        kernels, scalars = _Moments(self.num_layers, 1), _Moments(self.num_layers, len(SCALARS))
        for batch in batches:
            require(self, batch)
            for part in batch.parts:
                structure = part.structure
                of_edge, of_node = self._layers(structure)
                kernels.add(part.edges, structure.weight_mask, of_edge, merge=True)
                scalars.add(part.x, structure.scalar_mask, of_node, merge=False)
        self.kernel_mean, self.kernel_deviation = kernels.result(self.kernel_mean)
        self.scalar_mean, self.scalar_deviation = scalars.result(self.scalar_mean)

    def forward(self, batch: GraphBatch) -> GraphBatch:
        if self.mode == "off":
            return batch
        require(self, batch)
        return replace(batch, parts=tuple(self._part(part) for part in batch.parts))

    def faults(self, part: Part) -> Iterator[Fault]:
        depth = part.structure.depth
        if self.mode == "layer" and depth >= self.num_layers:
            known = f"normalise: layer knows {self.num_layers - 1}"
            yield Fault(f"{depth} layers of weights", known, "normalise: dataset")

    def _part(self, part: Part) -> Part:
        structure = part.structure
        of_edge, of_node = self._layers(structure)
        edges = (part.edges - self.kernel_mean[of_edge]) / self.kernel_deviation[of_edge]
        x = (part.x - self.scalar_mean[of_node]) / self.scalar_deviation[of_node]
        return replace(
            part,
            edges=torch.where(structure.weight_mask, edges, part.edges),
            x=torch.where(structure.scalar_mask, x, part.x),
        )

    def _layers(self, structure: Structure) -> tuple[Tensor, Tensor]:
        """The row of statistics of each edge and each node."""
        layer = structure.features["layer"]
        if self.mode == "dataset":
            layer = torch.zeros_like(layer)
        return layer[structure.features["edge_index"][1]], layer


class _Moments:
    """Sums of numbers, their squares and their count, by layer and column."""

    def __init__(self, num_layers: int, columns: int) -> None:
        self.sums = torch.zeros(3, num_layers, columns, dtype=torch.float64)

    def add(self, values: Tensor, mask: Tensor, layer: Tensor, merge: bool) -> None:
        """values [graphs, rows, columns], of which ``mask`` [rows, columns] counts."""
        values = values.double() * mask
        counts = mask.double() * len(values)
        rows = torch.stack([counts, values.sum(0), values.square().sum(0)])
        if merge:
            rows = rows.sum(-1, keepdim=True)
        self.sums.index_add_(1, layer.cpu(), rows.cpu())

    def result(self, like: Tensor) -> tuple[Tensor, Tensor]:
        count, total, squares = self.sums
        count = count.clamp(min=1)
        mean = total / count
        variance = (squares / count - mean.square()).clamp(min=0)
        deviation = torch.where(variance > EPSILON, variance.sqrt(), 1.0)
        return mean.to(like), deviation.to(like)
