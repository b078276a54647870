"""Reads and writes noise levels as text: numbers only, with any punctuation, and never evaluated.

`parse_sigmas` and ComfyUI's ManualSigmas node read what `sigma_text` writes. That node does not know exponents ("1e-05" would be 1 and
-5), so small levels are written out: "0.00001".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch

LARGEST_LIST = 10_000
"""More levels than any sampler uses; a longer text is a mistake."""

EXACT_DIGITS = 9
"""Significant digits that distinguish all float32 numbers."""

# "sigmas:", "sigmas = [", '{"sigmas": [', "tensor(["
_LABEL = re.compile(r"""^[\s{\["']*[^\W\d]\w*(?:\s+[^\W\d]\w*)*["']?\s*[:=(\[]""")
_TENSOR_DETAILS = re.compile(r""",\s*(?:device|dtype|grad_fn|requires_grad)\s*=\s*(?:'[^']*'|[\w.<>]+)""")
_TOKEN = re.compile(r"[\w.+\-]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE)


def parse_sigmas(text: str, append_zero: bool = False) -> list[float]:
    """The noise levels written in `text`.

    Parameters
    ----------
    text : str
        Decimal numbers, also with exponents, separated by anything that is not part of a number or word: commas, spaces, line breaks,
        semicolons, brackets, arrows. A label before the first number ("sigmas:") and what Python prints around a list are skipped.
    append_zero : bool
        Whether to add a 0 if the last level is above 0.

    Returns
    -------
    list of float
        2 to 10,000 numbers, each exactly representable in float32, strictly decreasing, at least 0.

    Raises
    ------
    ValueError
        If there is a word or anything else that is not a number, an infinity or a negative level; if there are too few or too many
        levels; or if they do not decrease (in float32, in which hosts store them).
    """
    body = _LABEL.sub(" ", _TENSOR_DETAILS.sub(" ", text.replace("\N{MINUS SIGN}", "-")), count=1)
    tokens = [token for token in _TOKEN.findall(body) if token.strip("+-.")]
    if len(tokens) > LARGEST_LIST:  # checked before reading them: hosts validate texts while their queue waits
        raise ValueError(f"The text has {len(tokens)} numbers; a list of noise levels has at most {LARGEST_LIST:,}. Paste only the levels.")
    values = [_number(token) for token in tokens]
    if append_zero and values and values[-1] > 0:
        values.append(0.0)
    _check(values)
    return [float(np.float32(value)) for value in values]


def _number(token: str) -> float:
    if _NOT_FINITE.fullmatch(token):
        raise ValueError(f"The text contains {token!r}; noise levels must be finite numbers. Replace it with a number.")
    if not _NUMBER.fullmatch(token):
        raise ValueError(
            f"The text contains {token[:40]!r}, which is not a number; write decimal numbers such as 14.6, 0.029 or 2.9e-2, separated by "
            "commas, spaces or line breaks."
        )
    value = float(token)
    if not np.isfinite(_single(value)):
        raise ValueError(
            f"The text contains {token[:40]!r}, which is too large; noise levels must be finite numbers in float32 (below 3.4e38)."
        )
    return abs(value) if value == 0 else value


def _check(values: Sequence[float]) -> None:
    if len(values) < 2:
        found = "no number" if not values else f"only one number, {values[0]:g}"
        raise ValueError(f"The text has {found}; a list of noise levels needs at least two, the start and the end, such as '14.6, 0'.")
    for value in values:
        if value < 0:
            raise ValueError(f"The text contains {value:g}; noise levels must be 0 or above. If a hyphen separates numbers, use a comma.")
    for place, (high, low) in enumerate(pairwise(values), start=2):
        if not _single(low) < _single(high):
            raise ValueError(
                f"Number {place} of the text is {low:.9g}, not below the previous one, {high:.9g}; noise levels must decrease (in "
                "float32). Sort them from high to low and remove repetitions."
            )


def _single(value: float) -> np.float32:
    with np.errstate(over="ignore", under="ignore"):
        return np.float32(value)


def sigma_text(sigmas: torch.Tensor | Sequence[float] | np.ndarray, digits: int | None = None, separator: str = ", ") -> str:
    """The list as text for `parse_sigmas`, this pack's nodes and ComfyUI's ManualSigmas.

    Parameters
    ----------
    sigmas : Tensor, array or sequence [n]
        Noise levels, taken as float32.
    digits : int, optional
        Significant digits, 1 to 9. By default as many as are needed to get the same float32 numbers back.
    separator : str
        Text between the numbers.

    Raises
    ------
    ValueError
        If there is an infinity or NaN, or if digits is out of range or so small that neighbouring levels become equal.
    """
    if isinstance(sigmas, torch.Tensor):
        sigmas = sigmas.detach().cpu().double().numpy()
    values = np.asarray(sigmas, dtype=np.float64).reshape(-1).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"The noise levels contain {values[~np.isfinite(values)][0]}; only finite numbers can be written as text.")
    if digits is None:
        return separator.join(np.format_float_positional(value, trim="-") for value in values)
    if not 1 <= digits <= EXACT_DIGITS:
        raise ValueError(f"digits was {digits}; it must be between 1 and {EXACT_DIGITS}, or omitted for exact numbers.")
    written = [
        np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-") if value else "0" for value in values
    ]
    for i in range(len(written) - 1):
        if written[i] == written[i + 1] and values[i] != values[i + 1]:
            raise ValueError(
                f"digits was {digits}, which makes the neighbouring levels {values[i]} and {values[i + 1]} equal. Use more digits."
            )
    return separator.join(written)
