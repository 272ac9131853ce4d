"""Slots that several edges read: what moves one of them moves all.

A weight that is read once follows its neurons wherever they go. A weight that is read twice (one
layer applied twice, a decoder that is the encoder transposed, one scale for all heads) has rows and
columns of its own, as points: each neuron is related to the row or column that it reads, and the
structure's symmetries keep that. What fits no such pattern does not move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ngc.ir.slots import FIRST_SLOT, Slots
from ngc.passes.wire import Scalars, Wires, Wiring
from ngc.symmetry.hashing import colour, mixed, summed
from ngc.symmetry.structure import Builder

Part = tuple[
    object, np.ndarray, np.ndarray
]  # (kind of slice, points, address of the slice of each)


@dataclass(eq=False)
class Use:
    """Slots read by a set of edges or by neurons.

    pattern: what a second use must have in common to share rows and columns (None: nothing does).
    parts: for neurons, the slice of the parameter that each reads, by kind and address.
    repeats: some slot is read by several neurons or edges of this use alone.
    """

    number: int
    lowest: int
    highest: int
    slots: Slots | np.ndarray
    pattern: object
    parts: list[Part]
    repeats: bool
    points: list[np.ndarray] = field(default_factory=list)

    def numbers(self) -> np.ndarray:
        return self.slots.numpy() if isinstance(self.slots, Slots) else self.slots


def relate_shared_slots(wiring: Wiring, builder: Builder) -> None:
    """Points and relations for every slot that is read more than once."""
    readers: list[Wires | Scalars] = [*wiring.wires, *wiring.scalars]
    uses = [use for k, reader in enumerate(readers) if (use := _use(k, reader)) is not None]
    for cluster in _clusters(uses):
        if len(cluster) == 1 and not cluster[0].repeats:
            continue
        for joint in _joint(cluster):
            if len(joint) == 1 and not joint[0].repeats:
                continue
            if all(u.pattern is not None and u.pattern == joint[0].pattern for u in joint):
                _relate(joint, builder)
            elif len(joint) == 1:
                _by_pattern(readers[joint[0].number], joint[0], builder)
            else:
                for use in joint:
                    for points in use.points:
                        builder.fix(points)


def _use(number: int, reader: Wires | Scalars) -> Use | None:
    if isinstance(reader, Scalars):
        return _diagonal_use(
            number, reader.neurons, reader.slots, reader.slots, (), [reader.neurons]
        )
    slots = reader.slots
    if slots.entries is None and not any(slots.strides) and slots.offset < FIRST_SLOT:
        return None
    g, o, i, k = slots.shape
    points = [reader.src, reader.dst]
    if o == i == 1:
        if slots.entries is None:
            address = slots.offset + slots.strides[0] * np.arange(g)
            rest = ((slots.strides[3], k),) if slots.strides[3] else ()
            return _diagonal_use(number, reader.dst[:, 0], address, slots, rest, points)
        if k == 1:
            return _diagonal_use(
                number, reader.dst[:, 0], slots.numpy().reshape(-1), slots, (), points
            )
        return _tabled_use(number, reader, points)
    if slots.entries is None and _injective(slots):
        return _strided_use(number, reader, points)
    numbers = slots.numpy()
    distinct = len(np.unique(numbers)) == numbers.size and int(numbers.min()) >= FIRST_SLOT
    return Use(
        number, int(numbers.min()), int(numbers.max()), slots, None, [], not distinct, points
    )


def _diagonal_use(
    number: int,
    neurons: np.ndarray,
    address: np.ndarray,
    slots: Slots | np.ndarray,
    rest: tuple[tuple[int, int], ...],
    points: list[np.ndarray],
) -> Use:
    """One slice of the parameter per neuron."""
    reach = sum(step * (size - 1) for step, size in rest)
    low, high = int(address.min()), int(address.max()) + max(reach, 0)
    distinct = np.unique(address)
    # Slices of several taps must not overlap each other.
    regular = not rest or len(distinct) == 1 or int(np.diff(distinct).min()) > reach >= 0
    if not regular:
        regular = _injective(slots) if isinstance(slots, Slots) else False
    pattern = ("diagonal", rest) if regular else None
    parts: list[Part] = [(rest, neurons, address)]
    return Use(number, low, high, slots, pattern, parts, len(distinct) < len(address), points)


def _tabled_use(number: int, wires: Wires, points: list[np.ndarray]) -> Use:
    """One row of slots per neuron, written out; rows must be equal or have nothing in common."""
    rows = wires.slots.numpy().reshape(len(wires.dst), -1)
    distinct = np.unique(rows, axis=0)
    regular = len(np.unique(distinct)) == distinct.size and int(distinct.min()) >= FIRST_SLOT
    kind = int(colour(distinct.tobytes()))
    pattern = ("diagonal", kind) if regular else None
    parts: list[Part] = [(kind, wires.dst[:, 0], rows[:, 0])]
    repeats = len(distinct) < len(rows) or not regular
    return Use(
        number, int(rows.min()), int(rows.max()), wires.slots, pattern, parts, repeats, points
    )


def _strided_use(number: int, wires: Wires, points: list[np.ndarray]) -> Use:
    slots = wires.slots
    g, o, i, k = slots.shape
    sg, so, si, sk = slots.strides
    group = slots.offset + sg * np.arange(g)[:, None]

    def moving(*axes: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        return tuple(sorted((step, size) for step, size in axes if step))

    parts: list[Part] = [
        (moving((si, i), (sk, k)), wires.dst, group + so * np.arange(o)),
        (moving((so, o), (sk, k)), wires.src, group + si * np.arange(i)),
    ]
    axes = moving((sg, g)), moving((so, o), (si, i)), moving((sk, k))
    reach = [step * (size - 1) for step, size in zip(slots.strides, slots.shape)]
    low = slots.offset + sum(min(r, 0) for r in reach)
    high = slots.offset + sum(max(r, 0) for r in reach)
    repeats = any(step == 0 and size > 1 for step, size in zip((sg, so, si), (g, o, i)))
    return Use(number, low, high, slots, (slots.offset, *axes), parts, repeats, points)


def _injective(slots: Slots) -> bool:
    """Whether different places along axes that move at all have different slots."""
    span = 0
    for step, size in sorted((abs(s), n) for s, n in zip(slots.strides, slots.shape) if s):
        if step <= span:
            return False
        span += step * (size - 1)
    return slots.entries is None


def _clusters(uses: Sequence[Use]) -> list[list[Use]]:
    """Uses whose ranges of slots overlap."""
    result: list[list[Use]] = []
    highest = -1
    for use in sorted(uses, key=lambda u: u.lowest):
        if use.lowest > highest:
            result.append([])
        result[-1].append(use)
        highest = max(highest, use.highest)
    return result


def _joint(cluster: list[Use]) -> list[list[Use]]:
    """Those of a cluster that really read the same slots, slot by slot where it is not plain."""
    first = cluster[0]
    if len(cluster) == 1 or (
        first.pattern is not None and all(u.pattern == first.pattern for u in cluster)
    ):
        return [cluster]
    low = min(u.lowest for u in cluster)
    owner = np.full(max(u.highest for u in cluster) - low + 1, -1, dtype=np.int32)
    pairs: list[tuple[int, int]] = []
    for k, use in enumerate(cluster):
        numbers = use.numbers().reshape(-1) - low
        met = owner[numbers]
        pairs += [(k, int(other)) for other in np.unique(met[met >= 0])]
        owner[numbers] = k
    if not pairs:
        return [[use] for use in cluster]
    a, b = zip(*pairs)
    graph = coo_matrix((np.ones(len(a), dtype=bool), (a, b)), shape=(len(cluster),) * 2)
    label = connected_components(graph, directed=False)[1]
    return [[u for u, c in zip(cluster, label) if c == which] for which in np.unique(label)]


def _relate(uses: list[Use], builder: Builder) -> None:
    kinds: dict[object, list[tuple[int, int, np.ndarray, np.ndarray]]] = {}
    for use in uses:
        for side, (kind, points, address) in enumerate(use.parts):
            kinds.setdefault(kind, []).append(
                (use.number, side, points.reshape(-1), address.reshape(-1))
            )
    for users in kinds.values():
        distinct, inverse = np.unique(np.concatenate([u[3] for u in users]), return_inverse=True)
        slices = builder.points(len(distinct))
        builder.fix(slices[distinct < FIRST_SLOT])
        ends = np.cumsum([len(u[3]) for u in users])
        for (number, side, points, _), which in zip(users, np.split(inverse, ends[:-1])):
            builder.relate(points, slices[which], "slots", number, side)


def _by_pattern(reader: Wires | Scalars, use: Use, builder: Builder) -> None:
    """Slots read repeatedly in no regular way. Where every slot belongs to one neuron of one side,
    neurons of that side with the same pattern of repeats can still be exchanged."""
    if isinstance(reader, Scalars):
        builder.fix(reader.neurons)
        return
    numbers = use.numbers()
    for order, moving, still in (
        ((0, 1, 2, 3), reader.dst, reader.src),
        ((0, 2, 1, 3), reader.src, reader.dst),
    ):
        rows = numbers.transpose(order).reshape(moving.size, -1)
        flat = np.sort(mixed(rows.reshape(-1), np.repeat(np.arange(moving.size), rows.shape[1])))
        num_pairs = 1 + int((flat[1:] != flat[:-1]).sum())
        if (
            num_pairs == len(np.unique(numbers))
            and numbers.min() >= FIRST_SLOT
            and len(numbers) == 1
        ):
            builder.fix(still)
            builder.mark(moving.reshape(-1), _first_places(rows))
            return
    builder.fix(reader.src)
    builder.fix(reader.dst)


def _first_places(rows: np.ndarray) -> np.ndarray:
    """For each row, a colour of which of its entries are equal."""
    n, m = rows.shape
    keys = np.repeat(np.arange(n), m)
    order = np.lexsort((np.tile(np.arange(m), n), rows.reshape(-1), keys))
    value, row = rows.reshape(-1)[order], keys[order]
    start = np.r_[True, (value[1:] != value[:-1]) | (row[1:] != row[:-1])]
    leader = order[np.maximum.accumulate(np.where(start, np.arange(n * m), 0))] % m
    pattern = np.empty(n * m, dtype=np.int64)
    pattern[order] = leader
    return summed(keys, mixed(pattern, np.tile(np.arange(m), n)), n)
