"""Weighted operations, computed once more from the edges of the graph.

An operation runs on random operands; then each of its neurons is computed as what its node's edges
say: the sum, over incoming edges, of kernel entries times the values of the source neuron at the
positions they stand for. Where a source stands in the operand follows from the program's indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ngc.backends.torch_kernels import kernel_of
from ngc.backends.torch_linear import contraction
from ngc.ir import program as ir
from ngc.ir.graph import EdgeBlock
from ngc.ir.index import IndexArray
from ngc.ir.program import Ints, Value
from ngc.ir.slots import Slots
from ngc.plan import read
from ngc.recompute.chains import Chains, Mismatch, ranges
from ngc.recompute.sources import spread_window, window, windows

# Of the scale of a result. Two weights nearer to each other than this could be exchanged unseen.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
CHUNK = 1 << 24  # weights gathered at a time

# (weights [p, o, i, m, k], values [p, i, m, ...]) -> values of targets [p, o, ...]
Product = Callable[[Tensor, Tensor], Tensor]


@dataclass(eq=False)
class Rows:
    """An operation as sums over rows of operand elements.

    ids [r, t]: neuron of each element of a row, ``elements`` [r, t] its place in ``values``
    [elements, ...]; -1: nothing is there. targets [r, n]: the neurons that read the row, ``result``
    [r * n, ...] what the operation makes of them. Kernels have ``taps`` entries for each element.
    """

    ids: np.ndarray
    elements: np.ndarray
    values: Tensor
    targets: np.ndarray
    result: Tensor
    taps: int
    product: Product


class Weighted:
    """Compares weighted operations with the edges of the graph; returns the largest error."""

    def __init__(self, chains: Chains, weights: Tensor, seed: int) -> None:
        self.chains, self.weights = chains, weights
        self.index = chains.wiring.index
        self.values = chains.wiring.program.values()
        self.generator = torch.Generator().manual_seed(seed)
        self.place = chains.graph.nodes.place.astype(np.int64)

    def random(self, shape: Ints) -> Tensor:
        return torch.randn(shape, generator=self.generator, dtype=self.weights.dtype)

    def operand(self, slots: Slots) -> Tensor:
        return read(self.weights, slots).reshape(slots.shape)

    def check(self, number: int, op: ir.Op, blocks: Sequence[EdgeBlock]) -> float:
        positional = bool(blocks) and all(b.kind == "positional" for b in blocks)
        match op:
            case ir.Linear(x=x, weight=weight, spec=spec) if positional:
                return self.positional(number, x, op.out.name, weight, spec, blocks)
            case ir.Linear():
                return self.by_rows(number, self.linear(op), blocks)
            case ir.Convolution(x=x, weight=weight) if positional:
                space = "abcdefgh"[: len(op.out.shape) - 2]
                spec = f"ni{space},oi->no{space}"
                flat = weight.reshape(weight.shape[:2])
                return self.positional(number, x, op.out.name, flat, spec, blocks)
            case ir.Convolution() | ir.ConvolutionTranspose():
                if all(axis == 1 for axis in self.index[op.x].varying):
                    return self.by_rows(number, self.convolution(op), blocks)
                return self.by_rows(number, self.windows(op), blocks)
            case ir.Embedding():
                return self.embedding(number, op, blocks)
        raise AssertionError(op.mnemonic)

    # --- operations as rows ---

    def linear(self, op: ir.Linear) -> Rows:
        left, right, out = op.spec.replace("->", ",").split(",")
        x, y = self.index[op.x], self.index[op.out.name]
        size = dict(zip(left, x.shape)) | dict(zip(right, op.weight.shape))
        varies = {c for c, n in zip(left, x.ids.shape) if n > 1}
        summed = [c for c in left if c not in out]
        own = [c for c in left if c in out and c in varies]
        places = [c for c in left if c in right and c in out and c not in varies]
        rest = [c for c in left if c in out and c not in right and c not in varies]
        new = [c for c in right if c not in left]
        for c in rest:  # positions that are all alike
            size[c] = min(size[c], 2)
        given = self.random(tuple(size[c] for c in left))
        result = contraction(op.spec)(given, self.operand(op.weight))
        count = math.prod(size[c] for c in own)
        tail = [math.prod(size[c] for c in cs) for cs in (places, rest)]

        def arranged(index: IndexArray, letters: str, wanted: list[str]) -> np.ndarray:
            ids = index.spread([letters.index(c) for c in wanted])
            kept = [letters.index(c) for c in wanted]
            others = [k for k in range(ids.ndim) if k not in kept]
            return ids.transpose([*kept, *others]).reshape(count, -1)

        def moved(tensor: Tensor, letters: str, wanted: list[str]) -> Tensor:
            order = [letters.index(c) for c in (*wanted, *places, *rest)]
            return tensor.permute(order).reshape(-1, *tail)

        ids = arranged(x, left, [*own, *summed])
        return Rows(
            ids=ids,
            elements=np.arange(ids.size).reshape(ids.shape),
            values=moved(given, left, [*own, *summed]),
            targets=arranged(y, out, [*own, *new]),
            result=moved(result, out, [*own, *new]),
            taps=tail[0],
            product=_sum,
        )

    def convolution(self, op: ir.Convolution | ir.ConvolutionTranspose) -> Rows:
        """Channels are neurons: one row of channels a group, and taps as the operation has them."""
        x, y = self.index[op.x], self.index[op.out.name]
        groups, kernel = op.groups, op.weight.shape[2:]
        space, out = _small(op, x.shape[2:])
        given = self.random((1, x.shape[1], *space))
        function = _run(op, op.weight.shape, groups, space, out)
        result = function(given, self.operand(op.weight))
        ids = x.spread([1]).reshape(groups, -1)
        transposed = isinstance(op, ir.ConvolutionTranspose)

        def product(weights: Tensor, values: Tensor) -> Tensor:
            p, o, i, m = weights.shape[:4]
            values = values.reshape(1, p * i * m, *space)
            if transposed:
                weights = weights.permute(0, 2, 3, 1, 4).reshape(p * i * m, o, *kernel)
            else:
                weights = weights.reshape(p * o, i * m, *kernel)
            run = _run(op, tuple(weights.shape), p, space, out)
            return run(values, weights).reshape(p, o, *out)

        return Rows(
            ids=ids,
            elements=np.arange(ids.size).reshape(ids.shape),
            values=given[0],
            targets=y.spread([1]).reshape(groups, -1),
            result=result[0],
            taps=math.prod(kernel),
            product=product,
        )

    def windows(self, op: ir.Convolution | ir.ConvolutionTranspose) -> Rows:
        """Neurons differ by position: one row for each window of a group."""
        x, y = self.index[op.x], self.index[op.out.name]
        groups, kernel, rank = op.groups, op.weight.shape[2:], len(op.weight.shape) - 2
        part = spread_window if isinstance(op, ir.ConvolutionTranspose) else window
        sizes = x.shape[2:], op.out.shape[2:], kernel, op.strides, op.pads[:rank], op.dilations
        places = [part(*one) for one in zip(*sizes)]
        elements = windows(x.shape, places)  # [batch, channel, *out, *kernel]
        batch, out = elements.shape[0], op.out.shape[2:]
        elements = elements.reshape(batch, groups, -1, *out, math.prod(kernel))
        order = (0, *range(3, 3 + rank), 1, 2, 3 + rank)
        elements = elements.transpose(order).reshape(batch * math.prod(out) * groups, -1)
        ids = np.where(elements < 0, -1, x.full().reshape(-1)[elements])
        given = self.random(x.shape)
        result = kernel_of(op, self.values).function(given, self.operand(op.weight))
        shape = (batch, groups, -1, *out)
        back = (0, *range(3, 3 + rank), 1, 2)
        return Rows(
            ids=ids,
            elements=elements,
            values=given.reshape(-1, 1, 1),
            targets=y.full().reshape(shape).transpose(back).reshape(len(ids), -1),
            result=result.reshape(shape).permute(back).reshape(-1, 1, 1),
            taps=1,
            product=_sum,
        )

    # --- rows from the edges ---

    def by_rows(self, number: int, rows: Rows, blocks: Sequence[EdgeBlock]) -> float:
        lookup = _Lookup(rows.ids)
        targets = _Lookup(rows.targets)
        parts: list[tuple[np.ndarray, np.ndarray, Tensor]] = []  # (row, node, values)
        for block in blocks:
            parts += self.from_block(number, rows, block, lookup, targets)
        num_nodes = self.chains.graph.num_nodes
        keys = [row * num_nodes + node for row, node, _ in parts]
        every, inverse = np.unique(np.concatenate([*keys, np.zeros(0, int)]), return_inverse=True)
        total = torch.zeros(len(every), *rows.result.shape[1:], dtype=self.weights.dtype)
        start = 0
        for key, (_, _, values) in zip(keys, parts):
            own = torch.from_numpy(inverse[start : start + len(key)])
            total.index_add_(0, own, values)
            start += len(key)
        row, node = np.divmod(every, num_nodes)
        neuron = self.chains.computed_in(number, node)
        place = targets.entry(row, neuron)
        return self.compare(number, total, rows.result, targets, place, node)

    def compare(
        self,
        number: int,
        found: Tensor,
        result: Tensor,
        targets: _Lookup,
        place: np.ndarray,
        node: np.ndarray,
    ) -> float:
        """``found`` [n, ...] in nodes [n] against the results at ``place`` [n]. Other nodes of the
        operation have no edges: what they compute must be zero."""
        if result.numel() == 0:
            return 0.0
        born = self.chains.born(number)
        which, nodes = self.chains.nodes_of(born)
        bare = ~np.isin(nodes, node)
        for neuron, alone in zip(born[which[bare]], nodes[bare]):
            if bool((result[int(targets.entry_anywhere(neuron[None])[0])] != 0).any()):
                raise Mismatch(f"node {int(alone)} has no incoming edges")
        expected = result[torch.from_numpy(place)]
        scale = float(result.abs().max()) or 1.0
        error = (found - expected).abs() / scale
        worst = float(error.max()) if len(error) else 0.0
        limit = TOLERANCE[found.dtype]
        if not worst <= limit:
            where = np.unravel_index(int((~(error <= limit)).int().argmax()), error.shape)
            raise Mismatch(
                f"node {int(node[where[0]])}: its edges give {float(found[where]):.6g}, "
                f"the operation {float(expected[where]):.6g}"
            )
        return worst

    def from_block(
        self, number: int, rows: Rows, block: EdgeBlock, lookup: _Lookup, targets: _Lookup
    ) -> list[tuple[np.ndarray, np.ndarray, Tensor]]:
        if block.taps % rows.taps:
            raise Mismatch(f"kernels of {block.taps} entries")
        m = block.taps // rows.taps
        neurons = self.chains.computed_in(number, block.dst)  # [g, o]
        leaders, copies = self.without_copies(block, neurons)
        group, row = targets.rows_with(neurons[leaders, 0])
        result = []
        same = block.slots.entries is None and block.slots.strides[0] == 0
        per_group = math.prod(block.slots.shape[1:])
        step = len(group) if same else max(1, CHUNK // max(per_group, 1))
        for start in range(0, len(group), max(step, 1)):
            which, r = group[start : start + step], row[start : start + step]
            b = leaders[which]
            elements = rows.elements[r[:, None, None], self.taps_in(block, b, r, m, lookup)]
            values = rows.values[torch.from_numpy(elements)]
            picked = b[:1] if same else b
            weights = self.operand(_groups(block.slots, picked))
            weights = weights.reshape(len(picked), *weights.shape[1:3], m, rows.taps)
            made = rows.product(weights.expand(len(b), -1, -1, -1, -1), values)
            one, copy = copies.of(which)
            node = block.dst[copy]
            where = np.broadcast_to(r[one][:, None], node.shape)
            made = made if len(one) == len(b) else made[torch.from_numpy(one)]
            result.append((where.reshape(-1), node.reshape(-1), made.flatten(0, 1)))
        return result

    def without_copies(self, block: EdgeBlock, neurons: np.ndarray) -> tuple[np.ndarray, _Copies]:
        """Of the groups that have the same sources, weights and neurons as targets (copies of a
        neuron, one for each position) the first, and all of them."""
        count = len(neurons)
        parts = [block.src, neurons]
        if block.slots.entries is not None:
            parts.append(block.slots.numpy().reshape(count, -1))
        elif block.slots.strides[0]:
            parts.append(np.arange(count)[:, None])
        if (np.diff(neurons[:, 0]) > 0).all():
            return np.arange(count), _Copies(np.arange(count))
        key = np.concatenate(parts, axis=1)
        _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
        return first, _Copies(inverse.reshape(-1))

    def taps_in(
        self, block: EdgeBlock, group: np.ndarray, row: np.ndarray, m: int, lookup: _Lookup
    ) -> np.ndarray:
        """[p, i, m]: places in the rows at which sources of the groups stand."""
        nodes = block.src[group]
        held = self.chains.held_by(nodes)
        first, count = lookup.find(row, held)
        place = self.place[nodes]  # [p, i, 2]
        rank = np.zeros(nodes.shape, dtype=np.int64)
        expected = np.full(nodes.shape, m)
        if (place >= 0).any():
            # Copies of a neuron, one for each position: in the order of their places.
            order = np.lexsort((place[..., 1], place[..., 0], held), axis=-1)
            ordered = np.take_along_axis(held, order, -1)
            starts = np.ones(ordered.shape, dtype=bool)
            starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
            where = place[..., 0] * (int(place[..., 1].max()) + 1) + place[..., 1]
            where = np.take_along_axis(where, order, -1)
            if (~starts[:, 1:] & (where[:, 1:] == where[:, :-1])).any():
                raise Mismatch("two of its sources stand for one position of a neuron")
            begin = np.maximum.accumulate(np.where(starts, np.arange(held.shape[1]), 0), axis=1)
            np.put_along_axis(rank, order, np.arange(held.shape[1]) - begin, -1)
            run = starts.cumsum(axis=1) - 1
            sizes = np.zeros(held.shape, dtype=np.int64)
            np.add.at(sizes, (np.arange(len(run))[:, None], run), 1)
            many = np.empty_like(rank)
            np.put_along_axis(many, order, np.take_along_axis(sizes, run, -1), -1)
            expected = np.where(place[..., 0] >= 0, many * m, m)
        if (count != expected).any():
            node = int(nodes[count != expected][0])
            raise Mismatch(
                f"node {node} is read with {m} weights an edge, but stands at "
                f"{int(count[count != expected][0])} places of what the operation reads"
            )
        return lookup.order[first[..., None] + rank[..., None] * m + np.arange(m)] % lookup.width

    # --- the other two kinds ---

    def positional(
        self, number: int, x: str, y: str, weight: Slots, spec: str, blocks: Sequence[EdgeBlock]
    ) -> float:
        """Positions are mixed: each edge carries the whole operator, [places, new, summed]."""
        left, right, out = spec.replace("->", ",").split(",")
        source, target = self.index[x], self.index[y]
        size = dict(zip(left, source.shape)) | dict(zip(right, weight.shape))
        varies = {c for c, n in zip(left, source.ids.shape) if n > 1}
        summed = [c for c in left if c not in out]
        own = [c for c in left if c in varies]
        places = [c for c in left if c in right and c in out and c not in varies]
        new = [c for c in right if c not in left]
        rest = [c for c in left if c in out and c not in right and c not in varies]
        for c in rest:
            size[c] = min(size[c], 2)
        given = self.random(tuple(size[c] for c in left))
        result = contraction(spec)(given, self.operand(weight))
        p, n, s, r = (math.prod(size[c] for c in cs) for cs in (places, new, summed, rest))
        given = given.permute([left.index(c) for c in (*own, *places, *summed, *rest)])
        given = given.reshape(-1, p, s, r)
        result = result.permute([out.index(c) for c in (*own, *places, *new, *rest)])
        result = result.reshape(-1, p, n, r)
        sources = source.ids.transpose(_front(left, own)).reshape(-1)
        targets = target.ids.transpose(_front(out, own)).reshape(-1, 1)
        lookup = _Lookup(targets)
        found, rows, nodes = [], [], []
        for block in blocks:
            neurons = self.chains.computed_in(number, block.dst)
            group, row = lookup.rows_with(neurons[:, 0])
            held = self.chains.held_by(block.src[group, 0])
            if (held != sources[row]).any():
                node = int(block.src[group, 0][held != sources[row]][0])
                raise Mismatch(f"node {node} is not what the operation reads there")
            kernels = self.operand(block.slots).reshape(-1, p, n, s)[torch.from_numpy(group)]
            found.append(torch.einsum("gpns,gpsr->gpnr", kernels, given[torch.from_numpy(row)]))
            rows.append(row)
            nodes.append(block.dst[group, 0])
        place = np.concatenate(rows)
        return self.compare(number, torch.cat(found), result, lookup, place, np.concatenate(nodes))

    def embedding(self, number: int, op: ir.Embedding, blocks: Sequence[EdgeBlock]) -> float:
        """Every row of the table against the edges from its one-hot neuron."""
        ids, out = self.index[op.ids].ids, self.index[op.out.name]
        vocabulary = op.weight.shape[0]
        lead = len(out.shape) - len(op.weight.shape) + 1
        targets = out.spread(range(lead, len(out.shape))).reshape(ids.size, -1)
        lookup = _Lookup(targets)
        births = [b for b in self.chains.wiring.births if b.op == number and b.role == "token"]
        start = births[0].start
        id_of = np.full(births[0].stop - start, -1)
        for block in blocks:
            if block.kind == "token":
                held = self.chains.held_by(block.src)
                id_of[self.chains.held_by(block.dst) - start] = held
        table = self.operand(op.weight).reshape(vocabulary, -1)
        count = np.zeros(self.chains.graph.num_nodes, dtype=np.int64)
        for block in blocks:
            if block.kind == "token":
                continue
            kernels = self.operand(block.slots)[..., 0]  # [g, o, i]
            neurons = self.chains.computed_in(number, block.dst)
            tokens = self.chains.held_by(block.src) - start
            for g in range(len(neurons)):
                row, column = np.divmod(lookup.entry_anywhere(neurons[g]), targets.shape[1])
                if (id_of[tokens[g]] != ids.reshape(-1)[row[0]]).any():
                    raise Mismatch(
                        f"the rows of the table are picked by another id in {block.name}"
                    )
                words = tokens[g] % vocabulary
                expected = table[torch.from_numpy(words)][:, torch.from_numpy(column)].T
                wrong = kernels[g] != expected
                if bool(wrong.any()) or len(np.unique(words)) != len(words):
                    o, i = np.unravel_index(int(wrong.int().argmax()), wrong.shape)
                    raise Mismatch(
                        f"the edge from row {int(words[i])} of the table to node "
                        f"{int(block.dst[g, o])} has another entry of it"
                    )
                count[block.dst[g]] += len(words)
        _, nodes = self.chains.nodes_of(np.unique(targets))
        if (count[nodes] != vocabulary).any():
            node = int(nodes[count[nodes] != vocabulary][0])
            raise Mismatch(f"node {node} does not read every row of the table once")
        return 0.0


class _Copies:
    """Groups by the place of their leader."""

    def __init__(self, leader: np.ndarray) -> None:
        self.groups = np.argsort(leader, kind="stable")
        self.counts = np.bincount(leader)
        self.starts = np.cumsum(self.counts) - self.counts

    def of(self, leaders: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in leaders, group) for every group behind them."""
        which, entries = ranges(self.starts[leaders], self.counts[leaders])
        return which, self.groups[entries]


