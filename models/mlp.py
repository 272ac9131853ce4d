"""A plain MLP on all weights and biases in a row: the baseline that knows no symmetry."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ngc.backends.graphs import Edits, GraphBatch, Part
from ngc.models.facts import Facts
from ngc.models.layers import Chain, EditScale, check_predicts
from ngc.models.limits import Fault
from ngc.models.perceptron import perceptron
from ngc.models.registry import model
from ngc.models.settings import Share, Size


@model("mlp")
class Mlp(nn.Module):
    """Flat weights -> a vector for each network, or changes of all its weights.

    width: of the hidden layers. layers: linear maps. dropout: after each hidden layer. batch_norm:
    in each hidden layer, as in the MLP that DWSNets were compared with.
    """

    def __init__(
        self,
        facts: Facts,
        *,
        predicts: str = "graph",
        outputs: int = 10,
        width: Size = 256,
        layers: Size = 5,
        dropout: Share = 0.0,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        check_predicts("mlp", predicts)
        self.chain = Chain.of(facts, "mlp")
        entries = self.chain.num_entries
        self.scale = EditScale(self.chain) if predicts == "edits" else None
        last = outputs if self.scale is None else entries
        self.body = perceptron(
            entries, *[width] * (layers - 1), last, dropout=dropout, batch_norm=batch_norm
        )

    def faults(self, part: Part) -> Iterator[Fault]:
        return self.chain.faults(part)

    def forward(self, batch: GraphBatch) -> Tensor | Edits:
        rows = self.body(self.chain.read(batch).flat())
        if self.scale is None:
            return batch.restored([rows])
        return self.chain.edits(batch, self.scale(self.chain.unflatten(rows)))
