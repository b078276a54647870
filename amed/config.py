"""What AMED numbers are for: the form, the stamps and the ranges. Everything else follows from it."""

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
    """Validated on construction, immutable.

    Attributes
    ----------
    form : a key of `FORMS`.
    stamps : N noise levels of the host, strictly decreasing, the last may be 0: then the last interval is one plain call. A flow model's
        s = 1 is replaced by `stamps.FLOW_START`.
    family : "vp", "edm" or "flow".
    afs : replace the first call by the analytical guess.
    scale_dir, scale_time : c lies in (1 - scale_dir, 1 + scale_dir), a in (1 - scale_time, 1 + scale_time), each scale in [0, 1); 0
        switches that output off: it is 1.

    Raises
    ------
    ValueError : a value outside its range.
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
                raise ValueError(f"{name} was {scale!r}; it must be at least 0 and below 1 (0 switches the output off).")
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
        """Model calls of one sample, exactly."""
        return 2 * self.pairs + self.ends_at_zero - self.afs

    @cached_property
    def intervals(self) -> tuple[Interval, ...]:
        """One for each of the `pairs`."""
        return intervals_of(self.stamps, self.family)

    @cached_property
    def orders(self) -> tuple[int, ...]:
        """Order of every half step (of every step for the forms that start each step afresh); the last is the plain step to 0, if any."""
        form = self.method
        if form.kind == "step":
            return (form.order,) * self.pairs + (1,) * self.ends_at_zero
        grid = Grid(self.plain_sigmas, self.family)
        return tuple(step_orders(grid, form.order, form.kind == "data", 4, form.solver))

    @property
    def afs_factor(self) -> float | None:
        """k in D = k x at the first stamp, where that replaces the first call; None where it does not."""
        return denoised_factor(self.stamps[0], self.family) if self.afs else None

    @cached_property
    def plain_sigmas(self) -> tuple[float, ...]:
        """The levels of the plain solver: the stamps, or stamps and geometric middles."""
        return self.stamps if self.method.kind == "step" else doubled(self.stamps, self.family)

    def plain_table(self) -> SolverTable:
        """The solver that this form is at r = 0.5, c = 1, a = 1."""
        form = self.method
        order = form.order if form.solver in ("ipndm", "dpmpp_multistep", "unipc") else None
        return build_table(form.solver, self.plain_sigmas, self.family, order, afs=self.afs)
