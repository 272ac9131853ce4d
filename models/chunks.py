"""Work over a batch in chunks of graphs, and recompute it in the backward pass.

Edge tensors are the bulk of a model's memory: 64 networks 2-32-32-1 have 143,000 edges with their
reversed twins. Taken a few graphs at a time the temporaries of a layer stay in the cache, and only
what goes in is kept for the backward pass. Arithmetic is cheap beside memory traffic, so doing it
once more costs less than keeping it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Function = Callable[[list[Tensor], list[Tensor]], tuple[Tensor, ...]]

# Entries of the edge tensor of one chunk. On a processor it is to stay in the cache (4 MiB of
# float32 with its temporaries); on a GPU a chunk only bounds memory.
CHUNK_ENTRIES = {"cpu": 2**20, "cuda": 2**28}


def over_graphs(
    function: Function, batched: Sequence[Tensor], shared: Sequence[Tensor], entries: int
) -> tuple[Tensor, ...]:
    """``function(batched, shared)`` with the graphs, axis 0 of all batched tensors and results,
    taken in chunks.

    ``entries``: those of the largest tensor that the function makes for one graph. The function
    must treat graphs independently and use no random numbers.
    """
    return over_axis(function, batched, shared, chunk_size(batched[0].device, entries))


def over_axis(
    function: Function, batched: Sequence[Tensor], shared: Sequence[Tensor], size: int
) -> tuple[Tensor, ...]:
    """The same, ``size`` entries of axis 0 at a time."""
    tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (*batched, *shared))
    if not tracked:
        return _run(function, batched, shared, size)
    return _Chunked.apply(function, size, len(batched), *batched, *shared)  # type: ignore[no-any-return]


def chunk_size(device: torch.device, entries: int) -> int:
    """How many graphs with so many entries each make a chunk."""
    limit = CHUNK_ENTRIES.get(device.type, CHUNK_ENTRIES["cuda"])
    return max(1, limit // max(entries, 1))


def _run(
    function: Function, batched: Sequence[Tensor], shared: Sequence[Tensor], size: int
) -> tuple[Tensor, ...]:
    many = len(batched[0])
    if many <= size:
        return function(list(batched), list(shared))
    results: list[Tensor] = []
    for start in range(0, many, size):
        pieces = function([t[start : start + size] for t in batched], list(shared))
        if not results:
            results = [piece.new_empty(many, *piece.shape[1:]) for piece in pieces]
        for result, piece in zip(results, pieces):
            result[start : start + size] = piece
    return tuple(results)


class _Chunked(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Function, size: int, count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.function, ctx.size, ctx.count = function, size, count
        kind = tensors[0].device.type
        ctx.autocast = (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
        ctx.save_for_backward(*tensors)
        return _run(function, tensors[:count], tensors[count:], size)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        batched, shared = tensors[: ctx.count], tensors[ctx.count :]
        wanted = ctx.needs_input_grad[3:]
        totals: list[Tensor | None] = [None] * len(tensors)
        for start in range(0, len(batched[0]), ctx.size):
            rows = slice(start, start + ctx.size)
            inner = [t[rows] for t in batched] + list(shared)
            inner = [t.detach().requires_grad_(want) for t, want in zip(inner, wanted)]
            kind, dtype, enabled = ctx.autocast
            with torch.enable_grad(), torch.autocast(kind, dtype=dtype, enabled=enabled):
                results = ctx.function(inner[: ctx.count], inner[ctx.count :])
            used = [(r, g[rows]) for r, g in zip(results, outer) if r.requires_grad]
            leaves = [t for t in inner if t.requires_grad]
            found = torch.autograd.grad(
                [r for r, _ in used], leaves, [g for _, g in used], allow_unused=True
            )
            _collect(totals, wanted, found, tensors, ctx.count, rows)
        return (None, None, None, *totals)


def _collect(
    totals: list[Tensor | None],
    wanted: Sequence[bool],
    found: Sequence[Tensor | None],
    tensors: Sequence[Tensor],
    count: int,
    rows: slice,
) -> None:
    """Add the gradients of one chunk: rows of batched tensors, sums of shared ones."""
    gradients = iter(found)
    for k, want in enumerate(wanted):
        gradient = next(gradients) if want else None
        if gradient is None:
            continue
        total = totals[k]
        if total is None:
            total = totals[k] = torch.zeros_like(tensors[k])
        if k < count:
            total[rows] = gradient
        else:
            total += gradient
