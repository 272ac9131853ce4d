"""Probe inputs: a node reads the value of the neuron that it holds."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor
from torch.nn import functional as F

from ngc.backends.blocks import bind_blocks, structure_of
from ngc.backends.probes import Prober, common_inputs
from ngc.compiler import Compilation, compile
from ngc.errors import ShapeError
from tests.models.networks import model_of, parameters, prober_of, random_weights, sine, sine_model

CNN = Path(__file__).parents[2] / "examples" / "mnist_cnn.onnx"


def activations(network: Compilation, weights: Tensor, *probes: Tensor) -> Tensor:
    prober = Prober(network.wiring, network.plan)
    (part,) = bind_blocks(network.plan, weights, prober).parts
    assert part.activations is not None
    return part.activations(probes)


def test_neurons_of_an_mlp_read_their_value_after_the_activation() -> None:
    network = sine(2, 4, 3, 1)
    weights = random_weights(network, 3)
    probes = torch.randn(5, 1, 2, generator=torch.Generator().manual_seed(0))
    found = activations(network, weights, probes)
    named = parameters(network, weights)
    for k in range(3):
        h = probes[:, 0]
        values = [h]
        for layer in range(3):
            h = h @ named[f"w{layer}"][k].T + named[f"b{layer}"][k]
            h = h if layer == 2 else h.sin()
            values.append(h)
        expected = torch.cat(values, dim=1).T  # [nodes, probes]
        torch.testing.assert_close(found[k], expected, rtol=1e-5, atol=1e-5)


def conv_net() -> onnx.ModelProto:
    """Conv, Relu, MaxPool, Flatten, Gemm: x [1, 1, 4, 4] -> y [1, 2]."""
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "v", "d"], ["y"], transB=1),
    ]
    shapes = {"w": (3, 1, 3, 3), "b": (3,), "v": (2, 12), "d": (2,)}
    return model_of(nodes, shapes, (1, 1, 4, 4), (1, 2))


def pooled(network: Compilation, probes: Tensor) -> Tensor:
    """The maps after the pool, [probes, 3, 2, 2]."""
    named = {name: v[0] for name, v in parameters(network, network.weights[None]).items()}
    return F.max_pool2d(F.conv2d(probes, named["w"], named["b"], padding=1).relu(), 2)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(4, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_channels_read_the_mean_of_their_map(images: Tensor) -> None:
    network = compile(conv_net(), flatten="kernel")
    found = activations(network, network.weights[None], images)[0]
    expected = pooled(network, images[:, 0]).mean((2, 3)).T
    torch.testing.assert_close(found[1:4], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[0], images.mean((1, 2, 3, 4)))


def test_copies_of_a_channel_read_their_own_place(images: Tensor) -> None:
    network = compile(conv_net(), flatten="repeat")
    found = activations(network, network.weights[None], images)[0]
    maps = pooled(network, images[:, 0])
    nodes = network.plan.graph.nodes
    copies = (nodes.place[:, 0] >= 0).nonzero()[0]
    assert len(copies) == 12
    expected = maps.flatten(1).T  # by channel, then row and column, as the copies are
    torch.testing.assert_close(found[torch.from_numpy(copies)], expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_weights_and_probes() -> None:
    network = sine(2, 3, 1)
    weights = random_weights(network, 2).requires_grad_()
    probes = torch.randn(3, 1, 2, requires_grad=True)
    activations(network, weights, probes).square().sum().backward()
    assert weights.grad is not None
    assert weights.grad[:, 2:].abs().min() > 0
    assert probes.grad is not None
    assert probes.grad.abs().min() > 0


def test_every_node_of_a_real_network_reads_something() -> None:
    network = compile(CNN, flatten="kernel")
    probes = torch.randn(2, 1, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    found = activations(network, network.weights[None], probes)[0]
    assert found.isfinite().all()
    assert (found != 0).any(1).float().mean() > 0.95  # all but a Relu that lets nothing through


def test_probes_of_another_shape_are_refused() -> None:
    network = sine(2, 3, 1)
    with pytest.raises(ShapeError, match=r"probes have shapes \[1, 3\].*\[1, 2\]"):
        activations(network, random_weights(network, 1), torch.zeros(4, 1, 3))


def test_a_probe_is_repeated_along_the_batch_of_a_network() -> None:
    """A file exported with a batch of four is the same network."""
    one, four = sine(2, 4, 1), compile(sine_model((2, 4, 1), batch=4))
    weights = random_weights(one, 3)
    probes = torch.randn(5, 1, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        activations(four, weights, probes), activations(one, weights, probes)
    )


def test_a_probe_is_not_repeated_along_neurons() -> None:
    network = sine(2, 3, 1)
    with pytest.raises(ShapeError, match=r"\[1, 1\]"):
        activations(network, random_weights(network, 1), torch.zeros(4, 1, 1))


def test_networks_have_the_inputs_of_the_smallest_batch_in_common() -> None:
    one, other = sine(2, 4, 1), compile(sine_model((2, 3, 1), batch=4))
    assert common_inputs([prober_of(other), prober_of(one)]) == ((1, 2),)
    assert common_inputs([prober_of(one), prober_of(sine(3, 4, 1))]) == ()


def test_autocast_does_not_reach_the_networks_that_are_probed() -> None:
    network = sine(2, 4, 3, 1)
    weights = random_weights(network, 3) * 5  # sines of many radians, as in SIRENs
    probes = torch.randn(5, 1, 2, generator=torch.Generator().manual_seed(0))
    expected = activations(network, weights, probes)
    with torch.autocast("cpu", torch.bfloat16):
        found = activations(network, weights, probes)
    assert torch.equal(found, expected)


def test_answers_are_the_activations_of_the_output_neurons() -> None:
    network = compile(CNN, flatten="kernel")
    prober = prober_of(network)
    weights = network.weights.repeat(2, 1)
    probes = torch.randn(3, *prober.input_shapes[0], generator=torch.Generator().manual_seed(0))
    outputs = structure_of(network.plan).outputs
    found = prober.answers(weights, [probes])
    assert torch.equal(found, prober(weights, [probes])[:, outputs])
    assert found.shape == (2, 10, 3)
