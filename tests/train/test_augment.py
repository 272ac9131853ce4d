"""Augmentations of weights move the picture as they say, each network by draws of its own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import ngc
from ngc.errors import OptionError
from ngc.ir.graph import NODE_ROLES
from ngc.train.augment import Augment, WeightAugment, rescale, rotate, translate
from ngc.train.networks import Family, pack_stack
from ngc.train.siren import Conventions, Params, evaluate, initial, render
from tests.train.fake_data import small_set

CONVENTIONS = Conventions((2, 8, 6, 1), height=9, width=9)
NOTHING = Augment(0, 0, 0, 0, 0)


def networks(count: int = 3) -> Params:
    """Networks with biases in the first layer too."""
    standard = replace(CONVENTIONS, init_scheme="siren")
    return {name: p.double() for name, p in initial(standard, [0] * count, range(count)).items()}


def at(params: Params, points: torch.Tensor) -> torch.Tensor:
    return evaluate(CONVENTIONS, params, points.double())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


GRID = CONVENTIONS.grid().double()


def test_translation_shows_what_was_at_the_shifted_points() -> None:
    shift = torch.tensor([[0.25, 0.0], [0.0, -0.5], [0.1, 0.2]]).double()
    moved = at(translate(networks(), shift), GRID)
    for k in range(3):
        expected = at(networks(), GRID + shift[k])[k]
        torch.testing.assert_close(moved[k], expected, atol=1e-9, rtol=0)


def test_a_translated_picture_is_the_picture_some_pixels_on() -> None:
    """Rows are 0.25 apart: a shift of 0.5 downwards in coordinates lifts the picture by 2 rows."""
    params = {name: p.float() for name, p in networks().items()}
    picture = render(CONVENTIONS, params)
    moved = render(CONVENTIONS, translate(params, torch.tensor([[0.5, -0.25]] * 3)))
    torch.testing.assert_close(moved[:, :, :7, 1:], picture[:, :, 2:, :8], atol=1e-4, rtol=0)


def test_rotation_turns_the_points() -> None:
    angle = torch.tensor([0.3, -1.0, 2.0]).double()
    turned = at(rotate(networks(), angle), GRID)
    for k in range(3):
        cos, sin = math.cos(angle[k]), math.sin(angle[k])
        matrix = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
        expected = at(networks(), GRID @ matrix.T)[k]
        torch.testing.assert_close(turned[k], expected, atol=1e-8, rtol=0)


def test_a_quarter_turn_is_that_of_the_picture() -> None:
    params = {name: p.float() for name, p in networks().items()}
    turned = render(CONVENTIONS, rotate(params, torch.full((3,), math.pi / 2)))
    expected = torch.rot90(render(CONVENTIONS, params), -1, (2, 3))
    torch.testing.assert_close(turned, expected, atol=1e-4, rtol=0)


def test_rescaling_zooms() -> None:
    factor = torch.tensor([0.5, 1.2, 2.0]).double()
    zoomed = at(rescale(networks(), factor), GRID)
    for k in range(3):
        expected = at(networks(), GRID * factor[k])[k]
        torch.testing.assert_close(zoomed[k], expected, atol=1e-9, rtol=0)


def test_noise_has_the_stated_share_of_each_deviation() -> None:
    params = initial(Conventions(), [0] * 50, range(50))
    size = 1 + torch.arange(50.0)  # deviations are those of each network by itself
    params = {name: p * size.view(-1, *[1] * (p.dim() - 1)) for name, p in params.items()}
    noisy = replace(NOTHING, noise=0.1)(params, seeded())
    for name in ("seq.0.weight", "seq.1.weight", "seq.2.weight"):
        change = (noisy[name] - params[name]) / params[name].flatten(1).std(1).view(-1, 1, 1)
        assert abs(float(change.mean())) < 0.01
        assert float(change.std()) == pytest.approx(0.1, rel=0.08)
        assert float(change[:5].std()) == pytest.approx(0.1, rel=0.2)
    assert torch.equal(noisy["seq.2.bias"], params["seq.2.bias"])  # one entry has no deviation


def test_dropout_keeps_the_mean() -> None:
    params = {
        name: torch.ones_like(p) for name, p in initial(Conventions(), [0] * 50, range(50)).items()
    }
    dropped = replace(NOTHING, dropout=0.2)(params, seeded())["seq.1.weight"]
    assert set(dropped.unique().tolist()) == {0.0, 1.25}
    assert float((dropped == 0).float().mean()) == pytest.approx(0.2, abs=0.01)


def test_draws_fill_their_range_and_differ_between_networks() -> None:
    ones = {name: torch.ones(500, *shape) for name, shape in Conventions().shapes.items()}
    scaled = replace(NOTHING, scale=0.2)(ones, seeded())["seq.0.weight"][:, 0, 0]
    assert 0.8 <= scaled.min() < 0.81
    assert 1.19 < scaled.max() <= 1.2
    moved = replace(NOTHING, translation=0.25)(ones, seeded())["seq.0.bias"][:, 0] - 1
    assert -0.5 <= moved.min() < -0.4
    assert 0.4 < moved.max() <= 0.5
    down = {**ones, "seq.0.weight": torch.tensor([1.0, 0.0]).expand(500, 32, 2)}
    turned = replace(NOTHING, rotation=45)(down, seeded())["seq.0.weight"][:, 0]
    angles = torch.rad2deg(torch.atan2(turned[:, 1], turned[:, 0]))
    assert -45 <= angles.min() < -44
    assert 44 < angles.max() <= 45


def test_the_generator_alone_decides_and_inputs_stay_as_they_are() -> None:
    params = {name: p.float() for name, p in networks().items()}
    kept = {name: p.clone() for name, p in params.items()}
    one, same, other = (Augment()(params, seeded(seed)) for seed in (1, 1, 2))
    for name, tensor in params.items():
        assert torch.equal(tensor, kept[name])
        assert torch.equal(one[name], same[name])
        assert one[name].dtype == tensor.dtype
    assert not torch.equal(one["seq.0.weight"], other["seq.0.weight"])
    nothing = NOTHING(params, seeded())
    assert all(torch.equal(nothing[name], kept[name]) for name in kept)


@pytest.mark.parametrize(
    "values", [{"scale": 1.0}, {"dropout": -0.1}, {"noise": float("nan")}, {"rotation": math.inf}]
)
def test_settings_that_cannot_be_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=f"{next(iter(values))} is"):
        Augment(**values)


# --- of networks of any architecture --------------------------------------------------------------


def family_of_two() -> Family:
    inrs = small_set(2, CONVENTIONS)
    compilation = ngc.compile(inrs.onnx(0))
    return Family(compilation, pack_stack(compilation, inrs.params))


def test_permuted_networks_have_another_order_each_and_the_same_outputs() -> None:
    family = family_of_two()
    only = WeightAugment(noise=0, dropout=0, permute=True)
    before = family.weights[[0, 0, 1]]
    after = only.changed(family, before, seeded())
    assert not torch.equal(after[0], after[1])
    assert not torch.equal(after[2], before[2])
    assert torch.equal(after.sort().values, before.sort().values)
    points = [torch.rand(5, 1, 2)]
    outputs = family.compilation.plan.graph.nodes.role == NODE_ROLES.index("output")
    was, now = (family.prober(weights, points)[:, outputs] for weights in (before, after))
    torch.testing.assert_close(now, was, atol=1e-5, rtol=0)


def test_noise_and_dropout_reach_every_tensor_and_no_constant() -> None:
    family = family_of_two()
    found = WeightAugment(noise=0.1, dropout=0.2).changed(family, family.weights, seeded())
    assert torch.equal(found[:, :2], family.weights[:, :2])
    before = family.params(family.weights)
    for name, param in family.params(found).items():
        if before[name].flatten(1).std(1).any():
            assert not torch.equal(param, before[name]), name
    again = WeightAugment(noise=0.1, dropout=0.2).changed(family, family.weights, seeded())
    assert torch.equal(found, again)


@pytest.mark.parametrize("wrong", [{"noise": -1}, {"dropout": 1.0}])
def test_settings_out_of_range_are_refused_for_any_network(wrong: dict[str, float]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        WeightAugment(**wrong)
