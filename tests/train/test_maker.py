"""Making a zoo: what its files hold, killed and resumed, by one worker or several."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ngc.errors import NgcError, OptionError
from ngc.train.images import TEST, TRAIN, Images, load_images
from ngc.train.maker import make_zoo, place_of
from ngc.train.maker_images import prepare_images
from ngc.train.maker_recipe import ImagesSection, ZooRecipe, read_zoo_recipe
from ngc.train.maker_workers import work
from ngc.zoo.wild_park import Config, network
from tests.train.fake_data import write_mnist

RECIPE = """\
networks: 6
copies: 2
seed: 3
workers: 1
images: {set: mnist, color: grey, size: 4, train: 30, test: 20}
architecture: {layers: [2, 3], channels: [2, 3], kernels: [1, 3]}
train:
  epochs: 3
  checkpoint_every: 2
  initial: true
  batch_size: [8, 16]
  lr: [1e-3, 1e-2]
  share: [1.0, 0.5]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data: 40 training and 30 test images of 8 x 8 pixels."""
    folder = tmp_path_factory.mktemp("data")
    write_mnist(folder / "mnist", train=40, test=30, size=(8, 8))
    return folder


def recipe(folder: Path, *changes: str) -> ZooRecipe:
    path = folder / "recipe.yaml"
    path.write_text(RECIPE)
    return read_zoo_recipe(path, changes)


@pytest.fixture(scope="module")
def zoo(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run of one worker."""
    folder = tmp_path_factory.mktemp("unbroken")
    make_zoo(recipe(folder), folder / "zoo", data_dir=data)
    return folder / "zoo"


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "networks").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def about(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place_of(folder, number) / "network.json").read_text())
    return found


def rows(folder: Path, number: int) -> list[list[str]]:
    text = (place_of(folder, number) / "metrics.csv").read_text()
    return [line.split(",") for line in text.splitlines()]


# --- what is written ----------------------------------------------------------------------------


def test_each_network_has_its_checkpoints_and_their_metrics(zoo: Path) -> None:
    for number in range(6):
        names = {path.name for path in place_of(zoo, number).iterdir()}
        checkpoints = {"0.safetensors", "2.safetensors", "3.safetensors"}
        assert names == checkpoints | {"metrics.csv", "network.json"}
        table = rows(zoo, number)
        assert table[0] == ["epoch", "train_loss", "test_loss", "accuracy"]
        assert [row[0] for row in table[1:]] == ["0", "2", "3"]
        assert [bool(row[1]) for row in table[1:]] == [False, True, True]


def test_the_accuracy_is_that_of_the_stored_weights(zoo: Path, data: Path) -> None:
    images = load_images("mnist", data)
    wanted = ImagesSection(set="mnist", color="grey", size=4, train=30, test=20)
    found = prepare_images(images, wanted, seed=3)
    test = torch.from_numpy(found.pixels[30:]).permute(0, 3, 1, 2).float()
    test = (test - found.mean[0]) / found.deviation[0]
    labels = torch.from_numpy(found.label[30:])
    for number in range(6):
        module = network(about(zoo, number)["architecture"]).eval()
        for epoch, _, loss, accuracy in rows(zoo, number)[1:]:
            module.load_state_dict(load_file(place_of(zoo, number) / f"{epoch}.safetensors"))
            with torch.no_grad():
                logits = module(test)
            assert float(F.cross_entropy(logits, labels)) == pytest.approx(float(loss), rel=1e-4)
            right = (logits.argmax(1) == labels).double().mean()
            assert float(right) == pytest.approx(float(accuracy))


def test_networks_learn(zoo: Path) -> None:
    """Training images of noise can only be learned by heart; the loss falls a little."""
    first, last = zip(*((float(rows(zoo, k)[2][1]), float(rows(zoo, k)[3][1])) for k in range(6)))
    assert sum(last) < sum(first)


def test_copies_share_their_architecture_and_nothing_else(zoo: Path) -> None:
    found = [about(zoo, number) for number in range(6)]
    assert [one["run"] for one in found] == [f"{number:05d}" for number in range(6)]
    shapes = [json.dumps(one["architecture"]) for one in found]
    assert shapes[0::2] == shapes[1::2]
    assert len(set(shapes)) == 3
    weights = [load_file(place_of(zoo, k) / "0.safetensors")["fc.weight"] for k in (0, 1)]
    assert not torch.equal(*weights)
    assert len({json.dumps(one["hyper"]) for one in found}) > 1


