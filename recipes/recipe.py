"""A few-step setting that can be shared: solver, noise levels, fitted coefficients, and their origin."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..schedules.families import check_family
from ..solvers import ALGORITHM_VERSION, Row, SolverTable, build_table, solver_named
from ..solvers.keeping import departure
from ..solvers.rebuild import order_per_step
from ..solvers.rounding import rounded_row
from .document import FORMAT, LARGEST_FILE, VERSION, checked_document, parsed_json, row_document, row_from, written
from .facts import Facts
from .files import file_text, replace_file
from .limits import check_limits
from .numbers import MOST_ROWS, Option, line, plain_options, rounded, rounded_levels, shortest, shown, whole
from .text import hint_of, looks_like_text, parsed_text, written_text
from .use import warnings_for_use

_HIGHEST_ORDER = 100


@dataclass(frozen=True)
class Recipe:
    """A sampling setting, immutable and validated on construction. Usually made by `from_table`, `from_text` or `load`.

    Two recipes are equal if all their fields are equal. Numbers are rounded to float32 when the recipe is made.

    Attributes
    ----------
    solver, family : str
        As in `SolverTable`.
    levels : tuple of float
        N + 1 noise levels; `sigmas` has them as a tensor.
    orders : tuple of int
        Order of each step.
    options : mapping
        Options of the solver.
    rows : tuple of Row or None
        The rows of a calibrated table. None: the table is the result of `build_table` for the fields above.
    algorithm_version : int
        Version of the solver's code.
    facts : Facts
        The origin of the recipe.

    Raises
    ------
    ValueError
        If the fields do not form a table, or a recipe cannot store it.
    """

    solver: str
    family: str
    levels: tuple[float, ...]
    orders: tuple[int, ...]
    options: Mapping[str, Option] = field(default_factory=dict, hash=False)
    rows: tuple[Row, ...] | None = None
    algorithm_version: int = ALGORITHM_VERSION
    facts: Facts = field(default_factory=Facts)

    def __post_init__(self) -> None:
        solver_named(line(self.solver, "solver", 40))
        check_family(line(self.family, "family", 40))
        orders = tuple(whole(order, "an order", 1, _HIGHEST_ORDER) for order in self.orders)
        levels = rounded_levels(self.levels)
        if len(orders) != len(levels) - 1:
            raise ValueError(
                f"The recipe has {len(orders)} orders for {len(levels)} sigmas; it needs one order per step, {len(levels) - 1}."
            )
        if not isinstance(self.facts, Facts):
            raise ValueError(f"facts were {type(self.facts).__name__}; they must be Facts.")
        checked = {
            "orders": orders,
            "levels": levels,
            "options": plain_options(self.options),
            "algorithm_version": whole(self.algorithm_version, "algorithm_version", 1),
        }
        if self.rows is not None:
            if not 1 <= len(self.rows) <= MOST_ROWS:
                raise ValueError(f"The table has {len(self.rows)} rows; a calibrated recipe has from 1 to {MOST_ROWS}.")
            checked["rows"] = tuple(rounded_row(row, index) for index, row in enumerate(self.rows))
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        check_limits(self._table, self.rows is not None)  # raises, too, if the fields do not form a table

    def __reduce__(self) -> tuple[type[Recipe], tuple[object, ...]]:
        # copies cannot handle the read-only view of the options
        return Recipe, tuple(dict(self.options) if f.name == "options" else getattr(self, f.name) for f in fields(self))

    # -- table -----------------------------------------------------------------------------------------------------

    @classmethod
    def from_table(cls, table: SolverTable, **facts: Any) -> Recipe:
        """The recipe of a table.

        If the rows are those that `build_table` gives for the table's solver, levels, orders and options, they are not stored,
        and `recipe.table()` is the result of `build_table` on the levels as float32. Otherwise they are stored, and
        `recipe.table() == rounded(table)`.

        Parameters
        ----------
        table : SolverTable
            From `build_table` or a calibration.
        **facts
            See `Facts`, e.g. cfg=7.5, resolution=(4, 64, 64), model_identity=model_identity(network), error=0.03.

        Raises
        ------
        ValueError
            If the solver is not in `SOLVERS`, there are more than 100 fitted rows, or a fact is not valid.
        """
        known = {f.name for f in fields(Facts)}
        unknown = [name for name in facts if name not in known]
        if unknown:
            raise ValueError(f"There is no fact named {unknown[0]!r}; a recipe has {', '.join(sorted(known))}.")
        if facts.get("extra") is not None:
            facts = {**facts, "extra": dict(facts["extra"])}
        given = rounded(table)
        rebuilt = _rebuildable(table) and _rebuildable(given, only_orders=True)
        rows = None if rebuilt else given.rows
        version = table.algorithm_version
        options = plain_options(given.options)
        return cls(table.solver, table.family, given.sigmas, table.orders, options, rows, version, Facts(**facts))

    def table(self) -> SolverTable:
        """The table for `fewstep.solvers.sample`."""
        return self._table

    @cached_property
    def _table(self) -> SolverTable:
        if self.rows is not None:
            return SolverTable(self.solver, self.family, self.levels, self.orders, self.rows, self.options, self.algorithm_version)
        if self.algorithm_version != ALGORITHM_VERSION:
            raise ValueError(
                f"The recipe uses version {self.algorithm_version} of the solvers, but this FewStep has version {ALGORITHM_VERSION}. "
                "Install the FewStep version that made the recipe, or a newer one."
            )
        table = _built(self.solver, self.family, self.levels, self.orders, self.options)
        if table.orders != self.orders:
            raise ValueError(f"orders were {shown(self.orders)}; on these sigmas {self.solver} has the orders {shown(table.orders)}.")
        return table

    # -- properties -----------------------------------------------------------------------------------------------

    @property
    def sigmas(self) -> Tensor:
        """The noise levels: a new float64 tensor [N + 1] on the CPU; all values are float32 numbers."""
        return torch.tensor(self.levels, dtype=torch.float64)

    @property
    def steps(self) -> int:
        """Number of steps N."""
        return len(self.orders)

    @property
    def nfe(self) -> int:
        """Model calls per sample."""
        return self._table.nfe

    @property
    def calibrated(self) -> bool:
        """Whether it has fitted coefficients, which stock samplers do not have."""
        return self.rows is not None

    def plain_sigmas(self) -> str:
        """The levels as text for stock nodes ("ManualSigmas"): comma-separated decimals without exponents, exact in float32.

        A calibrated recipe is more than its levels: with a stock sampler they give a different, usually worse image.
        """
        return ", ".join(np.format_float_positional(np.float32(level), trim="-") for level in self.levels)

    def infotext(self) -> dict[str, str]:
        """The entries for a host's infotext: "FewStep" for people, and "FewStep recipe" to restore the same table."""
        kind = "calibrated" if self.calibrated else f"order {max(self.orders)}"
        return {"FewStep": f"{self.solver} {kind} {self.nfe} NFE", "FewStep recipe": self.to_text()}

    def describe(self) -> str:
        """Everything except the rows, in readable lines."""
        facts = self.facts
        kind = f"calibrated, {len(self.rows)} fitted rows" if self.rows is not None else f"orders {' '.join(map(str, self.orders))}"
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        lines = [f"{self.solver}, {self.nfe} model calls in {self.steps} steps, {self.family} models, {kind}"]
        lines += [f"options    {options}"] if options else []
        lines.append(f"sigmas     {', '.join(f'{level:.5g}' for level in self.levels)}")
        constants = departure(self._table)
        lines += [f"constants  {constants}"] if self.rows is not None or not constants.exact else []
        fitted = [facts.model] if facts.model else []
        fitted += [f"identity {facts.model_identity}"] if facts.model_identity else []
        fitted += [f"{facts.prediction} prediction"] if facts.prediction != "unknown" else []
        fitted += [f"cfg {facts.cfg:g}"] if facts.cfg is not None else []
        fitted += ["x".join(map(str, facts.resolution))] if facts.resolution else []
        fitted += [f"{facts.seeds} seeds"] if facts.seeds else []
        lines += [f"fitted to  {', '.join(fitted)}"] if fitted else []
        if facts.error is not None:
            error = f"{facts.error:g}" + (f" ({facts.metric})" if facts.metric else "")
            if facts.stock_error is not None:
                stock = f" ({facts.stock})" if facts.stock else ""
                share = f", {facts.error / facts.stock_error:.2f} of it" if facts.stock_error else ""
                error += f"; best stock {facts.stock_error:g}{stock}{share}"
            lines.append(f"error      {error}")
        made = [f"FewStep {facts.fewstep_version}"] if facts.fewstep_version else []
        made += [facts.date] if facts.date else []
        lines += [f"made       {', '.join(made)}"] if made else []
        lines += [f"note       {facts.note}"] if facts.note else []
        lines += [f"{name:<10} {value}" for name, value in facts.extra.items()]
        return "\n".join(lines)

    def check_use(
        self,
        *,
        family: str | None = None,
        cfg: float | None = None,
        solver: str | None = None,
        prediction: str | None = None,
        resolution: tuple[int, ...] | None = None,
        model_identity: str | None = None,
        steps: int | None = None,
    ) -> list[str]:
        """Warnings about a use that differs from what the recipe was made for; see `use`.

        Each given value is compared with the recipe's; a value that the recipe does not have gives no warning.

        Returns
        -------
        list of str
            One sentence per warning.
        """
        return warnings_for_use(self, family, cfg, solver, prediction, resolution, model_identity, steps)

    # -- text and files --------------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """One line for chats and workflows: see `text`."""
        return written_text(self.document())

    @classmethod
    def from_text(cls, text: str) -> Recipe:
        """The recipe in a text; ValueError if it is damaged or not valid."""
        hint, document = parsed_text(text)
        recipe = cls.from_document(document)
        expected = hint_of(recipe.solver, recipe.nfe, recipe.family)
        if hint != expected:
            raise ValueError(f"The recipe text says {hint!r}, but contains {expected!r}. Get a new copy from its source.")
        return recipe

    def to_json(self) -> str:
        """The file form: see `document`."""
        return written(self.document())

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """The recipe in a file's content; ValueError if it is not valid."""
        if not isinstance(text, str):
            raise ValueError(f"The recipe was {type(text).__name__}; it must be the text of a recipe file.")
        if len(text) > LARGEST_FILE:
            raise ValueError(f"The recipe has {len(text)} characters; no recipe has more than {LARGEST_FILE}.")
        return cls.from_document(parsed_json(text.removeprefix("\ufeff"), "The recipe"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file form, creating folders as needed. After a crash or with a full disk, the old file, if any, remains.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        replace_file(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Recipe:
        """The recipe in a file, in the file form or the text form; ValueError for anything else, including a missing file."""
        text = file_text(Path(path))
        if looks_like_text(text):
            return cls.from_text(text)
        return cls.from_json(text)

    def document(self) -> dict[str, Any]:
        """The file form as plain values."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "solver": self.solver,
            "family": self.family,
            "nfe": self.nfe,
            "algorithm_version": self.algorithm_version,
            "orders": list(self.orders),
            "options": {name: list(value) if isinstance(value, tuple) else value for name, value in self.options.items()},
            "sigmas": [shortest(level) for level in self.levels],
            "facts": self.facts.known(),
        }
        if self.rows is not None:
            document["rows"] = [row_document(row) for row in self.rows]
        return document

    @classmethod
    def from_document(cls, given: Any) -> Recipe:
        """The recipe in a parsed file; ValueError if it is not valid."""
        document = checked_document(given)
        rows = None
        if "rows" in document:
            rows = tuple(row_from(row, index) for index, row in enumerate(document["rows"]))
        recipe = cls(
            document["solver"],
            document["family"],
            tuple(document["sigmas"]),
            tuple(document["orders"]),
            document.get("options", {}),
            rows,
            document["algorithm_version"],
            Facts.from_known(document.get("facts", {})),
        )
        if "nfe" in document and whole(document["nfe"], "nfe", 1) != recipe.nfe:
            raise ValueError(f"nfe was {document['nfe']}; this recipe makes {recipe.nfe} model calls. Correct the number or remove it.")
        return recipe

    def __str__(self) -> str:
        return self.describe()


def _built(solver: str, family: str, levels: tuple[float, ...], orders: tuple[int, ...], options: Mapping[str, Any]) -> SolverTable:
    """`build_table` with an order for each step; ValueError also where an option's value is of a kind it stumbles over."""
    order = order_per_step(solver, orders)
    if "t_of" in options or {"order", "sigmas", "family", "solver"} & set(options):
        raise ValueError(f"options were {shown(dict(options))}; t_of and what the recipe has fields for cannot be among them.")
    try:
        with np.errstate(all="ignore"):  # numbers that are not finite are refused by the table
            return build_table(solver, levels, family, order, **dict(options))
    except (TypeError, ArithmeticError, np.linalg.LinAlgError) as error:
        raise ValueError(f"{solver} cannot be built with the options {shown(dict(options))} on these sigmas: {error}.") from error


def _rebuildable(table: SolverTable, only_orders: bool = False) -> bool:
    if table.algorithm_version != ALGORITHM_VERSION:
        return False
    try:
        same = _built(table.solver, table.family, table.sigmas, table.orders, plain_options(table.options))
    except ValueError:
        return False
    return same.orders == table.orders and (only_orders or same.rows == table.rows)
