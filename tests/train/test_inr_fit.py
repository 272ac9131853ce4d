"""Fitting: the gradient is autograd's, Adam is torch's, a broken run goes on to the same file."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ngc.errors import NgcError, OptionError
from ngc.train.images import Images
from ngc.train.inr_fit import FitOptions, fit, fit_set
from ngc.train.inr_sets import load
from ngc.train.siren import COLUMN_FIRST, Conventions, initial, psnr, render
from ngc.train.siren_gradient import SirenStack, adam
from tests.train.fake_data import write_mnist

SMALL = Conventions((2, 4, 3, 1), height=6, width=5)
QUICK = FitOptions(((20, 1e-3), (5, 1e-4)), chunk=3)


def some_images(count: int = 8, conventions: Conventions = SMALL) -> Images:
    random = np.random.default_rng(0)
    size = (count, conventions.height, conventions.width, conventions.channels)
    pixels = random.integers(0, 256, size).astype(np.uint8)
    numbers = np.arange(count)
    return Images("noise", pixels, numbers % 3, numbers, np.zeros(count, dtype=np.int64))


def blob(height: int = 28, width: int = 28) -> torch.Tensor:
    """A soft ring, [1, 1, height, width]."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.exp(-40 * ((x**2 + y**2).sqrt() - 0.5) ** 2)[None, None]


@pytest.mark.parametrize(
    "conventions",
    [
        Conventions(),
        Conventions((2, 7, 6, 5, 3), omega=7.0, offset=0.1, height=6, width=9, init_scheme="siren"),
        Conventions((2, 6, 1), coordinates=COLUMN_FIRST, height=5, width=8),
    ],
    ids=["default", "deep colour", "shallow, columns first"],
)
def test_the_gradient_is_that_of_autograd(conventions: Conventions) -> None:
    params = initial(conventions, [0] * 3, range(3))
    size = (3, conventions.channels, conventions.height, conventions.width)
    images = torch.rand(size, generator=torch.Generator().manual_seed(0))
    stack = SirenStack(conventions, params, images)
    stack.compute_gradient()
    leaves = {name: tensor.double().requires_grad_() for name, tensor in params.items()}
    grid_exact = render(conventions, leaves_on(conventions, leaves))
    loss = (grid_exact - images).square().flatten(1).mean(1).sum()
    expected = torch.autograd.grad(loss, list(leaves.values()))
    flat = torch.cat([tensor.flatten(1) for tensor in expected], 1)
    assert (stack.gradient - flat).abs().max() < 2e-6 * flat.abs().max()