def test_settings_are_drawn_from_the_lists(tmp_path: Path, data: Path) -> None:
    from ngc.train.maker_training import job_of

    found = recipe(tmp_path)
    images = prepare_images(load_images("mnist", data), found.images, 0)
    hypers = [job_of(found, number, images).hyper for number in range(100)]
    for key in ("batch_size", "lr", "share"):
        assert {getattr(one, key) for one in hypers} == set(getattr(found.train, key))


def test_the_summary_counts_and_names_what_was_made(zoo: Path) -> None:
    summary = json.loads((zoo / "summary.json").read_text())
    counts = [summary[key] for key in ("networks", "architectures", "checkpoints", "stopped")]
    assert counts == [6, 3, 18, []]
    assert summary["images"]["inputs"] == [1, 4, 4]
    assert len(summary["sha256"]) == 64
    assert summary["versions"]["torch"] == torch.__version__
    assert 0 <= summary["accuracy"]["of the last epoch"]["median"] <= 1
    assert (zoo / "accuracies.png").read_bytes().startswith(b"\x89PNG")
    assert not (zoo / ".images").exists()
    assert read_zoo_recipe(zoo / "zoo_train.yaml") == recipe(zoo.parent)


def test_a_network_whose_loss_is_no_number_stops_there(tmp_path: Path, data: Path) -> None:
    changes = ("networks=2", "train.lr=[1e30]", "train.initial=false")
    summary = make_zoo(recipe(tmp_path, *changes), tmp_path / "zoo", data_dir=data)
    assert summary["stopped"] == ["00000", "00001"]
    assert summary["checkpoints"] == 0
    assert about(tmp_path / "zoo", 0)["stopped"] in (1, 2)
    assert [path.name for path in place_of(tmp_path / "zoo", 0).glob("*.safetensors")] == []


@pytest.mark.parametrize("change", ["train.precision=bf16", "architecture.norm=[true]"])
def test_other_ways_to_train_are_stored_in_float32(tmp_path: Path, data: Path, change: str) -> None:
    make_zoo(recipe(tmp_path, "networks=2", change), tmp_path / "zoo", data_dir=data)
    state = load_file(place_of(tmp_path / "zoo", 0) / "3.safetensors")
    assert {tensor.dtype for tensor in state.values() if tensor.ndim} == {torch.float32}
    network(about(tmp_path / "zoo", 0)["architecture"]).load_state_dict(state)


# --- killed and resumed, one worker and several -------------------------------------------------


def child(folder: str, data: str) -> None:
    """Make a zoo with two workers, in a process of its own."""
    root = Path(folder)
    found = recipe(root, "workers=2")
    make_zoo(found, root / "zoo", data_dir=Path(data), resume=(root / "zoo").exists())


