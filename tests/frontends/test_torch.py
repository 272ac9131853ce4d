"""PyTorch modules: names, values and ties of their tensors survive, there and back."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import ngc
from ngc.backends.torch_exec import pack, unpack
from ngc.cli import app
from ngc.errors import LiftError, ModelError, NgcError, OptionError
from ngc.frontends.dims import Example, parse_example

CODE = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.read = nn.Embedding(7, 4)
        self.write = nn.Linear(4, 7, bias=False)
        self.write.weight = self.read.weight

    def forward(self, ids):
        return self.write(self.read(ids))

def leave():
    raise SystemExit(2)

def broken():
    raise RuntimeError("no such luck")
"""


class Residual(nn.Module):
    """Convolutions with BatchNorm around a skip, then a Linear; a buffer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.register_buffer("unread", torch.arange(3.0))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        return self.head((x + self.conv(x)).mean((2, 3)))


def perturbed(module: nn.Module) -> nn.Module:
    """Away from ones and zeros, which hide what is lost."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand(tensor.shape, generator=generator))
    return module


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def test_a_module_comes_back_whole(images: Tensor) -> None:
    module = perturbed(Residual()).eval()
    compiled = ngc.compile(module, images)
    assert ngc.verify(compiled).passed
    back = compiled.state_dict(ngc.lift(compiled.plan, compiled.graph()))
    own = module.state_dict()
    assert sorted(back) == sorted(own)
    for name, tensor in own.items():
        assert back[name].dtype == tensor.dtype, name
        assert torch.equal(back[name], tensor), name
    other = Residual().eval()
    other.load_state_dict(back, strict=True)
    assert torch.equal(other(images), module(images))


def test_parameters_keep_their_names(images: Tensor) -> None:
    names = {param.name for param in ngc.compile(Residual(), images).program.params}
    assert names == {
        name
        for name in Residual().state_dict()
        if name not in ("unread", "norm.num_batches_tracked")
    }


def test_edited_weights_are_those_of_the_module(images: Tensor) -> None:
    module = perturbed(Residual()).eval()
    compiled = ngc.compile(module, images)
    changed = compiled.weights.clone()
    changed[2:] *= 1.5  # all but the constants 0 and 1
    weights = ngc.lift(compiled.plan, ngc.bind(compiled.plan, changed))
    back = compiled.state_dict(weights)
    torch.testing.assert_close(back["head.weight"], module.head.weight * 1.5)
    torch.testing.assert_close(back["norm.running_var"], module.norm.running_var * 1.5)
    other = Residual().eval()
    other.load_state_dict(back)
    found = ngc.Executor(compiled.program)(weights, {"x": images})
    torch.testing.assert_close(next(iter(found.values())), other(images))


def test_tied_tensors_are_one_parameter_under_two_names() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    module[2].weight = module[0].weight
    compiled = ngc.compile(module, torch.zeros(1, 3))
    assert sorted(p.size for p in compiled.program.params) == [3, 3, 9]
    back = compiled.state_dict(compiled.weights * 2)
    assert torch.equal(back["0.weight"], back["2.weight"])
    assert torch.equal(back["2.weight"], 2 * module[0].weight)


def test_half_precision_comes_back_bit_for_bit() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).to(dtype)
        back = ngc.compile(module, torch.zeros(1, 3, dtype=dtype)).state_dict()
        for name, tensor in module.state_dict().items():
            assert back[name].dtype == dtype
            assert torch.equal(back[name], tensor)


def test_every_submodule_keeps_its_mode(images: Tensor) -> None:
    module = Residual().train()
    module.conv.eval()
    ngc.compile(module, images)
    assert (module.training, module.norm.training, module.conv.training) == (True, True, False)


def test_inputs_are_given_by_position_or_by_name() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(3.0))

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a * self.weight + b

    a, b = torch.zeros(2, 3), torch.zeros(2, 3)
    hashes = {ngc.compile(Sum(), inputs).plan.hash for inputs in ((a, b), [a, b], {"a": a, "b": b})}
    assert len(hashes) == 1


def test_networks_of_one_architecture_share_a_plan() -> None:
    first, second = (
        ngc.compile(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.zeros(1, 3))
        for _ in range(2)
    )
    assert first.plan is second.plan
    assert not torch.equal(first.weights, second.weights)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions_in_space_without_bias(groups: int) -> None:
    """torch's exporter gives them a bias of two axes, of zeros."""
    conv = nn.Conv3d(2, 4, (1, 2, 2), groups=groups, bias=False)
    compiled = ngc.compile(conv, torch.randn(1, 2, 3, 4, 4))
    assert ngc.verify(compiled).passed
    assert compiled.arrays.keys() == {"weight"}
    with_bias = nn.Conv3d(2, 4, (1, 2, 2), groups=groups)
    nn.init.zeros_(with_bias.bias)
    own = ngc.compile(with_bias, torch.randn(1, 2, 3, 4, 4))
    assert own.arrays.keys() == {"weight", "bias"}


