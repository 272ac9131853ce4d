"""Initial weights of the graph networks."""

from __future__ import annotations

from torch import nn


def xavier(model: nn.Module) -> None:
    """Xavier-uniform weights and zero biases in all linear maps.

    torch's default keeps a third of the variance at each map: what a deep stack of them says of two
    different networks would differ by a thousandth of what is common to all, and training would
    begin on a plateau.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
