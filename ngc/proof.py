"""The proof of a compilation: four checks against onnxruntime and the weights themselves.

faithful    the program, run in torch, equals onnxruntime on random inputs, with the model's own
            weights and with others (a model whose weights are all alike proves little); and every
            operation, computed once more from the edges of the graph, is that of the program
lossless    the weights come back from the graph bit for bit, and the ONNX file written from it
            gives onnxruntime's outputs bit for bit
symmetric   a random element of the derived symmetry group leaves onnxruntime's outputs as they
            are, and permutes the nodes of the graph and nothing else
complete    every parameter is on the graph, or there is a reason why not
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator

from ngc.answers import held_against_answers
from ngc.backends.onnx_export import fill_skeleton, fixed_parameters, make_skeleton
from ngc.backends.torch_exec import Executor, unpack
from ngc.compare import (
    FORGIVABLE,
    TINY,
    difference,
    first_difference,
    floor,
    moved_by_rounding,
    numpy_of,
    same_bits,
    tolerated,
)
from ngc.compiler import Compilation
from ngc.errors import LiftError, VerificationError
from ngc.ir.program import Program
from ngc.ir.slots import ONE, ZERO
from ngc.options import Options
from ngc.oracle import Oracle, OracleError
from ngc.passes.lower.quantized import NOTE as QUANTISED_NOTE
from ngc.recompute import permutes_graph, recompute
from ngc.samples import Arrays, calibrated, other_weights, random_inputs, scaled, tensors
from ngc.symmetry import apply, symmetries
from ngc.widen import widen_model

FAITHFUL = 1e-4
QUANTISED = 5e-2  # activations are not rounded to the quantisation grid
SYMMETRIC = 1e-5

# Where rounding drowns the outputs, weights are divided by this (a power of two: exact), again and
# again, but in all by no more than the second number.
STEP, QUIETEST = 4, 256

# An output of more entries than this with no more than two different values says little.
SAYS_LITTLE = 8


@dataclass(frozen=True)
class Check:
    """One check: whether it passed, its figure (an error, a count), and what was found."""

    name: str
    passed: bool
    figure: str
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Run:
    """Weights, and what onnxruntime makes of the inputs under them. ``divided``: by how much they
    were made smaller."""

    whose: str
    weights: torch.Tensor
    expected: Arrays
    divided: int = 1

    @property
    def label(self) -> str:
        return f"{self.whose} weights" + (f" divided by {self.divided}" if self.divided > 1 else "")


@dataclass(frozen=True, eq=False)
class Verification:
    """The outcome of the four checks, with the model and inputs they ran on. ``replay`` says how
    to see a failure again."""

    name: str
    checks: tuple[Check, ...]
    model: onnx.ModelProto
    inputs: Arrays = field(default_factory=dict)
    replay: str = ""

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
        (folder / "report.txt").write_text("\n".join([self.name, *lines, self.replay]) + "\n")


def verify(compilation: Compilation, *, seed: int = 0, timeout: float = 300.0) -> Verification:
    """Run the four checks on a compilation."""
    with Oracle(timeout=timeout) as oracle:
        return _Proof(compilation, seed, oracle).run()


class _Proof:
    def __init__(self, compilation: Compilation, seed: int, oracle: Oracle) -> None:
        self.c, self.seed, self.oracle = compilation, seed, oracle
        self.program, self.plan = compilation.program, compilation.plan
        self.executor = Executor(self.program)
        self.source = compilation.source.proto
        self.skeleton = make_skeleton(self.source, self.program.params, compilation.arrays)
        self.inputs = random_inputs(self.program, seed)
        # What a fixed parameter was computed from is fixed as well.
        fixed = set(fixed_parameters(self.skeleton))
        sources = (param.derived for param in self.program.params if param.name in fixed)
        self.fixed = frozenset(fixed.union(*sources))
        free = [param for param in self.program.params if param.name not in self.fixed]
        self.quantised = QUANTISED_NOTE in compilation.notes
        self.limit = QUANTISED if self.quantised else FAITHFUL
        self.other = compilation.weights
        if free:
            drawn = other_weights(self.program, compilation.weights, seed, self.fixed)
            self.other = calibrated(self.executor, drawn, self.inputs, self.fixed)
        self.failed_with: torch.Tensor | None = None
        # By weights: outputs of the program, and how far rounding moves them.
        self.outputs: dict[torch.Tensor, Arrays] = {}
        self.moved: dict[torch.Tensor, dict[str, float]] = {}

    def run(self) -> Verification:
        own = self.run_oracle(self.source)
        original = self.c.source.original
        untouched = own if original is None else self.run_oracle(original)
        runs = [Run("own", self.c.weights, untouched)]
        other = Run("other", self.other, own)
        if self.other is not self.c.weights:
            other = replace(other, expected=self.run_oracle(self.written(self.other)))
            runs.append(other)
        runs = [self.heard(run) for run in runs]
        checks = (
            self.faithful(runs),
            self.lossless(own),
            self.symmetric(runs[-1] if runs[1:] else other),
            self.complete(),
        )
        model = self.source if self.failed_with is None else self.written(self.failed_with)
        return Verification(self.c.source.name, checks, model, self.inputs, self.replay())

    def replay(self) -> str:
        """How to see this outcome again."""
        sizes = [f"--shape {n}={'x'.join(map(str, a.shape))}" for n, a in self.inputs.items()]
        flags = [f"--seed {self.seed}", *sizes, *_flags(self.plan.options)]
        return (
            f"replay: ngc verify model.onnx {' '.join(flags)}\n"
            "model.onnx has the weights, and inputs.npz the inputs, with which it first failed"
        )

    def run_oracle(self, model: onnx.ModelProto) -> Arrays:
        """onnxruntime's outputs. In single precision: half precision is less exact than a wrong
        wiring may be wrong, and onnxruntime has few operators for it."""
        model = widen_model(model)
        types = {
            value.name: helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in model.graph.input
        }
        try:
            self.oracle.load(model)
        except OracleError as error:
            double = any(param.dtype == "float64" for param in self.program.params)
            hint = "onnxruntime has few operators in double precision: the network in single"
            raise OracleError(
                error.text, where=self.c.source.name, hint=hint if double else error.hint
            ) from error
        return self.oracle.run({name: a.astype(types[name]) for name, a in self.inputs.items()})

    def written(self, weights: torch.Tensor) -> onnx.ModelProto:
        """The ONNX network with other weights."""
        return fill_skeleton(self.skeleton, unpack(self.program, weights))

    def drowned(self, run: Run, errors: dict[str, float], limit: float) -> bool:
        """Whether an error is over the limit, and rounding alone could make it: signals in a
        network of steep activations, sin(30 x) on large weights, are chaotic, and agreement of two
        runtimes would be luck. Then the run is to be made with smaller weights."""
        return run.divided < QUIETEST and any(
            error > limit and self.noise(run.weights, name) > FORGIVABLE
            for name, error in errors.items()
        )

    def smaller(self, run: Run) -> Run:
        weights = scaled(self.program, run.weights, 1 / STEP, self.fixed)
        expected = self.run_oracle(self.written(weights))
        return replace(run, weights=weights, expected=expected, divided=STEP * run.divided)

    def heard(self, run: Run) -> Run:
        """The run, or one whose outputs rounding does not drown."""
        while self.drowned(run, self.errors(run), self.limit):
            run = self.smaller(run)
        return run

    def errors(self, run: Run) -> dict[str, float]:
        """Of the program, by output."""
        found, _ = self.run_program(run.weights)
        return {name: difference(found[name], a)[0] for name, a in run.expected.items()}

    # --- the checks ---

    def faithful(self, runs: Sequence[Run]) -> Check:
        worst = 0.0
        details: list[str] = []
        remarks: list[str] = []
        floors = {f"output {name}": floor(self.program, ref) for name, ref in self.program.outputs}
        for run in runs:
            weights, expected = run.weights, run.expected
            if run.divided > 1:
                remarks.append(f"rounding drowns the outputs: compared under {run.label}")
            places = self.behind(expected) if run.whose == "other" else []
            found, inner = self.run_program(weights, [place.inside for place in places])
            pairs = [(f"output {name}", found[name], a) for name, a in expected.items()]
            if places:
                known = self.inner_values(weights, [place.source for place in places])
                remarks += [
                    f"an output says little, the input of {place.operator} compared as well"
                    for place in places
                ]
                pairs += [
                    (f"value {p.source}", inner[p.inside].reshape(known[p.source].shape),
                     known[p.source])
                    for p in places
                ]  # fmt: skip
            for name, own_value, reference in pairs:
                error, message = difference(own_value, reference, floors.get(name, TINY))
                if error <= self.limit:
                    worst = max(worst, error)
                    continue
                exact = self.exact(weights, name) if self.quantised else None
                if exact is not None and difference(own_value, exact)[0] <= self.limit:
                    worst = max(worst, difference(own_value, exact)[0])
                    remarks.append(
                        "onnxruntime's 8-bit products saturate on this processor: held against "
                        "onnx's reference evaluator"
                    )
                    continue
                worst = max(worst, error)
                noise = self.noise(weights, name)
                if tolerated(error, noise):
                    remarks.append(f"{name} is ill-conditioned: rounding moves it by {noise:.1e}")
                else:
                    drowned = f" (rounding moves it by {noise:.1e})" if noise > FORGIVABLE else ""
                    details.append(f"{run.label}, {name}: {message}{drowned}")
                    if weights is not self.c.weights and self.failed_with is None:
                        self.failed_with = weights
        if self.c.source.sample is not None:
            answers = held_against_answers(self.c, self.executor, self.limit)
            worst = max(worst, answers.error)
            details += answers.faults
            remarks += answers.remarks
        figure = f"max relative error {worst:.1e}"
        if self.quantised:
            figure += f" (limit {QUANTISED:g}: activations are not rounded to the grid)"
        again = recompute(self.c.wiring, self.plan.graph, self.seed, self.c.explicit)
        figure += f"; {again.done} of {again.total} edge blocks recomputed"
        details += [f"graph: {fault}" for fault in again.faults[:5]]
        if remarks:
            figure += f"; {'; '.join(dict.fromkeys(remarks))}"
        return Check("faithful", not details, figure, "; ".join(details))

    def run_program(
        self, weights: torch.Tensor, names: Sequence[str] = ()
    ) -> tuple[Arrays, Arrays]:
        """Outputs of the program in torch, and some of its values."""
        if not names and weights in self.outputs:
            return self.outputs[weights], {}
        with torch.no_grad():
            outputs, values = self.executor.record(weights, tensors(self.inputs), names)
        self.outputs[weights] = numpy_of(outputs)
        return self.outputs[weights], numpy_of(values)

    def exact(self, weights: torch.Tensor, name: str) -> np.ndarray | None:
        """An output by onnx's own evaluator, whose integer products do not overflow; none where it
        cannot run the model."""
        model = self.source if weights is self.c.weights else self.written(weights)
        names = [f"output {value.name}" for value in model.graph.output]
        try:
            outputs = ReferenceEvaluator(model).run(None, dict(self.inputs))
        except Exception:  # it raises whatever numpy does, and lacks com.microsoft operators
            return None
        return dict(zip(names, outputs)).get(name)

    def noise(self, weights: torch.Tensor, name: str) -> float:
        """How far rounding alone moves an output; 0 for what is no output."""
        if weights not in self.moved:
            self.moved[weights] = moved_by_rounding(self.program, weights, self.inputs)
        return self.moved[weights].get(name.removeprefix("output "), 0.0)

    def behind(self, outputs: Arrays) -> list[Hidden]:
        """What outputs that say little are computed from, by operators that hide much."""
        blind = [name for name, a in outputs.items() if says_little(a)]
        found = [hidden_value(self.source.graph, self.program, name) for name in blind]
        return [hidden for hidden in found if hidden is not None]

    def inner_values(self, weights: torch.Tensor, names: Sequence[str]) -> Arrays:
        """onnxruntime's values inside the model with these weights."""
        model = self.written(weights)
        for name in names:
            if all(value.name != name for value in model.graph.output):
                model.graph.output.append(onnx.ValueInfoProto(name=name))
        inferred = onnx.shape_inference.infer_shapes(model)
        types = {value.name: value for value in inferred.graph.value_info}
        for value in model.graph.output:
            if value.name in types and not value.HasField("type"):
                value.CopyFrom(types[value.name])
        result = self.run_oracle(model)
        return {name: result[name] for name in names}

    def lossless(self, own: Arrays) -> Check:
        """What binding puts on nodes and edges, without the graph's structure around it."""
        weights = self.c.weights
        try:
            lifted = self.plan.lift(*self.on_graph(weights))
        except LiftError as error:
            return Check("lossless", False, "lift failed", str(error))
        rest = torch.from_numpy(~self.plan.covered())
        lifted[rest] = weights[rest]
        lifted[ZERO], lifted[ONE] = 0, 1
        back = unpack(self.program, lifted)
        del lifted
        wrong = [name for name, a in back.items() if not same_bits(a, self.c.arrays[name])]
        if wrong:
            first = first_difference(back[wrong[0]], self.c.arrays[wrong[0]])
            detail = f"{', '.join(wrong[:5])}; {wrong[0]} {first}"
            return Check("lossless", False, f"{len(wrong)} parameters differ", detail)
        written = fill_skeleton(self.skeleton, back)
        figure = f"{len(back)} parameters bit for bit"
        if written == self.source:
            return Check("lossless", True, f"{figure}, and the file to the last byte")
        again = self.run_oracle(written)
        changed = [name for name in own if not same_bits(own[name], again[name])]
        detail = ""
        if changed:
            first = first_difference(again[changed[0]], own[changed[0]])
            detail = f"outputs of the written file differ: {', '.join(changed)}, {first}"
        return Check("lossless", not changed, figure, detail)

    def on_graph(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.plan.node_features(weights), self.plan.edge_features(weights)

    def symmetric(self, run: Run) -> Check:
        """Done with the other weights: equal weights would hide a wrong permutation."""
        wiring = self.c.wiring
        permutation = symmetries(wiring).random_element(self.seed)
        moved = int((permutation != np.arange(len(permutation))).sum())
        if not moved:
            return Check("symmetric", True, "no neuron can be moved")
        try:
            errors, messages, place = self.moved_by(run, permutation)
            while self.drowned(run, errors, SYMMETRIC):
                run = self.smaller(run)
                errors, messages, place = self.moved_by(run, permutation)
        except AssertionError as contradiction:
            return Check("symmetric", False, "the permutation is no symmetry", str(contradiction))
        details = []
        if run.divided > 1:
            place = f"under {run.label}, whose outputs rounding does not drown, {place}"
        for name, error in errors.items():
            if error <= SYMMETRIC:
                continue
            noise = self.noise(run.weights, name)
            if tolerated(error, noise):
                place = f"{name} is ill-conditioned (rounding moves it by {noise:.1e}), {place}"
            else:
                drowned = f" (rounding moves it by {noise:.1e})" if noise > FORGIVABLE else ""
                details.append(f"output {name}: {messages[name]}{drowned}")
                if self.failed_with is None:
                    self.failed_with = run.weights
        weights = apply(wiring, run.weights, permutation)
        details += permutes_graph(self.plan, run.weights, weights, permutation)
        figure = f"{moved} neurons moved, {place} {max(errors.values(), default=0.0):.1e}"
        return Check("symmetric", not details, figure, "; ".join(details))

    def moved_by(
        self, run: Run, permutation: np.ndarray
    ) -> tuple[dict[str, float], dict[str, str], str]:
        """By how much permuted neurons move each output, the first entry that is, and where."""
        weights = apply(self.c.wiring, run.weights, permutation)
        expected, place = run.expected, "max relative error"
        try:
            permuted = self.run_oracle(self.written(weights))
        except LiftError:  # quantised weights have no tensor that could be permuted
            place = "max relative error in torch"
            expected, permuted = (self.run_program(w)[0] for w in (run.weights, weights))
        errors, messages = {}, {}
        for name, reference in expected.items():
            smallest = floor(self.program, dict(self.program.outputs)[name])
            errors[name], messages[name] = difference(permuted[name], reference, smallest)
        return errors, messages, place

    def complete(self) -> Check:
        report = self.c.coverage
        silent = [f.name for f in report.fates if f.state != "on the graph" and not f.reason]
        states = ("on the graph", "folded", "not represented")
        counts = {state: len(report.of(state)) for state in states}
        figure = ", ".join(f"{n} {state}" for state, n in counts.items() if n)
        return Check("complete", not silent, figure or "no parameters", ", ".join(silent[:5]))


def _flags(options: Options) -> list[str]:
    """The flags of options that are not the default."""
    result = []
    for entry in dataclasses.fields(options):
        value = getattr(options, entry.name)
        if value == getattr(Options(), entry.name):
            continue
        flag = f"--{entry.name.replace('_', '-')}"
        match value:
            case dict():
                result += [f"{flag} {n}={','.join(map(str, axes))}" for n, axes in value.items()]
            case tuple():
                result.append(f"{flag} {'x'.join(map(str, value))}")
            case _:
                result.append(f"{flag} {value}")
    return result


# Operators whose results can be nearly alike whatever they are given.
HIDING = {
    "Softmax": "softmax", "LogSoftmax": "log_softmax", "Hardmax": "hardmax", "Sigmoid": "sigmoid",
    "HardSigmoid": "hard_sigmoid", "Tanh": "tanh", "Sign": "sign", "ArgMax": "argmax",
    "ArgMin": "argmin",
}  # fmt: skip


@dataclass(frozen=True)
class Hidden:
    """The input of an operator that hides much: its name in the model and in the program."""

    operator: str
    source: str
    inside: str


def hidden_value(graph: onnx.GraphProto, program: Program, output: str) -> Hidden | None:
    """What the last hiding operator before an output reads, where model and program agree on it."""
    writers = {name: node for node in graph.node for name in node.output}
    node = writers.get(output)
    while node is not None and node.op_type not in HIDING:
        node = writers.get(node.input[0]) if node.input else None
    producers = program.producers()
    op = producers[dict(program.outputs)[output]]
    while op.inputs and getattr(op, "fn", "") not in HIDING.values():
        op = producers[op.inputs[0]]
    if node is None or not op.inputs or HIDING[node.op_type] != getattr(op, "fn", ""):
        return None
    if node.input[0] not in writers:
        return None  # an input of the network
    return Hidden(node.op_type, node.input[0], op.inputs[0])


def says_little(array: np.ndarray) -> bool:
    """Two different values in many entries: most mistakes would not show."""
    return array.size > SAYS_LITTLE and len(np.unique(array)) <= 2
