"""The configuration of a predictor or table: form, stamps and ranges. Everything else follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..schedules.checks import real_number
from ..schedules.families import check_family
from ..solvers import SolverTable, build_table
from ..solvers.afs import denoised_factor
from ..solvers.grid import Grid, step_orders
from .forms import Form, form_named
from .stamps import Interval, checked_stamps, doubled, intervals_of, pairs_of


@dataclass(frozen=True)
class AmedConfig:
    """Immutable and validated on construction.

    Attributes
    ----------
    form : str
        A key of `FORMS`.
    stamps : tuple of float
        N noise levels of the host, strictly decreasing. If the last is 0, the last interval is one plain call. A flow
        model's s = 1 is replaced by `stamps.FLOW_START`.
    family : {"vp", "edm", "flow"}
        The model family.
    afs : bool
        Whether the analytical guess replaces the first call.
    scale_dir, scale_time : float
        c lies in (1 - scale_dir, 1 + scale_dir) and a in (1 - scale_time, 1 + scale_time). Each scale is in [0, 1); 0 fixes
        the output at 1.

    Raises
    ------
    ValueError
        If a value is outside its range.
    """

    form: str
    stamps: tuple[float, ...]
    family: str
    afs: bool = False
    scale_dir: float = 0.01
    scale_time: float = 0.0

    def __post_init__(self) -> None:
        form_named(self.form)
        check_family(self.family)
        object.__setattr__(self, "stamps", checked_stamps(self.stamps, self.family))
        if not isinstance(self.afs, (bool, np.bool_)):
            raise ValueError(f"afs was {self.afs!r}; it must be True or False.")
        object.__setattr__(self, "afs", bool(self.afs))
        for name in ("scale_dir", "scale_time"):
            scale = real_number(getattr(self, name), name)
            if not 0 <= scale < 1:
                raise ValueError(f"{name} was {scale!r}; it must be at least 0 and below 1 (0 turns the output off).")
            object.__setattr__(self, name, scale)

    @cached_property
    def method(self) -> Form:
        """The entry of `FORMS`."""
        return form_named(self.form)

    @property
    def ends_at_zero(self) -> bool:
        """Whether the last stamp is the clean image."""
        return self.stamps[-1] == 0

    @property
    def pairs(self) -> int:
        """Number of steps with an intermediate time."""
        return pairs_of(self.stamps)

    @property
    def nfe(self) -> int:
        """Exact number of model calls per sample."""
        return 2 * self.pairs + self.ends_at_zero - self.afs

    @cached_property
    def intervals(self) -> tuple[Interval, ...]:
        """One interval for each of the `pairs`."""
        return intervals_of(self.stamps, self.family)

    @cached_property
    def orders(self) -> tuple[int, ...]:
        """Order of every half step (for single-step forms, of every step); the last is the plain step to 0, if there is one."""
        form = self.method
        if form.kind == "step":
            return (form.order,) * self.pairs + (1,) * self.ends_at_zero
        grid = Grid(self.plain_sigmas, self.family)
        return tuple(step_orders(grid, form.order, form.kind == "data", 4, form.solver))

    @property
    def afs_factor(self) -> float | None:
        """k in D = k x at the first stamp if this replaces the first call, else None."""
        return denoised_factor(self.stamps[0], self.family) if self.afs else None

    @cached_property
    def plain_sigmas(self) -> tuple[float, ...]:
        """The levels of the plain solver: the stamps, or the stamps and their geometric means."""
        return self.stamps if self.method.kind == "step" else doubled(self.stamps, self.family)

    def plain_table(self) -> SolverTable:
        """The plain solver to which this form reduces at r = 0.5, c = 1, a = 1."""
        form = self.method
        order = form.order if form.solver in ("ipndm", "dpmpp_multistep", "unipc") else None
        return build_table(form.solver, self.plain_sigmas, self.family, order, afs=self.afs)
