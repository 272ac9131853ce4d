"""Trained models on new files."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.parser import parse_model
from safetensors.torch import save_file
from typer.testing import CliRunner

import ngc
from ngc.cli import app
from ngc.errors import NgcError, OptionError
from ngc.train.inr_sets import InrSet, load
from ngc.train.predict import load_trained, predict, save_edits
from ngc.train.prepare import prepare
from ngc.train.recipe import read_recipe
from ngc.train.siren import Conventions, initial
from tests.train.tiny import started

CONV = """
    <ir_version: 10, opset_import: ["": 20]>
    conv (float[1, 2, 5, 5] x) => (float[1, 1, 5, 5] y)
    <float[1, 2, 3, 3] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9}>
    { y = Conv <pads = [1, 1, 1, 1]> (x, w) }
"""


def written(folder: Path, inrs: InrSet, numbers: list[int]) -> list[str]:
    """ONNX files of some networks of a set."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number in numbers:
        path = folder / f"network-{number}.onnx"
        path.write_bytes(inrs.onnx(number).SerializeToString())
        paths.append(str(path))
    return paths


def of_other_widths(*widths: int, count: int = 2) -> InrSet:
    conventions = Conventions((2, *widths, 1), height=6, width=5)
    numbers = torch.arange(count)
    zeros = torch.zeros_like(numbers)
    params = initial(conventions, zeros.tolist(), numbers.tolist())
    return InrSet(params, zeros, numbers, zeros, torch.full((count,), 21.5), conventions)


def test_files_get_the_answers_of_the_test(tmp_path: Path) -> None:
    metrics = started(tmp_path)
    recipe = read_recipe(tmp_path / "run" / "recipe.yaml")
    networks, _ = prepare(recipe)
    numbers = networks.splits["test"].tolist()
    inrs = load(tmp_path / "set.safetensors")
    trained = load_trained(tmp_path / "run")
    assert trained.classes == ("0", "1", "2")
    found = predict(trained, written(tmp_path / "files", inrs, numbers))
    answers = [int(one.probabilities.argmax()) for one in found if one.probabilities is not None]
    right = np.mean([answer == int(inrs.label[k]) for answer, k in zip(answers, numbers)])
    assert right == pytest.approx(metrics["test"]["accuracy"], abs=1e-5)
    assert all(
        one.probabilities is not None and float(one.probabilities.sum()) == pytest.approx(1)
        for one in found
    )


def test_answers_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    started(tmp_path, {"normalise": "dataset"})
    inrs = load(tmp_path / "set.safetensors")
    known = written(tmp_path / "files", inrs, [0, 1])
    other = written(tmp_path / "other", of_other_widths(6, 5, 4), [0, 1])
    files = [other[1], known[0], other[0], known[1], known[0]]
    trained = load_trained(tmp_path / "run")
    together = predict(trained, files)
    assert [one.file for one in together] == files
    for file, one in zip(files, together):
        alone = predict(trained, [file])[0]
        assert one.probabilities is not None
        assert alone.probabilities is not None
        torch.testing.assert_close(one.probabilities, alone.probabilities)


def test_what_the_model_cannot_read_is_named(tmp_path: Path) -> None:
    model = {"name": "ng_gnn", "width": 8, "layers": 1, "probes": 3}
    started(tmp_path, {"model": model, "normalise": "layer", "train": {"epochs": 1}})
    trained = load_trained(tmp_path / "run")
    deeper = written(tmp_path / "deep", of_other_widths(4, 4, 4), [0])
    conv = tmp_path / "conv.onnx"
    conv.write_bytes(parse_model(CONV).SerializeToString())
    refused: list[NgcError] = []
    assert predict(trained, [*deeper, str(conv)], refused.append) == []
    assert str(refused[0]).split("network-0.onnx: ")[1] == (
        "this model reads no network with 4 layers of weights (normalise: layer knows 3), 3 hidden "
        "layers (its positions know 2), 4 layers of weights (its probes know 3)\n"
        "  try: one trained with normalise: dataset, positions: false, probes: 0, or on such "
        "networks"
    )
    assert "kernels of 9 entries (it reads 1)" in str(refused[1])
    assert "inputs [1, 2, 5, 5] (its probes are [1, 2])" in str(refused[1])
    trilu = tmp_path / "grid.onnx"
    text = CONV.replace("Conv <pads = [1, 1, 1, 1]>", "GridSample")
    trilu.write_bytes(parse_model(text).SerializeToString())
    with pytest.raises(NgcError, match=r"grid.onnx: cannot compile 1 node.*GridSample"):
        predict(trained, [str(trilu)])
    with pytest.raises(NgcError, match=r"none.onnx"):
        predict(trained, [str(tmp_path / "none.onnx")])


def test_of_several_seeds_the_best_answers(tmp_path: Path) -> None:
    metrics = started(tmp_path, {"seeds": [0, 1, 2], "train": {"epochs": 2}})
    values = metrics["validation"]["accuracy"]["values"]
    best = load_trained(tmp_path / "run")
    assert best.path.parts[-3] == f"seed-{[0, 1, 2][int(np.argmax(values))]}"


