"""NG-GNN of the paper's size: blocks, edge lists, and a plain PyTorch Geometric model beside them.

    python -m benchmarks.ng_gnn_speed [--batch 64] [--probes 64] [--steps 5] [--threads 2]

The task is INR classification (networks 2-32-32-1, reversed edges, 348,746 parameters): a training
step is forward, backward and AdamW; evaluation is forward alone. All hold the same weights, and
the outputs of blocks, lists and plain are compared first. Each runs in a process of its own, for
its peak memory (less that before the first step), once with the C library's allocator as it is and
once told to keep large blocks, since fresh pages are a good part of the plain model's time.

blocks    ngc's default: dense blocks, chunks of graphs, derivatives recomputed
bf16      the same under autocast
lists     ngc's reference: gather and scatter
compiled  the layers of plain through ``torch.compile``, whose memory counts; needs a C++ compiler
plain     ``MessagePassing`` with ``DegreeScalerAggregation``; linear maps on [v_i, v_j] by edge
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

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

WAYS = ("blocks", "bf16", "lists", "compiled", "plain")
KEEP = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**36),
    "MALLOC_TOP_PAD_": str(2**26),
}


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


def setting(many: int, probes: int) -> tuple[GraphBatch, NgGnn, Plain]:
    program = mlp([2, 32, 32, 1])
    plan = make_plan(program, Options(reverse="features"))
    torch.manual_seed(0)
    weights = torch.randn(many, program.num_slots) * 0.1
    weights[:, 0], weights[:, 1] = 0, 1
    batch = bind_blocks(plan, weights, Prober(wire(program), plan))
    structure = structure_of(plan)
    model = NgGnn(Facts.of([(structure, many)], ((1, 2),)), probes=probes, dropout=0.0)
    # PyG averages the logarithm over this histogram, as the facts do.
    return batch, model, Plain(model, torch.bincount(structure.degree) * many)


def chosen(way: str, model: NgGnn, plain: Plain) -> nn.Module:
    model.path = "lists" if way == "lists" else "blocks"
    if way == "compiled":
        plain.layers = torch.compile(plain.layers)  # type: ignore[method-assign]
    return plain if way in ("plain", "compiled") else model


def agree(many: int, probes: int) -> float:
    """Largest difference between the outputs of blocks, lists and plain."""
    batch, model, plain = setting(many, probes)
    with torch.no_grad():
        outputs = [chosen(way, model, plain)(batch) for way in ("blocks", "lists", "plain")]
    return max(float((output - outputs[0]).abs().max()) for output in outputs)


def measure(way: str, many: int, probes: int, steps: int) -> dict[str, float]:
    """Medians in seconds, and peak memory in GB beyond what it took to start."""
    batch, model, plain = setting(many, probes)
    module = chosen(way, model, plain)
    optimizer = torch.optim.AdamW(model.parameters())
    labels = torch.arange(many) % 10
    low = torch.autocast("cpu", torch.bfloat16) if way == "bf16" else nullcontext()

    def train() -> None:
        optimizer.zero_grad()
        with low:
            loss = F.cross_entropy(module(batch).float(), labels)
        loss.backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.no_grad(), low:
            module(batch)

    before = peak_memory()
    result = {"train": median(train, steps)}
    result["memory"] = peak_memory() - before
    return result | {"evaluation": median(evaluate, steps)}


def peak_memory() -> float:
    """GB that this process has held at most (ru_maxrss would count what started it, too)."""
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) / 2**20


def median(run: object, steps: int) -> float:
    seconds = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        run()  # type: ignore[operator]
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    for name, default in (("batch", 64), ("probes", 64), ("steps", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--way", choices=WAYS, help="measure one in this process")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.way:
        print(json.dumps(measure(args.way, args.batch, args.probes, args.steps)))
        return
    print(f"outputs differ by at most {agree(args.batch, args.probes):.1e}\n")
    print("| allocator | way | training step s | evaluation s | peak GB | times plain, training | "
          "evaluation | memory |\n|" + "---|" * 8)  # fmt: skip
    for allocator, variables in (("default", {}), ("keeps blocks", KEEP)):
        found = {way: in_process(way, variables, args) for way in reversed(WAYS)}
        for way in WAYS:
            one, plain = found[way], found["plain"]
            ratios = [plain[name] / one[name] for name in ("train", "evaluation")]
            print(
                f"| {allocator} | {way} | {one['train']:.3f} | {one['evaluation']:.3f} | "
                f"{one['memory']:.2f} | {ratios[0]:.1f} | {ratios[1]:.1f} | "
                f"{one['memory'] / plain['memory']:.2f} |",
                flush=True,
            )


def in_process(way: str, variables: dict[str, str], args: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.ng_gnn_speed", "--way", way]
    for name in ("batch", "probes", "steps", "threads"):
        command += [f"--{name}", str(getattr(args, name))]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | variables
    )
    return json.loads(done.stdout)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
