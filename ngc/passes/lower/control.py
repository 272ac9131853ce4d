"""If, Loop and Scan with a known condition or trip count, sequences, and optional values.

Bodies are lowered once per trip, with the operands of that trip; a parameter read on every trip is
one parameter. A sequence is a Python list of operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir

from ngc.passes.lower.base import Builder, Known, Operand, lowers
from ngc.passes.lower.shape import part, parts, unsqueezed

# Steps of the budget that one trip of a loop counts as: a wrong trip count should not take minutes.
TRIP = 100


def _drop(b: Builder, x: Operand, axis: int) -> Operand:
    """x without an axis of size 1."""
    return b.reshape(x, (*x.shape[:axis], *x.shape[axis + 1 :]))


def stack(b: Builder, xs: Sequence[Operand], axis: int) -> Operand:
    """Operands side by side along a new axis."""
    axis = b.axis(axis, len(xs[0].shape) + 1)
    return b.concat([unsqueezed(b, x, (axis,)) for x in xs], axis)


@lowers("If", since=1)
def if_(b: Builder, node: onnx_ir.Node, condition: Operand) -> tuple[Any, ...]:
    """The branch that a known condition chooses."""
    chosen = bool(b.values_of(condition, "the condition").reshape(()))
    branch = node.attributes.get_graph("then_branch" if chosen else "else_branch")
    return tuple(b.inline(branch, ()))


@lowers("Loop", since=1)
def loop(
    b: Builder,
    node: onnx_ir.Node,
    trips: Operand | None = None,
    condition: Operand | None = None,
    *carried: Any,
) -> tuple[Any, ...]:
    """The body, trip after trip, while the known condition holds; what it yields besides the
    carried values is stacked along a new first axis."""
    body = node.attributes.get_graph("body")
    limit = None if trips is None else int(b.values_of(trips, "the trip count").reshape(()))
    # Without a condition the body's own one is computed but not heeded.
    heeded = condition is not None
    going = not heeded or _holds(b, condition)
    state, trip = list(carried), 0
    yielded: list[list[Any]] = [[] for _ in body.outputs[1 + len(state) :]]
    if limit is None and not heeded:
        raise b.refuse("it has neither a trip count nor a condition: it never ends")
    while going and (limit is None or trip < limit):
        b.step(TRIP)
        now = (Known(np.array(trip, dtype=np.int64)), Known(np.array(True)))
        again, *results = b.inline(body, (*now, *state))
        state = results[: len(state)]
        for collected, result in zip(yielded, results[len(state) :], strict=True):
            collected.append(result)
        going = not heeded or _holds(b, again)
        trip += 1
    ends = body.outputs[1 + len(state) :]
    return (*state, *(_stacked(b, xs, 0, end) for xs, end in zip(yielded, ends)))


def _holds(b: Builder, condition: Operand | None) -> bool:
    return bool(b.values_of(condition, "the condition").reshape(()))


def _stacked(b: Builder, xs: Sequence[Operand], axis: int, end: onnx_ir.Value) -> Operand:
    """What the trips yielded; of no trips, an empty tensor of the declared shape."""
    if xs:
        return stack(b, xs, axis)
    if end.dtype is None or end.shape is None or not end.shape.is_static():
        raise b.refuse(f"it makes no trip, and the shape of {end.name} is not declared")
    return Known(np.zeros((0, *end.shape.numpy()), dtype=end.dtype.numpy()))


@lowers("Scan", since=8)
def scan_8(
    b: Builder, node: onnx_ir.Node, lengths: Operand | None, *operands: Operand
) -> tuple[Any, ...]:
    """One scan per entry of a leading batch axis, stacked along it."""
    if lengths is not None:
        raise b.refuse("sequence_lens is not supported")
    count = node.attributes.get_int("num_scan_inputs")
    body = node.attributes.get_graph("body")
    backwards = node.attributes.get_ints("directions", (0,) * count)
    results = []
    for k in range(operands[0].shape[0]):
        entry = [_drop(b, part(b, x, 0, k, 1), 0) for x in operands]
        results.append(_scan(b, body, entry, count, (0,) * count, backwards, (), ()))
    return tuple(stack(b, xs, 0) for xs in zip(*results, strict=True))


@lowers("Scan", since=9)
def scan(b: Builder, node: onnx_ir.Node, *operands: Operand) -> tuple[Any, ...]:
    """The body on slices of the scan inputs; state goes from trip to trip."""
    read, count = node.attributes.get_ints, node.attributes.get_int("num_scan_inputs")
    return _scan(
        b,
        node.attributes.get_graph("body"),
        operands,
        count,
        read("scan_input_axes", (0,) * count),
        read("scan_input_directions", (0,) * count),
        read("scan_output_axes", ()),
        read("scan_output_directions", ()),
    )


def _scan(
    b: Builder,
    body: onnx_ir.Graph,
    operands: Sequence[Operand],
    count: int,
    axes: Sequence[int],
    backwards: Sequence[int],
    out_axes: Sequence[int],
    out_backwards: Sequence[int],
) -> tuple[Any, ...]:
    split = len(operands) - count
    state, inputs = list(operands[:split]), operands[split:]
    axes = [b.axis(axis, len(x.shape)) for axis, x in zip(axes, inputs, strict=True)]
    trips = {x.shape[axis] for x, axis in zip(inputs, axes)}
    if len(trips) != 1:
        raise b.misshapen(f"scan inputs have different lengths {sorted(trips)}")
    (length,) = trips
    yielded: list[list[Any]] = [[] for _ in body.outputs[split:]]
    for trip in range(length):
        b.step(TRIP)
        slices = [
            _drop(b, part(b, x, axis, length - 1 - trip if back else trip, 1), axis)
            for x, axis, back in zip(inputs, axes, backwards, strict=True)
        ]
        results = b.inline(body, (*state, *slices))
        state = results[:split]
        for collected, result in zip(yielded, results[split:], strict=True):
            collected.append(result)
    ends = []
    for k, xs in enumerate(yielded):
        ordered = xs[::-1] if out_backwards and out_backwards[k] else xs
        ends.append(_stacked(b, ordered, out_axes[k] if out_axes else 0, body.outputs[split + k]))
    return (*state, *ends)


# --- sequences ---


def _position(b: Builder, position: Operand | None, default: int) -> int:
    return default if position is None else b.ints_of(position, "position")[0]


@lowers("SequenceConstruct", since=11, movement=True)
def sequence_construct(b: Builder, node: onnx_ir.Node, *xs: Operand) -> list[Any]:
    """The operands as a sequence."""
    return list(xs)


@lowers("SequenceEmpty", since=11, movement=True)
def sequence_empty(b: Builder, node: onnx_ir.Node) -> list[Any]:
    """A sequence of nothing."""
    return []


@lowers("SequenceInsert", since=11, movement=True)
def sequence_insert(
    b: Builder, node: onnx_ir.Node, xs: list[Any], x: Operand, position: Operand | None = None
) -> list[Any]:
    """x before the given position, at the end by default."""
    at = _position(b, position, len(xs))
    at = at + len(xs) if at < 0 else at
    if not 0 <= at <= len(xs):
        raise b.misshapen(f"position {at} is outside a sequence of {len(xs)}")
    return [*xs[:at], x, *xs[at:]]


@lowers("SequenceErase", since=11, movement=True)
def sequence_erase(
    b: Builder, node: onnx_ir.Node, xs: list[Any], position: Operand | None = None
) -> list[Any]:
    """The sequence without one entry, the last by default."""
    at = b.axis(_position(b, position, -1), len(xs))
    return [*xs[:at], *xs[at + 1 :]]


@lowers("SequenceAt", since=11, movement=True)
def sequence_at(b: Builder, node: onnx_ir.Node, xs: list[Any], position: Operand) -> Any:
    """One entry."""
    at = _position(b, position, 0)
    if not -len(xs) <= at < len(xs):
        raise b.misshapen(f"position {at} is outside a sequence of {len(xs)}")
    return xs[at]


@lowers("SequenceLength", since=11, movement=True)
def sequence_length(b: Builder, node: onnx_ir.Node, xs: list[Any]) -> Operand:
    """How many entries there are."""
    return Known(np.array(len(xs), dtype=np.int64))


@lowers("SplitToSequence", since=11, movement=True)
def split_to_sequence(
    b: Builder, node: onnx_ir.Node, x: Operand, split: Operand | None = None
) -> list[Any]:
    """x cut along an axis: into entries of size 1 (keepdims says whether the axis stays), of one
    size but for a smaller last, or of sizes given one by one."""
    axis = b.axis(node.attributes.get_int("axis", 0), len(x.shape))
    size = x.shape[axis]
    if split is None:
        pieces = parts(b, x, axis, (1,) * size)
        keeps = node.attributes.get_int("keepdims", 1)
        return list(pieces) if keeps else [_drop(b, piece, axis) for piece in pieces]
    sizes = b.ints_of(split, "split")
    if not split.shape:
        chunk = sizes[0]
        sizes = tuple(min(chunk, size - start) for start in range(0, size, chunk))
    return list(parts(b, x, axis, sizes))


@lowers("ConcatFromSequence", since=11, movement=True)
def concat_from_sequence(b: Builder, node: onnx_ir.Node, xs: list[Any]) -> Operand:
    """The entries one after another along an axis, with new_axis along a new one."""
    if not xs:
        raise b.misshapen("the sequence is empty")
    axis = node.attributes.get_int("axis")
    return stack(b, xs, axis) if node.attributes.get_int("new_axis", 0) else b.concat(xs, axis)


@lowers("SequenceMap", since=17)
def sequence_map(b: Builder, node: onnx_ir.Node, xs: list[Any], *others: Any) -> tuple[Any, ...]:
    """The body on each entry; further sequences go along, further tensors stay the same."""
    body = node.attributes.get_graph("body")
    results: list[list[Any]] = [[] for _ in body.outputs]
    for k, x in enumerate(xs):
        rest = (other[k] if isinstance(other, list) else other for other in others)
        for collected, result in zip(results, b.inline(body, (x, *rest)), strict=True):
            collected.append(result)
    return tuple(results)


# --- optional values: the operand itself, or None ---


@lowers("Optional", since=15, movement=True)
def optional(b: Builder, node: onnx_ir.Node, x: Any = None) -> Any:
    """An optional value that holds x, or nothing."""
    return x


@lowers("OptionalHasElement", since=15, movement=True)
def optional_has_element(b: Builder, node: onnx_ir.Node, x: Any = None) -> Operand:
    """Whether there is something."""
    return Known(np.array(x is not None))


@lowers("OptionalGetElement", since=15, movement=True)
def optional_get_element(b: Builder, node: onnx_ir.Node, x: Any = None) -> Any:
    """What the optional value holds."""
    if x is None:
        raise b.misshapen("the optional value is empty")
    return x
