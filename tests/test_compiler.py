"""Compiling: networks of one architecture share a plan; anything else about them does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ngc import compiler
from ngc.compiler import Compilation, compile
from ngc.known import Known
from ngc.options import Options


@pytest.fixture(autouse=True)
def _no_plans() -> Iterator[None]:
    """Every test starts and ends without plans of other tests."""
    compiler.KNOWN.clear()
    yield
    compiler.KNOWN.clear()


def network(
    seed: int = 0,
    slope: float = 0.1,
    bound: float = 6.0,
    exponent: float = 2.0,
    hidden: int = 3,
    activation: str = "LeakyRelu",
) -> onnx.ModelProto:
    """Gemm, an activation, Clip, Pow, MatMul. A number as attribute, initializer and constant."""
    rng = np.random.default_rng(seed)
    arrays = {
        "w": rng.normal(size=(hidden, 2)),
        "b": rng.normal(size=hidden),
        "v": rng.normal(size=(hidden, 1)),
        "low": np.array(0.0),
        "high": np.array(bound),
    }
    attributes = {"alpha": slope} if activation == "LeakyRelu" else {}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1),
        helper.make_node(activation, ["h"], ["a"], **attributes),
        helper.make_node("Clip", ["a", "low", "high"], ["c"]),
        helper.make_node("Constant", [], ["exponent"], value_float=exponent),
        helper.make_node("Pow", ["c", "exponent"], ["p"]),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def numbers_of(compilation: Compilation) -> dict[str, tuple[float, ...]]:
    """The plain numbers of a program's activations."""
    ops = compilation.program.ops
    return {op.fn: op.a for op in ops if op.mnemonic == "activation"}


def test_a_second_network_of_an_architecture_has_the_same_plan() -> None:
    first, second = compile(network(0)), compile(network(1))
    assert second.plan is first.plan
    graph = second.graph()
    assert not torch.equal(graph.edge_attr, first.graph().edge_attr)
    compiler.KNOWN.clear()
    alone = compile(network(1))
    assert alone.plan is not first.plan
    for name, value in alone.graph().to_dict().items():
        assert torch.equal(value, graph[name]), name
    assert torch.equal(alone.weights, second.weights)


def test_the_features_are_the_networks_own() -> None:
    compile(network(0))
    model = network(1)
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    graph = compile(model).graph()
    assert graph.edge_attr[:6, 0].tolist() == arrays["w"].reshape(-1).tolist()
    assert graph.edge_attr[-3:, 0].tolist() == arrays["v"].reshape(-1).tolist()
    assert graph.x[2:5, 0].tolist() == arrays["b"].tolist()


@pytest.mark.parametrize(
    ("change", "fn", "expected"),
    [
        ({"slope": 0.2}, "leaky_relu", (0.2,)),
        ({"bound": 3.0}, "clip", (0.0, 3.0)),
        ({"exponent": 3.0}, "power", (3.0,)),
    ],
    ids=["an attribute", "an initializer", "a constant"],
)
def test_plain_numbers_are_part_of_the_architecture(
    change: dict[str, float], fn: str, expected: tuple[float, ...]
) -> None:
    first = compile(network(0))
    second = compile(network(0, **change))  # type: ignore[arg-type]
    assert second.plan is not first.plan
    assert numbers_of(second)[fn] == pytest.approx(expected)
    # The first is still found, with its own.
    again = compile(network(2))
    assert numbers_of(again) == numbers_of(first)


def with_two_uses(bound: float, seed: int = 0) -> onnx.ModelProto:
    """@high is a bound of Clip, and a factor too."""
    model = network(seed, bound=bound)
    model.graph.node.insert(2, helper.make_node("Mul", ["a", "high"], ["scaled"]))
    model.graph.node[3].input[0] = "scaled"
    return model


def test_a_weight_that_is_also_a_number_is_part_of_the_architecture() -> None:
    """Also after other networks have shown which initializers are weights and nothing else."""
    for seed in range(3):
        assert numbers_of(compile(with_two_uses(6.0, seed)))["clip"] == (0.0, 6.0)
    for seed in range(3):
        assert numbers_of(compile(with_two_uses(3.0, seed)))["clip"] == (0.0, 3.0)
    assert numbers_of(compile(with_two_uses(6.0)))["clip"] == (0.0, 6.0)


def test_from_the_third_network_on_nothing_is_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    compile(network(0))
    compile(network(1))  # shows which initializers are weights and nothing else
    expected = compile(network(2))

    def refuse(*args: object) -> None:
        raise AssertionError("lowered again")

    monkeypatch.setattr(compiler, "lower_with_shapes", refuse)
    again = compile(network(2))
    assert again.plan is expected.plan
    assert torch.equal(again.weights, expected.weights)


def test_other_operators_and_sizes_have_other_plans() -> None:
    plans = [
        compile(network()).plan,
        compile(network(activation="Sigmoid")).plan,
        compile(network(hidden=4)).plan,
        compile(network(), reverse="append").plan,
    ]
    assert len({id(plan) for plan in plans}) == 4


def test_options_and_their_fields_are_one_thing() -> None:
    assert compile(network(), reverse="append").plan is (
        compile(network(), options=Options(reverse="append")).plan
    )


def test_a_compilation_is_shown_by_its_name_and_size() -> None:
    compiled = compile(network())
    name, params = compiled.source.name, sum(param.size for param in compiled.program.params)
    nodes, edges = compiled.plan.num_nodes, compiled.plan.num_edges
    expected = f"Compilation({name!r}, nodes={nodes}, edges={edges}, params={params})"
    assert repr(compiled) == expected


def test_sizes_of_inputs_are_part_of_the_architecture() -> None:
    model = network()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    one, two = (compile(model, dims={"batch": n}) for n in (1, 2))
    assert one.plan is not two.plan
    assert two.program.inputs[0].out.shape == (2, 2)
    assert compile(model, dims={"batch": 1}).plan is one.plan


def test_weights_beside_the_file(tmp_path: Path) -> None:
    for seed in (0, 1):
        onnx.save(
            network(seed),
            tmp_path / f"{seed}.onnx",
            save_as_external_data=True,
            location=f"{seed}.data",
            size_threshold=0,
        )
    first, second = (compile(tmp_path / f"{seed}.onnx") for seed in (0, 1))
    assert second.plan is first.plan
    assert torch.equal(second.weights, compile(network(1)).weights)


def test_old_plans_are_forgotten() -> None:
    known = compiler.KNOWN
    for hidden in range(1, known.plans.limit + 3):
        compile(network(hidden=hidden))
    assert len(known.plans) == len(known.seen) == known.plans.limit


def test_whoever_reads_many_architectures_has_a_memory_of_its_own() -> None:
    known = Known(limit=2)
    for hidden in (1, 2, 3):
        compile(network(hidden=hidden), known=known)
    assert (len(known.plans), len(known.seen)) == (2, 2)
    assert not compiler.KNOWN.plans
