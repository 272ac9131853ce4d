"""Gemm, MatMul and Einsum: a constant operand makes a Linear, two activations a Contract."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx_ir

from ngc.ir import program as ir
from ngc.ir.program import Value
from ngc.ir.slots import row_major
from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers

LETTERS = string.ascii_lowercase + string.ascii_uppercase
BATCH_LETTERS = [letter for letter in LETTERS if letter not in "ijk"]


@lowers("Gemm", since=1)
def gemm(
    b: Builder, node: onnx_ir.Node, x: Operand, w: Operand, c: Operand | None = None
) -> Operand:
    """Y = alpha A B + beta C, A and B transposed where asked."""
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    left = "ki" if node.attributes.get_int("transA", 0) else "ik"
    right = "jk" if node.attributes.get_int("transB", 0) else "kj"
    y = contract(b, x, w, f"{left},{right}->ij")
    if alpha != 1.0:
        y = b.activation(y, "affine", alpha, 0.0)
    if c is None or beta == 0.0:
        return y
    if b.broadcast(y, c) != y.shape:
        raise b.misshapen(f"C {list(c.shape)} does not broadcast to {list(y.shape)}")
    if not (isinstance(c, Known) and is_float(c.dtype)):
        return b.combine("add", y, c if beta == 1.0 else b.activation(c, "affine", beta, 0.0))
    if beta == 1.0:
        return b.shift(y, c)
    # The bias keeps its own value: y / beta + c, times beta. Nothing is folded into it.
    y = b.shift(b.activation(y, "affine", 1.0 / beta, 0.0), c)
    return b.activation(y, "affine", beta, 0.0)


@lowers("MatMul", since=1)
def matmul(b: Builder, node: onnx_ir.Node, x: Operand, w: Operand) -> Operand:
    """Matrix product over the last axis of x and the last but one of w, the others broadcast."""
    if not x.shape or not w.shape:
        raise b.misshapen("MatMul of a scalar")
    vector_x, vector_w = len(x.shape) == 1, len(w.shape) == 1
    lead = max(len(x.shape), len(w.shape), 2) - 2
    batch = "".join(BATCH_LETTERS[:lead])
    left = "k" if vector_x else batch[lead - (len(x.shape) - 2) :] + "ik"
    right = "k" if vector_w else batch[lead - (len(w.shape) - 2) :] + "kj"
    out = batch + ("" if vector_x else "i") + ("" if vector_w else "j")
    return contract(b, x, w, f"{left},{right}->{out}")


@lowers("Einsum", since=12)
def einsum(b: Builder, node: onnx_ir.Node, *operands: Operand) -> Operand:
    """Any equation: operands are brought to distinct letters, then contracted two at a time."""
    equation = node.attributes.get_string("equation") or ""
    terms, out = parse_equation(b, equation, [len(x.shape) for x in operands])
    pairs = [_diagonal(b, x, letters) for x, letters in zip(operands, terms)]
    sizes = _sizes(b, pairs)
    left = [_squeezed(b, x, letters, sizes) for x, letters in pairs]
    # Values first: what is known then meets a value and becomes a Linear of its own.
    left.sort(key=lambda pair: isinstance(pair[0], Known))
    x, letters = left.pop(0)
    while left:
        # An operand that shares a letter, if there is one: no outer products on the way.
        linked = (k for k, pair in enumerate(left) if set(pair[1]) & set(letters))
        other = left.pop(next(linked, 0))
        wanted = dict.fromkeys(out + "".join(pair[1] for pair in left))
        x, letters = _pair(b, (x, letters), other, "".join(wanted))
    x, letters = _summed(b, x, letters, out)
    return b.transpose(x, [letters.index(letter) for letter in out])


def parse_equation(b: Builder, equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters of each operand and of the result; the ellipsis becomes letters of its own."""
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(ranks):
        raise b.misshapen(f"{len(ranks)} operands for the equation {equation!r}")
    widths = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks)]
    for term, width in zip(terms, widths):
        if width < 0 or ("..." not in term and width):
            raise b.misshapen(f"{term!r} in {equation!r} does not fit its operand")
    unused = [letter for letter in LETTERS if letter not in equation]
    if max(widths) > len(unused):
        raise b.refuse(f"{equation!r} has more axes than there are letters")
    dots = "".join(unused[: max(widths)])
    named = [term.replace("...", dots[len(dots) - width :]) for term, width in zip(terms, widths)]
    if arrow:
        out = result.replace("...", dots)
    else:
        count = Counter("".join(terms).replace(".", ""))
        out = dots + "".join(sorted(letter for letter in count if count[letter] == 1))
    strange = [letter for letter in "".join(named) + out if letter not in LETTERS]
    if strange or len(set(out)) != len(out) or not set(out) <= set("".join(named)):
        raise b.misshapen(f"{equation!r} is no equation of its operands")
    return named, out


