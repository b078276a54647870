"""Make the tables of docs/calibrating.md: what a budget is laid out as, and how long it takes.

    python docs/make_times.py

The layouts are those of `fewstep.fitting.laid_out`, which plans every calibration with a budget. Times are estimates: operations of a
forward pass are counted (docs/forward_passes.json, made by benchmarks/forward_passes.py), a GPU's dense rate at half precision, added up
in single precision, is NVIDIA's, and the share of it that sampling reaches is assumed.
"""

from __future__ import annotations

import json
from functools import cache

from blocks import DOCS, table, write

from fewstep.fitting import Layout
from fewstep.fitting.budget import CHECKED_STEPS, StepCost, lay_out
from fewstep.fitting.pool import race_pool
from fewstep.fitting.within import check_cost, step_cost
from fewstep.jobs.calibrate import BOOK_CALLS, MOST_SEEDS
from fewstep.jobs.words import cost_line
from fewstep.schedules import NoiseSchedule

PAGE = DOCS / "calibrating.md"
PASSES = json.loads((DOCS / "forward_passes.json").read_text(encoding="utf-8"))["models"]

RATES = {"RTX 3090": 71e12, "RTX 4090": 165e12, "A100": 312e12, "H100 SXM": 1000e12}
"""Operations per second. GA102 and Ada whitepapers (appendices), and "NVIDIA Hopper Architecture In-Depth", table 3, for the last two."""

SHARE = 0.5
"""Of that rate; assumed."""

GUIDANCE = {name: 1 if name == "FLUX.1 dev" else 2 for name in PASSES}
"""Forward passes of a call: FLUX.1 dev has its guidance built in."""

BUDGETS = (1_000, 2_000, 4_000, 10_000, 20_000)
TIMED = ((1_000, "race only"), (4_000, "5 calls"), (10_000, "8 calls"), (20_000, "book"))
RATES_SHOWN = (20, 10, 5, 2, 1, 0.5, 0.1)


MODEL = NoiseSchedule.preset("sdxl")
"""Layouts do not depend on it."""


@cache
def cost_of(calls: int) -> StepCost:
    return step_cost(MODEL, calls)


@cache
def racing(calls: int) -> int:
    return len(race_pool(MODEL, calls))


def layout(budget: float, calls: tuple[int, ...]) -> Layout:
    """As `laid_out`."""
    return lay_out(budget, {n: cost_of(n) for n in calls}, CHECKED_STEPS[-1], racing(calls[0]), MOST_SEEDS, check_cost(calls[-1]))


def in_words(budget: float, calls: tuple[int, ...]) -> str:
    """A cell."""
    found = layout(budget, calls)
    if not found.fits:
        return f"race only: {found.racing} settings on {found.guarding} seeds"
    fitted = "" if tuple(sorted(found.fits)) == calls else f" for {', '.join(map(str, sorted(found.fits)))}"
    return f"fit{fitted}: {found.fitting} seeds and {found.guarding} held out"


def layouts() -> str:
    """Budget by what is asked for."""
    asked = ((5,), (8,), BOOK_CALLS)
    head = ["sample-calls", *(f"model calls {', '.join(map(str, calls))}" for calls in asked)]
    return table(head, [[f"{budget:,}", *(in_words(budget, calls) for calls in asked)] for budget in BUDGETS])


def plan() -> str:
    """What is said of a budget before the work."""
    found = layout(4_000, (5,))
    return f"> {cost_line(found.costs)}\n>\n> Layout: {found}"


def duration(seconds: float) -> str:
    """Two digits at most."""
    for unit, length in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * length:
            number = seconds / length
            return f"{float(f'{number:.2g}'):g} {unit}"
    return f"{float(f'{seconds:.2g}'):g} s"


def by_rate() -> str:
    """Time of budgets by the steps per second that the host's progress bar shows for one picture."""
    head = ["steps per second", *(f"{budget:,} ({what})" for budget, what in TIMED)]
    return table(head, [[f"{rate:g}", *(duration(budget / rate) for budget, _ in TIMED)] for rate in RATES_SHOWN])


def by_model() -> str:
    """Estimated time of 4,000 sample-calls."""
    head = ["model", "picture", "forward passes per call", "operations of a pass", *RATES]
    rows = []
    for name, known in PASSES.items():
        passes = GUIDANCE[name]
        cost = 4_000 * passes * known["operations"] / SHARE
        rows.append([
            name, known["picture"], str(passes), f"{known['operations'] / 1e12:.2g} T" if known["operations"] < 99.5e12
            else f"{known['operations'] / 1e12:.0f} T", *(duration(cost / rate) for rate in RATES.values()),
        ])  # fmt: skip
    return table(head, rows)


def blocks() -> dict[str, str]:
    """The page's tables by name."""
    made = {"layouts": layouts(), "plan": plan(), "by rate": by_rate(), "by model": by_model()}
    return {f"docs/make_times.py: {name}": content for name, content in made.items()}


if __name__ == "__main__":
    write(PAGE, blocks())
