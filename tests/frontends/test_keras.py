"""Keras models: weights by their paths, there and back; files run no code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import ngc
from ngc.errors import LiftError, ModelError, NgcError

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras  # isort: skip

L = keras.layers


def convolutional() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            L.Conv2D(4, 3, padding="same", name="conv"),
            L.BatchNormalization(name="norm"),
            L.ReLU(),
            L.MaxPooling2D(),
            L.Flatten(),
            L.Dense(5, name="head"),
        ]
    )


def attention() -> Any:
    x = keras.Input((6, 8))
    y = L.MultiHeadAttention(2, 4)(x, x)
    return keras.Model(x, L.LayerNormalization()(x + y))


def mixed() -> Any:
    """Separable and transposed convolutions, group normalisation, two outputs."""
    x = keras.Input((9, 9, 3))
    y = L.GroupNormalization(2)(L.SeparableConv2D(6, 3, strides=2)(x))
    y = L.Conv2DTranspose(4, 3, strides=2)(y)
    return keras.Model(x, [y, L.Flatten()(y)])


def tokens() -> Any:
    x = keras.Input((6,), dtype="int32")
    y = L.GlobalAveragePooling1D()(L.Embedding(11, 4)(x))
    return keras.Model(x, L.Dense(3, activation="softmax")(y))


def two_inputs() -> Any:
    a, b = keras.Input((3,)), keras.Input((2,))
    return keras.Model([a, b], L.Dense(2)(L.Concatenate()([L.Dense(4)(a), b])))


def recurrent() -> Any:
    return keras.Sequential(
        [keras.Input((4, 3)), L.LSTM(3, return_sequences=True), L.GRU(2), L.Dense(1)]
    )


BUILDERS = [convolutional, attention, mixed, tokens, two_inputs, recurrent]


def perturbed(model: Any) -> Any:
    """Away from ones and zeros, which hide what is lost."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.weights:
            if weight.value.is_floating_point():
                weight.value.add_(0.2 * torch.rand(weight.shape, generator=generator))
    return model


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_models_are_proven_and_come_back(build: Any) -> None:
    model = perturbed(build())
    compiled = ngc.compile(model)
    verification = ngc.verify(compiled)
    assert verification.passed, verification.checks
    back = compiled.state_dict()
    assert set(back) == {weight.path for weight in model.weights}
    for weight in model.weights:
        assert torch.equal(back[weight.path], weight.value), weight.path


def test_weights_are_set_back() -> None:
    model = perturbed(convolutional())
    compiled = ngc.compile(model)
    changed = compiled.weights.clone()
    changed[2:] *= 1.5
    image = torch.rand(1, 8, 8, 3, generator=torch.Generator().manual_seed(0))
    found = ngc.Executor(compiled.program)(changed, {compiled.program.inputs[0].out.name: image})
    compiled.load_into(model, changed)
    torch.testing.assert_close(next(iter(found.values())), model(image), rtol=1e-4, atol=1e-5)


