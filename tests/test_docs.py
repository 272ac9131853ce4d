"""What the documentation lists is what there is."""

from __future__ import annotations

import re
import subprocess
import sys
from glob import glob
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ngc
from ngc.backends.schema import FEATURES
from ngc.cli import app
from ngc.ir.program import VOCABULARY, Op, Program
from ngc.ir.text import parse_program, print_program
from ngc.options import Options
from ngc.passes.graph.pipeline import graph_passes
from ngc.passes.normalize.pipeline import NORMALISE_PIPELINE
from ngc.passes.registry import PROGRAM_PASSES

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def first_cells(text: str) -> list[str]:
    """Names in code marks that open a row of a table."""
    return re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)


def test_every_operation_has_one_row() -> None:
    operations = [name for name, cls in VOCABULARY.items() if issubclass(cls, Op) and name]
    assert len(operations) > 20
    assert sorted(first_cells(text_of("program.md"))) == sorted(operations)


def test_every_parameter_operand_is_named_in_its_row() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text_of("program.md"), re.MULTILINE))
    for name, cls in VOCABULARY.items():
        operands = [key for key, kind in cls.__annotations__.items() if kind == "Slots"]
        assert set(re.findall(r"\*\*(\w+)\*\*", rows[name])) == set(operands), name


def test_the_program_of_the_page_parses() -> None:
    (text,) = re.findall(r"```text\n(program.*?)```", text_of("program.md"), re.DOTALL)
    assert print_program(parse_program(text)) == text


def test_every_feature_has_one_row() -> None:
    features = [feature.name for feature in FEATURES]
    found = first_cells(text_of("graph-features.md"))
    assert [name for name in found if name in features] == features


def test_every_graph_pass_is_explained() -> None:
    passes = graph_passes(Program("", (), (), ()), Options(attention="fused"), 0)
    text = text_of("architecture.md")
    for step in passes:
        assert f"`{step.name}`" in text


def test_passes_have_different_names() -> None:
    graph = [
        step.name for step in graph_passes(Program("", (), (), ()), Options(attention="fused"), 0)
    ]
    names = [*NORMALISE_PIPELINE, *PROGRAM_PASSES, *graph, "lower", "emit", "kernel"]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_paths_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    paths = re.findall(r"`([\w/]+/(?:\w+\.py)?)`", text)
    for path in paths:
        assert (
            (ROOT / path).exists()
            or (ROOT / "ngc" / path).exists()
            or (ROOT / "ngc" / "passes" / path).exists()
        ), path
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link


def test_there_are_pages() -> None:
    names = {page.name for page in DOCS}
    assert names >= {
        "architecture.md", "program.md", "adding-an-operator.md", "adding-a-pass.md",
        "graph-features.md",
    }  # fmt: skip


def python_of(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text_of(name), re.DOTALL)


FRAMEWORKS = [
    "onnx",
    "checkpoints",
    "torch",
    "pt2",
    "keras",
    "sklearn",
    "recurrent",
    "transformers",
]


@pytest.mark.parametrize("code", python_of("frameworks.md"), ids=FRAMEWORKS)
def test_each_framework_has_an_example_that_runs(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_commands_for_checkpoints_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with the files that they name."""
    (block,) = re.findall(r"```sh\n(.*?)```", text_of("frameworks.md"), re.DOTALL)
    model = ngc.compile(ROOT / "examples" / "mnist_cnn.onnx")
    (tmp_path / "model.onnx").write_bytes(model.source.proto.SerializeToString())
    (tmp_path / "checkpoints").mkdir()
    for step in (1, 2):
        path = tmp_path / "checkpoints" / f"{step}.safetensors"
        save_file(model.state_dict(model.weights * step), path)
    monkeypatch.chdir(tmp_path)
    for line in block.splitlines():
        words = [part for word in line.split()[1:] for part in sorted(glob(word)) or [word]]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    back = load_file("back.safetensors")
    assert all(torch.equal(back[n], t) for n, t in model.state_dict(model.weights * 2).items())
