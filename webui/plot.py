"""A list of noise levels as a small picture, in SVG so that the page needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 220, 52, 12, 12, 26


def sigma_plot(sigmas: Sequence[float], title: str) -> str:
    """HTML with the curve of the levels over the step, logarithmic, the final 0 as an open mark at the foot, and the numbers as text."""
    above = [float(level) for level in sigmas if level > 0]
    if not above:
        return f"<p>{html.escape(title)}: no levels.</p>"
    low, high = math.floor(math.log10(min(above))), math.ceil(math.log10(max(above)))
    high = max(high, low + 1)
    steps = max(len(sigmas) - 1, 1)

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * step / steps

    def y(level: float) -> float:
        share = (math.log10(level) - low) / (high - low) if level > 0 else 0.0
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share

    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="100%" role="img" aria-label="{html.escape(title)}" '
        'style="max-width:560px;font:11px sans-serif" fill="currentColor" stroke="none">'
    ]
    for decade in range(low, high + 1):
        at = y(10.0**decade)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="currentColor" stroke-opacity="0.18"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**decade:g}</text>')
    every = max(1, math.ceil(steps / 12))
    for step in range(0, steps + 1, every):
        parts.append(f'<text x="{x(step):.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{step}</text>')
    line = " ".join(f"{x(i):.1f},{y(level):.1f}" for i, level in enumerate(sigmas) if level > 0)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#e07b39" stroke-width="2"/>')
    for i, level in enumerate(sigmas):
        fill = "#e07b39" if level > 0 else "none"
        parts.append(f'<circle cx="{x(i):.1f}" cy="{y(level):.1f}" r="3.5" fill="{fill}" stroke="#e07b39" stroke-width="1.5"/>')
    parts.append("</svg>")
    numbers = ", ".join(f"{float(level):.5g}" for level in sigmas)
    return (
        f"<p>{html.escape(title)}</p>{''.join(parts)}"
        f'<p class="fewstep-sigmas" style="font-family:monospace;overflow-wrap:anywhere">{numbers}</p>'
    )
