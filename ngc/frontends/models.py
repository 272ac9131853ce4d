"""A model in any form that ngc reads -> Source: which frontend it is for.

Frameworks are imported only for models of theirs.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ngc.budget import DEFAULT, Budget
from ngc.errors import LiftError, ModelError, NgcError, OptionError
from ngc.frontends import onnx
from ngc.frontends.extras import INSTALLS, install, is_missing
from ngc.ir.source import Exported, Source

# ``package.module:name``, and no path
IN_CODE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_][\w.]*")

TORCH = ("torch.nn.modules.module.Module", "torch.export.exported_program.ExportedProgram")

SKLEARN = "sklearn.base.BaseEstimator"
KERAS = "keras.src.models.model.Model"
KERAS_LAYER = "keras.src.layers.layer.Layer"
KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
PICKLED = (".pkl", ".pickle", ".joblib")


def load(model: Any, inputs: Any = None, *, budget: Budget = DEFAULT) -> Source:
    """Read and check a model.

    A path: ``.pt2`` is an exported program of PyTorch, ``.keras`` and ``.h5`` are Keras models,
    pickles are refused, others are ONNX. ``package.module:name`` is a model in code, or a function
    that makes it; that runs the code. In memory: ONNX (proto, bytes, onnx_ir), ``torch.nn.Module``
    with example ``inputs``, exported program, Keras model, fitted scikit-learn network or pipeline.
    """
    where = str(model) if isinstance(model, str | Path) else type(model).__name__
    if isinstance(model, str) and IN_CODE.fullmatch(model):
        model = from_code(model)
    if isinstance(model, str | Path) and Path(model).suffix in PICKLED:
        raise ModelError(
            "a pickled model is code, which ngc does not open",
            where=where,
            hint="package.module:load, a function that loads and returns it (this runs its code)",
        )
    if isinstance(model, str | Path) and Path(model).suffix == ".pt2":
        from ngc.frontends.torch import read_program

        model = read_program(Path(model))
    if isinstance(model, str | Path) and Path(model).suffix in KERAS_SUFFIXES:
        from ngc.frontends.keras import read

        model = read(Path(model))
    if _is_a(model, KERAS):  # on the torch backend it is a module of torch, too
        from ngc.frontends import keras

        return _source(keras.export(model, inputs, where), where, budget)
    if _is_a(model, KERAS_LAYER):
        raise ModelError(
            "it is a Keras layer, not a model",
            where=where,
            hint="keras.Sequential([keras.Input((32, 32, 3)), layer])",
        )
    if _is_a(model, *TORCH):
        from ngc.frontends.torch import export

        return _source(export(model, inputs, where), where, budget)
    if inputs is not None:
        raise OptionError(
            "example inputs are for PyTorch modules and Keras models",
            where=where,
            hint="shapes={'x': (1, 3, 32, 32)}, or --shape x=1x3x32x32, sets the sizes of others",
        )
    if _is_a(model, SKLEARN):
        from ngc.frontends import sklearn

        return _source(sklearn.export(model, where), where, budget)
    return onnx.load(model, budget=budget)


def _source(exported: Exported, where: str, budget: Budget) -> Source:
    """What a frontend wrote, checked like a file of a stranger."""
    source = onnx.load(exported.proto, budget=budget)
    notes = (*source.notes, *exported.notes)
    return replace(source, name=where, origin=exported.origin, sample=exported.sample, notes=notes)


def write_back(framework: str, model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Set the tensors of a model of a framework, by its own names for them."""
    match framework:
        case "torch":
            try:
                if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
                    raise LiftError(
                        "the module is on the meta device, where no weights are",
                        hint="model.to_empty(device='cpu') first",
                    )
                model.load_state_dict(tensors, strict=True)
            except (RuntimeError, AttributeError) as error:
                raise LiftError(f"another model: {str(error).strip()[:300]}") from error
        case "keras":
            from ngc.frontends.keras import write_back as set_weights

            set_weights(model, tensors)
        case "sklearn":
            from ngc.frontends.sklearn import write_back as set_attributes

            set_attributes(model, {name: tensor.numpy() for name, tensor in tensors.items()})


def from_code(name: str) -> Any:
    """The object ``package.module:name``; what it returns, if it is a function or a class."""
    package, _, attribute = name.partition(":")
    with _folder_on_path():
        try:
            found: Any = importlib.import_module(package)
            for part in attribute.split("."):
                found = getattr(found, part)
            if (callable(found) and not hasattr(found, "forward")) or isinstance(found, type):
                found = found()
        except NgcError:
            raise
        except ModuleNotFoundError as error:
            raise _absent(error, name) from error
        except (Exception, SystemExit) as error:  # the user's own code
            line = (str(error).splitlines() or [""])[0][:200]
            raise ModelError(
                f"its code raised {type(error).__name__}: {line}",
                where=name,
                hint="package.module:factory, importable from here, that needs no arguments",
            ) from error
    if found is None:
        raise ModelError("it is None", where=name, hint="a function that returns the model")
    return found


def _absent(error: ModuleNotFoundError, name: str) -> ModelError:
    """A module that is not there: the one that is named, or one that its code imports."""
    wanted, own = error.name or str(error), name.partition(":")[0]
    package = wanted.partition(".")[0]
    if f"{own}.".startswith(f"{wanted}.") and package not in INSTALLS:
        return ModelError(
            f"there is no module {wanted}",
            where=name,
            hint="package.module:factory, importable from the working folder",
        )
    if error.name and is_missing(package):
        return ModelError(
            f"its code needs {package}, which is not installed", where=name, hint=install(package)
        )
    return ModelError(
        f"its code imports {wanted}, which is not there",
        where=name,
        hint="a version of that package that has it",
    )


@contextlib.contextmanager
def _folder_on_path() -> Iterator[None]:
    """The working folder can be imported from, as with ``python -m``."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _is_a(model: Any, *names: str) -> bool:
    """Whether an object is of one of these classes, by name: nothing is imported to find out."""
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__}
    return not kinds.isdisjoint(names)
