"""The proof of a compilation: four checks against onnxruntime and the weights themselves.

faithful    the program, run in torch, equals onnxruntime on random inputs, with the model's own
            weights and with others (a model whose weights are all alike proves little)
lossless    the weights come back from the graph bit for bit, and the ONNX file written from it
            gives onnxruntime's outputs bit for bit
symmetric   a random element of the derived symmetry group leaves onnxruntime's outputs as they
            are, and permutes the nodes of the graph and nothing else
complete    every parameter is on the graph, or there is a reason why not
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper

from ngc.backends.onnx_export import fill_skeleton, fixed_parameters, make_skeleton
from ngc.backends.pyg import bind, lift
from ngc.backends.torch_exec import Executor, pack, unpack
from ngc.compiler import Compilation
from ngc.errors import LiftError, VerificationError
from ngc.ir import program as ir
from ngc.ir.graph import EDGE_KINDS
from ngc.ir.program import Param, Program
from ngc.ir.slots import ONE, ZERO, Slots
from ngc.oracle import Oracle
from ngc.plan import Plan, read
from ngc.symmetry import apply, symmetries
from ngc.widen import is_narrow, widen_model

FAITHFUL = 1e-4
SYMMETRIC = 1e-5

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Check:
    """One check: whether it passed, its figure (an error, a count), and what was found."""

    name: str
    passed: bool
    figure: str
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Verification:
    """The outcome of the four checks, with the model and inputs they ran on."""

    name: str
    checks: tuple[Check, ...]
    model: onnx.ModelProto
    inputs: Arrays = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    def require(self) -> Verification:
        """Itself, or a VerificationError that names the failed checks."""
        failed = [f"{c.name}: {c.detail or c.figure}" for c in self.checks if not c.passed]
        if failed:
            raise VerificationError("; ".join(failed), where=self.name)
        return self

    def save(self, folder: str | Path) -> None:
        """Model, inputs and outcome, to replay a failure."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(self.model.SerializeToString())
        np.savez(folder / "inputs.npz", **self.inputs)  # type: ignore[arg-type]
        results = ((c, "pass" if c.passed else "FAIL") for c in self.checks)
        lines = [f"{c.name}: {result} {c.figure} {c.detail}" for c, result in results]
        (folder / "report.txt").write_text("\n".join(lines) + "\n")


def verify(compilation: Compilation, *, seed: int = 0, timeout: float = 300.0) -> Verification:
    """Run the four checks on a compilation."""
    return _Proof(compilation, seed, timeout).run()


