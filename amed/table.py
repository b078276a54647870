"""Table mode: r, c and a are constants per step, the same for every image.

It needs no features and no network, and works for any architecture. With known constants the form is a solver table like any other,
`solver_table()`: `solvers.sample` runs it at no extra cost, the guard can score it, and a recipe can store it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..solvers import Corrector, Row, SolverTable
from ..solvers.table import Basis
from .coefficients import Choice, Coefficients, Pair, Update
from .config import AmedConfig
from .ranges import each_step, needed_scale, r_of, raw_of_r, raw_of_scaled, scaled_of


class AmedTable(nn.Module):
    """The constants of every step as parameters, in the ranges of a predictor's outputs; initially r = 0.5, c = 1, a = 1.

    Parameters
    ----------
    config : AmedConfig
        Form, stamps and ranges.

    Attributes
    ----------
    r_logit, c_raw, a_raw : Parameter [pairs]
        float64, which stays on the CPU: do not move this module, but the results of `choose`.
    facts : dict
        Origin of a loaded table, see `save_amed`.
    """

    def __init__(self, config: AmedConfig) -> None:
        super().__init__()
        self.config = config
        self.facts: dict[str, Any] = {}
        self.r_logit, self.c_raw, self.a_raw = (nn.Parameter(torch.zeros(config.pairs, dtype=torch.float64)) for _ in range(3))

    @classmethod
    def constant(
        cls,
        form: str,
        stamps: Any,
        r: float | Sequence[float] = 0.5,
        c: float | Sequence[float] = 1.0,
        a: float | Sequence[float] = 1.0,
        afs: bool = False,
        family: str = "vp",
        scale_dir: float | None = None,
        scale_time: float | None = None,
    ) -> AmedTable:
        """A table with given constants.

        Parameters
        ----------
        form, stamps, afs, family
            As in `AmedConfig`.
        r, c, a : float or sequence of float
            One number for all steps, or one for each step with an intermediate time. r lies inside (0.001, 0.999).
        scale_dir, scale_time : float or None
            Ranges of c and a for further training; None means 0.01 and 0 if these suffice, else twice what is needed.

        Raises
        ------
        ValueError
            If a number is outside its range.
        """
        pairs = AmedConfig(form, stamps, family).pairs
        numbers = {name: each_step(value, name, pairs) for name, value in (("r", r), ("c", c), ("a", a))}
        scales = {
            "scale_dir": needed_scale(numbers["c"], 0.01, "c") if scale_dir is None else scale_dir,
            "scale_time": needed_scale(numbers["a"], 0.0, "a") if scale_time is None else scale_time,
        }
        table = cls(AmedConfig(form, stamps, family, afs, **scales))
        with torch.no_grad():
            table.r_logit.copy_(raw_of_r(numbers["r"]))
            table.c_raw.copy_(raw_of_scaled(numbers["c"], table.config.scale_dir, "c", "scale_dir"))
            table.a_raw.copy_(raw_of_scaled(numbers["a"], table.config.scale_time, "a", "scale_time"))
        return table

    def choose(self, n: int, features: Tensor | None = None) -> Choice:
        """r, c, a of step n, each float64 [1] on the CPU; `features` are ignored."""
        at = slice(n, n + 1)
        config = self.config
        return Choice(r_of(self.r_logit[at]), scaled_of(self.c_raw[at], config.scale_dir), scaled_of(self.a_raw[at], config.scale_time))

    def solver_table(self) -> SolverTable:
        """The constants as a solver table in float64.

        Its levels are the stamps for single-step forms, and the stamps with the chosen intermediate levels for the others.
        """
        config = self.config
        rows: list[Row] = []
        sigmas = [config.stamps[0]]
        past: tuple[Tensor, ...] = ()
        pending: Update | None = None
        numbers = Coefficients(config, torch.float64)
        with torch.no_grad():
            for n in range(config.pairs):
                pair = numbers.pair(n, Choice(*(value.cpu() for value in self.choose(n))), past)
                rows += _rows(config, n, pair, pending)
                if config.method.kind != "step":
                    sigmas.append(float(pair.middle))
                sigmas.append(config.stamps[n + 1])
                past, pending = (*pair.widths, *past), pair.second
        if config.ends_at_zero:
            sigmas.append(0.0)
            rows.append(Row(len(sigmas) - 2, config.stamps[-2], 0.0, (1.0,)))
        if config.afs:
            rows[0] = replace(rows[0], afs=config.afs_factor)
        options: dict[str, object] = {"amed": config.form} | ({"afs": True} if config.afs else {})
        return SolverTable(config.method.solver, config.family, tuple(sigmas), config.orders, tuple(rows), options)


def _rows(config: AmedConfig, n: int, pair: Pair, pending: Update | None) -> list[Row]:
    """The two rows of step n; `pending` is the half step before them."""
    start, middle, level = config.stamps[n], float(pair.middle), float(pair.level)
    whole = config.method.kind == "step"
    first = _row(config, n if whole else 2 * n, start, start, pair.first, pending)
    second = _row(config, n if whole else 2 * n + 1, level, middle, pair.second, pair.first)
    return [replace(first, stage=whole), second]


def _row(config: AmedConfig, step: int, level: float, node: float, update: Update, before: Update | None) -> Row:
    """A row that calls the model at `level` and uses the output as that at `node`."""
    row = Row(step, level, _float(update.a), tuple(map(float, update.b)), from_step_start=update.from_start)
    if config.method.kind != "data":
        basis: Basis = "velocity" if config.family == "flow" else "noise"
        return replace(row, basis=basis, q_x=1 / node, q_d=-1 / node)
    if before is None or before.corrector is None:
        return row
    return replace(row, corrector=Corrector(_float(before.a), tuple(map(float, before.corrector))))


def _float(a: Tensor | None) -> float:
    return 1.0 if a is None else float(a)
