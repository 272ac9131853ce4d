"""Checkpoints of one architecture are bound to one plan."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from typer.testing import CliRunner

import ngc
from ngc.checkpoints import read_tensors
from ngc.cli import app
from ngc.errors import LiftError, ModelError, OptionError

EXAMPLE = "examples/mnist_cnn.onnx"


class Net(nn.Module):
    """A tied pair of Linears, a norm, a buffer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.square, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.square.weight
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(torch.relu(self.square(torch.tanh(self.norm(self.first(x))))))


@pytest.fixture
def two() -> tuple[Net, Net]:
    torch.manual_seed(0)
    return Net().eval(), Net().eval()


def compiled(net: nn.Module) -> ngc.Compilation:
    return ngc.compile(net, torch.zeros(1, 3))


def test_other_weights_are_those_of_a_compilation_of_their_own(two: tuple[Net, Net]) -> None:
    first, second = two
    bound = compiled(first).with_weights(second.state_dict())
    own = compiled(second)
    assert bound.plan is own.plan
    assert torch.equal(bound.weights, own.weights)
    assert ngc.verify(bound).passed
    back = bound.state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in second.state_dict().items())


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_every_kind_of_checkpoint(suffix: str, two: tuple[Net, Net], tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    state = two[1].state_dict()
    match suffix:
        case ".safetensors":
            save_file({name: tensor.clone() for name, tensor in state.items()}, path)
        case ".npz":
            np.savez(path, **{name: tensor.numpy() for name, tensor in state.items()})
        case _:
            torch.save({"state_dict": state, "epoch": 3}, path)
    bound = compiled(two[0]).with_weights(path)
    assert torch.equal(bound.weights, compiled(two[1]).weights)
    assert bound.source.name == str(path)


def test_onnx_models_are_bound_by_the_names_in_the_file() -> None:
    model = ngc.compile(EXAMPLE)
    tensors = {name: array * 2 for name, array in model.arrays.items()}
    bound = model.with_weights(tensors)
    assert torch.equal(bound.weights[2:], 2 * model.weights[2:])
    onnx.checker.check_model(bound.source.proto)
    assert ngc.verify(bound).passed


def test_what_was_computed_from_weights_is_computed_again() -> None:
    class Folds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset, self.linear = nn.Parameter(torch.rand(3)), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x * (1 + self.offset))

    first, second = Folds(), Folds()
    bound = compiled(first).with_weights(second.state_dict())
    assert torch.equal(bound.weights, compiled(second).weights)
    assert torch.equal(bound.state_dict()["offset"], second.offset)
    folded = ngc.compile(Net().eval(), torch.zeros(1, 3), norm="fold")
    other = Net().eval()
    again = ngc.compile(other, torch.zeros(1, 3), norm="fold")
    assert torch.equal(folded.with_weights(other.state_dict()).weights, again.weights)


def test_all_that_does_not_fit_is_said_at_once(two: tuple[Net, Net]) -> None:
    model = compiled(two[0])
    state = dict(two[1].state_dict())
    del state["first.bias"]
    state["first.weight"] = torch.zeros(3, 4)
    state["extra"] = torch.zeros(1)
    state["again.weight"] = state["again.weight"] + 1
    with pytest.raises(ModelError) as error:
        model.with_weights(state)
    for text in (
        "missing: first.bias",
        "not in the model: extra",
        "first.weight is [3, 4], not [4, 3]",
        "tied in the model, different here: again.weight and square.weight",
    ):
        assert text in str(error.value)


def test_a_common_beginning_of_names_is_pointed_out(two: tuple[Net, Net]) -> None:
    state = two[1].state_dict()
    with pytest.raises(ModelError, match=r"drop 'module.' in front of each name"):
        compiled(two[0]).with_weights({f"module.{name}": t for name, t in state.items()})
    wrapped = nn.Sequential(two[0])
    with pytest.raises(ModelError, match=r"put '0.' in front of each name"):
        compiled(wrapped).with_weights(state)


def test_one_of_two_tied_tensors_is_enough(two: tuple[Net, Net]) -> None:
    state = dict(two[1].state_dict())
    del state["again.weight"]
    assert torch.equal(compiled(two[0]).with_weights(state).weights, compiled(two[1]).weights)


def test_half_precision_checkpoints_widen(two: tuple[Net, Net]) -> None:
    half = {name: t.bfloat16() if t.is_floating_point() else t
            for name, t in two[1].state_dict().items()}  # fmt: skip
    bound = compiled(two[0]).with_weights(half)
    assert torch.equal(bound.state_dict()["first.weight"], half["first.weight"].float())


