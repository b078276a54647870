"""The deterministic samplers of k-diffusion, diffusers and ComfyUI as functions of one kind: run(model, x, sigmas, family) -> x.

All are other people's code as installed. Samplers that add noise are run with it turned off where their own arguments allow that
(eta 0, tau 0), the ODE form that hosts offer through the same arguments. Left out: samplers that change the guidance (cfg_pp),
that are meant for distilled models (lcm), and dpm_adaptive, whose number of calls cannot be asked for.

diffusers' schedulers are given the list of noise levels directly. Those of VP models see x/sqrt(1 + sigma^2); flow models are passed to
those that know flow sigmas, and to those whose step is the plain ODE dx/dsigma = (x - D)/sigma, which flow models share.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.demo.kdiffusion import k_diffusion
from fewstep.schedules import BASELINES, FAMILIES, NoiseSchedule, baseline_sigmas

Denoiser = Callable[[Tensor, Tensor], Tensor]
Run = Callable[[Denoiser, Tensor, Tensor, str], Tensor]
FORMS = {"zero": "", "to-min": ", down to sigma_min, then 0", "no-zero": ", ending at sigma_min"}
"""Where lists end: as published (0), moved so that sigma_min comes before the 0, and at sigma_min without a 0."""


@dataclass(frozen=True)
class StockSampler:
    """name : host and sampler. run : see above. families : where it has a meaning. own_steps : it places its steps itself."""

    name: str
    run: Run
    families: tuple[str, ...] = FAMILIES
    own_steps: bool = False


def sigma_list(ns: NoiseSchedule, schedule: str, form: str, steps: int) -> Tensor | None:
    """float64 [steps + 1], or None where the schedule has no such list of its own."""
    if ns.family not in BASELINES[schedule].families:
        return None
    try:
        levels = baseline_sigmas(schedule, ns, steps)
        ends_at_sigma_min = bool(levels[-2] <= ns.sigma_min * (1 + 1e-6)) and steps > 1
        if form == "zero":
            return levels
        if form == "to-min":
            if ends_at_sigma_min or steps < 3:
                return None
            shorter = baseline_sigmas(schedule, ns, steps - 1)
            shorter[-1] = ns.sigma_min
            return torch.cat([shorter, shorter.new_zeros(1)])
        if ends_at_sigma_min:
            return baseline_sigmas(schedule, ns, steps + 1)[:-1]
        levels[-1] = ns.sigma_min
        return levels
    except ValueError:  # a published table for another range of noise levels
        return None


def all_samplers(comfyui: Path | None) -> tuple[list[StockSampler], dict[str, str]]:
    """Samplers of every host at hand, and of each host a line that says what was used, or why it is missing."""
    found, notes = [], {}
    for host, load in (
        ("k-diffusion", k_diffusion_samplers), ("diffusers", diffusers_samplers), ("ComfyUI", lambda: comfyui_samplers(comfyui)),
    ):  # fmt: skip
        try:
            samplers, notes[host] = load()
            found += samplers
        except (ImportError, OSError) as problem:
            notes[host] = f"missing ({problem})"
    return found, notes


def _silent(*_: object) -> float:
    """Noise of a sampler that is asked for none."""
    return 0.0


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


# --- k-diffusion -------------------------------------------------------------------------------------------------------------------


def _named(functions: Any, name: str, **options: Any) -> Run:
    function = getattr(functions, f"sample_{name}")

    def run(model: Denoiser, x: Tensor, sigmas: Tensor, family: str) -> Tensor:
        return function(model, x, sigmas, disable=True, **options)

    return run


def _fast(functions: Any) -> Run:
    def run(model: Denoiser, x: Tensor, sigmas: Tensor, family: str) -> Tensor:
        return functions.sample_dpm_fast(model, x, sigmas[-1], sigmas[0], len(sigmas) - 1, disable=True)

    return run


_WITHOUT_NOISE = {"eta": 0.0, "noise_sampler": _silent}
_K_DIFFUSION: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("euler", {}),
    "heun": ("heun", {}),
    "dpm_2": ("dpm_2", {}),
    "lms 2": ("lms", {"order": 2}),
    "lms 3": ("lms", {"order": 3}),
    "lms": ("lms", {}),
    "dpmpp_2m": ("dpmpp_2m", {}),
    "dpmpp_2s_ancestral, eta 0": ("dpmpp_2s_ancestral", _WITHOUT_NOISE),
    "dpmpp_sde, eta 0": ("dpmpp_sde", _WITHOUT_NOISE),
    "dpmpp_2m_sde, eta 0": ("dpmpp_2m_sde", _WITHOUT_NOISE),
    "dpmpp_2m_sde heun, eta 0": ("dpmpp_2m_sde", {**_WITHOUT_NOISE, "solver_type": "heun"}),
    "dpmpp_3m_sde, eta 0": ("dpmpp_3m_sde", _WITHOUT_NOISE),
}


def k_diffusion_samplers() -> tuple[list[StockSampler], str]:
    """k-diffusion's `sampling` module."""
    functions = k_diffusion.sampling
    found = [StockSampler(f"k-diffusion {label}", _named(functions, name, **options)) for label, (name, options) in _K_DIFFUSION.items()]
    found.append(StockSampler("k-diffusion dpm_fast", _fast(functions), own_steps=True))
    return found, f"k-diffusion {_version('k-diffusion')}, {len(found)} samplers"


