"""The candidates of a race: stock settings, those first that tend to be good, this package's steps, and tables made for such models."""
from __future__ import annotations

from collections.abc import Sequence

from ..schedules import NoiseSchedule
from .candidates import GUIDED_SOLVERS, Candidate, after_jump, candidates, on_tapered_steps

_SOLVERS: tuple[tuple[str, int | None], ...] = (
    ("deis", 3), ("ipndm", 3), ("unipc", 2), ("dpmpp_2m", None), ("gradient_estimation", None), ("ipndm_v", 3), ("unipc", 3), ("deis", 2),
    ("res_multistep", None), ("ipndm", 4), ("ipndm_v", 4), ("euler", None), ("dpmpp_multistep", 3), ("heun", None), ("dpm_2", None),
)  # fmt: skip
_SCHEDULES = ("karras", "beta", "sgm_uniform", "uniform_lambda", "ays", "simple", "kl_optimal", "exponential", "gits")
_FACTORS = (0.75, 1.2)  # of the first level after a jump; scales measured on end points are about 1.3 times those of the rule


def race_pool(ns: NoiseSchedule, nfe: int, structure: float = 0.0, more: Sequence[Candidate] = ()) -> list[Candidate]:
    """Candidates with `nfe` model calls, those first that tend to be good.

    Parameters
    ----------
    ns : NoiseSchedule
        The model's.
    nfe : int
        Model calls.
    structure : float
        The data's largest structures (schedules/first_level.py); with 0 no candidate begins with a jump.
    more : sequence of Candidate
        Further ones, such as tables made for models of the family.
    """
    ours = [candidate for candidate in candidates(ns, nfe, (), ()) if candidate.nfe == nfe]
    jumps = after_jump(ns, nfe, structure, _FACTORS) if structure > 0 else []
    if jumps:
        jumps += after_jump(ns, nfe, structure, _FACTORS[:1], GUIDED_SOLVERS)
    own = jumps or on_tapered_steps(ns, nfe)
    ranks = {(solver, order): rank for rank, (solver, order) in enumerate(_SOLVERS)}
    stock = candidates(ns, nfe, _SOLVERS, _SCHEDULES, optimized=False)
    stock.sort(key=lambda c: ranks[c.solver, c.order] + _SCHEDULES.index(c.schedule))
    taken = {candidate.table.rows for candidate in (*ours, *own)}
    stock = [candidate for candidate in stock if candidate.table.rows not in taken]
    return [*more, *own, *ours, *stock]


def trimmed(pool: Sequence[Candidate], count: int) -> list[Candidate]:
    """The first `count` of them, at least a third of them stock."""
    stock = [candidate for candidate in pool if candidate.kind == "stock"]
    others = [candidate for candidate in pool if candidate.kind != "stock"]
    kept = stock[: max(count - len(others), -(-count // 3))]
    return [*others[: count - len(kept)], *kept]


def following(pool: Sequence[Candidate], ranking: Sequence[str], count: int) -> list[Candidate]:
    """Those of `pool` that were best at another number of calls, at most `count`, and all fitted tables of the pool."""
    order = {setting: place for place, setting in enumerate(ranking)}
    made = [candidate for candidate in pool if candidate.kind == "fitted"]
    known = [candidate for candidate in pool if candidate.kind != "fitted" and candidate.any_calls in order]
    known.sort(key=lambda candidate: order[candidate.any_calls])
    return [*made, *known[:count]]
