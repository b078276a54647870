"""Error against model calls, for the settings people use and for FewStep's: what `fewstep bench` measures.

Every setting is a table (bench_settings.py) that starts from the same noise as a teacher of 64 steps; the error is the distance of the end
points (bench_measurement.py). Results lie in a JSON file (bench_results.py) under a key of everything that determines them but the number
of seeds, which is recorded with each: the table's numbers, the weights and the code that evaluates the model and walks the table. A run
measures what is missing, was made from something else or of fewer seeds, and nothing twice.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .bench_measurement import FINALISTS, SCREENED_ON, Measurement
from .bench_problems import PROBLEMS, problem
from .bench_results import Results
from .bench_settings import BEST_STOCK, ours, stock, usual
from .shipped import RECIPES_FOLDER

CALLS = (3, 4, 5, 6, 8, 10, 12, 15, 20)


@dataclass(frozen=True)
class Plan:
    """What a run is asked for.

    Attributes
    ----------
    problems, calls, cfgs : sequences
        Names in `PROBLEMS`, numbers of model calls, guidance scales.
    seeds : int
        Images of each problem.
    recipes : sequence of Path
        Folders of recipes, named as `fewstep calibrate --out` does; of those that fit, the one fitted nearest to the guidance is used.
    keep : Path or None
        Folder for what was measured of every seed, so that later runs with more of them add only what is missing.
    """

    problems: Sequence[str] = PROBLEMS
    calls: Sequence[int] = CALLS
    cfgs: Sequence[float] = (1.0, 2.0, 3.0, 7.0)
    seeds: int = 200
    recipes: Sequence[Path] = (RECIPES_FOLDER,)
    keep: Path | None = None

    def __post_init__(self) -> None:
        for name in self.problems:
            if name not in PROBLEMS:
                raise ValueError(f"The problem was {name!r}; it must be one of {', '.join(PROBLEMS)}.")
        if self.seeds < 2:
            raise ValueError(f"seeds was {self.seeds}; at least 2 are needed, so that parts of them can be compared.")
        if min(self.calls) < 2:
            raise ValueError(f"calls contained {min(self.calls)}; compare 2 or more.")


def measure(plan: Plan, results: Results, progress: Callable[[str], object] = lambda _: None) -> None:
    """Measure what `results` lacks of a plan; `progress` is told of every part before it is looked for."""
    for name in plan.problems:
        for cfg in plan.cfgs:
            on = problem(name, plan.seeds, cfg)
            measurement = Measurement(on, cfg, plan.keep)
            for calls in plan.calls:
                where = part_name(name, cfg, calls, "")
                known = usual(on, calls)
                for method, table in (known | ours(on, calls, cfg, plan.recipes)).items():
                    progress(where + method)
                    results.part(where + method, measurement.key(table), plan.seeds, partial(measurement.score, table))
                progress(where + BEST_STOCK)
                pool = stock(on, calls)
                made_from = (SCREENED_ON, FINALISTS, sorted(measurement.key(table) for table in pool.values()))
                results.part(where + BEST_STOCK, made_from, plan.seeds, partial(measurement.best, pool, known))


def part_name(name: str, cfg: float, calls: int, method: str) -> str:
    """Under which a result is stored."""
    return f"{name}/cfg {cfg:g}/{calls} calls/{method}"
