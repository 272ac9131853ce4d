"""Bind 4,096 networks of one architecture into a PyG batch, against building it graph by graph.

    python benchmarks/bind_throughput.py [--networks 4096] [--runs 5] [--widths 2 32 32 1]

Ways to one batch, and the tensors of all of them are asserted to be equal:

bind        ``bind(plan, weights)`` with weights [networks, slots]: one gather for all networks;
            what weights do not change is kept from one batch to the next of the same size
bind, new   the same with nothing kept
collate     ``Batch.from_data_list`` alone: the graphs are there already
by hand     a ``Data`` object for each network with its numbers copied out of the state_dict, the
            structure shared, then ``Batch.from_data_list``: what code without ngc does
by network  ``bind(plan, weights[k])`` for each network, then ``Batch.from_data_list``
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch_geometric.data import Batch

from ngc.backends.pyg import NeuralGraph, bind
from ngc.compiler import make_plan
from ngc.ir.program import Activation, Input, Linear, Op, Param, Program, Shift, Value
from ngc.ir.slots import FIRST_SLOT, Slots
from ngc.options import Options
from ngc.plan import Plan

TARGET = 20.0


def mlp(widths: list[int]) -> Program:
    """Sine networks: Linear, bias, sin, ..., Linear, bias."""
    ops: list[Op] = [Input(out=Value("x", (1, widths[0])))]
    params: list[Param] = []
    offset = FIRST_SLOT
    for k, (i, o) in enumerate(itertools.pairwise(widths)):
        read = ops[-1].out.name
        params += [
            Param(f"{k}.weight", (o, i), "float32", offset),
            Param(f"{k}.bias", (o,), "float32", offset + o * i),
        ]
        weight, bias = (Slots.contiguous(p.shape, p.offset) for p in params[-2:])
        offset += o * i + o
        out = (1, o)
        ops.append(Linear(out=Value(f"h{k}", out), x=read, weight=weight, spec="bi,oi->bo"))
        ops.append(Shift(out=Value(f"b{k}", out), x=f"h{k}", term=bias))
        if k < len(widths) - 2:
            ops.append(Activation(out=Value(f"a{k}", out), x=f"b{k}", fn="sin"))
    return Program("mlp", tuple(params), tuple(ops), (("y", ops[-1].out.name),))


def by_hand(
    plan: Plan, states: list[dict[str, torch.Tensor]], structure: dict[str, torch.Tensor]
) -> Batch:
    """Data objects from state_dicts, one after the other."""
    inputs = plan.program.inputs[0].out.shape[1]
    graphs = []
    for state in states:
        biases = [torch.zeros(inputs), *(v for name, v in state.items() if "bias" in name)]
        x = torch.zeros(plan.num_nodes, 4)
        x[:, 0] = torch.cat(biases)
        x[:, 2] = 1  # no BatchNorm: variance 1
        edges = torch.cat([v.reshape(-1, 1) for name, v in state.items() if "weight" in name])
        graphs.append(NeuralGraph(x=x, edge_attr=edges, **structure))
    return Batch.from_data_list(graphs)


def measured(make: Callable[[], Batch], runs: int) -> tuple[Batch, float]:
    """The batch, and the median of the seconds that it takes in so many runs, or in more where
    they take less than a second together."""
    batch = make()  # warm
    seconds: list[float] = []
    while len(seconds) < runs or sum(seconds) < 1:
        start = time.perf_counter()
        batch = make()
        seconds.append(time.perf_counter() - start)
    return batch, statistics.median(seconds)


def assert_equal(a: Batch, b: Batch) -> None:
    assert set(a.keys()) == set(b.keys())
    for name in a.keys():  # noqa: SIM118  (a Batch is no mapping)
        assert a[name].dtype == b[name].dtype, name
        assert torch.equal(a[name], b[name]), name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=4096)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 32, 32, 1])
    args = parser.parse_args()

    plan = make_plan(mlp(args.widths), Options())
    torch.manual_seed(0)
    weights = torch.randn(args.networks, plan.program.num_slots)
    weights[:, 0], weights[:, 1] = 0, 1
    params = plan.program.params
    states = [
        {p.name: row[p.offset : p.offset + p.size].reshape(p.shape) for p in params}
        for row in weights
    ]
    structure = plan.structure()
    graphs = [bind(plan, row) for row in weights]
    ways = {
        "bind": lambda: bind(plan, weights),
        "bind, new": lambda: bind(replace(plan), weights),
        "collate": lambda: Batch.from_data_list(graphs),
        "by hand": lambda: by_hand(plan, states, structure),
        "by network": lambda: Batch.from_data_list([bind(plan, row) for row in weights]),
    }
    print(
        f"{args.networks} networks {'-'.join(map(str, args.widths))}: {plan.num_nodes} nodes, "
        f"{plan.num_edges} edges each; {torch.get_num_threads()} threads, median of {args.runs}"
    )
    seconds = {}
    reference = None
    for name, make in ways.items():
        batch, seconds[name] = measured(make, args.runs)
        if reference is None:
            reference = batch
        assert_equal(reference, batch)
        del batch
        rate = args.networks / seconds[name]
        ratio = seconds[name] / seconds["bind"]
        print(f"{name:12} {seconds[name]:8.3f} s {rate:12,.0f} networks/s {ratio:8.1f} x bind")
    ratio = seconds["collate"] / seconds["bind"]
    print(f"bind is {ratio:.1f} times as fast as collate (wanted: {TARGET:.0f})")
    assert ratio >= TARGET


if __name__ == "__main__":
    main()
