"""Schedules side by side on the user's own model: pictures, counted model calls, time, and distance to a many-step run."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import comfy.utils
from comfy_api.latest import io
from torch import Tensor

from ..schedules import BASELINES
from ..solvers import HIGH_GUIDANCE, SOLVERS, order_at_guidance, solver_named
from .host import noise_schedule_of
from .inputs import MOST_STEPS, OPTIMIZED, check, problem_with, solver_input, steps_input, steps_problem
from .lists import ScheduleRequest
from .report import curve, with_picture
from .sampling import solver_function

MOST_SCHEDULES = 12
REFERENCE = ScheduleRequest("uniform_lambda", "unipc")
"""What the reference run uses: with many steps all consistent solvers and schedules meet in the same image."""

_KEY = "fewstep_compare"


@dataclass(frozen=True)
class Run:
    """One sampled batch."""

    name: str
    sigmas: Tensor
    samples: Tensor
    calls: int
    seconds: float

    @property
    def steps(self) -> int:
        return len(self.sigmas) - 1


class FewStepCompareSchedules(io.ComfyNode):
    """The same noise down several schedules."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepCompareSchedules",
            display_name="FewStep Compare Schedules",
            category="FewStep",
            description=(
                "Samples the same noise with several schedules and shows the pictures in rows, with the model calls counted, the time, and "
                "the distance to a many-step run of the same model. Use it to find out what works on your model."
            ),
            inputs=[
                io.Model.Input("model", tooltip="The model to sample."),
                io.Conditioning.Input("positive", tooltip="What the pictures should show."),
                io.Conditioning.Input("negative", tooltip="What guidance moves away from."),
                io.Latent.Input("latent_image", tooltip="Empty latent; every picture of the batch is a column."),
                io.Vae.Input("vae", tooltip="Turns the results into pictures."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of the noise, the same for all schedules.",
                ),
                io.Float.Input(
                    "cfg", default=5.0, min=0.0, max=100.0, step=0.1, round=0.01, tooltip="Guidance scale; 1 is without guidance."
                ),
                steps_input(tooltip="Number of steps of every schedule. Solvers like heun call the model twice per step."),
                solver_input(
                    tooltip="The solver for all schedules, with its default order (2 from cfg "
                    f"{HIGH_GUIDANCE:g} up). Not used for sampling if a sampler is connected."
                ),
                io.String.Input(
                    "schedules",
                    default="optimized\nuniform_lambda\nkarras\nsgm_uniform",
                    multiline=True,
                    tooltip=f"Schedules to compare, one per line, at most {MOST_SCHEDULES}: {OPTIMIZED} or {', '.join(BASELINES)}.",
                ),
                io.Int.Input(
                    "reference_steps",
                    default=0,
                    min=0,
                    max=MOST_STEPS,
                    tooltip="Steps of the reference run (UniPC on even half-log-SNR) that distances are measured to: 50 or more. 0: none. "
                    "It takes as long as sampling with that many steps. A schedule closer to it gives more exactly what the model "
                    "means.",
                ),
                io.Int.Input(
                    "max_images", default=8, min=1, max=64, tooltip="How many pictures of the batch the grid shows; all are sampled."
                ),
                io.Int.Input(
                    "tile_size", default=128, min=32, max=1024, step=8, tooltip="Largest side of a picture in the grid, in pixels."
                ),
                io.Sampler.Input(
                    "sampler", optional=True, tooltip="A sampler to use instead of the solver, from KSamplerSelect or FewStep Sampler."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="grid", tooltip="One row per schedule, one column per picture of the batch."),
                io.String.Output(display_name="table", tooltip="The figures as a Markdown table."),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None, schedules: str | None = None) -> bool | str:
        return _problem(solver, schedules) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent_image: dict[str, Any],
        vae: Any,
        seed: int,
        cfg: float,
        steps: int,
        solver: str,
        schedules: str,
        reference_steps: int,
        max_images: int,
        tile_size: int,
        sampler: Any = None,
    ) -> io.NodeOutput:
        check(_problem(str(solver), schedules) or steps_problem(steps) or steps_problem(reference_steps))
        ns = noise_schedule_of(model)
        # All lists first, so that what cannot be done is told before anything is sampled.
        lists = {name: ScheduleRequest(name, solver).sigmas(ns, steps) for name in schedule_names(schedules)}
        used = sampler if sampler is not None else comfy.samplers.KSAMPLER(solver_function(solver))
        bench = _Bench(model, positive, negative, latent_image, seed, cfg, reference_steps + steps * len(lists))
        reference = None
        if reference_steps:
            exact = comfy.samplers.KSAMPLER(solver_function(REFERENCE.solver))
            reference = bench.run(f"reference, {reference_steps} steps", REFERENCE.sigmas(ns, reference_steps), exact)
        runs = [bench.run(name, sigmas, used) for name, sigmas in lists.items()]

        title = f"{_sampler_name(sampler, solver, cfg)}, {steps} step{'s' * (steps != 1)}, cfg {cfg:g}, seed {seed}"
        table = markdown_table(runs, reference, title)
        grid = _grid(runs, reference, vae, max_images, tile_size, title)
        curves = [curve(run.sigmas, ns, run.name, run.calls) for run in runs]
        return io.NodeOutput(grid, table, ui=with_picture(cls, grid, table, *curves))