def test_killed_and_resumed_with_other_workers_the_zoo_is_the_same(
    tmp_path: Path, data: Path, zoo: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    networks = tmp_path / "zoo" / "networks"
    process = context.Process(target=child, args=(str(tmp_path), str(data)))
    process.start()
    while process.is_alive() and not any(networks.glob("[0-9]*")):
        time.sleep(0.001)
    time.sleep(np.random.default_rng(int.from_bytes(os.urandom(4))).uniform(0, 0.05))
    process.kill()
    process.join()
    assert process.exitcode in (-signal.SIGKILL, 0)  # a busy machine may let it end
    done = {path.name: path.stat().st_mtime_ns for path in networks.glob("[0-9]*")}
    assert done
    (networks / ".00005.1").mkdir(exist_ok=True)  # what a killed worker leaves
    summary = make_zoo(recipe(tmp_path), tmp_path / "zoo", data_dir=data, resume=True)
    assert contents(tmp_path / "zoo") == contents(zoo)
    kept = {name: (networks / name).stat().st_mtime_ns for name in done}
    assert kept == done  # finished networks are not made again
    assert summary["sha256"] == json.loads((zoo / "summary.json").read_text())["sha256"]


def test_two_workers_make_the_zoo_of_one(tmp_path: Path, data: Path, zoo: Path) -> None:
    seen: list[tuple[int, int]] = []
    make_zoo(
        recipe(tmp_path, "workers=2"),
        tmp_path / "zoo",
        data_dir=data,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert contents(tmp_path / "zoo") == contents(zoo)
    assert seen == [(done, 6) for done in range(7)]


def leave(number: int) -> None:
    os._exit(3)


def refuse(number: int) -> None:
    raise OptionError(f"number {number}", where="here")


def test_a_worker_that_ends_is_an_error() -> None:
    with pytest.raises(NgcError, match=r"a worker process ended"):
        list(work(leave, range(4), 2))


def test_what_a_worker_refuses_is_told() -> None:
    with pytest.raises(OptionError, match=r"here: number [01]"):
        list(work(refuse, range(4), 2))


# --- refusals -----------------------------------------------------------------------------------


def test_a_zoo_is_not_written_over(zoo: Path, data: Path) -> None:
    with pytest.raises(OptionError, match=r"there is a zoo already\n.*--resume"):
        make_zoo(recipe(zoo.parent), zoo, data_dir=data)


def test_a_zoo_goes_on_with_its_own_recipe_only(zoo: Path, data: Path) -> None:
    other = recipe(zoo.parent, "train.epochs=4", "seed=1", "workers=2")
    with pytest.raises(OptionError, match=r"another recipe: seed, train.epochs"):
        make_zoo(other, zoo, data_dir=data, resume=True)


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path, data: Path) -> None:
    with pytest.raises(OptionError, match=r"not empty"):
        make_zoo(recipe(tmp_path), tmp_path, data_dir=data)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_told_before_anything_is_written(tmp_path: Path, data: Path) -> None:
    with pytest.raises(NgcError, match=r"device: cuda: torch sees no GPU"):
        make_zoo(recipe(tmp_path, "device=cuda"), tmp_path / "zoo", data_dir=data)
    assert not (tmp_path / "zoo").exists()


# --- images -------------------------------------------------------------------------------------


def pictures(size: tuple[int, int] = (4, 4), channels: int = 3) -> Images:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (8, *size, channels)).astype(np.uint8)
    split = np.array([TRAIN] * 5 + [TEST] * 3)
    index = np.concatenate([np.arange(5), np.arange(3)])
    return Images("pictures", pixels, np.arange(8) % 4, index, split, tuple("abcd"))


def test_images_are_averaged_and_made_grey() -> None:
    images = pictures()
    found = prepare_images(images, ImagesSection(color="grey", size=2), 0)
    assert found.inputs == (1, 2, 2)
    assert (found.train, len(found.pixels), found.classes) == (5, 8, 4)
    place = int(np.flatnonzero((found.label == 2) & (np.arange(8) < 5))[0])
    square = images.pixels[2, :2, 2:].astype(float).mean((0, 1))
    grey = 0.299 * square[0] + 0.587 * square[1] + 0.114 * square[2]
    assert found.pixels[place, 0, 1, 0] == round(grey)


def test_some_images_are_drawn_by_the_seed() -> None:
    def labels(seed: int) -> list[int]:
        return prepare_images(pictures(), ImagesSection(train=2, test=1), seed).label.tolist()

    assert labels(1) == labels(1)
    assert len({tuple(labels(seed)) for seed in range(20)}) > 3


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (ImagesSection(size=3), r"images.size: 3 from images of 4x4"),
        (ImagesSection(size=8), r"images.size: 8 from images of 4x4"),
        (ImagesSection(train=6), r"images.train: pictures has 5"),
        (ImagesSection(test=4), r"images.test: pictures has 3"),
    ],
)
def test_images_that_are_not_there_are_refused(wanted: ImagesSection, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        prepare_images(pictures(), wanted, 0)


def test_grey_images_have_no_colors() -> None:
    with pytest.raises(OptionError, match=r"images.color: the images are grey"):
        prepare_images(pictures(channels=1), ImagesSection(), 0)


def test_an_architecture_is_read_from_the_file(zoo: Path) -> None:
    config = Config.from_dict(about(zoo, 0)["architecture"])
    assert config.inputs == (1, 4, 4)
    assert config.classes == 10
