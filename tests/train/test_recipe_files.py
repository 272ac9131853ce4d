"""The recipes that come with ngc are valid, say what they are, and build the paper's models."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ngc.models import Facts, build
from ngc.train.inr_sets import embedded
from ngc.train.networks import from_inrs
from ngc.train.recipe import (
    Classification,
    Editing,
    Generalization,
    Recipe,
    Train,
    read_recipe,
    read_recipes,
)
from tests.models.test_sizes import small_zoo, wild_park

ROOT = Path(__file__).parents[2] / "recipes"
BASES = sorted(ROOT.rglob("_*.yaml"))
# Those of ngc zoo train are of another kind: test_maker_recipe.py.
FILES = sorted(set(ROOT.rglob("*.yaml")) - set(BASES) - set((ROOT / "zoo").iterdir()))
PAPER = sorted(set(FILES) & set((ROOT / "paper").iterdir()))
LAPTOP = sorted(set(FILES) & set((ROOT / "laptop").iterdir()))

# Trainable parameters as in the paper or its code (NG-T: of its code).
PARAMETERS = {
    "mnist_ng_gnn_0": 331_466,
    "mnist_ng_gnn_64": 348_746,
    "mnist_ng_t_0": 376_586,
    "mnist_ng_t_16": 381_482,
    "mnist_ng_t_64": 393_866,
    "dilation_ng_gnn_0": 1_186_696,
    "dilation_ng_gnn_64": 1_221_128,
    "dilation_ng_t_0": 391_112,
    "cnn_zoo_ng_gnn": 5_587_969,
    "cnn_zoo_ng_t": 1_807_873,
    "wild_park_ng_gnn": 369_025,
    "wild_park_ng_gnn_no_activations": 369_025 - 448,
    "wild_park_ng_t": 125_713,
    "wild_park_stat_nn": 1_087_001,
}


def path_of(name: str) -> Path:
    (path,) = (path for path in FILES if path.stem == name)
    return path


@cache
def facts_of_inrs() -> Facts:
    recipe = read_recipe(path_of("mnist_ng_gnn_0"))
    return from_inrs(embedded(), recipe.graph).facts()


def facts_for(path: Path, recipe: Recipe) -> Facts:
    """Those of graphs like the ones that a recipe is for."""
    if not isinstance(recipe.task, Generalization):
        return facts_of_inrs()
    if path.stem.startswith("cnn_zoo"):
        return small_zoo(linear_as=recipe.graph.linear_as, reverse=recipe.graph.reverse)
    return wild_park()


def test_sweeps_are_of_these_recipes() -> None:
    found = {path.stem: read_recipes(path) for path in FILES if path.parent.name == "sweeps"}
    assert [one.graph.flatten for one in found["flatten"]] == ["repeat", "virtual", "kernel"]
    assert [one.graph.linear_as for one in found["linear_as"]] == ["conv1x1", "separate"]


def test_all_rows_of_the_tables_are_there() -> None:
    names = {path.stem for path in PAPER}
    probes = (0, 4, 16, 64)
    for model in ("ng_gnn", "ng_t"):
        for data in ("mnist", "fashion", "dilation"):
            assert {f"{data}_{model}_{count}" for count in probes} <= names
        assert f"mnist_{model}_no_positions" in names
    for data in ("mnist", "fashion"):
        assert {f"{data}_{model}" for model in ("mlp", "set_nn", "dws_net", "query")} <= names
    assert {"dilation_dws_net", "dilation_nfn_np"} <= names
    assert {f"cnn_zoo_{model}" for model in ("ng_gnn", "ng_t", "stat_nn", "nfn_hnp")} <= names
    assert {f"wild_park_{model}" for model in ("stat_nn", "probing", "architecture")} <= names
    for model in ("ng_gnn", "ng_t"):
        assert {f"wild_park_{model}", f"wild_park_{model}_no_activations"} <= names
    assert len(PAPER) == 52
    assert len(LAPTOP) >= 13


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_is_valid_and_opens_with_its_facts(path: Path) -> None:
    recipes = read_recipes(path)
    header = re.match(r"((?:#.*\n)+)", path.read_text())
    assert header is not None
    command = f"ngc run {path.relative_to(ROOT.parent)}"
    assert re.search(rf"^# command:  {re.escape(command)}$", header[1], re.MULTILINE)
    keys = ["hardware", "time", *(["paper"] if path in PAPER else []), "ours"]
    for key in keys:
        assert re.search(rf"^# {key}: +\S", header[1], re.MULTILINE), key
    assert [one.dump() for one in read_recipes(path)] == [one.dump() for one in recipes]


@pytest.mark.parametrize("path", BASES, ids=lambda path: path.stem)
def test_a_base_is_used_and_is_no_recipe_itself(path: Path) -> None:
    assert any(f"base: {path.name}\n" in other.read_text() for other in path.parent.iterdir())
    assert "\nmodel:" not in path.read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_recipe_builds_its_model(path: Path) -> None:
    for recipe in read_recipes(path):
        predicts = "edits" if isinstance(recipe.task, Editing) else "graph"
        outputs = 1 if isinstance(recipe.task, Generalization) else 10
        facts = facts_for(path, recipe)
        model = build(
            recipe.model_name, facts, predicts=predicts, outputs=outputs, **recipe.model_settings
        )
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        assert count == PARAMETERS.get(path.stem, count)


def test_the_counts_are_of_recipes() -> None:
    assert PARAMETERS.keys() <= {path.stem for path in PAPER}


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_settings_are_those_of_the_paper(path: Path) -> None:
    recipe = read_recipe(path)
    common = {"batch_size": 128, "lr": 1e-3, "weight_decay": 5e-4, "amsgrad": True}
    if isinstance(recipe.task, Generalization):
        assert_settings_of_zoos(path, recipe, common)
        return
    if path.stem.startswith("dilation"):
        assert recipe.train == Train(epochs=200, warmup_steps=10_000, clip=1.0, **common)
        assert recipe.task == Editing(target="image")
        assert recipe.augment is None
        assert recipe.normalise == "off"
    else:
        epochs = 150 if path.stem.startswith("fashion") else 100
        assert recipe.train == Train(epochs=epochs, warmup_steps=1000, clip=10.0, **common)
        assert recipe.task == Classification()
        assert recipe.augment is not None
        assert recipe.normalise == "layer"
    assert recipe.data.validation == 5000
    assert probes_of(recipe) == int(found[0] if (found := re.findall(r"_(\d+)$", path.stem)) else 0)


def assert_settings_of_zoos(path: Path, recipe: Recipe, common: dict[str, Any]) -> None:
    epochs = 300 if path.stem.startswith("cnn_zoo") else 10
    common["batch_size"] = 128 if epochs == 10 or path.stem == "cnn_zoo_ng_gnn" else 192
    assert recipe.train == Train(epochs=epochs, warmup_steps=0, clip=10.0, **common)
    square = path.stem == "cnn_zoo_ng_gnn"
    assert recipe.task == Generalization(loss="mse" if square else "bce")
    assert (recipe.augment is not None) == square
    assert recipe.normalise == ("layer" if epochs == 300 else "off")


def probes_of(recipe: Recipe) -> int:
    return int(recipe.model_settings.get("probes", 0))
