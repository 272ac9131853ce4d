"""Which axes of an input carry its neurons: those that the first weighted operation contracts.

An image is read by a convolution over its channels, or after a flatten by a Linear over all of its
pixels; a channels-last file moves its axes before that. So every element of an input is numbered
and the numbers are followed through data movement and entry-by-entry operations to the first
operation that needs to know. Where none does, as with a mask, what the input meets tells
(``meetings.py``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ngc.budget import DEFAULT
from ngc.errors import OptionError
from ngc.ir import program as ir
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints, Program, Ref
from ngc.passes.wire.meetings import Meeting, Teller

# The numbers of a source's elements, in a value computed from them: -1 where there are none.
Trails = dict[Ref, IndexArray]


def identity_axes(
    program: Program,
    given: Mapping[str, Sequence[int]],
    max_elements: int = DEFAULT.max_elements,
) -> dict[Ref, Ints]:
    """Axes of neurons for every Input and Parameter, and for zeros that something asks of;
    ``given`` ones are taken as they are."""
    zeros = {op.out.name for op in program if isinstance(op, ir.Constant) and op.is_zero}
    sources = {
        op.out.name: op.out.shape
        for op in program.ops
        if isinstance(op, (ir.Input, ir.Parameter)) or op.out.name in zeros
    }
    found = {name: _checked(name, axes, sources) for name, axes in given.items()}
    trails: dict[Ref, Trails] = {}
    behind: dict[Ref, frozenset[Ref]] = {}
    shapes = {op.out.name: op.out.shape for op in program.ops}
    meetings: list[Meeting] = []
    for op in program.ops:
        name = op.out.name
        behind[name] = frozenset({name} & sources.keys()).union(*(behind[ref] for ref in op.inputs))
        if name in sources:
            trails[name] = {name: _numbered(op.out.shape)} if name not in found else {}
            continue
        for ref, axes in _demands(op):
            for source, trail in trails[ref].items():
                if source not in found:
                    found[source] = _axes_behind(trail, axes, sources[source])
        meetings += _meetings(op, trails, behind)
        trails[name] = _follow(op, trails, shapes)

    asked = {op.out.name for op in program.inputs} & {m.source for m in meetings} - found.keys()
    default = {name: () if name in zeros else _default(shape) for name, shape in sources.items()}
    so_far = {name: found.get(name, default[name]) for name in sources if name not in asked}
    teller = Teller(program, so_far, max_elements)
    grown = bool(asked)
    while grown:
        grown = False
        for meeting in meetings:
            source = meeting.source
            if source not in asked or (along := teller.axes(meeting, found)) is None:
                continue
            found[source] = _axes_behind(meeting.trail, along, sources[source]) if along else ()
            so_far[source] = found[source]
            asked.remove(source)
            grown = True
    return default | found


def _meetings(
    op: ir.Op, trails: Mapping[Ref, Trails], behind: Mapping[Ref, frozenset[Ref]]
) -> Iterator[Meeting]:
    """Where a source meets, entry by entry or in a product, what is computed without it."""
    if not isinstance(op, (ir.Combine, ir.Concat, ir.Contract)):
        return
    for own in dict.fromkeys(op.inputs):
        for source, trail in trails[own].items():
            others = {ref: behind[ref] for ref in op.inputs if source not in behind[ref]}
            if others:
                yield Meeting(op, source, own, trail, others)


def _checked(name: str, axes: Sequence[int], sources: Mapping[Ref, Ints]) -> Ints:
    if name not in sources:
        raise OptionError(f"no input is called {name!r}", hint=", ".join(sorted(sources)))
    rank = len(sources[name])
    for axis in axes:
        if not 0 <= axis < rank:
            raise OptionError(f"input {name!r} has no axis {axis}", hint=f"0 to {rank - 1}")
    return tuple(sorted(set(axes)))


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
        case ir.Embedding(ids=ids) | ir.Gather(ids=ids) | ir.Scatter(ids=ids):
            return [(ids, [])]
    return []


def _axes_behind(trail: IndexArray, axes: list[int], shape: Ints) -> Ints:
    """Axes of the source along which its elements change when one walks along ``axes``.

    Where different lines of elements lie at different places of such an axis (patches of an image,
    pixels taken alternately), it is one of positions, cut into pieces: its pieces become entries of
    kernels. The features of a row that is cut stay neurons."""
    rest = [a for a in range(len(trail.shape)) if a not in axes]
    full = trail.full().transpose([*rest, *axes])
    lines = full.reshape(-1, math.prod(trail.shape[a] for a in axes))
    if not lines.size:
        return _default(shape)
    # Padding and what is joined with it are not of the source: take the line that shows most.
    line = lines[(lines >= 0).sum(axis=1).argmax()]
    places = np.unravel_index(line[line >= 0], shape) if shape else ()
    found = tuple(a for a, place in enumerate(places) if (place != place[:1]).any())
    others = np.unravel_index(lines[(lines >= 0).any(axis=1)].max(axis=1), shape) if shape else ()
    whole = tuple(a for a in found if np.isin(others[a], places[a]).all())
    return whole if whole or len(shape) > 3 else found


def _follow(op: ir.Op, trails: Mapping[Ref, Trails], shapes: Mapping[Ref, Ints]) -> Trails:
    """The trails of an operation's result, where it still shows where its elements came from."""
    shape, rank = op.out.shape, len(op.out.shape)
    sources = dict.fromkeys(source for ref in op.inputs for source in trails[ref])
    result: Trails = {}
    for source in sources:
        # Of several operands the one with most elements says most; the others broadcast to it.
        operands = [ref for ref in op.inputs if source in trails[ref]]
        trail = max((trails[ref][source] for ref in operands), key=lambda t: t.ids.size)
        match op:
            case ir.Pad():
                widths = list(zip(op.pads[:rank], op.pads[rank:]))
                padded = np.pad(trail.full(), widths, constant_values=-1)
                result[source] = IndexArray.of(padded, shape)
            case ir.Concat():
                parts = [
                    trails[ref][source].full() if ref in operands else np.full(shapes[ref], -1)
                    for ref in op.inputs
                ]
                result[source] = IndexArray.of(np.concatenate(parts, axis=op.axis), shape)
            case ir.Reduce():
                ids = trail.ids
                for axis in op.axes:
                    ids = ids.take([0], axis=axis)
                if not op.keepdims:
                    ids = ids.reshape([n for a, n in enumerate(ids.shape) if a not in op.axes])
                result[source] = IndexArray(shape, ids)
            case _ if op.is_view:
                result[source] = trail.move(op)
            case (
                ir.Activation() | ir.Cast() | ir.Combine() | ir.Scale() | ir.Shift() | ir.PRelu()
                | ir.Normalise() | ir.Softmax() | ir.Cumulate()
            ):  # fmt: skip
                lead = (1,) * (rank - trail.ids.ndim)
                result[source] = IndexArray(shape, trail.ids.reshape(lead + trail.ids.shape))
    return result