def test_what_cannot_be_compiled_is_said(images: Tensor) -> None:
    class Chooses(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ModelError, match=r"Residual: a PyTorch module needs example inputs"):
        ngc.compile(Residual())
    with pytest.raises(ModelError, match=r"Residual: torch's exporter failed: .*2 channels"):
        ngc.compile(Residual(), torch.zeros(1, 3, 6, 6))
    with pytest.raises(ModelError, match=r"Chooses: torch's exporter failed"):
        ngc.compile(Chooses(), images)
    with pytest.raises(OptionError, match="example inputs are for PyTorch modules"):
        ngc.compile("model.onnx", images)


def test_a_tensor_that_was_folded_cannot_change() -> None:
    class Folds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.rand(3))
            self.linear = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x * (1 + self.offset))

    module = Folds()
    compiled = ngc.compile(module, torch.zeros(1, 3))
    assert torch.equal(compiled.state_dict()["offset"], module.offset)
    with pytest.raises(LiftError, match="it was computed from others"):
        compiled.state_dict(compiled.weights * 2)


# --- exported programs --------------------------------------------------------------------------


def exported(folder: Path, module: nn.Module, *inputs: Tensor) -> Path:
    path = folder / "model.pt2"
    torch.export.save(torch.export.export(module, inputs), path)
    return path


def test_an_exported_program_is_the_module(tmp_path: Path, images: Tensor) -> None:
    module = perturbed(Residual()).eval()
    path = exported(tmp_path, module, images)
    compiled, direct = ngc.compile(path), ngc.compile(module, images)
    assert ngc.verify(compiled).passed
    assert compiled.plan.hash == direct.plan.hash
    assert torch.equal(compiled.weights, direct.weights)
    Residual().load_state_dict(compiled.state_dict(), strict=True)


def test_no_code_in_an_exported_program_runs(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    good = exported(tmp_path, nn.Linear(2, 2), torch.zeros(1, 2))
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        replaced = 0
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith(".pt"):
                data, replaced = pickle.dumps({"x": Evil()}), replaced + 1
            target.writestr(info, data)
    assert replaced
    with pytest.raises(
        ModelError, match=r"bad.pt2: not an exported program that can be read safely"
    ):
        ngc.compile(bad)
    assert not (tmp_path / "ran").exists()


def test_damaged_programs_are_refused(tmp_path: Path) -> None:
    good = exported(tmp_path, nn.Linear(2, 2), torch.zeros(1, 2))
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(good.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"cut.pt2: not an exported program"):
        ngc.compile(cut)
    with pytest.raises(ModelError, match=r"none.pt2: there is no such file"):
        ngc.compile(tmp_path / "none.pt2")


# --- code, and the command line -----------------------------------------------------------------


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a_network.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "a_network", raising=False)
    return tmp_path


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_modules_in_code_compile_from_the_command_line(code: Path) -> None:
    assert run("compile", "a_network:make", "--input", "1x3", "-o", "graph.pt")[0] == 0
    assert run("decompile", "graph.pt", "-o", "back.safetensors")[0] == 0
    from safetensors.torch import load_file

    back = load_file("back.safetensors")
    assert {name: tuple(t.shape) for name, t in back.items()} == {
        "0.weight": (4, 3), "0.bias": (4,), "2.weight": (2, 4), "2.bias": (2,),
    }  # fmt: skip
    status, shown = run("verify", "a_network:Tied", "--input", "ids=1x5:int64")
    assert status == 0, shown
    status, shown = run("show", "a_network:make", "--input", "1x3", "--after", "emit", "--text")
    assert status == 0, shown


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("a_network:make", "needs example inputs"),
        ("a_network:broken", "its code raised RuntimeError: no such luck"),
        ("a_network:none", "its code raised AttributeError"),
        ("a_network:leave", "its code raised SystemExit"),
        ("no_such_module:make", "there is no module no_such_module"),
        ("a_network:CODE.make", "its code raised AttributeError"),
    ],
)
def test_faults_of_code_are_one_message(code: Path, model: str, message: str) -> None:
    status, shown = run("compile", model)
    assert status == 2
    assert f"error: {model}: " in shown
    assert message in shown
    assert "Traceback" not in shown