def test_batch_normalisation_keeps_its_four_tensors() -> None:
    names = {param.name.split("/", 1)[1] for param in ngc.compile(convolutional()).program.params}
    assert {f"norm/{n}" for n in ("gamma", "beta", "moving_mean", "moving_variance")} <= names


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_files_are_the_model(suffix: str, tmp_path: Path) -> None:
    model = perturbed(convolutional())
    path = tmp_path / f"model{suffix}"
    model.save(path)
    compiled = ngc.compile(path)
    assert torch.equal(compiled.weights, ngc.compile(model).weights)
    assert ngc.verify(compiled).passed


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_no_code_in_a_file_runs(suffix: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    leaves = L.Lambda(lambda x, path=str(marker): (__import__("os").mkdir(path), x)[1])
    model = keras.Sequential([keras.Input((2,)), leaves])
    path = tmp_path / f"model{suffix}"
    model.save(path)
    marker.rmdir()  # building the model ran it
    with pytest.raises(ModelError, match=rf"model{suffix}: not a Keras model that can be read"):
        ngc.compile(path)
    assert not marker.exists()


def test_faulty_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with pytest.raises(ModelError, match="there is no such file"):
        ngc.compile(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"model.keras: not a Keras model"):
        ngc.compile(path)


def test_sizes_that_a_model_leaves_open_are_chosen_or_given() -> None:
    x = keras.Input((None, None, 3))
    model = keras.Model(x, L.GlobalAveragePooling2D()(L.Conv2D(4, 3)(x)))
    chosen = ngc.compile(model)
    assert chosen.program.inputs[0].out.shape == (1, 32, 32, 3)
    given = ngc.compile(model, torch.zeros(2, 7, 9, 3))
    assert given.program.inputs[0].out.shape == (2, 7, 9, 3)


def test_another_backend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = convolutional()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(NgcError, match=r"Keras runs on jax here.*\n.*KERAS_BACKEND=torch"):
        ngc.compile(model)


def test_inputs_by_name_need_no_order() -> None:
    inputs = {"b": keras.Input((4,), name="b"), "a": keras.Input((3,), name="a")}
    joined = L.Add()([L.Dense(2)(inputs["a"]), L.Dense(2)(inputs["b"])])
    model = keras.Model(inputs, joined)
    assert ngc.verify(ngc.compile(model)).passed
    given = {"b": torch.rand(1, 4), "a": torch.rand(1, 3)}
    assert ngc.verify(ngc.compile(model, given)).passed


def test_a_model_that_is_not_built_says_what_to_do() -> None:
    model = keras.Sequential([L.Dense(3)])
    x = torch.rand(1, 4)
    for inputs in (None, x):
        with pytest.raises(ModelError, match=r"(not been built|what inputs it has)"):
            ngc.compile(model, inputs)
    model(x)
    assert ngc.verify(ngc.compile(model, x)).passed


def test_weights_of_one_path_are_told_apart(tmp_path: Path) -> None:
    """Keras drops the names of nested models when it loads a file."""
    coder = keras.Sequential([keras.Input((4,)), L.Dense(5, name="dense")], name="enc")
    decoder = keras.Sequential([keras.Input((5,)), L.Dense(4, name="dense")], name="dec")
    x = keras.Input((4,))
    model = perturbed(keras.Model(x, decoder(coder(x))))
    path = tmp_path / "nested.keras"
    model.save(path)
    compiled = ngc.compile(path)
    assert ngc.verify(compiled).passed
    assert sorted(compiled.weights.tolist()) == sorted(ngc.compile(model).weights.tolist())
    with pytest.raises(LiftError, match="weights have other paths"):
        compiled.load_into(convolutional())


class Both(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = keras.layers.Dense(3), keras.layers.Dense(3)

    def call(self, x: Any, y: Any, training: bool | None = None) -> Any:
        return self.a(x) * self.b(y)


def test_a_subclass_takes_the_arguments_of_its_call() -> None:
    model, x, y = Both(), torch.randn(1, 4), torch.randn(1, 5)
    model(x, y)
    assert ngc.verify(ngc.compile(model, (x, y))).passed
    assert ngc.verify(ngc.compile(model, {"y": y, "x": x})).passed


def test_inputs_of_a_list_have_names_too() -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((5,), name="b")
    model = keras.Model([a, b], keras.layers.Dense(2)(keras.layers.Concatenate()([a, b])))
    given = {"b": torch.randn(1, 5), "a": torch.randn(1, 4)}
    assert ngc.verify(ngc.compile(model, given)).passed
    with pytest.raises(ModelError, match="its inputs are a, b"):
        ngc.compile(model, {"b": torch.randn(1, 5), "c": torch.randn(1, 4)})


def test_a_layer_is_no_model() -> None:
    layer = keras.layers.Dense(3)
    layer(torch.randn(1, 4))
    with pytest.raises(ModelError, match="a Keras layer, not a model"):
        ngc.compile(layer, torch.randn(1, 4))
