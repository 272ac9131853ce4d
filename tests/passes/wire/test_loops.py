"""Recurrent networks have one set of neurons and edges, however many steps are written out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx.parser
import pytest
import torch
from torch import Tensor, nn

import ngc
from ngc.backends.probes import Prober
from ngc.compiler import Compilation
from ngc.ir.graph import EDGE_KINDS
from ngc.passes.wire.loops import find_loops
from ngc.recompute import recompute
from ngc.symmetry import symmetries

HIDDEN = 4


def kinds(compiled: Compilation) -> Counter[str]:
    return Counter(EDGE_KINDS[kind] for kind in compiled.graph().edge_kind.tolist())


def proven(
    model: nn.Module, *inputs: Tensor | Sequence[Tensor], recurrent: str = "rolled"
) -> Compilation:
    compiled = ngc.compile(model, inputs, recurrent=recurrent)
    verification = ngc.verify(compiled)
    assert verification.passed, verification.checks
    return compiled


class Steps(nn.Module):
    """A cell applied step by step. ``cell(x, *states)`` gives the next states."""

    def __init__(self, cell: nn.Module, states: int, each: bool = False) -> None:
        super().__init__()
        self.cell, self.states, self.each = cell, states, each
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        states = [x.new_zeros(x.shape[0], HIDDEN, *x.shape[3:]) for _ in range(self.states)]
        outputs = []
        for t in range(x.shape[1]):
            states = list(self.cell(x[:, t], *states))
            outputs.append(self.head(states[0]) if self.each else states[0])
        return torch.stack(outputs, 1) if self.each else outputs[-1]


class Joined(nn.Module):
    """A cell with one matrix for input and state."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(3 + HIDDEN, HIDDEN)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor]:
        return (self.weight(torch.cat([x, h], -1)).tanh(),)


class Independent(nn.Module):
    """A cell whose units see their own state only."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again = nn.Linear(3, HIDDEN), nn.Parameter(torch.randn(HIDDEN))

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor]:
        return (torch.relu(self.enter(x) + self.again * h),)


class Peepholes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(3, 4 * HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN, bias=False)
        self.p = nn.Parameter(torch.randn(3, HIDDEN))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = (self.x(x) + self.h(h)).chunk(4, -1)
        c = torch.sigmoid(f + self.p[1] * c) * c + torch.sigmoid(i + self.p[0] * c) * g.tanh()
        return torch.sigmoid(o + self.p[2] * c) * c.tanh(), c


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.Conv2d(3 + HIDDEN, 4 * HIDDEN, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c


class Long(nn.Module):
    """nn.LSTMCell, with states one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(3, HIDDEN)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        out, memory = self.cell(x, (h, c))
        return out, memory


@pytest.mark.parametrize(
    ("cell", "recurrent"),
    [
        (nn.RNN, HIDDEN * HIDDEN),
        (nn.GRU, 3 * HIDDEN * HIDDEN + HIDDEN),  # and the state that is kept
        (nn.LSTM, 4 * HIDDEN * HIDDEN + HIDDEN),  # and the memory
    ],
)
def test_the_graph_does_not_grow_with_the_sequence(cell: type[nn.RNNBase], recurrent: int) -> None:
    model = cell(3, HIDDEN, batch_first=True)
    short, long = (proven(model, torch.randn(2, steps, 3)) for steps in (2, 6))
    assert kinds(short) == kinds(long)
    assert kinds(long)["recurrent"] == recurrent
    assert short.plan.num_nodes == long.plan.num_nodes


@pytest.mark.parametrize(
    ("cell", "states", "recurrent"),
    [
        (Long, 2, 4 * HIDDEN * HIDDEN + HIDDEN),
        (Joined, 1, HIDDEN * HIDDEN),
        (Independent, 1, HIDDEN),
        (Peepholes, 2, 4 * HIDDEN * HIDDEN + 3 * HIDDEN),
        (Convolutional, 2, 4 * HIDDEN * HIDDEN + HIDDEN),
    ],
)
def test_cells_in_a_python_loop_are_found(
    cell: Callable[[], nn.Module], states: int, recurrent: int
) -> None:
    size = (3, 4, 4) if cell is Convolutional else (3,)
    each = cell is not Convolutional
    model = Steps(cell(), states, each)
    short, long = (proven(model, torch.randn(1, steps, *size)) for steps in (2, 5))
    assert kinds(short) == kinds(long)
    assert kinds(long)["recurrent"] == recurrent


def test_unrolled_has_neurons_for_every_step() -> None:
    model, x = nn.LSTM(3, HIDDEN, batch_first=True), torch.randn(1, 5, 3)
    rolled, unrolled = (proven(model, x, recurrent=how) for how in ("rolled", "unrolled"))
    assert unrolled.plan.num_nodes > 3 * rolled.plan.num_nodes
    assert kinds(unrolled)["recurrent"] == kinds(unrolled)["initial"] == 0