class _Proof:
    def __init__(self, compilation: Compilation, seed: int, timeout: float) -> None:
        self.c, self.seed, self.timeout = compilation, seed, timeout
        self.program, self.plan = compilation.program, compilation.plan
        self.source = compilation.source.proto
        self.skeleton = make_skeleton(self.source, self.program.params, compilation.arrays)
        self.inputs = random_inputs(self.program, seed)
        fixed = fixed_parameters(self.skeleton)
        drawn = other_weights(self.program, compilation.weights, seed, fixed)
        self.other = calibrated(self.program, drawn, self.inputs, fixed)

    def run(self) -> Verification:
        own = self.run_oracle(self.source)
        original = self.c.source.original
        untouched = own if original is None else self.run_oracle(original)
        other = self.run_oracle(self.written(self.other))
        checks = (
            self.faithful(untouched, other),
            self.lossless(own),
            self.symmetric(other),
            self.complete(),
        )
        return Verification(self.c.source.name, checks, self.source, self.inputs)

    def run_oracle(self, model: onnx.ModelProto) -> Arrays:
        types = {
            value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        }
        with Oracle(model, timeout=self.timeout) as oracle:
            return oracle.run({name: a.astype(types[name]) for name, a in self.inputs.items()})

    def written(self, weights: torch.Tensor) -> onnx.ModelProto:
        """The ONNX network with other weights."""
        return fill_skeleton(self.skeleton, unpack(self.program, weights))

    # --- the checks ---

    def faithful(self, own: Arrays, other: Arrays) -> Check:
        narrow = is_narrow(self.source)
        worst, details = 0.0, []
        runs = (("own weights", self.c.weights, own), ("other weights", self.other, other))
        for label, weights, expected in runs:
            if narrow:  # half precision differs from float by more than wiring could hide
                expected = self.run_oracle(widen_model(self.written(weights)))
            found = run_program(self.program, weights, self.inputs)
            for name, reference in expected.items():
                error, message = difference(found[name], reference)
                worst = max(worst, error)
                if not error <= FAITHFUL:
                    details.append(f"{label}, output {name}: {message}")
        return Check("faithful", not details, f"max relative error {worst:.1e}", "; ".join(details))

    def lossless(self, own: Arrays) -> Check:
        graph = bind(self.plan, self.c.weights)
        covered = torch.from_numpy(self.plan.covered())
        try:
            lifted = lift(self.plan, graph)
        except LiftError as error:
            return Check("lossless", False, "lift failed", str(error))
        del graph
        lifted = torch.where(covered, lifted, self.c.weights)
        lifted[ZERO], lifted[ONE] = 0, 1
        back = unpack(self.program, lifted)
        wrong = [name for name, a in back.items() if a.tobytes() != self.c.arrays[name].tobytes()]
        if wrong:
            return Check("lossless", False, f"{len(wrong)} parameters differ", ", ".join(wrong[:5]))
        again = self.run_oracle(fill_skeleton(self.skeleton, back))
        changed = [name for name in own if own[name].tobytes() != again[name].tobytes()]
        detail = f"outputs of the written file differ: {', '.join(changed)}" if changed else ""
        return Check("lossless", not changed, f"{len(back)} parameters bit for bit", detail)

    def symmetric(self, other: Arrays) -> Check:
        """Done with the other weights: equal weights would hide a wrong permutation."""
        wiring = self.c.wiring
        group = symmetries(wiring)
        permutation = group.random_element(self.seed)
        moved = int((permutation != np.arange(len(permutation))).sum())
        weights = apply(wiring, self.other, permutation)
        permuted = self.run_oracle(self.written(weights))
        worst, details = 0.0, []
        for name, reference in other.items():
            error, message = difference(permuted[name], reference)
            worst = max(worst, error)
            if not error <= SYMMETRIC:
                details.append(f"output {name}: {message}")
        details += permutes_graph(self.plan, self.other, weights, permutation)
        figure = f"{moved} neurons moved, max relative error {worst:.1e}"
        return Check("symmetric", not details, figure, "; ".join(details))

    def complete(self) -> Check:
        report = self.c.coverage
        silent = [f.name for f in report.fates if f.state != "on the graph" and not f.reason]
        states = ("on the graph", "folded", "not represented")
        counts = {state: len(report.of(state)) for state in states}
        figure = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        return Check("complete", not silent, figure or "no parameters", ", ".join(silent[:5]))


def run_program(
    program: Program, weights: torch.Tensor, inputs: Mapping[str, np.ndarray]
) -> Arrays:
    """Outputs of the program in torch."""
    feeds = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()}
    with torch.no_grad():
        outputs = Executor(program)(weights, feeds)
    return {name: value.numpy() for name, value in outputs.items()}


def difference(found: np.ndarray, reference: np.ndarray) -> tuple[float, str]:
    """Largest error relative to the scale of the reference, and the first value beyond it."""
    if found.shape != reference.shape:
        return float("inf"), f"shape {list(found.shape)}, expected {list(reference.shape)}"
    if reference.size == 0:
        return 0.0, ""
    a, b = found.astype(np.float64), reference.astype(np.float64)
    finite = np.isfinite(b)
    # Without one finite value there is nothing to hold the result against.
    scale = np.abs(b[finite]).max() if finite.any() else 1.0
    with np.errstate(invalid="ignore"):
        error = np.where(finite, np.abs(a - b), np.where(_same(a, b), 0.0, np.inf))
    error = np.where(np.isnan(error), np.inf, error) / (scale or 1.0)
    worst = float(error.max())
    first = np.unravel_index(int((error > 0.1 * worst).argmax()), error.shape)
    place = ", ".join(str(int(k)) for k in first)
    return worst, f"error {worst:.1e}, first at [{place}]: {a[first]:.6g}, expected {b[first]:.6g}"


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a == b) | (np.isnan(a) & np.isnan(b))


