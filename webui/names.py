"""Names of the entries in the host's menus, and what stands behind each.

The host takes a trailing " <schedule label, name or alias>" off a sampler's name and reads it as the schedule (old pictures say
"DPM++ 2M Karras"), in some hosts whatever the case. So no sampler ends in such a token, no schedule is called like a bare solver, and the
solver that hosts have themselves, UniPC, is called UPC here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Scalar = bool | int | str


@dataclass(frozen=True)
class ScheduleEntry:
    """One entry among the schedule types.

    name, label : of the host's list; infotext has the label.
    solver, order : whose optimized list it is; empty for the others.
    baseline : key of `schedules.BASELINES`; empty for the others.
    An entry with neither is the list of the panel's recipe.
    """

    name: str
    label: str
    solver: str = ""
    order: int = 3
    baseline: str = ""


@dataclass(frozen=True)
class SamplerEntry:
    """One entry among the sampling methods.

    solver, order : of `build_table`; order None leaves it to the solver and the guidance.
    alias : second name in the host's list.
    host : options that the host reads: the schedule for "Automatic", Brownian noise. Scalars only (they go through the API).
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
    """FewStep's sampler of that name or alias; None for any other."""
    return next((entry for entry in SAMPLERS if name in (entry.name, entry.alias)), None)


def schedule_entry(name: str | None) -> ScheduleEntry | None:
    """FewStep's schedule of that label or name; None for any other."""
    return next((entry for entry in SCHEDULES if name in (entry.label, entry.name)), None)


def entries_of(sampler: str | None, schedule: str | None) -> tuple[SamplerEntry | None, ScheduleEntry | None]:
    """FewStep's entries behind the names of a pass, "Automatic" resolved as the host does; None for what is the host's own."""
    own = sampler_entry(sampler)
    if schedule in (None, "Automatic", "automatic") and own is not None:
        schedule = str(own.host["scheduler"])
    return own, schedule_entry(schedule)
