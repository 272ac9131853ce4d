"""Products are the same by whichever library."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ngc.models import products
from ngc.models.products import Products, product

SHAPES = [
    (600, 32, 128), (600, 128, 32), (32, 600, 128), (128, 600, 32), (600, 40, 9), (600, 3, 64),
]  # fmt: skip


def made(shape: tuple[int, int, int], gaps: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows, inner, columns = shape
    a = torch.randn(inner, rows, generator=generator).T
    b = torch.randn(inner, 2 * columns, generator=generator)
    return a, b[:, :columns] if gaps else b[:, :columns].contiguous()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("onednn", [False, True])
def test_a_product_is_a_product(
    shape: tuple[int, int, int], gaps: bool, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "SMALL", 0)
    monkeypatch.setattr(products, "_ONEDNN", onednn and products._HAS_ONEDNN)
    a, b = made(shape, gaps)
    bias = torch.arange(float(shape[2]))
    exact = a.double() @ b.double()
    torch.testing.assert_close(product(a, b), exact.float(), rtol=1e-5, atol=1e-4)
    shifted = (exact + bias).float()
    torch.testing.assert_close(product(a, b, bias), shifted, rtol=1e-5, atol=1e-4)
    assert product(a.double(), b.double()).dtype == torch.float64


@pytest.mark.skipif(not products._HAS_ONEDNN, reason="this torch has no oneDNN")
def test_the_library_is_not_asked_where_it_is_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operands with gaps between rows, narrow ones and small ones."""
    asked: list[Tensor] = []

    def record(a: Tensor, b: Tensor, *rest: object) -> Tensor:
        asked.extend((a, b))
        return a @ b.T

    monkeypatch.setattr(products, "_ONEDNN", True)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", record)
    product(*made((600, 128, 128), gaps=True))
    assert len(asked) == 2
    assert all(t.is_contiguous() or t.T.is_contiguous() for t in asked)
    product(*made((100_000, 128, 4)))
    product(*made((60, 32, 32)))
    assert len(asked) == 2


def test_precision_follows_autocast() -> None:
    rows = torch.ones(4, 8)
    assert Products.now(rows).low == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        low = Products.now(rows)
    assert (low.low, low.high) == (torch.bfloat16, torch.float32)
    assert low(low.matrix(rows), low.matrix(rows).T).dtype == torch.float32
    affine = low.affine(low.matrix(rows), low.matrix(rows), torch.ones(4))
    torch.testing.assert_close(affine, torch.full((4, 4), 9.0))
