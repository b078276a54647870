"""The base solvers that take an AMED step, by name.

An AMED step goes from one time stamp to the next through an intermediate time of its own choice and calls the model at both
(arXiv 2312.00094). What differs between forms is how the two answers are used; with the intermediate time in the geometric middle, c = 1
and a = 1 each form is a solver of this package:

    form        update                                                              is then
    amed        the slope at the intermediate time carries the whole step           DPM-Solver-2 on the stamps
    dpm2        both slopes carry the whole step, weighted by r                     DPM-Solver-2 on the stamps
    euler       Euler on both half steps                                            Euler on stamps and middles
    ipndm1..4   Adams-Bashforth on both half steps                                  iPNDM on stamps and middles
    dpmpp1..3   DPM-Solver++ multistep on both half steps                           DPM-Solver++ on stamps and middles
    unipc1..3   UniPC (bh2) on both half steps, corrector included                  UniPC on stamps and middles
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["step", "slope", "data"]


@dataclass(frozen=True)
class Form:
    """One way to use the two answers of an AMED step.

    Attributes
    ----------
    name : key in `FORMS`. title : for people.
    solver : the plain solver, a name in `solvers.SOLVERS`.
    order : highest order.
    kind : "step" starts every step afresh, on slopes; "slope" and "data" keep a history over half steps, of slopes dx/dsigma or of the
        model's outputs D.
    corrector : whether a half step is redone once its end was evaluated (UniPC).
    """

    name: str
    title: str
    solver: str
    order: int
    kind: Kind
    corrector: bool = False

    @property
    def history(self) -> int:
        """Evaluations that must be kept."""
        return 2 if self.kind == "step" else self.order + self.corrector


_ALL = (
    Form("amed", "AMED-Solver", "dpm_2", 2, "step"),
    Form("dpm2", "AMED with DPM-Solver-2", "dpm_2", 2, "step"),
    Form("euler", "AMED with Euler", "euler", 1, "slope"),
    *(Form(f"ipndm{k}", f"AMED with iPNDM, order {k}", "ipndm", k, "slope") for k in (1, 2, 3, 4)),
    *(Form(f"dpmpp{k}", f"AMED with DPM-Solver++ {k}M", "dpmpp_multistep", k, "data") for k in (1, 2, 3)),
    *(Form(f"unipc{k}", f"AMED with UniPC, order {k}", "unipc", k, "data", corrector=True) for k in (1, 2, 3)),
)
FORMS: Mapping[str, Form] = MappingProxyType({form.name: form for form in _ALL})
"""All forms by name."""


def form_named(name: object) -> Form:
    """The entry of `FORMS`; ValueError naming all of them otherwise."""
    if not isinstance(name, str) or name not in FORMS:
        raise ValueError(f"form was {name!r}; it must be one of {', '.join(FORMS)}.")
    return FORMS[name]
