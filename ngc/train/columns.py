"""Columns of a zoo's table as numbers, for models that read them: ``architecture`` does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ngc.errors import OptionError
from ngc.zoo import Zoo
from ngc.zoo.store import number_of

WORDS = 50  # different ones in a column


def encoded(zoo: Zoo, columns: Sequence[str], train: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """Names [c] and values [N, c] of all networks of a zoo.

    A column of numbers is standardised by the networks ``train``, and 0 where it is empty or
    infinite. Of a column of words each that these networks have is a column of its own, NAME=WORD,
    of 0 and 1.
    """
    names: list[str] = []
    values: list[Tensor] = []
    for column in columns:
        cells = zoo.column(column)
        if all(_is_number(cell) for cell in cells):
            names.append(column)
            values.append(_standardised(zoo.numbers(column), train))
        else:
            words = sorted({cells[k] for k in train.tolist()})
            if len(words) > WORDS:
                no_number = next(cell for cell in cells if not _is_number(cell))
                raise OptionError(
                    f"{column} has {len(words):,} different words, such as {no_number!r}",
                    where="model.columns", hint=f"numbers, or up to {WORDS} words",
                )  # fmt: skip
            names += [f"{column}={word}" for word in words]
            values += [torch.tensor([float(cell == word) for cell in cells]) for word in words]
    return tuple(names), torch.stack(values, 1) if values else torch.zeros(len(zoo), 0)


def _standardised(numbers: Tensor, train: Tensor) -> Tensor:
    known = numbers[train][numbers[train].isfinite()]
    if not len(known) or known.min() == known.max():
        mean, deviation = known[:1].sum(), 1.0
    else:
        mean, deviation = known.mean(), float(known.std(correction=0))
    return torch.where(numbers.isfinite(), (numbers - mean) / deviation, 0.0).float()


def _is_number(cell: str) -> bool:
    return not cell or number_of(cell) is not None
