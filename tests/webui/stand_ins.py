"""The shapes of the hosts' registration interfaces, as small as they can be: what is in them is what the hosts themselves define."""

from __future__ import annotations

import dataclasses
import functools
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import torch

SamplerData = namedtuple("SamplerData", ["name", "constructor", "aliases", "options"])


@dataclasses.dataclass
class Scheduler:
    """AUTOMATIC1111 1.10, Forge, reForge."""

    name: str
    label: str
    function: Any
    default_rho: float = -1
    need_inner_model: bool = False
    aliases: Any = None


@dataclasses.dataclass
class SchedulerOfAFork:
    """With a field between the others, so that positions mean something else."""

    name: str
    label: str
    function: Any
    category: str = ""
    default_rho: float = -1
    need_inner_model: bool = False
    aliases: Any = None


def schedulers_module(scheduler: type = Scheduler) -> Any:
    entries = [scheduler(name="automatic", label="Automatic", function=None), scheduler(name="karras", label="Karras", function=print)]
    known = {**{e.name: e for e in entries}, **{e.label: e for e in entries}}
    return SimpleNamespace(Scheduler=scheduler, schedulers=entries, schedulers_map=known)


class KDiffusionSampler:
    def __init__(self, funcname: Any, sd_model: Any, options: Any = None) -> None:
        self.func, self.model = funcname, sd_model


def samplers_module(schedulers: Any = None) -> tuple[Any, Any, Any]:
    """`sd_samplers`, `sd_samplers_common`, `sd_samplers_kdiffusion`; names are read as the host reads them."""
    kdiffusion = SimpleNamespace(KDiffusionSampler=KDiffusionSampler, sampler_extra_params={"sample_euler": ["s_churn"]})
    common = SimpleNamespace(SamplerData=SamplerData)
    entries = [SamplerData("DPM++ 2M", None, ["k_dpmpp_2m"], {"scheduler": "karras"}), SamplerData("UniPC", None, ["unipc"], {})]
    module = SimpleNamespace(all_samplers=entries, all_samplers_map={e.name: e for e in entries}, samplers_map={}, set_calls=0)

    def set_samplers() -> None:
        module.set_calls += 1
        module.samplers_map.clear()
        for entry in module.all_samplers:
            for name in (entry.name, *entry.aliases):
                module.samplers_map[name.lower()] = entry.name

    module.set_samplers = set_samplers
    if schedulers is not None:

        @functools.cache
        def get_sampler_and_scheduler(sampler_name: str, scheduler_name: str) -> tuple[str, str]:
            found, name = schedulers.schedulers_map.get(scheduler_name, schedulers.schedulers[0]), sampler_name
            for scheduler in schedulers.schedulers:
                for token in (scheduler.label, scheduler.name, *(scheduler.aliases or [])):
                    if name.lower().endswith(" " + token.lower()):  # as the fork that ignores the case
                        found, name = scheduler, name[: -len(token) - 1]
                        break
            return module.all_samplers_map.get(name, module.all_samplers[0]).name, found.label

        module.get_sampler_and_scheduler = get_sampler_and_scheduler
    return module, common, kdiffusion


def old_options() -> Any:
    return SimpleNamespace(
        k_sched_type="Automatic",
        data_labels={"k_sched_type": SimpleNamespace(component_args={"choices": ["Automatic", "karras"]})},
    )


# --- Denoisers --------------------------------------------------------------------------------------------------------


def alphas_cumprod() -> torch.Tensor:
    """Stable Diffusion's, in float32 as in its checkpoints."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class Linker(torch.nn.Module):
    """Forge: the levels are the predictor's, and `sigma_min`, `sigma_max` fail."""

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor = predictor

    @property
    def sigmas(self) -> torch.Tensor:
        return self.predictor.sigmas

    @property
    def sigma_min(self) -> Any:
        return self.predictor.sigma_min()

    @property
    def sigma_max(self) -> Any:
        return self.predictor.sigma_max()


class Predictor(torch.nn.Module):
    def __init__(self, sigmas: torch.Tensor, prediction_type: str) -> None:
        super().__init__()
        self.prediction_type = prediction_type
        self.register_buffer("sigmas", sigmas)

    @property
    def sigma_min(self) -> torch.Tensor:
        return self.sigmas[0]

    @property
    def sigma_max(self) -> torch.Tensor:
        return self.sigmas[-1]


class PredictionContinuousEDM(Predictor):
    pass


def flow_table(shift: float, count: int = 1000) -> torch.Tensor:
    t = torch.arange(1, count + 1) / count
    return shift * t / (1 + (shift - 1) * t)
