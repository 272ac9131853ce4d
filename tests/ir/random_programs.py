"""Random programs for property tests: every class of the vocabulary, fields of random content.

They print and parse, but their shapes do not fit together: only text is tested with them.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from ngc.ir.program import VOCABULARY, Op, Param, Program, Value
from ngc.ir.slots import FIRST_SLOT, Array, Slots

NAMES = ("x", "/h/MatMul_output_0", "a b", "0.weight", "ünï\ncode", 'q"\\', "%@#", "", "x:0", "🙂")
DTYPES = ("float32", "float64", "int64", "bool", "float16", "uint8")


class Maker:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.params: list[Param] = []
        self.refs: list[str] = []

    def pick(self, choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def name(self) -> str:
        return f"{self.pick(NAMES)}{self.rng.integers(1 << 30)}"

    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.rng.integers(0, 5, size=self.rng.integers(0, 4)))

    def array(self) -> Array:
        shape = self.pick([self.shape(), (11, 9)])
        values = self.rng.normal(size=shape) * self.pick([1.0, 1e-30, 1e30])
        if values.ndim and values.size:
            values.reshape(-1)[0] = self.pick([np.nan, np.inf, -np.inf, -0.0, 0.1])
        with np.errstate(all="ignore"):
            return Array.of(values.astype(self.pick(DTYPES)))

    def slots(self) -> Slots:
        shape = self.shape()
        if not self.params or self.rng.random() < 0.2:
            return Slots.constant(shape, int(self.rng.integers(2)))
        param = self.pick(self.params)
        whole = Slots.contiguous(param.shape, param.offset)
        match int(self.rng.integers(5)):
            case 0:
                return whole
            case 1:
                return whole.transpose(tuple(self.rng.permutation(whole.ndim).tolist()))
            case 2:
                return whole.reshape((1, param.size)).expand((3, param.size))
            case 3:
                size = int(self.pick([4, 9, 3000]))
                return Slots.of(self.rng.integers(0, 40, size=size))
        mixed = [np.zeros(4), whole.numpy().reshape(-1)[::-1], [1, 1, 1, 0], np.arange(9, 2, -3)]
        return Slots.of(np.concatenate(mixed).astype(np.int64))

    def integers(self) -> tuple[int, ...]:
        return tuple(int(v) for v in self.rng.integers(-3, 9, size=self.rng.integers(0, 4)))

    def float(self) -> float:
        return float(self.pick([0.0, -0.0, 1.0, 1e-5, 1e300, float("inf"), self.rng.normal()]))

    def field(self, kind: str) -> Any:
        if kind.endswith(" | None") and self.rng.random() < 0.5:
            return None
        match kind.removesuffix(" | None"):
            case "Ref":
                return self.pick(self.refs)
            case "Refs":
                return tuple(self.pick(self.refs) for _ in range(self.rng.integers(0, 4)))
            case "Slots":
                return self.slots()
            case "Array":
                return self.array()
            case "tuple[Array, ...]":
                return tuple(self.array() for _ in range(self.rng.integers(0, 3)))
            case "str":
                return self.pick(["add", "", "bi,oi->bo", 'ä"\\\n'])
            case "int":
                return int(self.rng.integers(-5, 5))
            case "float":
                return self.float()
            case "bool":
                return bool(self.rng.integers(2))
            case "Ints":
                return self.integers()
            case "Floats":
                return tuple(self.float() for _ in range(self.rng.integers(0, 3)))
        raise AssertionError(f"no random value of type {kind}")

    def op(self, cls: type[Op]) -> Op:
        out = Value(self.name(), self.shape(), self.pick(DTYPES))
        values = {}
        for field in fields(cls):
            default = field.default is not MISSING
            if field.name not in ("out", "origin") and not (default and self.rng.random() < 0.5):
                values[field.name] = self.field(str(field.type))
        op = cls(out=out, origin="where it came from", **values)
        self.refs.append(out.name)
        return op

    def program(self, num_ops: int = 20) -> Program:
        offset = FIRST_SLOT
        for k in range(int(self.rng.integers(0, 5))):
            derived = tuple(self.name() for _ in range(self.rng.integers(0, 3)))
            name = f"{self.pick(NAMES)}{k}"
            self.params.append(Param(name, self.shape(), self.pick(DTYPES), offset, derived))
            offset += self.params[-1].size
        ops = [self.op(VOCABULARY["input"])]
        ops += [self.op(self.pick(list(VOCABULARY.values()))) for _ in range(num_ops)]
        outputs = tuple((self.name(), self.pick(self.refs)) for _ in range(self.rng.integers(0, 3)))
        return Program(self.pick(NAMES), tuple(self.params), tuple(ops), outputs)
