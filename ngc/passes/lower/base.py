"""How ONNX becomes a neural program: the rule registry and the builder that rules write with.

A rule sees the node and its operands. An operand is a ``Value`` of the program (it depends on an
input of the network), a ``Known`` array (it does not), a list of operands (an ONNX sequence), or
None (an optional input left out). Nodes whose operands are all known are evaluated and need no
rule, except data movement, which rules do for values and known arrays alike so that the slots of
parameters move with their values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeGuard, TypeVar

import numpy as np
import onnx_ir

from ngc.budget import DEFAULT, Budget
from ngc.errors import ModelError, NgcError, ShapeError, UnsupportedOp
from ngc.ir import program as ir
from ngc.ir import views
from ngc.ir.check import DTYPES
from ngc.ir.program import Ints, Param, Program, Value
from ngc.ir.slots import FIRST_SLOT, ONE, ZERO, Array, Slots
from ngc.passes.lower.prune import prune


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor that depends on no input.

    ``slots`` says which scalar of which parameter each entry is (floating-point tensors only);
    ``learned`` is True for what may be a parameter: initializers, whatever is computed from them,
    and constants of more than one entry.
    """

    array: np.ndarray
    slots: Slots | None = None
    learned: bool = False
    sources: tuple[str, ...] = ()

    @property
    def shape(self) -> Ints:
        return tuple(self.array.shape)

    @property
    def dtype(self) -> str:
        return str(self.array.dtype)


Operand: TypeAlias = "Value | Known"
Result: TypeAlias = "Operand | list[Any] | Sequence[Operand | list[Any] | None] | None"
Rule: TypeAlias = Callable[..., Result]
R = TypeVar("R", bound=Callable[..., Any])


@dataclass(frozen=True)
class Registered:
    since: int
    rule: Rule
    movement: bool


RULES: dict[tuple[str, str], list[Registered]] = {}


def lowers(
    op_type: str, *, since: int = 1, domain: str = "", movement: bool = False
) -> Callable[[R], R]:
    """Register ``rule(b, node, *operands)`` for an operator from opset ``since`` on.

    ``movement``: the rule also takes known operands and must move their slots along (it does when
    it only uses the data movement of the builder).
    """

    def register(rule: R) -> R:
        versions = RULES.setdefault((domain, op_type), [])
        if any(entry.since == since for entry in versions):
            raise AssertionError(f"two rules for {op_type} since {since}")
        versions.append(Registered(since, rule, movement))
        versions.sort(key=lambda entry: entry.since)
        return rule

    return register


def find_rule(domain: str, op_type: str, opset: int) -> Registered | None:
    """The rule with the greatest ``since`` not above the opset."""
    fitting = [r for r in RULES.get((domain, op_type), []) if r.since <= opset]
    return fitting[-1] if fitting else None


WIDENED = {"float16": "float32", "bfloat16": "float32"}


def widen(array: np.ndarray) -> np.ndarray:
    """float16 and bfloat16 as float32 (exact); everything else as it is."""
    return array.astype(np.float32) if str(array.dtype) in WIDENED else array


def is_float(dtype: str) -> bool:
    return dtype in ("float32", "float64")


def is_initial_state(operand: Operand | None) -> bool:
    """Whether the operand is what a recurrent network starts from: rows of zeros."""
    if not isinstance(operand, Known) or operand.learned or not is_float(operand.dtype):
        return False
    return len(operand.shape) > 1 and operand.array.size > 0 and not operand.array.any()


def is_quantised(dtype: str) -> bool:
    """Whether tensors of this type hold numbers of a network rather than shapes and indices."""
    return dtype.startswith(("int8", "uint8", "int4", "uint4", "int2", "uint2", "float"))


