"""Graphs as PyG data: a batch bound at once is the batch that PyG makes of single graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from ngc.backends.pyg import NeuralGraph, bind, lift
from ngc.backends.schema import BY_NAME, FEATURES
from ngc.errors import OptionError
from ngc.options import Options
from tests.small_programs import CNN, MLP, PROGRAMS, label, make, random_weights

LAYOUTS = [
    Options(),
    Options(storage="ragged", flatten="kernel"),
    Options(reverse="append"),
    Options(reverse="features", linear_as="separate"),
    Options(storage="ragged", reverse="append"),
]


def assert_same(a: Data, b: Data) -> None:
    assert list(a.to_dict()) == list(b.to_dict())
    for name in a.keys():  # noqa: SIM118  (a Data is no mapping)
        assert a[name].dtype == b[name].dtype, name
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("options", LAYOUTS, ids=label)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_bound_stack_is_what_pyg_collates(name: str, options: Options) -> None:
    plan = make(PROGRAMS[name], options)
    weights = random_weights(plan.program, 3)
    batch = bind(plan, weights)
    collated = Batch.from_data_list([bind(plan, row) for row in weights])
    assert type(batch) is type(collated)
    assert batch.num_graphs == collated.num_graphs == 3
    assert_same(batch, collated)
    for mine, theirs in (
        (batch._slice_dict, collated._slice_dict),
        (batch._inc_dict, collated._inc_dict),
    ):
        assert list(mine) == list(theirs)
        for key in mine:
            assert torch.equal(torch.as_tensor(mine[key]), torch.as_tensor(theirs[key])), key


@pytest.mark.parametrize("options", LAYOUTS, ids=label)
def test_a_bound_stack_comes_apart_again(options: Options) -> None:
    plan = make(CNN, options)
    weights = random_weights(plan.program, 3)
    graphs = bind(plan, weights).to_data_list()
    for graph, row in zip(graphs, weights, strict=True):
        assert isinstance(graph, NeuralGraph)
        assert_same(graph, bind(plan, row))
    assert torch.equal(torch.stack([lift(plan, graph) for graph in graphs]), weights)


@pytest.mark.parametrize("options", LAYOUTS, ids=label)
def test_a_batch_is_lifted_to_the_weights_of_all_its_networks(options: Options) -> None:
    plan = make(CNN, options)
    weights = random_weights(plan.program, 3)
    assert torch.equal(lift(plan, bind(plan, weights)), weights)
    assert torch.equal(lift(plan, bind(plan, weights[:1])), weights[:1])


def test_a_graph_of_another_plan_is_not_lifted() -> None:
    mlp, cnn = make(MLP, Options(kernel=(3, 3))), make(CNN, Options(flatten="virtual"))
    graphs = [bind(plan, random_weights(plan.program)) for plan in (mlp, cnn)]
    for graph in (graphs[1], Batch.from_data_list(graphs), Data()):
        with pytest.raises(OptionError, match="of this plan it has shape"):
            lift(mlp, graph)
    ragged = make(MLP, Options(storage="ragged"))
    with pytest.raises(OptionError, match="edge_value has shape"):
        lift(ragged, graphs[0])


def test_a_batch_of_unequal_graphs_is_not_lifted() -> None:
    plan = make(MLP)
    batch = bind(plan, random_weights(plan.program, 2))
    batch.ptr = torch.tensor([0, 5, 12])
    with pytest.raises(OptionError, match="graphs that have not 6 nodes"):
        lift(plan, batch)


def test_a_batch_of_two_mlps_by_eye() -> None:
    plan = make(MLP)
    batch = bind(plan, random_weights(plan.program, 2))
    assert batch.edge_index.tolist() == [
        [0, 1, 0, 1, 0, 1, 2, 3, 4, 6, 7, 6, 7, 6, 7, 8, 9, 10],
        [2, 2, 3, 3, 4, 4, 5, 5, 5, 8, 8, 9, 9, 10, 10, 11, 11, 11],
    ]
    assert batch.batch.tolist() == [0] * 6 + [1] * 6
    assert batch.ptr.tolist() == [0, 6, 12]
    assert batch.layer.tolist() == [0, 0, 1, 1, 1, 2] * 2
    # An id with "position" or "index" in its name does not move with the batch.
    assert batch.position_id.tolist() == [0, 1, 2, 2, 2, 3] * 2


def test_later_batches_of_one_size_have_their_own_numbers() -> None:
    """The structure is kept between batches, the numbers are not."""
    plan = make(MLP)
    first, second = (random_weights(plan.program, 2, seed=seed) for seed in (0, 1))
    a, b = bind(plan, first), bind(plan, second)
    assert_same(a, Batch.from_data_list([bind(plan, row) for row in first]))
    assert_same(b, Batch.from_data_list([bind(plan, row) for row in second]))
    for size in (1, 3, 4, 2):
        assert bind(plan, random_weights(plan.program, size)).num_graphs == size


def test_a_loader_mixes_architectures() -> None:
    plans = [make(MLP), make(CNN, Options(kernel=(3, 3), flatten="virtual"))]
    mlp = make(MLP, Options(kernel=(3, 3)))
    graphs = [
        bind(plan, row) for plan in (mlp, plans[1]) for row in random_weights(plan.program, 2)
    ]
    (batch,) = DataLoader(graphs, batch_size=4)
    assert batch.num_graphs == 4
    assert batch.ptr.diff().tolist() == [6, 6, *[plans[1].num_nodes] * 2]
    assert (
        batch.edge_index[:, :9].tolist()
        == bind(mlp, random_weights(mlp.program)).edge_index.tolist()
    )
    for graph, original in zip(batch.to_data_list(), graphs, strict=True):
        assert_same(graph, original)
    assert torch.equal(lift(plans[1], batch[3]), random_weights(plans[1].program, 2)[1])


@pytest.mark.parametrize("shared", [
    {"storage": "ragged", "reverse": "append"},
    {"kernel": "3x3", "linear_as": "separate", "reverse": "features"},
], ids=["ragged", "one kernel"])  # fmt: skip
def test_options_that_let_architectures_share_a_batch(shared: dict[str, Any]) -> None:
    plans = [make(MLP, Options(**shared)), make(CNN, Options(flatten="virtual", **shared))]
    graphs = [bind(plan, random_weights(plan.program)) for plan in plans]
    batch = Batch.from_data_list(graphs)
    for k, graph in enumerate(graphs):
        assert_same(batch[k], graph)


def test_a_batch_of_batches() -> None:
    """Networks grouped by plan, then joined."""
    mlp, cnn = make(MLP, Options(kernel=(3, 3))), make(CNN, Options(flatten="virtual"))
    parts = [bind(plan, random_weights(plan.program, 2)) for plan in (mlp, cnn)]
    graphs = [graph for part in parts for graph in part.to_data_list()]
    batch = Batch.from_data_list(graphs)
    assert batch.num_nodes == 2 * (mlp.num_nodes + cnn.num_nodes)
    assert int(batch.edge_index[:, -1].max()) < batch.num_nodes


@pytest.mark.parametrize("options", LAYOUTS, ids=label)
@pytest.mark.parametrize("name", PROGRAMS)
def test_features_are_those_of_the_table(name: str, options: Options) -> None:
    plan = make(PROGRAMS[name], options)
    graph = bind(plan, random_weights(plan.program))
    count = {"node": graph.num_nodes, "edge": graph.num_edges, "tap": plan.graph.num_taps}
    for key in graph.keys():  # noqa: SIM118
        feature, value = BY_NAME[key], graph[key]
        assert value.dtype == feature.dtype
        assert value.shape[feature.axis] == count[feature.location]
        if feature.width > 0:
            assert value.shape[1] == feature.width
        if feature.categories:
            assert 0 <= int(value.min()) <= int(value.max()) < len(feature.categories)
    required = {feature.name for feature in FEATURES if not feature.optional}
    assert required <= set(graph.keys())
    graph.validate()


@pytest.mark.parametrize("shape", [(7,), (2, 7), (2, 2, 16), ()])
def test_weights_of_another_length_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="weights have shape"):
        bind(make(MLP), torch.zeros(shape))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.zeros(15, np.float32), r"numpy.ndarray, not a torch tensor\n  try: torch.as_tensor"),
        (torch.zeros(15, dtype=torch.int64), r"dtype torch.int64\n  try: weights.float"),
    ],
)
def test_weights_of_another_type_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        bind(make(MLP), weights)
