"""Programs as text, and back: ``parse_program(print_program(p)) == p``.

ASCII, one operation a line, the same text for the same program on every machine::

    program mlp {
      @fc1.weight = param float32 [32,2]
      %x = input float32 [1,2]
      %h = linear float32 [1,32] x=%x weight=@fc1.weight spec="bi,oi->bo"
      return y=%h
    }

Everything is driven by the fields of the operations in ``VOCABULARY``: a new operation needs
nothing here as long as its fields have types of ``FORMS``. Fields at their default are left out.
``ir/literals.py`` has the forms of arrays and slots.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from typing import Any

from ngc.errors import ModelError
from ngc.ir.cursor import Cursor, quoted
from ngc.ir.literals import integers, print_array, print_slots, read_array, read_slots
from ngc.ir.program import VOCABULARY, Op, Param, Program, Ref, Value
from ngc.ir.slots import FIRST_SLOT


def print_program(program: Program) -> str:
    return "\n".join(_lines(program, digest=False)) + "\n"


def structure_hash(program: Program) -> str:
    """32 hex digits, equal for programs of equal text. Large arrays enter by their own hash, so
    that it does not depend on how a zlib compresses."""
    text = "\n".join(_lines(program, digest=True))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:32]


@dataclass(frozen=True)
class Scope:
    """What the text of an operand may need to know: the parameters."""

    params: Sequence[Param]
    named: dict[str, Param]
    digest: bool = False


@dataclass(frozen=True)
class Form:
    """How fields of one type are written and read."""

    write: Callable[[Any, Scope], str]
    read: Callable[[Cursor, Scope], Any]


def _read_float(c: Cursor) -> float:
    return float(c.number_text())


def _write_float(value: float) -> str:
    return repr(float(value))


def _read_ref(c: Cursor) -> str:
    c.expect("%")
    return c.name("the name of a value")


def _ref(name: str) -> str:
    return f"%{quoted(name)}"


def _list(words: Sequence[str]) -> str:
    return f"[{','.join(words)}]"


FORMS: dict[str, Form] = {
    "Ref": Form(lambda v, s: _ref(v), lambda c, s: _read_ref(c)),
    "Refs": Form(
        lambda v, s: _list([_ref(name) for name in v]),
        lambda c, s: tuple(c.many("[", "]", lambda: _read_ref(c))),
    ),
    "Slots": Form(
        lambda v, s: print_slots(v, s.params, s.digest), lambda c, s: read_slots(c, s.named)
    ),
    "Array": Form(lambda v, s: print_array(v, s.digest), lambda c, s: read_array(c)),
    "tuple[Array, ...]": Form(
        lambda v, s: _list([print_array(array, s.digest) for array in v]),
        lambda c, s: tuple(c.many("[", "]", lambda: read_array(c))),
    ),
    "str": Form(lambda v, s: json.dumps(v), lambda c, s: c.string()),
    "int": Form(lambda v, s: str(int(v)), lambda c, s: c.integer()),
    "float": Form(lambda v, s: _write_float(v), lambda c, s: _read_float(c)),
    "bool": Form(lambda v, s: "true" if v else "false", lambda c, s: c.boolean()),
    "Ints": Form(lambda v, s: integers(v), lambda c, s: c.integers()),
    "Floats": Form(
        lambda v, s: _list([_write_float(x) for x in v]),
        lambda c, s: tuple(c.many("[", "]", lambda: _read_float(c))),
    ),
}


def form_of(field: Field[Any]) -> Form:
    """The form of a field; one that may be None is written ``none`` then."""
    # Annotations are strings (``from __future__ import annotations``).
    kind = str(field.type)
    plain = FORMS[kind.removesuffix(" | None")]
    if plain is FORMS.get(kind):
        return plain
    return Form(
        lambda v, s: "none" if v is None else plain.write(v, s),
        lambda c, s: None if c.take("none") else plain.read(c, s),
    )


@cache
def attributes(mnemonic: str) -> dict[str, tuple[Field[Any], Form]]:
    """The fields of an operation that are written as ``name=value``."""
    shown = [f for f in fields(VOCABULARY[mnemonic]) if f.name not in ("out", "origin")]
    return {f.name: (f, form_of(f)) for f in shown}


# --- printing --------------------------------------------------------------------------------


def _lines(program: Program, digest: bool) -> Iterator[str]:
    scope = Scope(program.params, {}, digest)
    yield f"program {quoted(program.name)} {{"
    expected = FIRST_SLOT
    for param in program.params:
        line = f"  @{quoted(param.name)} = param {quoted(param.dtype)} {integers(param.shape)}"
        if param.offset != expected:
            line += f" offset={param.offset}"
        if param.derived:
            line += f" derived=({','.join(json.dumps(name) for name in param.derived)})"
        yield line
        expected = param.offset + param.size
    for op in program.ops:
        yield f"  {print_op(op, scope)}"
    outputs = "".join(f" {quoted(name)}={_ref(ref)}" for name, ref in program.outputs)
    yield f"  return{outputs}"
    yield "}"


def print_op(op: Op, scope: Scope) -> str:
    out = op.out
    words = [f"{_ref(out.name)} = {op.mnemonic} {quoted(out.dtype)} {integers(out.shape)}"]
    for name, (field, form) in attributes(op.mnemonic).items():
        text = form.write(getattr(op, name), scope)
        # Compared as text: 0.0 and -0.0 are equal, but not the same.
        if field.default is MISSING or text != form.write(field.default, scope):
            words.append(f"{name}={text}")
    return " ".join(words)


# --- parsing ---------------------------------------------------------------------------------


def parse_program(text: str) -> Program:
    """The program a text describes. Raises ModelError with the line and what was expected there;
    whether shapes fit together is left to ``ir/check.py``."""
    cursors = [Cursor(line.rstrip(), k) for k, line in enumerate(text.split("\n"), start=1)]
    lines = iter(c for c in cursors if not c.end())
    last = Cursor("", len(cursors))
    head = next(lines, last)
    head.expect("program ")
    reader = Reader(head.name("the name of the program"))
    head.expect(" {")
    _finish(head)
    for c in lines:
        if c.take("return"):
            reader.outputs(c)
            break
        reader.line(c)
    else:
        raise last.error("'return'")
    closing = next(lines, last)
    closing.expect("}")
    for c in (closing, *lines):
        _finish(c)
    return Program(reader.name, tuple(reader.scope.params), tuple(reader.ops), reader.pairs)


def _finish(c: Cursor) -> None:
    if not c.end():
        raise c.error("the end")


class Reader:
    """One program being read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.params: list[Param] = []
        self.scope = Scope(self.params, {})
        self.ops: list[Op] = []
        self.pairs: tuple[tuple[str, Ref], ...] = ()
        self.defined: set[str] = set()
        self.next_offset = FIRST_SLOT

    def line(self, c: Cursor) -> None:
        if c.take("@"):
            self.param(c)
        elif c.take("%"):
            self.op(c)
        else:
            raise c.error("a parameter '@name = ...', a value '%name = ...' or 'return'")
        _finish(c)

    def param(self, c: Cursor) -> None:
        name = c.name("the name of a parameter")
        if name in self.scope.named:
            raise ModelError(f"parameter @{quoted(name)} is declared twice", where=c.where)
        c.expect(" = param ")
        dtype = c.name("a dtype")
        c.expect(" ")
        shape = c.integers()
        offset = c.integer() if c.take(" offset=") else self.next_offset
        derived = c.many("(", ")", c.string) if c.take(" derived=") else ()
        param = Param(name, shape, dtype, offset, tuple(derived))
        self.next_offset = offset + param.size
        self.params.append(param)
        self.scope.named[name] = param

    def op(self, c: Cursor) -> None:
        name = c.name("the name of a value")
        if name in self.defined:
            raise ModelError(f"value %{quoted(name)} is defined twice", where=c.where)
        c.expect(" = ")
        cls = _class_of(c)
        c.expect(" ")
        dtype = c.name("a dtype")
        c.expect(" ")
        out = Value(name, c.integers(), dtype)
        op = cls(out=out, **self.attributes(c, cls))
        for ref in op.inputs:
            self.known(ref, c)
        self.defined.add(name)
        self.ops.append(op)

    def attributes(self, c: Cursor, cls: type[Op]) -> dict[str, Any]:
        forms = attributes(cls.mnemonic)
        found: dict[str, Any] = {}
        while not c.end():
            start = c.at
            name = c.word("name=value")
            if name not in forms or name in found:
                c.at = start
                left = [k for k in forms if k not in found]
                raise c.error(f"one of {', '.join(left)}" if left else "the end")
            c.expect("=")
            found[name] = forms[name][1].read(c, self.scope)
            if not c.end() and c.line[c.at - 1] != " ":
                raise c.error("a space")
        missing = [
            k for k, (field, _) in forms.items() if k not in found and field.default is MISSING
        ]
        if missing:
            raise ModelError(f"{cls.mnemonic} needs {', '.join(missing)}", where=c.where)
        return found

    def outputs(self, c: Cursor) -> None:
        pairs = []
        while not c.end():
            name = c.name("name=%value")
            c.expect("=")
            ref = _read_ref(c)
            self.known(ref, c)
            pairs.append((name, ref))
        self.pairs = tuple(pairs)

    def known(self, ref: Ref, c: Cursor) -> None:
        if ref not in self.defined:
            raise ModelError(f"no value %{quoted(ref)} is defined above", where=c.where)


def _class_of(c: Cursor) -> type[Op]:
    start = c.at
    mnemonic = c.word("an operation")
    if mnemonic in VOCABULARY and mnemonic:
        return VOCABULARY[mnemonic]
    c.at = start
    near = difflib.get_close_matches(mnemonic, VOCABULARY, n=1)
    raise c.error(f"an operation ({near[0]}?)" if near else "an operation")
