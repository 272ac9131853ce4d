"""SIRENs: conventions, initial weights, rendering, and the network that ngc compiles."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import ngc
from ngc.errors import OptionError
from ngc.proof import verify
from ngc.train.siren import (
    COLUMN_FIRST,
    Conventions,
    evaluate,
    initial,
    psnr,
    render,
    siren_onnx,
)

SMALL = Conventions((2, 4, 3, 1), height=6, width=5)


def one(params: dict[str, torch.Tensor], number: int = 0) -> dict[str, torch.Tensor]:
    return {name: tensor[number] for name, tensor in params.items()}


def test_the_default_compiles_to_the_graph_of_the_paper_and_is_proven() -> None:
    conventions = Conventions()
    model = siren_onnx(conventions, one(initial(conventions, [0], [0])))
    compiled = ngc.compile(model)
    assert (compiled.plan.num_nodes, compiled.plan.num_edges) == (67, 1120)
    assert sum(param.size for param in compiled.program.params) == 1185
    assert [param.name for param in compiled.program.params] == list(conventions.shapes)
    assert verify(compiled).passed


@pytest.mark.parametrize(
    "conventions",
    [
        Conventions(),
        Conventions((2, 8, 6, 4, 3), omega=12.5, offset=-0.25, height=9, width=7),
        Conventions((2, 5, 1), coordinates=COLUMN_FIRST, height=4, width=6),
    ],
    ids=["default", "deep colour", "shallow, columns first"],
)
def test_onnxruntime_sees_the_picture_that_render_shows(conventions: Conventions) -> None:
    params = initial(conventions, [0, 1], [3, 4])
    pictures = render(conventions, params)
    assert pictures.shape == (2, conventions.channels, conventions.height, conventions.width)
    for number in range(2):
        model = siren_onnx(conventions, one(params, number)).SerializeToString()
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        (pixels,) = session.run(None, {"coordinates": conventions.grid().numpy()})
        shown = pictures[number].flatten(1).T
        np.testing.assert_allclose(np.asarray(pixels), shown.numpy(), atol=2e-6)


def test_the_first_coordinate_is_the_row_from_the_top() -> None:
    conventions = Conventions((2, 1, 1), height=3, width=2)
    grid = [[-1, -1], [-1, 1], [0, -1], [0, 1], [1, -1], [1, 1]]
    assert conventions.grid().tolist() == grid
    other = Conventions((2, 1, 1), height=3, width=2, coordinates=COLUMN_FIRST)
    assert other.grid().tolist() == [[x, y] for y, x in grid]


def test_rendering_in_pieces_is_rendering_at_once() -> None:
    params = initial(SMALL, [0] * 5, range(5))
    torch.testing.assert_close(render(SMALL, params, batch=2), render(SMALL, params))
    empty = {name: tensor[:0] for name, tensor in params.items()}
    assert render(SMALL, empty).shape == (0, 1, 6, 5)


def test_values_are_those_of_the_formula_and_differentiable() -> None:
    params = {name: p.double().requires_grad_() for name, p in initial(SMALL, [0], [0]).items()}
    points = torch.tensor([[0.3, -0.7]], dtype=torch.float64, requires_grad=True)
    h = points[0]
    for k in range(3):
        h = params[f"seq.{k}.weight"][0] @ h + params[f"seq.{k}.bias"][0]
        h = torch.sin(30 * h) if k < 2 else h + 0.5
    torch.testing.assert_close(evaluate(SMALL, params, points)[0, 0], h)
    names = list(params)
    assert torch.autograd.gradcheck(
        lambda points, *tensors: evaluate(SMALL, dict(zip(names, tensors)), points),
        (points, *params.values()),
    )


# --- initial weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "bounds"),
    [
        ("published", [math.sqrt(3) / 30, 0, math.sqrt(6 / 32) / 30, 0, 32**-0.5, 32**-0.5]),
        ("siren", [0.5, 2**-0.5, *[math.sqrt(6 / 32) / 30, 32**-0.5] * 2]),
    ],
)
def test_initial_weights_fill_their_range(scheme: str, bounds: list[float]) -> None:
    params = initial(Conventions(init_scheme=scheme), [0] * 200, range(200))
    for tensor, bound in zip(params.values(), bounds):
        assert tensor.abs().max() <= bound * (1 + 1e-6)
        if bound:
            assert tensor.abs().max() > 0.97 * bound
            assert abs(float(tensor.std()) - bound / math.sqrt(3)) < 0.06 * bound


def test_initial_weights_are_known_by_seed_split_and_number_alone() -> None:
    many = initial(SMALL, [0, 0, 1], [0, 7, 7])
    alone = initial(SMALL, [1], [7])
    other = initial(Conventions(SMALL.widths, seed=1), [1], [7])
    name = "seq.1.weight"
    assert torch.equal(many[name][2:], alone[name])
    assert not torch.equal(many[name][1], many[name][2])
    assert not torch.equal(alone[name], other[name])


def test_a_shared_start_is_the_same_for_all_images() -> None:
    shared = initial(Conventions(SMALL.widths, init="shared"), [0, 1], [3, 4])
    for tensor in shared.values():
        assert torch.equal(tensor[0], tensor[1])


def test_unknown_starts_cannot_be_drawn() -> None:
    with pytest.raises(OptionError, match="unknown"):
        initial(Conventions(init_scheme="unknown"), [0], [0])


# --- conventions --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widths": (3, 8, 1)}, "widths is"),
        ({"widths": (2, 1)}, "widths is"),
        ({"widths": (2, 8, 2)}, "widths is"),
        ({"widths": (2, True, 1)}, "widths is"),
        ({"widths": (2, -8, 1)}, "widths is"),
        ({"omega": 0.0}, "omega is 0.0"),
        ({"omega": float("nan")}, "omega is nan"),
        ({"offset": "half"}, "offset is 'half'"),
        ({"coordinates": "row first"}, "coordinates is 'row first'"),
        ({"init": "none"}, "init is 'none'"),
        ({"init_scheme": "xavier"}, "init_scheme is 'xavier'"),
        ({"seed": -1}, "seed is -1"),
        ({"height": 1}, "height is 1"),
        ({"width": 2.5}, "width is 2.5"),
    ],
)
def test_conventions_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Conventions(**changes)


def test_conventions_survive_a_dictionary() -> None:
    conventions = Conventions((2, 8, 3), 12.0, 0.0, COLUMN_FIRST, 9, 7, "shared", "siren", 5)
    values = conventions.to_dict()
    assert Conventions.from_dict(values) == conventions
    with pytest.raises(OptionError, match=r"file\.x: .*not known: extra"):
        Conventions.from_dict({**values, "extra": 1}, "file.x")
    del values["omega"]
    with pytest.raises(OptionError, match="missing or not known: omega"):
        Conventions.from_dict(values)
    with pytest.raises(OptionError, match="widths is 7"):
        Conventions.from_dict({**conventions.to_dict(), "widths": 7})


def test_psnr_is_in_decibel_and_before_clamping() -> None:
    target = torch.full((2, 1, 4, 4), 0.95)
    image = target + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr(image, target), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0)
    assert psnr(target, target).isfinite().all()
