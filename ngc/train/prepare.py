"""From a checked recipe to what is trained: the networks, the task, and a new model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from ngc.backends.graphs import GraphBatch
from ngc.errors import OptionError
from ngc.models import Facts, build
from ngc.models.normalise import Normalise
from ngc.train.inr_sets import InrSet, embedded, load
from ngc.train.module import WEIGHTS, Training, stream
from ngc.train.networks import NetworkSet, from_inrs
from ngc.train.recipe import Editing as EditingRecipe
from ngc.train.recipe import Generalization, Recipe, ZooData
from ngc.train.regression import Regression
from ngc.train.tasks import Classification, Task, editing_of_inrs
from ngc.train.zoo_networks import from_zoo
from ngc.zoo import open_zoo

FIT_BATCH = 512  # networks at a time, to fit the normalisation


def open_set(name: str) -> InrSet:
    """The embedded set, or the one in a file: of this path, or of this path below NGC_DATA."""
    if name == "embedded":
        return embedded()
    return load(_place(name))


def _place(name: str) -> Path:
    """A path as it is, or below NGC_DATA where there is nothing else."""
    path, data = Path(name), os.environ.get("NGC_DATA")
    inside = Path(data) / name if data else path
    return inside if not path.exists() and inside.exists() else path


def prepare(recipe: Recipe) -> tuple[NetworkSet, Task]:
    """The networks of a recipe and what is learned from them."""
    data, task = recipe.data, recipe.task
    if isinstance(data, ZooData):
        assert isinstance(task, Generalization)
        columns = recipe.model_settings.get("columns", ())
        zoo = open_zoo(_place(data.set))
        networks = from_zoo(zoo, recipe.graph, data, task.target, columns)
        return networks, Regression(task.loss)
    inrs = open_set(data.set)
    networks = from_inrs(
        inrs,
        recipe.graph,
        train=data.train,
        validation=data.validation,
        test=data.test,
        seed=data.split_seed,
    )
    if isinstance(task, EditingRecipe):
        return networks, editing_of_inrs(inrs, networks, task.edit, task.target, data.images)
    return networks, Classification(networks)


def new_module(recipe: Recipe, networks: NetworkSet, task: Task, seed: int) -> Training:
    """An untrained model for a recipe, its weights drawn from the seed."""
    torch.manual_seed(stream(seed, WEIGHTS))
    try:
        model = build(
            recipe.model_name,
            networks.facts(),
            predicts=task.predicts,
            outputs=task.outputs,
            **recipe.model_settings,
        )
    except OptionError as error:
        raise OptionError(error.text, where="the recipe's model", hint=error.hint) from error
    except RuntimeError as error:  # torch's, where there is no memory for its weights
        reason = str(error).splitlines()[0]
        raise OptionError(reason, where="the recipe's model", hint="smaller sizes") from error
    normalise = Normalise(recipe.normalise, networks.facts().num_layers)
    normalise.fit(_in_order(networks))
    return Training(model, normalise, task, networks, recipe.train, seed, recipe.augment)


def _in_order(networks: NetworkSet) -> Iterator[GraphBatch]:
    """The graphs of the training networks."""
    for numbers in networks.splits["train"].split(FIT_BATCH):
        yield networks.batch(numbers).graphs


def facts_to_dict(facts: Facts) -> dict[str, object]:
    """Plain values, as a checkpoint may hold them."""
    return {key: _lists(value) for key, value in asdict(facts).items()}


def facts_from_dict(values: dict[str, object]) -> Facts:
    """The inverse of ``facts_to_dict``."""
    return Facts(**{key: _tuples(value) for key, value in values.items()})  # type: ignore[arg-type]


def _lists(value: object) -> object:
    return [_lists(inner) for inner in value] if isinstance(value, tuple) else value


def _tuples(value: object) -> object:
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value
