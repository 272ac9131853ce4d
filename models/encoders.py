"""Node and edge features of compiled graphs -> vectors (paper, Sec. 2.3, 2.4 and Eq. 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import ROLE_OUTPUT, GraphBatch, Part, shapes_text
from ngc.backends.schema import BY_NAME
from ngc.errors import OptionError
from ngc.models.facts import ROLE_HIDDEN, Facts
from ngc.models.limits import Fault
from ngc.models.settings import Activations
from ngc.models.topology import EdgeFeatures, Encoding, Topology, fourier

NUM_FREQUENCIES = 128


@dataclass(frozen=True)
class NodeTable:
    """Features of the nodes of a batch, one row a node: scalars ``x`` [nodes, 6], categories, and
    ``rank``, the place among the nodes of its role; ``graph``: which graph it belongs to."""

    x: Tensor
    role: Tensor
    rank: Tensor
    layer: Tensor
    activation: Tensor
    degree: Tensor
    graph: Tensor

    @classmethod
    def of_batch(cls, batch: GraphBatch) -> NodeTable:
        return cls(
            x=batch.x,
            role=batch.rows("node_role"),
            rank=batch.rows("rank"),
            layer=batch.rows("layer"),
            activation=batch.rows("activation"),
            degree=batch.rows("degree"),
            graph=batch.graph_of,
        )


class ScalarEncoder(nn.Module):
    """Scalars [..., inputs] -> [..., width]: random Fourier features (128 fixed Gaussian
    frequencies of deviation ``sigma``) and a linear map, or with ``sigma`` 0 the linear map alone.
    """

    frequencies: Tensor | None

    def __init__(self, inputs: int, width: int, sigma: float) -> None:
        super().__init__()
        drawn = sigma * torch.randn(inputs, NUM_FREQUENCIES) if sigma else None
        self.register_buffer("frequencies", drawn)
        self.linear = nn.Linear(2 * NUM_FREQUENCIES if sigma else inputs, width)

    def forward(self, values: Tensor) -> Tensor:
        if self.frequencies is not None:
            values = fourier(values, self.frequencies)
        return self.linear(values)  # type: ignore[no-any-return]


class EdgeEncoder(nn.Module):
    """Kernels -> edge features: ScalarEncoder, then a linear map. Where weights of linear layers
    have a column of their own, they have an encoder of their own as well."""

    def __init__(self, facts: Facts, width: int, sigma: float) -> None:
        super().__init__()
        directions = 3 if facts.reverse == "features" else 1
        self.reverse = facts.reverse
        self.columns = facts.width - facts.linear_column
        self.encoder = ScalarEncoder(directions * self.columns, width, sigma)
        self.project = nn.Linear(width, width)
        self.linear_encoder = self.linear_project = None
        if facts.linear_column:
            self.linear_encoder = ScalarEncoder(directions, width, sigma)
            self.linear_project = nn.Linear(width, width)

    def faults(self, part: Part) -> Iterator[Fault]:
        reverse = part.structure.reverse
        if reverse != self.reverse:
            yield Fault(f"reverse={reverse}", f"it reads {self.reverse}", f"reverse: {reverse}")

    def forward(self, topology: Topology) -> EdgeFeatures:
        kernel = _encoding(0, self.columns, self.encoder, self.project)
        linear = None
        if self.linear_encoder is not None and self.linear_project is not None:
            start, stop = self.columns, self.columns + 1
            linear = _encoding(start, stop, self.linear_encoder, self.linear_project)
        return topology.encode(kernel, linear)


def _encoding(start: int, stop: int, encoder: ScalarEncoder, project: nn.Linear) -> Encoding:
    """Two linear maps in a row are one; each edge is spared the second."""
    weight = project.weight @ encoder.linear.weight
    bias = F.linear(encoder.linear.bias, project.weight, project.bias)
    return Encoding(start, stop, encoder.frequencies, weight, bias)


class ProbeEncoder(nn.Module):
    """Activations of the neurons on learned inputs of the networks (paper, Eq. 2) -> vectors: a
    linear map and LayerNorm for each layer of the graph."""

    def __init__(self, facts: Facts, width: int, probes: int) -> None:
        super().__init__()
        if not facts.input_shapes:
            raise OptionError(
                "probes need networks that all read inputs of one shape; theirs differ, or are not "
                "known",
                hint="probes: 0, or Facts.of(structures, prober.input_shapes)",
            )
        self.width = width
        self.probes = nn.ParameterList(
            torch.empty(probes, *shape).uniform_(-1, 1) for shape in facts.input_shapes
        )
        self.linear = nn.ModuleList(nn.Linear(probes, width) for _ in range(facts.num_layers))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(facts.num_layers))

    def activations(self, batch: GraphBatch) -> list[Tensor]:
        """[graphs, nodes of a graph, probes] for each part of the batch."""
        found = []
        for part in batch.parts:
            if part.activations is None:
                raise OptionError("the batch cannot run its networks", hint="bind it with a prober")
            found.append(part.activations(list(self.probes)))
        return found

    def faults(self, part: Part) -> Iterator[Fault]:
        shapes = tuple(tuple(probe.shape[1:]) for probe in self.probes)
        if part.activations is not None and (found := part.activations.mismatch(shapes)):
            yield Fault(found, f"its probes are {shapes_text(shapes)}", "probes: 0")
        if part.structure.depth >= len(self.linear):
            known = f"its probes know {len(self.linear) - 1}"
            yield Fault(f"{part.structure.depth} layers of weights", known, "probes: 0")

    def forward(self, activations: list[Tensor], batch: GraphBatch) -> Tensor:
        """[nodes, width]."""
        pieces = []
        for part, values in zip(batch.parts, activations):
            layers = part.structure.features["layer"]
            rows = values.new_zeros(*values.shape[:2], self.width)
            for layer in layers.unique().tolist():
                nodes = (layers == layer).nonzero().squeeze(-1)
                encoded = self.norm[layer](self.linear[layer](values[:, nodes]))
                rows = rows.index_copy(1, nodes, encoded.to(rows.dtype))
            pieces.append(rows.flatten(0, 1))
        return torch.cat(pieces)


def embedded_activations(facts: Facts, asked: Activations) -> tuple[str, ...]:
    """Names of the activation functions that a model embeds."""
    if isinstance(asked, bool):
        return facts.activations if asked else ()
    if missing := sorted({*facts.activations} - {*asked}):
        raise OptionError(
            f"activations leaves out {', '.join(missing)}, which the training networks have",
            hint="activations: true takes all that they have",
        )
    return tuple(asked)


class NodeEncoder(nn.Module):
    """Node scalars, activation function, position and behaviour (``probes``) -> [nodes, width].

    ``positions``: one learned vector for each input neuron, hidden layer and output neuron;
    ``activations``: names of the activation functions to embed (paper, Sec. 2.3), none: no
    embedding. Another one has nothing in its place: ``unseen.py`` tells of it.
    """

    activation_row: Tensor

    def __init__(
        self,
        facts: Facts,
        width: int,
        *,
        sigma: float,
        positions: bool,
        activations: tuple[str, ...],
        probes: int,
    ) -> None:
        super().__init__()
        self.scalars, self.kernel = list(facts.scalars), facts.width
        self.encoder = ScalarEncoder(len(self.scalars), width, sigma)
        self.project = nn.Linear(width, width)
        self.probes = ProbeEncoder(facts, width, probes) if probes else None
        self.sizes = {"input": facts.num_inputs, "hidden": facts.num_hidden,
                      "output": facts.num_outputs}  # fmt: skip
        self.position = nn.Embedding(sum(self.sizes.values()), width) if positions else None
        self.activation = nn.Embedding(len(activations), width) if activations else None
        rows = torch.full((len(_ACTIVATIONS),), -1)
        for row, name in enumerate(activations):
            if name not in _ACTIVATIONS:
                raise OptionError(
                    f"no activation is called {name!r}", hint=f"of {', '.join(_ACTIVATIONS)}"
                )
            rows[_ACTIVATIONS.index(name)] = row
        self.register_buffer("activation_row", rows, persistent=False)

    def activations(self, batch: GraphBatch) -> list[Tensor]:
        """Of all nodes on the probes, [graphs, nodes of a graph, probes] for each part; without
        probes nothing."""
        return [] if self.probes is None else self.probes.activations(batch)

    def forward(self, nodes: NodeTable, activations: list[Tensor], batch: GraphBatch) -> Tensor:
        features = self.encoder(nodes.x[:, self.scalars])
        if self.probes is not None:
            features = features + self.probes(activations, batch)
        features = self.project(features)
        if self.position is not None:
            features = features + self.position(self._position(nodes))
        if self.activation is not None:
            row = self.activation_row[nodes.activation]
            known = (row >= 0)[:, None]
            features = features + self.activation(row.clamp(min=0)) * known
        return features

    def faults(self, part: Part) -> Iterator[Fault]:
        structure = part.structure
        if structure.width != self.kernel:
            known = f"it reads {self.kernel}"
            yield Fault(f"kernels of {structure.width} entries", known, "a larger graph.kernel")
        if self.position is not None:
            for number, (name, size) in enumerate(self.sizes.items()):
                ranks = structure.rank[structure.features["node_role"] == number]
                most = int(ranks.max()) + 1 if len(ranks) else 0
                if most > size:
                    what = "hidden layers" if number == ROLE_HIDDEN else f"{name} neurons"
                    yield Fault(f"{most} {what}", f"its positions know {size}", "positions: false")

    def _position(self, nodes: NodeTable) -> Tensor:
        """Which learned position each node has."""
        role, start = nodes.role, 0
        place = nodes.rank.clone()
        for number, size in enumerate(self.sizes.values()):
            place = place + (role == number) * start
            start += size
        return place


_ACTIVATIONS = BY_NAME["activation"].categories
assert BY_NAME["node_role"].categories == ("input", "hidden", "output")
assert ROLE_OUTPUT == 2
