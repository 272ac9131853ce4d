"""Reads one line of program text from left to right; every surprise names the line and what was
expected there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TypeVar

from ngc.errors import ModelError

NAME = re.compile(r"[A-Za-z0-9_.]+")
INTEGER = re.compile(r"-?[0-9]{1,19}(?![0-9.])")
FLOAT = re.compile(r"-?(?:nan|inf|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]{1,4})?)")
STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')

T = TypeVar("T")


class Cursor:
    """A place in one line."""

    def __init__(self, line: str, number: int) -> None:
        self.line, self.number, self.at = line, number, 0

    def error(self, expected: str) -> ModelError:
        rest = self.line[self.at : self.at + 40]
        found = f"found {rest!r}" if rest else "the line ends"
        return ModelError(f"expected {expected}, {found}", where=self.where)

    @property
    def where(self) -> str:
        return f"line {self.number}, column {self.at + 1}"

    def spaces(self) -> None:
        while self.line.startswith(" ", self.at):
            self.at += 1

    def take(self, literal: str) -> bool:
        """Step over the literal if it comes next."""
        if self.line.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def expect(self, literal: str) -> None:
        if not self.take(literal):
            raise self.error(repr(literal))

    def end(self) -> bool:
        self.spaces()
        return self.at >= len(self.line)

    def pattern(self, regex: re.Pattern[str], expected: str) -> str:
        found = regex.match(self.line, self.at)
        if found is None:
            raise self.error(expected)
        self.at = found.end()
        return found.group()

    def word(self, expected: str) -> str:
        return self.pattern(NAME, expected)

    def name(self, expected: str = "a name") -> str:
        """A plain word, or a quoted one."""
        if self.line.startswith('"', self.at):
            return self.string(expected)
        return self.word(expected)

    def string(self, expected: str = "a quoted string") -> str:
        start = self.at
        text = self.pattern(STRING, expected)
        try:
            return str(json.loads(text))
        except ValueError:
            self.at = start
            raise self.error(f"{expected} with JSON escapes") from None

    def integer(self) -> int:
        return int(self.pattern(INTEGER, "an integer"))

    def number_text(self) -> str:
        return self.pattern(FLOAT, "a number")

    def boolean(self) -> bool:
        for literal, value in (("true", True), ("false", False)):
            if self.take(literal):
                return value
        raise self.error("true or false")

    def many(self, opening: str, closing: str, item: Callable[[], T]) -> list[T]:
        """Items between brackets, with commas."""
        self.expect(opening)
        items: list[T] = []
        if self.take(closing):
            return items
        while True:
            items.append(item())
            if self.take(closing):
                return items
            if not self.take(","):
                raise self.error(f"',' or {closing!r}")

    def integers(self) -> tuple[int, ...]:
        return tuple(self.many("[", "]", self.integer))


def quoted(name: str) -> str:
    """The name as ``Cursor.name`` reads it."""
    return name if NAME.fullmatch(name) else json.dumps(name)


__all__ = ["Cursor", "quoted"]
