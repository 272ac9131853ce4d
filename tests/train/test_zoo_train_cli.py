"""``ngc zoo train``: what it writes and prints, and what it says of mistakes."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import ngc.train.maker as maker
from ngc.cli import app
from tests.train.fake_data import write_mnist

RECIPE = """\
networks: 3
workers: 1
images: {set: mnist, color: grey, size: 4}
architecture: {layers: [2], channels: [2], kernels: [3]}
train: {epochs: 2, checkpoint_every: 1}
"""


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": None}).invoke(app, ["zoo", "train", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe, and with data of 12 training and 4 test images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NGC_DATA", raising=False)
    Path("recipe.yaml").write_text(RECIPE)
    return write_mnist(tmp_path / "data" / "mnist", size=(8, 8)).parent


def test_train_makes_a_zoo_and_says_what_it_is(data: Path) -> None:
    done = run("recipe.yaml", "-o", "zoo", "--data-dir", data)
    assert done.exit_code == 0, done.output
    assert "zoo: 3 networks of" in done.stdout
    assert "6 checkpoints" in done.stdout
    assert "of the last epoch" in done.stdout
    summary = json.loads(Path("zoo/summary.json").read_text())
    assert summary["sha256"] in done.stdout
    assert "training networks: 3 of 3" in done.stderr
    assert "networks a minute" in done.stderr


def test_the_command_in_the_summary_makes_the_zoo_again(data: Path) -> None:
    run("recipe.yaml", "-o", "zoo", "--set", "seed=4", "--data-dir", data)
    first = json.loads(Path("zoo/summary.json").read_text())
    words = shlex.split(first["command"])
    Path("zoo").rename("first")
    done = run(*words[3:], "--data-dir", data)
    assert done.exit_code == 0, done.output
    assert json.loads(Path("zoo/summary.json").read_text()) == first


def test_a_zoo_that_is_whole_is_resumed_to_the_same(data: Path) -> None:
    run("recipe.yaml", "-o", "zoo", "--data-dir", data)
    done = run("recipe.yaml", "-o", "zoo", "--resume", "--data-dir", data)
    assert done.exit_code == 0, done.output
    assert "3 networks" in done.stdout


def test_ctrl_c_says_how_to_go_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = maker.train_network

    def press(recipe: object, number: int, images: object) -> object:
        if number == 1:
            raise KeyboardInterrupt
        return plain(recipe, number, images)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(maker, "train_network", press)
        done = run("recipe.yaml", "-o", "zoo", "--data-dir", data)
    assert done.exit_code == 130
    assert "ngc zoo train recipe.yaml -o zoo --resume" in done.stderr
    assert {path.name for path in Path("zoo/networks").iterdir()} == {"00000"}
    assert run("recipe.yaml", "-o", "zoo", "--resume", "--data-dir", data).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("recipe.yaml", "--set", "networks=0"), "--set networks=0: networks: found 0"),
        (("recipe.yaml", "--set", "images.size=5"), "images.size: 5 from images of 8x8"),
        (("recipe.yaml", "--set", "images.set=pictures"), "neither a data set nor a folder"),
        (("nothing.yaml",), "nothing.yaml: cannot read it"),
    ],
)
def test_mistakes_are_told_in_one_message(
    data: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = run(*arguments, "-o", "zoo", "--data-dir", data)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert not Path("zoo").exists()