def permutes_graph(
    plan: Plan, weights: torch.Tensor, moved: torch.Tensor, permutation: np.ndarray
) -> list[str]:
    """What else than the order of nodes differs between the graphs of two weights, where the
    second are the first permuted by ``permutation`` of granular neurons."""
    nodes = plan.graph.nodes
    # A node is its neuron, and its place where it is a copy for one position.
    places = (nodes.place + 1).astype(np.int64)
    width = int(places.max(initial=0)) + 1
    key = (nodes.neuron * width + places[:, 0]) * width + places[:, 1]
    image = (permutation[nodes.neuron] * width + places[:, 0]) * width + places[:, 1]
    order = np.argsort(key)
    found = np.searchsorted(key[order], image).clip(max=len(key) - 1)
    target = order[found]
    if not np.array_equal(key[target], image):
        return ["the permutation of neurons is not one of nodes"]
    faults = [
        f"node feature {name} changed"
        for name in ("kind", "role", "activation", "pool", "layer")
        if not np.array_equal(getattr(nodes, name)[target], getattr(nodes, name))
    ]
    if not torch.equal(
        plan.node_features(moved)[torch.from_numpy(target)], plan.node_features(weights)
    ):
        faults.append("node feature x is not that of the permuted neuron")
    same = np.arange(len(target))
    if edge_checksum(plan, weights, target) != edge_checksum(plan, moved, same):
        faults.append("an edge changed by more than its ends")
    return faults


def edge_checksum(plan: Plan, weights: torch.Tensor, name_of: np.ndarray) -> int:
    """A number that is the same for the same set of edges (ends, kind, kernel) in any order, with
    nodes called ``name_of``. Two different sets agree with probability 2^-64."""
    total = 0
    for block in plan.graph.blocks:
        bits = read(weights, block.slots).numpy().reshape(block.num_edges, block.taps)
        whole = np.ascontiguousarray(bits).view(f"u{bits.itemsize}").astype(np.uint64)
        kernel = _mixed(whole + np.arange(block.taps, dtype=np.uint64) * _ODD).sum(axis=1)
        src, dst = name_of[block.edge_index()].astype(np.uint64)
        head = _mixed(src) * np.uint64(3) + _mixed(dst) * np.uint64(5)
        kind = np.array([EDGE_KINDS.index(block.kind) * 2 + block.reverse], dtype=np.uint64)
        total += int(_mixed(kernel + head + kind * _ODD).sum())
    return total % 2**64


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: spreads every bit over all of them."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


# --- what to run on -----------------------------------------------------------------------------


def random_inputs(program: Program, seed: int) -> Arrays:
    """Standard normal numbers; for integers, ids that every table they index has."""
    rng = np.random.default_rng(seed)
    limits = _id_limits(program)
    inputs: Arrays = {}
    for op in program.inputs:
        value = op.out
        dtype = np.dtype(value.dtype)
        if dtype == np.bool_:
            inputs[value.name] = rng.random(value.shape) < 0.5
        elif dtype.kind in "iu":
            high = limits.get(value.name, 2)
            inputs[value.name] = rng.integers(0, high, value.shape).astype(dtype)
        else:
            inputs[value.name] = rng.standard_normal(value.shape).astype(dtype)
    return inputs


