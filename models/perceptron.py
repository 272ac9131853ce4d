"""Multi-layer perceptrons, the heads and bodies of the baselines."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.BatchNorm1d):
    """Batch normalisation of the last axis of [..., channels], all others counting as rows.

    A batch of one row has no deviation, so it is normalised as in evaluation.
    """

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, self.num_features)
        if self.training and len(rows) == 1:
            rows = F.batch_norm(
                rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
            return rows.view_as(input)
        return super().forward(rows).view_as(input)


def perceptron(*sizes: int, dropout: float = 0.0, batch_norm: bool = False) -> nn.Sequential:
    """Linear maps of [..., sizes[0]] to [..., sizes[-1]]; between them batch normalisation where
    asked for, ReLU, dropout. Hidden layers are drawn so that variances survive ReLU (He et al.
    2015)."""
    modules: list[nn.Module] = []
    for k, (into, out) in enumerate(pairwise(sizes)):
        linear = nn.Linear(into, out)
        modules.append(linear)
        if k == len(sizes) - 2:
            break
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        if batch_norm:
            modules.append(ChannelNorm(out))
        modules.append(nn.ReLU())
        if dropout:
            modules.append(nn.Dropout(dropout))
    return nn.Sequential(*modules)
