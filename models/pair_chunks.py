"""Which pairs are worked on at a time."""

from __future__ import annotations

from collections.abc import Iterator

import torch

Chunk = tuple[slice, slice]  # of the graphs, and of the rows of each

# Entries [pairs, width] of a chunk. On a processor so many that a handful of such tensors stay in
# the cache (3 MiB each), on a GPU a chunk only bounds memory (1 GiB each).
CHUNK_ENTRIES = {"cpu": 3 * 2**18, "cuda": 2**28}


def graph_of(chunk: Chunk) -> int:
    """The first graph of a chunk: those of one graph write to the same pairs."""
    return int(chunk[0].start)


def pair_chunks(graphs: int, rows: int, entries: int, device: torch.device) -> Iterator[Chunk]:
    """Graphs and rows of each chunk, where a row (all pairs of one target, or one pair of a list)
    has so many ``entries``: whole graphs, or where one is too large some rows of it."""
    limit = CHUNK_ENTRIES.get(device.type, CHUNK_ENTRIES["cuda"]) // max(entries, 1)
    if rows <= limit:
        size = limit // max(rows, 1)
        for start in range(0, graphs, size):
            yield slice(start, min(start + size, graphs)), slice(0, rows)
        return
    pieces = -(-rows // max(limit, 1))
    size = -(-rows // pieces)
    for graph in range(graphs):
        for start in range(0, rows, size):
            yield slice(graph, graph + 1), slice(start, min(start + size, rows))
