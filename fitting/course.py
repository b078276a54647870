"""Calibrations for several numbers of model calls, one after another."""
from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ..schedules.first_level import measured_structure_scale
from ..solvers import SolverTable
from .calibrate import Calibration, calibrate, check_calls, default_starts, resampled
from .candidates import Candidate, after_jump
from .effort import Effort
from .levenberg import Limit
from .progress import staged
from .setting import Setting
from .teacher import Teacher


def calibrations(
    setting: Setting,
    nfes: Collection[int],
    *,
    held_out: int,
    teacher: Teacher,
    effort: Effort,
    limit: Limit | None = None,
    afs: bool = False,
    before: tuple[int, SolverTable] | None = None,
    **options: Any,
) -> Iterator[Calibration]:
    """A calibration for each of `nfes` in ascending order, as it is finished, each also starting from the times of the one before.

    Parameters
    ----------
    setting, held_out, teacher, afs, options
        See `calibrate_all`.
    effort : Effort
        Stock combinations that a result has to beat, and the limit of each fit's cost.
    limit : Limit or None
        Instead of the effort's.
    before : tuple of int and SolverTable, or None
        Model calls and table of a calibration with fewer calls, made earlier.

    Raises
    ------
    ValueError, FitError
        As `calibrate_all`.
    Interrupted
        Before a fit has begun; a calibration that is interrupted later is the last.
    """
    check_calls(nfes)
    ns = setting.noise_schedule
    teacher.run(staged(options.get("progress"), "teacher"))
    structure = measured_structure_scale(teacher.end_points[: len(setting.seeds) - held_out])
    for nfe in sorted(set(nfes)):
        starts = default_starts(ns, nfe, afs, structure)
        if before is not None and (table := resampled(before[1], nfe)) is not None:
            starts.append(Candidate(f"the times of the table for {before[0]} calls", table, "fitted"))
        result = calibrate(
            setting,
            nfe,
            held_out=held_out,
            teacher=teacher,
            starts=starts,
            stock=[*effort.stock(ns, nfe), *after_jump(ns, nfe, structure)[:1]],  # the default setting on wide ranges
            afs=afs,
            limit=effort.limit(nfe, len(setting.seeds) - held_out, setting.batch) if limit is None else limit,
            **options,
        )
        yield result
        if result.comparison is None:
            return
        before = (nfe, result.fitted)
