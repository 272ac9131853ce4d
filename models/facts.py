"""What a model must know, before it is built, of the graphs that it will read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from ngc.backends.graphs import ROLE_OUTPUT, Structure
from ngc.backends.schema import BY_NAME
from ngc.errors import OptionError

ROLE_INPUT = BY_NAME["node_role"].categories.index("input")
ROLE_HIDDEN = BY_NAME["node_role"].categories.index("hidden")


@dataclass(frozen=True)
class Facts:
    """Sizes taken from the training graphs. Plain numbers, so they are stored beside the weights.

    ``width``: columns of a kernel, with ``linear_column`` the last one for linear layers alone;
    ``reverse``: the option the graphs were compiled with;
    ``num_inputs``, ``num_outputs``: most input and output neurons; ``num_hidden``: most layers of
    hidden neurons; ``num_layers``: most layers of nodes (longest path from an input, plus one);
    ``scalars``: columns of the node scalars that hold parameters (0, the bias, at least);
    ``activations``: names of the activation functions in the graphs;
    ``mean_log_degree``: mean of log(degree + 1) over nodes, which PNA scales by;
    ``input_shapes``: of the networks themselves, for probes (empty where they differ);
    ``chain``: (out, in) of each layer, where all graphs are one and the same chain of dense or
    convolutional layers, else empty; ``chain_columns``: those of the kernel that each layer fills;
    ``edge_kinds``, ``kernels`` (sizes), ``widest`` (most neurons in a layer): what else is known to
    occur, see ``unseen.py``;
    ``columns``: names of what batches tell of each network beside its graph.
    """

    width: int
    reverse: str
    num_inputs: int
    num_hidden: int
    num_outputs: int
    num_layers: int
    mean_log_degree: float
    scalars: tuple[int, ...] = (0,)
    activations: tuple[str, ...] = ()
    linear_column: bool = False
    input_shapes: tuple[tuple[int, ...], ...] = ()
    chain: tuple[tuple[int, int], ...] = ()
    chain_columns: tuple[tuple[int, ...], ...] = ()
    edge_kinds: tuple[str, ...] = ()
    kernels: tuple[tuple[int, ...], ...] = ()
    widest: int = 0
    columns: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        structures: Iterable[tuple[Structure, int]],
        input_shapes: tuple[tuple[int, ...], ...] = (),
    ) -> Facts:
        """The facts of a training set: its architectures, each with its number of networks."""
        found = list(structures)
        if not found:
            raise OptionError("there are no graphs to train on")
        kinds = {(s.width, s.linear_column, s.reverse) for s, _ in found}
        if len(kinds) > 1:
            raise OptionError(
                f"graphs with kernels of different widths or reversals in one set: {sorted(kinds)}",
                hint="compile all with one kernel size, linear_as and reverse",
            )
        width, linear_column, reverse = kinds.pop()
        nodes = sum(s.num_nodes * count for s, count in found)
        chain, chain_columns = _common_chain(s for s, _ in found)
        logs = sum(float((s.degree + 1.0).log().sum()) * count for s, count in found)
        return cls(
            width=width,
            reverse=reverse,
            num_inputs=max(_ranks(s, ROLE_INPUT) for s, _ in found),
            num_hidden=max(_ranks(s, ROLE_HIDDEN) for s, _ in found),
            num_outputs=max(_ranks(s, ROLE_OUTPUT) for s, _ in found),
            num_layers=max(int(s.features["layer"].max()) + 1 for s, _ in found),
            mean_log_degree=logs / nodes,
            scalars=scalars_of(s for s, _ in found),
            activations=activations_of(s for s, _ in found),
            linear_column=linear_column,
            input_shapes=input_shapes,
            chain=chain,
            chain_columns=chain_columns,
            edge_kinds=kinds_of(s for s, _ in found),
            kernels=kernels_of(s for s, _ in found),
            widest=widest_of(s for s, _ in found),
        )


def scalars_of(structures: Iterable[Structure]) -> tuple[int, ...]:
    used = torch.stack([s.scalar_mask.any(0) for s in structures]).any(0)
    return tuple(sorted({0, *used.nonzero().flatten().tolist()}))


def activations_of(structures: Iterable[Structure]) -> tuple[str, ...]:
    found = torch.cat([s.features["activation"] for s in structures]).unique()
    return tuple(BY_NAME["activation"].categories[k] for k in found.tolist())


def kinds_of(structures: Iterable[Structure]) -> tuple[str, ...]:
    """Kinds of edges, by name."""
    found = torch.cat([s.features["edge_kind"].unique() for s in structures]).unique()
    return tuple(BY_NAME["edge_kind"].categories[k] for k in found.tolist())


def kernels_of(structures: Iterable[Structure]) -> tuple[tuple[int, ...], ...]:
    """Sizes of kernels (depth, height, width), before they are padded."""
    sizes = torch.cat([s.features["kernel_size"].unique(dim=0) for s in structures])
    return tuple(tuple(size) for size in sizes.unique(dim=0).tolist())


def widest_of(structures: Iterable[Structure]) -> int:
    """Most neurons in one layer."""
    return max(int(torch.bincount(s.features["layer"]).max()) for s in structures)


def _ranks(structure: Structure, role: int) -> int:
    """How many different ranks the nodes of a role have."""
    ranks = structure.rank[structure.features["node_role"] == role]
    return int(ranks.max()) + 1 if len(ranks) else 0


Chained = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, ...], ...]]


def _common_chain(structures: Iterable[Structure]) -> Chained:
    """That of all graphs, if it is one; activation functions may differ."""
    found = {chain_of(structure) for structure in structures}
    return found.pop() if len(found) == 1 else ((), ())


def chain_of(structure: Structure) -> Chained:
    """(out, in) of each block and the columns it fills, where each block is dense and reads what
    the one before wrote; else nothing."""
    sizes: list[tuple[int, int]] = []
    last = torch.nonzero(structure.features["node_role"] == ROLE_INPUT).flatten()
    for block in structure.blocks:
        groups, out, into = block.grid
        if groups != 1 or not torch.equal(block.src.nodes[0], last):
            return (), ()
        sizes.append((out, into))
        last = block.dst.nodes[0]
    return tuple(sizes), tuple(block.columns for block in structure.blocks)
