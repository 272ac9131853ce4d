"""Predicting a number between 0 and 1 about each network, such as its accuracy on test images."""

from __future__ import annotations

import torch
from scipy.stats import kendalltau
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric
from torchmetrics.utilities import dim_zero_cat

from ngc.train.networks import Batch, NetworkSet
from ngc.train.tasks import Goal, Mean, Meters, Task


class Tau(Metric):
    """Kendall's rank correlation (tau-b) of predictions and truth; 0 where either is constant.

    It keeps what it was told: ``rows`` are the numbers of the networks, predictions and truth.
    """

    full_state_update = False
    number: list[Tensor]
    predicted: list[Tensor]
    true: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("number", "predicted", "true"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, number: Tensor, predicted: Tensor, true: Tensor) -> None:
        self.number.append(number)
        self.predicted.append(predicted)
        self.true.append(true)

    def compute(self) -> Tensor:
        _, predicted, true = self.rows()
        found = kendalltau(predicted.numpy(), true.numpy()).statistic
        # NaN says that predictions are not numbers; the loss is then none either.
        constant = bool((predicted == predicted[0]).all() or (true == true[0]).all())
        return torch.tensor(0.0 if constant else float(found))

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """[n] each, on the CPU."""
        states = (self.number, self.predicted, self.true)
        number, predicted, true = (dim_zero_cat(state).cpu() for state in states)
        return number, predicted, true


class Regression(Task):
    """The label of a network, in [0, 1], is predicted by a sigmoid.

    loss: ``bce``, the cross-entropy of the two as probabilities (paper, App. E.1), or ``mse``.
    """

    predicts = "graph"
    outputs = 1
    goal = Goal("tau", larger=True)

    def __init__(self, loss: str) -> None:
        self.kind = loss

    def to(self, device: torch.device) -> None:
        pass  # labels are the set's

    def meters(self, test: bool = False) -> Meters:
        return Meters(loss=Mean(), mse=MeanSquaredError(), mae=MeanAbsoluteError(), tau=Tau())

    def loss(
        self, prediction: Tensor, batch: Batch, networks: NetworkSet, meters: Meters
    ) -> Tensor:
        true = networks.label[batch.numbers]
        logits = prediction.float().flatten()
        predicted = logits.sigmoid()
        if self.kind == "bce":
            loss = F.binary_cross_entropy_with_logits(logits, true)
        else:
            loss = F.mse_loss(predicted, true)
        meters["loss"].update(loss.detach(), weight=len(true))
        meters["mse"].update(predicted.detach(), true)
        meters["mae"].update(predicted.detach(), true)
        meters["tau"].update(batch.numbers, predicted.detach(), true)
        return loss

    def results(self, meters: Meters) -> dict[str, Tensor]:
        return dict(zip(("number", "predicted", "true"), meters["tau"].rows()))
