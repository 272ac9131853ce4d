"""Gemm, MatMul and Einsum: a constant operand makes a Linear, two activations a Contract."""

from __future__ import annotations

import onnx_ir

from ngc.ir import program as ir
from ngc.passes.lower.base import Builder, Known, Operand, lowers

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@lowers("Gemm", since=1)
def gemm(b: Builder, node: onnx_ir.Node, x: Operand, w: Operand, c: Operand | None = None) -> Operand:
    """Y = alpha A B + beta C, A and B transposed where asked."""
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    left = "ki" if node.attributes.get_int("transA", 0) else "ik"
    right = "jk" if node.attributes.get_int("transB", 0) else "kj"
    y = contract(b, x, w, f"{left},{right}->ij")
    if alpha != 1.0:
        y = b.activation(y, "affine", alpha, 0.0)
    if c is None or beta == 0.0:
        return y
    if beta != 1.0:
        # The bias keeps its own value: y / beta + c, times beta. Nothing is folded into it.
        if isinstance(c, Known):
            y = b.activation(y, "affine", 1.0 / beta, 0.0)
            return b.activation(b.shift(y, c), "affine", beta, 0.0)
        c = b.activation(c, "affine", beta, 0.0)
    return b.shift(y, c) if isinstance(c, Known) else b.combine("add", y, c)


@lowers("MatMul", since=1)
def matmul(b: Builder, node: onnx_ir.Node, x: Operand, w: Operand) -> Operand:
    """Matrix product over the last axis of x and the last but one of w, the others broadcast."""
    if not x.shape or not w.shape:
        raise b.misshapen("MatMul of a scalar")
    vector_x, vector_w = len(x.shape) == 1, len(w.shape) == 1
    lead = max(len(x.shape), len(w.shape), 2) - 2
    batch = LETTERS[3 : 3 + lead]
    left = "k" if vector_x else batch[lead - (len(x.shape) - 2) :] + "ik"
    right = "k" if vector_w else batch[lead - (len(w.shape) - 2) :] + "kj"
    out = batch + ("" if vector_x else "i") + ("" if vector_w else "j")
    return contract(b, x, w, f"{left},{right}->{out}")


def contract(b: Builder, x: Operand, w: Operand, spec: str) -> Operand:
    """einsum of two operands, where at least one is a value. Axes of size 1 broadcast."""
    left, right, out = spec.replace("->", ",").split(",")
    sizes: dict[str, int] = {}
    for operand, letters in ((x, left), (w, right)):
        for letter, size in zip(letters, operand.shape, strict=True):
            if size != 1 and sizes.get(letter, 1) not in (1, size):
                raise b.misshapen(f"sizes {sizes[letter]} and {size} do not fit in {spec}")
            sizes[letter] = max(size, sizes.get(letter, 1)) if size else 0
    # Broadcast axes of size 1: dropped where the other operand carries the letter.
    def without_ones(operand: Operand, letters: str, other: str) -> tuple[Operand, str]:
        keep = [
            k
            for k, (letter, size) in enumerate(zip(letters, operand.shape))
            if not (size == 1 and sizes[letter] != 1 and letter in other)
        ]
        if len(keep) == len(letters):
            return operand, letters
        moved = b.reshape(operand, [operand.shape[k] for k in keep])
        return moved, "".join(letters[k] for k in keep)

    x, left = without_ones(x, left, right)
    w, right = without_ones(w, right, left)
    shape = [sizes[letter] for letter in out]
    if isinstance(w, Known) and isinstance(x, Known):
        raise AssertionError("constants are evaluated before rules see them")
    if isinstance(w, Known) or isinstance(x, Known):
        if isinstance(x, Known):
            x, w, left, right = w, x, right, left
        value, weight = b.value(x), b.slots(w)
        spec = f"{left},{right}->{out}"
        return b.emit(ir.Linear, shape, value.dtype, x=value.name, weight=weight, spec=spec)
    a, c = b.value(x), b.value(w)
    spec = f"{left},{right}->{out}"
    return b.emit(ir.Contract, shape, a.dtype, a=a.name, b=c.name, spec=spec)
