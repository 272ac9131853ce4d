"""Pools over everything, sums times 1 / count and dropped axes -> one reduce."""

from __future__ import annotations

import pytest

from ngc.passes.program.recognise_reduce import RecogniseReduce
from tests.passes.program.golden import golden, unchanged

PASS = RecogniseReduce()

POOL = """
    %x = input float64 [2,3,4,5]
    %y = pool float64 [2,3,1,1] x=%x fn="mean" kernel=[4,5] strides=[4,5] pads=[0,0,0,0] \
dilations=[1,1]
    return y=%y
"""


@pytest.mark.parametrize("fn", ["mean", "max", "lp"])
def test_a_pool_over_the_whole_extent(fn: str) -> None:
    reduced = "l2" if fn == "lp" else fn
    golden(
        PASS,
        POOL.replace("mean", fn),
        f"""
        %x = input float64 [2,3,4,5]
        %y = reduce float64 [2,3,1,1] x=%x fn="{reduced}" axes=[2,3] keepdims=true
        return y=%y
        """,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"[2,3,1,1]": "[2,3,1,2]", "kernel=[4,5] strides=[4,5]": "kernel=[4,4] strides=[1,1]"},
        {"kernel=[4,5]": "kernel=[4,6]", "pads=[0,0,0,0]": "pads=[0,0,0,1]"},
        {'fn="mean"': 'fn="lp"', "dilations=[1,1]": "dilations=[1,1] p=3"},
    ],
)
def test_other_pools_stay(changes: dict[str, str]) -> None:
    text = POOL
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    unchanged(PASS, text)


def test_a_sum_over_its_count() -> None:
    golden(
        PASS,
        """
        %x = input float64 [2,8]
        %s = reduce float64 [2] x=%x fn="sum" axes=[1] keepdims=false
        %y = activation float64 [2] x=%s fn="affine" a=[0.125,0.0]
        return y=%y
        """,
        """
        %x = input float64 [2,8]
        %y = reduce float64 [2] x=%x fn="mean" axes=[1] keepdims=false
        return y=%y
        """,
    )


def test_a_sum_over_another_number_stays() -> None:
    unchanged(
        PASS,
        """
        %x = input float64 [2,1000]
        %s = reduce float64 [2] x=%x fn="sum" axes=[1] keepdims=false
        %y = activation float64 [2] x=%s fn="affine" a=[0.000999,0.0]
        return y=%y
        """,
    )


def test_axes_dropped_and_put_back() -> None:
    golden(
        PASS,
        """
        %x = input float64 [2,8,3]
        %s = reduce float64 [2,3] x=%x fn="max" axes=[1] keepdims=false
        %y = reshape float64 [2,1,3] x=%s
        return y=%y
        """,
        """
        %x = input float64 [2,8,3]
        %y = reduce float64 [2,1,3] x=%x fn="max" axes=[1] keepdims=true
        return y=%y
        """,
    )


def test_axes_put_back_elsewhere_stay() -> None:
    unchanged(
        PASS,
        """
        %x = input float64 [2,8,3]
        %s = reduce float64 [2,3] x=%x fn="max" axes=[1] keepdims=false
        %y = reshape float64 [2,3,1] x=%s
        return y=%y
        """,
    )
