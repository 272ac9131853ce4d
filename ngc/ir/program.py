"""The neural program: a network as straight-line code in a small closed vocabulary.

A program is read three ways: as a graph (``passes/graph/wire.py``), as a function
(``backends/torch_exec.py``) and as a symmetry group (``symmetry.py``). Each operation is one frozen
dataclass whose fields are everything there is to know about it; the glossary is docs/program.md.

Field types carry meaning, and the tools that walk a program go by them:

- ``Ref`` / ``Refs``: the name(s) of values computed earlier;
- ``Slots``: a parameter operand;
- ``Array``: a constant array;
- anything else: an attribute.

Every operation has one result, ``out``. Layout is channels-first: ``[batch, channel, *space]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from functools import cache
from typing import Any, ClassVar, TypeAlias

from ngc.ir.slots import FIRST_SLOT, Array, Slots

Ref: TypeAlias = str
Refs: TypeAlias = tuple[str, ...]
Ints: TypeAlias = tuple[int, ...]
Floats: TypeAlias = tuple[float, ...]

VOCABULARY: dict[str, type[Op]] = {}


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor: its name, its shape (all sizes known) and its numpy dtype name."""

    name: str
    shape: Ints
    dtype: str = "float32"


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the source model. ``dtype`` is the type it is stored in there.

    ``derived`` lists the source initializers it was computed from; empty when it is one itself.
    """

    name: str
    shape: Ints
    dtype: str
    offset: int
    derived: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        result = 1
        for n in self.shape:
            result *= n
        return result


@dataclass(frozen=True, kw_only=True)
class Op:
    """Base of all operations. ``origin`` is the source node, for messages only."""

    mnemonic: ClassVar[str] = ""
    is_view: ClassVar[bool] = False

    out: Value
    origin: str = field(default="", compare=False)

    def __init_subclass__(cls, mnemonic: str = "", view: bool = False, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        cls.mnemonic, cls.is_view = mnemonic, view
        VOCABULARY[mnemonic] = cls

    @property
    def inputs(self) -> Refs:
        """Names of the values read, in field order."""
        refs: list[str] = []
        for name in _fields_of(self.mnemonic, "Ref"):
            refs.append(getattr(self, name))
        for name in _fields_of(self.mnemonic, "Refs"):
            refs.extend(getattr(self, name))
        return tuple(refs)

    @property
    def operands(self) -> dict[str, Slots]:
        """Parameter operands by role (field name); absent optional ones are left out."""
        found = {name: getattr(self, name) for name in _fields_of(self.mnemonic, "Slots")}
        return {name: slots for name, slots in found.items() if slots is not None}

    def reading(self, refs: Refs) -> Op:
        """The same operation of other values, in the order of ``inputs``."""
        rest = iter(refs)
        changes: dict[str, Any] = {name: next(rest) for name in _fields_of(self.mnemonic, "Ref")}
        for name in _fields_of(self.mnemonic, "Refs"):
            changes[name] = tuple(next(rest) for _ in getattr(self, name))
        return replace(self, **changes)

    def renamed(self, names: dict[str, str]) -> Op:
        """The same operation reading other values."""
        changes: dict[str, Any] = {}
        for name in _fields_of(self.mnemonic, "Ref"):
            changes[name] = names.get(getattr(self, name), getattr(self, name))
        for name in _fields_of(self.mnemonic, "Refs"):
            changes[name] = tuple(names.get(ref, ref) for ref in getattr(self, name))
        return replace(self, **changes)


@cache
def _fields_of(mnemonic: str, kind: str) -> Refs:
    # Annotations are strings here (``from __future__ import annotations``).
    return tuple(f.name for f in fields(VOCABULARY[mnemonic]) if f.type in (kind, f"{kind} | None"))


# --- sources ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Input(Op, mnemonic="input"):
    """A graph input."""


@dataclass(frozen=True, kw_only=True)
class Parameter(Op, mnemonic="parameter"):
    """A learned tensor used as an activation (class token, learned query, initial state)."""

    data: Slots


@dataclass(frozen=True, kw_only=True)
class Constant(Op, mnemonic="constant"):
    """A fixed tensor used as an activation (mask, grid, threshold)."""

    data: Array

    @property
    def is_zero(self) -> bool:
        """Whether it is zeros all over."""
        return not self.data.numpy().any()


# --- weighted operations ---------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Linear(Op, mnemonic="linear"):
    """einsum(spec, x, weight), e.g. ``bti,oi->bto``. No letter twice in one operand; a letter of
    ``x`` alone is in the result; a letter of the weight alone too."""

    x: Ref
    weight: Slots
    spec: str


@dataclass(frozen=True, kw_only=True)
class Convolution(Op, mnemonic="convolution"):
    """Cross-correlation. x [n, c, *space], weight [o, c / groups, *kernel], pads all begins then
    all ends (ONNX order, zeros)."""

    x: Ref
    weight: Slots
    strides: Ints
    pads: Ints
    dilations: Ints
    groups: int


@dataclass(frozen=True, kw_only=True)
class ConvolutionTranspose(Op, mnemonic="convolution_transpose"):
    """Transposed convolution. weight [c, o / groups, *kernel]. Output size is ``out.shape``:
    the full result, cropped by ``pads`` (begins then ends; negative ends extend it by zeros)."""

    x: Ref
    weight: Slots
    strides: Ints
    pads: Ints
    dilations: Ints
    groups: int


@dataclass(frozen=True, kw_only=True)
class Embedding(Op, mnemonic="embedding"):
    """Rows of weight [v, *rest] picked by integer ids: out [*ids.shape, *rest]. Negative ids count
    from the end."""

    ids: Ref
    weight: Slots


@dataclass(frozen=True, kw_only=True)
class Scale(Op, mnemonic="scale"):
    """x times a parameter that broadcasts to out. fn: mul (x f), div (x / f), rdiv (f / x)."""

    x: Ref
    factor: Slots
    fn: str = "mul"


@dataclass(frozen=True, kw_only=True)
class Shift(Op, mnemonic="shift"):
    """x plus a parameter that broadcasts to out. fn: add (x + t), sub (x - t), rsub (t - x)."""

    x: Ref
    term: Slots
    fn: str = "add"


@dataclass(frozen=True, kw_only=True)
class BatchNorm(Op, mnemonic="batch_norm"):
    """(x - mean) / sqrt(var + epsilon) * scale + bias, each operand [c], along axis 1."""

    x: Ref
    scale: Slots
    bias: Slots
    mean: Slots
    var: Slots
    epsilon: float


# --- operations without weights --------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Normalise(Op, mnemonic="normalise"):
    """Normalise over ``axes``. fn:
    standard: (x - mean) / sqrt(var + epsilon), biased variance;
    rms: x / sqrt(mean(x^2) + epsilon);
    l1, l2: x / max(norm, epsilon) (0 where the norm is 0 and epsilon is 0);
    lrn: x / (bias + alpha / size * sum of squares over ``size`` neighbours on axes[0]) ^ beta,
    with a = (alpha, beta, bias, size).
    """

    x: Ref
    fn: str
    axes: Ints
    epsilon: float = 0.0
    a: Floats = ()


@dataclass(frozen=True, kw_only=True)
class Activation(Op, mnemonic="activation"):
    """A function of one scalar, everywhere the same; ``a`` holds its numbers.

    fn is the ONNX operator in snake case: relu, sigmoid, tanh, softplus, softsign, hard_swish,
    mish, gelu, erf, exp, log, sqrt, reciprocal, neg, abs, sign, floor, ceil, sin, cos, tan,
    round (half to even), asin, acos, atan, sinh, cosh, tanh, asinh, acosh, atanh, not, bitwise_not,
    is_nan;
    leaky_relu, elu, celu, thresholded_relu and swish with (alpha), selu (alpha, gamma),
    hard_sigmoid (alpha, beta), shrink (lambd, bias), is_inf (detect negative, detect positive).
    Besides: gelu_tanh, clip (min, max; either may be infinite), affine a[0] x + a[1],
    power x ^ a[0], base a[0] ^ x.
    """

    x: Ref
    fn: str
    a: Floats = ()


@dataclass(frozen=True, kw_only=True)
class PRelu(Op, mnemonic="prelu"):
    """x where x >= 0, else slope times x; the slope broadcasts to out."""

    x: Ref
    slope: Slots


@dataclass(frozen=True, kw_only=True)
class Cast(Op, mnemonic="cast"):
    """x in the dtype of out; float to integer truncates; to bool: whether it is not 0."""

    x: Ref


@dataclass(frozen=True, kw_only=True)
class Combine(Op, mnemonic="combine"):
    """Elementwise function of activations, broadcast as numpy does. Of any number: add, mul, max,
    min, mean. Of two: sub, div, pow, mod, fmod, and, or, xor, equal, less, less_equal, greater,
    greater_equal, bitwise_and, bitwise_or, bitwise_xor, shift_left, shift_right. Of three: where
    (condition first).

    On integers div truncates towards zero and results wrap around; mod has the sign of the
    divisor, fmod that of the dividend (also on floats)."""

    xs: Refs
    fn: str


@dataclass(frozen=True, kw_only=True)
class Contract(Op, mnemonic="contract"):
    """einsum(spec, a, b) of two activations, e.g. attention scores ``bhqd,bhkd->bhqk``."""

    a: Ref
    b: Ref
    spec: str


@dataclass(frozen=True, kw_only=True)
class Pool(Op, mnemonic="pool"):
    """Pool over windows of all axes after the second. fn: max, mean, lp (norm of order p).
    Windows that start inside the padded input count even if they end outside (out.shape says how
    many there are); pads begins then ends; mean divides by the number of entries inside the input,
    or with ``count_pads`` inside input and pads."""

    x: Ref
    fn: str
    kernel: Ints
    strides: Ints
    pads: Ints
    dilations: Ints
    count_pads: bool = False
    p: int = 2


@dataclass(frozen=True, kw_only=True)
class Reduce(Op, mnemonic="reduce"):
    """Reduce over ``axes`` (none: nothing happens). fn: sum, mean, max, min, prod, l1, l2,
    sum_square, log_sum, log_sum_exp, argmax, argmin, argmax_last, argmin_last."""

    x: Ref
    fn: str
    axes: Ints
    keepdims: bool


@dataclass(frozen=True, kw_only=True)
class Cumulate(Op, mnemonic="cumulate"):
    """Running sum or product along an axis. fn: sum, prod."""

    x: Ref
    fn: str
    axis: int
    exclusive: bool = False
    reverse: bool = False


@dataclass(frozen=True, kw_only=True)
class TopK(Op, mnemonic="topk"):
    """The k largest (smallest) along an axis, sorted. result: values, indices."""

    x: Ref
    axis: int
    largest: bool
    result: str


@dataclass(frozen=True, kw_only=True)
class Softmax(Op, mnemonic="softmax"):
    """fn: softmax, log_softmax, hardmax, along one axis."""

    x: Ref
    fn: str
    axis: int


@dataclass(frozen=True, kw_only=True)
class Resize(Op, mnemonic="resize"):
    """Linear resampling, axis by axis: along axes[k] the matrix matrices[k] [out size, in size].
    Nearest, linear and cubic with every coordinate rule of ONNX are such matrices."""

    x: Ref
    axes: Ints
    matrices: tuple[Array, ...]


@dataclass(frozen=True, kw_only=True)
class Gather(Op, mnemonic="gather"):
    """Picking by indices that are activations. fn: axis (ONNX Gather), elements (GatherElements),
    nd (GatherND with ``axis`` batch axes). Negative indices count from the end."""

    x: Ref
    ids: Ref
    fn: str
    axis: int


@dataclass(frozen=True, kw_only=True)
class Scatter(Op, mnemonic="scatter"):
    """x, but along ``axis`` at the indices ids (activations) what updates say; ids and updates have
    the shape of x but along the axis. fn: write (of equal indices the last one counts), or add,
    mul, max, min with what is there. Negative indices count from the end."""

    x: Ref
    ids: Ref
    updates: Ref
    fn: str
    axis: int


# --- data movement: ``move`` in ir/views.py does the same to numpy arrays ----------------------


@dataclass(frozen=True, kw_only=True)
class Reshape(Op, mnemonic="reshape", view=True):
    """x in the shape of out, row-major order kept."""

    x: Ref


@dataclass(frozen=True, kw_only=True)
class Transpose(Op, mnemonic="transpose", view=True):
    """Axis k of out is axis perm[k] of x."""

    x: Ref
    perm: Ints


@dataclass(frozen=True, kw_only=True)
class Slice(Op, mnemonic="slice", view=True):
    """out[i_k] = x[starts_k + steps_k i_k]; sizes are those of out; steps may be negative."""

    x: Ref
    starts: Ints
    steps: Ints


@dataclass(frozen=True, kw_only=True)
class Expand(Op, mnemonic="expand", view=True):
    """x broadcast to the shape of out."""

    x: Ref


@dataclass(frozen=True, kw_only=True)
class Take(Op, mnemonic="take", view=True):
    """Entries index [m] (non-negative) along one axis."""

    x: Ref
    axis: int
    index: Array


@dataclass(frozen=True, kw_only=True)
class Select(Op, mnemonic="select", view=True):
    """out.flat[i] = x.flat[index.flat[i]]: any data movement at all."""

    x: Ref
    index: Array


@dataclass(frozen=True, kw_only=True)
class Concat(Op, mnemonic="concat", view=True):
    """Values one after another along an axis."""

    xs: Refs
    axis: int


@dataclass(frozen=True, kw_only=True)
class Pad(Op, mnemonic="pad", view=True):
    """x with ``pads`` (begins then ends, one per axis, none negative) filled by ``value``."""

    x: Ref
    pads: Ints
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Program:
    """A network: parameters, operations in order, and (output name, value name) pairs."""

    name: str
    params: tuple[Param, ...]
    ops: tuple[Op, ...]
    outputs: tuple[tuple[str, Ref], ...]

    @property
    def num_slots(self) -> int:
        """Length of the weight vector, the two constants included."""
        last = self.params[-1] if self.params else None
        return last.offset + last.size if last else FIRST_SLOT

    @property
    def inputs(self) -> tuple[Input, ...]:
        return tuple(op for op in self.ops if isinstance(op, Input))

    def values(self) -> dict[Ref, Value]:
        return {op.out.name: op.out for op in self.ops}

    def producers(self) -> dict[Ref, Op]:
        return {op.out.name: op for op in self.ops}

    def uses(self) -> dict[Ref, list[Op]]:
        """Operations that read each value (outputs of the program not counted)."""
        result: dict[Ref, list[Op]] = {op.out.name: [] for op in self.ops}
        for op in self.ops:
            for ref in dict.fromkeys(op.inputs):
                result[ref].append(op)
        return result

    def with_ops(self, ops: tuple[Op, ...]) -> Program:
        return replace(self, ops=ops)

    def __iter__(self) -> Iterator[Op]:
        return iter(self.ops)
