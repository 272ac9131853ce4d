"""Recipes: everything that a run depends on, from one strictly checked YAML file.

Each section is a table of keys with types, ranges and defaults: a pydantic class here, or one made
from the options of a compilation, the constructor of the model, the fields of the augmentation.
All mistakes of a recipe are reported at once. ``Recipe.dump`` writes it with every default filled
in, and reading that gives the same recipe.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, create_model

from ngc.errors import OptionError
from ngc.models import MODELS
from ngc.options import CHOICES, Options
from ngc.train.augment import Augment, WeightAugment
from ngc.train.recipe_check import (
    Checker,
    Count,
    Number,
    Positive,
    Rate,
    Section,
    Share,
    dataclass_section,
    plain,
    readable,
)
from ngc.train.recipe_text import BASE, Mistake, RecipeError, Text, read_text
from ngc.train.sweep import SWEEP, swept


class Classification(Section):
    """Which class does the picture belong to that an INR represents?"""

    name: Literal["inr_classification"] = "inr_classification"


class Editing(Section):
    """Change an INR's weights so that its picture changes in a given way.

    edit: ``dilate`` is the maximum over 3 x 3 pixels, once. target: the edit of the ``image`` that
    the INR was fitted to (the paper's), or of the INR's own ``rendering``, which needs no images.
    """

    name: Literal["inr_editing"] = "inr_editing"
    edit: Literal["dilate"] = "dilate"
    target: Literal["image", "rendering"] = "image"


class Generalization(Section):
    """Which accuracy does a classifier reach on images that it has not learned from?

    target: column of the zoo's table that is predicted, from 0 to 1. loss: cross-entropy (``bce``)
    or square error (``mse``) of the prediction, which is a sigmoid.
    """

    name: Literal["generalization"] = "generalization"
    target: str = "accuracy"
    loss: Literal["bce", "mse"] = "bce"


class InrData(Section):
    """Which INRs. set: ``embedded``, or a file of ``ngc data inr``. images: the data set or
    folder that it was fitted to, which editing alone reads; null: what the set says. train, test:
    how many, null: all. validation: how many of the set's own validation split, null: all; where it
    has none, how many training networks are set aside, null: a tenth. split_seed: which ones.
    augment: changes drawn anew whenever a network is trained on."""

    set: Annotated[str, Field(min_length=1, description="embedded, or a file")] = "embedded"
    images: str | None = None
    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None
    split_seed: Count = 0


class ZooData(Section):
    """Which networks of a zoo. set: a folder of ``ngc zoo import``. where: only those with these
    values in the zoo's table, such as {step: 86}. split: the table's own (``table``), or by
    ``run``, so that no two splits have networks of one training run; ``auto``: the table's where it
    has one; ``network``: each network by itself, of zoos without runs. validation, test: share of
    the runs. train: how many networks, of whole runs, null: all that are left. split_seed: which
    runs. augment: changes drawn anew whenever a network is trained on."""

    set: Annotated[str, Field(min_length=1, description="the folder of a zoo")]
    where: dict[str, str | int | float] = {}
    split: Literal["auto", "table", "run", "network"] = "auto"
    train: Positive | None = None
    validation: Share = 0.15
    test: Share = 0.15
    split_seed: Count = 0


@dataclass(frozen=True)
class Kind:
    """The sections that a kind of task has: its own, ``data``, and ``data.augment``."""

    task: type[Section]
    data: type[Section]
    augment: type


KINDS = {
    "inr_classification": Kind(Classification, InrData, Augment),
    "inr_editing": Kind(Editing, InrData, Augment),
    "generalization": Kind(Generalization, ZooData, WeightAugment),
}


class Train(Section):
    """The loop. AdamW; the learning rate rises linearly for warmup_steps, and then stays
    (schedule: constant) or falls to zero along half a cosine by the last step (cosine).

    clip: largest norm of the gradient. early_stopping: epochs without a better validation result.
    batch_size: over all devices together. threads: of torch on the CPU, null: as torch chooses.
    """

    epochs: Positive = 100
    batch_size: Positive = 128
    eval_batch_size: Positive | None = None
    lr: Rate = 1e-3
    weight_decay: Number = 5e-4
    amsgrad: bool = True
    warmup_steps: Count = 1000
    schedule: Literal["constant", "cosine"] = "constant"
    clip: Rate | None = 10.0
    early_stopping: Positive | None = None
    precision: Literal["float32", "tf32", "bf16"] = "float32"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: Positive | Literal["auto"] = 1
    threads: Positive | None = None


class Top(Section):
    """The keys of a recipe. name: of its run folders, by default that of the file."""

    name: Annotated[
        str | None,
        Field(pattern=r"^\w[\w.-]*$", description="letters, digits, -, _ and ., or null"),
    ] = None
    task: dict[str, Any]
    data: dict[str, Any] = {}
    graph: dict[str, Any] = {}
    normalise: Literal["off", "dataset", "layer"] = "layer"
    model: dict[str, Any]
    train: dict[str, Any] = {}
    seeds: Annotated[list[Count], Field(min_length=1)] = [0]


@dataclass(frozen=True)
class Recipe:
    """A checked recipe. ``name``: of the file; ``model_settings``: of the model ``model_name``;
    ``augment`` is None where nothing is augmented."""

    name: str
    task: Classification | Editing | Generalization
    data: InrData | ZooData
    augment: Augment | WeightAugment | None
    graph: Options
    normalise: str
    model_name: str
    model_settings: dict[str, Any]
    train: Train
    seeds: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, every key of every section, in the order that recipes are written in."""
        augment = None if self.augment is None else plain(dataclasses.asdict(self.augment))
        return {
            "name": self.name,
            "task": self.task.model_dump(),
            "data": {**self.data.model_dump(), "augment": augment},
            "graph": plain(self.graph.to_dict()),
            "normalise": self.normalise,
            "model": {"name": self.model_name, **plain(self.model_settings)},
            "train": self.train.model_dump(),
            "seeds": list(self.seeds),
        }

    def dump(self) -> str:
        """As YAML."""
        return yaml.dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)


