"""Checking the sections of a recipe: pydantic's refusals as mistakes, all of them at once.

``recipe.py`` has the sections of ``ngc run``, ``maker_recipe.py`` those of ``ngc zoo train``.
"""

from __future__ import annotations

import dataclasses
import itertools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ngc.errors import NgcError
from ngc.train.recipe_mistakes import mistakes_of, unknown_name
from ngc.train.recipe_text import Mistake, Text

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Number = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """Keys of one part of a recipe. No key beside these, no conversions between types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


S = typing.TypeVar("S", bound=Section)
T = typing.TypeVar("T")


class Checker:
    """Checks sections of a text one by one, and gathers what is wrong."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.mistakes: list[Mistake] = []

    def section(
        self,
        path: tuple[str, ...],
        kind: type[S],
        values: object = None,
        beside: tuple[str, ...] = (),
    ) -> S | None:
        """The section at a path, None if it has mistakes. ``beside``: keys that are checked
        elsewhere."""
        given = self.text.values if values is None else values
        if not isinstance(given, dict):
            return None  # a mistake of the section around it
        try:
            return kind.model_validate(given)
        except ValidationError as error:
            self.mistakes += mistakes_of(self.text, path, kind, error, beside)
            return None

    def named(self, path: tuple[str, ...], kinds: Mapping[str, type[Section]]) -> Section | None:
        """The section at a path, of the kind that its key ``name`` says."""
        values = self.text.values.get(path[0])
        if not isinstance(values, dict):
            return None  # a mistake of the section around it
        name = values.get("name")
        if isinstance(name, str) and name in kinds:
            return self.section(path, kinds[name], values)
        self.mistakes.append(unknown_name(self.text, (*path, "name"), name, list(kinds)))
        return None

    def made(
        self,
        path: tuple[str, ...],
        kind: typing.Callable[..., T],
        shape: type[Section],
        values: object,
    ) -> T | None:
        """An object of a section's values. What it refuses of one value alone is a mistake of that
        key, what it refuses of several together one of the section."""
        before = len(self.mistakes)
        section = self.section(path, shape, values)
        wrong = {mistake.key for mistake in self.mistakes[before:]}
        for key, value in values.items() if isinstance(values, dict) else ():
            if key in shape.model_fields and ".".join((*path, key)) not in wrong:
                self.refused((*path, key), kind, {key: value})
        if section is None or len(self.mistakes) > before:
            return None
        given = list(values) if isinstance(values, dict) else []
        return self.refused(path, kind, section.model_dump(), given)

    def refused(
        self,
        path: tuple[str, ...],
        kind: typing.Callable[..., T],
        fields: dict[str, Any],
        given: Iterable[str] = (),
    ) -> T | None:
        """An object of these fields; None, and a mistake, where it refuses them. It is at the first
        of the ``given`` keys that it names."""
        try:
            return kind(**fields)
        except NgcError as error:
            text = error.message + (f"; try {error.hint}" if error.hint else "")
            named = (key for key in given if key in text)
            place = self.text.place((*path, *itertools.islice(named, 1)))
            self.mistakes.append(Mistake(place, ".".join(path), text))
            return None


def dataclass_section(kind: type) -> type[Section]:
    """The keys of a section that is read into a dataclass."""
    hints = typing.get_type_hints(kind, include_extras=True)
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        default: Any = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        missing = default is dataclasses.MISSING
        fields[field.name] = (readable(hints[field.name]), ... if missing else default)
    return create_model(kind.__name__, __base__=Section, **fields)


def readable(hint: Any) -> Any:
    """A type hint as YAML can give it: a tuple is written as a list."""
    if typing.get_origin(hint) is tuple:
        return Annotated[hint, Field(strict=False)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.Union[tuple(readable(inner) for inner in typing.get_args(hint))]  # noqa: UP007
    return hint


def plain(value: Any) -> Any:
    """Tuples as lists."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
