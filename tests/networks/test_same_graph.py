"""The comparison finds what differs, and only that."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from onnx import parser
from torch_geometric.data import Data

from ngc.compiler import compile
from tests.networks.same_graph import difference

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 2] x) => (float[1, 2] y)
<float[3, 2] a = {1, -2, 3, 4, -5, 6},
 float[3] b = {0.1, 0.2, 0.3},
 float[2, 3] c = {1, 2, 3, 4, 5, 7}>
{ h = Gemm<transB = 1>(x, a, b) r = Relu(h) y = Gemm<transB = 1>(r, c) }
"""


@pytest.fixture
def graph() -> Data:
    """Inputs 0, 1; hidden 2, 3, 4; outputs 5, 6."""
    return compile(parser.parse_model(TEXT).SerializeToString()).graph()


def reordered(graph: Data, nodes: list[int], edges: list[int]) -> Data:
    """The graph with its nodes and edges in another order."""
    result, place = graph.clone(), torch.tensor(nodes).argsort()
    for name in graph.to_dict():
        if name == "edge_index":
            result[name] = place[graph[name]][:, edges]
        elif name.startswith("edge") or name == "kernel_size":
            result[name] = graph[name][edges]
        else:
            result[name] = graph[name][nodes]
    return result


def test_another_order_is_no_difference(graph: Data) -> None:
    edges = torch.randperm(graph.num_edges, generator=torch.Generator().manual_seed(0)).tolist()
    assert difference(graph, reordered(graph, [4, 6, 2, 0, 1, 3, 5], edges)) == ""


def test_rounding_is_no_difference(graph: Data) -> None:
    other = graph.clone()
    other.edge_attr = graph.edge_attr * (1 + 1e-7)
    assert difference(graph, other) == ""


def weight(graph: Data) -> None:
    graph.edge_attr[3, 0] += 0.01


def two_weights_swapped(graph: Data) -> None:
    graph.edge_attr[[0, 1]] = graph.edge_attr[[1, 0]]


def bias(graph: Data) -> None:
    graph.x[3, 0] += 0.01


def activation(graph: Data) -> None:
    graph.activation[2] += 1


def source_of_an_edge(graph: Data) -> None:
    graph.edge_index[0, 0] = 1 - graph.edge_index[0, 0]


def outputs_in_another_order(graph: Data) -> None:
    graph.position_id[[5, 6]] = graph.position_id[[6, 5]]


CHANGES = [
    weight, two_weights_swapped, bias, activation, source_of_an_edge, outputs_in_another_order,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_is_found(change: Callable[[Data], None], graph: Data) -> None:
    other = graph.clone()
    change(other)
    assert difference(graph, other)


def test_fewer_edges_are_found(graph: Data) -> None:
    assert "edges" in difference(graph, reordered(graph, list(range(7)), list(range(11))))
