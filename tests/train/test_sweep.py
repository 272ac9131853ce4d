"""A recipe with ``sweep`` is several: which ones, how they are named, and how they are run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ngc.errors import OptionError
from ngc.train.recipe import read_recipe, read_recipes
from ngc.train.recipe_text import RecipeError
from ngc.train.runs import read_run
from tests.train.test_run_cli import ngc_command
from tests.train.tiny import tiny_recipe

SWEEP = """
name: ways
task: {name: inr_classification}
model: {name: ng_gnn, head: [8]}
sweep:
  graph: {reverse: [none, append]}
  model:
    width: [16, 32, 48]
"""


WHOLE = SWEEP[: SWEEP.index("sweep:")]


def mistakes_in(path: Path, *changes: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_recipes(path, changes)
    return [str(mistake) for mistake in caught.value.mistakes]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(SWEEP)
    return path


def test_a_sweep_is_every_combination_each_with_a_name(path: Path) -> None:
    found = read_recipes(path)
    assert [(one.graph.reverse, one.model_settings["width"]) for one in found] == [
        ("none", 16), ("none", 32), ("none", 48), ("append", 16), ("append", 32), ("append", 48),
    ]  # fmt: skip
    assert [one.name for one in found][:4] == [
        "ways-none-16", "ways-none-32", "ways-none-48", "ways-append-16"]  # fmt: skip
    assert all(one.model_settings["head"] == (8,) for one in found)  # what is not swept is kept


def test_each_recipe_of_a_sweep_reads_back(path: Path, tmp_path: Path) -> None:
    for one in read_recipes(path):
        again = tmp_path / "again.yaml"
        again.write_text(one.dump())
        assert read_recipe(again) == one


def test_values_may_be_lists_and_other_words(path: Path) -> None:
    path.write_text(WHOLE + "sweep: {model: {head: [[], [16, 8]], positions: [false]}}")
    found = read_recipes(path)
    assert [one.model_settings["head"] for one in found] == [(), (16, 8)]
    assert [one.name for one in found] == ["ways--false", "ways-16-8-false"]


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = tmp_path / "my first (try).yaml"
    path.write_text(SWEEP.replace("name: ways\n", ""))
    found = read_recipes(path)
    assert found[0].name == "my-first-try-none-16"
    (tmp_path / "again.yaml").write_text(found[0].dump())
    assert read_recipe(tmp_path / "again.yaml") == found[0]


def test_a_sweep_can_be_changed_on_the_command_line(path: Path) -> None:
    found = read_recipes(path, ["sweep.model.width=[64]", "sweep.graph.reverse=[none]"])
    assert [one.name for one in found] == ["ways-none-64"]


def test_a_base_may_have_the_sweep_and_a_recipe_may_have_none(path: Path, tmp_path: Path) -> None:
    over = tmp_path / "over.yaml"
    over.write_text("base: recipe.yaml\nname: other\n")
    assert len(read_recipes(over)) == 6
    assert [one.name for one in read_recipes(over, ["sweep=null"])] == ["other"]
    assert [one.name for one in read_recipes(tiny_recipe(tmp_path))] == ["tiny"]


def test_one_recipe_is_not_read_from_a_sweep(path: Path) -> None:
    with pytest.raises(OptionError, match="a sweep of 6 recipes"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("sweep", "key"),
    [
        ("{}", "sweep"),
        ("[1, 2]", "sweep"),
        ("{model: {width: 3}}", "sweep.model.width"),
        ("{model: {width: []}}", "sweep.model.width"),
        ("{model: {}}", "sweep.model"),
        ("{model: {width: [3, 3]}}", "sweep.model.width"),
    ],
)
def test_what_is_no_sweep_is_refused(path: Path, sweep: str, key: str) -> None:
    path.write_text(WHOLE + f"sweep: {sweep}\n")
    (mistake,) = mistakes_in(path)
    assert f": {key}: " in mistake
    assert "None" not in mistake


def test_a_section_that_is_swept_may_be_given_by_the_sweep_alone(path: Path) -> None:
    path.write_text(
        "task: {name: inr_classification}\nsweep: {model: {name: [ng_gnn, ng_t], width: 3}}\n"
    )
    (mistake,) = mistakes_in(path)
    assert mistake.startswith("line 2: sweep.model.width: found 3; allowed: ")


def test_a_key_below_what_is_no_section_is_a_mistake_of_the_sweep(path: Path) -> None:
    path.write_text(WHOLE + "train: 3\nsweep: {train: {lr: [1e-3]}}\n")
    found = mistakes_in(path)
    assert any(one.endswith("sweep.train: train is 3, and has no keys") for one in found)
    assert any(": train: found 3" in one for one in found)


def test_a_mistyped_sweep_is_led_home(path: Path) -> None:
    path.write_text(WHOLE + "sweeps: {}\n")
    (mistake,) = mistakes_in(path)
    assert "(nearest: sweep)" in mistake


def test_a_mistake_inside_a_value_is_at_its_line(path: Path) -> None:
    text = (
        WHOLE.replace("head: [8]", "head: [8,\n 9]")
        + "sweep:\n  model:\n    head:\n    - [4]\n    - [4, x]\n"
    )
    path.write_text(text)
    line = text.splitlines().index("    - [4, x]") + 1
    (mistake,) = mistakes_in(path)
    assert mistake.startswith(f"line {line}: model.head[1]: found the text 'x'")


def test_mistakes_of_all_recipes_come_once_at_their_lines(path: Path) -> None:
    path.write_text(SWEEP.replace("48", "zero").replace("append", "both") + "train: {epochs: 0}\n")
    found = mistakes_in(path)
    assert len(found) == 3
    assert found[0].startswith("line 6: graph.reverse: ")
    assert found[1].startswith("line 8: model.width: ")
    assert found[2].startswith("line 9: train.epochs: ")


def test_a_sweep_is_run_one_by_one_and_compared(home: Path) -> None:
    sweep = ("--set", "sweep={train: {epochs: [1, 2]}}")
    result = ngc_command("run", "tiny.yaml", *sweep)
    assert result.exit_code == 0, result.output
    folders = [home / "runs" / name for name in ("tiny-1-001", "tiny-2-001")]
    assert [read_run(folder).metrics["epochs"]["trained"] for folder in folders] == [1, 2]
    compared = result.stdout[result.stdout.index("2 run(s)") :]
    lines = {line.split()[0]: line.split()[1:] for line in compared.splitlines() if line.split()}
    assert lines["train.epochs"] == ["1", "2"]
    (folders[1] / "metrics.json").unlink()  # as if it had been killed in the second
    again = ngc_command("run", "tiny.yaml", *sweep, "--resume")
    assert again.exit_code == 0
    assert read_run(folders[1]).metrics["epochs"]["trained"] == 2
    assert len(list((home / "runs").iterdir())) == 2
    checked = ngc_command("run", "tiny.yaml", *sweep, "--check").stdout
    assert checked.split("---\n") == [one.dump() for one in read_recipes("tiny.yaml", sweep[1:])]
