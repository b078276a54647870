"""How a budget of sample-calls is laid out: seeds, teacher, race, fits and guard.

Every seed that is fitted costs the teacher's steps once, and in the fit its derivatives once, and some trials (two_stages.py). So the
number of seeds follows from the budget. Where all weights free are too dear, those that keep constants (parameters.py) are fitted: half
the parameters. What still does not fit is left out: the fit for the most model calls first. What remains without any fit is the race:
which of the settings that hosts offer is best on this model.

The seeds that decide grow with the square root of the budget, like the seeds that a fit can use well: what a fit gains is to be told from
chance, and one that sends a seed in fifty to another picture is noticed with fifty seeds, not with twelve.

The shares were measured on the demo model (benchmarks/calibration_budget.py).
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .race import race_cost
from .way import points

GUARDING, FEWEST_GUARDING, MOST_GUARDING = 12, 6, 96  # seeds that decide: of a small budget, of one without a fit, and at most
FEWEST_FITTED, MOST_FITTED = 12, 384
CHECKED, CHECKED_STEPS = 4, (12, 24)  # seeds and steps of the teacher's check
FOLLOWING = 10  # candidates of a race after the first, a warm start not counted
_FEWEST_RACING, _MOST_RACING = 16, 64
_RACING = 0.12  # share of the budget that races may take, as long as there are enough candidates
_GUARDING_FROM, _PORTION = 4000.0, 4  # sample-calls from which more than the usual seeds decide, and by how many more at a time
_TRIALS = 4.5  # of a seed's steps, with what the first stage of a fit costs beside them


@dataclass(frozen=True)
class Budget:
    """What a calibration may cost, everything included.

    Attributes
    ----------
    samples : float
        Sample-calls: model calls times the samples in them.
    seconds : float
        Wall time; it becomes sample-calls once the first calls are timed.

    Raises
    ------
    ValueError
        If one of them is not above 0, or both are infinite.
    """

    samples: float = math.inf
    seconds: float = math.inf

    def __post_init__(self) -> None:
        if not (self.samples > 0 and self.seconds > 0) or (math.isinf(self.samples + 0.0) and math.isinf(self.seconds)):
            raise ValueError(
                f"The budget was {self.samples:g} sample-calls and {self.seconds:g} s; both must be above 0, and one of them finite."
            )

    def in_samples(self, seconds_each: float) -> float:
        """The budget in sample-calls, if one takes this long."""
        return min(self.samples, self.seconds / seconds_each if seconds_each > 0 else math.inf)


@dataclass(frozen=True)
class StepCost:
    """What a fit's steps cost for one sample, in calls.

    Attributes
    ----------
    jacobian : int
        A measured Jacobian, all weights free.
    keeping : int
        The same with weights that keep constants.
    trial : int
        A trial.
    """

    jacobian: int
    keeping: int
    trial: int

    def of_seed(self, constants: bool) -> float:
        """Sample-calls that a fit needs for one seed."""
        return 1 + self.trial * (1 + _TRIALS) + (self.keeping if constants else self.jacobian)


@dataclass(frozen=True)
class FitPlan:
    """Sample-calls of a fit, and whether its weights keep constants."""

    samples: float
    constants: bool


@dataclass(frozen=True)
class Layout:
    """What a budget is spent on.

    Attributes
    ----------
    guarding, fitting : int
        Seeds that decide, and seeds that are fitted: 0 if there is no fit.
    teacher_steps : int
        Of the teacher.
    racing : int
        Candidates of the first race, at most.
    fits : mapping
        By model calls, those that get one.
    dropped : tuple of str
        What did not fit, a sentence each.
    costs : mapping
        Expected sample-calls by purpose and model calls, in the order of work.
    """

    guarding: int
    fitting: int
    teacher_steps: int
    racing: int
    fits: Mapping[int, FitPlan]
    dropped: tuple[str, ...] = ()
    costs: Mapping[tuple[str, int], float] = field(default_factory=dict)

    def __str__(self) -> str:
        seeds = f"{self.fitting} seeds to fit and {self.guarding} held out" if self.fits else f"{self.guarding} seeds to compare on"
        return f"{seeds}, a teacher of {self.teacher_steps} steps, {self.racing} settings compared"


def lay_out(
    samples: float, steps: Mapping[int, StepCost], teacher_steps: int, candidates: int, seeds: int, spent: float = 0.0
) -> Layout:
    """Lay out a budget.

    Parameters
    ----------
    samples : float
        The budget in sample-calls.
    steps : mapping
        For each number of model calls that is wanted, what a step of its fit costs.
    teacher_steps : int
        Of the teacher.
    candidates : int
        How many there are for the first race.
    seeds : int
        How many there are.
    spent : float
        Sample-calls spent already, on the teacher's check.
    """
    wanted = sorted(steps)
    guarding = min(guarding_seeds(samples, len(wanted)), max(seeds // 3, 1))
    racing, races = _races(samples, wanted, candidates, guarding)
    fitted, constants, dropped = list(wanted), False, list[str]()
    fewest = min(FEWEST_FITTED, max(seeds - guarding, 1))
    while True:
        guards = {nfe: float(nfe * guarding * points(guarding)) for nfe in fitted}
        left = samples - spent - sum(races.values()) - sum(guards.values()) - teacher_steps * guarding
        needed = {nfe: steps[nfe].of_seed(constants) for nfe in fitted}
        fitting = min(int(max(left, 0) / (teacher_steps + sum(needed.values()))), MOST_FITTED, seeds - guarding) if fitted else 0
        if not fitted or fitting >= fewest:
            break
        if guarding > GUARDING:  # before anything is given up, those that more budget has brought
            guarding = GUARDING
            racing, races = _races(samples, wanted, candidates, guarding)
            continue
        if not constants:
            constants = True
            continue
        most, constants = fitted.pop(), False
        dropped.append(
            f"Nothing is fitted for {most} model calls: {samples:,.0f} sample-calls are too few for it. You get the best of the settings "
            "compared."
        )
    while not fitted and guarding > FEWEST_GUARDING and samples < spent + sum(races.values()) + teacher_steps * guarding:
        guarding -= 1
        racing, races = _races(samples, wanted, candidates, guarding)
    costs: dict[tuple[str, int], float] = {("teacher", 0): teacher_steps * (guarding + fitting) + spent}
    left = max(samples - sum(costs.values()) - sum(races.values()) - sum(guards.values()), 0.0)
    fits = {nfe: FitPlan(left * needed[nfe] / sum(needed.values()), constants) for nfe in fitted}
    for nfe in wanted:
        costs["start", nfe] = races[nfe]
        if nfe in fits:
            costs["fit", nfe], costs["guard", nfe] = fits[nfe].samples, guards[nfe]
    return Layout(guarding, fitting, teacher_steps, racing, fits, tuple(dropped), costs)


def guarding_seeds(samples: float, tables: int) -> int:
    """Seeds that decide, which all tables of a budget share: 12 at 4,000 sample-calls for one table, 20 at 10,000, 48 at 60,000."""
    if math.isinf(samples):
        return MOST_GUARDING
    portions = round(GUARDING / _PORTION * math.sqrt(samples / _GUARDING_FROM / math.sqrt(tables)))
    return min(max(portions * _PORTION, GUARDING), MOST_GUARDING)


def _races(samples: float, nfes: Sequence[int], candidates: int, guarding: int) -> tuple[int, dict[int, float]]:
    """Candidates of the first race, and the cost of each race."""
    following = {nfe: float(race_cost(min(FOLLOWING + 1, candidates), nfe, guarding)) for nfe in nfes[1:]}
    racing = min(candidates, _MOST_RACING)
    while racing > _FEWEST_RACING and race_cost(racing, nfes[0], guarding) + sum(following.values()) > _RACING * samples:
        racing -= 1
    return racing, {nfes[0]: float(race_cost(racing, nfes[0], guarding)), **following}