def test_given_states_lead_to_the_states_that_they_start() -> None:
    states = (torch.randn(1, 1, HIDDEN), torch.randn(1, 1, HIDDEN))
    compiled = proven(nn.LSTM(3, HIDDEN, batch_first=True), torch.randn(1, 3, 3), states)
    assert kinds(compiled)["initial"] == 2 * HIDDEN
    assert kinds(proven(nn.LSTM(3, HIDDEN), torch.randn(3, 1, 3)))["initial"] == 0


class Backward(nn.Module):
    """Reads a list from its end."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.cell = nn.Linear(3, 3), nn.RNNCell(3, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], HIDDEN)
        for each in reversed(self.enter(x).relu().unbind(1)):
            h = self.cell(each, h)
        return h


class Mixed(nn.Module):
    """A cell whose answers are gated by input and state of before."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.v, self.q = nn.RNNCell(3, HIDDEN), nn.Linear(HIDDEN, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        outputs = []
        for t in range(x.shape[1]):
            gate = (self.v(h) + self.q(x[:, t])).sigmoid()
            h = self.cell(x[:, t], h)
            outputs.append(gate * h)
        return torch.stack(outputs, 1)


class Gated(nn.Module):
    """nn.GRUCell, from zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], HIDDEN)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return h


class Pair(nn.Module):
    """Two states that one matrix reads and writes."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(3 + 2 * HIDDEN, 2 * HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = g = x.new_zeros(x.shape[0], HIDDEN)
        for t in range(x.shape[1]):
            h, g = self.w(torch.cat([x[:, t], h, g], -1)).tanh().chunk(2, -1)
        return h


@pytest.mark.parametrize(
    ("model", "recurrent", "initial"),
    [
        (Backward, HIDDEN * HIDDEN, 0),
        (Mixed, 2 * HIDDEN * HIDDEN, HIDDEN),
        (Gated, 3 * HIDDEN * HIDDEN + HIDDEN, 0),
        (Pair, 4 * HIDDEN * HIDDEN, 0),
    ],
)
def test_each_step_is_like_the_first(
    model: Callable[[], nn.Module], recurrent: int, initial: int
) -> None:
    network = model()
    inputs = [torch.randn(1, HIDDEN)] if initial else []
    short, long = (proven(network, torch.randn(1, steps, 3), *inputs) for steps in (3, 6))
    assert kinds(short) == kinds(long)
    assert (kinds(long)["recurrent"], kinds(long)["initial"]) == (recurrent, initial)


