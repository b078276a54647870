"""FewStep's entries in the host's lists of schedules and samplers.

Scripts run again at every reload of the user interface, while the host's lists survive: entries are replaced by name, so that there is one
of each and it calls the code that is loaded now. Hosts from the time before `modules.sd_schedulers` (A1111 before 1.9, Forge Classic) keep
functions by label, and the choice of one is a setting.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

from .names import SAMPLERS, SCHEDULES, SamplerEntry, ScheduleEntry
from .samplers import sampler_function
from .schedules import schedule_function

_logger = logging.getLogger("fewstep")


def register_schedules(schedulers_module: Any, entries: Iterable[ScheduleEntry] = SCHEDULES) -> None:
    """Put the entries into `modules.sd_schedulers`: `schedulers`, a list, and `schedulers_map`, by name and by label."""
    for entry in entries:
        # By keyword: a fork has a field between the others.
        scheduler = schedulers_module.Scheduler(
            name=entry.name, label=entry.label, function=schedule_function(entry), default_rho=-1, need_inner_model=True, aliases=None
        )
        _replace(schedulers_module.schedulers, scheduler, lambda other, e=entry: other.name == e.name or other.label == e.label)
        schedulers_module.schedulers_map[entry.name] = scheduler
        schedulers_module.schedulers_map[entry.label] = scheduler


def register_old_schedules(kdiffusion_module: Any, options: Any, loaded_model: Callable[[], Any]) -> None:
    """Put the entries where hosts without `modules.sd_schedulers` have them: functions by label, and the setting's choices.

    Parameters
    ----------
    options : object
        The host's `shared.opts`.
    loaded_model : callable
        Gives the model, because such hosts pass none to the function.
    """
    choices = options.data_labels["k_sched_type"].component_args["choices"]
    for entry in SCHEDULES:
        kdiffusion_module.k_diffusion_scheduler[entry.label] = schedule_function(entry, loaded_model)
        if entry.label not in choices:
            choices.append(entry.label)


def register_samplers(
    samplers_module: Any, common_module: Any, kdiffusion_module: Any, entries: Iterable[SamplerEntry] = SAMPLERS
) -> None:
    """Put the entries into `modules.sd_samplers`: `all_samplers`, `all_samplers_map`, and what `set_samplers` makes of them."""
    sampler_class = kdiffusion_module.KDiffusionSampler
    extra = getattr(kdiffusion_module, "sampler_extra_params", {})
    for known in [key for key in extra if getattr(key, "is_fewstep", False)]:
        del extra[known]  # functions of the code that was loaded before
    for entry in entries:
        function = sampler_function(entry)
        if entry.host.get("brownian_noise"):
            extra[function] = ["s_noise"]

        def constructor(model: Any, function: Any = function) -> Any:
            return sampler_class(function, model)

        data = common_module.SamplerData(entry.name, constructor, [entry.alias], dict(entry.host))
        _replace(samplers_module.all_samplers, data, lambda other, e=entry: other.name == e.name)
        samplers_module.all_samplers_map[entry.name] = data
    samplers_module.set_samplers()
    forget_names(samplers_module)


def forget_names(samplers_module: Any) -> None:
    """What the host remembers of the meaning of names was found before there were ours."""
    for name in ("get_sampler_and_scheduler",):
        clear = getattr(getattr(samplers_module, name, None), "cache_clear", None)
        if clear is not None:
            clear()


def _replace(entries: list[Any], new: Any, same: Callable[[Any], bool]) -> None:
    places = [index for index, other in enumerate(entries) if same(other)]
    if not places:
        entries.append(new)
        return
    entries[places[0]] = new
    for index in reversed(places[1:]):
        del entries[index]
