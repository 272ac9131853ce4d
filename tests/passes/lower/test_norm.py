"""Normalisations: known statistics, statistics of the activation, learned scale and shift."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ngc.errors import ShapeError, UnsupportedOps
from ngc.ir import program as ir
from ngc.ir.slots import Slots
from tests.passes.lower.one_node import Given, given, noise, one

C = 4
STATISTICS = (noise(C), noise(C, seed=1), noise(C, seed=2), np.abs(noise(C, seed=3)) + 0.5)


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
@pytest.mark.parametrize("space", [(), (3,), (2, 3)])
def test_batch_normalization_is_one_operation(opset: int, space: tuple[int, ...]) -> None:
    case = one("BatchNormalization", given(2, C, *space), *STATISTICS, opset=opset, epsilon=0.01)
    op = case.agrees().only(ir.BatchNorm)
    assert [slots.offset for slots in op.operands.values()] == [2, 6, 10, 14]
    assert op.epsilon == pytest.approx(0.01)


def test_batch_normalization_with_statistics_that_are_activations() -> None:
    scale, bias, mean, var = STATISTICS
    case = one("BatchNormalization", given(2, C, 3), scale, bias, mean, Given(var)).agrees()
    assert "batch_norm" not in case.mnemonics


def test_batch_normalization_of_a_vector_has_one_channel() -> None:
    one("BatchNormalization", given(5), *(part[:1] for part in STATISTICS)).run()


TRAINING: list[tuple[int, int, dict[str, Any], str]] = [
    (15, 1, {"training_mode": 1}, "training_mode is set"),
    (9, 5, {}, "outputs of training"),
]


@pytest.mark.parametrize(("opset", "outputs", "attributes", "message"), TRAINING)
def test_training_is_refused(
    opset: int, outputs: int, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UnsupportedOps, match=message):
        one(
            "BatchNormalization",
            given(2, C, 3),
            *STATISTICS,
            opset=opset,
            outputs=outputs,
            **attributes,
        )


def test_statistics_per_place_are_refused() -> None:
    parts = [np.ones((C, 3), np.float32)] * 4
    with pytest.raises(UnsupportedOps, match="spatial is 0"):
        one("BatchNormalization", given(2, C, 3), *parts, opset=7, spatial=0)


@pytest.mark.parametrize("opset", [7, 22])
def test_instance_normalization(opset: int) -> None:
    x = given(2, C, 3, 5)
    case = one("InstanceNormalization", x, noise(C), noise(C), opset=opset).agrees()
    normalise, scale, shift = case.ops
    assert isinstance(normalise, ir.Normalise)
    assert (normalise.fn, normalise.axes) == ("standard", (2, 3))
    assert scale.operands["factor"] == Slots.contiguous((1, C, 1, 1), 2)
    assert shift.operands["term"] == Slots.contiguous((1, C, 1, 1), 6)


@pytest.mark.parametrize("axis", [-1, 1, 0])
@pytest.mark.parametrize("biased", [True, False])
def test_layer_normalization(axis: int, biased: bool) -> None:
    shape = (2, 3, 5)
    parts = [noise(*shape[axis:]), noise(*shape[axis:])][: 1 + biased]
    case = one("LayerNormalization", given(*shape), *parts, opset=17, axis=axis).agrees()
    assert case.mnemonics == ["normalise", "scale", "shift"][: 2 + biased]


def test_layer_normalization_gives_its_statistics() -> None:
    case = one("LayerNormalization", given(2, 3, 5), noise(5), opset=17, outputs=3).agrees()
    _, mean, inverse = case.run()
    assert mean.shape == inverse.shape == (2, 3, 1)


@pytest.mark.parametrize(("opset", "count"), [(18, 2), (21, C)])
def test_group_normalization(opset: int, count: int) -> None:
    parts = noise(count), noise(count)
    x = given(2, C, 3, 5)
    case = one("GroupNormalization", x, *parts, opset=opset, num_groups=2).agrees()
    scale = next(op for op in case.ops if isinstance(op, ir.Scale))
    # Per group before opset 21, while the groups are an axis; per channel since.
    assert scale.factor.shape == (1, count, 1, 1, *(1 for _ in range(opset == 18)))


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_normalization(axis: int) -> None:
    shape = (2, 3, 5)
    case = one("RMSNormalization", given(*shape), noise(*shape[axis:]), opset=23, axis=axis)
    assert case.agrees(1e-4).mnemonics == ["normalise", "scale"]


def test_scale_and_shift_may_be_activations() -> None:
    case = one("LayerNormalization", given(2, 5), given(5), given(5), opset=17).agrees()
    assert case.mnemonics == ["normalise", "combine", "combine"]


OTHERS: list[tuple[str, int, dict[str, Any], str]] = [
    ("LpNormalization", 22, {"axis": 1, "p": 1}, "l1"),
    ("LpNormalization", 1, {}, "l2"),
    ("MeanVarianceNormalization", 13, {}, "standard"),
    ("MeanVarianceNormalization", 9, {"axes": [0, 1]}, "standard"),
    ("LRN", 13, {"size": 3, "alpha": 0.3, "bias": 2.0}, "lrn"),
]


@pytest.mark.parametrize(("op_type", "opset", "attributes", "fn"), OTHERS)
def test_one_normalise(op_type: str, opset: int, attributes: dict[str, Any], fn: str) -> None:
    case = one(op_type, given(2, C, 3, 5), opset=max(opset, 7), **attributes)
    assert case.agrees().only(ir.Normalise).fn == fn


def test_a_vector_of_norm_0_stays_0() -> None:
    result = one("LpNormalization", Given(np.zeros((2, 3), np.float32))).run()[0]
    np.testing.assert_array_equal(result, np.zeros((2, 3)))


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("BatchNormalization", (given(2, 3), *STATISTICS), {}, "for 3 channels"),
    ("InstanceNormalization", (given(2, C), noise(C), noise(C)), {}, r"x \[2, 4\]"),
    ("LayerNormalization", (given(2, 5), noise(4)), {}, "do not broadcast"),
    ("LayerNormalization", (given(5), noise(2, 5)), {}, "does not broadcast"),
    ("GroupNormalization", (given(2, C, 3), noise(C), noise(C)), {"num_groups": 3}, "3 groups"),
    ("LRN", (given(2, C, 3),), {"size": 0}, "size 0"),
]


@pytest.mark.parametrize(("op_type", "operands", "attributes", "message"), BAD)
def test_what_does_not_fit_is_an_error(
    op_type: str, operands: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        one(op_type, *operands, **attributes)
