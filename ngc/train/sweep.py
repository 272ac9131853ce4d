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

from ngc.train.recipe_text import KeyPath, Mistake, Place, Text, key_text

SWEEP = "sweep"


@dataclass(frozen=True)
class Choice:
    """One value of one key, and where it was written."""

    path: KeyPath
    value: Any
    place: Place

    @property
    def word(self) -> str:
        """The value as a part of a name."""
        text = self.value if isinstance(self.value, str) else json.dumps(self.value)
        return re.sub(r"[^\w.]+", "-", text).strip("-")

    def over(self, text: Text) -> Text:
        """A text with this value."""
        values = self.value
        for key in reversed(self.path):
            values = {key: values}
        return Text(values, {self.path: self.place}).over(text)


def swept(name: str, text: Text) -> list[Text]:
    """The recipes that a text stands for, each named after its values; the text itself where it has
    no sweep. ``name``: of the file."""
    if SWEEP not in text.values:
        return [text]
    rest = Text(
        {key: value for key, value in text.values.items() if key != SWEEP}, text.places,
        text.mistakes,
    )  # fmt: skip
    keys = list(_choices((), text.values[SWEEP], text))
    if text.mistakes:
        return [rest]
    given = rest.values.get("name") or name
    found = []
    for choices in itertools.product(*keys):
        one = rest
        for choice in choices:
            one = choice.over(one)
        words = "-".join([str(given), *(choice.word for choice in choices)])
        found.append(Text({**one.values, "name": words}, one.places, one.mistakes))
    return found


def _choices(path: KeyPath, value: object, text: Text) -> Iterator[list[Choice]]:
    """The values of each key that is swept; what is none is noted as a mistake."""
    place, key = text.place((SWEEP, *path)), key_text((SWEEP, *path))
    if isinstance(value, dict) and value:
        for inner in value:
            yield from _choices((*path, inner), value[inner], text)
    elif not path or not isinstance(value, list) or not value:
        said = f"found {value!r}; allowed: keys of the recipe, each with a list of values"
        text.mistakes.append(Mistake(place, key, said))
    else:
        found = [
            Choice(path, one, text.place((SWEEP, *path, number)))
            for number, one in enumerate(value)
        ]
        if len({choice.word for choice in found}) < len(found):
            text.mistakes.append(Mistake(place, key, "two values are alike"))
        yield found
