"""What a network has that no network of a training set had: a prediction for it is worth little."""

from __future__ import annotations

from collections.abc import Iterable

from ngc.backends.graphs import Structure
from ngc.backends.schema import SCALARS
from ngc.models.facts import Facts, activations_of, kernels_of, kinds_of, scalars_of, widest_of


def unseen_in(
    facts: Facts, structure: Structure, input_shapes: tuple[tuple[int, ...], ...] = ()
) -> tuple[str, ...]:
    """In words: activation functions, scalars, kernel sizes and kinds of edges that those behind
    the facts had not, and more layers, wider layers or other inputs than they had. Models that do
    not read them cannot notice. ``input_shapes``: of the network."""
    one = [structure]
    activations = sorted({*activations_of(one)} - {*facts.activations})
    columns = sorted({*scalars_of(one)} - {*facts.scalars})
    found = [f"activation {name}" for name in activations]
    found += [f"{SCALARS[column]} of a node" for column in columns]
    if facts.edge_kinds:  # files from before have none of what follows
        found += [f"{kind} edges" for kind in sorted({*kinds_of(one)} - {*facts.edge_kinds})]
        kernels = sorted({*kernels_of(one)} - {*facts.kernels})
        flat = (kernel[1:] if kernel[0] == 1 else kernel for kernel in kernels)
        found += [f"kernel {'x'.join(str(n) for n in kernel)}" for kernel in flat]
        found += _larger("layers", int(structure.features["layer"].max()) + 1, facts.num_layers)
        found += _larger("neurons in a layer", widest_of(one), facts.widest)
        if input_shapes and facts.input_shapes and input_shapes != facts.input_shapes:
            given, known = (_shapes(shapes) for shapes in (input_shapes, facts.input_shapes))
            found.append(f"inputs {given} (known: {known})")
    return tuple(found)


def _larger(what: str, given: int, known: int) -> Iterable[str]:
    if given > known:
        yield f"{given} {what} (known: up to {known})"


def _shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return ", ".join("x".join(str(n) for n in shape) for shape in shapes)
