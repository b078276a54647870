"""Names of the entries in the host's menus, and what each of them is.

The host removes a trailing " <schedule label, name or alias>" from a sampler's name and reads it as the schedule (old pictures say
"DPM++ 2M Karras"); some hosts ignore case. So no sampler's name ends in such a token, and no schedule is named like a solver. UniPC, which
hosts have themselves, is called UPC here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Scalar = bool | int | str


@dataclass(frozen=True)
class ScheduleEntry:
    """One entry among the schedule types; with neither solver nor baseline it is the list of the panel's recipe.

    Attributes
    ----------
    name, label : str
        Both are in the host's list; infotext has the label.
    solver : str
        The solver of an optimized list, or "".
    order : int
        Its order.
    baseline : str
        Key of `schedules.BASELINES`, or "".
    lower_first_call : bool
        Whether the optimized list may begin with a step without a call, which only FewStep's samplers know.
    """

    name: str
    label: str
    solver: str = ""
    order: int = 3
    baseline: str = ""
    lower_first_call: bool = False


@dataclass(frozen=True)
class SamplerEntry:
    """One entry among the sampling methods.

    Attributes
    ----------
    name, alias : str
        Both are in the host's list.
    solver : str
        Name for `build_table`, or "".
    order : int or None
        Order for `build_table`; None leaves it to the solver and the guidance.
    host : mapping
        Options that the host reads: the schedule for "Automatic", Brownian noise. Scalars only (they go through the API).
    """

    name: str
    solver: str
    order: int | None
    alias: str
    host: Mapping[str, Scalar] = field(default_factory=lambda: MappingProxyType({"scheduler": "fewstep"}), hash=False)


RECIPE_SCHEDULE = ScheduleEntry("fewstep_recipe", "FewStep recipe")

SCHEDULES: tuple[ScheduleEntry, ...] = (
    ScheduleEntry("fewstep", "FewStep", "unipc", 3),
    ScheduleEntry("fewstep_for_upc", "FewStep for UPC", "unipc", 3),
    ScheduleEntry("fewstep_for_dpmpp_2m", "FewStep for DPM++ 2M", "dpmpp_2m", 2),
    ScheduleEntry("fewstep_for_dpmpp_3m", "FewStep for DPM++ 3M", "dpmpp_3m", 3),
    ScheduleEntry("fewstep_for_deis", "FewStep for DEIS", "deis", 3),
    ScheduleEntry("fewstep_for_ipndm", "FewStep for iPNDM", "ipndm", 3),
    ScheduleEntry("fewstep_jump", "FewStep lower start", "unipc", 3, lower_first_call=True),
    RECIPE_SCHEDULE,
    ScheduleEntry("fewstep_uniform_lambda", "FewStep uniform lambda", baseline="uniform_lambda"),
    ScheduleEntry("fewstep_uniform_time", "FewStep uniform time", baseline="uniform_t"),
    ScheduleEntry("fewstep_quadratic_time", "FewStep quadratic time", baseline="quadratic_t"),
    ScheduleEntry("fewstep_linear_quadratic", "FewStep linear quadratic", baseline="linear_quadratic"),
    ScheduleEntry("fewstep_ays", "FewStep AYS", baseline="ays"),
    ScheduleEntry("fewstep_gits", "FewStep GITS", baseline="gits"),
    ScheduleEntry("fewstep_oss", "FewStep OptimalSteps", baseline="oss"),
)

CALIBRATED = SamplerEntry("FewStep Calibrated", "", None, "fewstep_calibrated", MappingProxyType({"scheduler": RECIPE_SCHEDULE.name}))
AMED = SamplerEntry("FewStep AMED", "", None, "fewstep_amed")

SAMPLERS: tuple[SamplerEntry, ...] = (
    SamplerEntry("FewStep DPM++ 2M", "dpmpp_multistep", 2, "fewstep_dpmpp_2m"),
    SamplerEntry("FewStep DPM++ 3M", "dpmpp_multistep", 3, "fewstep_dpmpp_3m"),
    SamplerEntry("FewStep UPC 2", "unipc", 2, "fewstep_upc_2"),
    SamplerEntry("FewStep UPC 3", "unipc", 3, "fewstep_upc_3"),
    SamplerEntry("FewStep DEIS", "deis", None, "fewstep_deis"),
    SamplerEntry("FewStep iPNDM", "ipndm", None, "fewstep_ipndm"),
    SamplerEntry(
        "FewStep SDE 2M", "dpmpp_2m_sde", None, "fewstep_sde_2m", MappingProxyType({"scheduler": "fewstep", "brownian_noise": True})
    ),
    CALIBRATED,
    AMED,
)


def sampler_entry(name: str | None) -> SamplerEntry | None:
    """FewStep's sampler with this name or alias, or None."""
    return next((entry for entry in SAMPLERS if name in (entry.name, entry.alias)), None)


def schedule_entry(name: str | None) -> ScheduleEntry | None:
    """FewStep's schedule with this label or name, or None."""
    return next((entry for entry in SCHEDULES if name in (entry.label, entry.name)), None)


def entries_of(sampler: str | None, schedule: str | None) -> tuple[SamplerEntry | None, ScheduleEntry | None]:
    """FewStep's entries for the names of a pass, with "Automatic" resolved as in the host; None for the host's own entries."""
    own = sampler_entry(sampler)
    if schedule in (None, "Automatic", "automatic") and own is not None:
        schedule = str(own.host["scheduler"])
    return own, schedule_entry(schedule)