def test_no_code_in_a_checkpoint_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "evil.pt"
    torch.save({"x": Evil()}, path)
    np.savez(tmp_path / "evil.npz", x=np.array([Evil()], dtype=object))
    for name in ("evil.pt", "evil.npz"):
        with pytest.raises(ModelError, match="not a checkpoint that can be read safely"):
            read_tensors(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such file"):
        read_tensors(tmp_path / "none.pt")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ModelError, match=r".txt is no kind of checkpoint"):
        read_tensors(tmp_path / "a.txt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ModelError, match="it holds no tensors by name"):
        read_tensors(tmp_path / "list.pt")


def test_many_checkpoints_from_the_command_line(tmp_path: Path) -> None:
    model = ngc.compile(EXAMPLE)
    for k in (1, 2, 3):
        tensors = {name: torch.from_numpy(array * k) for name, array in model.arrays.items()}
        save_file(tensors, tmp_path / f"w{k}.safetensors")
    files = [str(tmp_path / f"w{k}.safetensors") for k in (1, 2, 3)]
    out = tmp_path / "graphs.pt"
    words = ["compile", "--plan-from", EXAMPLE, "--weights", *files, "-o", str(out)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    stored = ngc.load(out)
    assert stored.sources == tuple(files)
    assert torch.equal(stored.weights(2)[2:], 3 * model.weights[2:])
    result = CliRunner().invoke(app, ["compile", "--weights", files[0], "-o", str(out)])
    assert result.exit_code == 2
    assert "--plan-from" in result.output
    result = CliRunner().invoke(app, ["compile", "-o", str(out)])
    assert result.exit_code == 2


@pytest.mark.parametrize(
    "changed",
    [
        torch.zeros(4, 3, dtype=torch.complex64),
        torch.zeros(4, 3, dtype=torch.float64),
        torch.zeros(4, 3, dtype=torch.bool),
        np.full((4, 3), "7"),
        np.full((4, 3), None),
    ],
    ids=["complex", "double", "bool", "text", "objects"],
)
def test_numbers_that_the_model_cannot_hold_are_refused(two: tuple[Net, Net], changed: Any) -> None:
    state = {**two[1].state_dict(), "first.weight": changed}
    with pytest.raises(ModelError, match=r"of another type: first.weight is .*, not float32"):
        compiled(two[0]).with_weights(state)


def test_tensors_that_numpy_cannot_hold_are_named(two: tuple[Net, Net]) -> None:
    for odd in (torch.zeros(4, 3).to_sparse(), torch.zeros(4, 3, device="meta"),
                torch.zeros(4, 3).to(torch.float8_e4m3fn)):  # fmt: skip
        with pytest.raises(ModelError, match=r"first.weight cannot be read"):
            compiled(two[0]).with_weights({**two[1].state_dict(), "first.weight": odd})
    with pytest.raises(OptionError, match="weights are a Net"):
        compiled(two[0]).with_weights(two[1])  # type: ignore[arg-type]


def test_weights_are_found_under_any_one_name(two: tuple[Net, Net], tmp_path: Path) -> None:
    first, second = two
    path = tmp_path / "checkpoint.pt"
    torch.save({"net": second.state_dict(), "epoch": 3}, path)
    assert read_tensors(path).keys() == second.state_dict().keys()
    torch.save({"net": second.state_dict(), "average": first.state_dict()}, path)
    with pytest.raises(ModelError, match="in several places: net, average"):
        read_tensors(path)


def test_names_that_are_no_words_do_not_fit(two: tuple[Net, Net]) -> None:
    with pytest.raises(ModelError, match="not in the model: 1"):
        compiled(two[0]).with_weights({1: torch.zeros(3)})  # type: ignore[dict-item]


class Picks(nn.Module):
    """A norm, and columns in an order that is a buffer of integers."""

    order: Tensor

    def __init__(self, order: tuple[int, ...] = (2, 0, 1)) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.columns = nn.Module()
        self.columns.register_buffer("order", torch.tensor(order))
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(tensor)
        self.norm.num_batches_tracked.fill_(7)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.first(x))[:, self.columns.order]


def in_a_file(net: nn.Module, path: Path) -> ngc.Compilation:
    proto = compiled(net).source.proto
    onnx.save(proto, path)
    return ngc.compile(path)


@pytest.fixture(scope="module")
def picks(tmp_path_factory: pytest.TempPathFactory) -> ngc.Compilation:
    torch.manual_seed(0)
    return in_a_file(Picks().eval(), tmp_path_factory.mktemp("picks") / "picks.onnx")


def test_a_state_dict_is_bound_to_the_onnx_file_of_its_module(picks: ngc.Compilation) -> None:
    """Its counters of batches, which exporters leave out, come back with the weights."""
    other = Picks().eval()
    bound = picks.with_weights(other.state_dict())
    assert torch.equal(bound.weights, compiled(other).weights)
    back = bound.state_dict()
    other.load_state_dict(back, strict=True)
    assert back["norm.num_batches_tracked"] == 7
    again = bound.with_weights({k: t for k, t in back.items() if "num_batches" not in k})
    assert "norm.num_batches_tracked" not in again.state_dict()


def test_integers_that_an_onnx_file_has_are_bound_too(picks: ngc.Compilation) -> None:
    other = Picks((0, 3, 0)).eval()
    bound = picks.with_weights(other.state_dict())
    assert bound.plan is compiled(other).plan
    assert ngc.verify(bound).passed
    state = {**other.state_dict(), "columns.order": torch.zeros(2, dtype=torch.int64)}
    with pytest.raises(ModelError, match=r"of another shape: columns.order is \[2\], not \[3\]"):
        picks.with_weights(state)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("other.num_batches_tracked", torch.tensor(7)),
        ("norm.num_batches", torch.tensor(7)),
        ("norm.num_batches_tracked", torch.tensor(7.0)),
        ("norm.num_batches_tracked", torch.tensor([7])),
        ("num_batches_tracked", torch.tensor(7)),
    ],
)
def test_nothing_else_that_an_onnx_file_lacks_is_accepted(
    name: str, tensor: Tensor, picks: ngc.Compilation
) -> None:
    state = {k: t for k, t in Picks().state_dict().items() if "num_batches" not in k}
    with pytest.raises(ModelError, match=f"not in the model: {name}"):
        picks.with_weights({**state, name: tensor})
    statistics = {"other.running_mean": torch.ones(4), "other.running_var": torch.ones(4)}
    with pytest.raises(ModelError, match=r"other.running_mean, .*other.num_batches_tracked"):
        picks.with_weights({**state, **statistics, "other.num_batches_tracked": torch.tensor(7)})


