"""CNN Wild Park, as published and as made here, becomes a zoo of networks that compute the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ngc.errors import NgcError
from ngc.zoo import Zoo, import_zoo, wild_park
from tests.zoo.test_inert import REAL

FUNCTIONS = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "none": lambda x: x}

# Fewer channels than the earlier layer has, and more.
CONFIG = {
    "n_layers": 4, "n_classes": 10, "channels": [3, 4, 2, 3, 5], "kernel_size": [3, 5, 3, 3],
    "stride": [1, 1, 1, 1], "padding": [1, 2, 1, 1], "residual": [-1, -1, 0, 1],
    "activation": ["relu", "gelu", "tanh", "none"],
}  # fmt: skip


class Configuration:
    """As the published files have it: an object with attributes."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


def state_of(config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state, channels = {}, config["channels"]
    for k, size in enumerate(config["kernel_size"]):
        shape = (channels[k + 1], channels[k], size, size)
        state[f"layers.{k}.weight"] = 0.3 * torch.randn(shape, generator=generator)
        state[f"layers.{k}.bias"] = torch.randn(channels[k + 1], generator=generator)
    state["fc.weight"] = torch.randn(config["n_classes"], channels[-1], generator=generator)
    state["fc.bias"] = torch.randn(config["n_classes"], generator=generator)
    return state


def reference(config: dict[str, Any], state: dict[str, Tensor], x: Tensor) -> Tensor:
    """What the paper says of residuals (E.1): the shared channels are added to."""
    outputs = []
    for k, (activation, source) in enumerate(zip(config["activation"], config["residual"])):
        weight, bias = state[f"layers.{k}.weight"], state[f"layers.{k}.bias"]
        x = F.conv2d(x, weight, bias, padding=config["padding"][k])
        if source >= 0:
            shared = min(x.shape[1], outputs[source].shape[1])
            x = torch.cat([x[:, :shared] + outputs[source][:, :shared], x[:, shared:]], dim=1)
        x = FUNCTIONS[activation](x)
        outputs.append(x)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def write_checkpoint(folder: Path, config: dict[str, Any], seed: int, step: int) -> None:
    folder.mkdir(parents=True)
    content = {
        "model": state_of(config, seed),
        "optimizer": {"state": {}},
        "config": Configuration(**config),
        "iteration": step,
        "last_result": {"test/acc": 0.1 + step / 100, "test/loss": 2.0, "done": False},
    }
    torch.save(content, folder / "checkpoint.pt")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, and the file of OmegaConf as a third."""
    folder = tmp_path_factory.mktemp("park")
    for step in (10, 20):
        write_checkpoint(folder / "zoo/run_a" / f"checkpoint_{step:06d}", CONFIG, step, step)
    write_checkpoint(folder / "zoo/run_b/checkpoint_000010", CONFIG, 5, 10)
    (folder / "zoo/run_c/checkpoint_000010").mkdir(parents=True)
    shutil.copy(REAL, folder / "zoo/run_c/checkpoint_000010/checkpoint.pt")
    return folder


@pytest.fixture(scope="module")
def zoo(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return import_zoo(published, tmp_path_factory.mktemp("made") / "zoo")


def run(zoo: Zoo, number: int, images: Tensor) -> np.ndarray:
    """onnxruntime on a network of the zoo."""
    which = int(zoo.architecture[number])
    model = zoo.architectures[which].model(zoo.rows(which)[zoo.row[number : number + 1]][0])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (name,) = (one.name for one in session.get_inputs())
    return np.concatenate([session.run(None, {name: x[None].numpy()})[0] for x in images])


def test_published_networks_compute_what_the_paper_says(zoo: Zoo) -> None:
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for number, seed in enumerate((10, 20, 5)):
        expected = reference(CONFIG, state_of(CONFIG, seed), images).numpy()
        np.testing.assert_allclose(run(zoo, number, images), expected, rtol=1e-4, atol=1e-5)


def test_what_is_known_of_published_networks(zoo: Zoo) -> None:
    assert zoo.facts["importer"] == "wild-park"
    assert len(zoo.architectures) == 2
    assert zoo.table["run"] == ["zoo/run_a", "zoo/run_a", "zoo/run_b", "zoo/run_c"]
    assert zoo.numbers("step").tolist() == [10, 20, 10, 10]
    assert zoo.numbers("accuracy").tolist() == pytest.approx([0.2, 0.3, 0.2, 0.4321])
    assert zoo.table["family"] == ["4 layers"] * 3 + ["3 layers"]
    assert "split" not in zoo.table


def test_published_splits(published: Path, tmp_path: Path) -> None:
    source = tmp_path / "park"
    shutil.copytree(published, source)
    listed = {
        name: {"path": [f"elsewhere/dataset/zoo/{run}/{step}/checkpoint.pt" for run, step in pairs]}
        for name, pairs in {
            "train": [("run_a", "checkpoint_000010"), ("run_a", "checkpoint_000020")],
            "val": [("run_b", "checkpoint_000010")],
            "test": [("run_c", "checkpoint_000010")],
        }.items()
    }
    (source / "cnn_park_splits.json").write_text(json.dumps(listed))
    zoo = import_zoo(source, tmp_path / "zoo")
    assert zoo.table["split"] == ["train", "train", "validation", "test"]
    del listed["test"]
    (source / "cnn_park_splits.json").write_text(json.dumps(listed))
    with pytest.raises(NgcError, match="1 checkpoints are in no split: zoo/run_c"):
        import_zoo(source, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"padding": [0, 2, 1, 1]}, "a kernel of 3 with padding 0"),
        ({"activation": ["swish", "gelu", "tanh", "none"]}, "activation 'swish'"),
        ({"residual": [-1, 0, 0, 1]}, "skip 0"),
        ({"stride": [1]}, "lists of its config differ in length"),
        ({"n_classes": 7}, r"of another shape: fc.weight is \[10, 5\]"),
    ],
)
def test_checkpoints_that_do_not_fit_their_configuration(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    folder = tmp_path / "park/run/step"
    write_checkpoint(folder, CONFIG, 0, 1)
    content = torch.load(folder / "checkpoint.pt", weights_only=False)
    content["config"] = CONFIG | changes
    torch.save(content, folder / "checkpoint.pt")
    with pytest.raises(NgcError, match=f"run/step/checkpoint.pt: .*{expected}"):
        import_zoo(tmp_path / "park", tmp_path / "zoo")


# --- made here ----------------------------------------------------------------------------------


def test_networks_made_here(tmp_path: Path) -> None:
    config = wild_park.Config.from_dict(
        {
            "layers": [
                {"channels": 4, "kernel": 3, "norm": True, "activation": "tanh"},
                {"channels": 3, "kernel": 3, "pool": "max"},
            ],
            "inputs": [1, 8, 8],
            "classes": 3,
        }
    )
    folder = tmp_path / "made/networks/00000"
    folder.mkdir(parents=True)
    about = {"architecture": config.to_dict(), "run": "00000", "seed": 0, "hyper": {"lr": 0.1}}
    (folder / "network.json").write_text(json.dumps(about))
    text = "epoch,train_loss,test_loss,accuracy\n0,,2.3,0.1\n9,2.0,2.1,0.25\n10,1.0,1.1,0.5\n"
    (folder / "metrics.csv").write_text(text)
    modules = {}
    for epoch in (0, 9, 10):
        torch.manual_seed(epoch)
        module = wild_park.network(config).eval()
        for norm in module.norms.values():  # as after training
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
            norm.num_batches_tracked.fill_(epoch)
        save_file(module.state_dict(), folder / f"{epoch}.safetensors")
        modules[epoch] = module
    zoo = import_zoo(tmp_path / "made", tmp_path / "zoo")
    assert zoo.facts["importer"] == "made"
    assert zoo.table["name"] == [f"00000/{epoch}.safetensors" for epoch in (0, 9, 10)]
    assert zoo.numbers("accuracy").tolist() == [0.1, 0.25, 0.5]
    assert zoo.table["step"] == ["0", "9", "10"]
    assert zoo.table["hyper.lr"] == ["0.1"] * 3
    assert len(zoo.architectures) == 1
    images = torch.randn(2, 1, 8, 8)
    for number, module in enumerate(modules.values()):
        with torch.no_grad():
            expected = module(images).numpy()
        np.testing.assert_allclose(run(zoo, number, images), expected, rtol=1e-4, atol=1e-5)
    folded = import_zoo(tmp_path / "made", tmp_path / "folded", options=zoo.architectures[0].options
                        .changed({"norm": "fold"}))  # fmt: skip
    assert folded.architectures[0].num_parameters < zoo.architectures[0].num_parameters
    for number, module in enumerate(modules.values()):
        with torch.no_grad():
            expected = module(images).numpy()
        np.testing.assert_allclose(run(folded, number, images), expected, rtol=1e-4, atol=1e-5)
    (folder / "metrics.csv").write_text(text.partition("10,")[0])
    with pytest.raises(NgcError, match=r"00000/10.safetensors: no row for epoch 10"):
        import_zoo(tmp_path / "made", tmp_path / "other")