# --- ComfyUI -----------------------------------------------------------------------------------------------------------------------

_COMFYUI: dict[str, tuple[str, dict[str, Any]]] = {
    **_K_DIFFUSION,
    "heunpp2": ("heunpp2", {}),
    "ipndm": ("ipndm", {}),
    "ipndm, max_order 3": ("ipndm", {"max_order": 3}),
    "ipndm, max_order 2": ("ipndm", {"max_order": 2}),
    "ipndm_v": ("ipndm_v", {}),
    "ipndm_v, max_order 3": ("ipndm_v", {"max_order": 3}),
    "ipndm_v, max_order 2": ("ipndm_v", {"max_order": 2}),
    "deis": ("deis", {}),
    "deis, max_order 2": ("deis", {"max_order": 2}),
    "res_multistep": ("res_multistep", {"noise_sampler": _silent}),
    "gradient_estimation": ("gradient_estimation", {}),
    "er_sde, ODE": ("er_sde", {"s_noise": 0.0, "noise_scaler": lambda x: x, "noise_sampler": _silent}),
    "er_sde, ODE, max_stage 2": ("er_sde", {"s_noise": 0.0, "noise_scaler": lambda x: x, "noise_sampler": _silent, "max_stage": 2}),
    "seeds_2, eta 0": ("seeds_2", _WITHOUT_NOISE),
    "seeds_3, eta 0": ("seeds_3", _WITHOUT_NOISE),
    "sa_solver, tau 0": ("sa_solver", {"tau_func": lambda sigma: 0.0, "noise_sampler": _silent}),
    "sa_solver, tau 0, orders 2": (
        "sa_solver", {"tau_func": lambda sigma: 0.0, "noise_sampler": _silent, "predictor_order": 2, "corrector_order": 2},
    ),
    "sa_solver_pece, tau 0": ("sa_solver_pece", {"tau_func": lambda sigma: 0.0, "noise_sampler": _silent}),
}  # fmt: skip


class _InComfyUI:
    """The model as ComfyUI's samplers see it: they look up what kind of noise levels it has."""

    def __init__(self, model: Denoiser, sampling: Any) -> None:
        self.model = model
        patcher = SimpleNamespace(get_model_object=lambda name: sampling)
        innermost = SimpleNamespace(model_sampling=sampling, model_patcher=patcher)
        self.inner_model = SimpleNamespace(model_sampling=sampling, model_patcher=patcher, inner_model=innermost)

    def __call__(self, x: Tensor, sigma: Tensor, **_: object) -> Tensor:
        return self.model(x, sigma)


