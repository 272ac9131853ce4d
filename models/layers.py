"""Networks that are one chain of dense layers, as the stacks of weights that baselines of a fixed
architecture read and write."""

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
    [graphs, out] of each layer. Taps are the entries of a kernel, one where layers are linear."""

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    def flat(self) -> Tensor:
        """[graphs, entries]: all weights, layer by layer, then all biases."""
        return torch.cat([rows.flatten(1) for rows in (*self.weights, *self.biases)], dim=1)


@dataclass(frozen=True)
class Chain:
    """The architecture: (out, in) of each layer, and the taps of its kernels."""

    sizes: tuple[tuple[int, int], ...]
    taps: int

    @classmethod
    def of(cls, facts: Facts, model: str) -> Chain:
        """That of the training graphs, for a model of this name."""
        if not facts.chain:
            raise OptionError(
                f"{model} reads networks of one architecture, a chain of dense layers with no "
                "skips or parallel branches; the training graphs are none",
                hint="ng_gnn and ng_t read any graph, stat_nn any mixture",
            )
        return cls(facts.chain, facts.width)

    @property
    def num_entries(self) -> int:
        """Weights and biases of all layers."""
        return sum(out * into * self.taps + out for out, into in self.sizes)

    def faults(self, part: Part) -> Iterator[Fault]:
        found = part.structure.keep("chain", lambda: chain_of(part.structure))
        if found != self.sizes or part.structure.width != self.taps:
            theirs, ours = (
                f"{_shown(sizes)}, kernels of {taps}"
                for sizes, taps in ((found, part.structure.width), (self.sizes, self.taps))
            )
            yield Fault(f"layers {theirs}", f"it reads {ours}", "ng_gnn or ng_t")

    def read(self, batch: GraphBatch) -> Layers:
        """Weights and biases of a batch, in the order of its part."""
        part = self._part(batch)
        blocks, bias = part.structure.blocks, part.x[..., BIAS]
        return Layers(
            tuple(part.values(block).squeeze(1) for block in blocks),
            tuple(block.dst.read(bias[..., None])[:, 0, :, 0] for block in blocks),
        )

    def unflatten(self, entries: Tensor) -> Layers:
        """The inverse of ``Layers.flat``."""
        weights = [out * into * self.taps for out, into in self.sizes]
        pieces = entries.split([*weights, *(out for out, _ in self.sizes)], dim=1)
        shaped = [w.unflatten(1, (*size, self.taps)) for w, size in zip(pieces, self.sizes)]
        return Layers(tuple(shaped), pieces[len(self.sizes) :])

    def edits(self, batch: GraphBatch, changes: Layers) -> Edits:
        """Changes of every weight and bias as those of the graphs; none where an entry is a
        constant."""
        part = self._part(batch)
        structure = part.structure
        kernels = torch.cat([w.flatten(1, 2) for w in changes.weights], dim=1)
        targets = torch.cat([block.dst.nodes[0] for block in structure.blocks])
        bias = kernels.new_zeros(part.x.shape[:2]).index_copy(
            1, targets, torch.cat(changes.biases, dim=1)
        )
        scalars = F.pad(bias[..., None], (BIAS, part.x.shape[-1] - BIAS - 1))
        return Edits((scalars * structure.scalar_mask,), (kernels * structure.weight_mask,))

    def _part(self, batch: GraphBatch) -> Part:
        if faults := [fault for part in batch.parts for fault in self.faults(part)]:
            raise refusal(faults)
        if len(batch.parts) > 1:
            raise OptionError("this model reads networks of one architecture at a time")
        return batch.parts[0]


def _shown(sizes: Sequence[tuple[int, int]]) -> str:
    """2-32-32-1."""
    if not sizes:
        return "(no chain of dense layers)"
    return "-".join(str(size) for size in (sizes[0][1], *(out for out, _ in sizes)))


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
