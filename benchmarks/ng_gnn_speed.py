"""NG-GNN of the paper's size: blocks, edge lists, and a plain PyTorch Geometric model beside them.

    python -m benchmarks.ng_gnn_speed [--batch 64] [--probes 64] [--steps 4] [--rounds 3]
                                      [--threads 2] [--dropout 0] [--device cpu]

The task is INR classification (networks 2-32-32-1, reversed edges, 348,746 parameters): a training
step is forward, backward and AdamW; evaluation is forward alone. All hold the same weights, and
the outputs of blocks, lists and plain are compared first. Each runs in processes of its own that
take turns, for its peak memory (less that before the first step), once with the C library's
allocator as it is and once told to keep large blocks, since fresh pages are a good part of the
plain model's time.

blocks    ngc's default: dense blocks, chunks of graphs, derivatives recomputed
bf16      the same under autocast
lists     ngc's reference: gather and scatter
compiled  the layers of plain through ``torch.compile``, whose memory counts; needs a C++ compiler
plain     ``MessagePassing`` with ``DegreeScalerAggregation``; linear maps on [v_i, v_j] by edge
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import DegreeScalerAggregation, MessagePassing

from ngc.backends.blocks import bind_blocks, structure_of
from ngc.backends.graphs import GraphBatch
from ngc.backends.probes import Prober
from ngc.compiler import make_plan
from ngc.models import Facts
from ngc.models.encoders import NodeTable
from ngc.models.list_edges import ListEdges
from ngc.models.ng_gnn import EdgeUpdate, NgGnn, PnaConv
from ngc.models.topology import fourier
from ngc.options import Options
from ngc.passes.wire import wire

from benchmarks.bind_throughput import mlp  # isort: skip
from benchmarks.steps import Steps, compare  # isort: skip


class PlainConv(MessagePassing):
    """The convolution of NG-GNN as one would write it with PyTorch Geometric."""

    def __init__(self, conv: PnaConv, degrees: Tensor) -> None:
        aggregators, scalers = ["mean", "min", "max", "std"], ["identity", "amplification"]
        super().__init__(aggr=DegreeScalerAggregation(aggregators, scalers, degrees))
        self.conv = conv

    def forward(self, nodes: Tensor, index: Tensor, edges: Tensor) -> Tensor:
        found = self.propagate(index, x=nodes, edges=edges)
        return self.conv.out(self.conv.combine(torch.cat([nodes, found], dim=-1)))  # type: ignore[no-any-return]

    def message(self, x_i: Tensor, x_j: Tensor, edges: Tensor) -> Tensor:
        scale, shift = self.conv.film(edges).chunk(2, dim=-1)
        return scale * self.conv.message(torch.cat([x_i, x_j], dim=-1)) + shift  # type: ignore[no-any-return]


class Plain(nn.Module):
    """NG-GNN's layers and weights, run the plain way."""

    def __init__(self, model: NgGnn, degrees: Tensor) -> None:
        super().__init__()
        self.inner = model
        self.convs = [PlainConv(conv, degrees) for conv in model.convs]  # type: ignore[arg-type]

    def forward(self, batch: GraphBatch) -> Tensor:
        table, edge_list = NodeTable.of_batch(batch), ListEdges.of_batch(batch)
        activations = self.inner.node_encoder.activations(batch)
        nodes = self.inner.node_encoder(table, activations, batch)
        encoder = self.inner.edge_encoder
        assert encoder.encoder.frequencies is not None
        features = fourier(edge_list.values, encoder.encoder.frequencies)
        edges = encoder.project(encoder.encoder.linear(features))
        nodes = self.layers(nodes, edges, edge_list.index)
        return self.inner.graph_readout(nodes, table, activations, batch)  # type: ignore[misc]

    def layers(self, nodes: Tensor, edges: Tensor, index: Tensor) -> Tensor:
        for layer, conv in enumerate(self.convs):
            nodes = conv(nodes, index, edges)
            if layer < len(self.convs) - 1:
                nodes = self.inner.dropout(F.silu(self.inner.norms[layer](nodes)))
                edges = self.updated(self.inner.updates[layer], nodes, edges, index)  # type: ignore[arg-type]
        return nodes

    def updated(self, update: EdgeUpdate, nodes: Tensor, edges: Tensor, index: Tensor) -> Tensor:
        inner = update.edge(edges) + update.source(nodes)[index[0]] + update.target(nodes)[index[1]]
        return update.out(F.silu(inner))  # type: ignore[no-any-return]


def setting(way: str, args: argparse.Namespace) -> Steps:
    """A batch of sine networks, and the model in one of the ways."""
    program = mlp([2, 32, 32, 1])
    plan = make_plan(program, Options(reverse="features"))
    torch.manual_seed(0)
    weights = torch.randn(args.batch, program.num_slots) * 0.1
    weights[:, 0], weights[:, 1] = 0, 1
    batch = bind_blocks(plan, weights.to(args.device), Prober(wire(program), plan))
    structure = structure_of(plan)
    facts = Facts.of([(structure, args.batch)], ((1, 2),))
    path = "lists" if way == "lists" else "blocks"
    model = NgGnn(facts, probes=args.probes, dropout=args.dropout, path=path)
    module: nn.Module = model
    if way in ("plain", "compiled"):
        # PyG averages the logarithm over this histogram, as the facts do.
        module = plain = Plain(model, torch.bincount(structure.degree) * args.batch)
        if way == "compiled":
            plain.layers = torch.compile(plain.layers)  # type: ignore[method-assign]
    return Steps(module.to(args.device), batch, low=way == "bf16")


if __name__ == "__main__":
    assert __doc__ is not None
    compare(
        "benchmarks.ng_gnn_speed", __doc__.split("\n")[0], setting,
        ways=("blocks", "bf16", "lists", "compiled", "plain"), exact=("blocks", "lists", "plain"),
    )  # fmt: skip