def comfyui_samplers(folder: Path | None) -> tuple[list[StockSampler], str]:
    """Samplers of the ComfyUI checkout at `folder`; packages that it needs may lie in `packages` beside it."""
    if folder is None or not (folder / "comfy" / "k_diffusion" / "sampling.py").is_file():
        raise OSError("no checkout was given or found; `python install.py --test` puts one where this benchmark looks, --comfyui names one")
    sys.path += [str(folder), str(folder.parent / "packages")]  # last: what is installed comes first
    importlib.import_module("comfy.cli_args").args.cpu = True  # it only combines tensors here, the model is not its own
    functions = importlib.import_module("comfy.k_diffusion.sampling")
    uni_pc = importlib.import_module("comfy.extra_samplers.uni_pc")
    kinds = importlib.import_module("comfy.model_sampling")
    edition = importlib.import_module("comfyui_version").__version__

    class Flow(kinds.CONST):
        def percent_to_sigma(self, percent: float) -> float:
            return 1.0 - percent

    class VarianceExploding(kinds.EPS):
        def percent_to_sigma(self, percent: float) -> float:
            return 1.0 - percent  # only asked for where noise is to be added

    samplings = {"flow": Flow(), "vp": VarianceExploding(), "edm": VarianceExploding()}

    def inside(run: Run) -> Run:
        return lambda model, x, sigmas, family: run(_InComfyUI(model, samplings[family]), x, sigmas, family)

    def uni_pc_run(variant: str) -> Run:
        # it writes into the list that it is given
        return lambda model, x, sigmas, family: uni_pc.sample_unipc(model, x, sigmas.clone(), {}, disable=True, variant=variant)

    found = [StockSampler(f"ComfyUI {label}", inside(_named(functions, name, **options))) for label, (name, options) in _COMFYUI.items()]
    found += [StockSampler(f"ComfyUI uni_pc{label}", inside(uni_pc_run(variant))) for label, variant in (("", "bh1"), ("_bh2", "bh2"))]
    return found, f"ComfyUI {edition}, {len(found)} samplers"


# --- diffusers ---------------------------------------------------------------------------------------------------------------------


def _with_flow_sigmas(kind: str, **options: Any) -> Run:
    """Schedulers that compute from `sigmas`: VP variables, or flow variables with flow sigmas."""

    def run(model: Denoiser, x: Tensor, sigmas: Tensor, family: str) -> Tensor:
        import diffusers

        steps, flow = len(sigmas) - 1, family == "flow"
        end = {"final_sigmas_type": "zero" if sigmas[-1] == 0 else "sigma_min"} if kind.startswith("DPMSolver") else {}
        scheduler = getattr(diffusers, kind)(prediction_type="sample", use_flow_sigmas=flow, **end, **options)
        scheduler.set_timesteps(max(steps, 2))
        scheduler.sigmas = sigmas.cpu()
        scheduler.timesteps = torch.arange(steps, 0, -1)
        scheduler.num_inference_steps = steps
        if kind == "DPMSolverSinglestepScheduler":
            scheduler.order_list = scheduler.get_order_list(steps)
        scale = torch.ones_like(sigmas) if flow else (1 + sigmas**2).rsqrt()
        for n, t in enumerate(scheduler.timesteps):
            denoised = model(x, sigmas[n].expand(len(x)))
            x = scheduler.step(denoised, t, x * scale[n], return_dict=False)[0] / scale[n + 1]
        return x

    return run


