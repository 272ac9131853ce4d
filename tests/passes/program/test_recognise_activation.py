"""x * sigmoid(x) -> silu, and the other activations that exporters break up."""

from __future__ import annotations

import pytest

from ngc.passes.program.recognise_activation import FORMS, RecogniseActivation
from tests.passes.program.golden import golden, unchanged

PASS = RecogniseActivation()


def act(name: str, fn: str, x: str, *a: float) -> str:
    numbers = f" a=[{','.join(map(str, a))}]" if a else ""
    return f'%{name} = activation float64 [50] x=%{x} fn="{fn}"{numbers}'


def affine(name: str, x: str, factor: float, term: float) -> str:
    return act(name, "affine", x, factor, term)


def combine(name: str, fn: str, *xs: str, dtype: str = "float64") -> str:
    refs = ",".join(f"%{x}" for x in xs)
    return f'%{name} = combine {dtype} [50] xs=[{refs}] fn="{fn}"'


def body(*lines: str) -> str:
    return "\n".join(["%x = input float64 [50]", *lines, "return y=%y"])


ERF = (affine("u", "x", 0.70710678, 0.0), act("e", "erf", "u"))
CUBED = (
    act("c", "power", "x", 3.0),
    affine("d", "c", 0.044715, 0.0),
    combine("s", "add", "x", "d"),
)
INNER = (*CUBED, affine("i", "s", 0.7978845608, 0.0), act("t", "tanh", "i"))

