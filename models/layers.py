"""Networks that are one chain of dense or convolutional layers, as the stacks of weights that
baselines of a fixed architecture read and write.

The positions of a convolution's kernel are channels of an entry [out, in]. Global pools between
layers and activation functions have no parameters, so they may be any.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import Edits, GraphBatch, Part
from ngc.errors import OptionError
from ngc.models.facts import Facts, chain_of
from ngc.models.limits import Fault, refusal

BIAS = 0  # column of the node scalars


@dataclass(frozen=True, eq=False)
class Layers:
    """A number for every weight and bias: ``weights`` [graphs, out, in, taps] and ``biases``
    [graphs, out] of each layer. Taps are the entries of its kernel, one where it is linear."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def flat(self) -> Tensor:
        """[graphs, entries]: all weights, layer by layer, then all biases."""
        return torch.cat([rows.flatten(1) for rows in (*self.weights, *self.biases)], dim=1)


@dataclass(frozen=True)
class Chain:
    """The architecture: (out, in) of each layer, and which columns of the padded kernel it fills;
    by default the one of linear layers."""

    sizes: tuple[tuple[int, int], ...]
    columns: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            object.__setattr__(self, "columns", ((0,),) * len(self.sizes))

    @classmethod
    def of(cls, facts: Facts, model: str) -> Chain:
        """That of the training graphs, for a model of this name."""
        if not facts.chain:
            raise OptionError(
                f"{model} reads networks of one architecture, a chain of layers with no skips, "
                "norms or parallel branches; the training graphs are none",
                hint="ng_gnn and ng_t read any graph, stat_nn any mixture",
            )
        columns = facts.chain_columns or (tuple(range(facts.width)),) * len(facts.chain)
        return cls(facts.chain, columns)

    @property
    def taps(self) -> tuple[int, ...]:
        """Entries of the kernels of each layer."""
        return tuple(len(columns) for columns in self.columns)

    @property
    def width(self) -> int:
        """Columns of a kernel, up to the last that is filled."""
        return max(max(columns) for columns in self.columns) + 1

    @property
    def num_entries(self) -> int:
        """Weights and biases of all layers."""
        return sum(out * into * taps + out for (out, into), taps in zip(self.sizes, self.taps))

    def faults(self, part: Part) -> Iterator[Fault]:
        found = part.structure.keep("chain", lambda: chain_of(part.structure))
        if found != (self.sizes, self.columns):
            theirs, ours = _shown(*found), _shown(self.sizes, self.columns)
            yield Fault(f"layers {theirs}", f"it reads {ours}", "ng_gnn or ng_t")

    def read(self, batch: GraphBatch) -> Layers:
        """Weights and biases of a batch, in the order of its parts."""
        found = [self._read(part) for part in self._parts(batch)]
        if len(found) == 1:
            return found[0]
        weights, biases = zip(*((layers.weights, layers.biases) for layers in found))
        return Layers(tuple(map(torch.cat, zip(*weights))), tuple(map(torch.cat, zip(*biases))))

    def _read(self, part: Part) -> Layers:
        blocks, bias = part.structure.blocks, part.x[..., BIAS, None]
        values = (part.values(block).squeeze(1) for block in blocks)
        return Layers(
            tuple(v if len(c) == v.shape[-1] else v[..., c] for v, c in zip(values, self.columns)),
            tuple(block.dst.read(bias)[:, 0, :, 0] for block in blocks),
        )

    def unflatten(self, entries: Tensor) -> Layers:
        """The inverse of ``Layers.flat``."""
        weights = [out * into * taps for (out, into), taps in zip(self.sizes, self.taps)]
        pieces = entries.split([*weights, *(out for out, _ in self.sizes)], dim=1)
        shaped = [w.unflatten(1, (*s, n)) for w, s, n in zip(pieces, self.sizes, self.taps)]
        return Layers(tuple(shaped), pieces[len(self.sizes) :])

    def edits(self, batch: GraphBatch, changes: Layers) -> Edits:
        """Changes of every weight and bias as those of the graphs; none where an entry is a
        constant."""
        parts = self._parts(batch)
        rows = [of.split([len(part) for part in parts])
                for of in (*changes.weights, *changes.biases)]  # fmt: skip
        edits = [self._edits(part, of_part) for part, of_part in zip(parts, zip(*rows))]
        nodes, edges = zip(*edits)
        return Edits(nodes, edges)

    def _edits(self, part: Part, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        structure = part.structure
        weights, biases = rows[: len(self.sizes)], rows[len(self.sizes) :]
        wide = [_widened(w, c, structure.width) for w, c in zip(weights, self.columns)]
        kernels = torch.cat([w.flatten(1, 2) for w in wide], dim=1)
        targets = torch.cat([block.dst.nodes[0] for block in structure.blocks])
        bias = kernels.new_zeros(part.x.shape[:2]).index_copy(1, targets, torch.cat([*biases], 1))
        scalars = F.pad(bias[..., None], (BIAS, part.x.shape[-1] - BIAS - 1))
        return scalars * structure.scalar_mask, kernels * structure.weight_mask

    def _parts(self, batch: GraphBatch) -> tuple[Part, ...]:
        """Which differ in their activation functions at most."""
        if faults := [fault for part in batch.parts for fault in self.faults(part)]:
            raise refusal(faults)
        return batch.parts


def _widened(weights: Tensor, columns: tuple[int, ...], width: int) -> Tensor:
    """Entries [..., taps] at their columns of a kernel [..., width]."""
    if len(columns) == width:
        return weights
    index = torch.tensor(columns, device=weights.device)
    return weights.new_zeros(*weights.shape[:-1], width).index_copy(-1, index, weights)


def _shown(sizes: Sequence[tuple[int, int]], columns: Sequence[tuple[int, ...]]) -> str:
    """2-32-32-1, kernels of 1, 1, 1."""
    if not sizes:
        return "(no chain of layers)"
    listed = "-".join(str(size) for size in (sizes[0][1], *(out for out, _ in sizes)))
    return f"{listed}, kernels of {', '.join(str(len(of_layer)) for of_layer in columns)}"


class EditScale(nn.Module):
    """Scales predicted changes by learned factors, one a layer for weights and one for biases, so
    that an untrained model leaves networks nearly as they are."""

    INITIAL = 0.01

    def __init__(self, chain: Chain) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.full((len(chain.sizes),), self.INITIAL))
        self.biases = nn.Parameter(torch.full((len(chain.sizes),), self.INITIAL))

    def forward(self, changes: Layers) -> Layers:
        return Layers(
            tuple(w * scale for w, scale in zip(changes.weights, self.weights)),
            tuple(b * scale for b, scale in zip(changes.biases, self.biases)),
        )


def check_predicts(model: str, predicts: str, possible: Sequence[str] = ("graph", "edits")) -> None:
    """Refuse what a model of this name cannot predict."""
    if predicts not in possible:
        raise OptionError(
            f"{model} cannot predict {predicts!r}", hint=f"predicts: {' or '.join(possible)}"
        )