def _plain_ode(kind: str, **options: Any) -> Run:
    """Schedulers that step dx/dsigma in the host's own variables."""

    def run(model: Denoiser, x: Tensor, sigmas: Tensor, family: str) -> Tensor:
        import diffusers

        predicts_noise = kind == "KDPM2DiscreteScheduler"
        scheduler = getattr(diffusers, kind)(prediction_type="epsilon" if predicts_noise else "sample")
        levels, steps = sigmas.cpu(), len(sigmas) - 1
        scheduler.set_timesteps(max(steps, 2))
        at = levels[:-1]  # where the model is called
        if kind == "HeunDiscreteScheduler":
            levels = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
            at = levels[:-1]
        if predicts_noise:
            between = (levels[:-1] * levels[1:]).sqrt()
            steps_to_zero = bool(levels[-1] == 0)
            at = torch.stack([levels[:-1], between], dim=1).flatten()[: -1 if steps_to_zero else None]
            doubled = torch.cat([levels[:1], levels[1:-1].repeat_interleave(2), levels[-1:]])
            scheduler.sigmas_interpol = torch.cat([levels[:1], between.repeat_interleave(2)])[: len(doubled)]
            if steps_to_zero:
                scheduler.sigmas_interpol[-1] = 0.0
            levels = doubled
        scheduler.sigmas = levels
        scheduler.timesteps = torch.arange(float(len(at)), 0.0, -1.0)  # whole numbers are refused by Euler's
        scheduler.is_scale_input_called = True
        scheduler.set_begin_index(0)
        for n, t in enumerate(scheduler.timesteps):
            denoised = model(x, at[n].to(x.device).expand(len(x)))
            output = (x - denoised) / at[n] if predicts_noise else denoised
            x = scheduler.step(output, t, x, return_dict=False, **options)[0]
        return x

    return run


def _pndm(model: Denoiser, x: Tensor, sigmas: Tensor, family: str) -> Tensor:
    """PNDM without Runge-Kutta steps: its second call repeats the first step, so there is one call more than steps."""
    import diffusers

    steps = len(sigmas) - 1
    levels = sigmas.cpu().double()
    alphas_cumprod = 1 / (1 + levels.flip(0) ** 2)  # its timestep k is the level k steps before the end
    scheduler = diffusers.PNDMScheduler(num_train_timesteps=steps, skip_prk_steps=True)
    scheduler.set_timesteps(steps)
    scheduler.alphas_cumprod = alphas_cumprod[1:]  # timestep 0 is the last level but one; the end is its "final" value
    scheduler.final_alpha_cumprod = alphas_cumprod[0]
    scale = (1 + levels**2).rsqrt()
    order = [0, 1, 1, *range(2, steps)] if steps > 1 else [0]
    sample = x * float(scale[0])
    for n in order:
        ve = sample / float(scale[n])
        noise = (ve - model(ve, sigmas[n].expand(len(x)))) / sigmas[n]
        sample = scheduler.step_plms(noise, steps - 1 - n, sample, return_dict=False)[0]
    return (sample / float(scale[-1])).to(x.dtype)


def _ipndm(model: Denoiser, x: Tensor, sigmas: Tensor, family: str) -> Tensor:
    """IPNDM, whose levels are the sine and cosine of an angle and whose model predicts v."""
    import diffusers

    steps = len(sigmas) - 1
    scheduler = diffusers.IPNDMScheduler()
    scheduler.set_timesteps(steps)
    levels = sigmas.cpu()
    scheduler.alphas = (1 + levels**2).rsqrt()
    scheduler.betas = levels * scheduler.alphas
    scheduler.set_begin_index(0)
    scale = scheduler.alphas
    for n, t in enumerate(scheduler.timesteps):
        denoised = model(x, sigmas[n].expand(len(x)))
        noise = (x - denoised) / sigmas[n]
        v = scheduler.alphas[n] * noise - scheduler.betas[n] * denoised
        x = scheduler.step(v, t, x * scale[n], return_dict=False)[0] / scale[n + 1]
    return x


