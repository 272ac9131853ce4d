"""The networks that ship with the onnx package: proven, or refused with what is not supported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import pytest

import ngc.proof
from benchmarks.wheel_models import FAILED, PASSED, REFUSED, models, outcome
from ngc.oracle import Oracle

SMALL = dict(models(("simple", "pytorch-converted", "pytorch-operator")))
LIGHT = dict(models(("light",)))
FLATTENING = [name for name in LIGHT if name.endswith(("alexnet", "vgg19", "zfnet512"))]
# Shapes and splits that depend on the input, training operators, strings.
UNSUPPORTED = ("expand_shape", "gradient_of", "sequence_model8", "strnorm")


@pytest.fixture(scope="module")
def shared_oracle() -> Iterator[Oracle]:
    with Oracle() as oracle:
        yield oracle


@pytest.fixture(autouse=True)
def one_process(shared_oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime starts once for all tests here."""
    monkeypatch.setattr(ngc.proof, "Oracle", lambda timeout: nullcontext(shared_oracle))


def test_the_models_are_there() -> None:
    assert len(SMALL) >= 130
    assert len(LIGHT) == 9


@pytest.mark.parametrize("name", SMALL)
def test_small_models_are_proven_or_refused(name: str) -> None:
    one = outcome(name, SMALL[name])
    assert one.verdict != FAILED, one.detail
    is_refused = any(word in name for word in UNSUPPORTED)
    assert one.verdict == (REFUSED if is_refused else PASSED), one.detail
    if is_refused:
        assert "operators: " in one.detail


def test_squeezenet_is_proven() -> None:
    one = outcome("squeezenet", LIGHT["light/light_squeezenet"])
    assert one.verdict == PASSED, one.detail


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["nodes", "fold"])
@pytest.mark.parametrize("name", LIGHT)
def test_light_models_are_proven(name: str, norm: str) -> None:
    one = outcome(name, LIGHT[name], norm=norm, flatten="kernel")
    assert one.verdict == PASSED, one.detail


@pytest.mark.slow
@pytest.mark.parametrize("flatten", ["repeat", "virtual"])
@pytest.mark.parametrize("name", FLATTENING)
def test_every_flatten_strategy_is_proven(name: str, flatten: str) -> None:
    one = outcome(name, LIGHT[name], flatten=flatten)
    assert one.verdict == PASSED, one.detail


def test_a_refusal_names_every_operator() -> None:
    refused = next(path for name, path in SMALL.items() if "strnorm" in name)
    assert "StringNormalizer" in outcome("strings", refused).detail
