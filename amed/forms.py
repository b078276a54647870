"""The forms of an AMED step: which solver it is combined with.

An AMED step goes from one time stamp to the next through an intermediate time that is chosen for it, and calls the model at both
(arXiv 2312.00094). Forms differ in how they use the two outputs. With the intermediate time at the geometric mean, c = 1 and a = 1, each
form reduces to a solver of this package:

    form        update                                                              reduces to
    amed        the whole step with the slope at the intermediate time              DPM-Solver-2 on the stamps
    dpm2        the whole step with both slopes, weighted by r                      DPM-Solver-2 on the stamps
    euler       Euler on both half steps                                            Euler on stamps and means
    ipndm1..4   Adams-Bashforth on both half steps                                  iPNDM on stamps and means
    dpmpp1..3   DPM-Solver++ multistep on both half steps                           DPM-Solver++ on stamps and means
    unipc1..3   UniPC (bh2) on both half steps, including the corrector             UniPC on stamps and means
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["step", "slope", "data"]


@dataclass(frozen=True)
class Form:
    """One way to use the two outputs of an AMED step.

    Attributes
    ----------
    name : str
        Key in `FORMS`.
    title : str
        Name for people.
    solver : str
        The plain solver, a name in `solvers.SOLVERS`.
    order : int
        Highest order.
    kind : {"step", "slope", "data"}
        "step" is a single-step form on slopes. "slope" and "data" keep a history over half steps: of slopes dx/dsigma, or of
        the model's outputs D.
    corrector : bool
        Whether a half step is redone after its end has been evaluated (UniPC).
    """

    name: str
    title: str
    solver: str
    order: int
    kind: Kind
    corrector: bool = False

    @property
    def history(self) -> int:
        """Number of evaluations to keep."""
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
    """The entry of `FORMS`; a ValueError for an unknown name lists all of them."""
    if not isinstance(name, str) or name not in FORMS:
        raise ValueError(f"form was {name!r}; it must be one of {', '.join(FORMS)}.")
    return FORMS[name]
