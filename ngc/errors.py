"""Every error ngc raises for a user's mistake or a model it cannot compile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


class NgcError(Exception):
    """Base of all errors meant for the user: what was found, where, and what to do."""

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        self.message, self.where, self.hint = message, where, hint
        self.text = f"{where}: {message}" if where else message  # without the hint
        super().__init__(f"{self.text}\n  try: {hint}" if hint else self.text)


class ModelError(NgcError):
    """The file is not a model, or the model contradicts itself."""


class ModelErrors(ModelError):
    """What is wrong with several of many models."""

    def __init__(self, errors: Sequence[NgcError], count: int) -> None:
        listed = "\n".join(f"  {error}" for error in errors)
        super().__init__(f"{len(errors)} of {count} models cannot be compiled\n{listed}")


class ShapeError(ModelError):
    """Shapes, axes or attributes of an operator do not fit together."""


class BudgetError(NgcError):
    """The model, or its graph, is larger than the stated budget."""


class OptionError(NgcError):
    """An option of ngc has a value it cannot have."""


class LiftError(NgcError):
    """Graph features cannot be turned back into weights."""


class VerificationError(NgcError):
    """A compilation failed one of its checks."""


class UnsupportedOp(NgcError):
    """An operator, or a use of it, that ngc does not compile."""

    def __init__(self, op_type: str, message: str, *, where: str = "", hint: str = "") -> None:
        self.op_type = op_type
        super().__init__(message, where=where, hint=hint)


class UnsupportedOps(NgcError):
    """All operators of one model that ngc does not compile, listed together."""

    def __init__(self, errors: Sequence[UnsupportedOp]) -> None:
        self.errors = tuple(errors)
        hints = Counter(error.hint for error in self.errors if error.hint)
        kinds = ", ".join(sorted({error.op_type for error in self.errors}))
        lines = [f"cannot compile {len(self.errors)} node(s), operators: {kinds}"]
        for error in self.errors:
            text = error.text if hints[error.hint] > 1 else str(error)
            lines.append(f"  {text}".replace("\n", "\n  "))
        lines += [f"  try: {hint}" for hint, times in hints.items() if times > 1]
        super().__init__("\n".join(lines))