def _id_limits(program: Program) -> dict[str, int]:
    """For each integer input that indexes a table, the size of the smallest one."""
    source: dict[str, str] = {op.out.name: op.out.name for op in program.inputs}
    shapes = {name: value.shape for name, value in program.values().items()}
    limits: dict[str, int] = {}
    for op in program.ops:
        size, ref = 0, ""
        if isinstance(op, ir.Embedding):
            size, ref = op.weight.shape[0], op.ids
        elif isinstance(op, ir.Gather) and op.fn != "nd":
            size, ref = shapes[op.x][op.axis], op.ids
        if size and ref in source:
            limits[source[ref]] = min(size, limits.get(source[ref], size))
        if (op.is_view or isinstance(op, ir.Cast)) and op.inputs[0] in source:
            source[op.out.name] = source[op.inputs[0]]
    return limits


def other_weights(
    program: Program, weights: torch.Tensor, seed: int, fixed: Collection[str] = ()
) -> torch.Tensor:
    """Random weights under which signals neither die nor explode on their way: normal with
    variance 2 / fan-in (He et al. 2015) where weights are summed over, near one where they scale,
    small where they are added. ``fixed`` parameters keep their values."""
    generator = torch.Generator().manual_seed(seed)
    drawn: set[str] = set(fixed)
    result = weights.clone()
    for op in program.ops:
        for role, slots in op.operands.items():
            touched = [p for p in program.params if p.name not in drawn and _touches(slots, p)]
            for param in touched:
                drawn.add(param.name)
                noise = torch.randn(param.size, generator=generator, dtype=weights.dtype)
                own = slice(param.offset, param.offset + param.size)
                result[own] = _drawn(op, role, noise)
    # As they will be stored: half-precision parameters are rounded.
    return pack(program, unpack(program, result), dtype=weights.dtype)


def calibrated(
    program: Program,
    weights: torch.Tensor,
    inputs: Mapping[str, np.ndarray],
    fixed: Collection[str],
) -> torch.Tensor:
    """The weights, with those of the last layers divided by the deviation of what they compute: a
    softmax that is one at one place and zero elsewhere would hide nearly any mistake before it."""
    producers = program.producers()
    last: dict[str, ir.Op] = {}
    for _, ref in program.outputs:
        op = producers[ref]
        weighted = (ir.Linear, ir.Convolution, ir.ConvolutionTranspose)
        while not isinstance(op, weighted) and op.inputs:
            op = producers[op.inputs[0]]
        if op.operands:
            last[op.out.name] = op
    feeds = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in inputs.items()}
    with torch.no_grad():
        _, values = Executor(program).record(weights, feeds, list(last))
    result = weights.clone()
    for name, op in last.items():
        deviation = float(values[name].double().std()) if values[name].numel() > 1 else 1.0
        if not 0 < deviation < math.inf:
            continue
        for param in program.params:
            if param.name not in fixed and any(_touches(s, param) for s in op.operands.values()):
                result[param.offset : param.offset + param.size] /= deviation
    return pack(program, unpack(program, result), dtype=weights.dtype)


def _touches(slots: Slots, param: Param) -> bool:
    first, end = param.offset, param.offset + param.size
    if slots.entries is None:
        return slots.size > 0 and first <= slots.offset < end
    entries = slots.numpy()
    return bool(((entries >= first) & (entries < end)).any())


def _drawn(op: ir.Op, role: str, noise: torch.Tensor) -> torch.Tensor:
    """Standard normal noise, made fit for a role of an operation."""
    match op, role:
        case ir.Linear(spec=spec, weight=weight), _:
            _, right, out = spec.replace("->", ",").split(",")
            fan_in = math.prod(n for c, n in zip(right, weight.shape) if c not in out)
            return noise * math.sqrt(2 / max(fan_in, 1))
        case ir.Convolution(weight=weight), _:
            return noise * math.sqrt(2 / max(math.prod(weight.shape[1:]), 1))
        case ir.ConvolutionTranspose(weight=weight, strides=strides, groups=groups), _:
            taps = math.prod((weight.shape[0] // groups, *weight.shape[2:])) / math.prod(strides)
            return noise * math.sqrt(2 / max(taps, 1))
        case (ir.BatchNorm(), "var" | "scale") | (ir.Scale(), _):
            return 1 + 0.5 * noise.clamp(-1.5, 1.5)
        case ir.Embedding(), _:
            return noise
    return 0.2 * noise
