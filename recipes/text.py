"""The text form of a recipe: one line that survives chat programs, e-mail and Markdown.

Specification, version 1. Four fields, separated by colons, of letters, digits and hyphens only:

    fewstep1:unipc-5nfe-vp:<payload>:<checksum>

1. `fewstep` and the version of the format. A reader refuses newer versions.
2. A hint for people: solver (with - for _), model calls and family. It must agree with the payload.
3. The payload: bytes in base 62, digits 0-9A-Za-z. Every 8 bytes, as a big-endian integer, give 11 digits, most significant first;
   a last block of 1 to 7 bytes gives 2, 3, 5, 6, 7, 9 or 10.
4. The checksum: the first 5 bytes of the SHA-256 of everything before the last colon (ASCII), as a big-endian integer, 7 digits of base 62.

Readers ignore white space, invisible characters, quotation marks, backticks and > (from quoted e-mail) anywhere, and everything except
letters and digits at both ends. Nothing else may differ; case matters.

The payload is a header, a zero byte, and a block of numbers. Nothing is compressed: float32 numbers hardly shrink, a recipe has the same
text on every machine, and a short text never expands into a long one. The header is compact JSON in UTF-8, with short names for the
fields of the file form (document.py):

    s solver    f family    n number of steps N    v algorithm_version (1 if absent)    o options    r number of rows
    and the facts:  p prediction   c cfg   z resolution   m model   i model_identity   k metric   e error   b stock   B stock_error
                    S seeds   d date   t note   w fewstep_version   x the facts with other names, as an object

The block is little-endian: N orders (1 byte each), N + 1 sigmas (float32); then for each of the r rows

    flags (2 bytes), number of weights b (1 byte), number of the corrector's weights (1 byte, 0: no corrector), and as float32:
    a, b...; sigma if flag 16; q_x and q_d if flag 32; noise if flag 64; afs if flag 128; the corrector's a, b... if there is one.

Flags 1: from_step_start, 2: stage, 4 and 8: basis as 0 data, 1 noise, 2 velocity. Without flag 16 sigma is the level at the step's
start. The step of a row is the number of rows before it that are not stages. Other flags and leftover bytes are refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from ..solvers.table import BASES
from .document import FORMAT, VERSION, newer, parsed_json
from .numbers import MOST_ROWS, MOST_STEPS, shortest, shown, whole

LONGEST_TEXT = 200_000  # characters
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_VALUE = {digit: value for value, digit in enumerate(_DIGITS)}
_WIDTHS = (0, 2, 3, 5, 6, 7, 9, 10, 11)  # digits of a block by its bytes
_BYTES = {width: count for count, width in enumerate(_WIDTHS)}
_CHECKSUM_BYTES, _CHECKSUM_DIGITS = 5, 7
_IGNORED = "\"'`>´‘’‚‛“”„‟«»‹›"
_START = re.compile(r"fewstep([1-9][0-9]{0,5}):")
_TEXT = re.compile(r"(?P<signed>fewstep[1-9][0-9]*:(?P<hint>[a-z0-9-]{1,80}):(?P<payload>[0-9A-Za-z]+)):(?P<checksum>[0-9A-Za-z]{7})")
_COPY = "Copy the whole line again from its source."

_HEADER = {"s": "solver", "f": "family", "v": "algorithm_version", "o": "options"}
_FACTS = {
    "p": "prediction", "c": "cfg", "z": "resolution", "m": "model", "i": "model_identity", "k": "metric", "e": "error", "b": "stock",
    "B": "stock_error", "S": "seeds", "d": "date", "t": "note", "w": "fewstep_version",
}  # fmt: skip
_OF_FACT = {name: key for key, name in _FACTS.items()}

_FROM_START, _STAGE, _BASIS, _OWN_SIGMA, _OWN_Q, _NOISE, _AFS = 1, 2, 4, 16, 32, 64, 128


def hint_of(solver: str, nfe: int, family: str) -> str:
    """The hint, the second field of the text."""
    return f"{solver.replace('_', '-')}-{nfe}nfe-{family}"


def looks_like_text(text: str) -> bool:
    """Whether this is meant to be the text form, of any version and however damaged."""
    return _cleaned(text[:1000]).startswith("fewstep") and ":" in text


def written_text(document: Mapping[str, Any]) -> str:
    """The text of a valid document (document.py)."""
    header = {key: document[name] for key, name in _HEADER.items() if name in document} | {"n": len(document["orders"])}
    if not header["o"]:
        del header["o"]
    if header["v"] == 1:
        del header["v"]
    if "rows" in document:
        header["r"] = len(document["rows"])
    known = document["facts"]
    header |= {_OF_FACT[name]: value for name, value in known.items() if name in _OF_FACT}
    others = {name: value for name, value in known.items() if name not in _OF_FACT}
    if others:
        header["x"] = others
    compact = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    payload = compact.encode() + b"\0" + _packed(document)
    signed = f"fewstep{VERSION}:{hint_of(document['solver'], document['nfe'], document['family'])}:{_base62(payload)}"
    return f"{signed}:{_checksum(signed)}"


def parsed_text(text: Any) -> tuple[str, dict[str, Any]]:
    """Hint and document of a text; ValueError if it is damaged."""
    if not isinstance(text, str):
        raise ValueError(f"The recipe was {type(text).__name__}; it must be a text that begins with fewstep{VERSION}:")
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"The recipe text has {len(text)} characters; no recipe is longer than {LONGEST_TEXT}. Paste only the recipe.")
    cleaned = _cleaned(text)
    start = _START.match(cleaned)
    if start is None:
        given = f"begins with {shown(cleaned[:24])}" if cleaned else "is empty"
        raise ValueError(f"The recipe text {given}; it must begin with fewstep{VERSION}: and contain exactly one recipe. {_COPY}")
    if int(start[1]) > VERSION:
        raise newer(int(start[1]))
    match = _TEXT.fullmatch(cleaned)
    if match is None:
        fields = cleaned.split(":")
        if len(fields) < 4 or (len(fields) == 4 and len(fields[3]) < _CHECKSUM_DIGITS):
            raise ValueError(f"The recipe text is cut off after {len(cleaned)} characters: its end, the checksum, is missing. {_COPY}")
        raise ValueError(f"The recipe text is damaged: it must be four fields of letters, digits and hyphens. {_COPY}")
    if match["checksum"] != _checksum(match["signed"]):
        raise ValueError(f"The recipe text is damaged: its checksum does not match, so a character was changed or lost. {_COPY}")
    return match["hint"], _document(_bytes(match["payload"]))


def _cleaned(text: str) -> str:
    kept = [c for c in text if not c.isspace() and c not in _IGNORED and unicodedata.category(c) not in ("Cf", "Cc")]
    ends = [i for i, c in enumerate(kept) if c in _VALUE]
    return "".join(kept[ends[0] : ends[-1] + 1]) if ends else ""


def _checksum(signed: str) -> str:
    return _digits(int.from_bytes(hashlib.sha256(signed.encode("ascii")).digest()[:_CHECKSUM_BYTES], "big"), _CHECKSUM_DIGITS)


def _digits(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))


def _base62(data: bytes) -> str:
    blocks = (data[i : i + 8] for i in range(0, len(data), 8))
    return "".join(_digits(int.from_bytes(block, "big"), _WIDTHS[len(block)]) for block in blocks)


def _bytes(text: str) -> bytes:
    result = bytearray()
    for i in range(0, len(text), _WIDTHS[8]):
        block = text[i : i + _WIDTHS[8]]
        value = 0
        for digit in block:
            value = value * 62 + _VALUE[digit]
        count = _BYTES.get(len(block))
        if count is None or value >= 256**count:
            raise ValueError(f"The recipe text is damaged: a block of its payload is not a whole number of bytes. {_COPY}")
        result += value.to_bytes(count, "big")
    return bytes(result)


def _packed(document: Mapping[str, Any]) -> bytes:
    sigmas = document["sigmas"]
    block = bytearray(document["orders"])
    block += _floats(sigmas)
    for row in document.get("rows", ()):
        flags = _FROM_START * row.get("from_step_start", False) + _STAGE * row.get("stage", False)
        flags += _BASIS * BASES.index(row.get("basis", "data"))
        numbers = [row["a"], *row["b"]]
        if row["sigma"] != sigmas[row["step"]]:
            flags += _OWN_SIGMA
            numbers.append(row["sigma"])
        if "q_x" in row or "q_d" in row:
            flags += _OWN_Q
            numbers += [row.get("q_x", 0.0), row.get("q_d", 1.0)]
        for name, flag in (("noise", _NOISE), ("afs", _AFS)):
            if name in row:
                flags += flag
                numbers.append(row[name])
        corrector = row.get("corrector")
        if corrector:
            numbers += [corrector["a"], *corrector["b"]]
        block += struct.pack("<HBB", flags, len(row["b"]), len(corrector["b"]) if corrector else 0)
        block += _floats(numbers)
    return bytes(block)


def _floats(values: Iterable[float]) -> bytes:
    return b"".join(struct.pack("<f", value) for value in values)


class _Block:
    """Reads the block of numbers from its start."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise ValueError(f"The recipe's block of numbers ends too early, after {len(self._data)} bytes. {_COPY}")
        self._at += count
        return taken

    def floats(self, count: int) -> list[float]:
        values = struct.unpack(f"<{count}f", self.take(4 * count))
        return [shortest(value) for value in values]

    def end(self) -> None:
        if self._at < len(self._data):
            raise ValueError(f"The recipe's block of numbers has {len(self._data) - self._at} bytes too many. {_COPY}")


