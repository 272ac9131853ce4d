"""Architecture alone: an MLP on the structure of a network; no weight is read, and nothing is run.

What a claim about reading weights has to beat: how much of the target is known from the shape of
the networks, or from how they were trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import GraphBatch, Part, Structure
from ngc.backends.schema import BY_NAME
from ngc.errors import OptionError
from ngc.models.facts import Facts
from ngc.models.layers import check_predicts
from ngc.models.limits import Fault, require
from ngc.models.perceptron import perceptron
from ngc.models.registry import model
from ngc.models.settings import Share, Size

ACTIVATIONS = BY_NAME["activation"].categories
KINDS = BY_NAME["node_kind"].categories
POOLS = BY_NAME["pool"].categories
NUM_SIZES = 6  # of a layer, beside its histograms
NUM_TOTALS = 3  # of a network


@model("architecture")
class Architecture(nn.Module):
    """Sizes of each layer and of the whole -> MLP.

    Of each layer of nodes: how many there are, their parameters, the mean size of their kernels,
    how many get an edge that skips layers, and shares of activation functions, kinds and pools.
    Layers are laid out as in ``stat_nn``, so networks may be no deeper than those trained on.
    columns: of the zoo's table, such as [step, hyper.lr], which are read as well.
    hidden: width of the two hidden layers. dropout: after each of them.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        columns: tuple[str, ...] = (),
        hidden: Size = 256,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        check_predicts("architecture", predicts, ("graph",))
        self.num_layers, self.activations = facts.num_layers, facts.activations
        of_layer = NUM_SIZES + len(facts.activations) + len(KINDS) + len(POOLS)
        if columns and not facts.columns:
            raise OptionError("these networks have no table", hint="columns: []")
        self.columns = facts.columns if columns else ()
        numbers = NUM_TOTALS + of_layer * facts.num_layers + len(self.columns)
        self.mlp = perceptron(numbers, hidden, hidden, outputs, dropout=dropout)

    @staticmethod
    def sees(settings: Mapping[str, object]) -> str:
        columns = settings["columns"]
        assert isinstance(columns, Sequence)
        told = f" and {', '.join(columns)}" if columns else " only"
        return f"architecture{told}, no weights"

    def forward(self, batch: GraphBatch) -> Tensor:
        require(self, batch)
        rows = batch.restored([self._read(part).expand(len(part), -1) for part in batch.parts])
        if self.columns:
            if batch.told is None:
                said = f"it reads {', '.join(self.columns)} of a zoo's table, which is not there"
                raise OptionError(said, hint="a model without columns")
            rows = torch.cat([rows, batch.told.to(rows)], dim=1)
        return self.mlp(rows)  # type: ignore[no-any-return]

    def faults(self, part: Part) -> Iterator[Fault]:
        structure = part.structure
        if structure.depth >= self.num_layers:
            yield Fault(f"{structure.depth} layers of weights", f"it reads {self.num_layers - 1}")

    def _read(self, part: Part) -> Tensor:
        """[1, numbers] of the architecture of a part."""
        structure = part.structure
        layers, totals = structure.keep("architecture", lambda: numbers_of(structure))
        known = [ACTIVATIONS.index(name) for name in self.activations]
        sizes, activations, rest = layers.split(
            [NUM_SIZES, len(ACTIVATIONS), len(KINDS) + len(POOLS)], dim=1
        )
        rows = torch.cat([sizes, activations[:, known], rest], dim=1).to(part.x)
        # The last layer comes last; layers that a network lacks are zeros before it.
        rows = torch.cat([F.pad(rows[:-1], (0, 0, 0, self.num_layers - len(rows))), rows[-1:]])
        return torch.cat([totals.to(part.x), rows.flatten()])[None]


def numbers_of(structure: Structure) -> tuple[Tensor, Tensor]:
    """What an architecture looks like: [layers, numbers], and of all of it [NUM_TOTALS]."""
    features = structure.features
    layer, (source, target) = features["layer"], features["edge_index"]
    layers = F.one_hot(layer).double()  # [nodes, layers]
    into = layers[target]
    weights = structure.weight_mask.sum(1).double()
    parameters = layers.T @ structure.scalar_mask.sum(1).double() + into.T @ weights
    # Skips of weight one and the like have no kernel to speak of.
    kernels = features["kernel_size"].double() * (weights > 0)[:, None]
    edges = (into.T @ (weights > 0).double()).clamp(min=1)
    skipped = torch.zeros(len(layer), dtype=torch.double, device=layer.device)
    skipped[target[layer[target] - layer[source] > 1]] = 1
    nodes = layers.sum(0).clamp(min=1)
    sizes = [
        nodes.log(), parameters.log1p(), *(into.T @ kernels / edges[:, None]).T,
        layers.T @ skipped / nodes,
    ]  # fmt: skip
    shares = [
        layers.T @ F.one_hot(features[name], len(names)).double() / nodes[:, None]
        for name, names in (("activation", ACTIVATIONS), ("node_kind", KINDS), ("pool", POOLS))
    ]
    totals = [len(nodes), nodes.sum().log(), parameters.sum().log1p()]
    return torch.cat([torch.stack(sizes, dim=1), *shares], dim=1), torch.tensor(totals)
