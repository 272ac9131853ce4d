"""Sets of INRs: what is written comes back, what is wrong is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

import ngc
from ngc.errors import NgcError, OptionError
from ngc.train.inr_sets import EMBEDDED, InrSet, LayerStatistics, embedded, load
from ngc.train.siren import Conventions
from tests.train.fake_data import small_set


def test_a_set_comes_back_bit_for_bit(tmp_path: Path) -> None:
    found = replace(small_set(), origin={"command": "ngc data inr", "images": "noise"})
    found.save(tmp_path / "set")
    again = load(tmp_path / "set")
    assert again.conventions == found.conventions
    assert again.origin == found.origin
    for name, tensor in found.params.items():
        assert torch.equal(again.params[name], tensor)
    for name in ("label", "index", "split", "psnr"):
        assert torch.equal(getattr(again, name), getattr(found, name))
        assert getattr(again, name).dtype == getattr(found, name).dtype


def test_the_same_set_is_the_same_file(tmp_path: Path) -> None:
    found = replace(small_set(), origin={"b": 1, "a": {"d": 2, "c": 3}})
    found.save(tmp_path / "one")
    load(tmp_path / "one").save(tmp_path / "two")
    replace(found, origin={"a": {"c": 3, "d": 2}, "b": 1}).save(tmp_path / "three")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() == (tmp_path / "three").read_bytes()


def test_half_precision_is_read_as_single(tmp_path: Path) -> None:
    found = small_set()
    found.save(tmp_path / "half", torch.float16)
    again = load(tmp_path / "half")
    for name, tensor in found.params.items():
        assert again.params[name].dtype == torch.float32
        assert torch.equal(again.params[name], tensor.half().float())


def test_numbers_that_need_more_room_get_it(tmp_path: Path) -> None:
    found = small_set()
    wide = replace(found, label=found.label + 300, index=found.index + 2**40)
    wide.save(tmp_path / "wide")
    again = load(tmp_path / "wide")
    assert torch.equal(again.label, wide.label)
    assert torch.equal(again.index, wide.index)


def test_files_of_others_have_the_default_conventions(tmp_path: Path) -> None:
    found = small_set(3, Conventions())
    columns = {"label": found.label, "index": found.index, "split": found.split}
    tensors = {**found.params, **columns, "psnr": found.psnr}
    save_file(tensors, tmp_path / "other", {"images": "MNIST train 0-2", "init": "random"})
    again = load(tmp_path / "other")
    assert again.conventions == Conventions()
    assert again.origin == {"images": "MNIST train 0-2", "init": "random"}
    assert torch.equal(again.render(), found.render())


# --- parts of a set -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers",
    [[3, 1], slice(1, 3), torch.tensor([4]), torch.tensor([True, False, False, True, False])],
    ids=["list", "slice", "tensor", "mask"],
)
def test_some_networks_are_selected(numbers: Any) -> None:
    found = small_set(5)
    expected = torch.arange(5)[numbers]
    some = found.select(numbers)
    assert torch.equal(some.index, expected)
    assert torch.equal(some.render(), found.render()[expected])
    assert len(some) == len(expected)


def test_splits_are_selected_by_name() -> None:
    found = small_set(5)
    assert found.of_split("train").index.tolist() == [0, 1, 2, 3]
    assert found.of_split("test").index.tolist() == [4]
    assert len(found.of_split("validation")) == 0


def test_other_parameters_are_rendered_under_the_same_conventions() -> None:
    found = small_set(2)
    black = {name: torch.zeros_like(tensor) for name, tensor in found.params.items()}
    assert (found.render(black) == found.conventions.offset).all()


def test_one_network_is_an_onnx_model() -> None:
    found = small_set(3)
    session = onnxruntime.InferenceSession(
        found.onnx(2).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (pixels,) = session.run(None, {"coordinates": found.conventions.grid().numpy()})
    shown = found.render()[2].flatten(1).T
    np.testing.assert_allclose(np.asarray(pixels), shown.numpy(), atol=2e-6)
    with pytest.raises(OptionError, match=r"no number 3[\s\S]*0 to 2"):
        found.onnx(3)


def test_statistics_are_those_of_all_networks() -> None:
    weight = torch.tensor([[[1.0, 3.0]], [[5.0, 7.0]]])
    row = LayerStatistics.of(weight, torch.tensor([[2.0], [2.0]]))
    assert (row.weight_mean, row.bias_mean, row.bias_std) == (4.0, 2.0, 0.0)
    assert row.weight_std == pytest.approx(5**0.5)
    assert len(small_set().statistics()) == 3


# --- the embedded set ---------------------------------------------------------------------------


def test_the_embedded_set_is_small_and_like_the_published_one() -> None:
    assert EMBEDDED.stat().st_size < 6_000_000
    found = embedded()
    assert len(found) == 2500
    assert found.of_split("train").index.tolist() == list(range(2000))
    assert found.of_split("test").index.tolist() == list(range(500))
    assert found.conventions == Conventions()
    assert found.origin["command"].startswith("ngc data inr --images mnist ")
    assert sorted(found.label.unique().tolist()) == list(range(10))
    assert 21 < float(found.psnr.median()) < 22
    deviations = [(row.weight_std, row.bias_std) for row in found.statistics()]
    # Those of 12,000 networks that were fitted the same way by other code.
    expected = [(0.0516, 0.0181), (0.01445, 0.00993), (0.1102, 0.1019)]
    np.testing.assert_allclose(deviations, expected, rtol=0.02)


def test_an_embedded_network_compiles() -> None:
    compiled = ngc.compile(embedded().onnx(7))
    assert (compiled.plan.num_nodes, compiled.plan.num_edges) == (67, 1120)


# --- refusals -----------------------------------------------------------------------------------


Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


def drop(name: str) -> Change:
    return lambda tensors, told: tensors.pop(name)


def put(name: str, value: Callable[[Tensor], Tensor]) -> Change:
    return lambda tensors, told: tensors.update({name: value(tensors[name]).contiguous()})


def tell(**values: Any) -> Change:
    return lambda tensors, told: told.update(values)


CONVENTIONS = small_set().conventions.to_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("seq.0.weight"), r"no seq\.0\.weight"),
        (drop("seq.2.bias"), r"not in it: seq\.2\.bias"),
        (drop("label"), "not in it: label"),
        (put("seq.1.weight", lambda x: x.mT), r"seq\.1\.weight has shape \[5, 4, 3\], expected"),
        (put("seq.1.bias", lambda x: x[:4]), r"seq\.1\.bias has shape \[4, 3\], expected \[5, 3\]"),
        (put("seq.1.bias", lambda x: x / 0), r"seq\.1\.bias has entries that are no numbers"),
        (put("label", lambda x: x[:4]), r"seq\.0\.weight has shape \[5, 4, 2\], expected \[4,"),
        (put("index", lambda x: x[:4]), r"index has shape \[4\], expected \[5\]"),
        (put("split", lambda x: x + 2), "split has 3, known are"),
        (put("index", lambda x: x - 9), "index has negative entries"),
        (
            lambda tensors, told: tensors.update(extra=torch.zeros(1)),
            "tensors that the widths do not call for: extra",
        ),
        (
            lambda tensors, told: tensors.update({k: v[:0].clone() for k, v in tensors.items()}),
            "it holds no network",
        ),
        (tell(conventions=None), "do not tell the conventions"),
        (tell(conventions={**CONVENTIONS, "omega": "x"}), "omega is 'x'"),
        (tell(conventions={**CONVENTIONS, "phase": 0}), "not known: phase"),
        (tell(conventions={**CONVENTIONS, "widths": [2, 4, 4, 1]}), r"seq\.1\.weight has shape"),
        (put("label", lambda x: x.float()), r"label is torch\.float32 \[5\]"),
        (put("index", lambda x: x[0]), r"index is torch\.int32 \[\]"),
        (put("seq.1.bias", lambda x: x.to(torch.complex64)), r"seq\.1\.bias is torch\.complex64"),
        (put("seq.1.bias", lambda x: x.long()), r"seq\.1\.bias is torch\.int64"),
        (tell(conventions="default"), "do not tell the conventions"),
        (tell(format=2), "it has format 2, this ngc reads 1"),
    ],
)
def test_sets_that_contradict_themselves_are_refused(
    tmp_path: Path, change: Change, message: str
) -> None:
    small_set().save(tmp_path / "whole")
    tensors = load_file(tmp_path / "whole")
    with safe_open(tmp_path / "whole", "pt") as file:
        told = json.loads(file.metadata()["ngc"])
    change(tensors, told)
    save_file(tensors, tmp_path / "changed", {"ngc": json.dumps(told)})
    with pytest.raises(NgcError, match=message) as caught:
        load(tmp_path / "changed")
    assert "omega" in message or str(tmp_path / "changed") in str(caught.value)


def test_what_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NgcError, match="there is no such file"):
        load(tmp_path / "gone")
    small_set().save(tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    for data in (b"", b"text", whole[:100], whole[:-1], b"\xff" * 8 + whole):
        (tmp_path / "bad").write_bytes(data)
        with pytest.raises(NgcError, match="not a safetensors file"):
            load(tmp_path / "bad")
    save_file({"x": torch.zeros(1)}, tmp_path / "other", {"ngc": "{"})
    with pytest.raises(NgcError, match="not JSON"):
        load(tmp_path / "other")
    save_file({"x": torch.zeros(1)}, tmp_path / "other", {"ngc": "[]"})
    with pytest.raises(NgcError, match=r"it has format \[\]"):
        load(tmp_path / "other")


def test_a_wrong_set_is_not_written(tmp_path: Path) -> None:
    found = small_set()
    wrong = InrSet(
        found.params, found.label[:3], found.index, found.split, found.psnr, found.conventions
    )
    with pytest.raises(NgcError, match=r"has shape \[5, 4, 2\], expected \[3, 4, 2\]"):
        wrong.save(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


def test_the_page_names_the_embedded_file_by_its_contents() -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert hashlib.sha256(EMBEDDED.read_bytes()).hexdigest() in page
    assert f"{EMBEDDED.stat().st_size:,} bytes" in page
    assert embedded().origin["command"] in page
