"""What is wrong with a section of a recipe, in words: where, what was found, what is allowed."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ngc.train.recipe_text import KeyPath, Mistake, Text, key_text

KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a section of KEY: VALUE",
    type(None): "null",
}
BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "up to"}


def mistakes_of(
    text: Text,
    path: KeyPath,
    section: type[BaseModel],
    error: ValidationError,
    beside: Sequence[str] = (),
) -> list[Mistake]:
    """One mistake for each entry that pydantic complains about; of a key that may have several
    types, pydantic complains once for each.

    ``beside``: keys of the section that are none of its fields.
    """
    keys = [*section.model_fields, *beside]
    found: dict[KeyPath, str] = {}
    for complaint in error.errors(include_url=False):
        # After the path to an entry pydantic puts names of types.
        name, own = str(complaint["loc"][0]), path + tuple(complaint["loc"])
        entry = (*path, name)
        for length in range(len(entry) + 1, len(own) + 1):
            entry = own[:length] if own[:length] in text.places else entry
        if complaint["type"] == "extra_forbidden":
            found[entry] = f"there is no such key; allowed: {_listed(keys)}{_near(name, keys)}"
        elif complaint["type"] == "missing":
            found[entry] = "it is missing"
        else:
            found.setdefault(entry, _refusal(text, entry, section.model_fields[name]))
    return [Mistake(text.place(entry), key_text(entry), said) for entry, said in found.items()]


def unknown_name(text: Text, path: KeyPath, found: object, known: Sequence[str]) -> Mistake:
    """The name of a task or a model that does not exist."""
    what = f"found {shown(found)}" if path in text.places else "it is missing"
    said = f"{what}; allowed: {_listed(known)}{_near(found, known)}"
    return Mistake(text.place(path), key_text(path), said)


def shown(value: object) -> str:
    """A value as it is written in YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a section"
        case list():
            return f"a list of {len(value)}"
        case str():
            return f"the text {value!r}" if len(value) < 60 else "a long text"
    return str(value)


def _refusal(text: Text, entry: KeyPath, field: FieldInfo) -> str:
    found = text.value(entry)
    names = [name for name in choices(field.annotation) if isinstance(name, str)]
    return f"found {shown(found)}; allowed: {allowed(field)}{_near(found, names)}"


def allowed(field: FieldInfo) -> str:
    """The values that a field may have, in words."""
    return field.description or _described(field.annotation, field.metadata)


def _described(hint: Any, bounds: Sequence[Any] = ()) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _described(arguments[0], hint.__metadata__)
    if origin is Literal:
        return _listed([str(choice) for choice in arguments])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_described(inner, bounds) for inner in arguments)
    if origin in (list, tuple):
        least = " of at least one" if any(getattr(one, "min_length", 0) for one in bounds) else ""
        return f"a list{least} (each {_described(arguments[0])})" if arguments else "a list"
    said = KINDS.get(origin or hint, str(hint))
    if hint in (int, float):
        for bound in (bound for one in bounds for bound in getattr(one, "metadata", [one])):
            for key, word in BOUNDS.items():
                if hasattr(bound, key):
                    said += f" {word} {getattr(bound, key):g}"
    return said


def choices(hint: Any) -> tuple[Any, ...]:
    """All values that are named in a type."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return arguments
    return tuple(choice for inner in arguments for choice in choices(inner))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


def _near(found: object, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(found, names, n=1) if isinstance(found, str) else []
    return f" (nearest: {near[0]})" if near else ""
