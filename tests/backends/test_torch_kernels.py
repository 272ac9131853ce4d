"""Every kind of operation against its formula, stacked, and differentiated."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from ngc.backends.torch_exec import Executor, pack
from ngc.backends.torch_kernels import KERNELS
from ngc.ir import program as ir
from ngc.ir.program import VOCABULARY
from tests.backends import cases_elementwise, cases_linear, cases_moves, cases_reduce
from tests.backends.cases import CASES, Case

FAMILIES = (cases_elementwise, cases_linear, cases_moves, cases_reduce)
STEPS = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)


def tensors(case: Case) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array.copy()) for name, array in case.inputs.items()}


def close(found: Tensor, expected: np.ndarray) -> None:
    assert tuple(found.shape) == expected.shape
    assert str(found.dtype) == f"torch.{expected.dtype}"
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_every_operation_has_a_kernel_and_a_case() -> None:
    operations = set(VOCABULARY.values())
    assert set(KERNELS) == operations
    assert {case.cls for case in CASES} == operations - {ir.Input}


@STEPS
def test_gives_what_the_formula_gives(case: Case) -> None:
    program = case.program()
    weights = pack(program, case.params)
    close(Executor(program)(weights, tensors(case))["out"], case.expected)


@STEPS
def test_stacked_equals_one_by_one(case: Case) -> None:
    program = case.program()
    execute = Executor(program)
    weights = pack(program, case.params)
    many = torch.stack([weights, weights * 1.5])
    many[:, :2] = weights[:2]
    stacked = {
        name: torch.from_numpy(np.stack([x, x[::-1] if x.ndim else x]))
        for name, x in case.inputs.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no slow path one by one
        found = torch.func.vmap(execute)(many, stacked)["out"]
    for k in range(2):
        alone = execute(many[k], {name: x[k] for name, x in stacked.items()})["out"]
        torch.testing.assert_close(found[k], alone, equal_nan=True)


def differentiable(case: Case) -> bool:
    floats = [a for a in (*case.inputs.values(), *case.params.values()) if a.dtype == np.float32]
    return bool(floats) and case.expected.dtype == np.float32 and case.smooth


SMOOTH = [case for case in CASES if differentiable(case)]


@pytest.mark.parametrize("case", SMOOTH, ids=lambda c: c.name)
def test_gradients_agree_with_finite_differences(case: Case) -> None:
    program = case.program("float64")
    execute = Executor(program)
    names = [name for name, array in case.inputs.items() if array.dtype == np.float32]
    others = {name: x for name, x in tensors(case).items() if name not in names}
    weights = pack(program, case.params, torch.float64).requires_grad_(bool(case.params))
    floats = [torch.from_numpy(case.inputs[name].astype(np.float64)) for name in names]

    def function(weights: Tensor, *floats: Tensor) -> Tensor:
        return execute(weights, {**others, **dict(zip(names, floats))})["out"]

    arguments = (weights, *(x.requires_grad_() for x in floats))
    assert torch.autograd.gradcheck(function, arguments, fast_mode=True)


@pytest.mark.parametrize("case", SMOOTH, ids=lambda c: c.name)
def test_gradients_of_stacked_weights_take_no_slow_path(case: Case) -> None:
    program = case.program()
    execute = Executor(program)
    weights, inputs = pack(program, case.params), tensors(case)
    names = [name for name, array in case.inputs.items() if array.dtype == np.float32]

    def loss(weights: Tensor, floats: dict[str, Tensor]) -> Tensor:
        return (execute(weights, inputs | floats)["out"] ** 2).sum()

    floats = {name: torch.stack([inputs[name]] * 2) for name in names}
    gradient = torch.func.grad(loss, argnums=(0, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = torch.func.vmap(gradient)(torch.stack([weights] * 2), floats)
    alone = gradient(weights, {name: inputs[name] for name in names})
    torch.testing.assert_close(found[0][1], alone[0], rtol=1e-4, atol=1e-4)
