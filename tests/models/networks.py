"""Small compiled networks for tests of learned models, and permutations of their neurons."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ngc.backends.blocks import bind_blocks, bind_part, join, structure_of
from ngc.backends.graphs import GraphBatch
from ngc.backends.probes import Prober, common_inputs
from ngc.compiler import Compilation, compile
from ngc.ir.slots import FIRST_SLOT, ONE
from ngc.models import Facts


def sine_model(sizes: tuple[int, ...], batch: int = 1) -> onnx.ModelProto:
    """Linear layers (Gemm) with Sin between, x [batch, in] -> y [batch, out]."""
    nodes, shapes, x = [], {}, "x"
    for k, (into, out) in enumerate(pairwise(sizes)):
        last = k == len(sizes) - 2
        shapes |= {f"w{k}": (out, into), f"b{k}": (out,)}
        result = "y" if last else f"h{k}"
        nodes.append(helper.make_node("Gemm", [x, f"w{k}", f"b{k}"], [result], transB=1))
        if not last:
            x = f"s{k}"
            nodes.append(helper.make_node("Sin", [result], [x]))
    return model_of(nodes, shapes, (batch, sizes[0]), (batch, sizes[-1]))


def conv_model(channels: tuple[int, ...], kernels: tuple[int, ...]) -> onnx.ModelProto:
    """Convolutions with Relu between, x [1, in, 4, 4] -> y of the same size."""
    nodes, shapes, x = [], {}, "x"
    for k, ((into, out), size) in enumerate(zip(pairwise(channels), kernels)):
        last = k == len(kernels) - 1
        shapes |= {f"w{k}": (out, into, size, size), f"b{k}": (out,)}
        result, pads = "y" if last else f"h{k}", [size // 2] * 4
        nodes.append(helper.make_node("Conv", [x, f"w{k}", f"b{k}"], [result], pads=pads))
        if not last:
            x = f"s{k}"
            nodes.append(helper.make_node("Relu", [result], [x]))
    return model_of(nodes, shapes, (1, channels[0], 4, 4), (1, channels[-1], 4, 4))


def model_of(
    nodes: list[onnx.NodeProto],
    shapes: dict[str, tuple[int, ...]],
    given: tuple[int, ...],
    answer: tuple[int, ...],
) -> onnx.ModelProto:
    """A model x -> y with random weights of these shapes."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, given)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, answer)
    graph = helper.make_graph(nodes, "network", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@cache
def sine(*sizes: int) -> Compilation:
    return compile(sine_model(sizes))


@cache
def prober_of(compilation: Compilation) -> Prober:
    return Prober(compilation.wiring, compilation.plan)


def facts_of(*compilations: Compilation) -> Facts:
    """As of a training set with networks of these architectures."""
    found = [(structure_of(c.plan), 1) for c in compilations]
    return Facts.of(found, common_inputs([prober_of(c) for c in compilations]))


def random_weights(compilation: Compilation, many: int, seed: int = 0) -> Tensor:
    """[many, slots]"""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(many, compilation.program.num_slots, generator=generator)
    weights[:, :FIRST_SLOT] = 0
    weights[:, ONE] = 1
    return weights


def noisy(compilation: Compilation, many: int) -> Tensor:
    """Weights [many, slots] of networks near a trained one."""
    generator = torch.Generator().manual_seed(0)
    weights = compilation.weights.repeat(many, 1)
    noise = torch.randn(weights.shape, generator=generator) * 0.3
    noise[:, :FIRST_SLOT] = 0
    return weights * (1 + noise)


def batch_of(compilation: Compilation, weights: Tensor) -> GraphBatch:
    return bind_blocks(compilation.plan, weights, prober_of(compilation))


def mixed_batch(*pairs: tuple[Compilation, Tensor, list[int]]) -> GraphBatch:
    """Networks of several architectures, each with its places in the batch."""
    return join(
        [(bind_part(c.plan, w, prober_of(c)), torch.tensor(places)) for c, w, places in pairs]
    )


def parameters(compilation: Compilation, weights: Tensor) -> dict[str, Tensor]:
    """Views [many, *shape] of weights [many, slots], by name."""
    return {
        p.name: weights[:, p.offset : p.offset + p.size].unflatten(1, p.shape)
        for p in compilation.program.params
    }


def permuted(compilation: Compilation, weights: Tensor, seed: int = 0) -> Tensor:
    """Weights of a sine network with the neurons of every hidden layer in another order."""
    generator = torch.Generator().manual_seed(seed)
    result = weights.clone()
    named = parameters(compilation, result)
    for k in range(len(named) // 2 - 1):
        order = torch.randperm(named[f"w{k}"].shape[1], generator=generator)
        named[f"w{k}"].copy_(named[f"w{k}"][:, order])
        named[f"b{k}"].copy_(named[f"b{k}"][:, order])
        named[f"w{k + 1}"].copy_(named[f"w{k + 1}"][:, :, order])
    return result
