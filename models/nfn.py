"""NFN: permutation-equivariant neural functionals (Zhou et al. 2023), in their two kinds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import Edits, GraphBatch, Part
from ngc.models.equivariant import EditHead, GraphHead, WeightSpaceLinear
from ngc.models.facts import Facts
from ngc.models.layers import Chain, check_predicts
from ngc.models.limits import Fault
from ngc.models.registry import model
from ngc.models.settings import Count, Deviation, Share, Size
from ngc.models.topology import fourier
from ngc.models.weight_space import Features, WeightSpace


class FourierFeatures(nn.Module):
    """Fixed random Fourier features of x [..., width], [..., 2 * count]; or of some columns of it,
    as if the others were zero."""

    def __init__(self, width: int, count: int, sigma: float) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.randn(width, count) * sigma)
        self.frequencies: Tensor

    def forward(self, x: Tensor, columns: tuple[int, ...] | None = None) -> Tensor:
        return fourier(x, self.frequencies if columns is None else self.frequencies[list(columns)])


class PlaceBands(nn.Module):
    """Joins to the features of weights [graphs, out, in, f] and biases [graphs, out, f] where an
    entry of the first layer reads an input, and an entry of the last one belongs to an output;
    zeros elsewhere. This tells inputs and outputs apart where the layers treat them alike (IO
    encoding, Zhou et al. 2023).
    """

    def __init__(self, chain: Chain, bands: int) -> None:
        super().__init__()
        self.num_layers = len(chain.sizes)
        for k, (out, into) in enumerate(chain.sizes):
            known_in, known_out = k == 0, k == self.num_layers - 1
            of_in = place_bands(into, bands) * known_in
            of_out = place_bands(out, bands) * known_out
            of_both = [of_out[:, None].expand(-1, into, -1), of_in.expand(out, -1, -1)]
            self.register_buffer(f"weight_{k}", torch.cat(of_both, dim=-1), persistent=False)
            self.register_buffer(f"bias_{k}", of_out, persistent=False)

    def forward(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        return (
            [self._joined(x, f"weight_{k}") for k, x in enumerate(weights)],
            [self._joined(x, f"bias_{k}") for k, x in enumerate(biases)],
        )

    def _joined(self, x: Tensor, name: str) -> Tensor:
        bands = getattr(self, name)
        return torch.cat([x, bands.expand(len(x), *bands.shape)], dim=-1)


def place_bands(count: int, bands: int) -> Tensor:
    """[count, 2 * bands]: sines and cosines of 1, ..., bands half turns from the first place to the
    last."""
    places = torch.linspace(-1, 1, count) if count > 1 else torch.zeros(1)
    angles = places[:, None] * torch.arange(1, bands + 1) * (math.pi / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Functional(nn.Module):
    """Entries encoded -> equivariant layers, each followed by ReLU and dropout -> head."""

    def __init__(
        self,
        space: WeightSpace,
        *,
        predicts: str,
        outputs: int,
        width: int,
        layers: int,
        head: int,
        dropout: float,
        frequencies: int,
        sigma: float,
        bands: int,
    ) -> None:
        super().__init__()
        self.space, taps = space, space.chain.taps
        self.weight: FourierFeatures | None = None
        self.bias: FourierFeatures | None = None
        of_bias = 1
        if frequencies:
            self.weight = FourierFeatures(space.chain.width, frequencies, sigma)
            self.bias = FourierFeatures(1, frequencies, sigma)
            taps, of_bias = (2 * frequencies,) * len(taps), 2 * frequencies
        self.places = PlaceBands(space.chain, bands) if bands else None
        entry = Features(tuple(n + 4 * bands for n in taps), of_bias + 2 * bands)
        hidden = Features(width, width)
        self.layers = nn.ModuleList(
            WeightSpaceLinear(space, hidden if k else entry, hidden, "mean") for k in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Module
        if predicts == "graph":
            self.head = GraphHead(
                space, hidden, head, head, outputs=outputs, pool="mean", dropout=dropout
            )
        else:
            self.head = EditHead(space, hidden, "mean")

    def faults(self, part: Part) -> Iterator[Fault]:
        return self.space.chain.faults(part)

    def forward(self, batch: GraphBatch) -> Tensor | Edits:
        chain = self.space.chain
        read = chain.read(batch)
        weights, biases = list(read.weights), [b[..., None] for b in read.biases]
        if self.weight is not None and self.bias is not None:
            weights = [self.weight(w, columns) for w, columns in zip(weights, chain.columns)]
            biases = [self.bias(b) for b in biases]
        if self.places is not None:
            weights, biases = self.places(weights, biases)
        members = self.space.fold(weights, biases)
        for layer in self.layers:
            members = [self.dropout(F.relu(x)) for x in layer(members)]
        found = self.head(members)
        return batch.restored([found]) if isinstance(found, Tensor) else chain.edits(batch, found)


@model("nfn_np")
class NfnNp(nn.Module):
    """NFN whose layers treat all neurons as permutable (NP); inputs and outputs are told apart by
    position features.

    width: channels of an entry. layers: equivariant layers before the head. head: width of the two
    hidden layers of the MLP on the pooled members. dropout: after each layer. frequencies: random
    Fourier features of the entries, of deviation sigma; 0 reads the numbers. bands: of the position
    features; 0 leaves them out, and inputs are then as alike as hidden neurons.

    sigma suits entries standardised by layer; the published 3 is for those of SIRENs as they are,
    whose deviations are 0.1 and less.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        width: Size = 48,
        layers: Size = 3,
        head: Size = 128,
        dropout: Share = 0.1,
        frequencies: Count = 32,
        sigma: Deviation = 0.3,
        bands: Count = 3,
    ) -> None:
        super().__init__()
        check_predicts("nfn_np", predicts)
        self.functional = Functional(
            WeightSpace.of_all(Chain.of(facts, "nfn_np")),
            predicts=predicts, outputs=outputs, width=width, layers=layers, head=head,
            dropout=dropout, frequencies=frequencies, sigma=sigma, bands=bands,
        )  # fmt: skip

    def forward(self, batch: GraphBatch) -> Tensor | Edits:
        return self.functional(batch)


@model("nfn_hnp")
class NfnHnp(nn.Module):
    """NFN whose layers permute hidden neurons only (HNP): every input and output has maps of its
    own, so no position features are needed.

    width, layers, head, dropout, frequencies, sigma: as of ``nfn_np``.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        width: Size = 44,
        layers: Size = 3,
        head: Size = 128,
        dropout: Share = 0.1,
        frequencies: Count = 32,
        sigma: Deviation = 0.3,
    ) -> None:
        super().__init__()
        check_predicts("nfn_hnp", predicts)
        self.functional = Functional(
            WeightSpace.of_hidden(Chain.of(facts, "nfn_hnp")),
            predicts=predicts, outputs=outputs, width=width, layers=layers, head=head,
            dropout=dropout, frequencies=frequencies, sigma=sigma, bands=0,
        )  # fmt: skip

    def forward(self, batch: GraphBatch) -> Tensor | Edits:
        return self.functional(batch)
