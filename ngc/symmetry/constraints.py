"""What the symmetries of a network must keep, read off its wiring."""

from __future__ import annotations

import numpy as np

from ngc.ir.slots import FIRST_SLOT
from ngc.passes.wire import Wires, Wiring
from ngc.symmetry.hashing import colour, mixed
from ngc.symmetry.layout import Layouts
from ngc.symmetry.sharing import relate_shared_slots
from ngc.symmetry.structure import Builder, Structure


def structure_of(wiring: Wiring) -> Structure:
    """Points and relations of a network."""
    births = np.zeros(wiring.num_neurons, dtype=np.int64)
    for number, birth in enumerate(wiring.births):
        births[birth.start : birth.stop] = number
    builder = Builder(births)
    for neurons in wiring.fixed:
        builder.fix(neurons)
    for _, ref in wiring.program.outputs:
        builder.fix(wiring.index[ref].ids)
    _mark_layouts(wiring, builder)
    for number, wires in enumerate(wiring.wires):
        _relate_wires(number, wires, builder)
    for number, scalars in enumerate(wiring.scalars):
        builder.mark(scalars.neurons, colour("scalars", number))
    for number, (a, b) in enumerate(wiring.ties):
        _relate_pairs(number, a, b, builder)
    for number, (_, rows) in enumerate(wiring.sets):
        builder.relate(_column(builder.points(len(rows)), rows), rows, "set", number)
    relate_shared_slots(wiring, builder)
    return builder.build()


def _mark_layouts(wiring: Wiring, builder: Builder) -> None:
    """Neurons whose positions an operation meets elsewhere cannot be exchanged."""
    program = wiring.program
    layouts = Layouts(program, wiring.index, builder.fix).of
    read = dict.fromkeys(ref for op in program.ops if not op.is_view for ref in op.inputs)
    for number, ref in enumerate(read):
        if not layouts[ref].constant:
            neurons, token = layouts[ref].token()
            builder.mark(neurons, mixed(token, colour("value", number)))


def _relate_wires(number: int, wires: Wires, builder: Builder) -> None:
    """Groups of edges map onto groups."""
    src, dst, slots = wires.src, wires.dst, wires.slots
    (g, i), o = src.shape, dst.shape[1]
    builder.mark(src.reshape(-1), colour("source", number))
    builder.mark(dst.reshape(-1), colour("target", number))
    if g == 1:
        return
    if i == o == 1:
        builder.relate(src, dst, "edge", number)
        return
    without_slots = slots.entries is None and not any(slots.strides) and slots.offset < FIRST_SLOT
    if without_slots and ((src == src[0]).all() or (dst == dst[0]).all()):
        return  # all pairs after all
    if o == 1 and len(np.unique(dst)) == g:
        builder.relate(_column(dst[:, 0], src), src, "source", number)
    elif i == 1 and len(np.unique(src)) == g:
        builder.relate(_column(src[:, 0], dst), dst, "target", number)
    else:
        groups = builder.points(g)
        builder.relate(_column(groups, src), src, "source", number)
        builder.relate(_column(groups, dst), dst, "target", number)


def _column(points: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.broadcast_to(points[:, None], like.shape)


def _relate_pairs(number: int, a: np.ndarray, b: np.ndarray, builder: Builder) -> None:
    """Factors of one product. In every sum a neuron must have its own partner: so one side at
    least has the same partner everywhere."""
    keys = np.unique(a * builder.num_neurons + b)
    left, right = np.divmod(keys, builder.num_neurons)
    if min(np.bincount(left).max(initial=0), np.bincount(right).max(initial=0)) > 1:
        builder.fix(a)
        builder.fix(b)
    different = left != right
    builder.relate(left[different], right[different], "pair", number)
