"""Inputs that reach what a network does with them."""

from __future__ import annotations

import numpy as np
import pytest

from ngc.ir.text import parse_program
from ngc.samples import FREE_INTEGERS, random_inputs, tensors

OFFSET = """%k = constant int64 [] data=int64[]{7}
  %i = combine int64 [500] xs=[%x,%k] fn="add"
"""

TABLE = """
  @w = param float32 [{rows},2]
  %x = input int64 [500]
  {steps}
  %y = embedding float32 [500,2] ids=%i weight=@w
  return y=%y
"""


@pytest.mark.parametrize(
    ("steps", "largest"),
    [
        ("%i = reshape int64 [500] x=%x", 39),
        (OFFSET, 32),
        ('%i = combine int64 [500] xs=[%x,%x] fn="mul"', 1),
    ],
)
def test_ids_reach_every_row_of_a_table_and_none_beyond(steps: str, largest: int) -> None:
    program = parse_program("program p {" + TABLE.format(rows=40, steps=steps) + "}\n")
    ids = random_inputs(program, 0)["x"]
    assert (ids.min(), ids.max()) == (0, largest)


def test_integers_that_are_compared_reach_the_largest_number_they_are_compared_with() -> None:
    text = """program p {
  %x = input int32 [200,1]
  %k = constant int32 [5] data=int32[5]{0,1,2,3,4}
  %y = combine bool [200,5] xs=[%x,%k] fn="equal"
  return y=%y
}
"""
    assert random_inputs(parse_program(text), 0)["x"].max() == 4


def test_free_integers_differ_and_fit_their_type() -> None:
    text = """program p {
  %x = input int64 [3000]
  %s = input int8 [3000]
  return x=%x s=%s
}
"""
    found = random_inputs(parse_program(text), 0)
    assert found["x"].max() == FREE_INTEGERS - 1
    assert 0 <= found["s"].min() < found["s"].max() <= 126


def test_scalar_inputs_stay_scalars() -> None:
    program = parse_program("program p {\n  %x = input float32 []\n  return x=%x\n}\n")
    inputs = random_inputs(program, 0)
    assert inputs["x"].shape == ()
    assert inputs["x"].dtype == np.float32
    assert tensors(inputs)["x"].shape == ()