def _document(payload: bytes) -> dict[str, Any]:
    head, _, rest = payload.partition(b"\0")
    try:
        header = parsed_json(head.decode("utf-8"), "The recipe's header")
    except UnicodeDecodeError:
        raise ValueError(f"The recipe's header is not UTF-8. {_COPY}") from None
    if not isinstance(header, dict):
        raise ValueError(f"The recipe's header was {shown(header)}; it must be an object. {_COPY}")
    unknown = [key for key in header if key not in (*_HEADER, *_FACTS, "n", "r", "x")]
    if unknown:
        raise ValueError(f"The recipe's header has the unknown name {shown(unknown[0])}, which format {VERSION} does not have. {_COPY}")
    steps = whole(header.get("n"), "The number of steps", 1, MOST_STEPS)
    block = _Block(rest)
    document: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    document |= {name: header[key] for key, name in _HEADER.items() if key in header}
    document.setdefault("algorithm_version", 1)
    document["orders"] = list(block.take(steps))
    document["sigmas"] = block.floats(steps + 1)
    facts = {name: header[key] for key, name in _FACTS.items() if key in header}
    others = header.get("x", {})
    if not isinstance(others, dict) or set(others) & set(_OF_FACT):
        raise ValueError(
            f"The recipe's additional facts were {shown(others)}; they must be an object whose names differ from those of other facts."
        )
    document["facts"] = facts | others
    if "r" in header:
        rows = whole(header["r"], "The number of rows", 1, MOST_ROWS)
        document["rows"] = _rows(block, rows, document["sigmas"])
    block.end()
    return document


