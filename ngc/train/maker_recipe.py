"""Recipes of ``ngc zoo train``: which networks are made, and how they are trained.

Checked like the recipes of ``ngc run``: strictly, all mistakes at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from ngc.train.recipe_check import (
    Checker,
    Count,
    Number,
    Positive,
    Rate,
    Section,
    dataclass_section,
    plain,
)
from ngc.train.recipe_text import Mistake, RecipeError, Text, read_text
from ngc.zoo.wild_park import Rules

Part = Annotated[float, Field(gt=0, le=1)]
Some = Field(min_length=1)


class ImagesSection(Section):
    """What is learned. set: a data set by name, or a folder of pictures with train/ and test/.
    size: height and width, made smaller by averaging; null: as they are. train, test: how many,
    drawn at random; null: all."""

    set: Annotated[str, Some] = "cifar10"
    color: Literal["rgb", "grey"] = "rgb"
    size: Positive | None = None
    train: Positive | None = None
    test: Positive | None = None


class ZooTrain(Section):
    """How each network is trained: AdamW, cross-entropy. Of a list, each network draws one entry.

    checkpoint_every: epochs between checkpoints, the last epoch has one too; initial: one before
    the first epoch as well. share: of the training images that a network sees.
    precision: of convolutions in training; weights and tests are float32 always. ``bf16`` is quick
    where the processor has bf16 units (AMX, GPUs).
    """

    epochs: Positive = 100
    checkpoint_every: Positive = 10
    initial: bool = False
    batch_size: Annotated[list[Positive], Some] = [512]
    lr: Annotated[list[Rate], Some] = [1e-3]
    weight_decay: Annotated[list[Number], Some] = [1e-2]
    share: Annotated[list[Part], Some] = [1.0]
    precision: Literal["float32", "bf16"] = "float32"


class ZooTop(Section):
    """The keys of a recipe. networks: how many in all; copies: how many of each architecture.
    workers: processes, ``auto``: one for each processor core. device: as torch names it; workers
    share a GPU."""

    networks: Positive
    copies: Positive = 1
    seed: Count = 0
    workers: Positive | Literal["auto"] = "auto"
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu, cuda")] = "cpu"
    images: dict[str, Any] = {}
    architecture: dict[str, Any] = {}
    train: dict[str, Any] = {}


@dataclass(frozen=True)
class ZooRecipe:
    """A checked recipe."""

    networks: int
    copies: int
    seed: int
    workers: int | Literal["auto"]
    device: str
    images: ImagesSection
    architecture: Rules
    train: ZooTrain

    def to_dict(self) -> dict[str, Any]:
        """Plain values, every key of every section, in the order that recipes are written in."""
        return {
            "networks": self.networks,
            "copies": self.copies,
            "seed": self.seed,
            "workers": self.workers,
            "device": self.device,
            "images": self.images.model_dump(),
            "architecture": plain(asdict(self.architecture)),
            "train": self.train.model_dump(),
        }

    def dump(self) -> str:
        """As YAML."""
        return yaml.dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)

    def epochs_kept(self) -> list[int]:
        """The epochs after which there are checkpoints; 0 is before the first."""
        train = self.train
        regular = range(0, train.epochs + 1, train.checkpoint_every)
        kept = {*regular, train.epochs} - (set() if train.initial else {0})
        return sorted(kept)


def read_zoo_recipe(path: str | Path, changes: Sequence[str] = ()) -> ZooRecipe:
    """The recipe in a file, with changes ``train.epochs=3``; RecipeError lists all mistakes."""
    return _checked(read_text(path, changes), str(path))


def _checked(text: Text, where: str) -> ZooRecipe:
    checker = Checker(text)
    top = checker.section((), ZooTop)
    values = text.values
    images = checker.section(("images",), ImagesSection, values.get("images", {}))
    shape = dataclass_section(Rules)
    rules = checker.made(("architecture",), Rules, shape, values.get("architecture", {}))
    train = checker.section(("train",), ZooTrain, values.get("train", {}))
    mistakes = [*text.mistakes, *checker.mistakes]
    if top is not None and top.networks % top.copies:
        said = f"found {top.copies}; allowed: what divides networks, {top.networks}"
        mistakes.append(Mistake(text.place(("copies",)), "copies", said))
    if mistakes:
        raise RecipeError(where, mistakes)
    assert top is not None
    assert images is not None
    assert rules is not None
    assert train is not None
    return ZooRecipe(
        networks=top.networks,
        copies=top.copies,
        seed=top.seed,
        workers=top.workers,
        device=top.device,
        images=images,
        architecture=rules,
        train=train,
    )
