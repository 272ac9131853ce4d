"""Constants that would blow up are refused before they are evaluated."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from ngc.budget import DEFAULT, Budget
from ngc.errors import BudgetError
from ngc.passes.lower.afford import afford_evaluation

HUGE = np.array([2**40], dtype=np.int64)
ROW, COLUMN = np.ones((1, 2**16), np.float32), np.ones((2**16, 1), np.float32)
ONE = np.ones(1, np.float32)
IMAGE = np.ones((1, 1, 2, 2), np.float32)


def evaluate(
    op: str, *arrays: np.ndarray | None, budget: Budget = DEFAULT, **attributes: object
) -> None:
    names = [f"i{k}" if array is not None else "" for k, array in enumerate(arrays)]
    node = helper.make_node(op, names, ["y"], **attributes)
    feeds = {name: array for name, array in zip(names, arrays) if array is not None}
    afford_evaluation(node, feeds, [helper.make_opsetid("", 18)], budget, "node")


@pytest.mark.parametrize(
    ("op", "operands"),
    [
        ("ConstantOfShape", [HUGE]),
        ("Expand", [ONE, HUGE]),
        ("Tile", [ONE, HUGE]),
        ("Range", [np.array(0), HUGE[0], np.array(1)]),
        ("Pad", [ONE, np.array([0, 2**40])]),
        ("OneHot", [np.array([1]), HUGE[0], np.array([0.0, 1.0], np.float32)]),
        ("Resize", [IMAGE, None, None, np.array([1, 1, 2**20, 2**20])]),
        ("HannWindow", [HUGE[0]]),
        ("Add", [ROW, COLUMN]),
        ("MatMul", [COLUMN, ROW]),
    ],
)
def test_a_result_over_the_budget_is_refused(op: str, operands: list[np.ndarray | None]) -> None:
    with pytest.raises(BudgetError, match=r"node: a constant of .* entries is over the budget"):
        evaluate(op, *operands)


def test_work_is_bounded_too() -> None:
    square = np.ones((64, 64), np.float32)
    evaluate("MatMul", square, square, budget=Budget(max_work=64**3))
    with pytest.raises(BudgetError, match="MatMul of constants takes 262,144 steps"):
        evaluate("MatMul", square, square, budget=Budget(max_work=64**3 - 1))


def test_operators_evaluated_in_python_are_bounded_closely() -> None:
    with pytest.raises(BudgetError, match="MaxPool of a constant of 4,194,304 entries"):
        evaluate("MaxPool", np.ones((1, 1, 2048, 2048), np.float32), kernel_shape=[1, 1])


def test_what_is_small_passes() -> None:
    evaluate("Add", ONE, ONE)
    evaluate("Resize", IMAGE, None, None, np.array([1, 1, 4, 4]))
