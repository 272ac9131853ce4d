"""Columns of a zoo's table as numbers, for models that read them: ``architecture`` does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ngc.zoo import Zoo


def encoded(zoo: Zoo, columns: Sequence[str], train: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """Names [c] and values [N, c] of all networks of a zoo.

    A column of numbers is standardised by the networks ``train``, and 0 where it is empty. Of a
    column of words each that these networks have is a column of its own, NAME=WORD, of 0 and 1.
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
            names += [f"{column}={word}" for word in words]
            values += [torch.tensor([float(cell == word) for cell in cells]) for word in words]
    return tuple(names), torch.stack(values, 1) if values else torch.zeros(len(zoo), 0)


def _standardised(numbers: Tensor, train: Tensor) -> Tensor:
    known = numbers[train][numbers[train].isfinite()]
    mean = known.mean() if len(known) else 0.0
    deviation = known.std(correction=0) if len(known) else torch.zeros(())
    found = (numbers - mean) / (deviation if deviation > 0 else 1.0)
    return torch.where(numbers.isfinite(), found, 0.0).float()


def _is_number(cell: str) -> bool:
    try:
        return not math.isinf(float(cell or "nan"))
    except ValueError:
        return False
