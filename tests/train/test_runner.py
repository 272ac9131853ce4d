"""Runs: order and seeds, the best epoch, folders, and going on after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ngc.errors import NgcError, OptionError
from ngc.train import runs
from ngc.train.keeper import BEST, LAST
from ngc.train.module import rate_factor
from ngc.train.recipe import read_recipe
from ngc.train.runner import run
from tests.train.tiny import history, started, tiny_recipe, write_tiny_set

# --- what a run leaves ----------------------------------------------------------------------------


def test_a_run_folder_holds_everything(tmp_path: Path) -> None:
    metrics = started(tmp_path)
    folder = tmp_path / "run"
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert files == [
        f"checkpoints/{BEST}", f"checkpoints/{LAST}", "confusion.png", "curves.png", "metrics.csv",
        "metrics.json", "recipe.yaml", "time.json", "versions.json",
    ]  # fmt: skip
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert metrics["data"] == {
        "set": str(tmp_path / "set.safetensors"), "train": 22, "validation": 8, "test": 10,
    }  # fmt: skip
    assert metrics["regime"] == "weights only"
    assert metrics["epochs"]["trained"] == 3
    assert set(metrics["test"]) == {"loss", "accuracy"}
    recipe = read_recipe(tiny_recipe(tmp_path))
    assert read_recipe(folder / "recipe.yaml") == recipe
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["torch"] == torch.__version__


def test_the_model_learns(tmp_path: Path) -> None:
    write_tiny_set(tmp_path / "set.safetensors", count=200)
    metrics = started(tmp_path, {"train": {"epochs": 15, "lr": 0.02}, "model": {"dropout": 0.0}})
    assert metrics["test"]["accuracy"] > 0.7  # of three classes


def test_the_best_epoch_is_tested_and_not_the_last(tmp_path: Path) -> None:
    metrics = started(tmp_path, {"train": {"epochs": 5, "lr": 0.05}})
    rows = history(tmp_path / "run")
    found = [float(row["validation_accuracy"]) for row in rows]
    assert metrics["epochs"]["best"] == 1 + int(np.argmax(found))  # the first of equals
    best = torch.load(tmp_path / "run" / "checkpoints" / BEST, weights_only=True)
    assert best["epoch"] + 1 == metrics["epochs"]["best"]
    row = rows[best["epoch"]]
    assert metrics["validation"]["loss"] == float(row["validation_loss"])


def test_the_learning_rate_rises_and_stays(tmp_path: Path) -> None:
    started(tmp_path, {"train": {"epochs": 3, "warmup_steps": 6, "lr": 0.01}})  # 3 steps an epoch
    rates = [float(row["lr"]) for row in history(tmp_path / "run")]
    assert rates == pytest.approx([0.01 * 4 / 6, 0.01, 0.01])
    assert [row["step"] for row in history(tmp_path / "run")] == ["3", "6", "9"]


def test_a_cosine_ends_at_zero() -> None:
    rates = [rate_factor(step, warm=10, total=100) for step in range(101)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0)
    assert sorted(rates[10:], reverse=True) == rates[10:]


def test_the_schedule_of_a_recipe_is_followed(tmp_path: Path) -> None:
    started(tmp_path, {"train": {"epochs": 3, "warmup_steps": 0, "schedule": "cosine", "lr": 0.01}})
    rates = [float(row["lr"]) for row in history(tmp_path / "run")]  # 3 steps an epoch
    expected = [0.01 * rate_factor(step, warm=0, total=9) for step in (3, 6, 9)]
    assert rates == pytest.approx(expected, abs=1e-9)


def test_early_stopping_waits_so_many_epochs(tmp_path: Path) -> None:
    metrics = started(tmp_path, {"train": {"epochs": 30, "early_stopping": 3, "lr": 1e-9}})
    assert metrics["epochs"] == {"trained": 4, "best": 1}


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(NgcError, match=r"epoch 1: train_loss.* is not a finite number\n.*train.lr"):
        started(tmp_path, {"train": {"lr": 1e30, "clip": None}})


def test_augmentation_changes_training_and_not_validation(tmp_path: Path) -> None:
    still = {"train": {"epochs": 1, "lr": 1e-12}, "model": {"dropout": 0.0}}
    plain = started(tmp_path, still, "plain")
    moved = started(tmp_path, {**still, "data": {"augment": {"noise": 0.3}}}, "moved")
    assert moved["regime"] == "weights only, augmented"
    assert moved["validation"] == plain["validation"]
    losses = [history(tmp_path / name)[0]["train_loss"] for name in ("plain", "moved")]
    assert losses[0] != losses[1]


def test_editing_writes_networks_and_pictures(tmp_path: Path) -> None:
    text = {
        "task": {"name": "inr_editing", "target": "rendering"},
        "normalise": "off",
        "train": {"epochs": 4},
    }
    metrics = started(tmp_path, text)
    assert metrics["task"]["target"] == "rendering"
    assert metrics["test"]["mse"] < metrics["test"]["mse_unedited"]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"pictures.png", "edited", "curves.png"} <= names
    assert "confusion.png" not in names
    edited = sorted((tmp_path / "run" / "edited").glob("*.onnx"))
    assert len(edited) == 8
    for path in edited:
        stages = {p.name for p in path.parent.glob(f"{path.stem}-*.png")}
        assert stages == {f"{path.stem}-{stage}.png" for stage in ("before", "target", "after")}


# --- seeds ----------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    first, again = (started(tmp_path, {"seeds": [3]}, name) for name in ("a", "b"))
    assert first == again
    assert history(tmp_path / "a") == history(tmp_path / "b")
    assert history(tmp_path / "a") != (
        started(tmp_path, {"seeds": [4]}, "c") and history(tmp_path / "c")
    )


def test_several_seeds_give_mean_and_deviation(tmp_path: Path) -> None:
    metrics = started(tmp_path, {"seeds": [0, 5]}, "both")
    inner = [runs.read_run(tmp_path / "both" / f"seed-{seed}") for seed in (0, 5)]
    losses = [one.metrics["test"]["loss"] for one in inner]
    assert metrics["seeds"] == [0, 5]
    assert metrics["test"]["loss"] == {
        "mean": pytest.approx(np.mean(losses)),
        "deviation": pytest.approx(np.std(losses, ddof=1)),
        "values": losses,
    }
    assert metrics["epochs"] == {"trained": 6}
    assert inner[1].recipe["seeds"] == [5]
    assert started(tmp_path, {"seeds": [5]}, "alone") == inner[1].metrics


# --- folders --------------------------------------------------------------------------------------


def test_folders_are_numbered(tmp_path: Path) -> None:
    names = [runs.new_folder(tmp_path / "runs", "tiny").name for _ in range(3)]
    assert names == ["tiny-001", "tiny-002", "tiny-003"]


def test_a_run_that_has_ended_is_not_run_again(tmp_path: Path) -> None:
    metrics = started(tmp_path)
    (tmp_path / "set.safetensors").unlink()
    assert run(read_recipe(tmp_path / "run" / "recipe.yaml"), tmp_path / "run") == metrics


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "run" / "metrics.json").unlink()
    with pytest.raises(OptionError, match="this folder is of another recipe"):
        started(tmp_path, {"seeds": [9]})


def test_other_networks_than_at_the_start_are_refused(tmp_path: Path) -> None:
    started(tmp_path)
    (tmp_path / "run" / "metrics.json").unlink()
    write_tiny_set(tmp_path / "set.safetensors", seed=1)
    with pytest.raises(OptionError, match="the networks are not those that this run began with"):
        started(tmp_path)


def test_a_set_is_found_below_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "inner").mkdir(parents=True)
    write_tiny_set(tmp_path / "data" / "inner" / "set.safetensors")
    monkeypatch.setenv("NGC_DATA", str(tmp_path / "data"))
    metrics = started(tmp_path, {"data": {"set": "inner/set.safetensors"}, "train": {"epochs": 1}})
    assert metrics["data"]["set"] == "inner/set.safetensors"
    with pytest.raises(NgcError, match="no such file"):
        started(tmp_path, {"data": {"set": "inner/other.safetensors"}}, "other")


SCRIPT = """
import sys
import tests.train.tiny  # registers the model
from ngc.cli import app
sys.argv[0] = __file__
app()
"""


@pytest.mark.slow
def test_two_processes_train_like_one(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    tiny_recipe(tmp_path, {"model": {"dropout": 0.0}, "seeds": [0, 1]})
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    changes = ("--set", "train.accelerator=cpu", "--set")
    for devices in (1, 2):
        words = [
            sys.executable,
            "script.py",
            "run",
            "tiny.yaml",
            *changes,
            f"train.devices={devices}",
        ]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("accuracy") == 1
    found = [runs.read_run(tmp_path / "runs" / f"tiny-00{k}").metrics for k in (1, 2)]
    for split in ("validation", "test"):
        for name, values in found[0][split].items():
            assert found[1][split][name]["values"] == pytest.approx(values["values"], abs=1e-5)


@pytest.mark.slow
def test_a_sweep_trains_with_two_processes_each_time(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    tiny_recipe(tmp_path)
    changes = ["train.accelerator=cpu", "train.devices=2", "sweep={train: {lr: [0.01, 0.02]}}"]
    words = [sys.executable, "script.py", "run", "tiny.yaml"]
    for change in changes:
        words += ["--set", change]
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    done = subprocess.run(
        words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in ("tiny-0.01-001", "tiny-0.02-001"):
        assert runs.read_run(tmp_path / "runs" / name).metrics
    assert "2 run(s)" in done.stdout


def test_a_run_goes_on_though_a_model_has_gained_a_setting(tmp_path: Path) -> None:
    first = started(tmp_path, {"train": {"epochs": 1}})
    path = tmp_path / "run" / runs.RECIPE
    before = path.read_text()
    path.write_text(before.replace("schedule: constant, ", ""))  # as an earlier ngc wrote it
    assert path.read_text() != before
    (tmp_path / "run" / runs.METRICS).unlink()
    assert run(read_recipe(path), tmp_path / "run") == first


def test_devices_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"train\.accelerator, train\.devices"):
        started(tmp_path, {"train": {"accelerator": "gpu", "devices": 99}})
