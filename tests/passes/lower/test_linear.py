"""Gemm, MatMul and Einsum: which become Linear, which Contract, and with which letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ngc.errors import ShapeError
from ngc.ir import program as ir
from ngc.ir.slots import Slots
from tests.passes.lower.one_node import Given, given, noise, one


def test_gemm_is_a_linear_and_a_shift() -> None:
    case = one("Gemm", given(2, 4), noise(3, 4), noise(3), transB=1).agrees()
    linear, shift = case.ops
    assert isinstance(linear, ir.Linear)
    assert isinstance(shift, ir.Shift)
    assert linear.spec == "ik,jk->ij"
    assert linear.weight == Slots.contiguous((3, 4), 2)
    assert shift.term == Slots.contiguous((3,), 14)


@pytest.mark.parametrize("opset", [7, 9, 13])
@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm_scales_and_transposes(opset: int, transposed: tuple[int, int]) -> None:
    a, b = (
        given(*((4, 2) if transposed[0] else (2, 4))),
        noise(*((3, 4), (4, 3))[1 - transposed[1]]),
    )
    options = {"transA": transposed[0], "transB": transposed[1], "alpha": 0.5, "beta": 0.25}
    case = one("Gemm", a, b, noise(2, 1), opset=opset, **options).agrees()
    # The parameters stay as they are: nothing is folded into them.
    assert case.mnemonics == ["linear", "activation", "activation", "shift", "activation"]


def test_gemm_of_a_constant_with_an_input() -> None:
    case = one("Gemm", noise(2, 4), given(4, 3), Given(noise(3)), beta=2.0).agrees()
    assert case.mnemonics == ["linear", "activation", "combine"]


def test_beta_of_zero_drops_the_bias() -> None:
    assert one("Gemm", given(2, 4), noise(4, 3), noise(3), beta=0.0).mnemonics == ["linear"]


def test_a_bias_larger_than_the_product_is_an_error() -> None:
    with pytest.raises(ShapeError, match=r"C \[5, 2, 3\] does not broadcast to \[2, 3\]"):
        one("Gemm", given(2, 4), noise(4, 3), noise(5, 2, 3))


MATMULS = [
    ((2, 3, 4), (4, 5), "aik,kj->aij"),
    ((4,), (4, 5), "k,kj->j"),
    ((2, 3, 4), (4,), "aik,k->ai"),
    ((2, 3, 4), (2, 4, 5), "aik,akj->aij"),
    ((2, 3, 4), (1, 4, 5), "aik,kj->aij"),
    ((3, 4), (2, 4, 5), "ik,akj->aij"),
    ((2, 1, 3, 4), (2, 4, 5), "aik,bkj->abij"),
]


@pytest.mark.parametrize(("left", "right", "spec"), MATMULS)
def test_matmul_with_a_weight(left: tuple[int, ...], right: tuple[int, ...], spec: str) -> None:
    linear = one("MatMul", given(*left), noise(*right)).agrees().ops[-1]
    assert isinstance(linear, ir.Linear)
    assert linear.spec == spec


def test_matmul_with_the_weight_on_the_left() -> None:
    linear = one("MatMul", noise(5, 3), given(2, 3, 4)).agrees().only(ir.Linear)
    assert linear.spec == "akj,ik->aij"


def test_matmul_of_two_activations_is_a_contract() -> None:
    assert one("MatMul", given(2, 3, 4), given(2, 4, 5)).agrees().mnemonics == ["contract"]


def test_matmul_of_integers_has_no_parameter() -> None:
    case = one("MatMul", Given(np.arange(6).reshape(2, 3)), np.arange(3).reshape(3, 1))
    assert case.mnemonics == ["constant", "contract"]
    np.testing.assert_array_equal(case.run()[0], [[5], [14]])


def test_matmul_does_not_broadcast_the_axis_it_sums() -> None:
    with pytest.raises(ShapeError, match="do not fit"):
        one("MatMul", given(2, 1), noise(3, 4))


SIZES = dict(zip("abcdeijklB", (2, 3, 4, 2, 3, 3, 2, 4, 5, 3)))


def shape_of(term: str, dots: tuple[int, ...]) -> tuple[int, ...]:
    before, found, after = term.partition("...")
    named = [[SIZES[c] for c in part] for part in (before, after)]
    return (*named[0], *(dots if found else ()), *named[1])


EQUATIONS: list[tuple[str, list[str]]] = [
    ("ij,jk->ik", ["linear"]),
    ("...ij,...jk->...ik", ["linear"]),
    ("abc,cde->abde", ["linear"]),
    ("abcd,cde->abe", ["linear"]),
    ("ij,jk", ["linear"]),
    ("ii->i", ["select"]),
    ("ii", ["select", "reduce"]),
    ("iij->j", ["select", "reduce"]),
    ("iji->j", ["select", "reduce"]),
    ("ij->ji", ["transpose"]),
    ("ij->", ["reduce"]),
    ("i,j->ij", ["linear"]),
    ("ij,ij->ij", ["linear"]),
    ("ab,ab->", ["linear"]),
    ("bii,bi->b", ["select", "linear"]),
    ("ij,k->i", ["reduce", "linear", "reduce"]),
    ("ab,bc->a", ["linear", "reduce"]),
    ("i i j , j -> i", ["select", "linear"]),
    ("aB,Bc", ["linear"]),
    ("...i->...", ["reduce"]),
    ("...i->i...", ["transpose"]),
    ("...a,a->...", ["linear"]),
    ("ab,bc,cd->ad", ["linear", "linear"]),
    ("ab,cd,bc->ad", ["linear", "linear"]),
    ("ij,ik,jk->i", ["linear", "linear"]),
    ("a,b,c->abc", ["linear", "linear"]),
]


@pytest.mark.parametrize(("equation", "mnemonics"), EQUATIONS)
def test_einsum_with_known_operands(equation: str, mnemonics: list[str]) -> None:
    first, *rest = equation.replace(" ", "").split("->")[0].split(",")
    x = given(*shape_of(first, (2, 3)))
    case = one("Einsum", x, *(noise(*shape_of(t, (2, 3))) for t in rest), equation=equation)
    assert case.agrees().mnemonics == mnemonics


@pytest.mark.parametrize("equation", [e for e, _ in EQUATIONS if "," in e])
def test_einsum_of_activations(equation: str) -> None:
    terms = equation.replace(" ", "").split("->")[0].split(",")
    operands = [given(*shape_of(t, (2,)), seed=k) for k, t in enumerate(terms)]
    case = one("Einsum", *operands, equation=equation).agrees()
    assert case.mnemonics.count("contract") == len(terms) - 1
    assert not case.lowered.program.params


def test_einsum_with_the_weight_first() -> None:
    case = one("Einsum", noise(3, 4), given(2, 4), equation="oi,bi->bo").agrees()
    assert case.only(ir.Linear).spec == "bi,oi->bo"


def test_axes_of_size_1_broadcast_in_einsum() -> None:
    case = one("Einsum", given(1, 2, 3), noise(5, 3, 4), equation="...ij,...jk->...ik").agrees()
    assert case.mnemonics == ["reshape", "linear"]


BAD: list[tuple[str, tuple[Any, ...], str]] = [
    ("ij,jk->ik", (given(2, 3), noise(4, 5)), "letter 'j' has sizes 3 and 4"),
    ("ij->ik", (given(2, 3),), "no equation"),
    ("ij->ii", (given(2, 3),), "no equation"),
    ("ijk->i", (given(2, 3),), "does not fit its operand"),
    ("i->i", (given(2, 3),), "does not fit its operand"),
    ("ij,jk->ik", (given(2, 3),), "1 operands"),
    ("ii->i", (given(2, 3),), "letter 'i' has sizes 2 and 3"),
]


@pytest.mark.parametrize(("equation", "operands", "message"), BAD)
def test_wrong_equations_are_errors(equation: str, operands: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        one("Einsum", *operands, equation=equation)