def test_counters_do_not_hide_what_names_begin_with(picks: ngc.Compilation, tmp_path: Path) -> None:
    state = Picks().state_dict()
    with pytest.raises(ModelError, match=r"drop 'module.' in front of each name"):
        picks.with_weights({f"module.{name}": t for name, t in state.items()})
    wrapped = in_a_file(nn.Sequential(Picks().eval()), tmp_path / "wrapped.onnx")
    with pytest.raises(ModelError, match=r"put '0.' in front of each name"):
        wrapped.with_weights(state)


def test_names_of_an_exporters_own_are_explained(tmp_path: Path) -> None:
    net = Picks().eval()
    proto = compiled(net).source.proto
    for tensor in proto.graph.initializer:
        if tensor.name == "first.weight":
            tensor.name = "onnx::Gemm_7"
    for node in proto.graph.node:
        node.input[:] = ["onnx::Gemm_7" if n == "first.weight" else n for n in node.input]
    with pytest.raises(ModelError, match=r"optimize=False.*; or --plan-from package.module"):
        ngc.compile(proto).with_weights(net.state_dict())


def test_tensors_of_an_onnx_file_come_back_by_their_names(tmp_path: Path) -> None:
    model = ngc.compile(EXAMPLE)
    own = {t.name: onnx.numpy_helper.to_array(t) for t in model.source.proto.graph.initializer
           if t.data_type == onnx.TensorProto.FLOAT}  # fmt: skip
    back = model.state_dict(model.weights * 2)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[name], torch.from_numpy(2 * own[name])) for name in model.arrays)
    model.save(tmp_path / "graph.pt")
    out = tmp_path / "back.safetensors"
    result = CliRunner().invoke(app, ["decompile", str(tmp_path / "graph.pt"), "-o", str(out)])
    assert result.exit_code == 0, result.output
    stored = read_tensors(out)
    assert stored.keys() == own.keys()
    assert all(np.array_equal(stored[name], array) for name, array in own.items())


def test_weights_of_an_onnx_file_go_into_no_model() -> None:
    with pytest.raises(LiftError, match="which is no model of a framework"):
        ngc.compile(EXAMPLE).load_into(nn.Linear(1, 1))


def test_old_graph_files_have_no_names_of_onnx_files(tmp_path: Path) -> None:
    path = tmp_path / "graph.pt"
    ngc.compile(EXAMPLE).save(path)
    content = torch.load(path, weights_only=True)
    content["graphs"][0]["tensors"] = None
    torch.save(content, path)
    with pytest.raises(LiftError, match=r"kept no names of ONNX files\n.*decompile it to .onnx"):
        ngc.load(path).state_dict()
