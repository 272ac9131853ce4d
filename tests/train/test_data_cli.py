"""``ngc data``: what its commands write and print."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import ngc
from ngc.cli import app
from ngc.train.inr_sets import load
from ngc.train.siren import Conventions
from tests.train.fake_data import small_set, write_mnist, write_published


def run(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": None}).invoke(app, ["data", *map(str, arguments)])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of data with a small MNIST: 12 training and 4 test images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NGC_DATA", raising=False)
    return write_mnist(tmp_path / "data" / "mnist").parent


QUICK = ("--steps", "5x1e-3", "--hidden", "4,3")


def test_inr_writes_a_set_and_describes_it(data: Path) -> None:
    done = run("inr", "--images", "mnist", "--data-dir", data, *QUICK)
    assert done.exit_code == 0, done.output
    found = load(Path("inr_mnist.safetensors"))
    assert len(found) == 16
    assert found.conventions == Conventions((2, 4, 3, 1), height=6, width=5)
    assert "inr_mnist.safetensors" in done.stdout
    assert "16 INRs" in done.stdout
    assert "linspace(-1,1,n) row first" in done.stdout
    assert "0.0628 / 0.0213" in done.stdout
    assert "fitting: 16 of 16" in done.stderr


def test_every_convention_asked_for_is_in_the_file(data: Path) -> None:
    options = ["--init", "shared", "--scheme", "siren", "--omega", "20", "--offset", "0",
               "--seed", "3", "--storage", "float16", "--train", "3", "--test", "2"]  # fmt: skip
    done = run("inr", "--images", "mnist", "--data-dir", data, *QUICK, *options, "-o", "x")
    assert done.exit_code == 0, done.output
    found = load("x")
    widths = (2, 4, 3, 1)
    assert found.conventions == Conventions(
        widths, 20.0, 0.0, height=6, width=5, init="shared", init_scheme="siren", seed=3
    )
    assert found.index.tolist() == [0, 1, 2, 0, 1]
    assert found.split.tolist() == [0, 0, 0, 1, 1]
    assert found.origin["fit"]["half"] is True


def test_the_command_in_the_file_makes_the_file_again(data: Path) -> None:
    options = ["--limit", "9", "--seed", "2", "--scheme", "siren", *QUICK]
    run("inr", "--images", "mnist", "--data-dir", data, *options, "-o", "x")
    command = load("x").origin["command"]
    assert str(data) not in command
    words = shlex.split(command)
    assert words[:2] == ["ngc", "data"]
    done = run(*words[2:], "--data-dir", data, "-o", "again")
    assert done.exit_code == 0, done.output
    assert Path("again").read_bytes() == Path("x").read_bytes()


@pytest.mark.parametrize(
    ("options", "train", "test"),
    [
        (["--limit", "8"], 6, 2),
        (["--limit", "99"], 12, 4),
        (["--train", "2"], 2, 4),
        (["--train", "6", "--test", "2", "--limit", "4"], 3, 1),
        (["--test", "0"], 12, 0),
    ],
)
def test_limits_take_the_first_images_of_each_split(
    data: Path, options: list[str], train: int, test: int
) -> None:
    done = run("inr", "--images", "mnist", "--data-dir", data, *QUICK, *options, "-o", "x")
    assert done.exit_code == 0, done.output
    found = load("x")
    assert found.of_split("train").index.tolist() == list(range(train))
    assert found.of_split("test").index.tolist() == list(range(test))


def test_a_folder_of_pictures_is_fitted_in_colour(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "flags" / "red"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((12, 9, 3), (255, 0, 0), np.uint8)).save(folder / "1.png")
    done = run("inr", "--images", tmp_path / "flags", "--size", "6x7", *QUICK, "-o", "x")
    assert done.exit_code == 0, done.output
    found = load("x")
    assert found.conventions.widths == (2, 4, 3, 3)
    assert found.render().shape == (1, 3, 6, 7)
    assert found.origin["images"] == str(tmp_path / "flags")
    assert found.origin["classes"] == ["red"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "fast"], "--steps: cannot read 'fast'"),
        (["--hidden", "a"], "--hidden: cannot read 'a'"),
        (["--hidden", "0"], "widths is"),
        (["--size", "28"], "--size: cannot read '28'"),
        (["--size", "28x28"], "a size is for folders"),
        (["--limit", "-1"], "--limit: it is -1"),
        (["--limit", "0"], "no images to fit"),
        (["--device", "toaster"], "not a device here"),
        (["--chunk", "0"], "chunk is 0"),
        (["--omega", "0"], "omega is 0.0"),
        (["-o", "gone/x"], "there is no folder gone"),
    ],
)
def test_mistakes_are_one_message(data: Path, options: list[str], message: str) -> None:
    done = run("inr", "--images", "mnist", "--data-dir", data, *QUICK, *options)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not list(Path().glob("inr_mnist*"))


def test_show_describes_a_set_and_draws_it(tmp_path: Path) -> None:
    small_set(5).save(tmp_path / "set")
    done = run("show", tmp_path / "set", "--picture", tmp_path / "sheet.png", "--count", "3")
    assert done.exit_code == 0, done.output
    for text in ("5 INRs", "21.5 dB", "seq.2", "omega", "2,4,3,1", "sheet.png: 3 INRs"):
        assert text in done.stdout
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (2 * (16 * 6 - 1), 2 * 6)


def test_show_knows_the_embedded_set() -> None:
    done = run("show", "embedded")
    assert done.exit_code == 0, done.output
    assert "2,500 INRs" in done.stdout
    assert "made by: ngc data inr --images mnist" in done.stdout


def test_show_of_no_set_is_one_message(tmp_path: Path) -> None:
    done = run("show", tmp_path / "gone")
    assert done.exit_code == 2
    assert "there is no such file" in done.stderr


def test_export_writes_a_network_that_compiles(tmp_path: Path) -> None:
    found = small_set(5)
    found.save(tmp_path / "set")
    done = run("export", tmp_path / "set", "--number", 4, "-o", tmp_path / "four.onnx")
    assert done.exit_code == 0, done.output
    assert "label 4" in done.stdout
    assert ngc.compile(tmp_path / "four.onnx").plan.num_nodes == 10
    model = onnx.load(tmp_path / "four.onnx")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    np.testing.assert_array_equal(stored["seq.1.weight"], found.params["seq.1.weight"][4].numpy())
    assert run("export", tmp_path / "set", "--number", 5, "-o", tmp_path / "x").exit_code == 2


def test_import_reads_a_published_set(tmp_path: Path) -> None:
    folder = write_published(tmp_path / "mnist-inrs")
    done = run("import", folder, "-o", tmp_path / "set", "--order", "row")
    assert done.exit_code == 0, done.output
    found = load(tmp_path / "set")
    assert found.label.tolist() == [3, 7, 2, 0, 3]
    assert found.conventions.coordinates == "linspace(-1,1,n) row first"
    assert torch.isnan(found.psnr).all()


def test_help_does_not_load_torch() -> None:
    code = "import sys, ngc.cli; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    for name in ("inr", "import", "show", "export"):
        assert "Example: ngc data" in run(name, "--help").output
