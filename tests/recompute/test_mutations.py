"""Graphs changed at random: every change of the set of edges is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ngc.ir.graph import EdgeBlock, Graph
from ngc.ir.program import Program
from ngc.ir.slots import FIRST_SLOT, Slots
from ngc.ir.text import parse_program
from ngc.options import Options
from ngc.passes.graph.pipeline import build_graph
from ngc.passes.wire import wire
from ngc.plan import Plan
from ngc.recompute import recompute
from ngc.recompute.permuted import edge_checksum
from tests.symmetry import networks

NETWORKS = {
    "residual": networks.residual_mlp,
    "tied": networks.tied_autoencoder,
    "convolutions": networks.conv_net,
    "squeeze_excite": networks.squeeze_excite,
    "dense": networks.dense_net,
    "gated": networks.gated,
    "attention": networks.attention,
    "positions": networks.product_with_positions,
    "rnn": networks.rnn,
    "gru": networks.gru,
}
CHANGES = 30


def mutations(graph: Graph, rng: np.random.Generator) -> Iterator[tuple[str, Graph]]:
    """Graphs in which a block is gone, has two entries exchanged, has an edge elsewhere, or leads
    to the wrong step."""
    for _ in range(CHANGES):
        place = int(rng.integers(len(graph.blocks)))
        what = str(rng.choice(["src", "dst", "slots", "block", "recurrent"]))
        new = _changed(graph.blocks[place], what, graph.num_nodes, rng)
        blocks = (*graph.blocks[:place], *new, *graph.blocks[place + 1 :])
        yield f"{what} of {graph.blocks[place].kind} block {place}", replace(graph, blocks=blocks)


def _changed(
    block: EdgeBlock, what: str, num_nodes: int, rng: np.random.Generator
) -> list[EdgeBlock]:
    if what == "block":
        return []
    if what == "recurrent":
        return [replace(block, recurrent=not block.recurrent)]
    slots = block.slots.numpy()
    array = (slots if what == "slots" else getattr(block, what)).copy()
    flat = array.reshape(-1)
    if what == "slots" or (len(flat) > 1 and rng.random() < 0.5):
        pair = rng.integers(len(flat), size=2)
        flat[pair] = flat[pair[::-1]]
    else:
        flat[rng.integers(len(flat))] = rng.integers(num_nodes)
    return [replace(block, **{what: Slots.of(array) if what == "slots" else array})]


def checksum(program: Program, graph: Graph) -> int:
    weights = torch.rand(program.num_slots, generator=torch.Generator().manual_seed(0))
    weights[:FIRST_SLOT] = torch.tensor([0.0, 1.0])
    plan = Plan(program, graph, Options(), "")
    return edge_checksum(plan, weights, np.arange(graph.num_nodes))


@pytest.mark.parametrize("flatten", ["repeat", "virtual", "kernel"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_change_is_noticed(name: str, flatten: str) -> None:
    program = NETWORKS[name]()
    wiring = wire(program)
    graph = build_graph(wiring, Options(flatten=flatten))
    untouched = recompute(wiring, graph)
    assert untouched.faults == ()
    assert untouched.done == untouched.total == len(graph.blocks)
    before, changes = checksum(program, graph), 0
    for what, mutant in mutations(graph, np.random.default_rng(0)):
        if checksum(program, mutant) != before:
            changes += 1
            assert recompute(wiring, mutant).faults, what
    assert changes > CHANGES // 3


def test_a_layer_without_neurons_has_nothing_to_recompute() -> None:
    text = """program p {
  @a = param float32 [0,2]
  @b = param float32 [3,0]
  %x = input float32 [1,2]
  %h = linear float32 [1,0] x=%x weight=@a spec="bi,oi->bo"
  %y = linear float32 [1,3] x=%h weight=@b spec="bi,oi->bo"
  return y=%y
}
"""
    wiring = wire(parse_program(text))
    assert recompute(wiring, build_graph(wiring, Options())).faults == ()
