"""A graph that is not the network does not pass: the check that must see a fault sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_model

import ngc
import ngc.proof
from ngc.compare import FORGIVABLE, TINY, difference, floor, moved_by_rounding, tolerated
from ngc.compiler import Compilation, make_plan
from ngc.ir import program as ir
from ngc.ir.graph import EdgeBlock, Graph
from ngc.ir.slots import Array, Slots
from ngc.ir.text import parse_program
from ngc.known import Known
from ngc.oracle import Oracle, OracleError
from ngc.plan import Plan
from ngc.proof import FAITHFUL, Check, Verification

RNG = np.random.default_rng(0)

# Convolution, depthwise convolution, residual, norm scale, flatten, two Linears.
NETWORK = """
    <ir_version: 10, opset_import: ["": 20]>
    net (float[1, 2, 4, 4] x) => (float[1, 3] y) {
        c = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3]> (x, W1, b1)
        [stem] r = Relu (c)
        d = Conv <pads = [1, 1, 1, 1], kernel_shape = [3, 3], group = 4> (r, W2)
        g = Mul (d, scale)
        [skip] s = Add (g, r)
        t = Tanh (s)
        f = Flatten (t)
        h = Gemm <transB = 1> (f, W3, b3)
        e = Relu (h)
        [head] y = Gemm <transB = 1> (e, W4, b4)
    }
"""
SHAPES = {
    "W1": (4, 2, 3, 3), "b1": (4,), "W2": (4, 1, 3, 3), "scale": (1, 4, 1, 1), "W3": (6, 64),
    "b3": (6,), "W4": (3, 6), "b4": (3,),
}  # fmt: skip

ATTENTION = """
    <ir_version: 10, opset_import: ["": 20]>
    attention (float[1, 5, 8] x) => (float[1, 5, 8] y) {
        q = MatMul (x, Wq)
        k = MatMul (x, Wk)
        v = MatMul (x, Wv)
        heads = Constant <value_ints = [1, 5, 2, 4]> ()
        qh = Reshape (q, heads)
        kh = Reshape (k, heads)
        vh = Reshape (v, heads)
        qt = Transpose <perm = [0, 2, 1, 3]> (qh)
        kt = Transpose <perm = [0, 2, 3, 1]> (kh)
        vt = Transpose <perm = [0, 2, 1, 3]> (vh)
        scores = MatMul (qt, kt)
        p = Softmax <axis = 3> (scores)
        o = MatMul (p, vt)
        ot = Transpose <perm = [0, 2, 1, 3]> (o)
        flat = Constant <value_ints = [1, 5, 8]> ()
        om = Reshape (ot, flat)
        y = MatMul (om, Wo)
    }
"""


@pytest.fixture(scope="module")
def shared_oracle() -> Iterator[Oracle]:
    with Oracle() as oracle:
        yield oracle


@pytest.fixture(autouse=True)
def one_process(shared_oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime starts once for all tests here."""
    monkeypatch.setattr(ngc.proof, "Oracle", lambda timeout: nullcontext(shared_oracle))


