"""float16 on the CPU, in which old torches (2.0) compute nothing; import with `from .half_precision import FLOAT16`."""

from __future__ import annotations

import pytest
import torch


def _computes() -> bool:
    half = torch.ones(1, 1, 2, 2, dtype=torch.float16)
    try:
        torch.conv2d(half, half)
    except RuntimeError:
        return False
    return True


needs_float16 = pytest.mark.skipif(not _computes(), reason=f"torch {torch.__version__} computes nothing in float16 on the CPU")
FLOAT16 = pytest.param(torch.float16, marks=needs_float16)
