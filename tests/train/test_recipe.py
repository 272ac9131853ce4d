"""Recipes: what is read, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from ngc.errors import OptionError
from ngc.options import Options
from ngc.train.augment import Augment
from ngc.train.recipe import Editing, Train, read_recipe
from ngc.train.recipe_text import RecipeError, read_text

MINIMAL = "task: {name: inr_classification}\nmodel: {name: ng_gnn}\n"


def written(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def refused(folder: Path, text: str, *changes: str) -> list[str]:
    """The mistakes of a recipe, in words."""
    with pytest.raises(RecipeError) as caught:
        read_recipe(written(folder, text), changes)
    return [str(mistake) for mistake in caught.value.mistakes]


# --- what is read ---------------------------------------------------------------------------------


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, MINIMAL, "first.yaml"))
    assert recipe.name == "first"
    assert recipe.train == Train()
    assert recipe.graph == Options()
    assert recipe.model_name == "ng_gnn"
    assert recipe.model_settings["width"] == 64
    assert recipe.augment is None
    assert recipe.seeds == (0,)


def test_the_resolved_recipe_reads_back(tmp_path: Path) -> None:
    text = """
        name: other
        task: {name: inr_editing, target: rendering}
        data: {train: 100}
        graph: {reverse: features, kernel: [3, 3], input_axes: {x: "1,2"}}
        normalise: off
        model: {name: ng_t, probes: 4, dropout: 0}
        train: {lr: 3e-4, devices: auto, early_stopping: 5}
        seeds: [1, 2]
    """
    recipe = read_recipe(written(tmp_path, text))
    assert recipe.name == "other"
    assert recipe.task == Editing(target="rendering")
    assert recipe.graph.kernel == (3, 3)
    assert recipe.train.lr == 3e-4
    again = read_recipe(written(tmp_path, recipe.dump(), "resolved.yaml"))
    assert again == recipe
    assert again.dump() == recipe.dump()


def test_no_images_may_be_said_of_any_task(tmp_path: Path) -> None:
    """As the resolved recipes of all runs do."""
    assert "images: null" in read_recipe(written(tmp_path, MINIMAL)).dump()
    read_recipe(written(tmp_path, MINIMAL + "data: {images: null}"))
    editing = "task: {name: inr_editing}\nmodel: {name: ng_t}\ndata: {images: mnist}"
    read_recipe(written(tmp_path, editing))


def test_augmentation_reads_back(tmp_path: Path) -> None:
    recipe = read_recipe(written(tmp_path, MINIMAL + "data: {augment: {noise: 0.5}}"))
    assert recipe.augment == Augment(noise=0.5)
    assert read_recipe(written(tmp_path, recipe.dump())).augment == Augment(noise=0.5)


def test_words_and_numbers_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = read_text(written(tmp_path, "a: off\nb: 1e-3\nc: yes\nd: 012\ne: null\nf: 1_000"))
    assert text.values == {"a": "off", "b": 1e-3, "c": "yes", "d": 12.0, "e": None, "f": "1_000"}


def test_changes_of_the_command_line_win(tmp_path: Path) -> None:
    changes = ["train.epochs=7", "seeds=[4, 5]", "model={width: 32}", "data.augment.noise=0"]
    recipe = read_recipe(written(tmp_path, MINIMAL + "train: {epochs: 3, lr: 0.1}"), changes)
    assert (recipe.train.epochs, recipe.train.lr) == (7, 0.1)
    assert recipe.seeds == (4, 5)
    assert recipe.model_settings["width"] == 32
    assert recipe.augment == Augment(noise=0)


def test_a_recipe_lies_over_its_base(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL + "train: {epochs: 3, lr: 0.1}\nseeds: [1, 2]", "_base.yaml")
    over = "base: _base.yaml\ntrain: {epochs: 5}\nseeds: [3]"
    recipe = read_recipe(written(tmp_path, over))
    assert (recipe.train.epochs, recipe.train.lr) == (5, 0.1)
    assert recipe.seeds == (3,)
    assert "base" not in recipe.to_dict()


# --- what is refused ------------------------------------------------------------------------------

FIVE = """task: {name: inr_clasification}
data:
  trian: 2000
graph: {reverse: both}
model:
  name: ng_gnn
  width: wide
train:
  epochs: 0