def schedule_names(text: str) -> list[str]:
    """The names in the text, one per line or between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in re.split(r"[\n,;]", text) if part.strip()))


def _problem(solver: Any, schedules: Any) -> str | None:
    wrong = problem_with(solver=(solver, SOLVERS))
    if wrong or schedules is None:
        return wrong
    names = schedule_names(schedules)
    if not 1 <= len(names) <= MOST_SCHEDULES:
        known = ", ".join((OPTIMIZED, *BASELINES))
        return f"schedules named {len(names)} schedules; it must name 1 to {MOST_SCHEDULES} of {known}, one per line."
    return next(filter(None, (problem_with(schedules=(name, (OPTIMIZED, *BASELINES))) for name in names)), None)


class _Bench:
    """Samples the same noise again and again, counting model calls, under one progress bar."""

    def __init__(self, model: Any, positive: Any, negative: Any, latent: dict[str, Any], seed: int, cfg: float, total_steps: int) -> None:
        import latent_preview

        self.model = model.clone()
        self.model.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, _KEY, self._counted)
        self.calls = self.done = 0
        self.positive, self.negative, self.seed, self.cfg = positive, negative, seed, cfg
        self.start = comfy.sample.fix_empty_latent_channels(model, latent["samples"])
        self.noise = comfy.sample.prepare_noise(self.start, seed, latent.get("batch_index"))
        self.noise_mask = latent.get("noise_mask")
        self.total, self.progress = total_steps, comfy.utils.ProgressBar(total_steps)
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)
        comfy.model_management.load_models_gpu([self.model])  # so that loading is in nobody's time

    def _counted(self, executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        self.calls += 1
        return executor(*args, **kwargs)

    def run(self, name: str, sigmas: Tensor, sampler: Any) -> Run:
        self.calls = 0
        steps = len(sigmas) - 1

        def callback(step: int, x0: Tensor, x: Tensor, total: int) -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            preview = self.previewer.decode_latent_to_preview_image("JPEG", x0) if self.previewer else None
            self.progress.update_absolute(self.done + min(step + 1, steps), self.total, preview)

        started = time.perf_counter()
        samples = comfy.sample.sample_custom(
            self.model,
            self.noise,
            self.cfg,
            sampler,
            sigmas.clone(),  # a sampler may write into its list
            self.positive,
            self.negative,
            self.start,
            noise_mask=self.noise_mask,
            callback=callback,
            disable_pbar=True,
            seed=self.seed,
        ).cpu()  # waits for the device
        seconds = time.perf_counter() - started
        self.done += steps
        return Run(name, sigmas, samples, self.calls, seconds)


def distance(run: Run, reference: Run) -> float:
    """Root mean square difference of the latents."""
    return float((run.samples.double() - reference.samples.double()).square().mean().sqrt())


def markdown_table(runs: Sequence[Run], reference: Run | None, title: str) -> str:
    """One line a schedule; with a reference also the distances, the smallest in bold."""
    heads = ["schedule", "steps", "model calls", "seconds"]
    distances = [distance(run, reference) for run in runs] if reference else []
    if reference:
        heads.append(f"RMSE to {reference.steps} steps")
    lines = [title, "", f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for i, run in enumerate(runs):
        cells = [run.name, f"{run.steps}", f"{run.calls}", f"{run.seconds:.2f}"]
        if distances:
            bold = "**" if distances[i] == min(distances) and len(runs) > 1 else ""
            cells.append(f"{bold}{distances[i]:.4f}{bold}")
        lines.append(f"| {' | '.join(cells)} |")
    if reference:
        lines.append(f"| {reference.name} | {reference.steps} | {reference.calls} | {reference.seconds:.2f} | 0 |")
    lines += ["", "Model calls are counted; with guidance (cfg other than 1) each evaluates the model for both prompts."]
    if reference:
        lines.append("RMSE is between latents, from the same noise: how far a few steps are from what the model gives with many.")
    return "\n".join(lines)


def _sampler_name(sampler: Any, solver: str, cfg: float) -> str:
    if sampler is None:
        entry = solver_named(solver)
        order = order_at_guidance(solver, cfg) or entry.default_order
        return f"{solver}, order {order}" if len(entry.orders) > 1 else solver
    name = getattr(getattr(sampler, "sampler_function", None), "__name__", "")
    return name.removeprefix("sample_") or "connected sampler"


def _grid(runs: Sequence[Run], reference: Run | None, vae: Any, most: int, tile: int, title: str) -> Tensor:
    from .drawing import Row, as_images, as_picture, picture_table

    rows = []
    for run in [*([reference] if reference else []), *runs]:
        comfy.model_management.throw_exception_if_processing_interrupted()
        images = vae.decode(run.samples[:most])
        images = images.reshape(-1, *images.shape[-3:])[:most]  # frames of videos are pictures, too
        note = f"{run.calls} call{'s' * (run.calls != 1)}, {run.seconds:.2f} s"
        if reference and run is not reference:
            note += f"\nRMSE {distance(run, reference):.4f}"
        rows.append(Row(run.name, note, [as_picture(image) for image in images]))
    return as_images([picture_table(rows, tile, title)])


NODES = [FewStepCompareSchedules]
