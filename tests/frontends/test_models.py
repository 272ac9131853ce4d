"""Which frontend reads a model, and what is said where it cannot."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest

from ngc.errors import ModelError, NgcError
from ngc.frontends.models import load


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the package were not installed."""
    for name in list(sys.modules):
        if name == package or name.startswith(f"{package}."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("package", ["keras", "h5py"])
def test_files_of_keras_name_the_package_that_is_missing(
    name: str, package: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    (folder / name).write_bytes(b"")
    with pytest.raises(NgcError) as error:
        load(name)
    assert f"needs {package}" in str(error.value)
    assert error.value.hint == "pip install 'ngc[keras]'"


@pytest.mark.parametrize(
    ("line", "package", "hint"),
    [
        ("import keras", "keras", "pip install 'ngc[keras]'"),
        ("from sklearn.neural_network import MLPClassifier", "sklearn",
         "pip install 'ngc[sklearn]'"),
        ("from transformers import BertModel", "transformers", "pip install transformers"),
        ("import no_such_package.part", "no_such_package",
         "install the package that has no_such_package"),
    ],
)  # fmt: skip
def test_code_names_the_package_that_it_needs(
    line: str, package: str, hint: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if package != "no_such_package":
        without(package, monkeypatch)
    name = f"code_with_{package}"
    (folder / f"{name}.py").write_text(f"def make():\n    {line}\n")
    with pytest.raises(ModelError) as error:
        load(f"{name}:make")
    assert f"its code needs {package}, which is not installed" in str(error.value)
    assert error.value.hint == hint


def test_a_class_of_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without("sklearn", monkeypatch)
    with pytest.raises(ModelError, match=r"needs sklearn.*\n.*pip install 'ngc\[sklearn\]'"):
        load("sklearn.neural_network:MLPClassifier")


def test_a_part_that_a_package_lacks_is_named(folder: Path) -> None:
    (folder / "code_with_a_mistake.py").write_text("import torch.no_such_part\n")
    with pytest.raises(ModelError, match=r"its code imports torch.no_such_part, which is not"):
        load("code_with_a_mistake:make")


@pytest.mark.parametrize("suffix", [".pkl", ".pickle", ".joblib"])
def test_pickles_are_not_opened(suffix: str, folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("ran",)

    path = folder / f"model{suffix}"
    path.write_bytes(pickle.dumps(Evil()))
    for model in (path, str(path)):
        with pytest.raises(ModelError, match=r"a pickled model is code.*\n.*package.module:load"):
            load(model)
    assert not (folder / "ran").exists()
