"""All in one: the model's optimized list, the solver, and sampling in a single node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import Noise_EmptyNoise, Noise_RandomNoise, SamplerCustomAdvanced

from .. import __version__
from ..schedules.text import sigma_text
from ..solvers import DEFAULT_SOLVER, HIGH_GUIDANCE, ORDINARY, SOLVERS, habits_on, solver_named, table_on, tapers
from .host import latent_shape, noise_schedule_of, structure_of
from .inputs import (
    ALGORITHM_VERSIONS,
    AUTO,
    NEWEST_VERSION,
    advanced,
    auto_solver,
    check,
    denoise_input,
    problem_with,
    solver_input,
    steps_input,
    steps_problem,
    version_input,
)
from .lists import ScheduleRequest
from .metadata import records, write_entry
from .report import as_ui, curve, distilled_lines, headline, jump_lines, model_line, sigmas_line, solver_line, version_line
from .sampling import solver_function

CUSTOM = "Custom"
PRESETS: Mapping[str, int | None] = {"Fast 5": 5, "Balanced 8": 8, "Quality 12": 12, CUSTOM: None}
"""Preset names and their numbers of steps."""



@records
class FewStepKSampler(io.ComfyNode):
    """FewStep Scheduler, FewStep Sampler, CFGGuider, RandomNoise and SamplerCustomAdvanced in one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepKSampler",
            display_name="FewStep KSampler (all in one)",
            category="FewStep",
            description="Samples in few steps with nothing else to connect: optimized noise levels for the model, and the solver, both as "
            "is best for the guidance. Its sigmas with FewStep Sampler and SamplerCustomAdvanced give the same pictures. Not for models "
            "distilled to few steps (Turbo, Lightning, LCM, Hyper, schnell, DMD).",
            inputs=[
                io.Model.Input("model", tooltip="The model that removes the noise."),
                io.Conditioning.Input("positive", tooltip="What the picture should show."),
                io.Conditioning.Input("negative", tooltip="What it should not show. Not used at cfg 1."),
                io.Latent.Input("latent_image", tooltip="An empty latent, or an encoded picture with denoise below 1."),
                io.Int.Input(
                    "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=True, tooltip="Seed of the initial noise."
                ),
                io.Float.Input(
                    "cfg",
                    default=5.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Guidance: how strongly to follow the prompt. 1 is none and halves the work (FLUX.1 dev needs 1).",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="Balanced 8",
                    tooltip="Number of steps: 5, 8 or 12; Custom uses 'steps'.",
                ),
                steps_input(8, "Number of steps for the preset Custom; not used otherwise."),
                denoise_input(
                    "1 starts from pure noise. Below 1 (image to image), sampling starts at this fraction of the model's time, and all "
                    "steps lie between there and 0."
                ),
                solver_input(
                    first=(AUTO,),
                    default=AUTO,
                    tooltip=f"auto is {DEFAULT_SOLVER}; from cfg {HIGH_GUIDANCE:g} up and with at most 8 steps it is deis, and ipndm for "
                    "flow models that begin at 1. The order is chosen by the guidance.",
                ),
                advanced(
                    io.Boolean.Input(
                        "add_noise",
                        default=True,
                        tooltip="Turn off if the latent already contains noise, for example from a previous sampler.",
                    )
                ),
                version_input(),
            ],
            outputs=[
                io.Latent.Output("latent", display_name="latent", tooltip="The sampled latent."),
                io.Sigmas.Output("sigmas", display_name="sigmas", tooltip="The noise levels that were used."),
                io.String.Output("report", display_name="report", tooltip="What was detected and used, as text."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, preset: str | None = None, solver: str | None = None, algorithm_version: int | None = None) -> bool | str:
        return _problem(preset, solver, algorithm_version) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Any],
        seed: int,
        cfg: float,
        preset: str,
        steps: int,
        denoise: float,
        solver: str = AUTO,
        add_noise: bool = True,
        algorithm_version: int = NEWEST_VERSION,
    ) -> io.NodeOutput:
        check(_problem(str(preset), str(solver), algorithm_version) or steps_problem(steps) or _nothing_to_show(denoise, latent_image))
        ns, number = noise_schedule_of(model), PRESETS[preset] or steps
        version = ALGORITHM_VERSIONS[algorithm_version]
        chosen = auto_solver(ns, number, cfg, version) if solver == AUTO else solver
        structure = None
        if version.lower_first_call and add_noise:
            structure = structure_of(model, latent_shape(latent_image, model))
        tapered = version.by_guidance and tapers(cfg)
        request = ScheduleRequest(solver=chosen, denoise=denoise, structure=structure, tapered=tapered)
        sigmas = request.sigmas(ns, number)
        sampler = comfy.samplers.KSAMPLER(solver_function(chosen))
        latent = sample_latent(model, positive, negative, latent_image, seed if add_noise else None, cfg, sampler, sigmas)

        habits = habits_on(chosen, sigmas, ns) if len(sigmas) else ORDINARY
        nfe = table_on(chosen, sigmas, ns).nfe if len(sigmas) else 0
        halves = 1 if math.isclose(cfg, 1.0) else 2
        order = habits.order(chosen, cfg) or solver_named(chosen).default_order
        guidance = "cfg 1, no guidance" if halves == 1 else f"{2 * nfe} model evaluations with guidance at cfg {cfg:g}"
        report = "\n".join(
            [
                headline(request, sigmas, habits.jump),
                model_line(ns),
                solver_line(chosen, order),
                f"Model calls: {nfe} ({guidance})",
                *jump_lines(sigmas, habits.jump),
                sigmas_line(sigmas),
                *distilled_lines(model, cls.hidden),
                version_line(algorithm_version),
            ]
        )
        write_entry(
            cls.hidden,
            {
                "node": "FewStepKSampler",
                "sigmas": sigma_text(sigmas),
                "schedule": "optimized",
                "solver": chosen,
                "order": order,
                "algorithm_version": algorithm_version,
                "fewstep": __version__,
            },
        )
        return io.NodeOutput(latent, sigmas, report, ui=as_ui(report, curve(sigmas, ns, chosen, nfe, halves * nfe)))


