"""What the graphs of some networks have to look like, by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ngc.compiler import Compilation, compile
from ngc.ir.graph import ACTIVATIONS, NODE_KINDS, EdgeBlock
from tests.networks.conftest import Files
from tests.networks.zoo import NETWORKS


class Seen:
    """A compiled network, read by layers: names of the groups are those of the dynamo exporter."""

    def __init__(self, compilation: Compilation) -> None:
        self.c, self.graph = compilation, compilation.plan.graph
        self.size = {group.name: group.size for group in self.graph.groups}
        self.start = {group.name: group.start for group in self.graph.groups}
        names = [group.name for group in self.graph.groups for _ in range(group.size)]
        # (from, to, kind) -> pairs of places within the two groups
        self.edges: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
        for block in self.graph.blocks:
            for a, b in block.edge_index().T.tolist():
                pair = a - self.start[names[a]], b - self.start[names[b]]
                self.edges.setdefault((names[a], names[b], block.kind), []).append(pair)

    def into(self, group: str) -> dict[tuple[str, str], int]:
        """(from, kind) -> number of edges into a group."""
        found = ((a, kind, len(pairs)) for (a, b, kind), pairs in self.edges.items() if b == group)
        return {(a, kind): count for a, kind, count in found}

    def is_diagonal(self, a: str, b: str, kind: str) -> bool:
        pairs = sorted(self.edges[a, b, kind])
        return pairs == [(k, k) for k in range(self.size[b])]

    def kind_of(self, group: str) -> str:
        return NODE_KINDS[self.graph.nodes.kind[self.start[group]]]

    def activation_of(self, group: str) -> str:
        return ACTIVATIONS[self.graph.nodes.activation[self.start[group]]]

    def count(self, kind: str) -> int:
        return sum(block.num_edges for block in self.graph.blocks if block.kind == kind)

    def block(self, name: str) -> EdgeBlock:
        """The one block of weights into a group."""
        kinds = ("linear", "linear_positions", "convolution")
        start, stop = self.start[name], self.start[name] + self.size[name]
        (found,) = (
            b for b in self.graph.blocks if b.kind in kinds and start <= b.dst.flat[0] < stop
        )
        return found


@pytest.fixture
def seen(request: pytest.FixtureRequest, files: Files) -> Seen:
    name, options = request.param if isinstance(request.param, tuple) else (request.param, {})
    return Seen(compile(files(name)["dynamo"], **options))


def network(name: str, **options: object) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("seen", [(name, options)], indirect=True, ids=[name])


@network("siren")
def test_siren_is_nothing_but_its_neurons_and_weights(seen: Seen) -> None:
    assert seen.graph.num_nodes == 2 + 32 + 32 + 1
    assert seen.graph.num_edges == 2 * 32 + 32 * 32 + 32 == 1120
    hidden = seen.graph.nodes.activation[2:-1]
    assert {ACTIVATIONS[k] for k in hidden.tolist()} == {"sin"}
    assert Counter(block.kind for block in seen.graph.blocks) == {"linear": 3}


@network("tied_autoencoder")
def test_a_tied_weight_lies_on_two_edges(seen: Seen) -> None:
    assert len(seen.c.program.params) == 6, "two weights, four biases"
    slots = np.concatenate([block.slots.numpy().reshape(-1) for block in seen.graph.blocks])
    times = Counter(np.unique(slots, return_counts=True)[1].tolist())
    assert times == {2: 5 * 7 + 3 * 5}


@network("unet_transpose")
def test_the_skip_of_a_unet_joins_the_map_before_the_pooling(seen: Seen) -> None:
    assert seen.into("max_pool2d") == {("conv2d", "pool"): 4}
    assert seen.into("convolution") == {("conv2d_1", "convolution_transpose"): 6 * 5}
    after = {("convolution", "convolution"): 5 * 4, ("conv2d", "convolution"): 4 * 4}
    assert seen.into("conv2d_2") == after


@network("residual_mlp")
def test_each_residual_of_an_mlp_is_one_identity_edge_a_feature(seen: Seen) -> None:
    assert seen.count("identity") == 2 * 8
    assert seen.is_diagonal("linear", "linear_2", "identity")
    assert seen.is_diagonal("linear_2", "linear_4", "identity")


@network("resnet")
def test_residuals_of_a_resnet(seen: Seen) -> None:
    """One as it is, one between the norm of the main branch and that of the 1x1 convolution."""
    assert seen.count("identity") == 4 + 6
    assert seen.is_diagonal("getitem", "getitem_6", "identity")
    assert seen.into("conv2d_5") == {("getitem_6", "convolution"): 4 * 6}
    assert seen.is_diagonal("getitem_12", "getitem_15", "identity")


@network("resnet_zero_padded")
def test_a_zero_padded_residual_reaches_the_shared_channels_only(seen: Seen) -> None:
    assert seen.count("identity") == 4 + 4
    pairs = sorted(seen.edges["getitem_6", "getitem_12", "identity"])
    assert pairs == [(0, 1), (1, 2), (2, 3), (3, 4)], "padded by one channel on either side"


@network("swiglu")
def test_products_of_swiglu_read_both_gates(seen: Seen) -> None:
    assert seen.kind_of("mul") == "product"
    assert seen.into("mul") == {("linear", "product"): 10, ("linear_1", "product"): 10}
    assert seen.is_diagonal("linear", "mul", "product")
    assert seen.is_diagonal("linear_1", "mul", "product")
    assert (seen.activation_of("linear"), seen.activation_of("linear_1")) == ("silu", "none")
    assert seen.is_diagonal("x0", "linear_2", "identity")


@network("squeeze_excite")
def test_each_channel_is_multiplied_by_its_own_gate(seen: Seen) -> None:
    assert seen.activation_of("conv2d_2") == "sigmoid"
    assert seen.is_diagonal("conv2d", "mul", "product")
    assert seen.is_diagonal("conv2d_2", "mul", "product")


@network("depthwise_separable")
def test_a_depthwise_convolution_is_diagonal(seen: Seen) -> None:
    assert seen.is_diagonal("getitem", "conv2d_1", "convolution")
    assert seen.block("conv2d_1").kernel == (3, 3)
    assert seen.into("conv2d_2") == {("getitem_3", "convolution"): 6 * 8}


@network("nerf")
def test_the_joined_layer_of_a_nerf_reads_hidden_and_encoded(seen: Seen) -> None:
    waves = ("sin", "cos", "sin_1", "cos_1")
    encoded = {(name, "linear"): 3 * 8 for name in ("x0", *waves)}
    assert seen.into("linear") == encoded
    assert seen.into("linear_2") == {("linear_1", "linear"): 8 * 8, **encoded}


@pytest.mark.parametrize(
    ("seen", "shape", "order"),
    [
        (("flatten_channels_first", {"flatten": "kernel"}), (6, 5, 2, 2), (0, 1, 2, 3)),
        (("flatten_channels_last", {"flatten": "kernel"}), (6, 2, 2, 5), (0, 3, 1, 2)),
    ],
    indirect=["seen"],
    ids=["channels first", "channels last"],
)
def test_the_kernel_after_a_flatten_runs_over_rows_and_columns(
    seen: Seen, shape: tuple[int, ...], order: tuple[int, ...]
) -> None:
    """[hidden, channel, row, column] of the Linear's weight, whichever order flattened them."""
    parameters = dict(NETWORKS["flatten_channels_first"].module().named_parameters())
    weight = parameters["hidden.weight"].detach().numpy().reshape(shape).transpose(order)
    block = seen.block("linear")
    found = seen.c.weights.numpy()[block.slots.numpy()]
    assert block.kernel == (2, 2)
    np.testing.assert_array_equal(found.reshape(6, 5, 2, 2), weight)


@pytest.mark.parametrize("seen", ["flatten_channels_first", "flatten_channels_last"], indirect=True)
def test_repeating_copies_each_channel_for_every_place(seen: Seen) -> None:
    places = seen.graph.nodes.place
    copies = Counter(map(tuple, places[places[:, 0] >= 0].tolist()))
    assert copies == {(row, column): 5 for row in (0, 1) for column in (0, 1)}


@network("embedding")
def test_an_embedding_has_a_neuron_for_each_token(seen: Seen) -> None:
    assert int((seen.graph.nodes.kind == NODE_KINDS.index("token")).sum()) == 9
    assert seen.count("embedding") == 9 * 5


@network("two_outputs")
def test_a_trunk_that_is_an_output_keeps_its_neurons(seen: Seen) -> None:
    outputs = {name for name, _ in seen.c.program.outputs}
    assert len(outputs) == 3
    assert int((seen.graph.nodes.role == 2).sum()) == 3 + 1 + 6
