"""Wiring of sources and data movement: neurons pass through; joins and paddings add a few."""

from __future__ import annotations

import math

import numpy as np

from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.passes.wire.base import Wirer, fresh_rows, wires


@wires(ir.Input)
def graph_input(w: Wirer, op: ir.Input) -> IndexArray:
    axes = w.identity_axes[op.out.name]
    sizes = [n if a in axes else 1 for a, n in enumerate(op.out.shape)]
    neurons = w.fresh(int(np.prod(sizes)))
    w.fix(neurons)
    return IndexArray(op.out.shape, neurons.reshape(sizes))


@wires(ir.Parameter)
def parameter(w: Wirer, op: ir.Parameter) -> IndexArray:
    """Neurons without inputs; the parameter is their bias. An axis along which it only repeats (a
    class token for each of a batch) makes no positions."""
    axes = w.identity_axes[op.out.name]
    shape = op.out.shape
    own = [a for a in range(len(shape)) if a in axes]
    sizes = [n if a in axes else 1 for a, n in enumerate(shape)]
    neurons = w.fresh(int(np.prod(sizes)))
    if op.data.size:
        entries = IndexArray.of(op.data.numpy(), shape).ids
        places = [a for a in range(len(shape)) if a not in axes and entries.shape[a] > 1]
        entries = np.broadcast_to(entries, np.broadcast_shapes(entries.shape, sizes))
        rest = [a for a in range(len(shape)) if a not in own + places]
        rows = entries.transpose([*own, *places, *rest]).reshape(len(neurons), -1)
        w.attach("bias", neurons, rows, tuple(shape[a] for a in places))
    return IndexArray(shape, neurons.reshape(sizes))


@wires(ir.Constant)
def constant(w: Wirer, op: ir.Constant) -> IndexArray:
    """One neuron, whatever the contents: plain numbers are not on the graph. But a state of zeros
    has one for each unit of the state, which can be exchanged."""
    axes = w.identity_axes.get(op.out.name, ())
    neurons = w.fresh(math.prod(op.out.shape[a] for a in axes), "constant")
    if not axes:
        w.fix(neurons)
    sizes = [n if a in axes else 1 for a, n in enumerate(op.out.shape)]
    return IndexArray(op.out.shape, neurons.reshape(sizes))


@wires(ir.Reshape, ir.Transpose, ir.Slice, ir.Expand, ir.Take, ir.Select)
def view(w: Wirer, op: ir.Reshape) -> IndexArray:
    return w.index(op.x).move(op)


@wires(ir.Pad)
def pad(w: Wirer, op: ir.Pad) -> IndexArray:
    """Along positions the neuron stays; along an axis of neurons constant ones are put in."""
    x = w.index(op.x)
    rank = len(op.out.shape)
    widths = [
        (op.pads[a], op.pads[rank + a]) if x.ids.shape[a] > 1 else (0, 0) for a in range(rank)
    ]
    if not any(sum(pair) for pair in widths):
        return IndexArray(op.out.shape, x.ids)
    if op.value == 0.0:
        filler = w.zero()
    else:
        filler = int(w.fresh(1, "constant")[0])
    w.fix(np.array([filler]))
    return IndexArray.of(np.pad(x.ids, widths, constant_values=filler), op.out.shape)


@wires(ir.Concat)
def concat(w: Wirer, op: ir.Concat) -> IndexArray:
    """Along an axis of neurons: theirs one after another. Along positions: each neuron of the
    result takes its value from one operand here and from another there."""
    parts = [w.index(ref) for ref in op.xs]
    axis, rank = op.axis, len(op.out.shape)
    others = [a for a in range(rank) if a != axis]
    first = parts[0]
    same = all(p.ids.shape == first.ids.shape and (p.ids == first.ids).all() for p in parts)
    if same and axis not in first.varying:
        return IndexArray(op.out.shape, first.ids)
    by_position = all(p.ids.shape[axis] == 1 for p in parts) and any(
        p.ids.shape[a] > 1 for p in parts for a in others
    )
    together = np.broadcast_shapes(*([p.ids.shape[a] for a in others] for p in parts))
    if not by_position:
        spread = []
        for part in parts:
            sizes = list(together)
            sizes.insert(axis, part.shape[axis])
            spread.append(np.broadcast_to(part.ids, sizes))
        return IndexArray.of(np.concatenate(spread, axis=axis), op.out.shape)
    sizes = list(together)
    sizes.insert(axis, 1)
    rows = np.stack([np.broadcast_to(p.ids, sizes).reshape(-1) for p in parts], axis=1)
    neuron_of, new, distinct = fresh_rows(w, rows)
    for k in range(rows.shape[1]):
        once = ~(distinct[:, :k] == distinct[:, k : k + 1]).any(axis=1)
        w.connect_each("identity", distinct[once, k], new[once])
    return IndexArray.of(neuron_of.reshape(sizes), op.out.shape)