class _Lookup:
    """Where neurons stand in the rows of an array [r, t]; -1 is nobody."""

    def __init__(self, ids: np.ndarray) -> None:
        self.count, self.width = ids.shape
        self.base = int(ids.max(initial=0)) + 2
        keys = (ids + np.arange(self.count)[:, None] * self.base + 1).reshape(-1)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]
        self.by_id = np.argsort(ids.reshape(-1), kind="stable")
        self.ids = ids.reshape(-1)[self.by_id]

    def find(self, row: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """ids [p, i] in rows [p]: (first place in ``order``, how many)."""
        known = ids + 1 < self.base
        wanted = np.where(known, ids, 0) + row[:, None] * self.base + 1
        first = np.searchsorted(self.keys, wanted, "left")
        last = np.searchsorted(self.keys, wanted, "right")
        return first, np.where(known, last - first, 0)

    def entry(self, row: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """Flat place of ids [p] in rows [p]."""
        first, _ = self.find(row, ids[:, None])
        return self.order[first[:, 0].clip(max=len(self.order) - 1)]

    def entry_anywhere(self, ids: np.ndarray) -> np.ndarray:
        """A flat place of each of ids [n]."""
        return self.by_id[np.searchsorted(self.ids, ids)]

    def rows_with(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in ids, row) for every row that each of ids [n] stands in."""
        first = np.searchsorted(self.ids, ids, "left")
        last = np.searchsorted(self.ids, ids, "right")
        which, entries = ranges(first, last - first)
        return which, self.by_id[entries] // self.width


def _sum(weights: Tensor, values: Tensor) -> Tensor:
    """weights [p, o, i, m, k], values [p, i, m, k, q] -> [p, o, k, q]."""
    p, o, i, m, k = weights.shape
    if k == 1:
        flat = values.reshape(p, i * m, -1)
        if weights.stride(0) == 0 or p == 1:
            return torch.matmul(weights[0].reshape(o, i * m), flat).unsqueeze(2)
        return torch.bmm(weights.reshape(p, o, i * m), flat).unsqueeze(2)
    return torch.einsum("poimk,pimkq->pokq", weights, values)


def _front(letters: str, wanted: list[str]) -> list[int]:
    kept = [letters.index(c) for c in wanted]
    return [*kept, *(k for k in range(len(letters)) if k not in kept)]


def _groups(slots: Slots, groups: np.ndarray) -> Slots:
    """Some groups; all of them cost nothing."""
    if len(groups) == slots.shape[0] and (groups == np.arange(len(groups))).all():
        return slots
    return slots.along(0, groups)


def _small(op: ir.Convolution | ir.ConvolutionTranspose, space: Ints) -> tuple[Ints, Ints]:
    """A map just large enough to show every tap, and the size of the result."""
    kernel, rank = op.weight.shape[2:], len(space)
    small, out = [], []
    for a in range(rank):
        reach = (kernel[a] - 1) * op.dilations[a] + 1
        pads = op.pads[a] + op.pads[a + rank]
        if isinstance(op, ir.Convolution):
            n = min(space[a], reach + 2 * op.strides[a])
            size = (n + pads - reach) // op.strides[a] + 1
        else:
            n = min(space[a], 3 + max(0, pads) // op.strides[a])
            size = (n - 1) * op.strides[a] + reach - pads
        small.append(n)
        out.append(op.out.shape[2 + a] if n == space[a] else size)
    return tuple(small), tuple(out)


def _run(
    op: ir.Convolution | ir.ConvolutionTranspose, weight: Ints, groups: int, space: Ints, out: Ints
) -> Callable[[Tensor, Tensor], Tensor]:
    """The operation with a weight of another shape, on a map of another size."""
    transposed = isinstance(op, ir.ConvolutionTranspose)
    channels = weight[0] if transposed else weight[1] * groups
    results = weight[1] * groups if transposed else weight[0]
    one = replace(
        op,
        weight=Slots.constant(weight, 0),
        groups=groups,
        out=Value(op.out.name, (1, results, *out)),
    )
    return kernel_of(one, {op.x: Value(op.x, (1, channels, *space))}).function