CASES: dict[str, tuple[tuple[str, ...], str]] = {
    "silu": (
        (act("s", "sigmoid", "x"), combine("y", "mul", "x", "s")),
        act("y", "silu", "x"),
    ),
    "silu, sigmoid first": (
        (act("s", "sigmoid", "x"), combine("y", "mul", "s", "x")),
        act("y", "silu", "x"),
    ),
    "swish": (
        (affine("a", "x", 1.702, 0.0), act("s", "sigmoid", "a"), combine("y", "mul", "x", "s")),
        act("y", "swish", "x", 1.702),
    ),
    "gelu, half last": (
        (
            *ERF,
            affine("o", "e", 1.0, 1.0),
            combine("m", "mul", "x", "o"),
            affine("y", "m", 0.5, 0.0),
        ),
        act("y", "gelu", "x"),
    ),
    "gelu, half of x": (
        (
            *ERF,
            affine("o", "e", 1.0, 1.0),
            affine("h", "x", 0.5, 0.0),
            combine("y", "mul", "h", "o"),
        ),
        act("y", "gelu", "x"),
    ),
    "gelu, half of erf": (
        (*ERF, affine("o", "e", 0.5, 0.5), combine("y", "mul", "o", "x")),
        act("y", "gelu", "x"),
    ),
    "gelu, half after one": (
        (
            *ERF,
            affine("o", "e", 1.0, 1.0),
            affine("h", "o", 0.5, 0.0),
            combine("y", "mul", "x", "h"),
        ),
        act("y", "gelu", "x"),
    ),
    "gelu_tanh, power": (
        (
            *INNER,
            affine("o", "t", 1.0, 1.0),
            affine("h", "x", 0.5, 0.0),
            combine("y", "mul", "h", "o"),
        ),
        act("y", "gelu_tanh", "x"),
    ),
    "gelu_tanh, products": (
        (
            combine("q", "mul", "x", "x"),
            affine("d", "q", 0.044715, 1.0),
            affine("k", "x", 0.79788456, 0.0),
            combine("i", "mul", "k", "d"),
            act("t", "tanh", "i"),
            affine("o", "t", 1.0, 1.0),
            combine("m", "mul", "x", "o"),
            affine("y", "m", 0.5, 0.0),
        ),
        act("y", "gelu_tanh", "x"),
    ),
    "gelu_tanh, cube of products": (
        (
            combine("q", "mul", "x", "x"),
            combine("c", "mul", "x", "q"),
            affine("d", "c", 0.044715, 0.0),
            combine("s", "add", "x", "d"),
            affine("i", "s", 0.79788456, 0.0),
            act("t", "tanh", "i"),
            affine("o", "t", 0.5, 0.5),
            combine("y", "mul", "x", "o"),
        ),
        act("y", "gelu_tanh", "x"),
    ),
    "mish": (
        (act("s", "softplus", "x"), act("t", "tanh", "s"), combine("y", "mul", "x", "t")),
        act("y", "mish", "x"),
    ),
    "mish of logarithms": (
        (
            act("e", "exp", "x"),
            affine("o", "e", 1.0, 1.0),
            act("l", "log", "o"),
            act("t", "tanh", "l"),
            combine("y", "mul", "x", "t"),
        ),
        act("y", "mish", "x"),
    ),
    "softplus": (
        (act("e", "exp", "x"), affine("o", "e", 1.0, 1.0), act("y", "log", "o")),
        act("y", "softplus", "x"),
    ),
    "softplus with a guard": (
        (
            "%k = constant float64 [] data=float64[]{20.0}",
            combine("g", "greater", "x", "k", dtype="bool"),
            act("e", "exp", "x"),
            affine("o", "e", 1.0, 1.0),
            act("l", "log", "o"),
            combine("y", "where", "g", "x", "l"),
        ),
        act("l", "softplus", "x"),
    ),
    "softplus of 2 x with a guard": (
        (
            "%k = constant float64 [] data=float64[]{20.0}",
            affine("b", "x", 2.0, 0.0),
            combine("g", "greater", "b", "k", dtype="bool"),
            act("s", "softplus", "b"),
            affine("h", "s", 0.5, 0.0),
            combine("y", "where", "g", "x", "h"),
        ),
        "\n".join(
            [affine("b", "x", 2.0, 0.0), act("s", "softplus", "b"), affine("h", "s", 0.5, 0.0)]
        ),
    ),
    "softsign": (
        (act("a", "abs", "x"), affine("o", "a", 1.0, 1.0), combine("y", "div", "x", "o")),
        act("y", "softsign", "x"),
    ),
    "hard_sigmoid": (
        (
            affine("a", "x", 1.0, 3.0),
            act("c", "clip", "a", 0, 6),
            affine("y", "c", 0.16666667, 0.0),
        ),
        act("y", "hard_sigmoid", "x", 1 / 6, 0.5),
    ),
    "hard_swish of hard_sigmoid": (
        (act("s", "hard_sigmoid", "x", 0.16666667, 0.5), combine("y", "mul", "x", "s")),
        act("y", "hard_swish", "x"),
    ),
    "hard_swish, division last": (
        (
            affine("a", "x", 1.0, 3.0),
            act("c", "clip", "a", 0, 6),
            combine("m", "mul", "x", "c"),
            affine("y", "m", 0.16666667, 0.0),
        ),
        act("y", "hard_swish", "x"),
    ),
}


def number(name: str, value: float) -> str:
    return f"%{name} = constant float64 [] data=float64[]{{{value}}}"


def compare(name: str, fn: str, *xs: str) -> str:
    return combine(name, fn, *xs, dtype="bool")


ZERO, LIMIT, BELOW = number("zero", 0.0), number("k", 0.3), number("l", -0.3)
SIZE = act("a", "abs", "x")
SHRUNK = (affine("up", "x", 1.0, 0.3), affine("down", "x", 1.0, -0.3))