def diffusers_samplers() -> tuple[list[StockSampler], str]:
    """diffusers' schedulers."""
    import diffusers

    diffusers.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="diffusers")
    dpm, singlestep = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
    found = []
    for order in (2, 3):
        found.append(StockSampler(f"diffusers DPM++ multistep {order}", _with_flow_sigmas(dpm, solver_order=order)))
        kept = _with_flow_sigmas(dpm, solver_order=order, lower_order_final=False)
        found.append(StockSampler(f"diffusers DPM++ multistep {order}, last order kept", kept))
        noise = _with_flow_sigmas(dpm, solver_order=order, algorithm_type="dpmsolver")
        found.append(StockSampler(f"diffusers DPM multistep {order}", noise))
        found.append(StockSampler(f"diffusers DPM++ singlestep {order}", _with_flow_sigmas(singlestep, solver_order=order)))
        for variant in ("bh1", "bh2"):
            run = _with_flow_sigmas("UniPCMultistepScheduler", solver_order=order, solver_type=variant)
            found.append(StockSampler(f"diffusers UniPC {order} {variant}", run))
        found.append(StockSampler(f"diffusers DEIS {order}", _with_flow_sigmas("DEISMultistepScheduler", solver_order=order)))
        kept = _with_flow_sigmas("DEISMultistepScheduler", solver_order=order, lower_order_final=False)
        found.append(StockSampler(f"diffusers DEIS {order}, last order kept", kept))
    found.append(StockSampler("diffusers DPM++ multistep 2 heun", _with_flow_sigmas(dpm, solver_order=2, solver_type="heun")))
    silent = _with_flow_sigmas("SASolverScheduler", tau_func=lambda t: 0.0)
    found.append(StockSampler("diffusers SA-Solver, tau 0", silent))
    for kind in ("EulerDiscrete", "HeunDiscrete", "LMSDiscrete", "KDPM2Discrete"):
        found.append(StockSampler(f"diffusers {kind}", _plain_ode(f"{kind}Scheduler")))
    found.append(StockSampler("diffusers PNDM", _pndm, ("vp", "edm")))
    found.append(StockSampler("diffusers IPNDM", _ipndm, ("vp", "edm")))
    return found, f"diffusers {_version('diffusers')}, {len(found)} samplers"


# --- running them ------------------------------------------------------------------------------------------------------------------


class Unusable(RuntimeError):
    """A combination that gives no finite end points or takes more calls than it may."""


class CountedModel:
    """The model with every call counted, and repeated calls answered from memory.

    Many samplers make the same first steps. A call at a level (6 digits) and state (within `TOLERANCE` of sigma, at least of 1) that was
    seen before gets the answer it got then; it counts all the same.
    """

    TOLERANCE = 1e-5

    def __init__(self, model: Denoiser) -> None:
        self.model, self.calls, self.most, self.made = model, 0, 0, 0
        self._seen: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def begin(self, most: int) -> None:
        """Before a sampler is run that may take `most` calls."""
        self.calls, self.most = 0, most

    def forget(self, all_but: float) -> None:
        """Forget what is not at this level."""
        key = self._key(all_but)
        self._seen = {key: self._seen[key]} if key in self._seen else {}

    def __call__(self, x: Tensor, sigma: Tensor, **_: object) -> Tensor:
        self.calls += 1
        if self.calls > self.most:
            raise Unusable("more calls than allowed")
        level = float(sigma.reshape(-1)[0])
        seen = self._seen.setdefault(self._key(level), [])
        near = self.TOLERANCE * max(level, 1.0)
        for state, answer in seen:
            difference = float((x - state).abs().max())
            if difference <= near:
                return answer.clone()
        if not bool(x.isfinite().all()):
            raise Unusable("not finite")
        answer = self.model(x, sigma.reshape(-1).expand(len(x)).to(x.dtype))
        self.made += 1
        seen.append((x.clone(), answer))
        return answer.clone()

    @staticmethod
    def _key(level: float) -> str:
        return f"{level:.6g}"


