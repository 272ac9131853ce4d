"""Whether the wires of a program are true, found out by running it in float64.

Four statements, none of which trusts the rules that made the wires:

edges         every output element of a weighted operation is the sum, over the edges into its
              neuron, of kernel entries times values of the source neuron;
parameters    every scalar of a neuron is the entry that the operation applies to its elements;
reads         changing one neuron's value changes those that an operation computes from it;
dependencies  and in the whole network, the neurons downstream of it; and no others.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch

from ngc.backends.torch_exec import Executor
from ngc.ir import program as ir
from ngc.ir.check import check
from ngc.ir.program import Program
from ngc.ir.slots import FIRST_SLOT, Slots
from ngc.ir.text import parse_program
from ngc.passes.wire import Wires, Wiring, wire
from tests.passes.program.golden import program_of

WEIGHTED = (ir.Linear, ir.Convolution, ir.ConvolutionTranspose, ir.Embedding)
Edges = dict[int, dict[int, list[int]]]  # target -> source -> kernel


def wired(body: str, exact: bool = True, **input_axes: tuple[int, ...]) -> Wiring:
    """The wiring of a program given by its lines, proven true. ``exact=False``: neurons downstream
    may also stay as they are (an operation that reads but does not use them)."""
    program = parse_program(body) if body.lstrip().startswith("program") else program_of(body)
    check(program)
    wiring = wire(program, input_axes)
    assert_true(wiring, exact)
    return wiring


def assert_true(wiring: Wiring, exact: bool = True) -> None:
    assert_edges_are_true(wiring)
    assert_parameters_are_true(wiring)
    assert_reads_are_true(wiring, exact)
    assert_dependencies_are_true(wiring, exact)


def random_weights(program: Program, seed: int = 0) -> torch.Tensor:
    """A weight vector in which no two entries are alike."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(program.num_slots, generator=generator, dtype=torch.float64)
    weights[:FIRST_SLOT] = torch.tensor([0.0, 1.0])
    for op in program.ops:
        if isinstance(op, ir.BatchNorm):
            variances = torch.from_numpy(op.var.numpy().copy())
            weights[variances] = weights[variances].abs()
    return weights


# --- edges -----------------------------------------------------------------------------------


def assert_edges_are_true(wiring: Wiring) -> None:
    program = wiring.program
    weights = random_weights(program)
    for number, op in enumerate(program.ops):
        if isinstance(op, WEIGHTED) or (isinstance(op, ir.Scale) and op.fn == "mul"):
            read = _tokens(wiring, op) if isinstance(op, ir.Embedding) else None
            matrix = _matrix(program, op, weights)
            source = wiring.index[op.inputs[0]].full().reshape(-1) if read is None else read
            target = wiring.index[op.out.name].full().reshape(-1)
            _compare(wiring, number, matrix, source, target, weights.numpy())


def _matrix(program: Program, op: ir.Op, weights: torch.Tensor) -> np.ndarray:
    """[out elements, in elements]: the operation as a matrix, whose entries are weights."""
    value = program.values()[op.inputs[0]]
    one = Program(program.name, program.params, (ir.Input(out=value), op), (("y", op.out.name),))
    run = Executor(one, dtype=torch.float64)
    if isinstance(op, ir.Embedding):
        # Every id is every row in turn: [ids, rest] by rows of the table, seen as one-hot inputs.
        ids, rows = value.shape, op.weight.shape[0]
        count = int(np.prod(ids))
        every = [run(weights, {value.name: torch.full(ids, v)})["y"] for v in range(rows)]
        picked = torch.stack([y.reshape(count, -1) for y in every], dim=-1)  # [count, rest, rows]
        wide = torch.zeros(count, picked.shape[1], count, rows, dtype=picked.dtype)
        wide[torch.arange(count), :, torch.arange(count)] = picked
        return wide.reshape(-1, count * rows).numpy()
    basis = torch.eye(int(np.prod(value.shape)), dtype=torch.float64)
    columns = [run(weights, {value.name: column.reshape(value.shape)})["y"] for column in basis]
    return torch.stack([column.reshape(-1) for column in columns], dim=-1).numpy()


