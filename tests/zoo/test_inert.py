"""Checkpoints with objects of strangers are read, and none of their code is run."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ngc.errors import ModelError
from ngc.zoo.importers.inert import read_torch_file

# Written by torch.save with OmegaConf 2.4: the configuration is a DictConfig of a dataclass.
REAL = Path(__file__).parent / "files" / "omegaconf_checkpoint.torch"


class Runs:
    """Leaves a mark when it is unpickled as usual."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


class Built:
    """Does something when its state is set."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("code of the file's class was run")


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_a_configuration_of_omegaconf_is_read_without_omegaconf() -> None:
    found = read_torch_file(REAL)
    assert "omegaconf" not in sys.modules
    assert found["config"] == {
        "n_layers": 3,
        "n_classes": 10,
        "channels": [3, 4, 2, 4],
        "kernel_size": [3, 5, 3],
        "stride": [1, 1, 1],
        "padding": [1, 2, 1],
        "residual": [-1, -1, 0],
        "activation": ["relu", "gelu", "none"],
    }
    assert (found["iteration"], found["last_result"]["test/acc"]) == (10, 0.4321)
    shapes = {name: array.shape for name, array in found["model"].items()}
    assert shapes["layers.1.weight"] == (2, 4, 5, 5)
    assert shapes["fc.bias"] == (10,)


def test_no_code_of_the_file_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    content = {
        "model": {"w": torch.ones(2)},
        "config": {"a": Runs(mark), "b": [Built(Runs(mark)), 3]},
        "optimizer": Runs(mark),
    }
    found = read_torch_file(saved(tmp_path / "evil.pt", content))
    assert not mark.exists()
    assert found["config"]["b"][1] == 3
    with pytest.raises(FileExistsError):  # as usual it is, here for the second time
        torch.load(tmp_path / "evil.pt", weights_only=False)
    assert mark.exists()


class Imports:
    def __reduce__(self) -> Any:
        return (__import__, ("antigravity",))


def test_nothing_is_imported(tmp_path: Path) -> None:
    path = saved(tmp_path / "evil.pt", {"model": {"w": torch.ones(1)}, "x": Imports()})
    read_torch_file(path)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(12.0).reshape(3, 4).T[1:],
        torch.randn(2, 3, dtype=torch.float64),
        torch.ones(3).half(),
        torch.tensor(5),
        torch.zeros(0, 3),
        torch.nn.Parameter(torch.ones(2)),
    ],
    ids=["strided", "double", "half", "whole number", "empty", "parameter"],
)
def test_tensors_come_back(tmp_path: Path, tensor: torch.Tensor) -> None:
    path = saved(tmp_path / "t.pt", {"model": OrderedDict(w=tensor, same=tensor)})
    found = read_torch_file(path)["model"]
    for name in ("w", "same"):
        assert np.array_equal(found[name], tensor.detach().numpy())
        assert found[name].dtype == tensor.detach().numpy().dtype


def repacked(source: Path, target: Path, changes: dict[str, bytes], pack: int = 0) -> Path:
    """A copy of a zip with other contents of some of its entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", pack) as new:
        for name in old.namelist():
            end = name.partition("/")[2]
            new.writestr(name, changes.get(end, old.read(name)))
    return target


def test_damaged_and_dishonest_files_are_refused(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.pt", {"model": {"w": torch.ones(8)}})
    cases = {
        "short": repacked(good, tmp_path / "short.pt", {"data/0": b"\0" * 8}),
        "packed": repacked(good, tmp_path / "packed.pt", {}, zipfile.ZIP_DEFLATED),
        "garbage": repacked(good, tmp_path / "garbage.pt", {"data.pkl": b"\x80\x02garbage"}),
        "list": saved(tmp_path / "list.pt", [torch.ones(1)]),
        "other": saved(tmp_path / "other.pt", {"weights": {"w": torch.ones(1)}}),
        "text": tmp_path / "text.pt",
        "cut": tmp_path / "cut.pt",
    }
    cases["text"].write_text("no zip")
    cases["cut"].write_bytes(good.read_bytes()[:-50])
    for path in cases.values():
        with pytest.raises(ModelError):
            read_torch_file(path)


def test_a_tensor_cannot_be_larger_than_its_data(tmp_path: Path) -> None:
    """Strides of zero would make terabytes of one number."""
    huge = torch.ones(1).expand(1000, 1000)
    path = saved(tmp_path / "huge.pt", {"model": {"w": huge}})
    with pytest.raises(ModelError, match="not all there"):
        read_torch_file(path)


def test_a_pickle_cannot_change_what_reads_it(tmp_path: Path) -> None:
    """State set on the functions that a pickle may call stays without effect on the next file."""
    good = saved(tmp_path / "good.pt", {"model": {"w": torch.ones(8)}})
    # BUILD with attributes on torch._utils._rebuild_tensor_v2 itself
    state = pickle.dumps((None, {"__defaults__": (1,), "__class__": 3}), protocol=2)[2:-1]
    evil = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + state + b"b."
    bad = repacked(good, tmp_path / "bad.pt", {"data.pkl": evil})
    with pytest.raises(ModelError):
        read_torch_file(bad)
    assert read_torch_file(good)["model"]["w"].tolist() == [1.0] * 8