def test_the_graph_file_keeps_the_names(tmp_path: Path, images: Tensor) -> None:
    module = perturbed(Residual()).eval()
    path = tmp_path / "graph.pt"
    ngc.save([ngc.compile(module, images), ngc.compile("examples/mnist_cnn.onnx")], path)
    stored = ngc.load(path)
    back = stored.state_dict(0)
    assert all(torch.equal(back[name], own) for name, own in module.state_dict().items())
    assert stored.state_dict(1).keys() == ngc.compile("examples/mnist_cnn.onnx").arrays.keys()


def test_example_inputs_are_read() -> None:
    assert parse_example("1x3x8x8") == Example("", (1, 3, 8, 8))
    assert parse_example("ids=1x16:int64") == Example("ids", (1, 16), "int64")
    assert parse_example("scale=") == Example("scale", ())
    for text in ("1xa", "=1x3", "1x-3", "1x3:float7", "x=1,3", "0x4"):
        with pytest.raises(NgcError, match="cannot read the input"):
            parse_example(text)


# --- names, arguments and tensors that are easily mistaken --------------------------------------


def test_a_tensor_may_be_called_like_an_input_or_an_operator() -> None:
    class Clash(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.add = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(3))
            self.linear = nn.Linear(4, 3)

        def forward(self, w: Tensor) -> Tensor:
            return self.linear(w * self.w) + self.add

    module = Clash()
    compiled = ngc.compile(module, torch.rand(1, 4))
    assert ngc.verify(compiled).passed
    back = compiled.state_dict()
    assert back.keys() == module.state_dict().keys()
    assert all(torch.equal(back[name], t) for name, t in module.state_dict().items())
    changed = Clash()
    assert torch.equal(compiled.with_weights(changed.state_dict()).state_dict()["w"], changed.w)


def test_a_dictionary_may_be_an_argument() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(
            self, x: Tensor, extra: dict[str, Tensor], bias: Tensor | None = None
        ) -> Tensor:
            y = self.linear(x) + extra["bias"] * 2
            return y if bias is None else y + bias

    x, extra = torch.rand(1, 4), {"bias": torch.rand(1, 3)}
    module = Reads()
    compiled = ngc.compile(module, (x, extra))
    inputs = dict(zip([op.out.name for op in compiled.program.inputs], (x, extra["bias"])))
    (found,) = ngc.Executor(compiled.program)(compiled.weights, inputs).values()
    torch.testing.assert_close(found, module(x, extra))
    assert ngc.verify(compiled).passed


def test_what_the_module_itself_answers_is_part_of_the_proof() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))
    compiled = ngc.compile(module, torch.rand(1, 4))
    sample = compiled.source.sample
    assert sample is not None
    wrong = replace(sample, outputs=(sample.outputs[0] + 1,))
    other = replace(compiled, source=replace(compiled.source, sample=wrong))
    (check, *_) = ngc.verify(other).checks
    assert not check.passed
    assert "the model itself answers otherwise" in check.detail


def test_answers_that_cannot_be_compared_are_said() -> None:
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).half()
    (check, *_) = ngc.verify(ngc.compile(module, torch.rand(1, 4).half())).checks
    assert check.passed
    assert "not held against the model's own answers: it computes in half" in check.figure


def test_folded_norms_come_back_as_they_were(images: Tensor) -> None:
    module = perturbed(Residual()).eval()
    before = module(images)
    compiled = ngc.compile(module, images, norm="fold")
    compiled.load_into(module)
    assert torch.equal(module(images), before)
    with pytest.raises(LiftError, match="it was computed from others"):
        compiled.load_into(module, compiled.weights * 2)


def test_a_change_that_no_tensor_keeps_is_refused() -> None:
    class Gain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("gain", torch.rand(3), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x) * self.gain

    compiled = ngc.compile(Gain(), torch.rand(1, 4))
    compiled.load_into(Gain())
    with pytest.raises(LiftError, match="a constant of its code"):
        compiled.state_dict(compiled.weights * 2)


def test_complex_parameters_are_refused() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(4, 3, dtype=torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return (x.to(torch.complex64) @ self.w).real

    with pytest.raises(ModelError, match="it has complex parameters"):
        ngc.compile(Complex(), torch.rand(1, 4))


def test_extra_state_is_kept() -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"v": 1}

        def set_extra_state(self, state: dict[str, int]) -> None:
            assert state == {"v": 1}

    compiled = ngc.compile(Extra(4, 3), torch.rand(1, 4))
    compiled.load_into(Extra(4, 3))


def test_mixed_precision_is_no_fault() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self.b(self.a(x).relu())

    verification = ngc.verify(ngc.compile(Mixed(), torch.rand(1, 5)))
    assert verification.passed, verification.checks