def sample_latent(
    model: Any,
    positive: Any,
    negative: Any,
    latent: Mapping[str, Any],
    seed: int | None,
    cfg: float,
    sampler: Any,
    sigmas: torch.Tensor,
) -> dict[str, Any]:
    """Run ComfyUI's SamplerCustomAdvanced with CFGGuider, which handles noise masks, batch indices, previews and progress.

    Parameters
    ----------
    model, positive, negative, latent
        As the node's inputs; the latent is not changed.
    seed : int or None
        Seed of the initial noise; None adds no noise.
    sampler, sigmas
        SAMPLER and SIGMAS.

    Returns
    -------
    dict
        The latent with new "samples".
    """
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    noise = Noise_EmptyNoise() if seed is None else Noise_RandomNoise(seed)
    return SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, latent)[0]


def _nothing_to_show(denoise: float, latent: Mapping[str, Any]) -> str | None:
    """A sentence if nothing is to be sampled and the latent is empty; with a picture in it, it passes through, as in the host."""
    samples = latent["samples"]
    parts = samples.unbind() if getattr(samples, "is_nested", False) else (samples,)
    if denoise > 0 or any(bool(part.any()) for part in parts):
        return None
    return (
        "denoise was 0 and latent_image is empty, so nothing would be sampled and the picture would be grey. Set denoise to 1 for a new "
        "picture, or connect an encoded picture, which denoise 0 passes on unchanged."
    )


def _problem(preset: Any, solver: Any, algorithm_version: Any) -> str | None:
    return problem_with(algorithm_version, preset=(preset, PRESETS), solver=(solver, (AUTO, *SOLVERS)))


NODES: list[type[io.ComfyNode]] = [FewStepKSampler]
