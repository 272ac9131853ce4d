"""The text of a recipe: YAML in which every entry knows where it was written.

A recipe is one file, or a file with ``base: other.yaml`` that is laid over the other one, or
either with ``--set a.b=c`` on the command line; ``Text`` is all of these as one nested mapping.
Numbers, true, false and null are as in YAML 1.2, so that ``off`` is a word and 1e-3 a number.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ngc.errors import OptionError

KeyPath = tuple[str | int, ...]
BASE = "base"


@dataclass(frozen=True, order=True)
class Place:
    """Where an entry was written: a line of a file, or (line 0) an argument of the command line.

    ``depth`` is 0 for the recipe itself and 1 for its base.
    """

    depth: int
    line: int
    name: str

    def __str__(self) -> str:
        if self.line == 0:
            return self.name
        return f"{self.name}, line {self.line}" if self.depth else f"line {self.line}"


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a recipe: where, under which key, what."""

    place: Place
    key: str
    text: str

    def __str__(self) -> str:
        return (
            f"{self.place}: {self.key}: {self.text}" if self.key else f"{self.place}: {self.text}"
        )


class RecipeError(OptionError):
    """All mistakes of a recipe, listed together."""

    def __init__(self, name: str, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(sorted(mistakes, key=lambda mistake: mistake.place))
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n".join([count, *(f"  {one}" for one in self.mistakes)]), where=name)


@dataclass
class Text:
    """A nested mapping, the place of each entry (of the whole under ``()``), and the mistakes that
    are seen without knowing what the entries mean."""

    values: dict[str, Any]
    places: dict[KeyPath, Place]
    mistakes: list[Mistake] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Of an entry, or of the nearest one around it that was written."""
        while path not in self.places:
            path = path[:-1]
        return self.places[path]

    def value(self, path: KeyPath) -> Any:
        """What was written at a path, None where nothing was."""
        found: Any = self.values
        for part in path:
            try:
                found = found[part]
            except (LookupError, TypeError):
                return None
        return found

    def over(self, base: Text) -> Text:
        """This text laid over another: mappings join, anything else replaces."""
        values = _joined(base.values, self.values)
        return Text(values, {**base.places, **self.places}, [*base.mistakes, *self.mistakes])


def read_text(path: str | Path, changes: Sequence[str] = ()) -> Text:
    """The text of a recipe file over its base, with changes ``a.b=c`` over both."""
    path = Path(path)
    text = _read(path, depth=0)
    base = text.values.pop(BASE, None)
    if base is not None:
        place = text.places[(BASE,)]
        other = path.parent / str(base)
        if not isinstance(base, str) or not other.is_file():
            message = f"there is no file {base!r} in {path.parent}"
            raise RecipeError(str(path), [Mistake(place, BASE, message)])
        under = _read(other, depth=1)
        if BASE in under.values:
            message = "a base has no base of its own"
            found = Mistake(under.places[(BASE,)], BASE, message)
            raise RecipeError(str(path), [found])
        text = text.over(under)
    for change in changes:
        text = _change(change).over(text)
    return text


def _read(path: Path, depth: int) -> Text:
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or str(error)
        raise OptionError(f"cannot read it: {reason}", where=str(path)) from error
    except UnicodeDecodeError:
        raise OptionError("it is no text in UTF-8", where=str(path)) from None
    whole = Place(depth, 1, path.name)
    text = Text({}, {(): whole})
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        if node is not None and not isinstance(node, yaml.MappingNode):
            raise RecipeError(str(path), [Mistake(whole, "", "a recipe is a list of KEY: VALUE")])
        if node is not None:
            text.values = _value(loader, node, (), text, path.name, depth)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(depth, mark.line + 1 if mark else 1, path.name)
        message = f"this is not YAML: {error.problem or error.context}"
        raise RecipeError(str(path), [Mistake(place, "", message)]) from None
    except (yaml.YAMLError, RecursionError) as error:  # characters that YAML has not, or nesting
        message = f"this is not YAML: {error}".splitlines()[0]
        raise RecipeError(str(path), [Mistake(whole, "", message)]) from None
    return text


def _value(
    loader: _Loader, node: yaml.Node, path: KeyPath, text: Text, name: str, depth: int
) -> Any:
    """The value of a node; notes the places of the entries in it."""
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = Place(depth, key_node.start_mark.line + 1, name)
            key = str(getattr(key_node, "value", "?"))
            inner = (*path, key)
            if key in found:
                message = f"given twice, first in {text.places[inner]}"
                text.mistakes.append(Mistake(place, key_text(inner), message))
                continue
            text.places[inner] = place
            found[key] = _value(loader, value_node, inner, text, name, depth)
        return found
    if isinstance(node, yaml.SequenceNode):
        items = []
        for number, item in enumerate(node.value):
            text.places[(*path, number)] = Place(depth, item.start_mark.line + 1, name)
            items.append(_value(loader, item, (*path, number), text, name, depth))
        return items
    return loader.construct_object(node)  # type: ignore[no-untyped-call]


def _change(change: str) -> Text:
    """``a.b=c`` as a text of one entry."""
    keys, found, value = change.partition("=")
    path = tuple(keys.strip().split("."))
    place = Place(-1, 0, f"--set {change}")
    if not found or not all(path):
        raise OptionError(f"cannot read --set {change}", hint="--set train.epochs=3")
    try:
        loader = _Loader(value)
        node = loader.get_single_node()
        text = Text({}, {(): place})
        content = None if node is None else _value(loader, node, path, text, place.name, -1)
    except yaml.YAMLError:
        raise OptionError(f"cannot read the value of --set {change}") from None
    for depth in range(1, len(path) + 1):
        text.places[path[:depth]] = place
    text.places = {entry: place for entry in text.places if entry}
    for key in reversed(path):
        content = {key: content}
    assert isinstance(content, dict)
    text.values = content
    return text


def _joined(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    result = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _joined(result[key], value) if both else value
    return result


def key_text(path: KeyPath) -> str:
    """``train.epochs``, ``seeds[1]``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Loader(yaml.SafeLoader):
    """Scalars of YAML 1.2's core schema; PyYAML's own are those of 1.1. No aliases: through them a
    short file can hold itself, or be very large."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # type: ignore[no-untyped-call]
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="a recipe has no aliases", problem_mark=mark)
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
):  # fmt: skip
    _regexp = re.compile(f"^(?:{_pattern})$")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _regexp, _first)  # type: ignore
