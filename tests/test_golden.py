"""The texts of the example network at each level. ``make golden`` rewrites them; read the diff."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ngc.cli import app

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "examples" / "mnist_cnn.onnx"
FOLDER = ROOT / "tests" / "golden"

CASES = {
    "program": ["--level", "program"],
    "lower": ["--after", "lower"],
    "emit": ["--after", "emit"],
    "graph": ["--level", "graph"],
    "graph_flatten_kernel": ["--level", "graph", "--flatten", "kernel"],
    "graph_flatten_virtual": ["--level", "graph", "--flatten", "virtual"],
    "graph_norm_fold": ["--level", "graph", "--norm", "fold"],
    "graph_activation_residual_nodes": [
        *("--level", "graph", "--activation", "nodes", "--residual", "nodes"),
    ],
    "graph_reverse_append": ["--level", "graph", "--reverse", "append"],
    "graph_linear_as_separate": [
        *("--level", "graph", "--linear-as", "separate", "--kernel", "5x5"),
    ],
}


@pytest.mark.parametrize("name", CASES)
def test_text_of_the_example(name: str) -> None:
    result = CliRunner().invoke(app, ["show", str(MODEL), "--text", *CASES[name]])
    assert result.exit_code == 0, result.output
    file = FOLDER / f"{name}.txt"
    if os.environ.get("NGC_GOLDEN") == "rewrite":
        FOLDER.mkdir(exist_ok=True)
        file.write_text(result.stdout)
    assert result.stdout == file.read_text()


def test_every_golden_has_a_case() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(CASES)