def _rows(block: _Block, count: int, sigmas: list[float]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    step = 0
    for index in range(count):
        flags, weights, corrected = struct.unpack("<HBB", block.take(4))
        basis = flags // _BASIS % 4
        if flags >= 2 * _AFS or basis >= len(BASES):
            raise ValueError(f"Row {index} of the recipe has the flags {flags}, which format {VERSION} does not know. {_COPY}")
        if step >= len(sigmas) - 1:
            raise ValueError(f"Row {index} of the recipe belongs to step {step}, but there are only {len(sigmas) - 1} steps. {_COPY}")
        row: dict[str, Any] = {"step": step, "basis": BASES[basis]}
        row |= {"from_step_start": bool(flags & _FROM_START), "stage": bool(flags & _STAGE)}
        row["a"], *row["b"] = block.floats(1 + weights)
        row["sigma"] = block.floats(1)[0] if flags & _OWN_SIGMA else sigmas[step]
        if flags & _OWN_Q:
            row["q_x"], row["q_d"] = block.floats(2)
        for name, flag in (("noise", _NOISE), ("afs", _AFS)):
            if flags & flag:
                row[name] = block.floats(1)[0]
        if corrected:
            first, *others = block.floats(1 + corrected)
            row["corrector"] = {"a": first, "b": others}
        rows.append(row)
        step += not row["stage"]
    return rows
