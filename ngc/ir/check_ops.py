"""What each operation asks of its inputs, attributes and result: one small rule per operation.

A rule takes the operation and the values it reads, and yields a complaint for each thing wrong.
Rules may raise ValueError or IndexError where attributes contradict each other; ``ir/check.py``
turns that into a complaint too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np

from ngc.ir import program as ir
from ngc.ir.program import Ints, Value
from ngc.ir.slots import Slots

Complaint: TypeAlias = str
Rule: TypeAlias = Callable[..., Iterable[Complaint]]
RULES: dict[type[ir.Op], Rule] = {}
R = TypeVar("R", bound=Rule)

# Functions of an activation, with the least and the greatest count of numbers.
ACTIVATIONS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("relu", "sigmoid", "tanh", "softplus", "softsign", "erf"), (0, 0)),
    **dict.fromkeys(("gelu", "gelu_tanh", "silu", "mish", "hard_swish"), (0, 0)),
    **dict.fromkeys(("leaky_relu", "elu", "celu", "thresholded_relu", "swish"), (0, 1)),
    **dict.fromkeys(("selu", "hard_sigmoid", "shrink", "is_inf"), (0, 2)),
    **dict.fromkeys(("clip", "affine"), (2, 2)),
    **dict.fromkeys(("power", "base"), (1, 1)),
    **dict.fromkeys(("floor", "ceil", "round", "sign", "abs", "neg", "reciprocal"), (0, 0)),
    **dict.fromkeys(("sqrt", "exp", "log", "is_nan", "not", "bitwise_not"), (0, 0)),
    **dict.fromkeys(("sin", "cos", "tan", "asin", "acos", "atan"), (0, 0)),
    **dict.fromkeys(("sinh", "cosh", "asinh", "acosh", "atanh"), (0, 0)),
}
LOGICAL = frozenset(("not", "is_nan", "is_inf"))
COMPARISONS = frozenset(("equal", "less", "less_equal", "greater", "greater_equal"))
COMBINATIONS: dict[str, tuple[int, float]] = {
    **dict.fromkeys(("add", "mul", "max", "min", "mean"), (1, math.inf)),
    **dict.fromkeys(("sub", "div", "pow", "mod", "fmod", "and", "or", "xor"), (2, 2)),
    **dict.fromkeys(
        ("bitwise_and", "bitwise_or", "bitwise_xor", "shift_left", "shift_right"), (2, 2)
    ),
    **dict.fromkeys(COMPARISONS, (2, 2)),
    "where": (3, 3),
}
ARGUMENTS = frozenset(("argmax", "argmin", "argmax_last", "argmin_last"))
FUNCTIONS: dict[type[ir.Op], frozenset[str]] = {
    ir.Scale: frozenset(("mul", "div", "rdiv")),
    ir.Shift: frozenset(("add", "sub", "rsub")),
    ir.Normalise: frozenset(("standard", "rms", "l1", "l2", "lrn")),
    ir.Activation: frozenset(ACTIVATIONS),
    ir.Combine: frozenset(COMBINATIONS),
    ir.Pool: frozenset(("max", "mean", "lp")),
    ir.Reduce: ARGUMENTS.union(
        ("sum", "mean", "max", "min", "prod", "l1", "l2"), ("sum_square", "log_sum", "log_sum_exp")
    ),
    ir.Cumulate: frozenset(("sum", "prod")),
    ir.Softmax: frozenset(("softmax", "log_softmax", "hardmax")),
    ir.Gather: frozenset(("axis", "elements", "nd")),
    ir.Scatter: frozenset(("write", "add", "mul", "max", "min")),
}


def rule(*classes: type[ir.Op]) -> Callable[[R], R]:
    def register(function: R) -> R:
        for cls in classes:
            assert cls not in RULES, cls
            RULES[cls] = function
        return function

    return register


# --- what many rules ask ---------------------------------------------------------------------


def shape_is(op: ir.Op, expected: Sequence[int]) -> Iterator[Complaint]:
    if op.out.shape != tuple(expected):
        yield f"shape {list(op.out.shape)}, expected {[int(n) for n in expected]}"


def dtype_is(op: ir.Op, *expected: str) -> Iterator[Complaint]:
    if op.out.dtype not in expected:
        yield f"dtype {op.out.dtype}, expected {' or '.join(expected)}"


def like(op: ir.Op, x: Value) -> Iterator[Complaint]:
    yield from shape_is(op, x.shape)
    yield from dtype_is(op, x.dtype)


def is_float(op: ir.Op) -> Iterator[Complaint]:
    yield from dtype_is(op, "float32", "float64")


def axes_exist(axes: Sequence[int], rank: int) -> Iterator[Complaint]:
    if any(not 0 <= axis < rank for axis in axes) or len(set(axes)) != len(axes):
        yield f"axes {list(axes)} of a value of rank {rank}"


def function_is_known(op: Any) -> Iterator[Complaint]:
    if op.fn not in FUNCTIONS[type(op)]:
        yield f"no function {op.fn!r}"


def lengths_are(rank: int, **lists: Sequence[int]) -> Iterator[Complaint]:
    for name, values in lists.items():
        expected = 2 * rank if name == "pads" else rank
        if len(values) != expected:
            yield f"{len(values)} {name}, expected {expected}"
        elif name != "pads" and any(v < 1 for v in values):
            yield f"{name} {list(values)} are not all positive"


def broadcasts(slots: Slots, op: ir.Op, what: str) -> Iterator[Complaint]:
    if np.broadcast_shapes(slots.shape, op.out.shape) != op.out.shape:
        yield f"{what} {list(slots.shape)} does not broadcast to {list(op.out.shape)}"


# --- sources ---------------------------------------------------------------------------------


@rule(ir.Input)
def input_rule(op: ir.Input) -> Iterator[Complaint]:
    return iter(())


@rule(ir.Parameter)
def parameter(op: ir.Parameter) -> Iterator[Complaint]:
    yield from shape_is(op, op.data.shape)
    yield from is_float(op)


@rule(ir.Constant)
def constant(op: ir.Constant) -> Iterator[Complaint]:
    yield from shape_is(op, op.data.shape)
    yield from dtype_is(op, op.data.dtype)


# --- weighted operations ---------------------------------------------------------------------


def einsum_is(op: ir.Op, spec: str, a: Ints, b: Ints) -> Iterator[Complaint]:
    left, right, out = spec.replace("->", ",").split(",")
    sizes: dict[str, int] = {}
    for letters, shape in ((left, a), (right, b)):
        if len(letters) != len(shape) or len(set(letters)) != len(letters):
            yield f"{letters!r} in {spec!r} for shape {list(shape)}"
            return
        for letter, size in zip(letters, shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                yield f"{letter!r} in {spec!r} has sizes {sizes[letter]} and {size}"
    alone = set(left) ^ set(right)
    if len(set(out)) != len(out) or not set(out) <= set(sizes) or not alone <= set(out):
        yield f"the result of {spec!r} repeats a letter, invents one, or sums one operand alone"
        return
    yield from shape_is(op, [sizes[letter] for letter in out])


@rule(ir.Linear)
def linear(op: ir.Linear, x: Value) -> Iterator[Complaint]:
    yield from einsum_is(op, op.spec, x.shape, op.weight.shape)
    yield from dtype_is(op, x.dtype)


@rule(ir.Contract)
def contract(op: ir.Contract, a: Value, b: Value) -> Iterator[Complaint]:
    yield from einsum_is(op, op.spec, a.shape, b.shape)
    if a.dtype != b.dtype:
        yield f"dtypes {a.dtype} and {b.dtype}"
    yield from dtype_is(op, a.dtype)


def convolution_attributes(op: Any, x: Value) -> Iterator[Complaint]:
    rank = len(x.shape) - 2
    kernel = op.weight.shape[2:]
    if op.weight.ndim != len(x.shape):
        yield f"weight {list(op.weight.shape)} for x {list(x.shape)}"
    yield from lengths_are(
        rank, pads=op.pads, strides=op.strides, dilations=op.dilations, kernel=kernel
    )
    yield from dtype_is(op, x.dtype)
    if op.groups < 1 or x.shape[1] % op.groups:
        yield f"{op.groups} groups of {x.shape[1]} channels"


@rule(ir.Convolution)
def convolution(op: ir.Convolution, x: Value) -> Iterator[Complaint]:
    complaints = list(convolution_attributes(op, x))
    yield from complaints
    if complaints:
        return
    num_out, num_in, *kernel = op.weight.shape
    if num_in * op.groups != x.shape[1] or num_out % op.groups:
        yield f"weight {list(op.weight.shape)}, {op.groups} groups, {x.shape[1]} channels"
    rank = len(kernel)
    space = [
        (n + op.pads[k] + op.pads[rank + k] - op.dilations[k] * (kernel[k] - 1) - 1)
        // op.strides[k]
        + 1
        for k, n in enumerate(x.shape[2:])
    ]
    yield from shape_is(op, (x.shape[0], num_out, *space))


@rule(ir.ConvolutionTranspose)
def convolution_transpose(op: ir.ConvolutionTranspose, x: Value) -> Iterator[Complaint]:
    complaints = list(convolution_attributes(op, x))
    yield from complaints
    if complaints:
        return
    num_in, num_out, *kernel = op.weight.shape
    if num_in != x.shape[1]:
        yield f"weight {list(op.weight.shape)}, {x.shape[1]} channels"
    rank = len(kernel)
    space = [
        (n - 1) * op.strides[k]
        + op.dilations[k] * (kernel[k] - 1)
        + 1
        - op.pads[k]
        - op.pads[rank + k]
        for k, n in enumerate(x.shape[2:])
    ]
    yield from shape_is(op, (x.shape[0], num_out * op.groups, *space))


@rule(ir.Embedding)
def embedding(op: ir.Embedding, ids: Value) -> Iterator[Complaint]:
    if not ids.dtype.startswith(("int", "uint")):
        yield f"ids are {ids.dtype}"
    yield from shape_is(op, (*ids.shape, *op.weight.shape[1:]))
    yield from is_float(op)


@rule(ir.Scale)
def scale(op: ir.Scale, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from shape_is(op, np.broadcast_shapes(x.shape, op.factor.shape))
    yield from dtype_is(op, x.dtype)


@rule(ir.Shift)
def shift(op: ir.Shift, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from shape_is(op, np.broadcast_shapes(x.shape, op.term.shape))
    yield from dtype_is(op, x.dtype)


@rule(ir.BatchNorm)
def batch_norm(op: ir.BatchNorm, x: Value) -> Iterator[Complaint]:
    yield from like(op, x)
    for role, slots in op.operands.items():
        if slots.shape != (x.shape[1],):
            yield f"{role} {list(slots.shape)}, expected [{x.shape[1]}]"


# --- operations without weights --------------------------------------------------------------


@rule(ir.Normalise)
def normalise(op: ir.Normalise, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from like(op, x)
    yield from axes_exist(op.axes, len(x.shape))
    if len(op.a) != (4 if op.fn == "lrn" else 0):
        yield f"{len(op.a)} numbers for {op.fn}"


@rule(ir.Activation)
def activation(op: ir.Activation, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    least, most = ACTIVATIONS.get(op.fn, (0, math.inf))
    if not least <= len(op.a) <= most:
        yield f"{len(op.a)} numbers for {op.fn}"
    yield from shape_is(op, x.shape)
    yield from dtype_is(op, "bool" if op.fn in LOGICAL else x.dtype)


@rule(ir.PRelu)
def prelu(op: ir.PRelu, x: Value) -> Iterator[Complaint]:
    yield from like(op, x)
    yield from broadcasts(op.slope, op, "slope")


@rule(ir.Cast)
def cast(op: ir.Cast, x: Value) -> Iterator[Complaint]:
    yield from shape_is(op, x.shape)


@rule(ir.Combine)
def combine(op: ir.Combine, *xs: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    least, most = COMBINATIONS.get(op.fn, (0, math.inf))
    if not least <= len(xs) <= most:
        yield f"{len(xs)} operands for {op.fn}"
        return
    yield from shape_is(op, np.broadcast_shapes(*(x.shape for x in xs)))
    if op.fn == "where" and xs[0].dtype != "bool":
        yield f"the condition is {xs[0].dtype}"
    alike = {"where": xs[1:], "pow": xs[:1]}.get(op.fn, xs)
    dtypes = {x.dtype for x in alike}
    if len(dtypes) > 1:
        yield f"dtypes {', '.join(sorted(dtypes))}"
    yield from dtype_is(op, *(("bool",) if op.fn in COMPARISONS else sorted(dtypes)))


@rule(ir.Pool)
def pool(op: ir.Pool, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    rank = len(x.shape) - 2
    complaints = list(
        lengths_are(
            rank, pads=op.pads, kernel=op.kernel, strides=op.strides, dilations=op.dilations
        )
    )
    yield from complaints
    if complaints:
        return
    yield from dtype_is(op, x.dtype)
    yield from shape_is(op, (*x.shape[:2], *op.out.shape[2:]))
    for k, count in enumerate(op.out.shape[2:]):
        padded = x.shape[2 + k] + op.pads[k] + op.pads[rank + k]
        fit = (padded - op.dilations[k] * (op.kernel[k] - 1) - 1) // op.strides[k] + 1
        if count < fit or (count > max(fit, 0) and (count - 1) * op.strides[k] >= padded):
            yield f"{count} windows along space axis {k} of padded size {padded}"


@rule(ir.Reduce)
def reduce(op: ir.Reduce, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from axes_exist(op.axes, len(x.shape))
    if op.keepdims:
        yield from shape_is(op, [1 if k in op.axes else n for k, n in enumerate(x.shape)])
    else:
        yield from shape_is(op, [n for k, n in enumerate(x.shape) if k not in op.axes])
    if op.fn in ARGUMENTS:
        yield from dtype_is(op, "int64")
        if len(op.axes) != 1:
            yield f"{op.fn} over {len(op.axes)} axes"
    else:
        yield from dtype_is(op, x.dtype)


@rule(ir.Cumulate)
def cumulate(op: ir.Cumulate, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from like(op, x)
    yield from axes_exist((op.axis,), len(x.shape))


@rule(ir.Softmax)
def softmax(op: ir.Softmax, x: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from like(op, x)
    yield from axes_exist((op.axis,), len(x.shape))


@rule(ir.TopK)
def top_k(op: ir.TopK, x: Value) -> Iterator[Complaint]:
    yield from axes_exist((op.axis,), len(x.shape))
    if op.result not in ("values", "indices"):
        yield f"no result {op.result!r}"
    yield from dtype_is(op, "int64" if op.result == "indices" else x.dtype)
    shape = [*x.shape]
    shape[op.axis] = min(op.out.shape[op.axis], x.shape[op.axis])
    yield from shape_is(op, shape)


@rule(ir.Resize)
def resize(op: ir.Resize, x: Value) -> Iterator[Complaint]:
    yield from axes_exist(op.axes, len(x.shape))
    shape = [*x.shape]
    for axis, matrix in zip(op.axes, op.matrices, strict=True):
        if len(matrix.shape) != 2 or matrix.shape[1] != shape[axis]:
            yield f"matrix {list(matrix.shape)} for axis {axis} of size {shape[axis]}"
            return
        shape[axis] = matrix.shape[0]
    yield from shape_is(op, shape)
    yield from dtype_is(op, x.dtype)


@rule(ir.Gather)
def gather(op: ir.Gather, x: Value, ids: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from dtype_is(op, x.dtype)
    if not ids.dtype.startswith(("int", "uint")):
        yield f"ids are {ids.dtype}"
    match op.fn:
        case "axis":
            yield from axes_exist((op.axis,), len(x.shape))
            yield from shape_is(op, (*x.shape[: op.axis], *ids.shape, *x.shape[op.axis + 1 :]))
        case "elements":
            yield from axes_exist((op.axis,), len(x.shape))
            yield from shape_is(op, ids.shape)
        case "nd":
            yield from shape_is(op, (*ids.shape[:-1], *x.shape[op.axis + ids.shape[-1] :]))


@rule(ir.Scatter)
def scatter(op: ir.Scatter, x: Value, ids: Value, updates: Value) -> Iterator[Complaint]:
    yield from function_is_known(op)
    yield from like(op, x)
    yield from axes_exist((op.axis,), len(x.shape))
    if not ids.dtype.startswith(("int", "uint")):
        yield f"ids are {ids.dtype}"
    if updates.dtype != x.dtype:
        yield f"updates are {updates.dtype}, not {x.dtype}"
    along = [ids.shape[op.axis] if a == op.axis else n for a, n in enumerate(x.shape)]
    if list(ids.shape) != along or updates.shape != ids.shape:
        yield f"ids {list(ids.shape)} and updates {list(updates.shape)}, not {along}"


# --- data movement ---------------------------------------------------------------------------


@rule(ir.Reshape)
def reshape(op: ir.Reshape, x: Value) -> Iterator[Complaint]:
    yield from dtype_is(op, x.dtype)
    if math.prod(x.shape) != math.prod(op.out.shape):
        yield f"shape {list(op.out.shape)} from {list(x.shape)}"


@rule(ir.Transpose)
def transpose(op: ir.Transpose, x: Value) -> Iterator[Complaint]:
    yield from dtype_is(op, x.dtype)
    if sorted(op.perm) != list(range(len(x.shape))):
        yield f"perm {list(op.perm)} of a value of rank {len(x.shape)}"
    else:
        yield from shape_is(op, [x.shape[p] for p in op.perm])


@rule(ir.Slice)
def slice_rule(op: ir.Slice, x: Value) -> Iterator[Complaint]:
    yield from dtype_is(op, x.dtype)
    for n, start, step, size in zip(x.shape, op.starts, op.steps, op.out.shape, strict=True):
        last = start + step * (size - 1)
        if size and not (step and 0 <= start < n and 0 <= last < n):
            yield f"entries {start} to {last} by {step} of an axis of size {n}"


@rule(ir.Expand)
def expand(op: ir.Expand, x: Value) -> Iterator[Complaint]:
    yield from dtype_is(op, x.dtype)
    if np.broadcast_shapes(x.shape, op.out.shape) != op.out.shape:
        yield f"{list(x.shape)} does not broadcast to {list(op.out.shape)}"


def index_is(index: Any, size: int) -> Iterator[Complaint]:
    if index.dtype != "int64":
        yield f"index is {index.dtype}"
    entries = index.numpy()
    if entries.size and (entries.min() < 0 or entries.max() >= size):
        yield f"index {entries.min()} to {entries.max()} of {size} entries"


@rule(ir.Take)
def take(op: ir.Take, x: Value) -> Iterator[Complaint]:
    yield from dtype_is(op, x.dtype)
    yield from axes_exist((op.axis,), len(x.shape))
    yield from shape_is(op, (*x.shape[: op.axis], *op.index.shape, *x.shape[op.axis + 1 :]))
    yield from index_is(op.index, x.shape[op.axis])


@rule(ir.Select)
def select(op: ir.Select, x: Value) -> Iterator[Complaint]:
    yield from dtype_is(op, x.dtype)
    if math.prod(op.index.shape) != math.prod(op.out.shape):
        yield f"index {list(op.index.shape)} for shape {list(op.out.shape)}"
    yield from index_is(op.index, math.prod(x.shape))


@rule(ir.Concat)
def concat(op: ir.Concat, *xs: Value) -> Iterator[Complaint]:
    yield from axes_exist((op.axis,), len(op.out.shape))
    if not xs:
        yield "nothing to concatenate"
        return
    for x in xs:
        yield from dtype_is(op, x.dtype)
        if x.shape[: op.axis] + x.shape[op.axis + 1 :] != (
            op.out.shape[: op.axis] + op.out.shape[op.axis + 1 :]
        ):
            yield f"{list(x.shape)} along axis {op.axis} of {list(op.out.shape)}"
    total = sum(x.shape[op.axis] for x in xs)
    if total != op.out.shape[op.axis]:
        yield f"{total} entries along axis {op.axis} of {list(op.out.shape)}"


@rule(ir.Pad)
def pad(op: ir.Pad, x: Value) -> Iterator[Complaint]:
    yield from dtype_is(op, x.dtype)
    rank = len(x.shape)
    if len(op.pads) != 2 * rank or any(p < 0 for p in op.pads):
        yield f"pads {list(op.pads)} of a value of rank {rank}"
    else:
        yield from shape_is(op, [n + op.pads[k] + op.pads[rank + k] for k, n in enumerate(x.shape)])
