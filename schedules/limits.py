"""The noise levels that files from strangers may ask for: recipes and AMED files.

The highest level of a known model is 4518 (zero-terminal SNR), the lowest 1e-4 or so; there is room on both sides.
"""

from __future__ import annotations

LOWEST_LEVEL, HIGHEST_LEVEL = 1e-7, 1e5
