"""Which axes of an input carry its neurons: those that the first weighted operation contracts.

An image is read by a convolution over its channels, or after a flatten by a Linear over all of its
pixels; a channels-last file moves its axes before that. So every element of an input is numbered and
the numbers are followed through data movement and entry-by-entry operations to the first operation
that needs to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ngc.errors import OptionError
from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints, Program, Ref


def identity_axes(program: Program, given: Mapping[str, Sequence[int]]) -> dict[Ref, Ints]:
    """Axes of neurons for every Input and Parameter; ``given`` ones are taken as they are."""
    sources = [op for op in program.ops if isinstance(op, (ir.Input, ir.Parameter))]
    names = {op.out.name for op in sources}
    for name in given:
        if name not in names:
            raise OptionError(f"no input is called {name!r}", hint=", ".join(sorted(names)))
    found: dict[Ref, Ints] = {name: tuple(sorted(axes)) for name, axes in given.items()}
    trails: dict[Ref, tuple[Ref, IndexArray]] = {}
    shapes = {op.out.name: op.out.shape for op in sources}
    values = {op.out.name: op.out.shape for op in program.ops}
    for op in program.ops:
        if isinstance(op, (ir.Input, ir.Parameter)):
            if op.out.name not in found:
                trails[op.out.name] = (op.out.name, _numbered(op.out.shape))
            continue
        for ref, axes in _demands(op):
            if ref in trails and trails[ref][0] not in found:
                source, trail = trails[ref]
                found[source] = _axes_behind(trail, axes, shapes[source])
        followed = _follow(op, trails, values)
        if followed is not None:
            trails[op.out.name] = followed
    for name, shape in shapes.items():
        found.setdefault(name, _default(shape))
    return found


def _default(shape: Ints) -> Ints:
    """Nothing contracts the input: features of a row, channels of anything larger."""
    return (0,) if len(shape) == 1 else (1,) if len(shape) > 1 else ()


def _numbered(shape: Ints) -> IndexArray:
    return IndexArray.of(np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape), shape)


def _demands(op: ir.Op) -> list[tuple[Ref, list[int]]]:
    """Values read by an operation that needs to know their neurons, and the axes of those."""
    match op:
        case ir.Linear(x=x, spec=spec):
            left, _, out = spec.replace("->", ",").split(",")
            contracted = [k for k, letter in enumerate(left) if letter not in out]
            return [(x, contracted)] if contracted else []
        case ir.Convolution(x=x) | ir.ConvolutionTranspose(x=x) | ir.BatchNorm(x=x) | ir.Pool(x=x):
            return [(x, [1])]
        case ir.Embedding(ids=ids) | ir.Gather(ids=ids):
            return [(ids, [])]
    return []


def _axes_behind(trail: IndexArray, axes: list[int], shape: Ints) -> Ints:
    """Axes of the source along which its elements change when one walks along ``axes``."""
    if 0 in trail.shape:
        return ()  # nothing to walk along
    first = tuple(slice(None) if a in axes else 0 for a in range(len(trail.shape)))
    numbers = np.unique(trail.full()[first])
    numbers = numbers[numbers >= 0]
    places = np.unravel_index(numbers, shape) if shape else ()
    return tuple(a for a, place in enumerate(places) if (place != place[0]).any())


def _follow(
    op: ir.Op, trails: dict[Ref, tuple[Ref, IndexArray]], shapes: dict[Ref, Ints]
) -> tuple[Ref, IndexArray] | None:
    """The trail of an operation's result, where it still shows where its elements came from."""
    known = [ref for ref in op.inputs if ref in trails]
    if not known:
        return None
    # The operand of greatest size says most; the others broadcast to it.
    source, trail = trails[max(known, key=lambda ref: trails[ref][1].ids.size)]
    shape = op.out.shape
    match op:
        case ir.Pad():
            rank = len(shape)
            widths = list(zip(op.pads[:rank], op.pads[rank:]))
            return source, IndexArray.of(np.pad(trail.full(), widths, constant_values=-1), shape)
        case ir.Concat():
            parts = [
                trails[ref][1].full()
                if ref in trails and trails[ref][0] == source
                else np.full(shapes[ref], -1)
                for ref in op.inputs
            ]
            return source, IndexArray.of(np.concatenate(parts, axis=op.axis), shape)
        case ir.Reduce():
            ids = trail.ids
            for axis in op.axes:
                ids = ids.take([0], axis=axis)
            if not op.keepdims:
                ids = ids.reshape([n for a, n in enumerate(ids.shape) if a not in op.axes])
            return source, IndexArray(shape, ids)
        case _ if op.is_view:
            return source, trail.move(op)
        case (
            ir.Activation()
            | ir.Cast()
            | ir.Combine()
            | ir.Scale()
            | ir.Shift()
            | ir.PRelu()
            | ir.Normalise()
            | ir.Softmax()
            | ir.Cumulate()
        ):
            lead = (1,) * (len(shape) - trail.ids.ndim)
            return source, IndexArray(shape, trail.ids.reshape(lead + trail.ids.shape))
    return None