"""


def test_five_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    names = "name, width, layers, probes"
    assert read_recipe(written(tmp_path, MINIMAL)).model_settings.keys() >= {"width", "probes"}
    found = refused(tmp_path, FIVE)
    assert found == [
        "line 1: task.name: found the text 'inr_clasification'; allowed: inr_classification, "
        "inr_editing, generalization (nearest: inr_classification)",
        "line 3: data.trian: there is no such key; allowed: set, images, train, validation, test, "
        "split_seed, augment (nearest: train)",
        "line 4: graph.reverse: found the text 'both'; allowed: none, append, features",
        "line 7: model.width: found the text 'wide'; allowed: a whole number from 1",
        "line 9: train.epochs: found 0; allowed: a whole number from 1",
    ]
    assert names in refused(tmp_path, MINIMAL, "model.breadth=3")[0]


def test_the_message_counts_the_mistakes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe.yaml: 5 mistakes\n  line 1: task.name"):
        read_recipe(written(tmp_path, FIVE))


def test_what_options_and_augmentations_refuse_is_told_at_once(tmp_path: Path) -> None:
    """With the lines of each, beside mistakes of form in the same sections."""
    text = """task: {name: inr_classification}
model: {name: ng_gnn}
data:
  augment:
    dropout: 3
    rotation: -5
graph:
  reverse: both
  kernel: huge
  input_axes: 7
