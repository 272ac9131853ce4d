"""Learned models by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from torch import nn

from ngc.errors import OptionError
from ngc.models.facts import Facts

MODELS: dict[str, type[nn.Module]] = {}
M = TypeVar("M", bound=type[nn.Module])

WEIGHTS = "weights only"  # what a model sees, in words

# A vector for each graph, each node or each edge, or changes of all weights (``Edits``).
PREDICTS = ("graph", "nodes", "edges", "edits")


def model(name: str) -> Callable[[M], M]:
    """Register a model: ``Model(facts, *, predicts, outputs, **settings)``.

    ``predicts`` is one of PREDICTS, as far as the model can, and ``outputs`` the width of a vector;
    settings are keyword arguments with annotations and defaults, so that recipes can check them.
    ``forward(batch: GraphBatch)`` returns [graphs, outputs] in the order of the batch; for nodes
    and edges a tuple, [graphs, n, outputs] for each part, in the order of the part and of its plan,
    reversed twins of edges left out; or ``Edits``. ``sees(settings)``, a static method, says what a
    model may see; without one it reads weights only.
    """

    def register(cls: M) -> M:
        assert name not in MODELS, name
        MODELS[name] = cls
        return cls

    return register


def regime(name: str, settings: Mapping[str, object]) -> str:
    """What a model with these settings may see: figures of different regimes are not compared."""
    sees: Callable[[Mapping[str, object]], str] | None = getattr(MODELS[name], "sees", None)
    return sees(settings) if sees is not None else WEIGHTS


def weights_and_probes(settings: Mapping[str, object]) -> str:
    """Of models that read weights, and answers to ``probes`` inputs."""
    return f"weights and {settings['probes']} probes" if settings["probes"] else WEIGHTS


def build(name: str, facts: Facts, **settings: object) -> nn.Module:
    """A new model, with its weights drawn from torch's generator. Settings are checked against the
    annotations of its constructor."""
    if name not in MODELS:
        raise OptionError(f"no model is called {name!r}", hint=f"one of {', '.join(MODELS)}")
    hints = get_type_hints(MODELS[name].__init__, include_extras=True)
    known = [key for key in hints if key not in ("facts", "return")]
    for key, value in settings.items():
        if key not in known:
            raise OptionError(f"{name} has no setting {key}", hint=f"one of {', '.join(known)}")
        try:
            TypeAdapter(hints[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise OptionError(f"{key} of {name} cannot be {value!r}: {reason}") from error
    return MODELS[name](facts, **settings)
