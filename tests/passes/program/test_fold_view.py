"""Views of views -> one view; views that change nothing go; equal views are shared."""

from __future__ import annotations

import pytest

from ngc.passes.program.fold_view import FoldView
from tests.passes.program.golden import golden, unchanged

PASS = FoldView()


def test_transposes_compose() -> None:
    golden(
        PASS,
        """
        %x = input float64 [2,3,4]
        %a = transpose float64 [4,2,3] x=%x perm=[2,0,1]
        %y = transpose float64 [2,4,3] x=%a perm=[1,0,2]
        return y=%y
        """,
        """
        %x = input float64 [2,3,4]
        %y = transpose float64 [2,4,3] x=%x perm=[0,2,1]
        return y=%y
        """,
    )


def test_transposes_that_cancel_go_and_reshapes_meet() -> None:
    golden(
        PASS,
        """
        %x = input float64 [6,4]
        %a = reshape float64 [2,3,4] x=%x
        %b = transpose float64 [4,2,3] x=%a perm=[2,0,1]
        %c = transpose float64 [2,3,4] x=%b perm=[1,2,0]
        %y = reshape float64 [24] x=%c
        return y=%y
        """,
        """
        %x = input float64 [6,4]
        %y = reshape float64 [24] x=%x
        return y=%y
        """,
    )


@pytest.mark.parametrize(
    "line",
    [
        "reshape float64 [2,3] x=%x",
        "expand float64 [2,3] x=%x",
        "transpose float64 [2,3] x=%x perm=[0,1]",
        "slice float64 [2,3] x=%x starts=[0,0] steps=[1,1]",
        "take float64 [2,3] x=%x axis=1 index=int64[3]{0,1,2}",
        "select float64 [2,3] x=%x index=int64[2,3]{0,1,2,3,4,5}",
        "concat float64 [2,3] xs=[%x] axis=0",
        "pad float64 [2,3] x=%x pads=[0,0,0,0]",
        "cast float64 [2,3] x=%x",
        'activation float64 [2,3] x=%x fn="affine" a=[1.0,0.0]',
    ],
)
def test_what_changes_nothing_goes(line: str) -> None:
    head = "%x = input float64 [2,3]\n"
    golden(PASS, f"{head}%a = {line}\nreturn y=%a", f"{head}return y=%x")


def test_equal_views_are_shared() -> None:
    golden(
        PASS,
        """
        %x = input float64 [2,3]
        %a = transpose float64 [3,2] x=%x perm=[1,0]
        %b = transpose float64 [3,2] x=%x perm=[1,0]
        %y = combine float64 [3,2] xs=[%a,%b] fn="mul"
        return y=%y
        """,
        """
        %x = input float64 [2,3]
        %a = transpose float64 [3,2] x=%x perm=[1,0]
        %y = combine float64 [3,2] xs=[%a,%a] fn="mul"
        return y=%y
        """,
    )


def test_an_expand_before_a_combine_goes() -> None:
    golden(
        PASS,
        """
        %x = input float64 [2,3]
        %m = reduce float64 [2,1] x=%x fn="max" axes=[1] keepdims=true
        %e = expand float64 [2,3] x=%m
        %y = combine float64 [2,3] xs=[%x,%e] fn="sub"
        return y=%y
        """,
        """
        %x = input float64 [2,3]
        %m = reduce float64 [2,1] x=%x fn="max" axes=[1] keepdims=true
        %y = combine float64 [2,3] xs=[%x,%m] fn="sub"
        return y=%y
        """,
    )


def test_an_expand_that_gives_the_shape_stays_once() -> None:
    golden(
        PASS,
        """
        %x = input float64 [2,1]
        %e = expand float64 [2,3] x=%x
        %f = expand float64 [2,3] x=%x
        %y = combine float64 [2,3] xs=[%e,%f] fn="sub"
        return y=%y
        """,
        """
        %x = input float64 [2,1]
        %f = expand float64 [2,3] x=%x
        %y = combine float64 [2,3] xs=[%x,%f] fn="sub"
        return y=%y
        """,
    )


def test_views_that_move_something_stay() -> None:
    unchanged(
        PASS,
        """
        %x = input float64 [2,3]
        %i = input int64 [2,3]
        %a = transpose float64 [3,2] x=%x perm=[1,0]
        %b = reshape float64 [2,3] x=%a
        %c = cast float64 [2,3] x=%i
        %d = slice float64 [2,3] x=%b starts=[1,0] steps=[-1,1]
        return b=%d c=%c
        """,
    )
