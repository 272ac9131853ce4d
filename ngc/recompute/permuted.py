"""The graph under a permutation of its neurons: the same edges between other nodes."""

from __future__ import annotations

import numpy as np
import torch

from ngc.plan import Plan, read


def permutes_graph(
    plan: Plan, weights: torch.Tensor, moved: torch.Tensor, permutation: np.ndarray
) -> list[str]:
    """What else than the order of nodes differs between the graphs of two weights, where the
    second are the first permuted by ``permutation`` of granular neurons."""
    nodes = plan.graph.nodes
    # A node is its neuron, and its place where it is a copy for one position.
    places = (nodes.place + 1).astype(np.int64)
    width = int(places.max(initial=0)) + 1
    key = (nodes.neuron * width + places[:, 0]) * width + places[:, 1]
    image = (permutation[nodes.neuron] * width + places[:, 0]) * width + places[:, 1]
    order = np.argsort(key)
    found = np.searchsorted(key[order], image).clip(max=len(key) - 1)
    target = order[found]
    if not np.array_equal(key[target], image):
        return ["the permutation of neurons is not one of nodes"]
    faults = [
        f"node feature {name} changed"
        for name in ("kind", "role", "activation", "pool", "layer")
        if not np.array_equal(getattr(nodes, name)[target], getattr(nodes, name))
    ]
    if not torch.equal(
        plan.node_features(moved)[torch.from_numpy(target)], plan.node_features(weights)
    ):
        faults.append("node feature x is not that of the permuted neuron")
    same = np.arange(len(target))
    if edge_checksum(plan, weights, target) != edge_checksum(plan, moved, same):
        faults.append("an edge changed by more than its ends")
    return faults


def edge_checksum(plan: Plan, weights: torch.Tensor, name_of: np.ndarray) -> int:
    """A number that is the same for the same set of edges (ends, kind, kernel) in any order, with
    nodes called ``name_of``. Two different sets agree with probability 2^-64."""
    total = np.zeros(1, dtype=np.uint64)  # an array wraps around without a warning
    for block in plan.graph.blocks:
        bits = read(weights, block.slots).numpy().reshape(-1, block.taps)
        kind = np.array([block.category * 2 + block.reverse], dtype=np.uint64)
        src = _mixed(name_of[block.src].astype(np.uint64)) * np.uint64(3)
        dst = _mixed(name_of[block.dst].astype(np.uint64)) * np.uint64(5)
        head = (src[:, None, :] + dst[:, :, None]).reshape(-1) + kind * _ODD
        taps = np.arange(block.taps, dtype=np.uint64) * _ODD
        step = max(1, CHUNK // block.taps)
        for start in range(0, len(bits), step):
            part = np.ascontiguousarray(bits[start : start + step])
            whole = part.view(f"u{part.itemsize}").astype(np.uint64)
            whole += taps
            kernel = _mixed(whole).sum(axis=1)
            kernel += head[start : start + step]
            total += _mixed(kernel).sum()
    return int(total[0])


CHUNK = 1 << 18  # kernel entries at a time: what a processor keeps at hand
_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: spreads every bit over all of them."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value = value ^ (value >> np.uint64(shift))
        value *= np.uint64(factor)
    value ^= value >> np.uint64(31)
    return value
