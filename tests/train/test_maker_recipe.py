"""Recipes of ``ngc zoo train``: those that come with ngc, and what is wrong with others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ngc.errors import NgcError
from ngc.train.maker_recipe import ZooRecipe, read_zoo_recipe
from ngc.zoo.wild_park import Rules

ROOT = Path(__file__).parents[2] / "recipes" / "zoo"
FILES = sorted(ROOT.glob("*.yaml"))


def read(folder: Path, text: str, *changes: str) -> ZooRecipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return read_zoo_recipe(path, changes)


def test_the_recipes_are_there() -> None:
    assert {path.stem for path in FILES} == {"tiny", "flatten", "wild_park", "wild_park_full"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_opens_with_its_facts(path: Path, tmp_path: Path) -> None:
    recipe = read_zoo_recipe(path)
    header = re.match(r"((?:#.*\n)+)", path.read_text())
    assert header is not None
    command = f"ngc zoo train {path.relative_to(ROOT.parents[1])} -o "
    assert re.search(rf"^# command:  {re.escape(command)}\w+$", header[1], re.MULTILINE)
    for key in ("hardware", "time", "ours"):
        assert re.search(rf"^# {key}: +\S", header[1], re.MULTILINE), key
    assert read(tmp_path, recipe.dump()) == recipe


@pytest.mark.parametrize("name", ["wild_park", "wild_park_full"])
def test_architectures_are_those_of_the_paper(name: str) -> None:
    assert read_zoo_recipe(ROOT / f"{name}.yaml").architecture == Rules()


def test_the_full_settings_are_those_of_the_paper() -> None:
    train = read_zoo_recipe(ROOT / "wild_park_full.yaml").train
    assert (train.lr, train.batch_size, train.checkpoint_every) == ([1e-3], [512], 10)


def test_a_number_of_networks_is_enough(tmp_path: Path) -> None:
    recipe = read(tmp_path, "networks: 3\n")
    assert recipe.architecture == Rules()
    assert recipe.epochs_kept() == list(range(10, 101, 10))


@pytest.mark.parametrize(
    ("epochs", "every", "initial", "kept"),
    [(4, 2, "false", [2, 4]), (5, 2, "true", [0, 2, 4, 5]), (3, 10, "false", [3])],
)
def test_the_last_epoch_is_always_kept(
    tmp_path: Path, epochs: int, every: int, initial: str, kept: list[int]
) -> None:
    train = f"{{epochs: {epochs}, checkpoint_every: {every}, initial: {initial}}}"
    assert read(tmp_path, f"networks: 1\ntrain: {train}\n").epochs_kept() == kept


WRONG = """\
networks: 3
copies: 2
workers: all
device: tpu
images: {size: 0, colour: grey}
architecture:
  kernels: [3, 4]
  activations: [relu, cos]
  layers: []
train: {lr: 0.001, batch_size: [], share: [2.0]}
speed: 3
"""


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(NgcError) as caught:
        read(tmp_path, WRONG)
    text = str(caught.value)
    for said in (
        "line 3: workers: found the text 'all'; allowed: a whole number from 1 or auto",
        "line 4: device: found the text 'tpu'; allowed: cpu, cuda",
        "line 5: images.size: found 0",
        "line 5: images.colour: there is no such key; allowed: set, color",
        "(nearest: color)",
        "line 7: architecture.kernels: layer 0: kernel 4; try an odd number",
        "activation 'cos'",
        "layers is empty",
        "line 10: train.lr: found 0.001; allowed: a list of at least one",
        "train.batch_size",
        "train.share",
        "line 11: speed: there is no such key",
    ):
        assert said in text, text


def test_copies_divide_the_networks(tmp_path: Path) -> None:
    with pytest.raises(NgcError, match=r"line 2: copies: found 2; allowed: what divides networks"):
        read(tmp_path, "networks: 3\ncopies: 2\n")