def _tokens(wiring: Wiring, op: ir.Embedding) -> np.ndarray:
    """The one-hot neurons of each id, id after id."""
    number = wiring.program.ops.index(op)
    of: dict[int, list[int]] = {}
    for block in wiring.wires:
        if block.op == number and block.kind == "token":
            of |= {int(s[0]): d.tolist() for s, d in zip(block.src, block.dst)}
    ids = wiring.index[op.ids].full().reshape(-1)
    return np.array([of[int(n)] for n in ids]).reshape(-1)


def edges_into(wires: list[Wires]) -> Edges:
    """Kernels by target and source. No pair has two edges of one operation."""
    found: Edges = defaultdict(dict)
    for block in wires:
        slots = block.slots.numpy()
        for g, o, i in itertools.product(*map(range, slots.shape[:3])):
            src, dst = int(block.src[g, i]), int(block.dst[g, o])
            assert src not in found[dst], f"two {block.kind} edges from {src} to {dst}"
            found[dst][src] = slots[g, o, i].tolist()
    return found


def _compare(
    wiring: Wiring,
    number: int,
    matrix: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
) -> None:
    op = wiring.program.ops[number]
    blocks = [b for b in wiring.wires if b.op == number and b.kind != "token"]
    block_of = {
        (int(src), int(dst)): block
        for block in blocks
        for g in range(len(block.src))
        for src, dst in itertools.product(block.src[g], block.dst[g])
    }
    edges = edges_into(blocks)
    slot_of = {value: slot for slot, value in enumerate(weights.tolist())}
    rows: dict[tuple[int, int], list[list[int]]] = defaultdict(list)  # kernels as they are used
    for element, neuron in enumerate(target.tolist()):
        used: dict[int, list[int]] = defaultdict(list)
        for k in np.flatnonzero(matrix[element]).tolist():
            used[int(source[k])].append(slot_of[float(matrix[element, k])])
        into = edges[neuron]
        assert used.keys() <= into.keys(), f"{op.out.name}: no edge {used.keys() - into.keys()}"
        for src, slots in used.items():
            rows[neuron, src].append(slots)
            where = f"{op.out.name}[{element}] (neuron {neuron}) from neuron {src}"
            assert _reads(block_of[src, neuron], into[src], slots), (
                f"{where}: reads {slots}, the kernel is {into[src]}"
            )
    for neuron in np.unique(target).tolist():
        for src, kernel in edges[neuron].items():
            used_slots = {s for row in rows[neuron, src] for s in row}
            assert used_slots == set(kernel) - {0}, f"{op.out.name}: {src} -> {neuron} {kernel}"
            # Positions of the result come in order: outermost where positions are mixed, innermost
            # where each has weights of its own.
            by_position = _distinct(rows[neuron, src])
            if block_of[src, neuron].kind in ("positional", "scale"):
                assert list(itertools.chain(*by_position)) == kernel, op.out.name
            if block_of[src, neuron].kind.startswith("linear"):
                assert list(itertools.chain(*zip(*by_position))) == kernel, op.out.name


def _reads(block: Wires, kernel: list[int], slots: list[int]) -> bool:
    """Whether an element may use these kernel entries, in the order of the source's elements."""
    match block.kind:
        case "convolution" | "convolution_positions":  # a window may be cut off by the border
            return _is_part(slots, kernel)
        case "convolution_transpose":  # the kernel runs against the input
            return _is_part(slots, kernel[::-1])
        case "positional":
            return slots in np.array(kernel).reshape(block.kernel).tolist()
        case "scale":
            return len(slots) == 1 and slots[0] in kernel
    if len(kernel) % len(slots):
        return False
    return slots in np.array(kernel).reshape(len(slots), -1).T.tolist()


