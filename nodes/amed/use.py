"""Loading, saving and using AMED predictors."""

from __future__ import annotations

from typing import Any

import comfy.samplers
import torch
from comfy_api.latest import io

from ... import __version__
from ...amed import FORMS, AmedConfig, AmedPredictor, AmedTable
from ...amed.description import describe, kind_of
from ...schedules.text import sigma_text
from ..common.sockets import AmedType, checked_net
from ..drawing import as_images
from ..file_nodes import LoadNode, SaveNode
from ..host import latent_shape, noise_schedule_of
from ..inputs import NOT_CHECKED, check, inputs_to_check, problem_with
from ..metadata import records, write_entry
from ..report import as_ui, curve, sigmas_line, with_picture
from .chosen import Chosen
from .facts import warnings_for, wrong_solver
from .files import AMED_FILES
from .picture import report_lines, times_chart
from .sampling import AmedFunction

OWN = "the predictor's own"
SOLVERS = (OWN, *FORMS)


class FewStepLoadAmed(LoadNode):
    """A predictor or table from a file."""

    FILES = AMED_FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="FewStepLoadAmed",
            display_name="FewStep Load AMED Predictor",
            category="FewStep/AMED",
            description="Loads an AMED predictor or table from the folder models/fewstep: files that FewStep Save AMED Predictor or the "
            "command line wrote, that others shared, or that an interrupted training kept. Those for the demo model come with FewStep. "
            "Press R to see new ones.",
            tooltip="Files in models/fewstep (.safetensors). A predictor or table is for one model, one number of model calls and one "
            "solver.",
            outputs=[
                AmedType.Output("predictor", display_name="predictor", tooltip="For FewStep AMED Sampler and FewStep AMED Scheduler."),
                io.String.Output("description", display_name="description", tooltip="A readable description."),
            ],
        )

    @classmethod
    def execute(cls, name: str) -> io.NodeOutput:
        net = cls.FILES.load(name)
        report = "\n".join(describe(net))
        return io.NodeOutput(net, report, ui=as_ui(report, stamps_curve(net)))


class FewStepSaveAmed(SaveNode):
    """A predictor or table to a file."""

    FILES = AMED_FILES

    @classmethod
    def define_schema(cls) -> io.Schema:
        return cls.schema(
            node_id="FewStepSaveAmed",
            display_name="FewStep Save AMED Predictor",
            category="FewStep/AMED",
            description="Saves an AMED predictor or table as a safetensors file in the folder models/fewstep, where FewStep Load AMED "
            "Predictor finds it. A predictor takes about 40 kB.",
            content=AmedType.Input("predictor", tooltip="From FewStep Train AMED Predictor."),
            name="my predictor",
            outputs=[io.String.Output("file", display_name="file", tooltip="Name of the file that was written.")],
        )

    @classmethod
    def execute(cls, predictor: Any, name: str, overwrite: bool) -> io.NodeOutput:
        net = checked_net(predictor)
        path = cls.FILES.save(net, name, overwrite)
        report = "\n".join([f"Saved as {path.name}", *describe(net)])
        return io.NodeOutput(path.name, ui=as_ui(report, stamps_curve(net)))


