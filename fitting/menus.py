"""Under which names a candidate is found in the hosts' menus of samplers and schedulers."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .candidates import Candidate


@dataclass(frozen=True)
class Menus:
    """The names in one host's menus.

    Attributes
    ----------
    host : str
        Name of the host.
    samplers : mapping
        By solver and order.
    schedulers : mapping
        By schedule.
    """

    host: str
    samplers: Mapping[tuple[str, int | None], str]
    schedulers: Mapping[str, str]

    def choice(self, candidate: Candidate) -> tuple[str, str] | None:
        """Sampler and scheduler to choose; None where a menu does not have them."""
        sampler = self.samplers.get((candidate.solver, candidate.order))
        scheduler = self.schedulers.get(candidate.schedule)
        return (sampler, scheduler) if sampler and scheduler and candidate.zero else None


COMFYUI = Menus(
    "ComfyUI",
    {
        ("euler", None): "euler", ("heun", None): "heun", ("dpm_2", None): "dpm_2", ("dpmpp_2m", None): "dpmpp_2m",
        ("ipndm", 4): "ipndm", ("ipndm_v", 4): "ipndm_v", ("deis", 3): "deis", ("res_multistep", None): "res_multistep",
        ("gradient_estimation", None): "gradient_estimation", ("unipc", 3): "fewstep_unipc", ("ipndm", 3): "fewstep_ipndm",
        ("dpmpp_multistep", 3): "fewstep_dpmpp_3m",
    },
    {
        "karras": "karras", "exponential": "exponential", "sgm_uniform": "sgm_uniform", "simple": "simple", "beta": "beta",
        "kl_optimal": "kl_optimal", "optimized": "fewstep",
    },
)  # fmt: skip

WEBUI = Menus(
    "WebUI",
    {
        ("euler", None): "Euler", ("heun", None): "Heun", ("dpm_2", None): "DPM2", ("dpmpp_2m", None): "DPM++ 2M",
        ("unipc", 2): "FewStep UPC 2", ("unipc", 3): "FewStep UPC 3", ("deis", 3): "FewStep DEIS", ("ipndm", 3): "FewStep iPNDM",
        ("dpmpp_multistep", 3): "FewStep DPM++ 3M",
    },
    {
        "karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform", "simple": "Simple",
        "uniform_lambda": "FewStep uniform lambda", "ays": "FewStep AYS", "gits": "FewStep GITS", "optimized": "FewStep",
    },
)  # fmt: skip
"""Without Beta and KL Optimal: A1111's lists of these names are others (docs/faq.md)."""


def in_menus(candidate: Candidate) -> bool:
    """Whether a host has it in its menus."""
    return any(menus.choice(candidate) is not None for menus in (COMFYUI, WEBUI))
