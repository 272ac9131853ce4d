"""Conv and ConvTranspose in all their attributes, with weights known and not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ngc.errors import ShapeError, UnsupportedOps
from ngc.ir import program as ir
from ngc.ir.slots import Slots
from tests.passes.lower.one_node import Given, given, noise, one


def test_conv_is_a_convolution_and_a_shift() -> None:
    case = one("Conv", given(1, 4, 5, 5), noise(6, 2, 3, 3), noise(6), group=2, pads=[1, 0, 2, 1])
    convolution, shift = case.agrees().ops
    assert isinstance(convolution, ir.Convolution)
    assert convolution.weight == Slots.contiguous((6, 2, 3, 3), 2)
    assert (convolution.groups, convolution.pads) == (2, (1, 0, 2, 1))
    assert isinstance(shift, ir.Shift)
    assert shift.term == Slots.contiguous((6,), 110).reshape((1, 6, 1, 1))


# spatial size, kernel, groups, attributes
CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], int, dict[str, Any]]] = [
    ((7,), (3,), 1, {"strides": [2], "pads": [1, 1]}),
    ((7,), (3,), 4, {"auto_pad": "VALID"}),
    ((6, 7), (3, 2), 2, {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [0, 1, 2, 0]}),
    ((6, 7), (2, 3), 1, {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    ((6, 7), (2, 4), 1, {"auto_pad": "SAME_LOWER", "strides": [1, 2]}),
    ((6, 7), (1, 1), 1, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((4, 5, 6), (2, 3, 1), 4, {"strides": [2, 1, 2], "pads": [1, 1, 0, 0, 1, 0]}),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("opset", [7, 11, 22])
@pytest.mark.parametrize(("space", "kernel", "groups", "attributes"), CONVOLUTIONS)
def test_convolutions(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    groups: int,
    attributes: dict[str, Any],
    opset: int,
    dynamic: bool,
) -> None:
    weight = noise(4, 4 // groups, *kernel)
    w = Given(weight) if dynamic else weight
    case = one("Conv", given(2, 4, *space), w, opset=opset, group=groups, **attributes).agrees()
    assert case.ops[-1].out.shape[:2] == (2, 4)
    assert ("contract" in case.mnemonics) == dynamic


# spatial size, kernel, attributes; two groups
TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((4,), (3,), {"strides": [2], "pads": [1, 0], "output_padding": [1]}),
    ((4, 3), (3, 2), {"strides": [2, 3], "dilations": [2, 1], "kernel_shape": [3, 2]}),
    ((4, 3), (3, 3), {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((4, 3), (3, 3), {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((4, 3), (1, 2), {"strides": [3, 3], "auto_pad": "SAME_UPPER"}),
    ((4, 3), (3, 3), {"strides": [2, 2], "output_shape": [8, 6]}),
    ((4, 3), (3, 3), {"strides": [2, 2], "output_shape": [8, 6], "auto_pad": "SAME_UPPER"}),
    ((4, 3), (3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ((2, 3, 2), (2, 1, 3), {"strides": [1, 2, 2], "pads": [0, 0, 1, 1, 0, 1]}),
]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("opset", [7, 22])
@pytest.mark.parametrize(("space", "kernel", "attributes"), TRANSPOSED)
def test_transposed_convolutions(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    attributes: dict[str, Any],
    opset: int,
    dynamic: bool,
) -> None:
    weight = noise(4, 3, *kernel)
    w = Given(weight) if dynamic else weight
    x, bias = given(2, 4, *space), noise(6)
    case = one("ConvTranspose", x, w, bias, opset=opset, group=2, **attributes).agrees()
    assert case.mnemonics[-1] == "shift"
    assert ("contract" in case.mnemonics) == dynamic


def test_the_weight_of_a_transposed_convolution_keeps_its_layout() -> None:
    op = one("ConvTranspose", given(1, 4, 3, 3), noise(4, 2, 3, 3)).only(ir.ConvolutionTranspose)
    assert op.weight == Slots.contiguous((4, 2, 3, 3), 2)


def test_a_bias_that_is_an_activation_is_added() -> None:
    case = one("Conv", given(1, 2, 4), noise(3, 2, 2), Given(noise(3))).agrees()
    assert case.mnemonics == ["convolution", "reshape", "combine"]


ONE = np.ones((1, 1, 2, 2), np.float32)
BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], str]] = [
    ("Conv", (given(1, 3, 4, 4), ONE), {}, "1 groups, 3 channels"),
    ("Conv", (given(1, 1, 4, 4), ONE), {"kernel_shape": [3, 3]}, "do not fit together"),
    ("Conv", (given(1, 1, 4), ONE), {}, "do not fit together"),
    ("Conv", (given(1, 1, 4, 4), ONE), {"strides": [0, 1]}, r"strides \[0, 1\]"),
    ("Conv", (given(1, 1, 4, 4), ONE), {"pads": [1, 1]}, "2 pads for 2 spatial axes"),
    ("Conv", (given(1, 1, 4, 4), ONE), {"auto_pad": "SAME"}, "auto_pad 'SAME'"),
    ("Conv", (given(1, 1, 1, 4), ONE), {}, "a window of 2 entries does not fit 1"),
    ("Conv", (given(1, 1, 4, 4), ONE, noise(2)), {}, r"bias \[2\] for 1 channels"),
    ("ConvTranspose", (given(1, 2, 4, 4), ONE), {}, "1 groups, 2 channels"),
    ("ConvTranspose", (given(1, 1, 1, 1), ONE), {"pads": [3, 0, 0, 0]}, "crop more than there is"),
    ("ConvTranspose", (given(1, 1, 4, 4), ONE), {"output_padding": [1]}, "output_padding"),
]


@pytest.mark.parametrize(("op_type", "operands", "attributes", "message"), BAD)
def test_what_does_not_fit_is_an_error(
    op_type: str, operands: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        one(op_type, *operands, **attributes)


def test_deformable_convolution_is_refused() -> None:
    with pytest.raises(UnsupportedOps, match=r"node: DeformConv \(opset 22\) is not supported"):
        one("DeformConv", given(1, 1, 3, 3), ONE, given(1, 8, 2, 2), opset=22)
