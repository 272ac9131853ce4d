"""LSTM, GRU and RNN against onnxruntime, attribute by attribute."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ngc.errors import ShapeError, UnsupportedOps
from ngc.ir import program as ir
from tests.passes.lower.one_node import Case, Given, given, noise, one

STEPS, BATCH, INPUTS, HIDDEN = 4, 2, 3, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
OUTPUTS = {"LSTM": 3, "GRU": 2, "RNN": 2}


def recurrent(
    kind: str, *, ways: int = 1, bias: bool = True, states: bool | Given = False,
    peepholes: bool = False, lengths: Any = None, **attributes: Any,
) -> Case:  # fmt: skip
    rows = GATES[kind] * HIDDEN
    operands: list[Any] = [
        given(STEPS, BATCH, INPUTS),
        noise(ways, rows, INPUTS) * 0.5,
        noise(ways, rows, HIDDEN, seed=1) * 0.5,
        noise(ways, 2 * rows) * 0.5 if bias else None,
        lengths,
    ]
    if states:
        number = 2 if kind == "LSTM" else 1
        operands += [given(ways, BATCH, HIDDEN, seed=k + 2) for k in range(number)]
    if peepholes:
        operands += [None] * (7 - len(operands))
        operands.append(noise(ways, 3 * HIDDEN) * 0.5)
    return one(kind, *operands, outputs=OUTPUTS[kind], opset=14, hidden_size=HIDDEN, **attributes)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", GATES)
def test_every_direction_with_and_without_states(
    kind: str, direction: str, states: bool, bias: bool
) -> None:
    ways = 2 if direction == "bidirectional" else 1
    recurrent(kind, ways=ways, bias=bias, states=states, direction=direction).agrees()


@pytest.mark.parametrize("states", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("after", [0, 1])
def test_the_reset_of_a_gru_comes_before_or_after_its_linear(
    after: int, bias: bool, states: bool
) -> None:
    recurrent("GRU", bias=bias, states=states, linear_before_reset=after).agrees()


@pytest.mark.parametrize("states", [True, False])
def test_peepholes_and_coupled_gates(states: bool) -> None:
    recurrent("LSTM", peepholes=True, states=states).agrees()
    recurrent("LSTM", input_forget=1, states=states).agrees()
    recurrent("LSTM", input_forget=1, peepholes=True, states=states).agrees()


@pytest.mark.parametrize("kind", GATES)
def test_clipped_gates(kind: str) -> None:
    recurrent(kind, clip=0.3, states=True).agrees()


@pytest.mark.parametrize(
    ("names", "alpha", "beta"),
    [
        (["Relu", "Tanh", "Sigmoid"], [], []),
        (["HardSigmoid", "Softsign", "Softplus"], [0.3], [0.4]),
        (["HardSigmoid", "ScaledTanh", "Elu"], [0.3, 1.2, 0.7], [0.4, 0.9]),
        (["Sigmoid", "LeakyRelu", "Affine"], [0.2, 0.8], [0.1]),
        (["Sigmoid", "ThresholdedRelu", "Tanh"], [0.3], []),
    ],
)
def test_other_activations(names: list[str], alpha: list[float], beta: list[float]) -> None:
    numbers: dict[str, Any] = {}
    if alpha:
        numbers["activation_alpha"] = alpha
    if beta:
        numbers["activation_beta"] = beta
    recurrent("LSTM", activations=names, states=True, **numbers).agrees()


def test_each_direction_has_its_activations() -> None:
    names = ["Relu", "Sigmoid"]
    recurrent("RNN", ways=2, direction="bidirectional", activations=names).agrees()


def test_lengths_as_long_as_the_input_are_none() -> None:
    recurrent("LSTM", lengths=np.full(BATCH, STEPS, np.int32)).agrees()
    with pytest.raises(UnsupportedOps, match="sequences of different lengths"):
        recurrent("LSTM", lengths=np.array([STEPS, 1], np.int32))


def test_what_the_input_gives_is_one_linear() -> None:
    """Shared by all steps; each step adds what the state gives, the first one's zeros too."""
    linears = [op for op in recurrent("LSTM").ops if isinstance(op, ir.Linear)]
    assert len(linears) == 1 + STEPS


def test_what_does_not_fit_is_refused() -> None:
    x = given(STEPS, BATCH, INPUTS)
    with pytest.raises(ShapeError, match="do not fit together"):
        one("RNN", x, noise(1, 5, 3), noise(1, 4, 5), opset=14, hidden_size=5)
    with pytest.raises(UnsupportedOps, match="R depends on the input"):
        one("RNN", x, noise(1, 5, 3), given(1, 5, 5), opset=14, hidden_size=5)
    with pytest.raises(UnsupportedOps, match="the activation 'Wave'"):
        one("RNN", x, noise(1, 5, 3), noise(1, 5, 5), opset=14, activations=["Wave"])