def model(text: str, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    result = parse_model(text)
    rng = np.random.default_rng(1)
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        result.graph.initializer.append(numpy_helper.from_array(array, name))
    return result


def network(**options: str) -> Compilation:
    return ngc.compile(model(NETWORK, SHAPES), **options)


def attention() -> Compilation:
    return ngc.compile(model(ATTENTION, {f"W{k}": (8, 8) for k in "qkvo"}))


def with_graph(c: Compilation, graph: Graph) -> Compilation:
    """The compilation with another graph in its plan."""
    plan = Plan(c.program, graph, c.plan.options, "corrupt")
    return replace(c, plan=plan)


def with_program(c: Compilation, ops: list[ir.Op]) -> Compilation:
    """The compilation as if lowering had written this program."""
    program = c.program.with_ops(tuple(ops))
    return replace(c, program=program, plan=make_plan(program, c.plan.options))


def with_block(
    c: Compilation, kind: str, change: Callable[[EdgeBlock], EdgeBlock], last: bool = False
) -> Compilation:
    """The compilation with its first (last) block of a kind changed."""
    blocks = list(c.plan.graph.blocks)
    places = [k for k, block in enumerate(blocks) if block.kind == kind]
    place = places[-1 if last else 0]
    blocks[place] = change(blocks[place])
    return with_graph(c, replace(c.plan.graph, blocks=tuple(blocks)))


def outcome(c: Compilation) -> tuple[Verification, dict[str, Check]]:
    verification = ngc.verify(c)
    return verification, {check.name: check for check in verification.checks}


def swapped(array: np.ndarray, axis: int = 1) -> np.ndarray:
    """The first two entries along an axis exchanged."""
    order = np.arange(array.shape[axis])
    order[:2] = 1, 0
    return array.take(order, axis=axis)


# --- the network itself -------------------------------------------------------------------------


@pytest.mark.parametrize("flatten", ["repeat", "virtual", "kernel"])
def test_network_passes(flatten: str) -> None:
    verification, checks = outcome(network(flatten=flatten))
    assert verification.passed, verification.checks
    assert "edge blocks recomputed" in checks["faithful"].figure
    done, _, total = checks["faithful"].figure.split("; ")[1].split()[:3]
    assert done == total


@pytest.mark.parametrize(
    "options",
    [{"activation": "nodes"}, {"residual": "nodes"}, {"reverse": "append"}, {"norm": "fold"}],
)
def test_network_passes_under_other_options(options: dict[str, str]) -> None:
    assert outcome(network(**options))[0].passed


def test_attention_passes() -> None:
    assert outcome(attention())[0].passed


# --- a wrong graph ------------------------------------------------------------------------------


def graph_fault(c: Compilation) -> str:
    """What ``faithful`` says of the graph, where nothing else has noticed anything."""
    _, checks = outcome(c)
    assert not checks["faithful"].passed, checks
    assert checks["faithful"].detail.startswith("graph: ")
    return checks["faithful"].detail


@pytest.mark.parametrize("kind", ["convolution", "linear"])
@pytest.mark.parametrize("side", ["src", "dst"])
def test_swapped_ends_are_seen(kind: str, side: str) -> None:
    """The weights still come back: only recomputing finds it."""
    broken = with_block(
        network(flatten="kernel"),
        kind,
        lambda b: replace(b, **{side: swapped(getattr(b, side), int(b.src.shape[0] == 1))}),
    )
    _, checks = outcome(broken)
    assert checks["lossless"].passed
    assert "its edges give" in graph_fault(broken)


def test_a_depthwise_convolution_on_wrong_channels_is_seen() -> None:
    broken = with_block(
        network(flatten="kernel"),
        "convolution",
        lambda b: replace(b, src=swapped(b.src, 0)),
        last=True,
    )
    assert "graph: " in graph_fault(broken)


def test_swapped_slots_are_seen() -> None:
    broken = with_block(
        network(flatten="kernel"),
        "linear",
        lambda b: replace(b, slots=Slots.of(swapped(b.slots.numpy(), 1))),
    )
    assert "its edges give" in graph_fault(broken)


def test_swapped_taps_are_seen() -> None:
    broken = with_block(
        network(),
        "convolution",
        lambda b: replace(b, slots=Slots.of(swapped(b.slots.numpy(), 3))),
    )
    assert "its edges give" in graph_fault(broken)


@pytest.mark.parametrize("flatten", ["repeat", "virtual"])
def test_flattened_positions_in_wrong_order_are_seen(flatten: str) -> None:
    c = network(flatten=flatten)
    place = c.plan.graph.nodes.place.copy()
    copies = np.flatnonzero(place[:, 0] >= 0)[:16]
    place[copies] = place[copies][:, ::-1]  # rows for columns
    broken = replace(c.plan.graph, nodes=replace(c.plan.graph.nodes, place=place))
    assert "its edges give" in graph_fault(with_graph(c, broken))


def test_positions_of_a_kernel_in_wrong_order_are_seen() -> None:
    def columns_first(block: EdgeBlock) -> EdgeBlock:
        slots = block.slots.numpy()
        turned = slots.reshape(*slots.shape[:3], 4, 4).swapaxes(3, 4).reshape(slots.shape)
        return replace(block, slots=Slots.of(turned))

    broken = with_block(network(flatten="kernel"), "linear_positions", columns_first)
    assert "its edges give" in graph_fault(broken)


def test_a_missing_block_is_seen() -> None:
    c = network()
    blocks = tuple(b for b in c.plan.graph.blocks if b.kind != "identity")
    assert len(blocks) < len(c.plan.graph.blocks)
    fault = graph_fault(with_graph(c, replace(c.plan.graph, blocks=blocks)))
    assert "no edge into node" in fault


def test_a_residual_from_wrong_neurons_is_seen() -> None:
    broken = with_block(
        network(flatten="kernel"), "identity", lambda b: replace(b, src=swapped(b.src, 0))
    )
    fault = graph_fault(broken)
    assert "no edge into node" in fault
    assert "combine" in fault


def test_a_doubled_edge_is_seen() -> None:
    c = network()
    blocks = c.plan.graph.blocks
    doubled = replace(c.plan.graph, blocks=(*blocks, blocks[0]))
    assert "its edges give" in graph_fault(with_graph(c, doubled))


def test_a_wrong_scale_is_seen() -> None:
    broken = with_block(
        network(flatten="kernel"),
        "scale",
        lambda b: replace(b, slots=Slots.of(swapped(b.slots.numpy(), 0))),
    )
    assert "the scale of node" in graph_fault(broken)


def test_a_wrong_bias_is_seen() -> None:
    c = network()
    scalars = c.plan.graph.nodes.scalars.copy()
    biased = np.flatnonzero(scalars[:, 0])[:2]
    scalars[biased] = scalars[biased[::-1]]
    broken = replace(c.plan.graph, nodes=replace(c.plan.graph.nodes, scalars=scalars))
    assert "the bias of node" in graph_fault(with_graph(c, broken))


def test_a_wrong_activation_is_seen() -> None:
    c = network()
    activation = c.plan.graph.nodes.activation.copy()
    activation[np.flatnonzero(activation)[0]] = 0
    broken = replace(c.plan.graph, nodes=replace(c.plan.graph.nodes, activation=activation))
    assert "has another activation" in graph_fault(with_graph(c, broken))


def test_heads_on_wrong_neurons_are_seen() -> None:
    """The products of queries and keys read each other's heads."""
    c = attention()
    broken = with_block(c, "product", lambda b: replace(b, src=swapped(b.src, 0)))
    assert "no edge into node" in graph_fault(broken)


def test_a_move_that_loses_track_of_neurons_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that flattens in the wrong memory order: all weights come back all the same."""
    from ngc.ir.index import IndexArray

    right = IndexArray.reshape

    def wrong(self: IndexArray, shape: ir.Ints) -> IndexArray:
        if len(shape) == 2 and len(self.shape) == 4:
            moved = self.full().transpose(0, 2, 3, 1).reshape(shape)
            return IndexArray.of(moved, shape)
        return right(self, shape)

    monkeypatch.setattr(IndexArray, "reshape", wrong)
    monkeypatch.setattr(ngc.compiler, "KNOWN", Known())
    _, checks = outcome(network(flatten="kernel"))
    assert checks["lossless"].passed
    assert not checks["faithful"].passed
    assert "where another one's value has been moved to" in checks["faithful"].detail


# --- a wrong program ----------------------------------------------------------------------------


def program_fault(c: Compilation) -> str:
    """What ``faithful`` says of outputs: it names the first value that differs."""
    _, checks = outcome(c)
    assert not checks["faithful"].passed, checks
    assert "graph: " not in checks["faithful"].detail
    assert "first at [0, 0" in checks["faithful"].detail
    assert "expected" in checks["faithful"].detail
    return checks["faithful"].detail


def changed(c: Compilation, kind: type[ir.Op], change: Callable[[ir.Op], ir.Op]) -> Compilation:
    """The compilation with its first operation of a class changed."""
    ops = list(c.program.ops)
    place = next(k for k, op in enumerate(ops) if isinstance(op, kind))
    ops[place] = change(ops[place])
    return with_program(c, ops)


def without(c: Compilation, kind: type[ir.Op], ref: Callable[[ir.Op], str]) -> Compilation:
    """The compilation without an operation: what read it reads ``ref`` of it."""
    gone = next(op for op in c.program.ops if isinstance(op, kind))
    names = {gone.out.name: ref(gone)}
    return with_program(c, [op.renamed(names) for op in c.program.ops if op is not gone])


def test_a_flatten_in_wrong_memory_order_is_seen() -> None:
    def columns_first(op: ir.Op) -> ir.Op:
        order = np.arange(64).reshape(1, 4, 4, 4).transpose(0, 2, 3, 1).reshape(op.out.shape)
        return ir.Select(out=op.out, x=op.inputs[0], index=Array.of(order))

    assert "output y" in program_fault(changed(network(), ir.Reshape, columns_first))


def test_a_dropped_residual_is_seen() -> None:
    program_fault(without(network(), ir.Combine, lambda op: op.inputs[0]))


def test_a_dropped_scale_is_seen() -> None:
    c = without(network(), ir.Scale, lambda op: op.inputs[0])
    program_fault(c)


def test_a_dropped_activation_is_seen() -> None:
    program_fault(without(network(), ir.Activation, lambda op: op.inputs[0]))


def test_heads_split_in_wrong_order_are_seen() -> None:
    """Dimensions of a head outermost, as in [width, heads]."""

    def interleaved(op: ir.Op) -> ir.Op:
        order = np.arange(40).reshape(1, 5, 4, 2).swapaxes(2, 3)
        return ir.Select(out=op.out, x=op.inputs[0], index=Array.of(order))

    program_fault(changed(attention(), ir.Reshape, interleaved))


# --- a wrong symmetry ---------------------------------------------------------------------------


class _Group:
    def __init__(self, permutation: np.ndarray) -> None:
        self.permutation = permutation

    def random_element(self, seed: int) -> np.ndarray:
        return self.permutation


def transposition(c: Compilation, first: int, second: int) -> np.ndarray:
    permutation = np.arange(c.wiring.num_neurons)
    permutation[[first, second]] = second, first
    return permutation


def test_a_permutation_that_is_no_symmetry_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    c = network()
    conv = next(b for b in c.wiring.births if isinstance(c.program.ops[b.op], ir.Convolution))
    permutation = transposition(c, conv.start, conv.start + 1)  # and not the bias after it
    monkeypatch.setattr(ngc.proof, "symmetries", lambda wiring: _Group(permutation))
    _, checks = outcome(c)
    assert not checks["symmetric"].passed
    assert checks["faithful"].passed
    assert checks["lossless"].passed


def test_a_symmetry_that_changes_outputs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are permuted otherwise than the neurons."""
    from ngc.symmetry import apply

    c = network()

    def careless(wiring: object, weights: object, permutation: object) -> object:
        moved = apply(wiring, weights, permutation)  # type: ignore[type-var]
        bias = next(p for p in c.program.params if p.name == "b3")
        moved[bias.offset : bias.offset + bias.size] = weights[  # type: ignore[index]
            bias.offset : bias.offset + bias.size
        ].flip(0)
        return moved

    monkeypatch.setattr(ngc.proof, "apply", careless)
    _, checks = outcome(c)
    assert not checks["symmetric"].passed
    assert "output y" in checks["symmetric"].detail
    assert "first at [0, " in checks["symmetric"].detail


# --- weights that do not come back --------------------------------------------------------------


def test_two_edges_with_one_slot_lose_the_other() -> None:
    def repeated(block: EdgeBlock) -> EdgeBlock:
        slots = block.slots.numpy().copy()
        slots[0, 0, 0] = slots[0, 0, 1]
        return replace(block, slots=Slots.of(slots))

    broken = with_block(network(flatten="kernel"), "linear", repeated)
    _, checks = outcome(broken)
    assert not checks["faithful"].passed
    assert "1 of 18 entries" in str(broken.coverage.fates) or not checks["complete"].passed


# --- what is kept of a failure ------------------------------------------------------------------


def test_a_failure_can_be_replayed(tmp_path: Path) -> None:
    c = without(network(flatten="kernel"), ir.Scale, lambda op: op.inputs[0])
    verification, _ = outcome(c)
    verification.save(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"model.onnx", "inputs.npz", "report.txt"}
    with np.load(tmp_path / "inputs.npz") as inputs:
        assert inputs["x"].shape == (1, 2, 4, 4)
    report = (tmp_path / "report.txt").read_text()
    assert "faithful: FAIL" in report
    assert "replay: ngc verify model.onnx --seed 0 --shape x=1x2x4x4 --flatten kernel" in report
    assert ngc.verify(ngc.compile(tmp_path / "model.onnx", flatten="kernel")).passed


def test_require_names_the_failed_checks() -> None:
    c = without(network(), ir.Scale, lambda op: op.inputs[0])
    with pytest.raises(ngc.proof.VerificationError, match="faithful: own weights, output y"):
        ngc.verify(c).require()


# --- models with little to compare --------------------------------------------------------------


def small(text: str, **arrays: np.ndarray) -> onnx.ModelProto:
    result = parse_model(f'<ir_version: 10, opset_import: ["": 20]> {text}')
    result.graph.initializer.extend(numpy_helper.from_array(a, n) for n, a in arrays.items())
    return result


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_a_model_without_parameters() -> None:
    verification, checks = outcome(
        ngc.compile(small("m (float[2, 3] x) => (float[2, 3] y) { y = Relu (x) }"))
    )
    assert verification.passed
    assert checks["complete"].figure == "no parameters"
    assert checks["symmetric"].figure == "no neuron can be moved"


def test_integer_outputs_are_compared_with_what_they_come_from() -> None:
    text = """m (float[12, 3] x) => (int64[12, 1] y) {
        h = MatMul (x, W)
        y = ArgMax <axis = 1> (h)
    }"""
    verification, checks = outcome(ngc.compile(small(text, W=floats(3, 2))))
    assert verification.passed, verification.checks
    assert "the input of ArgMax compared as well" in checks["faithful"].figure


def test_a_saturated_softmax_is_looked_behind() -> None:
    text = """m (float[4, 3] x) => (float[4, 5] y) {
        h = MatMul (x, W)
        l = Mul (h, large)
        y = Softmax <axis = 1> (l)
    }"""
    large = np.array(1e6, np.float32)
    proto = small(text, W=floats(3, 5), large=large)
    verification, _ = outcome(ngc.compile(proto))
    assert verification.passed, verification.checks
    assert ngc.proof.says_little(np.eye(4, 5))
    assert not ngc.proof.says_little(np.arange(20.0))


def test_dynamic_dimensions_are_bound() -> None:
    text = "m (float[N, 3] x) => (float[N, 2] y) { y = MatMul (x, W) }"
    verification, _ = outcome(ngc.compile(small(text, W=floats(3, 2))))
    assert verification.passed


def test_strings_and_sequences_are_refused() -> None:
    from ngc.errors import UnsupportedOps

    sequence = helper.make_model(
        helper.make_graph(
            [helper.make_node("ConcatFromSequence", ["x"], ["y"], axis=0)],
            "sequences",
            [helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2, 3])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 3])],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    string = helper.make_model(
        helper.make_graph(
            [helper.make_node("StringNormalizer", ["x"], ["y"])],
            "strings",
            [helper.make_tensor_value_info("x", TensorProto.STRING, [2])],
            [helper.make_tensor_value_info("y", TensorProto.STRING, [2])],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    for refused in (sequence, string):
        with pytest.raises(UnsupportedOps) as error:
            ngc.compile(refused)
        assert error.value.errors


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_is_compared_in_single(kind: str) -> None:
    text = f"""m ({kind}[2, 3] x) => ({kind}[2, 2] y) {{
        h = MatMul (x, W)
        r = Relu (h)
        y = MatMul (r, V)
    }}"""
    from ml_dtypes import bfloat16

    dtype = np.float16 if kind == "float16" else bfloat16
    proto = small(text)
    for name, shape in (("W", (3, 4)), ("V", (4, 2))):
        tensor = numpy_helper.from_array(floats(*shape).astype(dtype), name)
        proto.graph.initializer.append(tensor)
    verification, _ = outcome(ngc.compile(proto))
    assert verification.passed, verification.checks


def test_quantised_models_have_a_limit_of_their_own() -> None:
    text = """m (float[4, 6] x) => (float[4, 3] y) {
        q = QuantizeLinear (x, s, z)
        d = DequantizeLinear (q, s, z)
        w = DequantizeLinear (W, t, z)
        h = MatMul (d, w)
        r = Relu (h)
        v = DequantizeLinear (V, t, z)
        y = MatMul (r, v)
    }"""
    codes = RNG.integers(-127, 128, (6, 8)).astype(np.int8)
    last = RNG.integers(-127, 128, (8, 3)).astype(np.int8)
    proto = small(
        text, W=codes, V=last, s=np.array(0.03, np.float32), t=np.array(0.01, np.float32),
        z=np.array(0, np.int8),
    )  # fmt: skip
    verification, checks = outcome(ngc.compile(proto))
    assert verification.passed, verification.checks
    assert "not rounded to the grid" in checks["faithful"].figure


def test_an_error_is_forgiven_only_where_rounding_alone_makes_one_like_it() -> None:
    assert tolerated(error=3e-3, noise=1e-3)
    assert not tolerated(error=3e-3, noise=1e-5)
    assert not tolerated(error=float("inf"), noise=1e-3)
    assert not tolerated(error=1.0, noise=float("inf"))


def test_nothing_is_forgiven_where_rounding_drowns_the_output() -> None:
    assert not tolerated(error=0.3, noise=0.009)
    assert not tolerated(error=float("nan"), noise=1e-3)


def steep(layers: int) -> Compilation:
    """A sinusoidal network of frequency 30 with weights that make it chaotic."""
    sines = "".join(
        f"""
        z{k} = Gemm <transB = 1> (h{k}, W{k}, b{k})
        o{k} = Mul (z{k}, omega)
        h{k + 1} = Sin (o{k})"""
        for k in range(layers)
    )
    text = f"""m (float[5, 2] h0) => (float[5, 3] y) {{
        omega = Constant <value_float = 30.0> (){sines}
        y = Gemm <transB = 1> (h{layers}, W, b)
    }}"""
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        bound = shape[-1] ** -0.5
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    weights = {"W": drawn(3, 32), "b": drawn(3)}
    for k in range(layers):
        weights |= {f"W{k}": drawn(32, 32 if k else 2), f"b{k}": drawn(32)}
    return ngc.compile(small(text, **weights))


def test_a_chaotic_network_is_proven_under_smaller_weights() -> None:
    verification, checks = outcome(steep(7))
    assert verification.passed, verification.checks
    assert "compared under own weights divided by" in checks["faithful"].figure
    assert "compared under other weights divided by" in checks["faithful"].figure


@pytest.mark.parametrize("layers", [3, 4, 5, 6])
def test_sinusoidal_networks_of_every_depth_are_proven(layers: int) -> None:
    """Whichever check it is that rounding drowns first."""
    for seed in range(4):
        verification = ngc.verify(steep(layers), seed=seed)
        assert verification.passed, verification.checks


def test_a_wrong_symmetry_of_a_chaotic_network_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ngc.proof.apply

    def wrong(wiring: object, weights: torch.Tensor, permutation: np.ndarray) -> torch.Tensor:
        result = right(wiring, weights, permutation)
        result[10:20] = weights[20:30]
        return result

    monkeypatch.setattr(ngc.proof, "apply", wrong)
    _, checks = outcome(steep(5))
    assert not checks["symmetric"].passed


def test_a_wrong_program_of_a_chaotic_network_is_seen() -> None:
    def cosine(op: ir.Op) -> ir.Op:
        return replace(op, fn="cos") if getattr(op, "fn", "") == "sin" else op

    c = steep(7)
    program_fault(with_program(c, [cosine(op) for op in c.program.ops]))
    program_fault(without(c, ir.Activation, lambda op: op.inputs[0]))


def test_two_runtimes_of_a_network_that_enlarges_rounding_are_forgiven() -> None:
    """Three sines of frequency 30, one output number: by luck it hardly moves from single to
    double precision, and much more from one order of summing to another."""
    text = """m (float[1, 2] x) => (float[1, 1] y) {
        a = MatMul (x, W1)
        b = Sin (a)
        c = MatMul (b, W2)
        d = Sin (c)
        e = MatMul (d, W3)
        f = Sin (e)
        y = MatMul (f, W4)
    }"""
    rng = np.random.default_rng(0)
    sizes = [2, 24, 48, 24, 1]
    scales = [30 / np.sqrt(3 * n) for n in sizes[:3]] + [1.0]
    weights = [
        (rng.standard_normal((n, m)) * scale).astype(np.float32)
        for n, m, scale in zip(sizes, sizes[1:], scales)
    ]
    c = ngc.compile(small(text, **{f"W{k}": w for k, w in enumerate(weights, 1)}))

    def run(x: np.ndarray, order: int = 1) -> np.ndarray:
        """In the precision of x, terms summed from the front or from the back."""
        for k, w in enumerate(weights):
            terms = (x.T * w.astype(x.dtype))[::order]
            x = np.add.accumulate(terms)[-1:] if k == 3 else np.sin(np.add.accumulate(terms)[-1:])
        return x

    for x in rng.standard_normal((40, 1, 2)).astype(np.float32):
        error, _ = difference(run(x), run(x, order=-1))
        (noise,) = moved_by_rounding(c.program, c.weights, {"x": x}).values()
        assert error < FAITHFUL or noise > FORGIVABLE or tolerated(error, noise), (error, noise)


PADDED_BIAS = """m (float[2, 3] x) => (float[2, 5] y) {
    h = MatMul (x, W)
    a = Add (h, b)
    z = Constant <value_floats = [0.0, 0.0]> ()
    c = Concat <axis = 0> (b2, z)
    s = Add (a, c)
    y = Tanh (s)
}"""


def test_a_second_bias_may_be_zero_in_places() -> None:
    c = ngc.compile(small(PADDED_BIAS, W=floats(3, 5), b=floats(5), b2=floats(3)))
    verification, _ = outcome(c)
    assert verification.passed, verification.checks


def test_a_bias_where_zero_is_added_is_seen() -> None:
    c = ngc.compile(small(PADDED_BIAS, W=floats(3, 5), b=floats(5), b2=floats(3)))
    nodes = c.plan.graph.nodes
    scalars = nodes.scalars.copy()
    biased = np.flatnonzero(scalars[:, 0])
    for row in biased[:2], biased[-2:]:
        scalars[row, 0] = scalars[row[::-1], 0]
        wrong = with_graph(c, replace(c.plan.graph, nodes=replace(nodes, scalars=scalars)))
        assert not outcome(wrong)[1]["faithful"].passed


def test_a_closed_sigmoid_is_measured_by_its_range() -> None:
    text = """program p {
  %x = input float32 [1,2]
  %s = activation float32 [1,2] x=%x fn="sigmoid"
  %r = reshape float32 [2] x=%s
  return closed=%r open=%x
}
"""
    program = parse_program(text)
    assert (floor(program, "r"), floor(program, "x")) == (1e-3, TINY)
    closed, expected = np.array([5e-9, 0.0]), np.array([0.0, 0.0])
    assert difference(closed, expected, 1e-3)[0] < 1e-4 < difference(closed, expected)[0]


def test_a_network_that_onnxruntime_cannot_run_is_named() -> None:
    text = """m (double[1, 2, 4, 4] x) => (double[1, 3, 2, 2] y) { y = Conv (x, W) }"""
    weight = np.random.default_rng(0).standard_normal((3, 2, 3, 3))
    with pytest.raises(OracleError, match=r"m: onnxruntime cannot(.|\n)*the network in single"):
        ngc.verify(ngc.compile(small(text, W=weight)))
