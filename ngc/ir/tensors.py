"""Tensors of torch and arrays of numpy, which has no bfloat16 of its own."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from torch import Tensor


def to_torch(array: np.ndarray) -> Tensor:
    """A copy."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A copy."""
    tensor = tensor.detach().cpu().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().copy().view(ml_dtypes.bfloat16)
    return np.array(tensor.numpy())