def test_another_module_is_refused() -> None:
    compiled = ngc.compile(nn.Linear(4, 3), torch.rand(1, 4))
    for other in (nn.Linear(5, 3), None):
        with pytest.raises(LiftError, match="another model"):
            compiled.load_into(other)
    with pytest.raises(ModelError, match="example inputs are a int"):
        ngc.compile(nn.Linear(4, 3), 5)


class Halved(nn.Module):
    """A parameter that is on the graph and went into another as well."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.scale.exp() + self.scale


def test_a_tensor_that_others_were_computed_from_cannot_change_alone() -> None:
    compiled = ngc.compile(Halved().eval(), (torch.ones(1, 4),))
    arrays = unpack(compiled.program, compiled.weights)
    compiled.state_dict(pack(compiled.program, arrays))
    with pytest.raises(LiftError, match="others that are on the graph were computed from it"):
        compiled.state_dict(pack(compiled.program, {**arrays, "scale": arrays["scale"] + 1}))
    other = compiled.with_weights({**compiled.state_dict(), "scale": torch.tensor(1.0)})
    assert ngc.verify(other).passed
    assert other.state_dict()["scale"] == 1.0


def test_compiling_leaves_the_buffers_of_a_module_as_they_are() -> None:
    class Counting(nn.Module):
        count: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            y: Tensor = self.linear(x)
            return y

    model = Counting().eval()
    ngc.compile(model, (torch.ones(1, 4),))
    assert model.count == 0


def test_inputs_that_the_module_does_not_take_are_one_error() -> None:
    with pytest.raises(ModelError, match=r"fails on these inputs.*same dtype") as error:
        ngc.compile(nn.Linear(4, 2).half().eval(), (torch.ones(1, 4),))
    assert "--input" in str(error.value)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_alone_are_no_model(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(b"\x80\x02}q\x00." * 9)
    with pytest.raises(ModelError, match="ngc decompile; weights alone: --plan-from"):
        ngc.compile(path)


class Answers(nn.Module):
    """One tensor twice, a size, and nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, int, None]:
        y = self.linear(x)
        return y, y, x.shape[0], None


def test_sizes_are_no_outputs_and_one_tensor_may_be_two() -> None:
    compiled = ngc.compile(Answers(), torch.randn(2, 4))
    assert ngc.verify(compiled).passed
    assert len(compiled.program.outputs) == 2


def test_numpy_arrays_are_inputs() -> None:
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    assert ngc.verify(ngc.compile(Answers(), x)).passed
    assert ngc.verify(ngc.compile(Answers(), {"x": x})).passed


def test_an_untrained_norm_folds_as_a_trained_one_does(images: Tensor) -> None:
    """Its numbers are ones and zeros, but weights all the same."""

    def normed() -> nn.Module:
        torch.manual_seed(0)
        first, second = nn.Conv2d(2, 3, 3, bias=False), nn.Conv2d(3, 4, 3, bias=False)
        norms = nn.BatchNorm2d(3), nn.BatchNorm2d(4)
        return nn.Sequential(first, nn.ReLU(), norms[0], second, norms[1]).eval()

    fresh, trained = (
        ngc.compile(model, images, norm="fold") for model in (normed(), perturbed(normed()))
    )
    assert fresh.plan is trained.plan


def test_a_module_without_memory_cannot_be_loaded_into() -> None:
    model = nn.Linear(4, 3)
    compiled = ngc.compile(model, torch.randn(1, 4))
    with pytest.raises(LiftError, match="meta device"):
        compiled.load_into(nn.Linear(4, 3, device="meta"))


def test_projections_that_the_exporter_loses_are_refused() -> None:
    with pytest.raises(ModelError, match="leaves the projection of an LSTM out"):
        ngc.compile(nn.LSTM(3, 5, proj_size=2), torch.randn(4, 1, 3))


class Cache:
    """What torch's exporter knows nothing of."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


@dataclass
class Answer:
    logits: Tensor
    cache: Cache


class Answering(nn.Module):
    """Answers with an object that holds a tensor, and one that holds a cache."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Answer:
        y = self.linear(x)
        return Answer(y, Cache(y))


def test_objects_that_a_module_answers_with_give_their_tensors() -> None:
    compiled = ngc.compile(Answering().eval(), torch.ones(1, 3))
    assert len(compiled.program.outputs) == 1
    assert compiled.notes == ("answers that are no tensors are left out: Cache",)
    assert ngc.verify(compiled).passed


def test_a_module_that_answers_with_no_tensor_is_refused() -> None:
    class Silent(Answering):
        def forward(self, x: Tensor) -> Cache:  # type: ignore[override]
            return Cache(self.linear(x))

    with pytest.raises(ModelError, match="it answers with no tensor, but with Cache"):
        ngc.compile(Silent().eval(), torch.ones(1, 3))
