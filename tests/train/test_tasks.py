"""Tasks: losses and metrics, pictures of networks, targets of edits."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from ngc.backends.graphs import Edits
from ngc.errors import NgcError, OptionError
from ngc.options import Options
from ngc.train.inr_sets import InrSet
from ngc.train.networks import Batch, NetworkSet, from_inrs
from ngc.train.pictures import Renderer, dilate
from ngc.train.siren import psnr
from ngc.train.tasks import (
    Classification,
    Editing,
    Goal,
    edited_weights,
    editing_of_inrs,
    fitted_images,
)
from tests.train.fake_data import idx_bytes
from tests.train.tiny import CONVENTIONS, tiny_set

SIZE = (CONVENTIONS.height, CONVENTIONS.width)


def networks_of(inrs: InrSet) -> NetworkSet:
    return from_inrs(inrs, Options(reverse="features"), validation=2)


def no_edits(batch: Batch) -> Edits:
    parts = batch.graphs.parts
    return Edits(
        tuple(torch.zeros_like(part.x) for part in parts),
        tuple(torch.zeros_like(part.edges) for part in parts),
    )


# --- classification -------------------------------------------------------------------------------


def test_classification_counts_right_answers() -> None:
    networks = networks_of(tiny_set(12))
    task, batch = Classification(networks), networks.batch(torch.arange(6))
    assert (task.predicts, task.outputs) == ("graph", 3)
    label = networks.label[:6]
    answer = label.clone()
    answer[:2] = (answer[:2] + 1) % 3
    meters = task.meters(test=True)
    prediction = 5 * torch.nn.functional.one_hot(answer, 3).float()
    loss = task.loss(prediction, batch, networks, meters)
    right, wrong = np.log(1 + 2 * np.exp(-5)), 5 + np.log(1 + 2 * np.exp(-5))
    assert loss.item() == pytest.approx((4 * right + 2 * wrong) / 6, rel=1e-5)
    assert int(meters["confusion"].compute().trace()) == 4
    assert meters.read() == {"loss": pytest.approx(loss.item(), rel=1e-5), "accuracy": 0.666667}


def test_meters_weigh_batches_by_their_size_and_start_anew() -> None:
    networks = networks_of(tiny_set(12))
    task = Classification(networks)
    meters = task.meters()
    losses = []
    for numbers in (torch.arange(5), torch.tensor([5])):
        prediction = torch.randn(len(numbers), 3, generator=torch.Generator().manual_seed(0))
        loss = task.loss(prediction, networks.batch(numbers), networks, meters)
        losses.append(loss.item() * len(numbers))
    assert meters.read()["loss"] == pytest.approx(sum(losses) / 6, rel=1e-5)
    task.loss(torch.zeros(1, 3), networks.batch(torch.tensor([0])), networks, meters)
    assert meters.read()["loss"] == pytest.approx(np.log(3), rel=1e-5)


def test_goals() -> None:
    assert Goal("accuracy", larger=True).better(0.6, 0.5)
    assert not Goal("accuracy", larger=True).better(0.5, 0.5)
    assert Goal("mse", larger=False).better(0.4, 0.5)
    assert Goal("mse", larger=False).better(0.4, None)


# --- pictures -------------------------------------------------------------------------------------


def test_the_compiled_program_draws_what_the_set_draws() -> None:
    inrs = tiny_set(6)
    family = networks_of(inrs).families[0]
    render = Renderer(family, CONVENTIONS.grid(), *SIZE)
    pictures = render(family.weights)
    assert pictures.shape == (6, 1, *SIZE)
    torch.testing.assert_close(pictures, inrs.render(), atol=1e-5, rtol=1e-5)


def test_pictures_are_differentiable_in_the_weights() -> None:
    family = networks_of(tiny_set(6)).families[0]
    weights = family.weights[:2].clone().requires_grad_()
    Renderer(family, CONVENTIONS.grid(), *SIZE)(weights).sum().backward()
    bias = family.compilation.program.params[-1].offset  # of the output, so added to each pixel
    assert weights.grad is not None
    assert weights.grad[:, bias].tolist() == [SIZE[0] * SIZE[1]] * 2


def test_dilation_is_the_maximum_over_a_square() -> None:
    pictures = np.random.default_rng(0).uniform(size=(3, 1, *SIZE)).astype(np.float32)
    expected = scipy.ndimage.grey_dilation(pictures, size=(1, 1, 3, 3), mode="nearest")
    assert np.array_equal(dilate(torch.from_numpy(pictures)).numpy(), expected)


# --- editing --------------------------------------------------------------------------------------


def editing(inrs: InrSet, networks: NetworkSet) -> Editing:
    return editing_of_inrs(inrs, networks, "dilate", "rendering", None)


def test_no_edit_has_the_error_of_the_unedited_picture() -> None:
    inrs = tiny_set(8)
    networks = networks_of(inrs)
    task, batch = editing(inrs, networks), networks.batch(torch.tensor([5, 2]))
    meters = task.meters(test=True)
    loss = task.loss(no_edits(batch), batch, networks, meters)
    plain = inrs.select([5, 2]).render()
    expected = (plain - dilate(plain.clamp(0, 1))).square().mean()
    torch.testing.assert_close(loss, expected)
    found = meters.read()
    assert found["mse"] == found["mse_unedited"] == pytest.approx(expected.item(), rel=1e-4)


def test_an_edit_of_the_output_bias_moves_all_pixels() -> None:
    inrs = tiny_set(8)
    networks = networks_of(inrs)
    task, batch = editing(inrs, networks), networks.batch(torch.arange(4))
    edits = no_edits(batch)
    output = batch.graphs.parts[0].structure.outputs
    edits.nodes[0][:, output, 0] = 0.25
    pictures = task.pictures(batch, edited_weights(edits, batch), networks)
    torch.testing.assert_close(pictures, inrs.select(range(4)).render() + 0.25, atol=1e-5, rtol=0)


def test_edits_that_reach_the_target_have_no_error() -> None:
    inrs = tiny_set(8)
    networks = networks_of(inrs)
    render = Renderer(networks.families[0], CONVENTIONS.grid(), *SIZE)
    other = torch.roll(networks.families[0].weights, 1, dims=0)
    task, batch = Editing((render,), render(other)), networks.batch(torch.arange(8))
    parts, targets = batch.graphs.parts[0], networks.batch(torch.arange(8) - 1).graphs.parts[0]
    edits = Edits((targets.x - parts.x,), (targets.edges - parts.edges,))
    assert task.loss(edits, batch, networks, task.meters()).item() < 1e-10


def test_targets_are_clamped_renderings_dilated() -> None:
    inrs = tiny_set(8)
    task = editing(inrs, networks_of(inrs))
    assert inrs.render().max() > 1
    assert torch.equal(task.targets, dilate(inrs.render().clamp(0, 1)))


# --- images that a set was fitted to --------------------------------------------------------------


def images_and_set(folder: Path) -> tuple[InrSet, Tensor]:
    """A fake MNIST of what the networks show, in another order, and the networks with its PSNR."""
    inrs = tiny_set(8)
    pixels = (inrs.render()[:, 0].clamp(0, 1) * 255).round().to(torch.uint8)
    home = folder / "mnist"
    home.mkdir()
    for name, split in (("train", 0), ("t10k", 1)):
        stack = np.zeros((12, *SIZE), np.uint8)
        stack[inrs.index[inrs.split == split]] = pixels[inrs.split == split].numpy()
        (home / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(stack)))
        labels = gzip.compress(idx_bytes(np.zeros(12)))
        (home / f"{name}-labels-idx1-ubyte.gz").write_bytes(labels)
    images = pixels[:, None].float() / 255
    found = InrSet(
        inrs.params, inrs.label, inrs.index, inrs.split, psnr(inrs.render(), images), CONVENTIONS,
        {"images": "mnist"},
    )  # fmt: skip
    return found, images


def test_each_network_finds_its_own_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inrs, images = images_and_set(tmp_path)
    monkeypatch.setenv("NGC_DATA", str(tmp_path))
    torch.testing.assert_close(fitted_images(inrs, None), images)
    task = editing_of_inrs(inrs, networks_of(inrs), "dilate", "image", None)
    torch.testing.assert_close(task.targets, dilate(images))


def test_validation_networks_find_their_training_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published set has a validation split of networks, but not of images."""
    inrs, images = images_and_set(tmp_path)
    monkeypatch.setenv("NGC_DATA", str(tmp_path))
    split = inrs.split.clone()
    split[(split == 0).nonzero()[:2]] = 2
    published = replace(inrs, split=split)
    torch.testing.assert_close(fitted_images(published, None), images)


def test_images_of_another_set_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inrs, _ = images_and_set(tmp_path)
    monkeypatch.setenv("NGC_DATA", str(tmp_path))
    stranger = InrSet(
        inrs.params, inrs.label, inrs.index, inrs.split, inrs.psnr + 10, CONVENTIONS, inrs.origin
    )
    with pytest.raises(NgcError, match="the networks show these images with"):
        fitted_images(stranger, None)
    far = InrSet(inrs.params, inrs.label, inrs.index + 100, inrs.split, inrs.psnr, CONVENTIONS)
    with pytest.raises(NgcError, match="8 networks are of images that are not among them"):
        fitted_images(far, "mnist")


def test_a_set_that_does_not_name_its_images() -> None:
    with pytest.raises(OptionError, match=r"does not say which images.*\n.*task.target: rendering"):
        fitted_images(tiny_set(8), None)
