"""Reads and writes noise levels as text: numbers only, with any punctuation, and never evaluated.

What could be read in two ways is refused: a list in which levels were left out ("14.6, 9.2, ..., 0"), decimal commas, and arithmetic.

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

# Full-width letters, digits and punctuation, as Chinese and Japanese input methods write them, and the minus sign.
_PLAIN = {0xFF01 + i: 0x21 + i for i in range(94)} | {ord("\N{MINUS SIGN}"): "-"}
# "sigmas:", "sigmas = [", '{"sigmas": [', "tensor(["
_LABEL = re.compile(r"""^[\s{\["']*[^\W\d]\w*(?:\s+[^\W\d]\w*)*["']?\s*[:=(\[]""")
# "np.array(", "torch.FloatTensor(", "np.float32(": what Python prints and people write around numbers
_CALL = re.compile(
    r"(?<![\w.])(?:(?:np|numpy|jnp|torch|torch\.cuda)\.)?"
    r"(?:(?:as)?array|(?:as_)?tensor|Tensor|(?:Float|Double|Half)Tensor|float(?:16|32|64|_)?|list|tuple)\s*\("
)
_METHOD = re.compile(r"\)\s*\.\s*(?:cuda|cpu|float|double|half|to|numpy|tolist)\([\w\s.,:='\"]*\)")  # "[...]).cuda()"
_TENSOR_DETAILS = re.compile(r""",\s*(?:device|dtype|grad_fn|requires_grad|size)\s*=\s*(?:'[^']*'|\([^()]*\)|[\w.<>]+)""")
_LEFT_OUT = re.compile(r"\.\s*\.|[\u2025\u2026\u22ee\u22ef\ufe19]")
_ARITHMETIC = re.compile(r"[\d.)\]][ \t]*[*^%×÷√][ \t]*|\d[/⁄]\d")
# Runs of digits with a mark that some countries write for the decimal point or between thousands; "," is the usual one.
_RUN = re.compile(r"[\w.+\-]+(?:[,·⋅'’٫٬][\w.+\-]+)*")
_MARK = re.compile(r"(?<=\d)[,·⋅'’٫٬](?=\d)")
_TOKEN = re.compile(r"[\w.+\-]+")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?(?:nan|inf|infinity)", re.IGNORECASE)


def parse_sigmas(text: str, append_zero: bool = False) -> list[float]:
    """The noise levels written in `text`.

    Parameters
    ----------
    text : str
        Decimal numbers, also with exponents, separated by anything that is not part of a number or word: commas, spaces, line breaks,
        semicolons, brackets, arrows. A label before the first number ("sigmas:") and what Python, NumPy and PyTorch write around lists
        and numbers are skipped. Full-width characters count as the plain ones.
    append_zero : bool
        Whether to add a 0 if the last level is above 0.

    Returns
    -------
    list of float
        2 to 10,000 numbers, each exactly representable in float32, strictly decreasing, at least 0.

    Raises
    ------
    ValueError
        If there is a word or anything else that is not a number, an infinity or a negative level; if levels are left out ("..."), or a
        comma may be a decimal comma; if there are too few or too many levels; or if they do not decrease (in float32, in which hosts
        store them).
    """
    body = _TENSOR_DETAILS.sub(" ", text.translate(_PLAIN))
    body = _LABEL.sub(" ", _METHOD.sub(" ", _CALL.sub(" ", body)), count=1)
    tokens = [token for token in _TOKEN.findall(body) if token.strip("+-.")]
    if len(tokens) > LARGEST_LIST:  # checked before reading them: hosts validate texts while their queue waits
        raise ValueError(f"The text has {len(tokens)} numbers; a list of noise levels has at most {LARGEST_LIST:,}. Paste only the levels.")
    _check_notation(body)
    values = [_number(token) for token in tokens]
    if append_zero and values and values[-1] > 0:
        values.append(0.0)
    _check(values)
    return [float(np.float32(value)) for value in values]


def _check_notation(body: str) -> None:
    """ValueError if the text can be read in two ways."""
    left_out = _LEFT_OUT.search(body)
    if left_out:
        raise ValueError(
            f"The text has {left_out[0]!r} where levels were left out; each of them must be written. Copy the whole list, for example from "
            "FewStep Sigmas To Text."
        )
    sum_of = _ARITHMETIC.search(body)
    if sum_of:
        raise ValueError(
            f"The text contains {_around(body, sum_of)!r}, which is arithmetic; nothing is computed. Write each noise level as a decimal "
            "number."
        )
    runs = [run for run in _RUN.finditer(body) if any(c.isdigit() for c in run[0])]
    marks = [_MARK.findall(run[0]) for run in runs]
    # In "14.6,9.2" and "3,2,1" the comma is a separator, so it is one everywhere.
    separates = len(runs) == 1 or any(len(found) > 1 or (found and "." in run[0]) for run, found in zip(runs, marks, strict=True))
    for run, found in zip(runs, marks, strict=True):
        if any(mark != "," for mark in found) or (found and not separates):
            raise ValueError(
                f"The text contains {run[0][:40]!r}, which may be one number or several. Write decimal points, such as 14.6, and a comma "
                "followed by a space between the numbers."
            )


def _around(body: str, found: re.Match[str]) -> str:
    return " ".join(body[max(0, found.start() - 8) : found.end() + 8].split())[:40]


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
                "float32). Sort them from high to low and remove repetitions. A list that goes up is made with nodes: FlipSigmas, or "
                "two lists joined."
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
