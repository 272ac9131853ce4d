"""``ngc zoo import`` and ``ngc zoo show``."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from ngc.cli import app
from tests.zoo.networks import classifier, tensors, write_folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["zoo", *map(str, words)], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("networks"), runs=range(4))


def test_a_zoo_is_imported_and_described(folder: Path, tmp_path: Path) -> None:
    names = [f"run{run}/{step}" for run in range(4) for step in range(3)]
    table = tmp_path / "table.csv"
    rows = [f"{name},0.{k:02d},{name[:4]}" for k, name in enumerate(names)]
    table.write_text("\n".join(["name,accuracy,run", *rows]))
    done = run("import", folder, "-o", tmp_path / "zoo", "--table", table, "--dtype", "float16")
    assert done.exit_code == 0
    assert "importing: 12 of 12" in done.stderr
    shown = run("show", tmp_path / "zoo")
    assert shown.stdout == done.stdout
    for part in ("12 networks of 3 architectures, 4 runs", "Distribution of accuracy", "0.0550",
                 "times its weights (float16)", "columns: name, accuracy, run"):  # fmt: skip
        assert part in shown.stdout, part


def test_corrupt_members(folder: Path, tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", runs=range(2))
    (source / "run1/1.onnx").write_text("no model")
    refused = run("import", source, "-o", tmp_path / "zoo")
    assert refused.exit_code == 2
    assert (
        "error: 1 of the members of shard 00000 cannot be read\n  run1/1.onnx: " in refused.stderr
    )
    assert "--skip-corrupt leaves them out" in refused.stderr
    done = run("import", source, "-o", tmp_path / "zoo", "--skip-corrupt")
    assert done.exit_code == 0
    assert "1 members could not be read and are left out" in done.stderr
    assert "5 networks" in done.stdout


def test_weights_alone(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.mkdir()
    for seed in range(2):
        save_file(tensors(classifier((2,), seed)), source / f"{seed}.safetensors")
    onnx.save(classifier((2,)), tmp_path / "model.onnx")
    refused = run("import", source, "-o", tmp_path / "zoo")
    assert refused.exit_code == 2
    assert "--model model.onnx" in refused.stderr
    done = run("import", source, "-o", tmp_path / "zoo", "--model", tmp_path / "model.onnx")
    assert "2 networks of 1 architectures" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("show", "gone"), "there is no zoo"),
        (("import", "gone", "-o", "zoo"), "no such file or folder"),
        (("import", ".", "-o", "a/b"), "there is no such folder"),
        (("import", ".", "-o", "zoo", "--kind", "onx"), "no importer is called 'onx'"),
        (("import", ".", "-o", "zoo", "--shard", "0"), "shard cannot be 0"),
    ],
)
def test_mistakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2
    assert "error: " in done.stderr
    assert expected in done.stderr
