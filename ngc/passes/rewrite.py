"""The rewriting that program passes share: one operation at a time, until nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TypeAlias

from ngc.ir import program as ir
from ngc.ir.program import Op, Program, Ref, Value


class Scope:
    """What a rewrite may ask about the program around an operation."""

    def __init__(self, program: Program) -> None:
        self.producers = program.producers()
        self.users: dict[Ref, set[Ref]] = {
            ref: {op.out.name for op in ops} for ref, ops in program.uses().items()
        }
        self.outputs = {ref for _, ref in program.outputs}

    def reads(self, op: Op) -> None:
        """Take note of an operation as it is now."""
        self.producers[op.out.name] = op
        for ref in op.inputs:
            self.users[ref].add(op.out.name)

    def value(self, ref: Ref) -> Value:
        return self.producers[ref].out

    def used_only_by(self, ref: Ref, users: Collection[Ref]) -> bool:
        """Whether nothing else reads a value, the outputs of the program included."""
        return ref not in self.outputs and self.users[ref] <= set(users)

    def has_one_use(self, ref: Ref) -> bool:
        return ref not in self.outputs and len(self.users[ref]) == 1


# What becomes of an operation: another one with the same result; the name of a value that equals
# its result; or None, nothing.
Step: TypeAlias = Callable[[Op, Scope], "Op | Ref | None"]


def rewrite(program: Program, step: Step) -> Program:
    """Apply ``step`` to every operation, in order, until it changes none. Operations that nothing
    reads any more are dropped; parameters stay."""
    while True:
        changed = _sweep(program, step)
        if changed is program:
            return program
        program = drop_unused(changed)


def _sweep(program: Program, step: Step) -> Program:
    scope = Scope(program)
    names: dict[Ref, Ref] = {}
    ops: list[Op] = []
    changed = False
    for before in program.ops:
        op = before.renamed(names) if any(ref in names for ref in before.inputs) else before
        scope.reads(op)
        result = step(op, scope)
        if isinstance(result, str):
            names[op.out.name] = result
            if op.out.name in scope.outputs:
                scope.outputs.add(result)
        else:
            op = result or op
            assert op.out == before.out, (op, before)
            scope.reads(op)
            ops.append(op)
        changed = changed or result is not None
    if not changed:
        return program
    outputs = tuple((name, names.get(ref, ref)) for name, ref in program.outputs)
    return replace(program, ops=tuple(ops), outputs=outputs)


def drop_unused(program: Program) -> Program:
    """Without the operations that reach no output; inputs stay."""
    needed = {ref for _, ref in program.outputs}
    kept: list[Op] = []
    for op in reversed(program.ops):
        if op.out.name in needed or isinstance(op, ir.Input):
            kept.append(op)
            needed.update(op.inputs)
    return program if len(kept) == len(program.ops) else program.with_ops(tuple(reversed(kept)))


def share(program: Program, shareable: Callable[[Op], bool]) -> Program:
    """Operations that compute the same from the same become one, the first."""
    first: dict[Op, Ref] = {}

    def step(op: Op, scope: Scope) -> Ref | None:
        if not shareable(op):
            return None
        nameless = replace(op, out=replace(op.out, name=""))
        found = first.setdefault(nameless, op.out.name)
        return None if found == op.out.name else found

    return drop_unused(_sweep(program, step))
