"""Predicting the accuracy of networks of many architectures: the loss, the figures, a whole run
and its files, and predictions for files."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from scipy.stats import kendalltau
from typer.testing import CliRunner

from ngc.backends.blocks import structure_of
from ngc.backends.probes import Prober
from ngc.cli import app
from ngc.compiler import compile
from ngc.errors import OptionError
from ngc.models.unseen import unseen_in
from ngc.options import Options
from ngc.train.columns import encoded
from ngc.train.predict import load_trained, predict
from ngc.train.recipe import ZooData, read_recipe
from ngc.train.regression import Regression, Tau
from ngc.train.runner import regime as regime_of
from ngc.train.runner import run
from ngc.train.zoo_networks import from_zoo
from ngc.zoo import import_zoo
from tests.models.classifiers import Layer, classifier_model
from tests.train.fake_zoo import small_zoo


def recipe_of(folder: Path, **sections: Any) -> Path:
    content: dict[str, Any] = {
        "task": {"name": "generalization"},
        "data": {"set": str(folder / "zoo"), "validation": 0.2, "test": 0.2},
        "model": {"name": "stat_nn", "hidden": 32},
        "train": {"epochs": 2, "batch_size": 8, "lr": 0.01, "warmup_steps": 2},
    }
    for name, values in sections.items():
        known = {} if name == "model" else content.get(name)
        content[name] = {**known, **values} if isinstance(known, dict) else values
    path = folder / "accuracy.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def started(folder: Path, **sections: Any) -> dict[str, Any]:
    torch.set_num_threads(1)
    return run(read_recipe(recipe_of(folder, **sections)), folder / "run")


# --- figures --------------------------------------------------------------------------------------


def test_tau_is_that_of_scipy_over_all_batches() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.random(50), rng.random(50).round(1)  # with ties
    meter = Tau()
    for part in np.split(np.arange(50), 5):
        meter.update(*(torch.from_numpy(x) for x in (part, predicted[part], true[part])))
    assert meter.compute().item() == pytest.approx(kendalltau(predicted, true).statistic)
    assert meter.rows()[0].tolist() == list(range(50))


def test_tau_of_constant_predictions_is_zero() -> None:
    meter = Tau()
    meter.update(torch.arange(3), torch.full((3,), 0.5), torch.tensor([0.1, 0.2, 0.3]))
    assert meter.compute().item() == 0


def test_both_losses_are_of_the_sigmoid(tmp_path: Path) -> None:
    small_zoo(tmp_path, runs=2)
    from ngc.train.prepare import prepare

    networks, _ = prepare(read_recipe(recipe_of(tmp_path)))
    batch = networks.batch(torch.arange(3))
    logits, true = torch.tensor([[0.3], [-2.0], [5.0]]), networks.label[:3]
    p = logits.flatten().sigmoid()
    for kind, expected in (
        ("mse", ((p - true) ** 2).mean()),
        ("bce", -(true * p.log() + (1 - true) * (1 - p).log()).mean()),
    ):
        task = Regression(kind)
        found = task.loss(logits, batch, networks, task.meters())
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# --- a whole run ----------------------------------------------------------------------------------


def test_a_run_reports_tau_and_shows_every_test_network(tmp_path: Path) -> None:
    small_zoo(tmp_path)
    metrics = started(tmp_path)
    folder = tmp_path / "run"
    assert set(metrics["test"]) == {"loss", "mse", "mae", "tau"}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == metrics["data"]["test"] == 8
    true, predicted = ([float(row[k]) for row in rows] for k in ("true", "predicted"))
    assert metrics["test"]["tau"] == pytest.approx(kendalltau(predicted, true).statistic, abs=1e-4)
    square = np.mean((np.array(true) - predicted) ** 2)
    assert metrics["test"]["mse"] == pytest.approx(square, rel=1e-3)
    assert {row["family"] for row in rows} <= {"plain", "large kernel", "skip"}
    for name in ("scatter.png", "residuals.png", "curves.png"):
        assert (folder / name).stat().st_size > 5000, name


@pytest.mark.parametrize("name", ["stat_nn", "ng_gnn", "ng_t"])
def test_the_models_learn_it(tmp_path: Path, name: str) -> None:
    """The accuracy of these networks is in the last bias."""
    small_zoo(tmp_path, runs=20)
    settings = {
        "stat_nn": {"hidden": 64},
        "ng_gnn": {"width": 16, "layers": 2, "dropout": 0.0, "sigma": 0},
        "ng_t": {"node_width": 16, "edge_width": 8, "layers": 2, "dropout": 0.0, "sigma": 0},
    }[name]
    model = {"name": name, **settings}
    graph = {"reverse": "none" if name == "ng_t" else "features"}
    train = {"epochs": 12, "lr": 5e-3, "schedule": "cosine"}
    metrics = started(tmp_path, model=model, graph=graph, train=train)
    assert metrics["test"]["tau"] > 0.5


@pytest.mark.parametrize(
    ("model", "regime"),
    [
        ({"name": "stat_nn"}, "weights only"),
        ({"name": "ng_t", "probes": 0}, "weights only"),
        ({"name": "ng_gnn", "probes": 4}, "weights and 4 probes"),
        ({"name": "query", "points": 8}, "outputs at 8 points, no weights"),
        ({"name": "probing", "points": 8}, "outputs at 8 learned points, no weights"),
        ({"name": "architecture"}, "architecture only, no weights"),
        ({"name": "architecture", "columns": ["step", "run"]},
         "architecture and step, run, no weights"),
    ],
)  # fmt: skip
def test_a_run_says_what_its_model_may_see(
    tmp_path: Path, model: dict[str, Any], regime: str
) -> None:
    assert regime_of(read_recipe(recipe_of(tmp_path, model=model))) == regime


def test_augmented_runs_end_the_same_twice(tmp_path: Path) -> None:
    small_zoo(tmp_path)
    augment = {"noise": 0.1, "dropout": 0.01, "permute": True}
    data = {"augment": augment, "set": str(tmp_path / "zoo"), "validation": 0.2, "test": 0.2}
    first = started(tmp_path, data=data)
    (tmp_path / "run").rename(tmp_path / "first")
    assert started(tmp_path, data=data) == first
    assert "augmented" in first["regime"]


def test_the_architecture_baseline_reads_columns_of_the_table(tmp_path: Path) -> None:
    zoo = small_zoo(tmp_path, runs=20)
    with (tmp_path / "networks" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:  # what the accuracy is, in two columns
        row["hundredth"] = f"{float(row['accuracy']) * 100:.2f}"
        row["word"] = "good" if float(row["accuracy"]) > 0.5 else "bad"
    with (tmp_path / "more.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    import_zoo(zoo.facts["source"], tmp_path / "zoo", table=tmp_path / "more.csv", restart=True)
    found = {}
    for columns in ([], ["word"], ["word", "hundredth"]):
        model = {"name": "architecture", "columns": columns, "hidden": 32}
        train = {"epochs": 20, "lr": 1e-2, "schedule": "cosine"}
        found[len(columns)] = started(tmp_path, model=model, train=train)["test"]["tau"]
        shutil.rmtree(tmp_path / "run")
    assert abs(found[0]) < 0.35  # nothing to go by
    assert found[1] > 0.4
    assert found[2] > 0.75


def test_columns_are_numbers_by_the_training_networks(tmp_path: Path) -> None:
    zoo = small_zoo(tmp_path, runs=2)
    table = zoo.table | {"lr": ["0.1", "0.3", "", *["9"] * (len(zoo) - 3)]}
    names, values = encoded(replace(zoo, table=table), ["lr", "family"], torch.tensor([0, 1, 2]))
    known = sorted({table["family"][k] for k in range(3)})
    assert names == ("lr", *(f"family={word}" for word in known))
    torch.testing.assert_close(values[:4, 0], torch.tensor([-1.0, 1.0, 0.0, 88.0]))
    alike = encoded(replace(zoo, table=table | {"lr": ["0.1"] * 3 + ["inf"] * (len(zoo) - 3)}),
                    ["lr"], torch.tensor([0, 1, 2]))  # fmt: skip
    assert alike[0] == ("lr",)
    assert not alike[1].any()
    for k, word in enumerate(table["family"]):
        assert values[k, 1:].tolist() == [float(word == one) for one in known]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["accuracy"], "is what is to be predicted"),
        (["epoch"], "no column epoch"),
        (["name"], "has 72 different words, such as 'large kernel-0/0.onnx'"),
    ],
)
def test_columns_that_cannot_be_read(tmp_path: Path, columns: list[str], said: str) -> None:
    small_zoo(tmp_path, runs=20)
    with pytest.raises(OptionError, match=said):
        started(tmp_path, model={"name": "architecture", "columns": columns})


def test_files_have_no_table(tmp_path: Path) -> None:
    small_zoo(tmp_path)
    started(tmp_path, model={"name": "architecture", "columns": ["step"]})
    trained = load_trained(tmp_path / "run")
    with pytest.raises(OptionError, match="it reads step of a zoo's table"):
        predict(trained, [str(next((tmp_path / "networks").rglob("*.onnx")))])


# --- predictions ----------------------------------------------------------------------------------


def test_files_get_the_predictions_of_the_test_with_their_spread_over_seeds(tmp_path: Path) -> None:
    small_zoo(tmp_path)
    started(tmp_path, seeds=[0, 1])
    trained = load_trained(tmp_path / "run")
    assert trained.target == "accuracy"
    assert len(trained.models) == 2
    tables = []
    for seed in (0, 1):
        with (tmp_path / "run" / f"seed-{seed}" / "predictions.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    files = [str(tmp_path / "networks" / row["network"]) for row in tables[0]]
    for one, *rows in zip(predict(trained, files), *tables):
        assert one.values is not None
        expected = [float(row["predicted"]) for row in rows]
        assert one.values.tolist() == pytest.approx(expected, abs=1e-5)
        assert one.unseen == ()
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), files[0]])
    assert result.exit_code == 0, result.output
    assert "accuracy" in result.output
    assert "spread over seeds" in result.output


def test_an_architecture_unlike_the_training_networks_gets_a_warning(tmp_path: Path) -> None:
    small_zoo(tmp_path)
    started(tmp_path)
    other = tmp_path / "other.onnx"
    onnx.save(classifier_model((Layer(4, 3, "sigmoid"), Layer(3, 3))), other)
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), str(other)])
    assert result.exit_code == 0, result.output
    assert "unlike the training networks: activation sigmoid" in result.output


@pytest.mark.parametrize(
    ("layers", "size", "said"),
    [
        ((Layer(4, 1), Layer(3, 3)), 6, ""),
        ((Layer(9, 3), Layer(3, 3)), 6, "9 neurons in a layer (known: up to 4)"),
        ((Layer(4, 3, norm=True), Layer(3, 3)), 6, "norm edges"),
        ((Layer(4, 3), Layer(3, 3)), 9, "inputs 1x3x9x9 (known: 1x3x6x6)"),
    ],
)
def test_each_difference_to_the_training_networks_is_named(
    tmp_path: Path, layers: tuple[Layer, ...], size: int, said: str
) -> None:
    zoo = small_zoo(tmp_path, runs=3)
    networks = from_zoo(zoo, Options(), ZooData(set="zoo", validation=0.2, test=0.2), "accuracy")
    options = networks.families[0].compilation.plan.options
    other = compile(classifier_model(layers, size=size), options=options)
    prober = Prober(other.wiring, other.plan)
    found = unseen_in(networks.facts(), structure_of(other.plan), prober.input_shapes)
    assert said in "; ".join(found)
    assert bool(found) == bool(said)


def test_kernels_larger_than_those_of_training_are_refused_in_words(tmp_path: Path) -> None:
    small_zoo(tmp_path)
    started(tmp_path)
    other = tmp_path / "other.onnx"
    onnx.save(classifier_model((Layer(4, 7), Layer(3, 3))), other)
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "run"), str(other)])
    assert result.exit_code == 2
    assert "7x7 is larger than the kernel size 5x5" in result.output
    assert "trained with graph.kernel: 7x7" in result.output
    assert "Traceback" not in result.output