def read_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a file, with changes ``train.epochs=3``; RecipeError lists all mistakes."""
    found = read_recipes(path, changes)
    if len(found) > 1:
        said = f"it is a sweep of {len(found)} recipes"
        raise OptionError(said, where=str(path), hint="read_recipes; or --set sweep=null")
    return found[0]


def read_recipes(path: str | Path, changes: Sequence[str] = ()) -> list[Recipe]:
    """The recipes that a file stands for: one, or those of its ``sweep``."""
    name = re.sub(r"[^\w.-]+", "-", Path(path).stem).strip("-.") or "recipe"
    found: list[Recipe] = []
    mistakes: dict[Mistake, None] = {}
    for words, text in swept(read_text(path, changes)):
        try:
            one = _checked(name, text, str(path))
            found.append(dataclasses.replace(one, name="-".join([one.name, *words])))
        except RecipeError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    if mistakes:
        raise RecipeError(str(path), list(mistakes))
    return found


def _checked(name: str, text: Text, where: str) -> Recipe:
    checker = Checker(text)
    top = checker.section((), Top, beside=(BASE, SWEEP))
    values = text.values
    task = checker.named(("task",), {name: kind.task for name, kind in KINDS.items()})
    kind = _kind_of(values.get("task"))
    data_values = dict(part) if isinstance(part := values.get("data", {}), dict) else {}
    augment_values = data_values.pop("augment", None)
    data = checker.section(("data",), kind.data, data_values, beside=("augment",))
    augment = None
    if augment_values is not None:
        shape = dataclass_section(kind.augment)
        augment = checker.made(("data", "augment"), kind.augment, shape, augment_values)
    graph = checker.made(("graph",), Options, options_section(), values.get("graph", {}))
    model = checker.named(("model",), {known: model_section(known) for known in MODELS})
    train = checker.section(("train",), Train, values.get("train", {}))
    mistakes = [*text.mistakes, *checker.mistakes]
    if isinstance(task, Editing) and augment_values is not None:
        said = "an edit has its picture as target, which would have to move with the network"
        mistakes.append(Mistake(text.place(("data", "augment")), "data.augment", said))
    if isinstance(task, Classification) and isinstance(data, InrData) and data.images is not None:
        said = "only editing (task.name: inr_editing) reads it; a class is in the set itself"
        mistakes.append(Mistake(text.place(("data", "images")), "data.images", said))
    if graph is not None and graph.storage == "ragged":
        said = "learned models read padded kernels; allowed: auto, padded"
        mistakes.append(Mistake(text.place(("graph", "storage")), "graph.storage", said))
    if top is not None and len(set(top.seeds)) < len(top.seeds):
        mistakes.append(Mistake(text.place(("seeds",)), "seeds", "a seed is given twice"))
    if mistakes:
        raise RecipeError(where, mistakes)
    assert top is not None
    assert isinstance(task, Classification | Editing | Generalization)
    assert isinstance(data, InrData | ZooData)
    assert graph is not None
    assert model is not None
    assert train is not None
    settings = model.model_dump()
    return Recipe(
        name=top.name or name,
        task=task,
        data=data,
        augment=augment,
        graph=graph,
        normalise=top.normalise,
        model_name=settings.pop("name"),
        model_settings=settings,
        train=train,
        seeds=tuple(top.seeds),
    )


def _kind_of(task: object) -> Kind:
    """The kind of a task section; where its name is wrong, the one that is nearest."""
    name = task.get("name") if isinstance(task, dict) else None
    near = difflib.get_close_matches(str(name), KINDS, n=1, cutoff=0)
    return KINDS[near[0]]


# --- sections made from what the rest of ngc declares ---------------------------------------------


def options_section() -> type[Section]:
    """The keys of ``graph:``, the options of a compilation."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(Options):
        default = getattr(Options(), field.name)
        kind = Literal[CHOICES[field.name]] if field.name in CHOICES else Any  # type: ignore[valid-type]
        fields[field.name] = (kind, default)
    return create_model("graph", __base__=Section, **fields)


def model_section(name: str) -> type[Section]:
    """The keys of ``model:`` for one model: the keyword arguments of its constructor."""
    constructor = MODELS[name].__init__
    hints = typing.get_type_hints(constructor, include_extras=True)
    fields: dict[str, Any] = {"name": (Literal[name], name)}  # type: ignore[valid-type]
    for parameter in inspect.signature(constructor).parameters.values():
        given_by_the_task = parameter.name in ("predicts", "outputs")
        if parameter.kind is parameter.KEYWORD_ONLY and not given_by_the_task:
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[parameter.name] = (readable(hints[parameter.name]), default)
    return create_model(name, __base__=Section, **fields)
