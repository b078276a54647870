"""Evaluates one float64 formula for Python floats, numpy arrays and torch tensors.

Formulas of this package are written once, for float64 numpy arrays. `unwrap` converts the caller's values into such an
array and remembers how to convert the result back: to the same type, floating dtype and device. float64 stays on the
CPU, because some devices (Apple MPS, DirectML) do not have it.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

Values = TypeVar("Values", float, np.ndarray, torch.Tensor)


@dataclass(frozen=True)
class Unwrapped(Generic[Values]):
    """A caller's values as float64, and the conversion back."""

    array: np.ndarray
    restore: Callable[[np.ndarray], Values]
    resolution: float
    """Relative spacing of the caller's floating dtype: the error that rounding alone can cause."""


def unwrap(values: Values, what: str) -> Unwrapped[Values]:
    """`values` as a new float64 array, with the function that converts results back to their type.

    Parameters
    ----------
    values : float, int, array-like or Tensor of any shape
        Integers count as floats. Gradients do not flow through.
    what : str
        Name of the values in error messages.

    Raises
    ------
    ValueError
        If the values are not real numbers, or one of them is NaN.
    """
    restore: Callable[[np.ndarray], Any]
    if isinstance(values, torch.Tensor):
        _require_real(not values.is_complex(), values, what)
        dtype = values.dtype if values.is_floating_point() else torch.get_default_dtype()
        device = values.device
        # to the CPU before float64: see the module's docstring
        array = values.detach().cpu().to(torch.float64, copy=True).numpy()
        resolution = torch.finfo(dtype).eps

        def restore(result: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(result)).reshape(values.shape).to(dtype).to(device)
    else:
        try:
            given = np.asarray(values)
            _require_real(given.dtype.kind in "fiu", values, what)
            array = np.array(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(_not_real(values, what)) from error
        kind = given.dtype if given.dtype.kind == "f" else np.dtype(np.float64)
        resolution = float(np.finfo(kind).eps)
        if (isinstance(values, numbers.Real) and not isinstance(values, np.generic)) or isinstance(values, np.float64):
            restore = float
        elif isinstance(values, np.generic):
            restore = kind.type
        else:

            def restore(result: np.ndarray) -> np.ndarray:
                return np.asarray(result, dtype=kind)

    if np.isnan(array).any():
        raise ValueError(f"{what} contains NaN (not a number); every value must be a real number.")
    return Unwrapped(array, restore, resolution)


def _not_real(values: object, what: str) -> str:
    return f"{what} was {values!r}; it must be a real number, or an array or tensor of real numbers."


def _require_real(is_real: bool, values: object, what: str) -> None:
    if not is_real:
        raise ValueError(_not_real(values, what))


def float64_list(levels: torch.Tensor | np.ndarray | Sequence[float]) -> np.ndarray:
    """Noise levels of any kind as a float64 array on the CPU; float32 values are kept exactly."""
    return levels.detach().cpu().double().numpy() if isinstance(levels, torch.Tensor) else np.asarray(levels, dtype=np.float64)
