"""DWSNet: equivariant layers for deep weight spaces (Navon et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional as F

from ngc.backends.graphs import Edits, GraphBatch, Part
from ngc.models.equivariant import EditHead, GraphHead, WeightSpaceLinear
from ngc.models.facts import Facts
from ngc.models.layers import Chain, check_predicts
from ngc.models.limits import Fault
from ngc.models.perceptron import ChannelNorm
from ngc.models.registry import model
from ngc.models.settings import Pool, Share, Size
from ngc.models.weight_space import Features, WeightSpace


@model("dws_net")
class DwsNet(nn.Module):
    """Weights and biases -> a vector for each network, or changes of all its weights.

    Hidden neurons may be permuted; inputs and outputs are channels, with maps of their own.
    Equivariant layers, each followed by batch normalisation, ReLU and dropout; then all members
    pooled over their neurons and an MLP, or a last equivariant layer to the changes.
    width: channels of an entry. layers: equivariant layers before the head. head: hidden width of
    the MLP. pool: max, mean or sum, over neurons.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        width: Size = 42,
        layers: Size = 5,
        head: Size = 64,
        pool: Pool = "max",
        dropout: Share = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        check_predicts("dws_net", predicts)
        self.chain = Chain.of(facts, "dws_net")
        self.space = WeightSpace.of_hidden(self.chain)
        entry, hidden = Features(self.chain.taps, 1), Features(width, width)
        self.layers = nn.ModuleList(
            WeightSpaceLinear(self.space, hidden if k else entry, hidden, pool)
            for k in range(layers)
        )
        channels = [member.channels(hidden) for member in self.space.members]
        self.norms = nn.ModuleList(
            nn.ModuleList(ChannelNorm(c) if batch_norm else nn.Identity() for c in channels)
            for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.head: nn.Module
        if predicts == "graph":
            self.head = GraphHead(self.space, hidden, head, outputs=outputs, pool=pool)
        else:
            self.head = EditHead(self.space, hidden, pool)

    def faults(self, part: Part) -> Iterator[Fault]:
        return self.chain.faults(part)

    def forward(self, batch: GraphBatch) -> Tensor | Edits:
        read = self.chain.read(batch)
        members = self.space.fold(read.weights, [b[..., None] for b in read.biases])
        for layer, norms in zip(self.layers, self.norms):
            members = layer(members)
            assert isinstance(norms, nn.ModuleList)
            members = [self.dropout(F.relu(norm(x))) for norm, x in zip(norms, members)]
        found = self.head(members)
        return (
            batch.restored([found]) if isinstance(found, Tensor) else self.chain.edits(batch, found)
        )
