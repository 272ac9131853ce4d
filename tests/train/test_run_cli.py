"""The commands run, runs and predict: what they print, where, and their exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ngc.cli import app
from ngc.train.inr_sets import load
from ngc.train.recipe import read_recipe
from ngc.train.trainer import Interrupted
from tests.train.tiny import NAME, started


def ngc_command(*words: object) -> Result:
    return CliRunner(env={"COLUMNS": None}).invoke(app, [str(word) for word in words])


def test_run_prints_the_result_and_says_how_it_goes(home: Path) -> None:
    result = ngc_command("run", "tiny.yaml", "--set", "train.epochs=2")
    assert result.exit_code == 0, result.output
    assert "runs/tiny-001" in result.stdout
    assert "accuracy" in result.stdout
    assert f"{NAME}, 109 parameters, weights only" in result.stdout
    assert "epoch 2 of 2: train loss" in result.stderr
    assert "epoch" not in result.stdout
    assert "Lightning" not in result.output
    assert (home / "runs" / "tiny-001" / "metrics.json").is_file()


def test_check_prints_the_recipe_in_full(home: Path) -> None:
    result = ngc_command("run", "tiny.yaml", "--check", "--set", "seeds=[7]")
    assert result.exit_code == 0
    (home / "full.yaml").write_text(result.stdout)
    assert read_recipe(home / "full.yaml").seeds == (7,)
    assert not (home / "runs").exists()


def test_all_mistakes_are_printed_without_a_traceback(home: Path) -> None:
    changes = ["train.epochs=0", "model.breadth=1", "graph.reverse=both"]
    result = ngc_command("run", "tiny.yaml", *(w for c in changes for w in ("--set", c)))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "error: tiny.yaml: 3 mistakes" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (home / "runs").exists()


def test_resume_goes_on_with_the_last_run_of_the_recipe(home: Path) -> None:
    assert ngc_command("run", "tiny.yaml", "--set", "seeds=[1]").exit_code == 0
    assert ngc_command("run", "tiny.yaml").exit_code == 0
    (home / "runs" / "tiny-001" / "metrics.json").unlink()
    path = home / "runs" / "tiny-001" / "recipe.yaml"
    path.write_text(path.read_text().replace("schedule: constant, ", ""))  # of an earlier ngc
    again = ngc_command("run", "tiny.yaml", "--set", "seeds=[1]", "--resume")
    assert again.exit_code == 0
    assert "run folder: runs/tiny-001" in again.stderr
    assert (home / "runs" / "tiny-001" / "metrics.json").is_file()
    fresh = ngc_command("run", "tiny.yaml", "--set", "seeds=[2]", "--resume")
    assert "no run of tiny with these settings in runs: starting one" in fresh.stderr
    assert "run folder: runs/tiny-003" in fresh.stderr


def test_resume_takes_a_run_folder(home: Path) -> None:
    assert ngc_command("run", "tiny.yaml").exit_code == 0
    folder = home / "runs" / "tiny-001"
    (folder / "metrics.json").unlink()
    assert ngc_command("run", folder).exit_code == 2
    refused = ngc_command("run", folder, "--resume", "--set", "train.epochs=9")
    assert refused.exit_code == 2
    assert "a run goes on as it began" in refused.stderr
    result = ngc_command("run", "--resume", folder)
    assert result.exit_code == 0
    assert (folder / "metrics.json").is_file()
    assert "so it is no run folder" in ngc_command("run", home, "--resume").stderr


def test_an_interrupted_run_ends_with_the_code_of_ctrl_c(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object) -> None:
        raise Interrupted("broken off", hint="ngc run X --resume, to go on")

    monkeypatch.setattr("ngc.train.runner.run", broken_off)
    result = ngc_command("run", "tiny.yaml")
    assert result.exit_code == 130
    assert "try: ngc run X --resume" in result.stderr


def test_a_warm_up_longer_than_the_run_is_noted(home: Path) -> None:
    steps = ("--set", "train.epochs=1", "--set", "train.warmup_steps")
    assert "note: " not in ngc_command("run", "tiny.yaml", *steps[:3], f"{steps[3]}=1").stderr
    noted = ngc_command("run", "tiny.yaml", *steps[:3], f"{steps[3]}=500").stderr
    assert "note: the learning rate rises for 500 steps, and this run has " in noted


def test_runs_lists_and_compares(home: Path) -> None:
    assert "none yet" in ngc_command("runs").stdout
    for change in ("train.epochs=2", "seeds=[0, 1]"):
        assert ngc_command("run", "tiny.yaml", "--set", change).exit_code == 0
    assert ngc_command("run", "tiny.yaml", "--set", "train.epochs=1").exit_code == 0
    (home / "runs" / "tiny-003" / "metrics.json").unlink()
    rows = [line.split() for line in ngc_command("runs").stdout.splitlines()]
    rows = [row for row in rows if row and row[0].startswith("tiny-")]
    assert [row[0] for row in rows] == ["tiny-001", "tiny-002", "tiny-003"]
    assert "\u00b1" in rows[1]
    assert rows[2][-2:] == ["not", "ended"]
    assert "1 of 1" in " ".join(rows[2])
    compared = ngc_command("runs", "runs/tiny-001", "runs/tiny-002").stdout
    lines = {line.split()[0]: line.split()[1:] for line in compared.splitlines() if line.split()}
    assert lines["train.epochs"] == ["2", "3"]
    assert "train.lr" not in lines
    assert ngc_command("runs", home).exit_code == 2
    assert "try: ngc runs --out runs" in ngc_command("runs", "runs").stderr


def test_predict_prints_class_and_confidence(home: Path) -> None:
    assert ngc_command("run", "tiny.yaml", "--set", "train.epochs=1").exit_code == 0
    inrs = load(home / "set.safetensors")
    for number in (3, 5):
        (home / f"{number}.onnx").write_bytes(inrs.onnx(number).SerializeToString())
    result = ngc_command("predict", "runs/tiny-001", "3.onnx", "5.onnx")
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if ".onnx" in line]
    assert [row[0] for row in rows] == ["3.onnx", "5.onnx"]
    assert all(row[1] in "012" and row[2].endswith("%") for row in rows)


def test_predict_reads_what_it_can_and_names_the_rest(home: Path) -> None:
    assert ngc_command("run", "tiny.yaml", "--set", "train.epochs=1").exit_code == 0
    (home / "3.onnx").write_bytes(load(home / "set.safetensors").onnx(3).SerializeToString())
    (home / "bad.onnx").write_bytes(b"nothing")
    result = ngc_command("predict", "runs/tiny-001", "none.onnx", "3.onnx", "bad.onnx")
    assert result.exit_code == 2
    assert [line.split()[0] for line in result.stdout.splitlines() if ".onnx" in line] == ["3.onnx"]
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert ["none.onnx" in errors[0], "bad.onnx" in errors[1], len(errors)] == [True, True, 2]
    alone = ngc_command("predict", "runs/tiny-001", "none.onnx")
    assert (alone.exit_code, alone.stdout) == (2, "")


def test_predict_writes_edited_networks(home: Path) -> None:
    task = "task={name: inr_editing, target: rendering}"
    assert ngc_command("run", "tiny.yaml", "--set", task, "--set", "train.epochs=1").exit_code == 0
    model = load(home / "set.safetensors").onnx(3)
    (home / "3.onnx").write_bytes(model.SerializeToString())
    assert "-o DIR, to write them" in ngc_command("predict", "runs/tiny-001", "3.onnx").stderr
    result = ngc_command("predict", "runs/tiny-001", "3.onnx", "-o", "edited")
    assert result.exit_code == 0, result.output
    assert "edited/3.onnx" in result.stdout
    assert (home / "edited" / "3.onnx").is_file()


def test_refused_files_are_named_even_if_nothing_can_be_written(home: Path) -> None:
    task = "task={name: inr_editing, target: rendering}"
    assert ngc_command("run", "tiny.yaml", "--set", task, "--set", "train.epochs=1").exit_code == 0
    (home / "3.onnx").write_bytes(load(home / "set.safetensors").onnx(3).SerializeToString())
    for output in (".", "tiny.yaml"):
        result = ngc_command("predict", "runs/tiny-001", "none.onnx", "3.onnx", "-o", output)
        assert result.exit_code == 2
        assert "none.onnx" in result.stderr
        assert result.stderr.count("error: ") == 2
    twice = ngc_command("predict", "runs/tiny-001", "3.onnx", "3.onnx", "-o", "edited")
    assert twice.exit_code == 0, twice.output


def test_a_model_that_cannot_be_built_is_one_message(home: Path) -> None:
    for change in ("model={name: ng_gnn, answers: true}",
                   "model={name: ng_gnn, head: [1000000000000]}"):  # fmt: skip
        result = ngc_command("run", "tiny.yaml", "--set", change)
        assert result.exit_code == 2
        assert "error: the recipe's model: " in result.stderr
        assert list((home / "runs").iterdir()) == []


def test_a_run_that_could_not_begin_leaves_no_folder(home: Path) -> None:
    result = ngc_command("run", "tiny.yaml", "--set", "data.train=1000000")
    assert result.exit_code == 2
    assert "error: " in result.stderr
    assert list((home / "runs").iterdir()) == []


@pytest.mark.parametrize("columns", [80, 160])
def test_names_of_runs_are_whole_in_any_terminal(
    home: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started(home, name="runs/a_run_with_a_long_name-001")
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["runs"]).stdout
    (row,) = [line for line in shown.splitlines() if "a_run_with_a_long_name-001" in line]
    assert "accuracy" in row
    assert ("inr_classification" in row) == (columns > 100)


def test_damaged_runs_are_named_without_a_traceback(home: Path) -> None:
    assert ngc_command("run", "tiny.yaml", "--set", "train.epochs=1").exit_code == 0
    folder = home / "runs" / "tiny-001"
    kept = {name: (folder / name).read_text() for name in ("recipe.yaml", "metrics.csv")}
    (folder / "metrics.json").unlink()
    header = kept["metrics.csv"].splitlines()[0]
    for name, damage in (("recipe.yaml", "name: x\n"), ("metrics.csv", f"{header}\n1,,\n")):
        (folder / name).write_text(damage)
        result = ngc_command("runs", folder)
        assert result.exit_code == 2, result.output
        assert "damaged" in result.stderr
        assert str(folder) in result.stderr.replace("\n", "")
        (folder / name).write_text(kept[name])


def test_one_damaged_run_does_not_hide_the_others(home: Path) -> None:
    for _ in range(2):
        assert ngc_command("run", "tiny.yaml", "--set", "train.epochs=1").exit_code == 0
    (home / "runs" / "tiny-001" / "recipe.yaml").write_text("name: x\n")
    result = ngc_command("runs")
    assert result.exit_code == 0, result.output
    assert "tiny-002" in result.stdout
    assert "tiny-001" in result.stderr
    assert "damaged" in result.stderr


def test_a_damaged_checkpoint_is_named(home: Path) -> None:
    assert ngc_command("run", "tiny.yaml", "--set", "train.epochs=1").exit_code == 0
    folder = home / "runs" / "tiny-001"
    (folder / "metrics.json").unlink()
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:500])
    result = ngc_command("run", folder, "--resume")
    assert result.exit_code == 2
    assert "last.ckpt: it is damaged or cut short" in result.stderr.replace("\n", "")
    assert last.exists()
