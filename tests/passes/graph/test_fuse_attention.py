"""Fused attention: one node for each head and inner dimension, with edges of (W_Q, W_K, W_V)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import ngc
from ngc.backends.blocks import bind_blocks
from ngc.compiler import Compilation
from ngc.ir.graph import EDGE_KINDS, NODE_KINDS, SCALARS, FusedHeads
from ngc.models import Facts
from ngc.models.ng_gnn import NgGnn
from ngc.models.ng_t import NgT
from ngc.recompute import recompute
from tests.recompute.test_mutations import mutations

SINK = NODE_KINDS.index("parameter")
X = torch.linspace(-1, 1, 20).reshape(1, 5, 4)


class Attention(nn.Module):
    """Heads of ``inner`` dimensions from separate maps, on x or on its first rows."""

    def __init__(
        self, heads: int = 2, groups: int = 2, inner: int = 3, values: int = 3, **other: bool
    ) -> None:
        super().__init__()
        self.sizes, self.other = (heads, groups, inner, values), other
        self.query = nn.Linear(4, heads * inner)
        self.key = nn.Linear(4, groups * inner, bias=False)
        self.value = nn.Linear(4, groups * values)
        self.out = nn.Linear(heads * values, 2)
        self.flat = nn.Linear(5 * heads * values, 2)
        self.shift = nn.Parameter(torch.rand(heads * values))
        self.scale = nn.Parameter(torch.rand(inner) + 0.5)
        self.sink = nn.Parameter(torch.rand(heads))
        self.place = nn.Parameter(torch.rand(heads, 5, 5))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        heads, groups, inner, values = self.sizes
        memory = x[:, :3] if self.other.get("memory") else x
        if self.other.get("cross"):
            memory = torch.tanh(memory)
        q = self.query(x).unflatten(-1, (heads, inner)).transpose(1, 2)
        k = self.key(memory).unflatten(-1, (groups, inner)).transpose(1, 2)
        v = self.value(memory).unflatten(-1, (groups, values)).transpose(1, 2)
        if self.other.get("normed"):
            q = q * q.square().mean(-1, keepdim=True).rsqrt() * self.scale
        k, v = (t.repeat_interleave(heads // groups, dim=1) for t in (k, v))
        if self.other.get("keys_first"):
            a = (k @ q.transpose(2, 3)).softmax(2).transpose(2, 3)
        elif self.other.get("twice"):
            a = (q @ k.transpose(2, 3)).softmax(-1).softmax(-1)
        elif self.other.get("capped"):
            a = (q @ k.transpose(2, 3)).tanh().softmax(-1)
        elif self.other.get("reshaped"):
            scores = (q @ k.transpose(2, 3)).flatten(0, 1)
            a = scores.unflatten(0, (1, heads)).softmax(-1).flatten(0, 1).unflatten(0, (1, heads))
        elif self.other.get("over_all"):
            a = (q @ k.transpose(2, 3)).flatten(2).softmax(-1).unflatten(2, (5, 5))
        elif self.other.get("sunk"):
            sink = self.sink.reshape(1, heads, 1, 1).expand(1, heads, 5, 1)
            scores = torch.cat([q @ k.transpose(2, 3), sink], -1)
            a = (scores - scores.amax(-1, keepdim=True)).softmax(-1)[..., :-1]
        elif self.other.get("over_heads"):
            a = (q @ k.transpose(2, 3)).softmax(1)
        elif self.other.get("flipped"):
            a = torch.einsum("bhkd,bhqd->bhqk", k, q).softmax(-1)
        else:
            scores = q @ k.transpose(2, 3) * inner**-0.5
            if self.other.get("relative"):
                scores = scores + self.place
            if self.other.get("gained"):
                scores = scores * self.place[:, :1, :1]
            a = scores.softmax(-1)
        attended = (a @ v).transpose(1, 2).flatten(2)
        if self.other.get("shifted"):
            attended = attended + self.shift
        if self.other.get("flat"):
            return self.flat(attended.flatten(1))
        y = self.out(attended)
        return (y, a) if self.other.get("shown") else y


def compiled(model: nn.Module, **options: str) -> Compilation:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter)
    return ngc.compile(model.eval(), (X,), attention="fused", **options)


def heads_of(made: Compilation) -> FusedHeads:
    (heads,) = made.plan.graph.fused
    return heads


def triples(made: Compilation) -> Tensor:
    """(W_Q, W_K, W_V) [from, to, 3] of dense attention edges, and the biases [to, 3]."""
    graph = made.graph()
    (results,) = torch.where(graph.node_kind == NODE_KINDS.index("attention"))
    chosen = graph.edge_kind == EDGE_KINDS.index("attention")
    source, target = graph.edge_index[:, chosen]
    number = torch.cumsum(graph.node_kind == NODE_KINDS.index("attention"), 0) - 1
    found = torch.zeros(graph.num_nodes, len(results), 3)
    found[source, number[target]] += graph.edge_attr[chosen][:, -3:]
    return found[source.unique()]


def test_edges_carry_the_weights_of_query_key_and_value() -> None:
    model = Attention()
    found = triples(compiled(model))
    assert found.shape == (4, 6, 3)
    for channel, linear in enumerate((model.query, model.key, model.value)):
        assert torch.equal(found[:, :, channel], linear.weight.T)


def test_nodes_carry_their_biases() -> None:
    model = Attention()
    graph = compiled(model).graph()
    rows = graph.x[graph.node_kind == NODE_KINDS.index("attention")]
    columns = [SCALARS.index(name) for name in ("query_bias", "key_bias", "bias")]
    expected = [model.query.bias, torch.zeros(6), model.value.bias]
    assert torch.equal(rows[:, columns], torch.stack(expected, 1))


def test_queries_keys_values_and_scores_are_no_nodes() -> None:
    graph = compiled(Attention()).plan.graph
    assert graph.num_nodes == 4 + 6 + 2
    assert graph.num_edges == 4 * 6 + 6 * 2


def test_grouped_keys_and_values_stand_at_each_head() -> None:
    model = Attention(heads=4, groups=2)
    found = triples(compiled(model))
    own = model.key.weight.T.reshape(4, 2, 3)
    assert torch.equal(found[:, :, 1].reshape(4, 4, 3), own.repeat_interleave(2, dim=1))


def test_what_is_attended_to_can_be_something_else() -> None:
    """Edges of the query from one set of neurons, of key and value from another."""
    model = Attention(cross=True)
    found = triples(compiled(model))
    assert torch.equal(found[:4, :, 0], model.query.weight.T)
    assert torch.equal(found[4:, :, 2], model.value.weight.T)
    assert not found[:4, :, 1:].any()
    assert not found[4:, :, 0].any()


def test_keys_are_those_that_the_softmax_runs_over() -> None:
    model = Attention(flipped=True)
    found = triples(compiled(model))
    assert torch.equal(found[:, :, 0], model.query.weight.T)
    assert torch.equal(found[:, :, 1], model.key.weight.T)


def test_a_normalised_query_keeps_its_neuron() -> None:
    made = compiled(Attention(normed=True))
    graph = made.graph()
    chosen = graph.edge_kind == EDGE_KINDS.index("attention")
    rows = graph.edge_attr[chosen][:, -3:].tolist()
    assert rows.count([1.0, 0.0, 0.0]) == 6
    assert all(row[0] == 0 for row in rows if row != [1.0, 0.0, 0.0])


def test_relative_positions_act_on_all_nodes_of_a_head() -> None:
    graph = compiled(Attention(relative=True)).graph()
    chosen = graph.edge_kind == EDGE_KINDS.index("position_bias")
    assert chosen.sum() == 25 * 2 * 3


def test_a_sink_acts_on_all_nodes_of_its_head() -> None:
    graph = compiled(Attention(sunk=True)).plan.graph
    (sink,) = [b for b in graph.blocks if (graph.nodes.kind[b.src] == SINK).all()]
    assert sink.num_edges == 2 * 3


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"values": 2}, "heads have 3 neurons in queries and keys, not in values"),
        ({"shown": True}, "its scores are an output"),
        ({"gained": True}, "parameters act on its scores"),
        ({"keys_first": True}, "transpose acts on its scores"),
        ({"twice": True}, "or one of a softmax"),
        ({"over_all": True}, "a reshape cuts or merges the axis of its softmax"),
        ({"over_heads": True}, "its softmax does not run along what is summed over"),
        ({"shifted": True}, "its results have parameters of their own"),
        ({"flat": True}, "its queries, keys, values or results are flattened"),
    ],
)
def test_what_cannot_be_fused_stays_explicit_and_is_noted(
    settings: dict[str, int], reason: str
) -> None:
    model = Attention(**settings)  # type: ignore[arg-type]
    made = compiled(model)
    assert made.plan.graph.fused == ()
    (note,) = [note for note in made.notes if "attention" in note]
    assert "attention stays explicit" in note
    assert reason in note
    explicit = ngc.compile(model, (X,))
    assert made.plan.num_nodes == explicit.plan.num_nodes
    assert ngc.verify(made).passed


PROVEN: dict[str, Callable[[], nn.Module]] = {
    "plain": Attention,
    "grouped": lambda: Attention(heads=4, groups=2),
    "one dimension": lambda: Attention(inner=1, values=1),
    "cross": lambda: Attention(cross=True, memory=True),
    "normed": lambda: Attention(normed=True),
    "relative": lambda: Attention(relative=True),
    "capped": lambda: Attention(capped=True),
    "reshaped": lambda: Attention(reshaped=True),
    "sunk": lambda: Attention(sunk=True),
    "packed": lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True),
}
OPTIONS = [
    {},
    {"reverse": "features", "linear_as": "separate"},
    {"reverse": "append", "storage": "ragged"},
    {"activation": "nodes", "residual": "nodes"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", PROVEN)
def test_the_four_checks_pass(name: str, options: dict[str, str]) -> None:
    made = compiled(PROVEN[name](), **options)
    assert len(made.plan.graph.fused) == 1
    outcome = ngc.verify(made)
    assert outcome.passed, outcome.checks


@pytest.mark.parametrize("name", PROVEN)
def test_every_change_of_the_edges_is_noticed(name: str) -> None:
    made = compiled(PROVEN[name]())
    graph, explicit = made.plan.graph, made.explicit
    for block in graph.blocks:
        if block.kind in ("attention", "position_bias"):
            twice = replace(graph, blocks=(*graph.blocks, block))
            assert recompute(made.wiring, twice, explicit=explicit).faults, "a block twice"
    assert recompute(made.wiring, graph, explicit=explicit).faults == ()
    before = _features(made)
    for what, mutant in mutations(graph, np.random.default_rng(0)):
        changed = replace(made, plan=replace(made.plan, graph=mutant))
        if _features(changed) != before:
            assert recompute(made.wiring, mutant, explicit=explicit).faults, what


def _features(made: Compilation) -> list[tuple[float, ...]]:
    weights = torch.arange(made.program.num_slots).float()
    graph = made.plan.graph
    values = made.plan.forward_values(weights)
    ends = torch.from_numpy(np.concatenate([b.edge_index() for b in graph.blocks], axis=1))
    return sorted(map(tuple, torch.cat([ends.T, values], dim=1).tolist()))


def records(heads: FusedHeads) -> Iterator[tuple[str, FusedHeads]]:
    """Claims about which neurons a node stands for that are not so."""
    yield "keys of other dimensions", replace(heads, key=heads.key[:, ::-1])
    yield "keys of another head", replace(heads, key=heads.key[::-1])
    yield "values of another head", replace(heads, value=heads.value[::-1])
    yield "values of other dimensions", replace(heads, value=heads.value[:, ::-1])
    yield "queries as values", replace(heads, value=heads.query)


def test_wrong_claims_about_neurons_are_noticed() -> None:
    made = compiled(Attention())
    for what, wrong in records(heads_of(made)):
        mutant = replace(made.plan.graph, fused=(wrong,))
        assert recompute(made.wiring, mutant, explicit=made.explicit).faults, what


@pytest.mark.parametrize("column", ["bias", "query_bias"])
def test_a_wrong_bias_is_noticed(column: str) -> None:
    made = compiled(Attention())
    nodes = made.plan.graph.nodes
    scalars = nodes.scalars.copy()
    places = np.flatnonzero(nodes.kind == NODE_KINDS.index("attention"))[:2]
    number = SCALARS.index(column)
    scalars[places, number] = scalars[places[::-1], number]
    mutant = replace(made.plan.graph, nodes=replace(nodes, scalars=scalars))
    (fault,) = recompute(made.wiring, mutant, explicit=made.explicit).faults
    assert "bias" in fault


def test_inner_dimensions_of_queries_and_values_move_together() -> None:
    """Explicit, the dimensions of values permute apart from those of queries and keys."""
    model = Attention()
    fused = ngc.symmetries(compiled(model).wiring)
    apart = ngc.symmetries(ngc.compile(model, (X,)).wiring)
    assert fused.log10_order < apart.log10_order


@pytest.mark.parametrize("kind", [NgGnn, NgT])
def test_models_read_fused_graphs(kind: type[nn.Module]) -> None:
    made = compiled(Attention(), reverse="features")
    torch.manual_seed(0)
    batch = bind_blocks(made.plan, torch.stack([made.weights, 2 * made.weights]))
    facts = Facts.of([(batch.parts[0].structure, 2)], ())
    model = kind(facts, outputs=3).eval()
    first, second = model(batch)
    assert first.shape == (3,)
    assert not torch.allclose(first, second)


def test_scaled_dot_product_attention_with_a_mask() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Linear(4, 12)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.maps(x).unflatten(-1, (3, 2, 2)).permute(2, 0, 3, 1, 4)
            attended: Tensor = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return attended.transpose(1, 2).flatten(2)

    made = compiled(Causal())
    assert heads_of(made).result.shape == (2, 2)
    assert ngc.verify(made).passed
