"""NG-GNN: a message-passing network on neural graphs (paper, Sec. 3.1).

PNA (Corso et al. 2020) with edge features that scale and shift the messages (FiLM, Eq. 4) and are
updated between layers (Eq. 3).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import Edits, GraphBatch
from ngc.errors import OptionError
from ngc.models.block_edges import BlockEdges
from ngc.models.encoders import EdgeEncoder, NodeEncoder, NodeTable, embedded_activations
from ngc.models.facts import Facts
from ngc.models.initial import xavier
from ngc.models.limits import require
from ngc.models.list_edges import ListEdges
from ngc.models.readout import EditReadout, ElementReadout, GraphReadout, num_answers
from ngc.models.registry import PREDICTS, model, weights_and_probes
from ngc.models.settings import Activations, Count, Deviation, Readout, Share, Size
from ngc.models.topology import EdgeFeatures, EdgeMlp, Topology

Path = Literal["blocks", "lists"]
PATHS = get_args(Path)


class PnaConv(nn.Module):
    """v_i' = W_2 W_1 [v_i, aggregates_i]; the aggregates are mean, minimum, maximum and deviation
    of the messages m_ij = scale(e_ij) * W [v_i, v_j] + shift(e_ij), each as it is and scaled by the
    logarithm of the degree."""

    def __init__(self, width: int, mean_log_degree: float) -> None:
        super().__init__()
        self.film = nn.Linear(width, 2 * width)
        self.message = nn.Linear(2 * width, width)
        self.combine = nn.Linear(9 * width, width)
        self.out = nn.Linear(width, width)
        self.mean_log_degree = mean_log_degree

    def forward(
        self, layer: int, nodes: Tensor, edges: EdgeFeatures, degree: Tensor, topology: Topology
    ) -> Tensor:
        # The linear map of [v_i, v_j] in two parts, each once per node and not once per edge.
        weight_target, weight_source = self.message.weight.chunk(2, dim=1)
        target = F.linear(nodes, weight_target, self.message.bias)
        source = F.linear(nodes, weight_source)
        film = (self.film.weight, self.film.bias)
        reduced = topology.reduce(layer, edges, target, source, film)
        plain = torch.cat(
            [reduced.mean, reduced.minimum, reduced.maximum, reduced.deviation], dim=-1
        )
        amplified = plain * ((degree + 1.0).log() / self.mean_log_degree)[:, None]
        return self.out(self.combine(torch.cat([nodes, plain, amplified], dim=-1)))  # type: ignore[no-any-return]


class EdgeUpdate(nn.Module):
    """e_ij' = W_out act(W_e e_ij + W_s v_j + W_t v_i), act = SiLU (Eq. 3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edge, self.source, self.target, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(
        self, layer: int, nodes: Tensor, edges: EdgeFeatures, topology: Topology
    ) -> EdgeFeatures:
        source = self.source(nodes) + self.edge.bias  # a bias once per node is enough
        mlp = EdgeMlp(self.edge.weight, self.out.weight, self.out.bias)
        return topology.update(layer, edges, source, self.target(nodes), mlp)


@model("ng_gnn")
class NgGnn(nn.Module):
    """Neural graphs -> a vector for each graph, node or edge, or changes of all their weights.

    width: features of a node and of an edge. layers: message-passing layers. probes: learned
    inputs that the networks are run on (0: weights only). dropout: of node features between layers.
    sigma: deviation of the Fourier frequencies of weights and biases; 0 reads them as they are.
    positions: learned position embeddings. activations: embed the activation functions, those of
    the training networks or a list of names. readout: outputs, mean, max or attention (graph
    vectors). head: hidden layers of the readout of vectors; None: two of ``width`` (the paper's).
    answers: the readout also sees what the output neurons answer to the probes, and residual: a
    layer's input is added to its output (neither is in the paper; both learn faster). path:
    ``blocks``, or ``lists``, the plain form.
    """

    sees = staticmethod(weights_and_probes)

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        width: Size = 64,
        layers: Size = 4,
        probes: Count = 0,
        dropout: Share = 0.2,
        sigma: Deviation = 3.0,
        positions: bool = True,
        activations: Activations = False,
        readout: Readout = "outputs",
        head: tuple[Size, ...] | None = None,
        answers: bool = False,
        residual: bool = False,
        path: Path = "blocks",
    ) -> None:
        super().__init__()
        if predicts not in PREDICTS or path not in PATHS:
            raise OptionError(f"predicts {predicts!r}, path {path!r}", hint=f"{PREDICTS}, {PATHS}")
        self.predicts, self.path, self.residual = predicts, path, residual
        self.node_encoder = NodeEncoder(
            facts, width, sigma=sigma, positions=positions, probes=probes,
            activations=embedded_activations(facts, activations),
        )  # fmt: skip
        self.edge_encoder = EdgeEncoder(facts, width, sigma)
        # Edges are updated between the layers, and once more where they themselves are read.
        between = range(layers if predicts == "edges" else layers - 1)
        self.convs = nn.ModuleList(PnaConv(width, facts.mean_log_degree) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in between)
        self.updates = nn.ModuleList(EdgeUpdate(width) for _ in between)
        self.dropout = nn.Dropout(dropout)
        hidden = (width, width) if head is None else head
        seen = num_answers(answers, probes)
        self.graph_readout = self.element_readout = self.edit_readout = None
        if predicts == "graph":
            self.graph_readout = GraphReadout(facts, width, hidden, outputs, readout, seen)
        elif predicts == "edits":
            self.edit_readout = EditReadout(facts, width, width)
        else:
            self.element_readout = ElementReadout(width, hidden, outputs)
        self.outputs_only = predicts == "graph" and readout == "outputs"
        xavier(self)

    def forward(self, batch: GraphBatch) -> Tensor | tuple[Tensor, ...] | Edits:
        require(self, batch)
        table = NodeTable.of_batch(batch)
        topology = self._topology(batch)
        activations = self.node_encoder.activations(batch)
        nodes = self.node_encoder(table, activations, batch)
        edges = self.edge_encoder(topology)
        for layer, conv in enumerate(self.convs):
            before = nodes
            nodes = conv(layer, nodes, edges, table.degree, topology)
            if layer < len(self.updates):
                change = self.dropout(F.silu(self.norms[layer](nodes)))
                nodes = before + change if self.residual else change
                edges = self.updates[layer](layer, nodes, edges, topology)
        if self.graph_readout is not None:
            return self.graph_readout(nodes, table, activations, batch)  # type: ignore[no-any-return]
        if self.element_readout is not None:
            of_nodes = self.predicts == "nodes"
            rows = batch.split(nodes) if of_nodes else topology.read_edges(edges)
            return self.element_readout(rows)  # type: ignore[no-any-return]
        assert self.edit_readout is not None
        return self.edit_readout(nodes, topology.read_edges(edges), batch)  # type: ignore[no-any-return]

    def _topology(self, batch: GraphBatch) -> Topology:
        if self.path == "lists":
            return ListEdges.of_batch(batch)
        return BlockEdges(batch, len(self.updates) + 1, self.outputs_only)
