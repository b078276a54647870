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
from .bench_problems import PROBLEMS, SHIPPED, problem
from .bench_results import Results
from .bench_settings import BEST_STOCK, TUNED, compared, ours, stock, usual
from .bench_tuned import tuned
from .shipped import RECIPES_FOLDER

CALLS = (3, 4, 5, 6, 8, 10, 12, 15, 20)
HEADLINE_CALLS = (5, 8)
JUDGED_CFGS = (1.0, 3.0)
PICTURES = "pictures"
"""The kind of results of many pictures, for the distance of their distributions."""


@dataclass(frozen=True)
class Plan:
    """What a run is asked for.

    Attributes
    ----------
    problems, calls, cfgs : sequences
        Names in `PROBLEMS` (default: those that ship), numbers of model calls, guidance scales.
    seeds : int
        Images of each problem.
    recipes : sequence of Path
        Folders of recipes, named as `fewstep calibrate --out` does; of those that fit, the one fitted nearest to the guidance is used.
    keep : Path or None
        Folder for what was measured of every seed, so that later runs with more of them add only what is missing.
    tuned : sequence of Path
        LoRA files of `fewstep tune`; each is used with the model, the calls and the guidance it was made for.
    pictures : int
        Pictures of each network for the Frechet distance, at few calls and of the settings that headlines name; 0: only those of the seeds.
    """

    problems: Sequence[str] = SHIPPED
    calls: Sequence[int] = CALLS
    cfgs: Sequence[float] = (1.0, 2.0, 3.0, 7.0)
    seeds: int = 200
    recipes: Sequence[Path] = (RECIPES_FOLDER,)
    keep: Path | None = None
    tuned: Sequence[Path] = ()
    pictures: int = 0

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
                for lora in plan.tuned:
                    if (found := tuned(on, lora, calls, cfg)) is not None:
                        progress(where + TUNED)
                        own = Measurement(found[0], cfg, plan.keep, measurement)
                        results.part(where + TUNED, own.key(found[1]), plan.seeds, partial(own.score, found[1]))
    if plan.pictures:
        measure_pictures(plan, results, progress)


def measure_pictures(plan: Plan, results: Results, progress: Callable[[str], object]) -> None:
    """Scores of many pictures, which a distance between distributions needs; of the best of all stock, the setting that `measure` found."""
    for name in plan.problems:
        for cfg in sorted({*plan.cfgs} & {*JUDGED_CFGS}):
            on = problem(name, plan.pictures, cfg)
            if on.judge is None:
                continue
            measurement = Measurement(on, cfg, plan.keep)
            for calls in sorted({*plan.calls} & {*HEADLINE_CALLS}):
                where = part_name(name, cfg, calls, "")
                tables = usual(on, calls)
                shown = {each: tables[each] for each in compared(on.noise_schedule)[:2]} | ours(on, calls, cfg, plan.recipes)
                best = results.document["results"][where + BEST_STOCK]["setting"]
                shown[BEST_STOCK] = stock(on, calls)[best]
                for method, table in shown.items():
                    progress(where + method)
                    made_from = measurement.key(table)
                    results.part(where + method, made_from, plan.pictures, partial(measurement.score, table), PICTURES)


def part_name(name: str, cfg: float, calls: int, method: str) -> str:
    """Under which a result is stored."""
    return f"{name}/cfg {cfg:g}/{calls} calls/{method}"