def test_runs_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="so it is no run folder"):
        load_trained(tmp_path)
    started(tmp_path)
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    content = torch.load(best, weights_only=True)
    torch.save({**content, "state": {}}, best)
    with pytest.raises(NgcError, match=r"best.pt: not a model that this ngc wrote"):
        load_trained(tmp_path / "run")
    best.write_bytes(b"nothing")
    with pytest.raises(NgcError, match=r"best.pt: not a model that this ngc wrote"):
        load_trained(tmp_path / "run")
    best.unlink()
    with pytest.raises(OptionError, match=r"no trained model yet\n.*--resume"):
        load_trained(tmp_path / "run")


def test_edited_networks_are_written(tmp_path: Path) -> None:
    text = {"task": {"name": "inr_editing", "target": "rendering"}, "normalise": "off"}
    started(tmp_path, text)
    inrs = load(tmp_path / "set.safetensors")
    files = written(tmp_path / "files", inrs, [4, 9])
    trained = load_trained(tmp_path / "run")
    found = predict(trained, files)
    paths = save_edits(found, tmp_path / "edited")
    assert [path.name for path in paths] == ["network-4.onnx", "network-9.onnx"]
    factor = trained.models[0][1].factor  # type: ignore[union-attr]
    for path, one in zip(paths, found):
        onnx.checker.check_model(str(path))
        edited = ngc.compile(path, options=trained.options)
        params = {param.name: param for param in edited.program.params}
        for name, param in params.items():
            entries = slice(param.offset, param.offset + param.size)
            expected = one.weights[entries] * (1 + factor[int(name.endswith("weight"))].detach())  # type: ignore[index]
            torch.testing.assert_close(edited.weights[entries], expected)


def test_weights_alone_are_read_as_the_network_they_are_of(tmp_path: Path) -> None:
    started(tmp_path)
    trained = load_trained(tmp_path / "run")
    inrs = load(tmp_path / "set.safetensors")
    files = written(tmp_path / "files", inrs, [2, 5, 7])
    weights = []
    for file in files:
        tensors = ngc.compile(file).state_dict()
        weights.append(str(Path(file).with_suffix(".safetensors")))
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights[-1])
    refused: list[NgcError] = []
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"nothing")
    found = predict(trained, [*weights, str(broken)], refused.append, plan_from=files[0])
    assert [one.file for one in found] == weights
    assert len(refused) == 1
    for one, other in zip(found, predict(trained, files)):
        assert one.probabilities is not None
        assert other.probabilities is not None
        torch.testing.assert_close(one.probabilities, other.probabilities)


def test_weights_alone_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "sines.py").write_text(MODULE)
    spec = importlib.util.spec_from_file_location("sines_here", tmp_path / "sines.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(sines := importlib.util.module_from_spec(spec))
    torch.manual_seed(0)
    torch.save(sines.net().state_dict(), "last.pt")
    of_module = ("--plan-from", "sines:net", "--input", "1x2")
    result = CliRunner().invoke(app, ["predict", "run", *of_module, "last.pt"])
    assert result.exit_code == 0, result.output
    assert re.search(r"last\.pt +\S+ +\d", result.stdout)
    alone = CliRunner().invoke(app, ["predict", "run", "last.pt"])
    assert alone.exit_code == 2
    assert "weights alone: --plan-from MODEL;" in alone.stderr


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 4), nn.Linear(4, 3), nn.Linear(3, 1)])

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.sin(30 * layer(x))
        return self.layers[-1](x)

def net():
    return Net()
"""


def test_an_architecture_beside_its_edited_weights_is_not_overwritten(tmp_path: Path) -> None:
    text = {"task": {"name": "inr_editing", "target": "rendering"}, "train": {"epochs": 1}}
    started(tmp_path, text)
    (file,) = written(tmp_path / "files", load(tmp_path / "set.safetensors"), [4])
    weights = str(Path(file).with_suffix(".safetensors"))
    save_file({n: t.contiguous() for n, t in ngc.compile(file).state_dict().items()}, weights)
    found = predict(load_trained(tmp_path / "run"), [weights], plan_from=file)
    with pytest.raises(OptionError, match="it would be overwritten"):
        save_edits(found, tmp_path / "files", [file])


def test_edits_do_not_overwrite(tmp_path: Path) -> None:
    text = {"task": {"name": "inr_editing", "target": "rendering"}, "train": {"epochs": 1}}
    started(tmp_path, text)
    inrs = load(tmp_path / "set.safetensors")
    files = written(tmp_path / "files", inrs, [4])
    found = predict(load_trained(tmp_path / "run"), files)
    with pytest.raises(OptionError, match="it would be overwritten"):
        save_edits(found, tmp_path / "files")
    more = predict(
        load_trained(tmp_path / "run"), [*files, *written(tmp_path / "again", inrs, [4])]
    )
    with pytest.raises(
        OptionError, match=r"again.network-4.onnx would both be called network-4.onnx"
    ):
        save_edits(more, tmp_path / "edited")


def test_networks_unlike_those_of_the_training_set_are_noted(tmp_path: Path) -> None:
    started(tmp_path)
    inrs = load(tmp_path / "set.safetensors")
    (known,) = written(tmp_path / "files", inrs, [0])
    model = onnx.load(known)
    for node in model.graph.node:
        node.op_type = "Relu" if node.op_type == "Sin" else node.op_type
    other = str(tmp_path / "relu.onnx")
    onnx.save(model, other)
    one, two = predict(load_trained(tmp_path / "run"), [known, other])
    assert one.unseen == ()
    assert two.unseen == ("activation relu",)