@dataclass(frozen=True)
class Entry:
    """A sampler on a list of noise levels. calls : counted, of one sample."""

    sampler: StockSampler
    schedule: str
    form: str
    steps: int
    calls: int

    @property
    def name(self) -> str:
        """Readable, unique."""
        if self.sampler.own_steps:
            return f"{self.sampler.name}, its own steps"
        return f"{self.sampler.name} on {self.schedule}{FORMS[self.form]}"

    @property
    def list_key(self) -> tuple[str, str, int]:
        """Of the noise levels."""
        return self.schedule, self.form, self.steps

    def run(self, model: CountedModel, x: Tensor, ns: NoiseSchedule) -> Tensor:
        """End points; `Unusable` where they are not finite, or the calls are not `calls`."""
        sigmas = sigma_list(ns, self.schedule, self.form, self.steps)
        assert sigmas is not None
        model.begin(self.calls)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            end = self.sampler.run(model, x, sigmas.to(device=x.device, dtype=torch.float32), ns.family)
        if model.calls != self.calls:
            raise Unusable(f"{model.calls} calls, not {self.calls}")
        if not bool(end.isfinite().all()):
            raise Unusable("not finite")
        return end.to(x.dtype)


def entries(samplers: list[StockSampler], ns: NoiseSchedule, nfe: int) -> tuple[list[Entry], dict[str, str]]:
    """All combinations within `nfe` model calls (the largest number of steps that counts no more), and samplers that cannot run, with why.

    Calls are counted by a run on a model that answers 0.
    """
    found: list[Entry] = []
    problems: dict[str, str] = {}
    repeated = _repeated_lists(ns, max(nfe, 3))
    for sampler in samplers:
        if ns.family not in sampler.families:
            continue
        steps_and_calls: dict[str, tuple[int, int] | None] = {}
        for schedule in BASELINES:
            for form in FORMS:
                if (schedule, form) in repeated:
                    continue
                if sampler.own_steps and (schedule, form) != ("karras", "no-zero"):
                    continue
                if form not in steps_and_calls:
                    steps_and_calls[form] = _counted_steps(sampler, ns, form, nfe, problems)
                plan = steps_and_calls[form]
                if plan and sigma_list(ns, schedule, form, plan[0]) is not None:
                    found.append(Entry(sampler, schedule, form, *plan))
    return found, problems


def _repeated_lists(ns: NoiseSchedule, steps: int) -> set[tuple[str, str]]:
    """Lists that are an earlier one under another name (to 1e-5 of each level)."""
    known: list[Tensor] = []
    repeated = set()
    for schedule in ("karras", *BASELINES):
        for form in FORMS:
            levels = sigma_list(ns, schedule, form, steps)
            if levels is None or (schedule == "karras" and len(known) >= len(FORMS)):
                continue
            if any(torch.allclose(levels, other, rtol=1e-5, atol=0.0) for other in known):
                repeated.add((schedule, form))
            known.append(levels)
    return repeated - {("karras", form) for form in FORMS}


def _counted_steps(sampler: StockSampler, ns: NoiseSchedule, form: str, nfe: int, problems: dict[str, str]) -> tuple[int, int] | None:
    counted = CountedModel(lambda x, sigma: torch.zeros_like(x))
    for steps in range(nfe, 0, -1):
        sigmas = sigma_list(ns, "uniform_lambda" if form == "to-min" else "karras", form, steps)
        if sigmas is None:
            continue
        counted.forget(-1.0)
        counted.begin(10 * nfe + 10)
        x = torch.full((1, 1, 2, 2), float(sigmas[0]))
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                sampler.run(counted, x, sigmas.float(), ns.family)
        except Unusable as problem:
            problems[f"{sampler.name}{FORMS[form]}"] = str(problem)
            return None
        except Exception as problem:  # other people's code, with lists it may not be made for: said in the report
            problems[f"{sampler.name}{FORMS[form]}"] = f"{type(problem).__name__}: {problem}"
            return None
        if 0 < counted.calls <= nfe:
            return steps, counted.calls
    return None
