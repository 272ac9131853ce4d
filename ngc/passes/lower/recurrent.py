"""LSTM, GRU and RNN, step by step.

Everything that the input contributes is one Linear over all steps. What the state contributes is
written out for each step, alike for all of them: zeros where no initial state is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import onnx_ir

from ngc.ir.program import Value
from ngc.passes.lower.base import Builder, Known, Operand, is_float, lowers
from ngc.passes.lower.linear import contract

Apply: TypeAlias = "Callable[[Operand], Value]"

# Operator -> our function, with its defaults for alpha and beta.
ACTIVATIONS: dict[str, tuple[str, tuple[float, ...]]] = {
    "relu": ("relu", ()),
    "tanh": ("tanh", ()),
    "sigmoid": ("sigmoid", ()),
    "softsign": ("softsign", ()),
    "softplus": ("softplus", ()),
    "affine": ("affine", (1.0, 0.0)),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "thresholdedrelu": ("thresholded_relu", (1.0,)),
    "scaledtanh": ("scaled_tanh", (1.0, 1.0)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "elu": ("elu", (1.0,)),
}


@dataclass(frozen=True)
class Cell:
    """One direction of a recurrent operator: its parameters, activation functions, attributes."""

    b: Builder
    weight: Known  # [gates * hidden, inputs]
    recurrence: Known  # [gates * hidden, hidden]
    bias: Known | None  # [2 * gates * hidden]: of the input, then of the state
    peepholes: Known | None  # [3 * hidden]
    functions: tuple[Apply, ...]
    hidden: int
    clip: float

    def of_input(self, x: Operand) -> Value:
        """What all gates get from the input, [steps, batch, gates * hidden]."""
        return contract(self.b, self.b.value(x), self.weight, "tbi,gi->tbg")

    def part(self, known: Known, first: int, count: int = 1) -> Known:
        """Rows of ``count`` gates of a parameter, from gate ``first`` on."""
        rest = known.shape[1:]
        found = self.b.slice(
            known, (first * self.hidden, *(0 for _ in rest)), [1] * len(known.shape),
            (count * self.hidden, *rest),
        )  # fmt: skip
        assert isinstance(found, Known)
        return found

    def gate(self, values: Operand, number: int) -> Operand:
        """One gate [batch, hidden] of [batch, gates * hidden]."""
        start = number * self.hidden
        return self.b.slice(values, (0, start), (1, 1), (values.shape[0], self.hidden))

    def of_state(self, state: Operand, rows: Known) -> Value:
        return contract(self.b, self.b.value(state), rows, "bh,gh->bg")

    def apply(self, number: int, x: Operand) -> Value:
        """An activation function, of clipped values."""
        if self.clip:
            x = self.b.activation(x, "clip", -self.clip, self.clip)
        return self.functions[number](x)


# (cell, what the input gives, state, memory) -> the next state and memory.
Step: TypeAlias = "Callable[[Cell, Operand, Value, Value], tuple[Value, Value]]"


@lowers("LSTM", since=1)
def lstm(
    b: Builder, node: onnx_ir.Node, x: Operand, w: Operand, r: Operand, bias: Operand | None = None,
    lengths: Operand | None = None, h: Operand | None = None, c: Operand | None = None,
    p: Operand | None = None,
) -> tuple[Operand, ...]:  # fmt: skip
    """Gates i, o, f and the candidate c; peepholes i, o, f."""
    defaults = ("Sigmoid", "Tanh", "Tanh")
    coupled = bool(node.attributes.get_int("input_forget", 0))

    def step(cell: Cell, given: Operand, state: Value, memory: Value) -> tuple[Value, Value]:
        total = b.combine("add", given, cell.of_state(state, cell.recurrence))

        def looked(gate: int, place: int, at: Value) -> Operand:
            own = cell.gate(total, gate)
            if cell.peepholes is None:
                return own
            return b.combine("add", own, b.scale(at, cell.part(cell.peepholes, place)))

        put = cell.apply(0, looked(0, 0, memory))
        new = b.combine("mul", put, cell.apply(1, cell.gate(total, 3)))
        if coupled:
            kept = b.activation(put, "affine", -1.0, 1.0)
        else:
            kept = cell.apply(0, looked(2, 2, memory))
        new = b.combine("add", b.combine("mul", kept, memory), new)
        out = cell.apply(0, looked(1, 1, new))
        return b.combine("mul", out, cell.functions[2](new)), new

    return _recurrent(b, node, 4, defaults, step, (x, w, r, bias, lengths, h, c, p))


@lowers("GRU", since=1)
def gru(
    b: Builder, node: onnx_ir.Node, x: Operand, w: Operand, r: Operand, bias: Operand | None = None,
    lengths: Operand | None = None, h: Operand | None = None,
) -> tuple[Operand, ...]:  # fmt: skip
    """Gates z, r and the candidate h."""
    after = bool(node.attributes.get_int("linear_before_reset", 0))

    def step(cell: Cell, given: Operand, state: Value, memory: Value) -> tuple[Value, Value]:
        back = cell.of_state(state, cell.part(cell.recurrence, 0, 2))

        def gate(number: int) -> Operand:
            return b.combine("add", cell.gate(given, number), cell.gate(back, number))

        update, reset = cell.apply(0, gate(0)), cell.apply(0, gate(1))
        rows = cell.part(cell.recurrence, 2)
        if after:  # the reset scales the candidate's bias of the state, too
            inner = cell.of_state(state, rows)
            if cell.bias is not None:
                inner = b.shift(inner, cell.part(cell.bias, 5))
            inner = b.combine("mul", reset, inner)
        else:
            inner = cell.of_state(b.combine("mul", reset, state), rows)
        new = cell.apply(1, b.combine("add", cell.gate(given, 2), inner))
        new = b.combine("mul", b.activation(update, "affine", -1.0, 1.0), new)
        return b.combine("add", new, b.combine("mul", update, state)), memory

    operands = (x, w, r, bias, lengths, h, None, None)
    return _recurrent(b, node, 3, ("Sigmoid", "Tanh"), step, operands, inside=int(after))


@lowers("RNN", since=1)
def rnn(
    b: Builder, node: onnx_ir.Node, x: Operand, w: Operand, r: Operand, bias: Operand | None = None,
    lengths: Operand | None = None, h: Operand | None = None,
) -> tuple[Operand, ...]:  # fmt: skip
    def step(cell: Cell, given: Operand, state: Value, memory: Value) -> tuple[Value, Value]:
        total = b.combine("add", given, cell.of_state(state, cell.recurrence))
        return cell.apply(0, total), memory

    operands = (x, w, r, bias, lengths, h, None, None)
    return _recurrent(b, node, 1, ("Tanh",), step, operands)


def _recurrent(
    b: Builder, node: onnx_ir.Node, gates: int, defaults: Sequence[str], step: Step,
    operands: Sequence[Operand | None], inside: int = 0,
) -> tuple[Operand, ...]:  # fmt: skip
    """All steps of all directions: the states of all steps, and the last ones. The last ``inside``
    gates add their bias of the state themselves."""
    x, w, r, bias, lengths, h, c, p = operands
    assert x is not None
    batch_first = bool(node.attributes.get_int("layout", 0))
    if batch_first:
        x = b.transpose(x, (1, 0, 2))
        h, c = (None if state is None else b.transpose(state, (1, 0, 2)) for state in (h, c))
    if len(x.shape) != 3:
        raise b.misshapen(f"the input {list(x.shape)} is not [steps, batch, features]")
    steps, batch, _ = x.shape
    _check_lengths(b, lengths, steps)
    direction = node.attributes.get_string("direction") or "forward"
    ways = {"forward": [1], "reverse": [-1], "bidirectional": [1, -1]}.get(direction)
    if ways is None:
        raise b.misshapen(f"direction {direction!r}")
    has_memory = node.op_type == "LSTM"
    cells = list(_cells(b, node, gates, defaults, len(ways), (w, r, bias, p)))
    hidden = cells[0].hidden
    sequences, last, memories = [], [], []
    for number, (way, cell) in enumerate(zip(ways, cells)):
        state = memory = _initial(b, h, number, batch, hidden, x.dtype)
        if has_memory:
            memory = _initial(b, c, number, batch, hidden, x.dtype)
        given: Operand = cell.of_input(x)
        if cell.bias is not None:
            given = b.shift(given, cell.part(cell.bias, 0, gates))
            given = _with_state_bias(cell, given, gates, inside)
        found: dict[int, Value] = {}
        for t in range(steps)[::way]:
            b.step()
            now = b.reshape(
                b.slice(given, (t, 0, 0), (1, 1, 1), (1, batch, gates * hidden)),
                (batch, gates * hidden),
            )
            state, memory = step(cell, now, state, memory)
            found[t] = state
        each = [b.reshape(found[t], (1, 1, batch, hidden)) for t in range(steps)]
        sequences.append(b.concat(each, 0))
        last.append(b.reshape(state, (1, batch, hidden)))
        if has_memory:
            memories.append(b.reshape(memory, (1, batch, hidden)))
    results = [b.concat(sequences, 1), b.concat(last, 0)]
    if memories:
        results.append(b.concat(memories, 0))
    if batch_first:
        results = [b.transpose(results[0], (2, 0, 1, 3)),
                   *(b.transpose(state, (1, 0, 2)) for state in results[1:])]  # fmt: skip
    return tuple(results)


def _with_state_bias(cell: Cell, given: Operand, gates: int, inside: int) -> Operand:
    """The bias of the state added to the gates, but for the last ``inside`` of them."""
    assert cell.bias is not None
    term = cell.part(cell.bias, gates, gates)
    if inside:
        zeros = cell.b.known(np.zeros(inside * cell.hidden, dtype=term.array.dtype))
        outside = cell.part(cell.bias, gates, gates - inside)
        joined = cell.b.concat([outside, zeros], 0)
        assert isinstance(joined, Known)
        term = joined
    return cell.b.shift(given, term)


def _check_lengths(b: Builder, lengths: Operand | None, steps: int) -> None:
    if lengths is not None and any(n != steps for n in b.ints_of(lengths, "sequence_lens")):
        raise b.refuse("sequences of different lengths", hint="sequences as long as the input")


def _initial(
    b: Builder, states: Operand | None, number: int, batch: int, hidden: int, dtype: str
) -> Value:
    """The initial state of a direction."""
    if states is None:
        return b.value(b.known(np.zeros((batch, hidden), dtype=dtype)))
    one = b.slice(states, (number, 0, 0), (1, 1, 1), (1, batch, hidden))
    return b.value(b.reshape(one, (batch, hidden)))


def _cells(
    b: Builder, node: onnx_ir.Node, gates: int, defaults: Sequence[str], directions: int,
    operands: Sequence[Operand | None],
) -> Iterator[Cell]:  # fmt: skip
    parts: list[Known | None] = []
    for operand, what in zip(operands, ("W", "R", "B", "P")):
        if operand is None:
            parts.append(None)
        elif isinstance(operand, Known) and is_float(operand.dtype):
            parts.append(operand)
        else:
            raise b.refuse(f"{what} depends on the input of the network")
    w, r, bias, p = parts
    assert w is not None
    assert r is not None
    if len(r.shape) != 3 or r.shape[1] != gates * r.shape[2] or w.shape[:2] != r.shape[:2]:
        raise b.misshapen(f"W {list(w.shape)} and R {list(r.shape)} do not fit together")
    hidden = node.attributes.get_int("hidden_size", r.shape[2])
    if hidden != r.shape[2] or r.shape[0] != directions:
        raise b.misshapen(f"R {list(r.shape)} for {hidden} hidden units, {directions} directions")
    for known, rows, what in ((bias, 2 * gates, "B"), (p, 3, "P")):
        if known is not None and known.shape != (directions, rows * hidden):
            raise b.misshapen(f"{what} {list(known.shape)}, not {[directions, rows * hidden]}")
    functions = list(_functions(b, node, [*defaults] * directions))
    clip = node.attributes.get_float("clip", 0.0) or 0.0
    for k in range(directions):
        own = [None if known is None else _direction(b, known, k) for known in (w, r, bias, p)]
        count = len(defaults)
        used = tuple(functions[k * count : (k + 1) * count])
        assert own[0] is not None
        assert own[1] is not None
        yield Cell(b, own[0], own[1], own[2], own[3], used, r.shape[2], clip)


def _direction(b: Builder, known: Known, number: int) -> Known:
    rest = known.shape[1:]
    one = b.slice(known, (number, *(0 for _ in rest)), [1] * len(known.shape), (1, *rest))
    result = b.reshape(one, rest)
    assert isinstance(result, Known)
    return result


def _functions(b: Builder, node: onnx_ir.Node, defaults: Sequence[str]) -> Iterator[Apply]:
    """Activation functions of all directions; alphas and betas are those of the ones with any."""
    names = node.attributes.get_strings("activations", list(defaults)) or defaults
    if len(names) != len(defaults):
        raise b.misshapen(f"{len(names)} activations where {len(defaults)} are needed")
    alphas = list(node.attributes.get_floats("activation_alpha", []) or [])
    betas = list(node.attributes.get_floats("activation_beta", []) or [])
    for name in names:
        if name.lower() not in ACTIVATIONS:
            raise b.refuse(f"the activation {name!r}")
        fn, numbers = ACTIVATIONS[name.lower()]
        values = [
            given.pop(0) if given else default for given, default in zip((alphas, betas), numbers)
        ]
        yield partial(_activated, b, fn, values)


def _activated(b: Builder, fn: str, values: Sequence[float], x: Operand) -> Value:
    if fn != "scaled_tanh":
        return b.activation(x, fn, *values)
    inner = b.activation(b.activation(x, "affine", values[1], 0.0), "tanh")
    return b.activation(inner, "affine", values[0], 0.0)