def _diagonal(b: Builder, x: Operand, letters: str) -> tuple[Operand, str]:
    """Letters that come more than once run together: entries of the diagonal."""
    distinct = "".join(dict.fromkeys(letters))
    if distinct == letters:
        return x, letters
    size, step = dict.fromkeys(distinct, 0), dict.fromkeys(distinct, 0)
    for letter, n, stride in zip(letters, x.shape, row_major(x.shape)):
        if size[letter] not in (0, n):
            raise b.misshapen(f"letter {letter!r} has sizes {size[letter]} and {n}")
        size[letter] = n
        step[letter] += stride
    b.afford([size[letter] for letter in distinct])
    flat = np.zeros((), dtype=np.int64)
    for letter in distinct:
        flat = flat[..., None] + np.arange(size[letter]) * step[letter]
    return b.select(x, flat), distinct


def _sizes(b: Builder, pairs: Sequence[tuple[Operand, str]]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for x, letters in pairs:
        for letter, size in zip(letters, x.shape):
            if 1 not in (size, sizes.get(letter, 1)) and sizes[letter] != size:
                raise b.misshapen(f"letter {letter!r} has sizes {sizes[letter]} and {size}")
            sizes[letter] = size if sizes.get(letter, 1) == 1 else sizes[letter]
    return sizes


def _squeezed(b: Builder, x: Operand, letters: str, sizes: dict[str, int]) -> tuple[Operand, str]:
    """Without the axes of size 1 that broadcast against another operand."""
    keep = [k for k, (c, n) in enumerate(zip(letters, x.shape)) if n == sizes[c]]
    return b.reshape(x, [x.shape[k] for k in keep]), "".join(letters[k] for k in keep)


def _pair(
    b: Builder, first: tuple[Operand, str], second: tuple[Operand, str], wanted: str
) -> tuple[Operand, str]:
    """Two operands become one, which keeps the wanted letters, in that order."""
    (x, left), (y, right) = first, second
    x, left = _summed(b, x, left, wanted + right)
    y, right = _summed(b, y, right, wanted + left)
    # A letter of a known operand alone stays in the product and is summed after it.
    alone = set(left) ^ set(right)
    kept = [c for c in wanted if c in left or c in right]
    out = "".join(kept + [c for c in left + right if c in alone and c not in wanted])
    if isinstance(x, Known) and isinstance(y, Known):
        raise AssertionError("an equation of constants is evaluated before rules see it")
    return _summed(b, contract(b, x, y, f"{left},{right}->{out}"), out, wanted)


def _summed(b: Builder, x: Operand, letters: str, wanted: str) -> tuple[Operand, str]:
    """A value without the letters that nothing else wants."""
    axes = tuple(k for k, letter in enumerate(letters) if letter not in wanted)
    if not axes or isinstance(x, Known):
        return x, letters
    kept = [k for k in range(len(letters)) if k not in axes]
    shape = [x.shape[k] for k in kept]
    total = b.emit(ir.Reduce, shape, x.dtype, x=x.name, fn="sum", axes=axes, keepdims=False)
    return total, "".join(letters[k] for k in kept)


def contract(b: Builder, x: Operand, w: Operand, spec: str) -> Value:
    """einsum of two operands, where at least one is a value. Axes of size 1 broadcast."""
    left, right, out = spec.replace("->", ",").split(",")
    if len(left) != len(x.shape) or len(right) != len(w.shape):
        raise b.misshapen(f"{list(x.shape)} and {list(w.shape)} do not fit in {spec}")
    sizes = _sizes(b, ((x, left), (w, right)))
    for letter in (set(left) & set(right)) - set(out):
        if x.shape[left.index(letter)] != w.shape[right.index(letter)]:
            raise b.misshapen(f"{list(x.shape)} and {list(w.shape)} do not fit in {spec}")
    # Broadcast axes of size 1: dropped where the other operand carries the letter.
    x, left = _squeezed(b, x, left, sizes)
    w, right = _squeezed(b, w, right, sizes)
    shape = [sizes[letter] for letter in out]
    if isinstance(w, Known) and isinstance(x, Known):
        raise AssertionError("constants are evaluated before rules see them")
    if isinstance(x, Known):
        x, w, left, right = w, x, right, left
    if isinstance(w, Known) and is_float(w.dtype):
        value, weight = b.value(x), b.slots(w)
        spec = f"{left},{right}->{out}"
        return b.emit(ir.Linear, shape, value.dtype, x=value.name, weight=weight, spec=spec)
    first, second = b.value(x), b.value(w)
    spec = f"{left},{right}->{out}"
    return b.emit(ir.Contract, shape, first.dtype, a=first.name, b=second.name, spec=spec)
