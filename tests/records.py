"""Arrays written down so that a later version of the code can be held to them: a hash of their bits, and a few of their numbers.

The last bits of matrix products, exponentials and random numbers differ between processors and versions of torch, so a hash binds only
where the arithmetic is what it was when it was recorded. The numbers bind everywhere, with a tolerance.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy
import torch

Array = np.ndarray
THREADS = 1
_PICKED = 6


def sha256(*arrays: Array) -> str:
    """Of shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape} {array.dtype} ".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def numbers_of(array: Array) -> list[float]:
    """Mean, root mean square and six elements at even distances, first and last included."""
    flat = array.astype(np.float64).ravel()
    picked = flat[np.linspace(0, flat.size - 1, _PICKED).round().astype(int)]
    return [float(f"{value:.9g}") for value in (flat.mean(), np.sqrt(np.mean(flat**2)), *picked)]


@dataclass(frozen=True)
class Record:
    """What is kept of an array. `numbers` and `sha256` are None where the code refused what was asked for."""

    numbers: list[float] | None
    sha256: str | None

    @classmethod
    def of(cls, array: Array | None) -> Record:
        return cls(None, None) if array is None else cls(numbers_of(array), sha256(array))


Records = dict[str, Record]


def recorded(arrays: Mapping[str, Array | None]) -> Records:
    return {name: Record.of(array) for name, array in arrays.items()}


def changed(before: Records, now: Records, tolerance: float, bits: bool) -> list[str]:
    """A line for each record that differs, is new or is gone.

    Parameters
    ----------
    tolerance : of the numbers, as a share of the record's root mean square. bits : compare hashes, too.
    """
    lines = [f"{name}: is gone" for name in before if name not in now]
    for name, record in now.items():
        if name not in before:
            lines.append(f"{name}: is new")
        elif (line := _difference(before[name], record, tolerance, bits)) is not None:
            lines.append(f"{name}: {line}")
    return lines


def _difference(before: Record, now: Record, tolerance: float, bits: bool) -> str | None:
    if before.numbers is None or now.numbers is None:
        if before.numbers is now.numbers:
            return None
        return "was refused, is now taken" if before.numbers is None else "was recorded, is refused now"
    old, new = np.array(before.numbers), np.array(now.numbers)
    distance = float(np.abs(old - new).max() / max(old[1], 1e-12)) if np.isfinite(new).all() else np.inf
    if not distance <= tolerance:
        return f"numbers differ by {distance:.2g} of the root mean square, more than {tolerance:g}"
    if bits and before.sha256 != now.sha256:
        return f"other bits; the numbers agree to {distance:.2g} of the root mean square"
    return None


# --- the file ----------------------------------------------------------------------------------------------------------------------------


def dumped(where: Mapping[str, str | int], groups: Mapping[str, Records]) -> str:
    """JSON with one line for each record, so that differences between versions can be read."""
    lines = ["{", f'"environment": {json.dumps(where)},', '"groups": {']
    for group in groups:
        lines.append(f"{json.dumps(group)}: {{")
        lines += [f"{json.dumps(name)}: {json.dumps([record.sha256, record.numbers])}," for name, record in groups[group].items()]
        lines[-1] = lines[-1].rstrip(",")
        lines.append("},")
    lines[-1] = "}"
    return "\n".join([*lines, "}", "}", ""])


def loaded(path: Path) -> tuple[dict[str, str | int], dict[str, Records]]:
    """Environment and groups of a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    groups = {
        group: {name: Record(numbers, sha) for name, (sha, numbers) in records.items()}
        for group, records in content["groups"].items()
    }
    return content["environment"], groups


# --- where hashes bind -------------------------------------------------------------------------------------------------------------------


def environment() -> dict[str, str | int]:
    """What decides the last bits of a result, as far as it can be told.

    `arithmetic` is a hash of operations that the recorded code is made of, done without that code: two processors of the same capability
    may have different kernels.
    """
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "arithmetic": _arithmetic(),
    }


def _arithmetic() -> str:
    generator = torch.Generator().manual_seed(0)
    found: list[torch.Tensor] = []
    for channels, side in ((1, 32), (32, 16), (64, 8)):
        maps = torch.randn(4, channels, side, side, generator=generator, requires_grad=True)
        kernel = torch.randn(64, channels, 3, 3, generator=generator, requires_grad=True)
        out = torch.nn.functional.silu(torch.nn.functional.group_norm(torch.nn.functional.conv2d(maps, kernel, padding=1), 8))
        rows = out.flatten(2)
        mixed = (rows @ rows.transpose(1, 2) / side).softmax(-1).tanh().square().sum()
        mixed.backward()
        assert maps.grad is not None and kernel.grad is not None
        found += [out, mixed, maps.grad, kernel.grad]
    matrix = np.random.default_rng(0).normal(size=(24, 24))
    product = matrix @ matrix.T
    arrays = [product, np.linalg.solve(product + np.eye(24), matrix), np.exp(matrix), np.log(np.abs(matrix)), np.linalg.eigh(product)[1]]
    return sha256(*(tensor.detach().numpy() for tensor in found), *arrays)
