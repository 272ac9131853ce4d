"""Sweeps: one recipe that is several.

    sweep:
      graph: {flatten: [repeat, virtual, kernel]}
      model: {width: [32, 64]}

stands for the six recipes in which these keys have one of their values each.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ngc.train.recipe_mistakes import shown
from ngc.train.recipe_text import KeyPath, Mistake, Place, Text, key_text

SWEEP = "sweep"


@dataclass(frozen=True)
class Choice:
    """One value of one key, and where it and what is in it were written."""

    path: KeyPath
    value: Any
    places: dict[KeyPath, Place]

    @property
    def word(self) -> str:
        """The value as a part of a name."""
        text = self.value if isinstance(self.value, str) else json.dumps(self.value)
        word = re.sub(r"[^\w.-]+", "-", text)
        return word if isinstance(self.value, int | float) else word.strip("-")

    def over(self, text: Text) -> Text:
        """A text with this value."""
        values = self.value
        for key in reversed(self.path):
            values = {key: values}
        return Text(values, self.places).over(text)


def swept(text: Text) -> list[tuple[tuple[str, ...], Text]]:
    """The recipes that a text stands for, each with a word for each value that it has; the text
    itself, without words, where it has no sweep. Of a sweep with mistakes it is one recipe."""
    values = dict(text.values)
    sweep = values.pop(SWEEP, None)
    rest = Text(values, text.places, text.mistakes)
    if sweep is None:
        return [((), rest)]
    before = len(text.mistakes)
    keys = list(_choices((), sweep, text))
    combinations = list(itertools.product(*keys))
    if len(text.mistakes) > before:
        combinations = combinations[:1]
    found = []
    for choices in combinations or [()]:
        one = rest
        for choice in choices:
            one = choice.over(one)
        found.append((tuple(choice.word for choice in choices), one))
    return found


def _choices(path: KeyPath, value: object, text: Text) -> Iterator[list[Choice]]:
    """The values of each key that is swept; what is none is noted as a mistake."""

    def wrong(said: str) -> None:
        place, key = text.place((SWEEP, *path)), key_text((SWEEP, *path))
        text.mistakes.append(Mistake(place, key, said))

    if isinstance(value, dict) and value:
        under = text.value(path)
        if path and under is not None and not isinstance(under, dict):
            wrong(f"{key_text(path)} is {shown(under)}, and has no keys")
            return
        for inner in value:
            yield from _choices((*path, inner), value[inner], text)
    elif not path or not isinstance(value, list) or not value:
        wrong(f"found {shown(value)}; allowed: keys of the recipe, each with a list of values")
    else:
        found = [_choice(path, number, one, text) for number, one in enumerate(value)]
        words = [choice.word for choice in found]
        for word in {word for word in words if words.count(word) > 1}:
            wrong(f"{words.count(word)} of the values would have the name {word!r}")
        yield found


def _choice(path: KeyPath, number: int, value: object, text: Text) -> Choice:
    """Value ``number`` in the list of a key."""
    entry = (SWEEP, *path, number)
    inner = {
        (*path, *place[len(entry) :]): where
        for place, where in text.places.items()
        if place[: len(entry)] == entry
    }
    return Choice(path, value, {path: text.place(entry), **inner})
