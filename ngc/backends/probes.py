"""Probe inputs through compiled networks: the value of every neuron (paper, Eq. 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ngc.backends.graphs import Shapes, shapes_text
from ngc.backends.torch_exec import Executor
from ngc.errors import ShapeError
from ngc.ir.graph import NODE_ROLES
from ngc.passes.wire import Wiring
from ngc.plan import Plan


@dataclass(frozen=True, eq=False)
class _Reading:
    """The nodes whose neurons hold elements of one value of the program; of a loop, of its values
    in all steps.

    ``elements`` [nodes, positions]: places in each value, flattened; a node's activation is the
    mean.
    """

    values: tuple[str, ...]
    nodes: np.ndarray
    elements: np.ndarray


class _Reader:
    """Picks the activations of ``count`` nodes out of the values of a program."""

    def __init__(self, readings: list[_Reading], count: int) -> None:
        self.readings, self.count = readings, count
        self.names = list(dict.fromkeys(name for reading in readings for name in reading.values))
        self._indices: dict[torch.device, tuple[list[Tensor], Tensor]] = {}

    @property
    def unread(self) -> int:
        """Nodes that hold no value of the network."""
        return self.count - sum(len(reading.nodes) for reading in self.readings)

    def of(self, nodes: np.ndarray) -> _Reader:
        """The same for some of the nodes, in this order."""
        place = np.full(self.count, -1)
        place[nodes] = np.arange(len(nodes))
        kept = []
        for reading in self.readings:
            chosen = place[reading.nodes] >= 0
            if chosen.any():
                at = place[reading.nodes[chosen]]
                kept.append(_Reading(reading.values, at, reading.elements[chosen]))
        return _Reader(kept, len(nodes))

    def on(self, device: torch.device) -> tuple[list[Tensor], Tensor]:
        """Elements of each reading, and where each node lies in all of them joined."""
        if device not in self._indices:
            elements = [torch.from_numpy(r.elements).to(device) for r in self.readings]
            nodes = np.concatenate([np.zeros(0, np.int64), *(r.nodes for r in self.readings)])
            rest = np.setdiff1d(np.arange(self.count), nodes)
            order = np.argsort(np.concatenate([nodes, rest]))
            self._indices[device] = elements, torch.from_numpy(order).to(device)
        return self._indices[device]


class Prober:
    """The networks of one plan as a function from probe inputs to activations of the nodes.

    A node's activation is that of the neuron whose value it holds (after its activation function
    and pooling), averaged over positions; a copy of a neuron at one place has the value there.
    Nodes that hold no value of the network (position neurons, padding) read zero.
    """

    def __init__(self, wiring: Wiring, plan: Plan) -> None:
        self.program = wiring.program
        self.free_axes = [_free_axes(wiring, op.out.name) for op in self.program.inputs]
        self.executor = Executor(self.program)
        self.nodes = _Reader(_readings(wiring, plan), plan.num_nodes)
        outputs = plan.graph.nodes.role == NODE_ROLES.index("output")
        self.outputs = self.nodes.of(np.flatnonzero(outputs))

    @property
    def input_shapes(self) -> Shapes:
        return tuple(op.out.shape for op in self.program.inputs)

    @property
    def num_values(self) -> int:
        """How many numbers a network computes for one probe."""
        return sum(math.prod(op.out.shape) for op in self.program.ops)

    def on(self, weights: Tensor) -> Running:
        """The networks of weights [graphs, slots] as such a function."""
        return Running(self, weights)

    def mismatch(self, shapes: Shapes) -> str:
        """What the networks read in place of probes of these shapes; nothing where they fit. A
        probe of one entry along an axis without neurons, the batch, is repeated along it."""
        fits = len(shapes) == len(self.input_shapes) and all(
            len(given) == len(own)
            and all(n == m or (n == 1 and k in free) for k, (n, m) in enumerate(zip(given, own)))
            for given, own, free in zip(shapes, self.input_shapes, self.free_axes)
        )
        return "" if fits else f"inputs {shapes_text(self.input_shapes)}"

    def __call__(self, weights: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """Activations [graphs, nodes, m] of weights [graphs, slots] on m probes, one tensor
        [m, *shape] for each input of the networks. Differentiable in both."""
        return self._read(self.nodes, weights, inputs)

    def answers(self, weights: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        """The same of the output neurons alone, in order; nothing else is kept."""
        return self._read(self.outputs, weights, inputs)

    def _read(self, reader: _Reader, weights: Tensor, inputs: Sequence[Tensor]) -> Tensor:
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in inputs)
        if theirs := self.mismatch(shapes):
            raise ShapeError(
                f"the probes have shapes {shapes_text(shapes)}, the network {theirs}",
                where=self.program.name,
            )
        inputs = [
            tensor.expand(len(tensor), *own) for tensor, own in zip(inputs, self.input_shapes)
        ]

        def one(vector: Tensor, *probe: Tensor) -> list[Tensor]:
            given = {op.out.name: tensor for op, tensor in zip(self.program.inputs, probe)}
            values = self.executor.record(vector, given, reader.names)[1]
            flat = {name: values[name].reshape(-1).to(vector.dtype) for name in reader.names}
            steps = ([flat[name] for name in reading.values] for reading in reader.readings)
            return [each[0] if len(each) == 1 else torch.stack(each).mean(0) for each in steps]

        probes = torch.func.vmap(one, in_dims=(None, *(0 for _ in inputs)))
        networks = torch.func.vmap(probes, in_dims=(0, *(None for _ in inputs)))
        # A network in low precision is another network: sines take angles of many radians.
        with torch.autocast(weights.device.type, enabled=False):
            found = networks(weights, *inputs)  # each [graphs, m, elements]
        elements, order = reader.on(weights.device)
        pieces = [
            value[..., index[:, 0]] if index.shape[1] == 1 else value[..., index].mean(-1)
            for value, index in zip(found, elements)
        ]
        pieces.append(weights.new_zeros(len(weights), len(inputs[0]), reader.unread))
        return torch.cat(pieces, dim=-1)[..., order].transpose(1, 2)


def common_inputs(probers: Sequence[Prober]) -> Shapes:
    """Shapes of probes that all networks can be run on; none where there are no such."""
    smallest = min(probers, key=lambda prober: sum(math.prod(s) for s in prober.input_shapes))
    shapes = smallest.input_shapes
    return () if any(prober.mismatch(shapes) for prober in probers) else shapes


@dataclass(frozen=True, eq=False)
class Running:
    """The networks of weights [graphs, slots], for models to run on inputs of theirs."""

    prober: Prober
    weights: Tensor

    def __call__(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.prober(self.weights, inputs)

    def answers(self, inputs: Sequence[Tensor]) -> Tensor:
        return self.prober.answers(self.weights, inputs)

    def on(self, weights: Tensor) -> Running:
        return self.prober.on(weights)

    @property
    def num_values(self) -> int:
        return self.prober.num_values

    def mismatch(self, shapes: Shapes) -> str:
        return self.prober.mismatch(shapes)


def _free_axes(wiring: Wiring, name: str) -> set[int]:
    """Axes of a value along which it is always the same neuron."""
    neurons = wiring.index[name].full()
    axes = range(neurons.ndim)
    return {axis for axis in axes if (neurons == neurons.take([0], axis)).all()}


def _readings(wiring: Wiring, plan: Plan) -> list[_Reading]:
    nodes, ops = plan.graph.nodes, wiring.program.ops
    born = wiring.op_of()[nodes.neuron] if len(nodes) else np.zeros(0, np.int64)
    readings = []
    steps: dict[int, list[int]] = {}
    for later, first in wiring.first.items():
        steps.setdefault(first, []).append(later)
    for number in np.unique(born).tolist():
        value = ops[number].out
        names = tuple(ops[n].out.name for n in (number, *steps.get(number, [])))
        rows = np.flatnonzero(born == number)
        index = wiring.index[value.name]
        ids = np.ascontiguousarray(index.full()).reshape(-1)
        order = np.argsort(ids, kind="stable")
        starts = np.searchsorted(ids[order], nodes.neuron[rows], side="left")
        stops = np.searchsorted(ids[order], nodes.neuron[rows], side="right")
        columns = value.shape[-1] if value.shape else 1
        groups: dict[int, tuple[list[int], list[np.ndarray]]] = {}
        for row, start, stop in zip(rows.tolist(), starts.tolist(), stops.tolist()):
            elements = order[start:stop]
            down, across = nodes.place[row].tolist()
            if down >= 0 and len(elements) > 1:
                elements = elements[down * columns + across][None]
            if len(elements):
                kept = groups.setdefault(len(elements), ([], []))
                kept[0].append(row)
                kept[1].append(elements)
        for chosen, elements_of in groups.values():
            readings.append(_Reading(names, np.array(chosen), np.stack(elements_of)))
    return readings
