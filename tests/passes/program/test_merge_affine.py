"""c (a x + b) + d -> (c a) x + (c b + d)."""

from __future__ import annotations

from ngc.passes.program.merge_affine import MergeAffine
from tests.passes.program.golden import golden, unchanged

PASS = MergeAffine()

CHAIN = """
    %x = input float64 [5]
    %a = activation float64 [5] x=%x fn="affine" a=[2.0,1.0]
    %b = activation float64 [5] x=%a fn="affine" a=[3.0,0.0]
    %y = activation float64 [5] x=%b fn="affine" a=[1.0,-4.0]
    return y=%y
"""


def test_a_chain_becomes_one() -> None:
    golden(
        PASS,
        CHAIN,
        """
        %x = input float64 [5]
        %y = activation float64 [5] x=%x fn="affine" a=[6.0,-1.0]
        return y=%y
        """,
    )


def test_the_identity_goes() -> None:
    golden(
        PASS,
        """
        %x = input int64 [5]
        %y = activation int64 [5] x=%x fn="affine" a=[1.0,0.0]
        return y=%y
        """,
        "%x = input int64 [5]\nreturn y=%x",
    )


def test_integers_stay() -> None:
    unchanged(PASS, CHAIN.replace("float64", "int64"))


def test_values_read_elsewhere_stay() -> None:
    unchanged(PASS, CHAIN.replace("return y=%y", "return y=%y a=%a b=%b"))