def leaves_on(conventions: Conventions, leaves: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same networks in the precision of the grid, float32."""
    return {name: tensor.float() for name, tensor in leaves.items()}


def test_steps_are_those_of_torch_adam() -> None:
    params = initial(SMALL, [0, 0], [0, 1])
    images = torch.rand((2, 1, 6, 5), generator=torch.Generator().manual_seed(1))
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in params.items()}
    optimizer = torch.optim.Adam(leaves.values(), 1e-3)
    rates = [1e-3] * 6 + [1e-4] * 4
    for rate in rates:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (render(SMALL, leaves) - images).square().flatten(1).mean(1).sum().backward()
        optimizer.step()
    stack = SirenStack(SMALL, params, images)
    adam(stack, rates)
    for name, tensor in stack.params().items():
        torch.testing.assert_close(tensor, leaves[name].detach(), atol=2e-6, rtol=1e-4)


def test_the_starting_weights_are_left_alone() -> None:
    params = initial(SMALL, [0], [0])
    kept = {name: tensor.clone() for name, tensor in params.items()}
    fit(torch.rand(1, 1, 6, 5), params, SMALL, ((3, 1e-2),))
    assert all(torch.equal(params[name], kept[name]) for name in params)


def test_standard_initial_weights_fit_a_picture_beyond_40_decibel() -> None:
    quality = {}
    for scheme in ("published", "siren"):
        conventions = Conventions(init_scheme=scheme)
        with torch.no_grad():
            fitted = fit(blob(), initial(conventions, [0], [0]), conventions)
            quality[scheme] = float(psnr(render(conventions, fitted), blob()))
    assert quality["siren"] > 40
    assert 20 < quality["published"] < quality["siren"]


# --- whole sets ---------------------------------------------------------------------------------


def test_a_set_holds_what_was_fitted(tmp_path: Path) -> None:
    images, seen = some_images(), list[tuple[int, int]]()
    output = tmp_path / "set.safetensors"
    result = fit_set(
        images, SMALL, output, QUICK, origin={"command": "x"}, progress=lambda *at: seen.append(at)
    )
    stored = load(output)
    for name, tensor in result.params.items():
        assert torch.equal(stored.params[name], tensor)
    assert stored.conventions == SMALL
    assert stored.label.tolist() == images.label.tolist()
    assert stored.origin["command"] == "x"
    assert stored.origin["fit"]["stages"] == [[20, 1e-3], [5, 1e-4]]
    assert set(stored.origin["versions"]) == {"ngc", "torch", "numpy"}
    measured = psnr(stored.render(), torch.from_numpy(images.targets()))
    torch.testing.assert_close(stored.psnr, measured)
    start = initial(SMALL, [0] * 8, range(8))
    assert (stored.psnr > psnr(render(SMALL, start), torch.from_numpy(images.targets()))).all()
    assert seen == sorted(seen)
    assert seen[-1] == (8, 8)
    assert list(tmp_path.iterdir()) == [output]  # no parts are left


def test_each_network_is_that_of_its_own_image(tmp_path: Path) -> None:
    images = some_images()
    whole = fit_set(images, SMALL, tmp_path / "a", QUICK)
    alone = fit_set(images.select([5]), SMALL, tmp_path / "b", QUICK)
    for name, tensor in alone.params.items():
        torch.testing.assert_close(tensor[0], whole.params[name][5], atol=1e-6, rtol=1e-4)


def test_half_precision_is_measured_as_stored(tmp_path: Path) -> None:
    images = some_images()
    result = fit_set(images, SMALL, tmp_path / "half", replace(QUICK, half=True))
    stored = load(tmp_path / "half")
    for name, tensor in stored.params.items():
        assert torch.equal(tensor, tensor.half().float())
        assert torch.equal(tensor, result.params[name])
    measured = psnr(stored.render(), torch.from_numpy(images.targets()))
    torch.testing.assert_close(stored.psnr, measured)
    fit_set(images, SMALL, tmp_path / "full", QUICK)
    assert (tmp_path / "half").stat().st_size < (tmp_path / "full").stat().st_size


class Stopped(Exception):
    pass


@pytest.mark.parametrize("images_done", [0, 2, 3, 7])
def test_a_run_that_was_broken_off_gives_the_same_file(tmp_path: Path, images_done: int) -> None:
    images = some_images()
    fit_set(images, SMALL, tmp_path / "unbroken", QUICK)
    done_again = []

    def stop(done: int, total: int) -> None:
        if done > images_done:
            raise Stopped

    with pytest.raises(Stopped):
        fit_set(images, SMALL, tmp_path / "broken", QUICK, progress=stop)
    assert not (tmp_path / "broken").exists()
    fit_set(
        images, SMALL, tmp_path / "broken", QUICK, progress=lambda *at: done_again.append(at[0])
    )
    assert (tmp_path / "broken").read_bytes() == (tmp_path / "unbroken").read_bytes()
    assert done_again[-1] == 8


def test_finished_parts_are_not_fitted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ngc.train.inr_fit as module

    images, fitted = some_images(), list[int]()

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise Stopped

    with pytest.raises(Stopped):
        fit_set(images, SMALL, tmp_path / "x", QUICK, progress=stop)
    whole = module.fit
    monkeypatch.setattr(
        module, "fit", lambda targets, *rest: fitted.append(len(targets)) or whole(targets, *rest)
    )
    fit_set(images, SMALL, tmp_path / "x", QUICK)
    assert sum(fitted) < 8


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 6:
            raise Stopped

    with pytest.raises(Stopped):
        fit_set(some_images(), SMALL, tmp_path / "x", QUICK, progress=stop)
    (tmp_path / "x.parts" / "00000000.safetensors").write_bytes(b"half of it")
    with pytest.raises(NgcError, match=r"00000000\.safetensors: damaged[\s\S]*delete it"):
        fit_set(some_images(), SMALL, tmp_path / "x", QUICK)


@pytest.mark.parametrize("change", ["conventions", "options", "images"])
def test_parts_of_another_run_are_not_mixed_in(tmp_path: Path, change: str) -> None:
    output = tmp_path / "x"

    def stop(done: int, total: int) -> None:
        if done == 6:
            raise Stopped

    with pytest.raises(Stopped):
        fit_set(some_images(), SMALL, output, QUICK, progress=stop)
    changed: dict[str, Any] = {"images": some_images(), "conventions": SMALL, "options": QUICK}
    changed[change] = {
        "images": some_images(9),
        "conventions": replace(SMALL, seed=1),
        "options": replace(QUICK, half=True),
    }[change]
    with pytest.raises(OptionError, match="other settings"):
        fit_set(output=output, **changed)
    fit_set(output=output, restart=True, **changed)
    assert len(load(output)) == len(changed["images"])


def test_an_output_is_not_replaced_unasked(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(OptionError, match="it is there already"):
        fit_set(some_images(), SMALL, tmp_path / "x", QUICK)
    assert (tmp_path / "x").read_text() == "mine"
    fit_set(some_images(), SMALL, tmp_path / "x", QUICK, restart=True)
    assert len(load(tmp_path / "x")) == 8


def test_mistakes_are_said_before_the_work_begins(tmp_path: Path) -> None:
    images = some_images()
    with pytest.raises(OptionError, match=r"images of \[6, 5, 1\] for networks of \[28, 28, 1\]"):
        fit_set(images, Conventions(), tmp_path / "x", QUICK)
    with pytest.raises(OptionError, match="no images"):
        fit_set(images.select([]), SMALL, tmp_path / "x", QUICK)
    with pytest.raises(OptionError, match="there is no folder"):
        fit_set(images, SMALL, tmp_path / "gone" / "x", QUICK)
    with pytest.raises(OptionError, match="not a device here"):
        fit_set(images, SMALL, tmp_path / "x", replace(QUICK, device="toaster"))
    with pytest.raises(OptionError, match="chunk is 0"):
        FitOptions(chunk=0)
    with pytest.raises(OptionError, match="5 steps at -1"):
        FitOptions(((5, -1),))
    assert list(tmp_path.iterdir()) == []


def test_a_fit_that_diverges_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(NgcError, match="has diverged"):
        fit_set(some_images(), SMALL, tmp_path / "x", FitOptions(((40, 1e30),)))


def test_killed_and_run_again_gives_the_same_file(tmp_path: Path) -> None:
    data = write_mnist(tmp_path / "mnist", train=30, test=0, size=(28, 28)).parent
    options = ["--images", "mnist", "--chunk", "2", "--steps", "30x1e-3", "--data-dir"]
    run = [sys.executable, "-c", "from ngc.cli import app; app()", "data", "inr", *options, data]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*run, "-o", whole], check=True, capture_output=True)
    parts = Path(f"{broken}.parts")
    with subprocess.Popen([*run, "-o", broken], stderr=subprocess.DEVNULL) as process:
        while len(list(parts.glob("*.safetensors"))) < 3 and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    assert not broken.exists()
    assert 3 <= len(list(parts.glob("0*.safetensors"))) < 15
    subprocess.run([*run, "-o", broken], check=True, capture_output=True)
    assert broken.read_bytes() == whole.read_bytes()
