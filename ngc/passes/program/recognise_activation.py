"""Activations that exporters break up become one operation again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ngc.ir import program as ir
from ngc.ir.program import Floats, Op, Program, Ref
from ngc.passes.base import ProgramPass
from ngc.passes.match import (
    Act,
    Any,
    Combined,
    Constant,
    Match,
    OneOf,
    Pattern,
    Product,
    close,
    matches,
    quotient,
)
from ngc.passes.rewrite import Scope, rewrite


@dataclass(frozen=True)
class RecogniseActivation(ProgramPass):
    """x * sigmoid(x) -> silu(x), and so on for each row of ``FORMS``; where(x > 20, x, softplus(x))
    -> softplus(x), which needs no such guard here."""

    name: ClassVar[str] = "recognise-activation"

    def __call__(self, program: Program) -> Program:
        return rewrite(program, _step)


def _step(op: Op, scope: Scope) -> Op | Ref | None:
    if not isinstance(op, ir.Activation | ir.Combine):
        return None
    if not op.out.dtype.startswith("float"):
        return None
    if isinstance(op, ir.Combine) and op.fn == "where":
        unguarded = _unguarded(op, scope)
        if unguarded is not None:
            return unguarded
    for form in FORMS:
        for found in matches(form.pattern, op, scope):
            x = scope.value(found.values["x"])
            if x.shape != op.out.shape or x.dtype != op.out.dtype or not form.holds(found):
                continue
            a = (*(found.numbers[name] for name in form.numbers), *form.a)
            return ir.Activation(out=op.out, origin=op.origin, x=x.name, fn=form.fn, a=a)
    return None


def _unguarded(op: ir.Combine, scope: Scope) -> Ref | None:
    """where(factor x > threshold, x, softplus(beta x) / beta) is its last operand: softplus(x) is x
    to float32 where x > 15."""
    for found in GUARDED.find(op.out.name, Match(scope)):
        n = found.numbers
        same_shape = scope.value(op.xs[2]).shape == op.out.shape
        if not (same_shape and n["factor"] > 0 and close(n["scale"] * n["beta"], 1.0)):
            continue
        if n["threshold"] / n["factor"] * n["beta"] >= 15.0:
            return op.xs[2]
    return None


@dataclass(frozen=True)
class Form:
    """``pattern`` is the activation ``fn`` of x, where ``holds``; its numbers are those the pattern
    binds to ``numbers``, then ``a``."""

    fn: str
    pattern: Pattern
    a: Floats = ()
    numbers: tuple[str, ...] = ()
    holds: Callable[[Match], bool] = lambda m: True


X = Any("x")


def half(m: Match) -> bool:
    """The factor outside times that of 1 + erf is one half."""
    return close(m.numbers["scale"] * m.numbers["inner"], 0.5)


def mirrored(m: Match) -> bool:
    """The limit below is that above, negated; so are the terms added beyond them."""
    below, above = m.numbers["below"], m.numbers["above"]
    minus, plus = m.numbers.get("minus", 0.0), m.numbers.get("plus", 0.0)
    return above >= 0 and close(below, -above) and close(minus, -plus)


def one_plus(x: Pattern) -> Pattern:
    """A multiple of 1 + x."""
    return Act("affine", x, "inner", "inner")


# sqrt(2 / pi) (x + 0.044715 x^3): Hendrycks and Gimpel, "Gaussian Error Linear Units".
CUBE = 0.044715
ROOT = math.sqrt(2 / math.pi)
CUBIC = OneOf(
    Product(ROOT, Combined("add", X, Product(CUBE, X, X, X))),
    Combined("add", Product(ROOT, X), Product(ROOT * CUBE, X, X, X)),
    Product(ROOT, X, Act("affine", Product(CUBE, X, X), 1.0, 1.0)),
    Product(ROOT, X, Act("affine", Product(1.0, X, X), CUBE, 1.0)),
)
SOFTPLUS = Act("softplus", X)
MULTIPLE = Product("factor", X)
BEYOND = OneOf(
    Combined("greater", MULTIPLE, Constant("threshold")),
    Combined("greater_equal", MULTIPLE, Constant("threshold")),
    Combined("less", Constant("threshold"), MULTIPLE),
)
GUARDED = Combined("where", BEYOND, X, Product("scale", Act("softplus", Product("beta", X))))
SIXTH = 1 / 6
RELU6_OF_X_PLUS_3 = Act("clip", Act("affine", X, 1.0, 3.0), 0.0, 6.0)
NOTHING = OneOf(Constant(0.0), Product(0.0, X))
ABOVE = Combined("greater", X, Constant("above"))
BELOW = Combined("less", X, Constant("below"))

FORMS: tuple[Form, ...] = (
    Form("softplus", Act("log", Act("affine", Act("exp", X), 1.0, 1.0))),
    Form("silu", Product(1.0, X, Act("sigmoid", X))),
    Form("swish", Product(1.0, X, Act("sigmoid", Act("affine", X, "a", 0.0))), numbers=("a",)),
    Form(
        "gelu",
        Product("scale", X, one_plus(Act("erf", Product(math.sqrt(0.5), X)))),
        holds=half,
    ),
    Form("gelu_tanh", Product("scale", X, one_plus(Act("tanh", CUBIC))), holds=half),
    Form("mish", Product(1.0, X, Act("tanh", SOFTPLUS))),
    Form("softsign", quotient(X, Act("affine", Act("abs", X), 1.0, 1.0))),
    Form("hard_sigmoid", Product(SIXTH, RELU6_OF_X_PLUS_3), a=(SIXTH, 0.5)),
    Form("hard_swish", Product(SIXTH, X, RELU6_OF_X_PLUS_3)),
    Form("hard_swish", Product(1.0, X, Act("hard_sigmoid", X, SIXTH, 0.5))),
    Form("power", Combined("mul", X, X), a=(2.0,)),
    Form("relu", Combined("where", Combined("less_equal", X, Constant(0.0)), NOTHING, X)),
    Form("relu", Combined("where", Combined("greater", X, Constant(0.0)), X, NOTHING)),
    Form(
        "thresholded_relu",
        OneOf(
            Combined("where", Combined("less_equal", X, Constant("above")), NOTHING, X),
            Combined("where", ABOVE, X, NOTHING),
        ),
        numbers=("above",),
    ),
    Form(  # hard: what is not shrunk to zero stays as it is
        "shrink",
        Combined("where", Combined("less_equal", Act("abs", X), Constant("above")), NOTHING, X),
        numbers=("above",),
        a=(0.0,),
    ),
    Form(
        "shrink",
        Combined("where", Combined("or", ABOVE, BELOW), X, NOTHING),
        numbers=("above",),
        a=(0.0,),
        holds=mirrored,
    ),
    Form(  # soft: what is not shrunk to zero comes nearer to it
        "shrink",
        Combined(
            "where",
            Combined("greater", Act("abs", X), Constant("above")),
            Combined("sub", X, Product("plus", Act("sign", X))),
            NOTHING,
        ),
        numbers=("above", "plus"),
        holds=lambda m: m.numbers["above"] >= 0,
    ),
    Form(
        "shrink",
        Combined(
            "add",
            Combined("where", ABOVE, Act("affine", X, 1.0, "minus"), NOTHING),
            Combined("where", BELOW, Act("affine", X, 1.0, "plus"), NOTHING),
        ),
        numbers=("above", "plus"),
        holds=mirrored,
    ),
)
