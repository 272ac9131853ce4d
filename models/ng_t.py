"""NG-T: a relational transformer on neural graphs (paper, Sec. 3.2).

Attention over all pairs of neurons of a graph, with queries, keys and values that depend on the
edge between them (Diao & Loynd 2023), values scaled as well as shifted (Eq. 5), and edges that are
updated after each layer. The pair (i, j) is the edge from j to i, whether there is one or not.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import Edits, GraphBatch, Part
from ngc.errors import OptionError
from ngc.models.chunked_pairs import ChunkedPairs
from ngc.models.direct_pairs import DirectPairs
from ngc.models.encoders import NodeEncoder, NodeTable, ScalarEncoder, embedded_activations
from ngc.models.facts import Facts
from ngc.models.limits import require
from ngc.models.pairs import AttentionMaps, Kernels, Pairs, UpdateMaps, check_memory
from ngc.models.readout import EditReadout, ElementReadout, GraphReadout, num_answers
from ngc.models.registry import PREDICTS, model, weights_and_probes
from ngc.models.settings import Activations, Count, Deviation, Memory, Readout, Share, Size

Path = Literal["chunked", "direct"]
PATHS = get_args(Path)


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Xavier-uniform weights, zero biases."""
    made = nn.Linear(inputs, outputs, bias)
    nn.init.xavier_uniform_(made.weight)
    if bias:
        nn.init.zeros_(made.bias)
    return made


class KernelEncoder(nn.Module):
    """Kernels of pairs -> features: ScalarEncoder, then a linear map."""

    def __init__(self, inputs: int, width: int, sigma: float) -> None:
        super().__init__()
        self.encoder = ScalarEncoder(inputs, width, sigma)
        self.project = nn.Linear(width, width)

    def forward(self) -> Kernels:
        # Two linear maps in a row are one.
        inner, outer = self.encoder.linear, self.project
        weight = outer.weight @ inner.weight
        bias = F.linear(inner.bias, outer.weight, outer.bias)
        return Kernels(self.encoder.frequencies, weight, bias)


