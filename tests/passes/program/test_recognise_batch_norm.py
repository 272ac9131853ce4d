"""Sub(mean), Mul(scale), Add(bias) along axis 1 -> batch_norm."""

from __future__ import annotations

from ngc.passes.program.recognise_batch_norm import RecogniseBatchNorm
from tests.passes.program.golden import golden, unchanged

PASS = RecogniseBatchNorm()

BEFORE = """
    @m = param float32 [3]
    @s = param float32 [1,3,1,1]
    @b = param float32 [3,1,1]
    %x = input float64 [2,3,4,5]
    %c = shift float64 [2,3,4,5] x=%x term=@m{[3,1,1] offset=0 strides=[1,0,0]} fn="sub"
    %f = scale float64 [2,3,4,5] x=%c factor=@s
    %y = shift float64 [2,3,4,5] x=%f term=@b
    return y=%y
"""

AFTER = """
    @m = param float32 [3]
    @s = param float32 [1,3,1,1]
    @b = param float32 [3,1,1]
    %x = input float64 [2,3,4,5]
    %y = batch_norm float64 [2,3,4,5] x=%x \
scale=@s{[3] offset=0 strides=[1]} bias=@b{[3] offset=0 strides=[1]} mean=@m var=#1[3] epsilon=0.0
    return y=%y
"""


def test_channels_first() -> None:
    golden(PASS, BEFORE, AFTER)


def test_features_of_a_dense_layer_are_axis_1() -> None:
    text = """
        @p = param float32 [3,4]
        %x = input float64 [2,4]
        %c = shift float64 [2,4] x=%x term=@p{[4] offset=0 strides=[1]} fn="sub"
        %f = scale float64 [2,4] x=%c factor=@p{[4] offset=4 strides=[1]}
        %y = shift float64 [2,4] x=%f term=@p{[4] offset=8 strides=[1]}
        return y=%y
    """
    views = [f"@p{{[4] offset={offset} strides=[1]}}" for offset in (0, 4, 8)]
    golden(
        PASS,
        text,
        f"""
        @p = param float32 [3,4]
        %x = input float64 [2,4]
        %y = batch_norm float64 [2,4] x=%x scale={views[1]} bias={views[2]} mean={views[0]} \
var=#1[4] epsilon=0.0
        return y=%y
        """,
    )


def test_channels_last_stays() -> None:
    text = """
        @m = param float32 [3]
        %x = input float64 [2,4,5,3]
        %c = shift float64 [2,4,5,3] x=%x term=@m fn="sub"
        %f = scale float64 [2,4,5,3] x=%c factor=@m
        %y = shift float64 [2,4,5,3] x=%f term=@m
        return y=%y
    """
    unchanged(PASS, text)


def test_without_a_mean_it_stays() -> None:
    unchanged(PASS, BEFORE.replace(' fn="sub"', ""))


def test_an_operand_that_varies_by_position_stays() -> None:
    text = BEFORE.replace("@s = param float32 [1,3,1,1]", "@s = param float32 [1,3,4,1]")
    unchanged(PASS, text)


def test_an_inner_value_read_elsewhere_stays() -> None:
    unchanged(PASS, BEFORE.replace("return y=%y", "return y=%y f=%f"))