@records
class FewStepAmedSampler(io.ComfyNode):
    """A predictor or table as a SAMPLER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepAmedSampler",
            display_name="FewStep AMED Sampler",
            category="FewStep/AMED",
            description="Samples with an AMED predictor or table: each step also calls the model at a learned intermediate time, which "
            "a predictor chooses separately for each image. Connect it to SamplerCustomAdvanced or SamplerCustom, with the noise levels of "
            "FewStep AMED Scheduler and denoise 1.",
            inputs=[
                AmedType.Input("predictor", tooltip="From FewStep Load AMED Predictor or FewStep Train AMED Predictor."),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default=OWN,
                    tooltip="By default the solver it was trained with. Choose a name to get an error if the predictor is for another.",
                ),
                io.Model.Input("model", optional=True, tooltip="Only to check: the report warns if it was trained for another model."),
                *inputs_to_check(),
            ],
            outputs=[
                io.Sampler.Output("sampler", display_name="sampler", tooltip="For SamplerCustomAdvanced and SamplerCustom."),
                io.String.Output("report", display_name="report", tooltip="A description and any warnings."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, solver: str | None = None) -> bool | str:
        return problem_with(solver=(solver, SOLVERS)) or True

    @classmethod
    def execute(
        cls,
        predictor: Any,
        solver: str = OWN,
        model: Any = None,
        latent_image: dict[str, Any] | None = None,
        cfg_to_check: float = NOT_CHECKED,
    ) -> io.NodeOutput:
        net = checked_net(predictor)
        check(problem_with(solver=(str(solver), SOLVERS)))
        check(None if solver == OWN else wrong_solver(str(solver), net.config))
        shape = None if latent_image is None else latent_shape(latent_image, model)
        warnings = warnings_for(net, model, cfg_to_check if cfg_to_check > 0 else None, shape)
        report = "\n".join(
            [
                *(f"Warning: {warning}" for warning in warnings),
                *describe(net),
                *([] if model is not None else ["Not checked against a model; connect one to check."]),
                f"FewStep {__version__}",
            ]
        )
        write_entry(cls.hidden, {"node": "FewStepAmedSampler", **entry_of(net)})
        return io.NodeOutput(comfy.samplers.KSAMPLER(AmedFunction(net)), report, ui=as_ui(report, stamps_curve(net)))


@records
class FewStepAmedScheduler(io.ComfyNode):
    """The noise levels of a predictor or table as SIGMAS."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepAmedScheduler",
            display_name="FewStep AMED Scheduler",
            category="FewStep/AMED",
            description="The noise levels that an AMED predictor or table was trained on: its time stamps. Between two of them FewStep "
            "AMED Sampler calls the model once more, at a learned time.",
            inputs=[
                AmedType.Input("predictor", tooltip="The same predictor as for FewStep AMED Sampler."),
                io.Model.Input("model", optional=True, tooltip="Only to check, and to draw percentages."),
            ],
            outputs=[
                io.Sigmas.Output("sigmas", display_name="sigmas", tooltip="The time stamps, for SamplerCustomAdvanced or SamplerCustom."),
                io.String.Output("report", display_name="report", tooltip="The levels as text, and any warnings."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, predictor: Any, model: Any = None) -> io.NodeOutput:
        net = checked_net(predictor)
        sigmas = torch.tensor(net.config.stamps, dtype=torch.float64).to(torch.float32)
        lines = [f"Warning: {warning}" for warning in warnings_for(net, model)]
        lines += [f"FewStep AMED: {len(sigmas)} time stamps, {net.config.nfe} model calls", sigmas_line(sigmas)]
        report = "\n".join([*lines, f"FewStep {__version__}"])
        write_entry(cls.hidden, {"node": "FewStepAmedScheduler", **entry_of(net)})
        return io.NodeOutput(sigmas, report, ui=as_ui(report, stamps_curve(net, model)))


class FewStepAmedTimes(io.ComfyNode):
    """The intermediate times of a run, as text and as a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepAmedTimes",
            display_name="FewStep AMED Times",
            category="FewStep/AMED",
            description="Shows which intermediate times FewStep AMED Sampler used in a run: one column per step, one dot per image. "
            "Connect it after the sampling node, so that it runs afterwards. If several runs used the same sampler, it shows the last.",
            inputs=[
                io.Sampler.Input("sampler", tooltip="The output of FewStep AMED Sampler that the run used."),
                io.Latent.Input("samples", tooltip="The output of the run; passed on unchanged."),
            ],
            outputs=[
                io.Latent.Output("samples_out", display_name="samples", tooltip="The latents, unchanged."),
                io.Image.Output("plot", display_name="plot", tooltip="The times as a picture."),
                io.String.Output("report", display_name="report", tooltip="The times as text, one line per step."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, sampler: Any, samples: dict[str, Any]) -> io.NodeOutput:
        function = getattr(sampler, "sampler_function", None)
        if not isinstance(function, AmedFunction):
            raise ValueError("The connected sampler is not an AMED sampler; connect the output of FewStep AMED Sampler that the run used.")
        chosen = function.chosen()
        if chosen is None:
            raise ValueError(
                "The sampler has not run yet, or was stopped: connect the latent that was sampled with it, so that this node runs after it."
            )
        config = function.net.config
        title = times_title(config, chosen, "images")
        picture = as_images([times_chart(config, chosen.r, title)])
        report = "\n".join([title, *report_lines(config, chosen)])
        return io.NodeOutput(samples, picture, report, ui=with_picture(cls, picture, report))


def times_title(config: AmedConfig, chosen: Chosen, of: str) -> str:
    """Title of the times that were chosen; `of` says what has times of its own."""
    images = chosen.r.shape[1]
    return f"{FORMS[config.form].title}, {config.nfe} model calls: intermediate times" + (f" of {images} {of}" if images > 1 else "")


def stamps_curve(net: AmedPredictor | AmedTable, model: Any = None) -> dict[str, Any]:
    """The stamps for the browser."""
    config = net.config
    ns = None if model is None else noise_schedule_of(model)
    known = ns if ns is not None and ns.family == config.family else config.family
    return curve(config.stamps, known, f"{FORMS[config.form].title}, {config.nfe} calls", config.nfe)


def entry_of(net: AmedPredictor | AmedTable) -> dict[str, Any]:
    """For the metadata of pictures."""
    config = net.config
    known = {name: net.facts[name] for name in ("model", "cfg", "date") if net.facts.get(name) is not None}
    levels = sigma_text(torch.tensor(config.stamps))
    return {"kind": kind_of(net), "form": config.form, "sigmas": levels, "nfe": config.nfe, **known, "fewstep": __version__}