"""
    with pytest.raises(RecipeError) as error:
        read_recipe(written(tmp_path, text))
    keys = [mistake.key for mistake in error.value.mistakes]
    assert sorted(keys) == [
        "data.augment.dropout", "data.augment.rotation", "graph.input_axes", "graph.kernel",
        "graph.reverse",
    ]  # fmt: skip
    assert len({str(mistake.place) for mistake in error.value.mistakes}) == 5
    changes = ["graph.reverse=features", "graph.storage=ragged", "graph.kernel=3"]
    with pytest.raises(RecipeError, match=r"graph.reverse=features: graph: reverse=fea"):
        read_recipe(written(tmp_path, MINIMAL), changes)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("model: {name: ng_gnn}", "line 1: task: it is missing"),
        (MINIMAL + "sedes: [1]", "line 3: sedes: there is no such key; allowed: name, task, data"),
        (MINIMAL + "seeds: []", "line 3: seeds: found a list of 0; allowed: a list of at least "
         "one (each a whole number from 0)"),
        (MINIMAL + "seeds: [1, x]", "line 3: seeds[1]: found the text 'x'"),
        (MINIMAL + "seeds: [1, 1]", "line 3: seeds: a seed is given twice"),
        (MINIMAL + "train: 3", "line 3: train: found 3; allowed: a section of KEY: VALUE"),
        (MINIMAL + "train: {epochs: true}", "line 3: train.epochs: found true"),
        (MINIMAL + "train: {epochs: 1.5}", "found 1.5; allowed: a whole number from 1"),
        (MINIMAL + "train: {clip: x}", "found the text 'x'; allowed: a number above 0 or null"),
        (MINIMAL + "train: {devices: all}", "allowed: a whole number from 1 or auto"),
        (MINIMAL + "train: {lr: .inf}", "line 3: train.lr: found the text '.inf'; allowed: a num"),
        (MINIMAL + "train: {precision: 16}", "found 16; allowed: float32, tf32, bf16"),
        (MINIMAL + "train: {amsgrad: 1}", "found 1; allowed: true or false"),
        (MINIMAL + "normalise: layers", "allowed: off, dataset, layer (nearest: layer)"),
        (MINIMAL + "name: a/b", "line 3: name: found the text 'a/b'; allowed: letters, digits"),
        (MINIMAL + "graph: {kernel: 0x3}", "line 3: graph.kernel: kernel cannot be '0x3'"),
        (MINIMAL + "graph:\n  reverse: features\n  storage: ragged", "line 4: graph: reverse=feat"),
        (MINIMAL + "graph: {storage: ragged}", "line 3: graph.storage: learned models read padded"),
        (MINIMAL + "data:\n  augment: {noise: -1}", "line 4: data.augment.noise: noise is -1"),
        (MINIMAL + "data:\n  augment: {nose: 1}", "line 4: data.augment.nose: there is no such"),
        ("task: {name: inr_editing}\nmodel: {name: ng_t}\ndata: {augment: {}}",
         "line 3: data.augment: an edit has its picture as target"),
        (MINIMAL + "data:\n  images: mnist", "line 4: data.images: only editing (task.name: "),
        ("task: {name: inr_classification}\nmodel:\n  name: ng_gn",
         "line 3: model.name: found the text 'ng_gn'; allowed: "),
        ("task: {name: inr_classification}\nmodel: {width: 3}", "model.name: it is missing; allow"),
        ("task: {name: inr_classification}\nmodel: ng_gnn", "line 2: model: found the text"),
        (MINIMAL + "seeds: [1]\nseeds: [2]", "line 4: seeds: given twice, first in line 3"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, mistake: str) -> None:
    found = refused(tmp_path, text)
    assert len(found) == 1
    assert mistake in found[0]


def test_the_nearest_model_is_named(tmp_path: Path) -> None:
    assert "(nearest: ng_gnn)" in refused(tmp_path, MINIMAL, "model.name=ng_gn")[0]


def test_mistakes_of_the_command_line_show_the_argument(tmp_path: Path) -> None:
    found = refused(tmp_path, MINIMAL + "train: {epochs: 0}", "train.lr=fast", "sed=1")
    assert [one.split(": ")[0] for one in found] == ["--set sed=1", "--set train.lr=fast", "line 3"]


def test_mistakes_of_a_base_name_its_file(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL + "train: {epochs: 0}", "_base.yaml")
    found = refused(tmp_path, "base: _base.yaml\nseeds: 3")
    assert found[0].startswith("line 2: seeds: found 3")
    assert found[1].startswith("_base.yaml, line 3: train.epochs: found 0")


def test_a_base_has_no_base(tmp_path: Path) -> None:
    written(tmp_path, MINIMAL + "base: other.yaml", "_base.yaml")
    assert "has no base of its own" in refused(tmp_path, "base: _base.yaml")[0]
    assert "there is no file 'none.yaml'" in refused(tmp_path, "base: none.yaml")[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: {name: x", "line 1: this is not YAML"),
        ("a: 1\n  b: 2", "line 2: this is not YAML"),
        ("a: &x [1]\nb: *x", "line 2: this is not YAML: a recipe has no aliases"),
        ("a: !!python/name:os.system 1", "this is not YAML: could not determine a constructor"),
        ("a: \x07", "this is not YAML"),
        ("[" * 5000, "this is not YAML"),
        ("- a\n- b", "a recipe is a list of KEY: VALUE"),
        ("", "it is missing"),
    ],
)
def test_what_is_no_recipe_at_all(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text)[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot read it: No such file"):
        read_recipe(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(OptionError, match="no text in UTF-8"):
        read_recipe(tmp_path / "bad.yaml")


@pytest.mark.parametrize("change", ["epochs", "=3", "a..b=3", "a=[1"])
def test_changes_that_cannot_be_read(tmp_path: Path, change: str) -> None:
    with pytest.raises(OptionError, match="cannot read"):
        read_recipe(written(tmp_path, MINIMAL), [change])


@pytest.mark.parametrize(
    ("name", "setting", "allowed"),
    [
        ("ng_gnn", "width: 0", "a whole number from 1"),
        ("ng_gnn", "layers: 0", "a whole number from 1"),
        ("ng_gnn", "probes: -1", "a whole number from 0"),
        ("ng_gnn", "readout: all", "outputs, mean, max, attention"),
        ("ng_t", "heads: 0", "a whole number from 1"),
        ("ng_t", "head: [0]", "a list (each a whole number from 1)"),
        ("ng_t", "path: fast", "chunked, direct"),
        ("dws_net", "pool: least", "max, mean, sum"),
        ("query", "points: 0", "a whole number from 1"),
        ("stat_nn", "hidden: 0", "a whole number from 1"),
        ("mlp", "dropout: 1", "a number from 0 below 1"),
    ],
)
def test_settings_that_no_model_can_have_are_mistakes_of_the_recipe(
    tmp_path: Path, name: str, setting: str, allowed: str
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"task: {{name: inr_classification}}\nmodel:\n  name: {name}\n  {setting}\n")
    with pytest.raises(RecipeError) as error:
        read_recipe(path)
    assert len(error.value.mistakes) == 1
    assert f"line 4: model.{setting.split(':')[0]}" in str(error.value)
    assert f"allowed: {allowed}" in str(error.value)
