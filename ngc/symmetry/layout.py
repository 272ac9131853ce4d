"""How values lay out the scalars of their neurons.

A neuron carries one scalar per position. Two neurons can be exchanged only if every operation
meets the same positions of both at the same places: not if a shift moves one channel to the left
and the other to the right, nor if a constant is added that differs between them. An index array
does not show that, so each of its entries gets a *frame*: a colour for which scalars of the neuron
lie there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ngc.ir import program as ir
from ngc.ir.index import IndexArray, matching_runs
from ngc.ir.program import Ints, Ref
from ngc.ir.slots import Slots
from ngc.symmetry.hashing import colour, folded, mixed


@dataclass(frozen=True, eq=False)
class Layout:
    """Frames of a value.

    frames: uint64, broadcasts to shape, varies only along axes where ids do (a constant: where it
    does itself). copies: axes along which the scalars repeat.
    """

    shape: Ints
    ids: np.ndarray
    frames: np.ndarray
    copies: frozenset[int]
    constant: bool = False

    @classmethod
    def plain(cls, index: IndexArray, copies: Iterable[int] = ()) -> Layout:
        """Every neuron with all of its positions in one entry."""
        rank = len(index.shape)
        single = frozenset(a for a in range(rank) if index.shape[a] == 1)
        frames = np.full((1,) * rank, colour("plain"))
        return cls(tuple(index.shape), index.ids, frames, frozenset(copies) | single)

    @classmethod
    def of(cls, index: IndexArray, frames: np.ndarray, copies: Iterable[int]) -> Layout:
        """Frames along axes of positions are folded into one."""
        still = tuple(a for a, n in enumerate(index.ids.shape) if n == 1)
        return replace(cls.plain(index, copies), frames=folded(frames, still))

    def unfolded(self, axes: Iterable[int]) -> np.ndarray:
        """The frames, with positions along these axes told apart."""
        frames = self.frames
        if not self.constant:
            for axis in _positions(self).intersection(axes):
                sizes = [1] * len(self.shape)
                sizes[axis] = -1
                frames = mixed(frames, np.arange(self.shape[axis]).reshape(sizes))
        return frames

    def moved(self, *key: object) -> np.ndarray:
        """The frames, after a move of positions that ``key`` describes."""
        return mixed(self.frames, colour(*key))

    def token(self) -> tuple[np.ndarray, np.ndarray]:
        """For each neuron of the value: the colour of its frames, entry after entry."""
        neurons = self.ids.reshape(-1)
        if self.frames.size == 1:
            counts = np.bincount(neurons, minlength=1)
            present = np.flatnonzero(counts)
            return present, mixed(self.frames.reshape(-1)[0], counts[present])
        frames = np.broadcast_to(self.frames, self.ids.shape).reshape(-1)
        order = np.argsort(neurons, kind="stable")
        ordered = neurons[order]
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        place = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
        return ordered[starts], np.add.reduceat(mixed(frames[order], place), starts)

    def split(self) -> bool:
        """Whether some neuron lies in several entries with different scalars."""
        if self.frames.size == 1:
            return False
        frames = np.broadcast_to(self.frames, self.ids.shape).reshape(-1)
        neurons = self.ids.reshape(-1)
        order = np.lexsort((frames, neurons))
        same = neurons[order][1:] == neurons[order][:-1]
        return bool((same & (frames[order][1:] != frames[order][:-1])).any())


Mark = Callable[[np.ndarray], None]


class Layouts:
    """Frames of all values of a program. ``fix`` is called with neurons that must not move."""

    def __init__(self, program: ir.Program, index: dict[Ref, IndexArray], fix: Mark) -> None:
        self.index, self.fix = index, fix
        self.of: dict[Ref, Layout] = {}
        for op in program.ops:
            if 0 in op.out.shape or any(0 in self.of[ref].shape for ref in op.inputs):
                self.of[op.out.name] = Layout.plain(index[op.out.name])
                fix(index[op.out.name].ids)
            else:
                self.of[op.out.name] = self._layout(op, index[op.out.name])

    def _layout(self, op: ir.Op, out: IndexArray) -> Layout:
        match op:
            case ir.Input() | ir.Parameter():
                return Layout.plain(out)
            case ir.Constant(data=data):
                return _constant(data.numpy(), out)
            case ir.Concat():
                return self._concat(op, out)
            case ir.Pad():
                return _pad(op, self.of[op.x], out)
            case _ if op.is_view:
                return self._view(op, self.of[op.inputs[0]], out)
            case ir.Reduce():
                return self._reduce(op, out)
            case ir.Linear():
                return self._linear(op, out)
            case ir.Contract():
                return self._contract(op, out)
            case ir.Convolution() | ir.ConvolutionTranspose():
                return self._convolution(op, out)
            case ir.Embedding(ids=ids):
                x = self.of[ids]
                return Layout.of(out, _ranked(x.frames, len(out.shape), 0), ())
            case ir.Gather(axis=axis) if op.fn == "axis" and self.of[op.x].ids.shape[axis] == 1:
                self.fix(self.of[op.ids].ids)
                return self._gather(op, out)
            case ir.Scatter(axis=axis) if all(
                self.of[ref].ids.shape[axis] == 1 for ref in op.inputs
            ):
                self.fix(self.of[op.ids].ids)
                written = self._pointwise(op, out)  # at positions that are the same for all neurons
                return Layout.of(out, written.frames, written.copies - {axis})
            case ir.Gather() | ir.Scatter():
                return self._opaque(op, out)
            case ir.Cumulate(axis=axis) | ir.TopK(axis=axis):
                return self._along(op, [axis], out)
            case ir.Resize(axes=axes):
                return self._along(op, list(axes), out)
            case ir.Pool():
                return self._along(op, list(range(2, len(out.shape))), out)
            case ir.Normalise():
                self._check_rows(op.x, list(op.axes))
        return self._pointwise(op, out)

    def _opaque(self, op: ir.Op, out: IndexArray) -> Layout:
        """Nothing known: nothing moves."""
        for ref in op.inputs:
            self.fix(self.index[ref].ids)
        self.fix(out.ids)
        return Layout.plain(out)

    # --- entry by entry ---

    def _pointwise(self, op: ir.Op, out: IndexArray) -> Layout:
        """Frames of the operands, met at the same entry."""
        rank = len(out.shape)
        parts, copies = [], set(range(rank))
        for ref in op.inputs:
            x = self.of[ref]
            lead = rank - len(x.shape)
            axes = [a - lead for a in out.varying if a >= lead]
            frames = _ranked(x.unfolded(axes), rank, lead)
            parts.append(folded(frames, tuple(a for a in range(rank) if a not in out.varying)))
            copies -= {a + lead for a in range(len(x.shape)) if a not in x.copies}
        for slots in op.operands.values():
            lead = 1 if isinstance(op, ir.BatchNorm) else rank - slots.ndim
            copies -= {a + lead for a in _moving(slots)}
        if len(op.inputs) == 1 and self.of[op.inputs[0]].constant and not op.operands:
            x = self.of[op.inputs[0]]
            return replace(x, ids=out.ids, frames=mixed(x.frames, colour(op.mnemonic)))
        return Layout.of(out, mixed(*parts), copies)

    def _along(self, op: ir.Op, axes: list[int], out: IndexArray) -> Layout:
        x = self.of[op.inputs[0]]
        if any(x.ids.shape[a] > 1 for a in axes):
            return self._opaque(op, out)
        return Layout.of(out, x.frames, x.copies - set(axes))

    def _gather(self, op: ir.Gather, out: IndexArray) -> Layout:
        """Positions picked by data, the same for all neurons."""
        sizes = self.of[op.x].frames.shape
        picked = (1,) * len(self.of[op.ids].shape)
        frames = self.of[op.x].frames.reshape(sizes[: op.axis] + picked + sizes[op.axis + 1 :])
        return Layout.of(out, frames, ())

    def _check_rows(self, ref: Ref, axes: Sequence[int], order_counts: bool = False) -> None:
        """Where neurons meet along ``axes`` row by row, rows must differ by their neurons only."""
        x = self.of[ref]
        inner = [a for a in axes if x.ids.shape[a] > 1]
        outer = [a for a in range(x.ids.ndim) if a not in inner and x.ids.shape[a] > 1]
        if not inner or not outer:
            return
        # Neurons that lie in one row only, or once in each, leave nothing open.
        row = np.arange(int(np.prod([x.ids.shape[a] for a in outer])))
        row = row.reshape([n if a in outer else 1 for a, n in enumerate(x.ids.shape)])
        pairs = np.stack([x.ids.reshape(-1), np.broadcast_to(row, x.ids.shape).reshape(-1)])
        neurons, rows = pairs[:, np.lexsort(pairs[::-1])]
        same = neurons[1:] == neurons[:-1]
        several = np.unique(neurons[1:][same & (rows[1:] != rows[:-1])])
        twice = np.unique(neurons[1:][same & (rows[1:] == rows[:-1])])
        mingled = not order_counts and len(np.intersect1d(several, twice)) > 0
        if mingled or (len(several) and x.split()):
            self.fix(x.ids)

    # --- contractions ---

    def _reduce(self, op: ir.Reduce, out: IndexArray) -> Layout:
        x = self.of[op.x]
        self._check_rows(op.x, op.axes)
        frames = x.frames
        for a in op.axes:
            frames = mixed(frames).sum(axis=a, keepdims=True, dtype=np.uint64)
        kept = [a for a in range(len(x.shape)) if op.keepdims or a not in op.axes]
        frames = frames.reshape([frames.shape[a] for a in kept])
        copies = [k for k, a in enumerate(kept) if a in x.copies and a not in op.axes]
        return Layout.of(out, frames, copies)

    def _linear(self, op: ir.Linear, out: IndexArray) -> Layout:
        x = self.of[op.x]
        left, right, result = op.spec.replace("->", ",").split(",")
        contracted = [a for a, c in enumerate(left) if c not in result]
        self._check_rows(op.x, contracted, order_counts=True)
        frames = folded(x.frames, tuple(contracted))
        copies = [result.index(c) for a, c in enumerate(left) if a in x.copies and c in result]
        copies = [a for a in copies if result[a] not in right]
        return Layout.of(out, _lettered(frames, left, result), copies)

    def _contract(self, op: ir.Contract, out: IndexArray) -> Layout:
        left, right, result = op.spec.replace("->", ",").split(",")
        a, b = self.of[op.a], self.of[op.b]
        meeting = [c for c in left if c in right]
        inner = {c for c in left + right if c not in result}
        parts = []
        copies = set(range(len(result)))
        for x, letters, other, others in ((a, left, b, right), (b, right, a, left)):
            self._check_rows(
                op.a if x is a else op.b, [letters.index(c) for c in inner if c in letters]
            )
            for c in meeting:
                here, there = letters.index(c), others.index(c)
                lone = other.ids.shape[there] == 1 and other.shape[there] > 1
                apart = (lone and there not in other.copies) or other.split()
                if c in inner and x.ids.shape[here] > 1 and apart:
                    self.fix(x.ids)  # each of its neurons meets another position
            axes = [
                letters.index(c) for k, c in enumerate(result) if c in letters and k in out.varying
            ]
            frames = x.unfolded(axes)
            inside = tuple(k for k, c in enumerate(letters) if c in inner)
            parts.append(_lettered(folded(frames, inside), letters, result))
            copies -= {
                result.index(c) for k, c in enumerate(letters) if c in result and k not in x.copies
            }
        return Layout.of(out, mixed(*parts), copies)

    def _convolution(self, op: ir.Convolution | ir.ConvolutionTranspose, out: IndexArray) -> Layout:
        x = self.of[op.x]
        varying = [a for a, n in enumerate(x.ids.shape) if n > 1]
        if 1 not in varying and out.ids.shape == x.ids.shape and varying:
            return Layout.of(out, x.frames, ())  # 1 x 1, over an axis of positions
        if x.split() and (op.groups > 1 or varying != [1]):
            self.fix(x.ids)
            self.fix(out.ids)
        # Neurons that read certain positions only: by group, by place.
        frames = np.full((1,) * len(out.shape), colour("convolution"))
        for axis in _positions(x):
            if axis and out.ids.shape[axis] > 1 and (axis > 1 or op.groups > 1):
                part = out.shape[1] // op.groups if axis == 1 else 1
                sizes = [1] * len(out.shape)
                sizes[axis] = -1
                frames = mixed(frames, (np.arange(out.shape[axis]) // part).reshape(sizes))
        return Layout.of(out, frames, ())

    # --- data movement ---

    def _view(self, op: ir.Op, x: Layout, out: IndexArray) -> Layout:
        if x.constant:
            return _constant(IndexArray.of(x.frames, x.shape).move(op).full(), out)
        match op:
            case ir.Reshape():
                return _reshape(x, out)
            case ir.Transpose(perm=perm):
                places = [a for a in perm if a in _positions(x)]
                order = [sorted(places).index(a) for a in places]
                frames = x.frames if order == sorted(order) else x.moved("transpose", order)
                kept = [k for k, a in enumerate(perm) if a in x.copies]
                return Layout.of(out, frames.transpose(perm), kept)
            case ir.Slice(starts=starts, steps=steps):
                return _slice(x, out, starts, steps)
            case ir.Expand():
                lead = len(out.shape) - len(x.shape)
                copies = {a + lead for a in x.copies} | set(range(lead))
                return Layout.of(out, _ranked(x.frames, len(out.shape), lead), copies)
            case ir.Take(axis=axis, index=index):
                if x.frames.shape[axis] > 1:
                    return Layout.of(out, np.take(x.frames, index.numpy(), axis=axis), x.copies)
                frames = x.moved("take", axis, index) if axis in _positions(x) else x.frames
                return Layout.of(out, frames, x.copies)
        # Select: any order at all. Entry by entry, positions told apart.
        assert isinstance(op, ir.Select)
        frames = np.broadcast_to(x.unfolded(range(len(x.shape))), x.shape)
        picked = frames.reshape(-1)[op.index.numpy()]
        return Layout.of(out, picked.reshape(out.shape), ())

    def _concat(self, op: ir.Concat, out: IndexArray) -> Layout:
        parts, axis, rank = [self.of[ref] for ref in op.xs], op.axis, len(out.shape)
        if all(p.constant for p in parts):
            whole = np.concatenate([np.broadcast_to(p.frames, p.shape) for p in parts], axis=axis)
            return _constant(whole, out)
        parts = [_settled(p) for p in parts]
        copies = frozenset(range(rank)).intersection(*(p.copies for p in parts)) - {axis}
        one_after_another = out.ids.shape[axis] == out.shape[axis] > 1
        others = [a for a in range(rank) if a != axis and a in out.varying]
        if one_after_another:
            spread = []
            for p in parts:
                frames = p.unfolded([axis, *others])
                sizes = [out.ids.shape[a] for a in range(rank)]
                sizes[axis] = p.shape[axis]
                spread.append(np.broadcast_to(folded(frames, _still(sizes)), sizes))
            return Layout.of(out, np.concatenate(spread, axis=axis), copies)
        frames = mixed(*(folded(p.unfolded(others), (axis,)) for p in parts))
        return Layout.of(
            out, mixed(frames, colour("concat", tuple(p.shape[axis] for p in parts))), copies
        )


def _still(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(a for a, n in enumerate(sizes) if n == 1)


def _positions(x: Layout) -> set[int]:
    return {a for a, n in enumerate(x.shape) if n > 1 and x.ids.shape[a] == 1 and a not in x.copies}


def _constant(contents: np.ndarray, out: IndexArray) -> Layout:
    numbers = np.unique(contents, return_inverse=True)[1].reshape(out.shape)
    varied = IndexArray.of(numbers, out.shape).ids
    values = contents.astype(np.uint64) if contents.dtype == np.uint64 else numbers
    frames = mixed(
        IndexArray.of(values.reshape(out.shape), out.shape).ids, colour(contents.tobytes())
    )
    copies = frozenset(a for a, n in enumerate(varied.shape) if n == 1)
    return Layout(tuple(out.shape), out.ids, frames, copies, constant=True)


def _settled(x: Layout) -> Layout:
    """A constant as an ordinary value: what it holds, folded into one frame."""
    if not x.constant:
        return x
    return replace(x, frames=folded(x.frames, _still(x.ids.shape)), constant=False)


def _ranked(frames: np.ndarray, rank: int, lead: int) -> np.ndarray:
    """With axes of size 1 in front and behind."""
    return frames.reshape((1,) * lead + frames.shape + (1,) * (rank - lead - frames.ndim))


def _lettered(frames: np.ndarray, letters: str, result: str) -> np.ndarray:
    """Axes named by letters where the result has them; those it lacks have size 1."""
    kept = sorted((result.index(c), k) for k, c in enumerate(letters) if c in result)
    rest = [k for k, c in enumerate(letters) if c not in result]
    sizes = [1] * len(result)
    for place, k in kept:
        sizes[place] = frames.shape[k]
    return frames.transpose([k for _, k in kept] + rest).reshape(sizes)


def _moving(slots: Slots) -> list[int]:
    if slots.entries is None:
        return [a for a, n in enumerate(slots.shape) if n > 1 and slots.strides[a]]
    return list(IndexArray.of(slots.numpy(), slots.shape).varying)


def _reshape(x: Layout, out: IndexArray) -> Layout:
    """Positions that merge with neurons are told apart; those that stay by themselves move."""
    apart, moves, copies, sizes = [], [], [], []
    for old, new in matching_runs(x.shape, out.shape):
        if any(x.ids.shape[a] > 1 for a in old):
            apart += old
            sizes += [out.shape[a] for a in new]
        else:
            sizes += [1] * len(new)
            if all(a in x.copies for a in old):
                copies += new
            elif [x.shape[a] for a in old if x.shape[a] > 1] != [
                out.shape[a] for a in new if out.shape[a] > 1
            ]:
                moves.append((tuple(x.shape[a] for a in old), tuple(out.shape[a] for a in new)))
    frames = np.broadcast_to(
        x.unfolded(apart), [n if a in apart else 1 for a, n in enumerate(x.shape)]
    )
    if moves:
        frames = mixed(frames, colour("reshape", moves))
    return Layout.of(out, frames.reshape(sizes), copies)


def _slice(x: Layout, out: IndexArray, starts: Ints, steps: Ints) -> Layout:
    frames = x.frames
    taken = []
    for a in range(len(x.shape)):
        n = out.shape[a]
        if frames.shape[a] > 1:
            frames = np.take(frames, starts[a] + steps[a] * np.arange(n), axis=a)
        elif a in _positions(x) and (n != x.shape[a] or starts[a] or steps[a] != 1):
            taken.append((a, starts[a], steps[a], n))
    if taken:
        frames = mixed(frames, colour("slice", taken))
    return Layout.of(out, frames, x.copies)


def _pad(op: ir.Pad, x: Layout, out: IndexArray) -> Layout:
    rank = len(out.shape)
    if x.constant:
        x = _settled(x)
    wide = [(op.pads[a], op.pads[rank + a]) if x.ids.shape[a] > 1 else (0, 0) for a in range(rank)]
    along = [
        (a, op.pads[a], op.pads[rank + a])
        for a in range(rank)
        if x.ids.shape[a] == 1 and (op.pads[a] or op.pads[rank + a])
    ]
    frames = x.frames
    if along:
        frames = mixed(frames, colour("pad", along, op.value))
    if any(sum(pair) for pair in wide):
        frames = np.pad(np.broadcast_to(frames, x.ids.shape), wide)
    return Layout.of(out, frames, x.copies - {a for a, _, _ in along})
