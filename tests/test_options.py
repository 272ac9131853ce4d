"""Options are read in every form that the README gives, and wrong ones are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ngc
from ngc.errors import OptionError
from ngc.options import Options
from tests.test_tiny import tiny_model


@pytest.mark.parametrize("kernel", ["7x5", (7, 5), [7, 5], np.array([7, 5])])
def test_a_kernel_is_text_or_numbers(kernel: Any) -> None:
    assert Options(kernel=kernel) == Options(kernel=(7, 5))


def test_a_kernel_of_one_axis_is_one_number() -> None:
    assert Options(kernel=7).kernel == Options(kernel="7").kernel == (7,)


@pytest.mark.parametrize("axes", ["1,2", (1, 2), [1, 2]])
def test_axes_of_an_input_are_text_or_numbers(axes: Any) -> None:
    assert Options(input_axes={"x": axes}).input_axes == {"x": (1, 2)}
    assert Options(input_axes={"x": 1}).input_axes == {"x": (1,)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": "7y7"}, "cannot read the kernel size '7y7'"),
        ({"kernel": 7.5}, "cannot read the kernel size 7.5"),
        ({"kernel": (7, 1.5)}, r"cannot read the kernel size \(7, 1.5\)"),
        ({"kernel": "7x0"}, "kernel cannot be '7x0'"),
        ({"kernel": ()}, r"kernel cannot be \(\)"),
        ({"input_axes": {"x": "a"}}, "cannot read the axes 'a' of input x"),
        ({"input_axes": {"x": None}}, "cannot read the axes None of input x"),
        ({"input_axes": "x=1"}, "input_axes cannot be 'x=1'"),
        ({"flatten": ["kernel"]}, "flatten cannot be"),
    ],
)
def test_what_cannot_be_read_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Options(**changes)
    with pytest.raises(OptionError, match=message):
        ngc.compile(tiny_model(), **changes)


def test_an_unknown_option_is_named_beside_the_known_ones() -> None:
    with pytest.raises(
        OptionError,
        match=r"no option is called 'flaten'; options: flatten, kernel, .*\n  try: flat",
    ):
        ngc.compile(tiny_model(), flaten="kernel")


def test_options_reach_the_compilation() -> None:
    plan = ngc.compile(tiny_model(), kernel="3x3", input_axes={"x": "1"}).plan
    assert plan.edge_width == 9
    assert plan.options.input_axes == {"x": (1,)}
