"""Sizes for the axes that a model leaves open: given by the user, read off weights, or sampled."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir

from ngc.errors import OptionError, ShapeError

Ints = tuple[int, ...]

# Tried in this order until the model lowers: some networks fit one image size only.
SPATIAL = (32, 64, 224, 28, 8, 128, 16, 256, 299, 512)
SEQUENCE = (8, 16, 4, 32, 64, 128, 1, 256, 512)
CHANNELS = (3, 1, 4)

# Of example inputs.
DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "bool")


@dataclass(frozen=True)
class Bound:
    """A shape for every input of a model; ``notes`` say what was chosen and not given."""

    shapes: dict[str, Ints]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axis:
    """One axis of an input: its size, or the key under which axes of equal size go."""

    key: str
    size: int | None


def parse_shape(text: str) -> tuple[str, Ints]:
    """``x=1x3x224x224`` as a name and sizes; ``x=`` is a scalar."""
    name, found, sizes = text.rpartition("=")
    try:
        shape = tuple(int(n) for n in sizes.split("x")) if sizes else ()
    except ValueError:
        shape, found = (), ""
    if not found or not name:
        raise OptionError(f"cannot read the shape {text!r}", hint="--shape x=1x3x224x224")
    return name, shape


@dataclass(frozen=True)
class Example:
    """An input to try a module on: ``name`` of the argument (none: by position), sizes, dtype."""

    name: str
    shape: Ints
    dtype: str = "float32"


def parse_examples(texts: Sequence[str]) -> tuple[Example, ...] | None:
    """All inputs that are given; None where there are none."""
    return tuple(parse_example(text) for text in texts) or None


def parse_example(text: str) -> Example:
    """``1x3x32x32``, ``pixels=1x3x32x32`` or ``ids=1x16:int64``."""
    name, found, rest = text.rpartition("=")
    sizes, typed, dtype = rest.partition(":")
    try:
        shape = tuple(int(n) for n in sizes.split("x")) if sizes else ()
    except ValueError:
        shape = (-1,)
    if min(shape, default=1) < 1 or (found and not name) or (typed and dtype not in DTYPES):
        raise OptionError(
            f"cannot read the input {text!r}",
            hint=f"--input 1x3x32x32, --input ids=1x16:int64; of {', '.join(DTYPES)}",
        )
    return Example(name, shape, dtype or "float32")


def parse_dim(text: str) -> tuple[str, int]:
    """``batch=4`` as a name and a size."""
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal():
        raise OptionError(f"cannot read the dimension {text!r}", hint="--dim batch=1")
    return name, int(size)


def bind_shapes(
    model: onnx_ir.Model,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Bound:
    """The first of ``sample_shapes``."""
    return next(sample_shapes(model, shapes, dims))


def sample_shapes(
    model: onnx_ir.Model,
    shapes: Mapping[str, Sequence[int]] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Iterator[Bound]:
    """Shapes to try, likeliest first; only one where the user or the model says it all.

    Axes of one name have one size. Sizes come from ``shapes`` and ``dims``, then from the weights
    that an input meets first, then from small samples: 1 on axis 0, and the tables above.
    """
    layout = {value.name or "": _axes(value) for value in network_inputs(model)}
    given = _given_sizes(model, layout, shapes or {}, dims or {})
    sizes = {**_sizes_by_weights(model, layout, given), **given}
    wanted: dict[str, tuple[int, ...]] = {}
    for axes in layout.values():
        for k, axis in enumerate(axes or ()):
            if axis.size is None and axis.key not in sizes:
                candidates = _candidates(axis.key, k, len(axes or ()))
                if candidates == (1,) or axis.key not in wanted:
                    wanted[axis.key] = candidates
    for trial in range(max((len(c) for c in wanted.values()), default=1)):
        chosen = {key: c[min(trial, len(c) - 1)] for key, c in wanted.items()}
        yield _bound(layout, given, {**chosen, **sizes})


def network_inputs(model: onnx_ir.Model) -> list[onnx_ir.Value]:
    """Inputs without an initializer (IR version 3 lists weights among the inputs)."""
    return [v for v in model.graph.inputs if v.name not in model.graph.initializers]


def _axes(value: onnx_ir.Value) -> tuple[Axis, ...] | None:
    """Axes of an input, or None where not even their number is known."""
    if value.shape is None:
        return None
    axes = []
    for k, dim in enumerate(value.shape):
        if isinstance(dim, int):
            axes.append(Axis("", dim))
        else:
            axes.append(Axis(dim.value or f"{value.name}[{k}]", None))
    return tuple(axes)


def _given_sizes(
    model: onnx_ir.Model,
    layout: dict[str, tuple[Axis, ...] | None],
    shapes: Mapping[str, Sequence[int]],
    dims: Mapping[str, int],
) -> dict[str, int]:
    """Sizes the user gave, by key; shapes of inputs of unknown rank go into ``layout``."""
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in layout:
            raise OptionError(f"no input is called {name!r}; inputs: {', '.join(layout) or 'none'}")
        shape = [_size(n, f"shape {shape!r} of {name}") for n in shape]
        axes = layout[name]
        if axes is None:
            layout[name] = axes = tuple(Axis("", n) for n in shape)
        if len(axes) != len(shape):
            text = _text(axes)
            raise OptionError(f"input {name} has shape {text}; {list(shape)} has another rank")
        for axis, n in zip(axes, shape):
            known = axis.size if axis.size is not None else sizes.setdefault(axis.key, n)
            if n == 0 and axis.size is None:
                raise OptionError(f"shape {shape} of {name} has a size that is not positive")
            if known != n:
                raise OptionError(f"input {name} has shape {_text(axes)}, not {list(shape)}")
    names = {axis.key for axes in layout.values() for axis in axes or () if axis.size is None}
    for name, size in dims.items():
        if name not in names:
            found = ", ".join(sorted(names)) or "none"
            raise OptionError(f"no open dimension is called {name!r}; there are: {found}")
        number = _size(size, f"the size of dimension {name}")
        if number == 0:
            raise OptionError(f"size 0 of dimension {name} is not positive")
        if sizes.setdefault(name, number) != number:
            raise OptionError(f"dimension {name} cannot be {size}: a shape says {sizes[name]}")
    unknown = [name for name, axes in layout.items() if axes is None]
    for name in unknown:
        layout[name] = _axes_by_weights(model, name)
        if layout[name] is None:
            raise ShapeError("it has no shape", where=f"input {name}", hint=f"--shape {name}=1x3")
    return sizes


def _size(given: object, what: str) -> int:
    """A size as an integer that is not negative."""
    try:
        number = operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        raise OptionError(f"{what} cannot be {given!r}, only whole numbers") from None
    if number < 0:
        raise OptionError(f"{what} is negative")
    return number


def _axes_by_weights(model: onnx_ir.Model, name: str) -> tuple[Axis, ...] | None:
    """Axes of an input of unknown rank that a convolution reads: as many as the weight has."""
    for node, weight in _first_weights(model, name):
        if node.op_type in ("Conv", "ConvTranspose"):
            return tuple(Axis(f"{name}[{k}]", None) for k in range(len(weight)))
        if node.op_type == "Gemm":
            return (Axis(f"{name}[0]", None), Axis(f"{name}[1]", None))
    return None


def _sizes_by_weights(
    model: onnx_ir.Model,
    layout: dict[str, tuple[Axis, ...] | None],
    given: Mapping[str, int],
) -> dict[str, int]:
    """Sizes of open axes that the first weight to meet them fixes."""
    sizes: dict[str, int] = {}
    for name, axes in layout.items():
        if not axes or all(axis.size is not None or axis.key in given for axis in axes):
            continue
        for node, weight in _first_weights(model, name):
            found = _contracted(node, weight, len(axes))
            if found is None:
                continue
            axis, size = axes[found[0]], found[1]
            if axis.size is None and axis.key not in given:
                sizes.setdefault(axis.key, size)
    return sizes


def _first_weights(model: onnx_ir.Model, name: str) -> Iterator[tuple[onnx_ir.Node, Ints]]:
    """Nodes that read the input beside a second operand of known shape, and that shape."""
    for value in network_inputs(model):
        for node in value.consumers() if value.name == name else ():
            weight = node.inputs[1] if len(node.inputs) > 1 else None
            shape = weight.shape if weight is not None else None
            if node.inputs[0] is value and shape is not None and shape.is_static():
                yield node, tuple(int(n) for n in shape.numpy())


def _contracted(node: onnx_ir.Node, weight: Ints, rank: int) -> tuple[int, int] | None:
    """The axis of the first operand that the weight fixes, and its size."""
    match node.op_type:
        case "Conv" if len(weight) == rank > 1:
            return 1, weight[1] * node.attributes.get_int("group", 1)
        case "ConvTranspose" if len(weight) == rank > 1:
            return 1, weight[0]
        case "Gemm" if len(weight) == rank == 2 and not node.attributes.get_int("transA", 0):
            return 1, weight[1 if node.attributes.get_int("transB", 0) else 0]
        case "MatMul" if len(weight) >= 2:
            return rank - 1, weight[-2]
    return None


def _candidates(key: str, axis: int, rank: int) -> tuple[int, ...]:
    if axis == 0 or "batch" in key.lower():
        return (1,)
    if rank >= 4:
        return CHANNELS if axis == 1 else SPATIAL
    return SEQUENCE


def _bound(
    layout: dict[str, tuple[Axis, ...] | None], given: Mapping[str, int], sizes: Mapping[str, int]
) -> Bound:
    shapes, notes = {}, []
    for name, axes in layout.items():
        assert axes is not None
        shapes[name] = tuple(sizes[a.key] if a.size is None else a.size for a in axes)
        if any(a.size is None and a.key not in given for a in axes):
            chosen = "x".join(str(n) for n in shapes[name])
            notes.append(f"input {name} has shape {_text(axes)}; compiled for {chosen}")
    return Bound(shapes, tuple(notes))


def _text(axes: tuple[Axis, ...]) -> str:
    return "[" + ", ".join(axis.key if axis.size is None else str(axis.size) for axis in axes) + "]"
