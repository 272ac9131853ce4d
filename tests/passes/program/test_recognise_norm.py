"""ReduceMean, Sub, Pow, ReduceMean, Add, Sqrt, Div -> normalise, and its relatives."""

from __future__ import annotations

import pytest

from ngc.passes.program.recognise_norm import RecogniseNorm
from tests.passes.program.golden import golden, unchanged

PASS = RecogniseNorm()


def wide(name: str, rest: str, dtype: str = "float64") -> str:
    op, *fields = rest.split(" ", 1)
    return f"%{name} = {op} {dtype} [2,3,8] {fields[0]}"


def slim(name: str, rest: str) -> str:
    return wide(name, rest).replace("[2,3,8]", "[2,3,1]")


def act(name: str, fn: str, x: str, *a: float) -> str:
    numbers = f" a=[{','.join(map(str, a))}]" if a else ""
    return slim(name, f'activation x=%{x} fn="{fn}"{numbers}')


def mean(name: str, x: str, fn: str = "mean") -> str:
    return slim(name, f'reduce x=%{x} fn="{fn}" axes=[2] keepdims=true')


def combine(name: str, fn: str, *xs: str) -> str:
    return wide(name, f'combine xs=[{",".join("%" + x for x in xs)}] fn="{fn}"')


def square(name: str, x: str) -> str:
    return wide(name, f'activation x=%{x} fn="power" a=[2.0]')


def body(*lines: str) -> str:
    return "\n".join(["%x = input float64 [2,3,8]", *lines, "return y=%y"])


CENTRED = (mean("m", "x"), combine("c", "sub", "x", "m"))
VARIANCE = (*CENTRED, square("q", "c"), mean("v", "q"), act("e", "affine", "v", 1.0, 1e-5))
STANDARD = wide("y", 'normalise x=%x fn="standard" axes=[2] epsilon=1e-05')
RMS = wide("y", 'normalise x=%x fn="rms" axes=[2] epsilon=1e-06')
L2 = wide("y", 'normalise x=%x fn="l2" axes=[2] epsilon=1e-12')
L1 = wide("y", 'normalise x=%x fn="l1" axes=[2] epsilon=1e-12')
MEAN_SQUARE = (square("q", "x"), mean("v", "q"), act("e", "affine", "v", 1.0, 1e-6))
BOUND = ("n", 1e-12, "inf")

CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "standard": ((*VARIANCE, act("s", "sqrt", "e"), combine("y", "div", "c", "s")), STANDARD),
    "standard, reciprocal": (
        (
            *VARIANCE,
            act("s", "sqrt", "e"),
            act("r", "reciprocal", "s"),
            combine("y", "mul", "c", "r"),
        ),
        STANDARD,
    ),
    "standard, power": (
        (*VARIANCE, act("s", "power", "e", -0.5), combine("y", "mul", "s", "c")),
        STANDARD,
    ),
    "standard, two differences": (
        (
            *CENTRED,
            combine("c2", "sub", "x", "m"),
            combine("q", "mul", "c", "c"),
            mean("v", "q"),
            act("e", "affine", "v", 1.0, 1e-5),
            act("s", "sqrt", "e"),
            combine("y", "div", "c2", "s"),
        ),
        STANDARD,
    ),
    "rms": (
        (
            *MEAN_SQUARE,
            act("s", "sqrt", "e"),
            act("r", "reciprocal", "s"),
            combine("y", "mul", "x", "r"),
        ),
        RMS,
    ),
    "rms, division": ((*MEAN_SQUARE, act("s", "sqrt", "e"), combine("y", "div", "x", "s")), RMS),
    "l2": (
        (mean("n", "x", "l2"), act("b", "clip", *BOUND), combine("y", "div", "x", "b")),
        L2,
    ),
    "l2 of squares": (
        (
            square("q", "x"),
            mean("t", "q", "sum"),
            act("n", "sqrt", "t"),
            "%k = constant float64 [1] data=float64[1]{1e-12}",
            slim("b", 'combine xs=[%n,%k] fn="max"'),
            combine("y", "div", "x", "b"),
        ),
        L2,
    ),
    "l1": ((mean("n", "x", "l1"), act("b", "clip", *BOUND), combine("y", "div", "x", "b")), L1),
}


@pytest.mark.parametrize("case", CASES)
def test_recognised(case: str) -> None:
    lines, result = CASES[case]
    golden(PASS, body(*lines), body(result))


def test_a_variance_along_another_axis_is_the_rms_of_the_difference() -> None:
    lines = (
        *CENTRED,
        square("q", "c"),
        '%v = reduce float64 [2,1,8] x=%q fn="mean" axes=[1] keepdims=true',
        '%s = activation float64 [2,1,8] x=%v fn="sqrt"',
        combine("y", "div", "c", "s"),
    )
    rms = wide("y", 'normalise x=%c fn="rms" axes=[1]')
    golden(PASS, body(*lines), body(*CENTRED, rms))


UNCHANGED = {
    "squares of another value": (
        *CENTRED,
        *MEAN_SQUARE,
        act("s", "sqrt", "e"),
        combine("y", "div", "c", "s"),
    ),
    "unbiased variance": (
        *CENTRED,
        square("q", "c"),
        mean("v", "q"),
        act("u", "affine", "v", 8 / 7, 0.0),
        act("s", "sqrt", "u"),
        combine("y", "div", "c", "s"),
    ),
    "deviation read elsewhere": (
        *VARIANCE,
        act("s", "sqrt", "e"),
        combine("d", "div", "c", "s"),
        combine("y", "add", "d", "s"),
    ),
    "norm without a bound": (mean("n", "x", "l2"), combine("y", "div", "x", "n")),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_left_alone(case: str) -> None:
    unchanged(PASS, body(*UNCHANGED[case]))


GROUP_NORM = """
    @scale = param float32 [8]
    @bias = param float32 [8]
    %x = input float64 [2,8,5]
    %g = reshape float64 [2,4,10] x=%x
    %n = normalise float64 [2,4,10] x=%g fn="standard" axes=[2] epsilon=1e-05
    %o = scale float64 [2,4,10] x=%n factor=#1[4,1]
    %z = shift float64 [2,4,10] x=%o term=#0[4,1]
    %b = reshape float64 [2,8,5] x=%z
    %s = scale float64 [2,8,5] x=%b factor=@scale{[8,1] offset=0 strides=[1,0]}
    %t = shift float64 [2,8,5] x=%s term=@bias{[8,1] offset=0 strides=[1,0]}
    return y=%t
"""


def test_constant_ones_and_zeros_of_group_norm_go() -> None:
    after = GROUP_NORM.replace("%o = scale float64 [2,4,10] x=%n factor=#1[4,1]\n", "\n")
    after = after.replace("%z = shift float64 [2,4,10] x=%o term=#0[4,1]\n", "\n")
    golden(PASS, GROUP_NORM, after.replace("x=%z", "x=%n"))


def test_learned_scale_and_shift_stay() -> None:
    unchanged(PASS, GROUP_NORM.replace("#1[4,1]", "#0[4,1]").replace("term=#0", "term=#1"))
