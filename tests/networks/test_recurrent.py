"""Recurrent networks of PyTorch, as operators and as the exporter writes them out."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import Tensor, nn

import ngc


class Last(nn.Module):
    """A recurrent network, read after its last step."""

    def __init__(self, inner: nn.RNNBase) -> None:
        super().__init__()
        self.inner = inner
        self.head = nn.Linear(inner.hidden_size * (1 + inner.bidirectional), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x)[0][:, -1])


@pytest.mark.parametrize("exporter", ["dynamo", "legacy"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_four_checks_pass(kind: type[nn.RNNBase], layers: int, exporter: str) -> None:
    torch.manual_seed(0)
    model = Last(kind(3, 4, layers, batch_first=True, bidirectional=layers == 2))
    x = torch.randn(2, 4, 3)
    if exporter == "dynamo":
        compiled = ngc.compile(model, x)
        back = compiled.state_dict()
        assert all(torch.equal(back[name], t) for name, t in model.state_dict().items())
    else:
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, (x,), buffer, dynamo=False)
        compiled = ngc.compile(buffer.getvalue())
    verification = ngc.verify(compiled)
    assert verification.passed, verification.checks
