"""Matrix products of functions that write out their derivative: in which precision, and by which
library."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# Multiplications, and rows or columns, below which oneDNN costs more than it gains.
SMALL = 2**22
NARROW = 8


@dataclass(frozen=True)
class Products:
    """Matrix products in ``low`` precision with results in ``high``."""

    low: torch.dtype
    high: torch.dtype

    @classmethod
    def now(cls, example: Tensor) -> Products:
        """In the precision of autocast, where that is on."""
        kind, high = example.device.type, example.dtype
        return cls(
            torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else high, high
        )

    def matrix(self, rows: Tensor) -> Tensor:
        """rows [..., d] as a matrix to multiply."""
        return rows.reshape(-1, rows.shape[-1]).to(self.low)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return product(a, b).to(self.high)

    def affine(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """rows @ weight.T + bias; the sum costs nothing within the product."""
        return product(rows, weight.T, bias.to(self.low)).to(self.high)


def single(rows: Tensor) -> Tensor:
    """Rows in at least single precision: what autocast made is widened again, so that sums and
    extremes over many edges are taken in it."""
    return rows.float() if rows.dtype in (torch.bfloat16, torch.float16) else rows


def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a @ b + bias of two matrices; without a derivative.

    In single precision torch's own products go to its BLAS, mostly MKL, which leaves half of an AMD
    processor unused: 52 of 105 GMAC/s a core for [4489, 32] @ [32, 128] on Zen 5. oneDNN, which
    torch carries along for its compiler, does not. On Intel's MKL is the quicker one: 69 GMAC/s
    against 55 forwards, 64 against 36 for sums over rows (Sapphire Rapids).
    """
    single = a.dtype == torch.float32 and a.device.type == "cpu"
    narrow = min(*a.shape, b.shape[1]) < NARROW
    if not (_ONEDNN and single) or narrow or a.numel() * b.shape[1] < SMALL:
        return a @ b if bias is None else torch.addmm(bias, a, b)
    if bias is None and b.shape[1] < len(a) < a.shape[1]:
        return _onednn(b.T, a).T  # sums over many rows: quicker with the smaller side first
    return _onednn(a, b.T, bias)


def _onednn(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """a @ b.T + bias"""
    a, b = _without_gaps(a), _without_gaps(b)
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")  # type: ignore[no-any-return]


def _without_gaps(a: Tensor) -> Tensor:
    """Rows or columns one after another; for others oneDNN has only its slow reference."""
    return a if a.is_contiguous() or a.T.is_contiguous() else a.contiguous()


def _as_it_should() -> bool:
    """The operator is no public one, and builds without oneDNN have none: it is used where it does
    what is expected."""
    a, bias = torch.arange(12, dtype=torch.float32).view(3, 4), torch.ones(3)
    try:
        return torch.equal(_onednn(a, a, bias), a @ a.T + bias)
    except (AttributeError, RuntimeError, TypeError):
        return False


def _intel() -> bool:
    """Whether this is a processor that MKL was made for."""
    try:
        vendor = Path("/proc/cpuinfo").read_text()[:4096]
    except OSError:
        vendor = platform.processor()
    return "GenuineIntel" in vendor


_HAS_ONEDNN = _as_it_should()
_ONEDNN = _HAS_ONEDNN and not (_intel() and torch.backends.mkl.is_available())