class Attention(nn.Module):
    """out(sum_j a_ij v_ij) of all nodes, or of those that attend."""

    def __init__(self, node: int, edge: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.of_nodes = linear(node, 3 * width, bias=False)
        self.of_edges = linear(edge, 4 * width, bias=False)
        self.out = linear(width, node)

    def forward(
        self, layer: int, nodes: Tensor, edges: list[Tensor], parts: list[Pairs], batch: GraphBatch
    ) -> Tensor:
        maps = AttentionMaps(*self.of_edges.weight.chunk(4), self.heads)
        rows = []
        for pairs, features, of_part in zip(parts, edges, batch.split(self.of_nodes(nodes))):
            query, key, value = of_part.chunk(3, dim=-1)
            query = _chosen(query, pairs.targets(layer))
            rows.append(pairs.attend(layer, features, query, key, value, maps).flatten(0, 1))
        return self.out(torch.cat(rows))  # type: ignore[no-any-return]


class NodeUpdate(nn.Module):
    """v' = N(v + W attended), then N(v' + MLP(v')); dropout before each sum."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mix = linear(width, width)
        self.first, self.second = linear(width, hidden, bias=False), linear(hidden, width)
        self.norm, self.second_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, attended: Tensor) -> Tensor:
        nodes = self.norm(nodes + self.dropout(self.mix(attended)))
        change = self.second(F.gelu(self.first(nodes)))
        return self.second_norm(nodes + self.dropout(change))  # type: ignore[no-any-return]


class EdgeUpdate(nn.Module):
    """e' = N(e_ij + MLP(e_ij, e_ji, v_j, v_i)), then N(e' + MLP(e')); dropout before each sum."""

    def __init__(self, node: int, edge: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.edges = linear(2 * edge, hidden)
        self.source, self.target = linear(node, hidden), linear(node, hidden)
        self.out = linear(hidden, edge)
        self.first, self.second = linear(edge, hidden, bias=False), linear(hidden, edge)
        self.norm, self.second_norm = nn.LayerNorm(edge), nn.LayerNorm(edge)
        self.rate = dropout

    def forward(
        self, layer: int, nodes: Tensor, edges: list[Tensor], parts: list[Pairs], batch: GraphBatch
    ) -> list[Tensor]:
        maps = UpdateMaps(
            self.edges.weight, self.out.weight, self.out.bias,
            (self.norm.weight, self.norm.bias),
            self.first.weight, self.second.weight, self.second.bias,
            (self.second_norm.weight, self.second_norm.bias),
            self.rate if self.training else 0.0,
        )  # fmt: skip
        source = self.source(nodes) + self.edges.bias  # a bias once per node is enough
        rows = zip(parts, edges, batch.split(source), batch.split(self.target(nodes)))
        return [pairs.update(layer, features, s, t, maps) for pairs, features, s, t in rows]


@model("ng_t")
class NgT(nn.Module):
    """Neural graphs -> a vector for each graph, node or edge, or changes of all their weights.

    node_width, edge_width, attention_width: features of a node, of a pair, and of queries, keys and
    values in all heads together. node_hidden, edge_hidden: of the MLPs of nodes and pairs. layers:
    attention layers. heads: of attention. head: hidden layers of the readout of vectors.
    probes: learned inputs that the networks are run on (0: weights only). dropout: of changes of
    nodes and pairs. sigma: deviation of the Fourier frequencies of weights and biases; 0 reads them
    as they are. positions: learned position embeddings. activations: embed the activation
    functions, those of the training networks or a list of names. readout: outputs, mean, max or
    attention (graph vectors). answers: the readout also sees what the output neurons answer to the
    probes (not in the paper). pair_memory: GiB that the features of pairs may take. path:
    ``chunked``, or ``direct``, by the formulas.

    Edges count in their own direction only, so that graphs compiled with any ``reverse`` give the
    same.
    """

    sees = staticmethod(weights_and_probes)

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        node_width: Size = 64,
        edge_width: Size = 32,
        attention_width: Size = 128,
        node_hidden: Size = 128,
        edge_hidden: Size = 64,
        layers: Size = 4,
        heads: Size = 8,
        head: tuple[Size, ...] = (128,),
        probes: Count = 0,
        dropout: Share = 0.2,
        sigma: Deviation = 1.0,
        positions: bool = True,
        activations: Activations = False,
        readout: Readout = "outputs",
        answers: bool = False,
        pair_memory: Memory = 8.0,
        path: Path = "chunked",
    ) -> None:
        super().__init__()
        if predicts not in PREDICTS or path not in PATHS:
            raise OptionError(f"predicts {predicts!r}, path {path!r}", hint=f"{PREDICTS}, {PATHS}")
        if layers < 1:
            raise OptionError(f"layers cannot be {layers}", hint="1 or more")
        if attention_width % heads:
            raise OptionError(f"attention_width {attention_width} does not divide by heads {heads}")
        self.predicts, self.path = predicts, path
        self.pair_memory, self.pair_width = pair_memory, edge_width + heads
        self.node_encoder = NodeEncoder(
            facts, node_width, sigma=sigma, positions=positions, probes=probes,
            activations=embedded_activations(facts, activations),
        )  # fmt: skip
        self.kernel_encoder = KernelEncoder(facts.width, edge_width, sigma)
        self.attentions = nn.ModuleList(
            Attention(node_width, edge_width, attention_width, heads) for _ in range(layers)
        )
        self.node_updates = nn.ModuleList(
            NodeUpdate(node_width, node_hidden, dropout) for _ in range(layers)
        )
        updates = layers if predicts in ("edges", "edits") else layers - 1
        self.edge_updates = nn.ModuleList(
            EdgeUpdate(node_width, edge_width, edge_hidden, dropout) for _ in range(updates)
        )
        seen = num_answers(answers, probes)
        self.graph_readout = self.element_readout = self.edit_readout = None
        if predicts == "graph":
            self.graph_readout = GraphReadout(facts, node_width, head, outputs, readout, seen)
        elif predicts == "edits":
            self.edit_readout = EditReadout(facts, node_width, edge_width)
        else:
            self.element_readout = ElementReadout(
                node_width if predicts == "nodes" else edge_width, head, outputs
            )
        self.outputs_only = predicts == "graph" and readout == "outputs"

    def forward(self, batch: GraphBatch) -> Tensor | tuple[Tensor, ...] | Edits:
        require(self, batch)
        check_memory(batch, self.pair_width, len(self.attentions), self.pair_memory)
        table = NodeTable.of_batch(batch)
        parts = [self._pairs(part) for part in batch.parts]
        activations = self.node_encoder.activations(batch)
        nodes, kernels = self.node_encoder(table, activations, batch), self.kernel_encoder()
        edges = [pairs.encode(kernels) for pairs in parts]
        for layer, attention in enumerate(self.attentions):
            attended = attention(layer, nodes, edges, parts, batch)
            chosen = [_chosen(rows, pairs.targets(layer)).flatten(0, 1)
                      for pairs, rows in zip(parts, batch.split(nodes))]  # fmt: skip
            nodes = self.node_updates[layer](torch.cat(chosen), attended)
            if layer < len(self.edge_updates):
                edges = self.edge_updates[layer](layer, nodes, edges, parts, batch)
        if self.graph_readout is not None:
            if self.outputs_only and self.path == "chunked":  # nothing else was computed
                return self.graph_readout.of_outputs(nodes, activations, batch)
            return self.graph_readout(nodes, table, activations, batch)  # type: ignore[no-any-return]
        if self.predicts == "nodes":
            assert self.element_readout is not None
            return self.element_readout(batch.split(nodes))  # type: ignore[no-any-return]
        read = [pairs.read_edges(features) for pairs, features in zip(parts, edges)]
        if self.element_readout is not None:
            return self.element_readout(read)  # type: ignore[no-any-return]
        assert self.edit_readout is not None
        return self.edit_readout(nodes, read, batch)  # type: ignore[no-any-return]

    def _pairs(self, part: Part) -> Pairs:
        if self.path == "direct":
            return DirectPairs(part)
        return ChunkedPairs(part, len(self.attentions), self.outputs_only)


def _chosen(rows: Tensor, nodes: Tensor | None) -> Tensor:
    """rows [graphs, n, ...] at some of the nodes."""
    return rows if nodes is None else rows[:, nodes]
