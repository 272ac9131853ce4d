"""Operations without parameters that compute the same become one."""

from __future__ import annotations

from ngc.passes.program.share_values import ShareValues
from tests.passes.program.golden import golden, unchanged

PASS = ShareValues()


def test_equal_chains_are_computed_once() -> None:
    golden(
        PASS,
        """
        %x = input float64 [5]
        %a = activation float64 [5] x=%x fn="relu"
        %b = activation float64 [5] x=%a fn="exp"
        %c = activation float64 [5] x=%x fn="relu"
        %d = activation float64 [5] x=%c fn="exp"
        %y = combine float64 [5] xs=[%b,%d] fn="add"
        return y=%y d=%d
        """,
        """
        %x = input float64 [5]
        %a = activation float64 [5] x=%x fn="relu"
        %b = activation float64 [5] x=%a fn="exp"
        %y = combine float64 [5] xs=[%b,%b] fn="add"
        return y=%y d=%b
        """,
    )


def test_inputs_parameters_and_what_differs_stay() -> None:
    unchanged(
        PASS,
        """
        @w = param float32 [5]
        %x = input float64 [5]
        %z = input float64 [5]
        %a = scale float64 [5] x=%x factor=@w
        %b = scale float64 [5] x=%x factor=@w
        %c = activation float64 [5] x=%z fn="elu" a=[1.0]
        %d = activation float64 [5] x=%z fn="elu" a=[2.0]
        return a=%a b=%b c=%c d=%d
        """,
    )