class Leaky(nn.Module):
    """Its first step, of zeros, is simplified by the exporter."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.RNNCell(3, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.shape[0], HIDDEN)
        for t in range(x.shape[1]):
            h = 0.7 * h + 0.3 * self.cell(x[:, t], h)
        return h


def test_a_first_step_that_is_simplified_stays_apart() -> None:
    short, long = (proven(Leaky(), torch.randn(1, steps, 3)) for steps in (4, 7))
    assert kinds(short) == kinds(long)
    assert kinds(long)["initial"] == HIDDEN


@pytest.mark.parametrize("which", ["first", "states"])
def test_the_proof_notices_steps_that_are_not_the_same(which: str) -> None:
    compiled = ngc.compile(nn.LSTM(3, HIDDEN), torch.randn(3, 1, 3))
    wiring, graph = compiled.wiring, compiled.plan.graph
    assert recompute(wiring, graph).faults == ()
    ops = compiled.program.ops
    if which == "first":  # a sigmoid for a tanh of the same neurons
        sigmoid, tanh = (
            next(n for n in wiring.first if getattr(ops[n], "fn", "") == fn)
            for fn in ("sigmoid", "tanh")
        )
        first = wiring.first | {sigmoid: wiring.first[tanh]}
        assert recompute(replace(wiring, first=first), graph).faults
        return
    for reader, states in wiring.states.items():
        for place, state in states.items():
            others = {s for each in wiring.states.values() for s in each.values()} - {state}
            wrong = wiring.states | {reader: states | {place: others.pop()}}
            assert recompute(replace(wiring, states=wrong), graph).faults


SCAN = """<ir_version: 10, opset_import: ["" : 21]>
recurrent (float[3, 1, 3] X) => (float[1, 4] h, float[3, 1, 4] Y)
{
  h, Y = Scan <num_scan_inputs = 1, body = step (float[1, 4] before, float[1, 3] x)
      => (float[1, 4] after, float[1, 4] y) {
    given = MatMul (x, W)
    kept = MatMul (before, U)
    total = Add (given, kept)
    after = Tanh (total)
    y = Identity (after)
  }> (start, X)
}
"""


def test_a_scan_that_starts_from_weights_is_proven_under_other_weights() -> None:
    model = onnx.parser.parse_model(SCAN)
    rng = np.random.default_rng(0)
    for name, shape in (("W", (3, 4)), ("U", (4, 4)), ("start", (1, 4))):
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for how in ("rolled", "unrolled"):
        verification = ngc.verify(ngc.compile(model, recurrent=how))
        assert verification.passed, verification.checks


class Decoder(nn.Module):
    """Starts from what the encoder has read."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.GRU(3, HIDDEN, batch_first=True)
        self.decoder = nn.GRU(3, HIDDEN, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.decoder(y, self.encoder(x)[1])[0]


def test_a_decoder_starts_from_the_state_of_its_encoder() -> None:
    compiled = proven(Decoder(), torch.randn(1, 3, 3), torch.randn(1, 4, 3))
    assert kinds(compiled)["initial"] == HIDDEN
    assert kinds(compiled)["recurrent"] == 2 * (3 * HIDDEN * HIDDEN + HIDDEN)


def test_layers_and_directions_are_loops_of_their_own() -> None:
    model = nn.LSTM(3, HIDDEN, 2, batch_first=True, bidirectional=True)
    compiled = proven(model, torch.randn(1, 4, 3))
    assert len(find_loops(compiled.program)) == 4
    assert kinds(compiled)["recurrent"] == 4 * (4 * HIDDEN * HIDDEN + HIDDEN)


def test_hidden_units_can_be_permuted() -> None:
    """The same permutation in every step."""
    compiled = ngc.compile(Steps(Long(), 2, each=True), torch.randn(1, 4, 3))
    checks = {check.name: check for check in ngc.verify(compiled).checks}
    assert checks["symmetric"].passed
    assert "neurons moved" in checks["symmetric"].figure


class Fixed(nn.Module):
    """A layer repeated from zeros, with the same input each time: no loop."""

    def __init__(self) -> None:
        super().__init__()
        self.again, self.enter = nn.Linear(HIDDEN, HIDDEN), nn.Linear(3, HIDDEN)
        self.head = nn.Linear(HIDDEN, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = x.new_zeros(x.shape[0], HIDDEN)
        for _ in range(3):
            z = torch.tanh(self.again(z) + self.enter(x))
        return self.head(z)


@pytest.mark.parametrize("how", ["rolled", "unrolled"])
def test_units_that_start_from_zeros_can_be_permuted(how: str) -> None:
    compiled = proven(Fixed(), torch.randn(1, 3), recurrent=how)
    group = symmetries(compiled.wiring)
    assert group.log10_order == pytest.approx(math.log10(math.factorial(HIDDEN)))


class Again(nn.Module):
    """The same layer again and again."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            x = torch.relu(self.layer(x))
        return x


def test_layers_that_share_weights_stay_layers() -> None:
    compiled = proven(Again(), torch.randn(1, HIDDEN))
    assert kinds(compiled)["linear"] == 4 * HIDDEN * HIDDEN


class Pixels(nn.Module):
    """Reads a row of features one after the other, and all of them at once."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.all = nn.RNN(1, HIDDEN, batch_first=True), nn.Linear(5, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.all(x) + self.rnn(x.unsqueeze(-1))[0][:, -1]


def test_steps_that_read_neurons_of_their_own_stay_apart() -> None:
    compiled = proven(Pixels(), torch.randn(1, 5))
    assert kinds(compiled)["recurrent"] == 0
    assert any("a loop is not rolled" in note for note in compiled.notes)


class Lagged(nn.Module):
    """Each step reads the state of two steps before."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h = nn.Linear(3, HIDDEN), nn.Linear(HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        states = [x.new_zeros(x.shape[0], HIDDEN)] * 2
        for t in range(x.shape[1]):
            states.append(torch.tanh(self.x(x[:, t]) + self.h(states[-2])))
        return states[-1]


def test_a_state_of_two_steps_before_is_proven_all_the_same() -> None:
    proven(Lagged(), torch.randn(1, 6, 3))


def test_a_state_is_probed_in_all_steps() -> None:
    model, x = nn.RNN(3, HIDDEN, batch_first=True), torch.randn(1, 5, 3)
    compiled = ngc.compile(model, x)
    prober = Prober(compiled.wiring, compiled.plan)
    found = prober(compiled.weights[None], [x[None]])[0, :, 0]
    nodes = compiled.plan.graph.nodes
    state = found[torch.from_numpy(nodes.role == 2)]
    torch.testing.assert_close(state, model(x)[0][0].mean(0))
