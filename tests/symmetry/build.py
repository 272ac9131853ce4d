"""A short way to write programs by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ngc.ir import program as ir
from ngc.ir.program import Op, Param, Program, Value
from ngc.ir.slots import FIRST_SLOT, Array, Slots


class Net:
    """A program in the making; methods return the name of the value they add."""

    def __init__(self) -> None:
        self.params: list[Param] = []
        self.ops: list[Op] = []
        self.shape: dict[str, tuple[int, ...]] = {}
        self.end = FIRST_SLOT

    def param(self, *shape: int) -> Slots:
        slots = Slots.contiguous(shape, self.end)
        self.params.append(Param(f"p{len(self.params)}", shape, "float64", self.end))
        self.end += math.prod(shape)
        return slots

    def add(self, cls: type[Op], shape: Any, name: str = "", **fields: Any) -> str:
        name = name or f"v{len(self.ops)}"
        self.shape[name] = tuple(shape)
        self.ops.append(cls(out=Value(name, self.shape[name], "float64"), **fields))
        return name

    def input(self, *shape: int, name: str = "x") -> str:
        return self.add(ir.Input, shape, name)

    def constant(self, array: Any) -> str:
        array = np.asarray(array, dtype=np.float64)
        return self.add(ir.Constant, array.shape, data=Array.of(array))

    def linear(
        self, x: str, out: int, name: str = "", weight: Slots | None = None, bias: bool = True
    ) -> str:
        *lead, last = self.shape[x]
        letters = "abcdef"[: len(lead)]
        weight = weight or self.param(out, last)
        y = self.add(
            ir.Linear, (*lead, out), name, x=x, weight=weight, spec=f"{letters}i,oi->{letters}o"
        )
        return self.shift(y, out) if bias else y

    def shift(self, x: str, *shape: int) -> str:
        return self.add(ir.Shift, self.shape[x], x=x, term=self.param(*shape))

    def scale(self, x: str, *shape: int) -> str:
        return self.add(ir.Scale, self.shape[x], x=x, factor=self.param(*shape))

    def act(self, x: str, fn: str = "tanh") -> str:
        return self.add(ir.Activation, self.shape[x], x=x, fn=fn)

    def combine(self, fn: str, *xs: str) -> str:
        shape = np.broadcast_shapes(*(self.shape[x] for x in xs))
        return self.add(ir.Combine, shape, xs=xs, fn=fn)

    def contract(self, a: str, b: str, spec: str, name: str = "") -> str:
        left, right, out = spec.replace("->", ",").split(",")
        size = dict(zip(left, self.shape[a])) | dict(zip(right, self.shape[b]))
        return self.add(ir.Contract, [size[c] for c in out], name, a=a, b=b, spec=spec)

    def normalise(self, x: str, *axes: int, fn: str = "standard") -> str:
        return self.add(ir.Normalise, self.shape[x], x=x, fn=fn, axes=axes, epsilon=1e-5)

    def conv(self, x: str, out: int, size: int = 3, groups: int = 1, name: str = "") -> str:
        n, c, h, w = self.shape[x]
        weight = self.param(out, c // groups, size, size)
        return self.add(
            ir.Convolution, (n, out, h, w), name, x=x, weight=weight, strides=(1, 1),
            pads=(size // 2,) * 4, dilations=(1, 1), groups=groups,
        )  # fmt: skip

    def reshape(self, x: str, *shape: int) -> str:
        return self.add(ir.Reshape, shape, x=x)

    def transpose(self, x: str, *perm: int) -> str:
        return self.add(ir.Transpose, [self.shape[x][p] for p in perm], x=x, perm=perm)

    def slice(self, x: str, axis: int, start: int, stop: int, step: int = 1) -> str:
        rank = len(self.shape[x])
        shape = list(self.shape[x])
        shape[axis] = len(range(start, stop, step))
        starts = tuple(start if a == axis else 0 for a in range(rank))
        steps = tuple(step if a == axis else 1 for a in range(rank))
        return self.add(ir.Slice, shape, x=x, starts=starts, steps=steps)

    def pad(self, x: str, axis: int, before: int, after: int) -> str:
        rank = len(self.shape[x])
        shape = list(self.shape[x])
        shape[axis] += before + after
        pads = [0] * (2 * rank)
        pads[axis], pads[rank + axis] = before, after
        return self.add(ir.Pad, shape, x=x, pads=tuple(pads))

    def concat(self, axis: int, *xs: str) -> str:
        shape = list(self.shape[xs[0]])
        shape[axis] = sum(self.shape[x][axis] for x in xs)
        return self.add(ir.Concat, shape, xs=xs, axis=axis)

    def done(self, *outputs: str) -> Program:
        pairs = tuple((name, name) for name in outputs)
        return Program("net", tuple(self.params), tuple(self.ops), pairs)