def _is_part(part: list[int], whole: list[int]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


def _distinct(rows: list[list[int]]) -> list[list[int]]:
    return [list(row) for row in dict.fromkeys(map(tuple, rows))]


# --- parameters ------------------------------------------------------------------------------


def assert_parameters_are_true(wiring: Wiring) -> None:
    for number, op in enumerate(wiring.program.ops):
        for role, slots in _applied(op):
            neurons = wiring.index[op.out.name].full().reshape(-1)
            wanted = slots.expand(op.out.shape).numpy().reshape(-1)
            for neuron in np.unique(neurons).tolist():
                used = list(dict.fromkeys(wanted[neurons == neuron].tolist()))
                found = _attached(wiring, number, role, neuron)
                assert list(dict.fromkeys(found)) == used, (op.out.name, role, neuron)


def _applied(op: ir.Op) -> Iterator[tuple[str, Slots]]:
    """Parameters that an operation applies entry by entry, by role."""
    match op:
        case ir.Shift(fn=fn):
            yield ("sub_bias" if fn == "sub" else "bias"), op.term
        case ir.PRelu():
            yield "slope", op.slope
        case ir.Parameter():
            yield "bias", op.data
        case ir.BatchNorm():
            for role in ("bias", "mean", "var"):
                column = (*op.bias.shape, *[1] * (len(op.out.shape) - 2))
                yield role, op.operands[role].reshape(column)


def _attached(wiring: Wiring, number: int, role: str, neuron: int) -> list[int]:
    for record in wiring.scalars:
        if record.op == number and record.role == role and neuron in record.neurons:
            return record.slots[record.neurons == neuron].tolist()
    found = []
    for block in wiring.wires:
        if block.op == number and block.kind == f"position_{role}" and neuron in block.dst:
            g, o = (int(k[0]) for k in np.nonzero(block.dst == neuron))
            found += block.slots.numpy()[g, o].reshape(-1).tolist()
    return found


# --- dependencies ----------------------------------------------------------------------------


def assert_reads_are_true(wiring: Wiring, exact: bool = True) -> None:
    """Each operation by itself: which neurons change with a neuron that it reads."""
    program = wiring.program
    inputs = {op.out.name: _sample(op.out) for op in program.inputs}
    weights = random_weights(program)
    _, values = Executor(program, dtype=torch.float64).record(weights, inputs)
    successors = _successors(wiring)
    constants = {
        n for b in wiring.births if b.role == "constant" for n in range(b.start, b.stop)
    }  # nothing changes them
    for number, op in enumerate(program.ops):
        refs = [r for r in dict.fromkeys(op.inputs) if values[r].is_floating_point()]
        if not refs:
            continue
        given = {ref: values[ref] for ref in op.inputs}
        sources = tuple(ir.Input(out=program.values()[ref]) for ref in given)
        one = Program("one", program.params, (*sources, op), (("y", op.out.name),))
        run = Executor(one, dtype=torch.float64)
        before = run(weights, given)["y"]
        target = wiring.index[op.out.name].full()
        held = set(np.unique(target).tolist())
        read = {n for ref in refs for n in np.unique(wiring.index[ref].ids).tolist()} - constants
        for neuron in sorted(read)[:8]:
            changed: set[int] = set()
            for seed in range(3):
                moved = given | {
                    ref: _moved(given[ref], wiring.index[ref].full() == neuron, seed)
                    for ref in refs
                }
                after = run(weights, moved)["y"]
                differs = (after != before) & ~after.isnan()
                changed |= set(target[differs.numpy()].tolist())
            # Data movement passes the neuron itself on.
            expected = {dst for by, dst in successors[neuron] if by == number} | {neuron}
            expected &= held
            where = f"neuron {neuron} in {op.out.name}"
            assert changed <= expected, f"{where} also changes {sorted(changed - expected)}"
            if exact:
                assert changed == expected, f"{where} leaves {sorted(expected - changed)} as it is"


def _moved(value: torch.Tensor, where: np.ndarray, seed: int) -> torch.Tensor:
    """The value with noise on some of its elements."""
    generator = torch.Generator().manual_seed(seed + 1)
    noise = 2 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return torch.where(torch.from_numpy(where.copy()), value + noise, value)


def assert_dependencies_are_true(wiring: Wiring, exact: bool = True) -> None:
    """The whole network: which neurons change, at the end, with a neuron."""
    program = wiring.program
    names = [op.out.name for op in program.ops]
    successors = _successors(wiring)
    inputs = {op.out.name: _sample(op.out) for op in program.inputs}
    weights = random_weights(program)
    _, values = Executor(program, dtype=torch.float64).record(weights, inputs)
    for number, op in enumerate(program.ops):
        if op.is_view or not op.out.dtype.startswith("float"):
            continue
        cut = _cut(program, number)
        run = Executor(cut, dtype=torch.float64)
        given = inputs | {op.out.name: values[op.out.name]}
        index = wiring.index[op.out.name].full()
        later = names[number + 1 :]
        for neuron in np.unique(index).tolist()[:8]:
            changed = set()
            for seed in range(3):
                moved = given | {op.out.name: _moved(given[op.out.name], index == neuron, seed)}
                _, after = run.record(weights, moved, later)
                for name in later:
                    differs = (after[name] != values[name]) & ~(after[name].isnan())
                    changed |= set(wiring.index[name].full()[differs.numpy()].tolist())
            expected = _downstream(successors, neuron, number)
            expected &= {n for name in later for n in np.unique(wiring.index[name].ids).tolist()}
            changed -= {neuron}
            expected -= {neuron}
            where = f"neuron {neuron} of {op.out.name}"
            assert changed <= expected, f"{where} also changes {sorted(changed - expected)}"
            if exact:
                assert changed == expected, (
                    f"{where} leaves {sorted(expected - changed)} as they are"
                )


def _sample(value: ir.Value, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if value.dtype.startswith("float"):
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return torch.randint(0, 2, value.shape, generator=generator).to(getattr(torch, value.dtype))


def _cut(program: Program, number: int) -> Program:
    """The program with one of its values given from outside."""
    ops = list(program.ops)
    ops[number] = ir.Input(out=ops[number].out)
    return program.with_ops(tuple(ops))


def _successors(wiring: Wiring) -> dict[int, list[tuple[int, int]]]:
    """Neuron -> (operation, neuron) pairs that read it."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for block in wiring.wires:
        for src, dst in zip(block.src, block.dst):
            for s in src.tolist():
                found[s] += [(block.op, d) for d in dst.tolist()]
    for number, op in enumerate(wiring.program.ops):
        for src, dst in _coupled(wiring, op):
            for s in src:
                found[s] += [(number, d) for d in dst]
    return found


def _coupled(wiring: Wiring, op: ir.Op) -> Iterator[tuple[list[int], list[int]]]:
    """Neurons that a normalisation makes depend on each other, which have diagonal edges only."""
    match op:
        case ir.Normalise(fn=fn, axes=axes) if fn != "lrn":
            pass
        case ir.Softmax(axis=axis):
            axes = (axis,)
        case _:
            return
    rest = [a for a in range(len(op.out.shape)) if a not in axes]
    flat = []
    for ref in (op.inputs[0], op.out.name):
        full = wiring.index[ref].full().transpose([*rest, *axes])
        flat.append(full.reshape(int(np.prod([op.out.shape[a] for a in rest])), -1))
    for src, dst in {(tuple(a), tuple(b)) for a, b in zip(*(f.tolist() for f in flat))}:
        yield sorted(set(src)), sorted(set(dst))


def _downstream(successors: dict[int, list[tuple[int, int]]], neuron: int, number: int) -> set[int]:
    """Neurons that operations after this one compute from a neuron."""
    found: set[int] = set()
    left = [neuron]
    while left:
        for op, dst in successors[left.pop()]:
            if op > number and dst not in found:
                found.add(dst)
                left.append(dst)
    return found


# --- reading a wiring by eye ------------------------------------------------------------------


def neurons(wiring: Wiring, name: str) -> list:
    """Neurons of a value, counted from the first of them; size 1 where they do not vary."""
    ids = wiring.index[name].ids
    return (ids - ids.min()).tolist()


def blocks(wiring: Wiring, name: str) -> list[str]:
    """The blocks of an operation: kind, groups x [sources, targets], kernel."""
    number = [op.out.name for op in wiring.program.ops].index(name)
    result = []
    for b in wiring.wires:
        if b.op == number:
            groups = f"{len(b.src)}x" if len(b.src) > 1 else ""
            size = "x".join(str(n) for n in b.kernel)
            words = [b.kind, f"{groups}[{b.src.shape[1]},{b.dst.shape[1]}]", size]
            result.append(" ".join(word for word in words if word))
    return result


def edges(wiring: Wiring, name: str) -> dict[tuple[int, int], list[int]]:
    """(source, target) -> kernel of an operation's edges. Targets are counted from the first of
    the operation, sources from the first neuron of its first operand; slots from 0, without the
    two constants."""
    number = [op.out.name for op in wiring.program.ops].index(name)
    op = wiring.program.ops[number]
    first = int(wiring.index[op.inputs[0]].ids.min())
    start = min(b.start for b in wiring.births if b.op == number)
    found = edges_into([b for b in wiring.wires if b.op == number])
    return {
        (src - first, dst - start): [s - FIRST_SLOT for s in kernel]
        for dst, into in sorted(found.items())
        for src, kernel in sorted(into.items())
    }
