"""scikit-learn's networks: the same numbers, parameters by attribute, there and back."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)

import ngc
from ngc.errors import LiftError, ModelError, OptionError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((60, 6)) * 3 + 1
TARGETS = {
    "classes": RNG.integers(0, 3, 60), "two classes": RNG.integers(0, 2, 60),
    "number": RNG.standard_normal(60), "numbers": RNG.standard_normal((60, 2)),
}  # fmt: skip


def fitted(model: Any, target: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of training that has not converged
        return model.fit(X, TARGETS[target])


def outputs(compiled: ngc.Compilation, weights: torch.Tensor | None = None) -> np.ndarray:
    weights = compiled.weights if weights is None else weights
    run = torch.func.vmap(ngc.Executor(compiled.program), in_dims=(None, 0))
    (found,) = run(weights, {"x": torch.from_numpy(X)[:, None]}).values()
    return found[:, 0].numpy()


def answers(model: Any) -> np.ndarray:
    """As scikit-learn gives them; of two classes the second's probability."""
    if hasattr(model, "predict_proba"):
        found = model.predict_proba(X)
        return found[:, 1:] if found.shape[1] == 2 else found
    found = model.predict(X)
    return found.reshape(len(X), -1)


@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.parametrize("target", TARGETS)
def test_networks_answer_the_same(target: str, activation: str) -> None:
    kind = MLPClassifier if "class" in target else MLPRegressor
    model = fitted(
        kind(hidden_layer_sizes=(7, 5), activation=activation, max_iter=20, random_state=0), target
    )
    compiled = ngc.compile(model)
    np.testing.assert_allclose(outputs(compiled), answers(model), atol=1e-12)
    assert ngc.verify(compiled).passed
    assert set(compiled.state_dict()) == {
        f"{name}.{k}" for name in ("coefs_", "intercepts_") for k in range(3)
    }


@pytest.mark.parametrize(
    "steps",
    [
        [StandardScaler()],
        [StandardScaler(with_mean=False)],
        [StandardScaler(with_std=False)],
        [RobustScaler(), MaxAbsScaler()],
        [RobustScaler(with_centering=False, with_scaling=False)],
        [MinMaxScaler((-1, 2), clip=True)],
        [PCA(4)],
        [PCA(4, whiten=True)],
        ["passthrough"],
    ],
    ids=str,
)
def test_what_comes_before_a_network_is_part_of_it(steps: list[Any]) -> None:
    network = MLPRegressor(hidden_layer_sizes=(5,), max_iter=20, random_state=0)
    model = fitted(make_pipeline(*steps, network), "numbers")
    compiled = ngc.compile(model)
    np.testing.assert_allclose(outputs(compiled), answers(model), atol=1e-12)
    assert ngc.verify(compiled).passed


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (LinearRegression(), "numbers"),
        (LinearRegression(fit_intercept=False), "number"),
        (LogisticRegression(), "classes"),
        (LogisticRegression(), "two classes"),
    ],
)
def test_linear_models(model: Any, target: str) -> None:
    compiled = ngc.compile(fitted(model, target))
    np.testing.assert_allclose(outputs(compiled), answers(model), atol=1e-12)


def test_weights_are_set_back() -> None:
    network = MLPClassifier(hidden_layer_sizes=(5,), max_iter=20, random_state=0)
    model = fitted(make_pipeline(StandardScaler(), network), "classes")
    compiled = ngc.compile(model)
    for name, tensor in compiled.state_dict().items():
        assert tensor.dtype == torch.float64, name
    changed = compiled.weights.clone()
    changed[2:] *= 1.25
    compiled.load_into(model, changed)
    np.testing.assert_allclose(answers(model), outputs(compiled, changed), atol=1e-12)
    assert torch.equal(ngc.compile(model).weights, changed)


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"MLPRegressor: it has not been fitted"):
        ngc.compile(MLPRegressor())
    with pytest.raises(OptionError, match=r"polynomialfeatures is a PolynomialFeatures, which"):
        ngc.compile(fitted(make_pipeline(PolynomialFeatures(), LinearRegression()), "number"))


def test_another_estimator_is_left_as_it_is() -> None:
    small, large = (
        fitted(MLPRegressor(hidden_layer_sizes=sizes, max_iter=5), "numbers")
        for sizes in ((3,), (5, 5))
    )
    before = [array.copy() for array in large.coefs_]
    with pytest.raises(LiftError, match="another estimator"):
        ngc.compile(small).load_into(large)
    assert all(np.array_equal(a, b) for a, b in zip(before, large.coefs_))
    with pytest.raises(ModelError, match="has not been fitted"):
        ngc.compile(small).load_into(MLPRegressor())


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (LinearRegression(fit_intercept=False), "numbers"),
        (LogisticRegression(), "two classes"),
        (Pipeline([("a.b", StandardScaler()), ("c", LinearRegression())]), "numbers"),
    ],
    ids=str,
)
def test_every_kind_is_set_back(model: Any, target: str) -> None:
    compiled = ngc.compile(fitted(model, target))
    before = answers(model)
    compiled.load_into(model)
    np.testing.assert_array_equal(answers(model), before)


def test_redundant_features_are_whitened_as_scikit_learn_does() -> None:
    double = np.c_[X, X[:, 0]]
    model = make_pipeline(PCA(whiten=True), LinearRegression()).fit(double, TARGETS["number"])
    assert ngc.verify(ngc.compile(model)).passed


def test_rarer_forms() -> None:
    positive = np.abs(TARGETS["number"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        poisson = MLPRegressor(loss="poisson", max_iter=5).fit(X, positive)
    assert ngc.verify(ngc.compile(poisson)).passed
    sparse = fitted(LogisticRegression(), "classes").sparsify()
    assert ngc.verify(ngc.compile(sparse)).passed


def test_two_labels_have_two_answers() -> None:
    x = np.random.default_rng(0).standard_normal((40, 3))
    labels = np.stack([x[:, 0] > 0, x[:, 1] > 0], axis=1).astype(int)
    model = MLPClassifier((5,), max_iter=20).fit(x, labels)
    assert ngc.verify(ngc.compile(model)).passed


def test_a_search_is_the_estimator_that_it_found() -> None:
    search = GridSearchCV(MLPClassifier(max_iter=20), {"hidden_layer_sizes": [(3,), (5,)]}, cv=2)
    search = fitted(search, "classes")
    compiled = ngc.compile(search)
    assert ngc.verify(compiled).passed
    compiled.load_into(search)