class Builder:
    """Collects operations and parameters; its methods are what lowering rules are written in.

    Methods that move data take and return operands of either sort; the others return values.
    """

    def __init__(self, name: str, opsets: dict[str, int], budget: Budget = DEFAULT) -> None:
        self.name, self.opsets = name, opsets
        self.budget = budget
        self._num_computed = 0  # entries of all constants computed so far
        self.ops: list[ir.Op] = []
        self.arrays: dict[str, np.ndarray] = {}  # values of parameters, by name, as stored
        self.read: dict[str, np.ndarray] = {}  # known arrays whose values shaped the program
        self._params: list[Param] = []
        self._next_slot = FIRST_SLOT
        self._names: set[str] = set()
        self._tried: dict[str, int] = {}  # hint -> the number to try next
        self._steps = 0
        self._origin = ""
        self._hint = "v"
        self._op_type = "Input"
        # Tensors of quantisation codes, by name: the activation they stand for before rounding,
        # and what identifies their scale and zero point (lower/quantized.py).
        self.quantised: dict[str, tuple[Value, object, object]] = {}
        self.notes: list[str] = []  # what the user should know of this compilation
        # Set by the driver. Lowers the body of If, Loop or Scan: ``b.inline(graph, operands)``.
        self.inline: Callable[[onnx_ir.Graph, Sequence[Any]], list[Any]]
        # Runs a node on known operands: ``b.evaluate(node, operands)``, for movement rules that
        # meet what they cannot move.
        self.evaluate: Callable[[onnx_ir.Node, Sequence[Any]], list[Any]]

    # --- names and sources ---

    def at(self, origin: str, output: str) -> None:
        """Say which node is being lowered and what its first output is called."""
        self._origin, self._hint = origin, output or origin or "v"
        self.step()

    def step(self, count: int = 1) -> None:
        """Count steps of the lowering against the budget: one for a node, more for a trip."""
        self._steps += count
        self.budget.afford_nodes(self._steps, where=self._origin)

    def fresh(self) -> str:
        name, k = self._hint, self._tried.get(self._hint, 1)
        while name in self._names:
            name, k = f"{self._hint}.{k}", k + 1
        self._names.add(name)
        self._tried[self._hint] = k  # long loops make many names of one
        return name

    def parameter(
        self, name: str, array: np.ndarray, derived: tuple[str, ...] | None = None
    ) -> Known:
        """A floating-point tensor that can become a parameter. ``derived``: None for an
        initializer, else the initializers it was computed from. Unused ones are dropped later."""
        unique, k = name, 1
        while unique in self.arrays:
            unique, k = f"{name}.{k}", k + 1
        self.arrays[unique] = array
        param = Param(unique, tuple(array.shape), str(array.dtype), self._next_slot, derived or ())
        self._params.append(param)
        self._next_slot += param.size
        slots = Slots.contiguous(param.shape, param.offset)
        return Known(widen(array), slots, True, derived if derived is not None else (unique,))

    def known(self, array: np.ndarray | Sequence[int] | float) -> Known:
        """A constant of the rule's own: never a parameter."""
        return Known(np.asarray(array))

    def values_of(self, operand: Operand | None, what: str) -> np.ndarray:
        """The numbers of an operand that must be constant (shapes, axes, bounds)."""
        if not isinstance(operand, Known):
            raise self.refuse(f"{what} depends on the input; only a constant compiles")
        self.read[f"{self._origin}:{what}"] = operand.array
        return operand.array

    def ints_of(self, operand: Operand | None, what: str) -> Ints:
        return tuple(int(v) for v in self.values_of(operand, what).reshape(-1))

    def refuse(self, message: str, hint: str = "") -> UnsupportedOp:
        """The error to raise when a use of an operator cannot be compiled."""
        return UnsupportedOp(self._op_type, message, where=self._origin, hint=hint)

    def misshapen(self, message: str) -> ShapeError:
        """The error to raise when shapes or attributes contradict each other."""
        return ShapeError(message, where=self._origin)

    def afford(self, shape: Sequence[int]) -> None:
        """Refuse a tensor too large to hold, before anything is allocated for it."""
        self.budget.afford(shape, where=self._origin)

    def allocate(self, shape: Sequence[int]) -> None:
        """``afford`` for an array that will be kept: all of them together are bounded too."""
        self._num_computed += self.budget.afford(shape, where=self._origin)
        self.budget.afford_total(self._num_computed, where=self._origin, what="computed constants")

    def emit(self, cls: type[ir.Op], shape: Sequence[int], dtype: str, **fields: Any) -> Value:
        """Append one operation and return its value."""
        self.afford(shape)
        if dtype not in DTYPES:
            raise self.refuse(f"a tensor of type {dtype} cannot be part of a program")
        value = Value(self.fresh(), tuple(int(n) for n in shape), dtype)
        self.ops.append(cls(out=value, origin=self._origin, **fields))
        return value

    def note(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self.notes:
            self.notes.append(text)

    # --- operands ---

    def slots(self, known: Known) -> Slots:
        """Slots of a known tensor, making it a parameter of its own where it has none yet."""
        if known.slots is not None:
            return known.slots
        array = known.array
        if not known.learned and bool(np.all((array == 0) | (array == 1))):
            return Slots.of(np.where(array == 1, ONE, ZERO))
        named = self.parameter(f"{self._hint}.constant", array, derived=known.sources)
        assert named.slots is not None
        return named.slots

    def is_parameter(self, operand: Operand | None) -> TypeGuard[Known]:
        """Whether a known operand of an elementwise operator is learned, not a plain number."""
        return isinstance(operand, Known) and operand.learned and is_float(operand.dtype)

    def value(self, operand: Operand) -> Value:
        """The operand as a value: a known tensor becomes a Parameter or a Constant."""
        if isinstance(operand, Value):
            return operand
        if self.is_parameter(operand):
            return self.emit(ir.Parameter, operand.shape, operand.dtype, data=self.slots(operand))
        self.read[f"{self._origin}:constant {len(self.read)}"] = operand.array
        return self.emit(ir.Constant, operand.shape, operand.dtype, data=Array.of(operand.array))

    # --- data movement, for values and known tensors alike ---

    def reshape(self, x: Operand, shape: Sequence[int]) -> Operand:
        """``shape`` may hold one -1."""
        shape = self._completed(x.shape, tuple(int(n) for n in shape))
        if shape == x.shape:
            return x
        if isinstance(x, Known):
            if not x.array.flags.c_contiguous:
                self.allocate(shape)
            slots = x.slots.reshape(shape) if x.slots else None
            return replace(x, array=x.array.reshape(shape), slots=slots)
        return self.emit(ir.Reshape, shape, x.dtype, x=x.name)

    def _completed(self, old: Ints, new: Ints) -> Ints:
        if new.count(-1) == 1:
            rest = -math.prod(new)
            if rest == 0 or math.prod(old) % rest:
                raise self.misshapen(f"cannot reshape {list(old)} to {list(new)}")
            new = tuple(math.prod(old) // rest if n == -1 else n for n in new)
        if math.prod(old) != math.prod(new) or any(n < 0 for n in new):
            raise self.misshapen(f"cannot reshape {list(old)} to {list(new)}")
        return new

    def transpose(self, x: Operand, perm: Sequence[int]) -> Operand:
        perm = tuple(int(p) for p in perm)
        if sorted(perm) != list(range(len(x.shape))):
            raise self.misshapen(f"perm {list(perm)} does not fit shape {list(x.shape)}")
        if perm == tuple(range(len(perm))):
            return x
        if isinstance(x, Known):
            slots = x.slots.transpose(perm) if x.slots else None
            return replace(x, array=x.array.transpose(perm), slots=slots)
        return self.emit(ir.Transpose, [x.shape[p] for p in perm], x.dtype, x=x.name, perm=perm)

    def slice(
        self, x: Operand, starts: Sequence[int], steps: Sequence[int], sizes: Sequence[int]
    ) -> Operand:
        """``x[starts + steps * i]`` for i < sizes; one entry per axis, nothing out of range."""
        starts, steps, sizes = (tuple(int(v) for v in t) for t in (starts, steps, sizes))
        if sizes == x.shape and all(d == 1 for d in steps):
            return x
        if isinstance(x, Known):
            slots = x.slots.slice(starts, steps, sizes) if x.slots else None
            return replace(x, array=x.array[views.slices(starts, steps, sizes)], slots=slots)
        return self.emit(ir.Slice, sizes, x.dtype, x=x.name, starts=starts, steps=steps)

    def expand(self, x: Operand, shape: Sequence[int]) -> Operand:
        """Broadcast to exactly ``shape``."""
        shape = tuple(int(n) for n in shape)
        if shape == x.shape:
            return x
        try:
            fits = np.broadcast_shapes(x.shape, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            raise self.misshapen(f"cannot expand {list(x.shape)} to {list(shape)}")
        self.afford(shape)
        if isinstance(x, Known):
            slots = x.slots.expand(shape) if x.slots else None
            return replace(x, array=np.broadcast_to(x.array, shape), slots=slots)
        return self.emit(ir.Expand, shape, x.dtype, x=x.name)

    def take(self, x: Operand, axis: int, index: Sequence[int] | np.ndarray) -> Operand:
        """Entries ``index`` (1-d; negative counts from the end) along one axis."""
        size = x.shape[axis]
        picked = np.asarray(index, dtype=np.int64)
        if picked.size and (picked.min() < -size or picked.max() >= size):
            raise self.misshapen(f"index out of range for axis {axis} of {list(x.shape)}")
        picked = np.where(picked < 0, picked + size, picked)
        if np.array_equal(picked, np.arange(size)):
            return x
        shape = (*x.shape[:axis], len(picked), *x.shape[axis + 1 :])
        if isinstance(x, Known):
            self.allocate(shape)
            slots = Slots.of(np.take(x.slots.numpy(), picked, axis=axis)) if x.slots else None
            return replace(x, array=np.take(x.array, picked, axis=axis), slots=slots)
        return self.emit(ir.Take, shape, x.dtype, x=x.name, axis=axis, index=Array.of(picked))

    def select(self, x: Operand, index: np.ndarray) -> Operand:
        """``out.flat[i] = x.flat[index.flat[i]]`` in the shape of ``index``."""
        index = np.asarray(index, dtype=np.int64)
        if index.size and (index.min() < 0 or index.max() >= math.prod(x.shape)):
            raise self.misshapen(f"index out of range for a tensor of shape {list(x.shape)}")
        if isinstance(x, Known):
            self.allocate(index.shape)
            slots = Slots.of(x.slots.numpy().reshape(-1)[index]) if x.slots else None
            return replace(x, array=x.array.reshape(-1)[index], slots=slots)
        return self.emit(ir.Select, index.shape, x.dtype, x=x.name, index=Array.of(index))

    def concat(self, xs: Sequence[Operand], axis: int) -> Operand:
        axis = self.axis(axis, len(xs[0].shape))
        for x in xs[1:]:
            a, b = list(xs[0].shape), list(x.shape)
            if a[:axis] + a[axis + 1 :] != b[:axis] + b[axis + 1 :] or len(a) != len(b):
                raise self.misshapen(f"cannot concatenate {a} and {b} along axis {axis}")
        if len(xs) == 1:
            return xs[0]
        if all(isinstance(x, Known) for x in xs):
            known = [x for x in xs if isinstance(x, Known)]
            self.allocate([sum(x.array.size for x in known)])
            array = np.concatenate([x.array for x in known], axis=axis)
            if not (is_float(str(array.dtype)) and any(x.learned for x in known)):
                return Known(array)
            slots = Slots.of(np.concatenate([self.slots(x).numpy() for x in known], axis=axis))
            sources = tuple(dict.fromkeys(s for x in known for s in x.sources))
            return Known(array, slots, True, sources)
        shape = list(xs[0].shape)
        shape[axis] = sum(x.shape[axis] for x in xs)
        names = tuple(self.value(x).name for x in xs if x.shape[axis])
        return self.emit(ir.Concat, shape, xs[0].dtype, xs=names, axis=axis)

    def pad(self, x: Operand, pads: Sequence[int], value: float = 0.0) -> Operand:
        """Constant padding: begins then ends, one per axis; negative entries crop."""
        rank = len(x.shape)
        if any(p < 0 for p in pads):
            starts = [max(0, -p) for p in pads[:rank]]
            sizes = [n - s - max(0, -p) for n, s, p in zip(x.shape, starts, pads[rank:])]
            if any(n < 0 for n in sizes):
                raise self.misshapen(f"pads {list(pads)} crop more than all of {list(x.shape)}")
            x = self.slice(x, starts, [1] * rank, sizes)
            pads = [max(0, p) for p in pads]
        pads = tuple(int(p) for p in pads)
        if not any(pads):
            return x
        shape = [n + b + e for n, b, e in zip(x.shape, pads[:rank], pads[rank:])]
        self.afford(shape)
        if isinstance(x, Known):
            self.allocate(shape)
            array = np.pad(x.array, list(zip(pads[:rank], pads[rank:])), constant_values=value)
            if x.slots is None or value not in (0.0, 1.0):
                return Known(array, None, x.learned, x.sources)
            widths = list(zip(pads[:rank], pads[rank:]))
            # Slots 0 and 1 are the constants 0 and 1.
            moved = np.pad(x.slots.numpy(), widths, constant_values=int(value))
            return Known(array, Slots.of(moved), x.learned, x.sources)
        return self.emit(ir.Pad, shape, x.dtype, x=x.name, pads=pads, value=float(value))

    def cast(self, x: Operand, dtype: str) -> Operand:
        dtype = WIDENED.get(dtype, dtype)
        if x.dtype == dtype:
            return x
        if isinstance(x, Known):
            array = x.array.astype(dtype)
            keeps = is_float(dtype) and is_float(x.dtype)
            slots = x.slots if keeps else None
            return Known(array, slots, x.learned and is_float(dtype), x.sources)
        return self.emit(ir.Cast, x.shape, dtype, x=x.name)

    # --- elementwise, the forms that every family of rules needs ---

    def axis(self, axis: int, rank: int) -> int:
        """A non-negative axis."""
        if not -rank <= axis < max(rank, 1):
            raise self.misshapen(f"axis {axis} does not exist in a tensor of rank {rank}")
        return axis % rank if rank else 0

    def broadcast(self, *operands: Operand) -> Ints:
        try:
            return tuple(np.broadcast_shapes(*(x.shape for x in operands)))
        except ValueError:
            shapes = ", ".join(str(list(x.shape)) for x in operands)
            raise self.misshapen(f"shapes {shapes} do not broadcast") from None

    def activation(self, x: Operand, fn: str, *a: float, dtype: str = "") -> Value:
        x = self.value(x)
        return self.emit(
            ir.Activation, x.shape, dtype or x.dtype, x=x.name, fn=fn, a=tuple(float(v) for v in a)
        )

    def combine(self, fn: str, *operands: Operand, dtype: str = "") -> Value:
        """Elementwise function of operands taken as values (see also ``lower/elementwise.py``,
        which turns operands that are parameters into Scale and Shift)."""
        shape = self.broadcast(*operands)
        names = tuple(self.value(x).name for x in operands)
        return self.emit(ir.Combine, shape, dtype or operands[-1].dtype, xs=names, fn=fn)

    def shift(self, x: Operand, term: Known, fn: str = "add") -> Value:
        """x plus a parameter."""
        shape = self.broadcast(x, term)
        x = self.value(x)
        return self.emit(ir.Shift, shape, x.dtype, x=x.name, term=self.slots(term), fn=fn)

    def scale(self, x: Operand, factor: Known, fn: str = "mul") -> Value:
        """x times a parameter."""
        shape = self.broadcast(x, factor)
        x = self.value(x)
        return self.emit(ir.Scale, shape, x.dtype, x=x.name, factor=self.slots(factor), fn=fn)

    # --- the end ---

    def finish(self, outputs: Sequence[tuple[str, Operand]]) -> Program:
        """The program, with only the operations and parameters that reach an output."""
        pairs = tuple((name, self.value(x).name) for name, x in outputs)
        return prune(Program(self.name, tuple(self._params), tuple(self.ops), pairs))


def unknown_operator(node: onnx_ir.Node, opset: int, where: str) -> UnsupportedOp:
    """The refusal of a node that no rule fits."""
    name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return UnsupportedOp(
        node.op_type,
        f"{name} (opset {opset}) is not supported",
        where=where,
        hint="`ngc operators` lists what compiles; docs/adding-an-operator.md says how to add one",
    )


def lower_node(b: Builder, node: onnx_ir.Node, operands: list[Any]) -> list[Any]:
    """Results of one node, one per output; raises UnsupportedOp with the node's name."""
    opset = b.opsets.get(node.domain, 1)
    entry = find_rule(node.domain, node.op_type, opset)
    if entry is None:
        raise unknown_operator(node, opset, b._origin)
    result = entry.rule(b, node, *operands)
    if isinstance(result, tuple):
        return list(result)
    return [result]


__all__ = [
    "Builder", "Known", "ModelError", "NgcError", "Operand", "Result", "find_rule", "lower_node",
    "lowers", "prune", "unknown_operator",
]  # fmt: skip