CASES |= {
    "power, a product with itself": (
        (combine("y", "mul", "x", "x"),),
        act("y", "power", "x", 2.0),
    ),
    "relu, zero below": (
        (ZERO, compare("c", "less_equal", "x", "zero"), combine("y", "where", "c", "zero", "x")),
        act("y", "relu", "x"),
    ),
    "relu, itself above": (
        (ZERO, compare("c", "greater", "x", "zero"), combine("y", "where", "c", "x", "zero")),
        act("y", "relu", "x"),
    ),
    "thresholded_relu": (
        (
            ZERO,
            LIMIT,
            compare("c", "less_equal", "x", "k"),
            combine("y", "where", "c", "zero", "x"),
        ),
        act("y", "thresholded_relu", "x", 0.3),
    ),
    "shrink, hard, by size": (
        (
            ZERO,
            LIMIT,
            SIZE,
            compare("c", "less_equal", "a", "k"),
            combine("y", "where", "c", "zero", "x"),
        ),
        act("y", "shrink", "x", 0.3, 0.0),
    ),
    "shrink, hard, by two limits": (
        (
            ZERO,
            LIMIT,
            BELOW,
            compare("c", "greater", "x", "k"),
            compare("d", "less", "x", "l"),
            compare("e", "or", "c", "d"),
            combine("y", "where", "e", "x", "zero"),
        ),
        act("y", "shrink", "x", 0.3, 0.0),
    ),
    "shrink, soft, by size": (
        (
            LIMIT,
            SIZE,
            compare("c", "greater", "a", "k"),
            act("s", "sign", "x"),
            affine("t", "s", 0.3, 0.0),
            combine("d", "sub", "x", "t"),
            affine("n", "x", 0.0, 0.0),
            combine("y", "where", "c", "d", "n"),
        ),
        act("y", "shrink", "x", 0.3, 0.3),
    ),
    "shrink, soft, by two limits": (
        (
            ZERO,
            LIMIT,
            BELOW,
            *SHRUNK,
            compare("c", "greater", "x", "k"),
            combine("p", "where", "c", "down", "zero"),
            compare("d", "less", "x", "l"),
            combine("q", "where", "d", "up", "zero"),
            combine("y", "add", "p", "q"),
        ),
        act("y", "shrink", "x", 0.3, 0.3),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_recognised(case: str) -> None:
    lines, result = CASES[case]
    after = body(result)
    if "%y = " not in result:  # the result is an earlier value
        last = result.splitlines()[-1].split(" ")[0]
        after = after.replace("return y=%y", f"return y={last}")
    golden(PASS, body(*lines), after)


def test_every_form_occurs_here() -> None:
    found = {name.split(",")[0].split(" ")[0] for name in CASES}
    assert found == {form.fn for form in FORMS}


UNCHANGED = {
    "relu6": (act("y", "clip", "x", 0, 6),),
    "a gate by another value": (
        affine("b", "x", 2.0, 1.0),
        act("s", "sigmoid", "b"),
        combine("y", "mul", "x", "s"),
    ),
    "sigmoid read elsewhere": (
        act("s", "sigmoid", "x"),
        combine("m", "mul", "x", "s"),
        combine("y", "add", "m", "s"),
    ),
    "a gelu twice as large": (*ERF, affine("o", "e", 1.0, 1.0), combine("y", "mul", "x", "o")),
    "erf of another scale": (
        affine("u", "x", 0.72, 0.0),
        act("e", "erf", "u"),
        affine("o", "e", 0.5, 0.5),
        combine("y", "mul", "x", "o"),
    ),
    "a shrink of two different limits": (
        ZERO,
        LIMIT,
        number("l", -0.5),
        compare("c", "greater", "x", "k"),
        compare("d", "less", "x", "l"),
        compare("e", "or", "c", "d"),
        combine("y", "where", "e", "x", "zero"),
    ),
    "another value above": (
        ZERO,
        LIMIT,
        compare("c", "less_equal", "x", "zero"),
        combine("y", "where", "c", "k", "x"),
    ),
    "a guard at a small threshold": (
        "%k = constant float64 [] data=float64[]{2.0}",
        combine("g", "greater", "x", "k", dtype="bool"),
        act("l", "softplus", "x"),
        combine("y", "where", "g", "x", "l"),
    ),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_left_alone(case: str) -> None:
    unchanged(PASS, body(*UNCHANGED[case]))


def test_an_inner_value_that_is_an_output_stays() -> None:
    lines = (act("s", "sigmoid", "x"), combine("y", "mul", "x", "s"))
    unchanged(PASS, body(*lines) + " s=%s")


def test_integers_are_left_alone() -> None:
    """An Activation of integers may wrap around otherwise than a product does."""
    text = body(combine("y", "mul", "x", "x")).replace("float64", "int64")
    unchanged(PASS, text)
