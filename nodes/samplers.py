"""The sampler node: a solver as a SAMPLER."""

from __future__ import annotations

from typing import Any

import comfy.samplers
from comfy_api.latest import io

from .. import __version__
from ..solvers import HIGH_GUIDANCE, SOLVERS, solver_named
from .inputs import (
    AUTO,
    NEWEST_VERSION,
    ORDERS,
    VARIANTS,
    advanced,
    check,
    chosen_order,
    order_input,
    order_problem,
    problem_with,
    solver_input,
    version_input,
)
from .metadata import records, write_entry
from .report import as_ui, version_line
from .sampling import applicable, solver_function


@records
class FewStepSampler(io.ComfyNode):
    """A solver with its options."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FewStepSampler",
            display_name="FewStep Sampler",
            category="sampling/custom_sampling/samplers",
            description="A solver for few steps: UniPC, DPM-Solver++, DEIS, iPNDM and others, in published or exact form, all correct for "
            "flow models too. Connect it to SamplerCustomAdvanced or SamplerCustom. Options that the chosen solver does not have are "
            "ignored.",
            inputs=[
                solver_input(
                    tooltip="unipc, dpmpp_2m, dpmpp_3m, deis and ipndm call the model once per step; heun, dpm_2 and dpmpp_2s twice, "
                    "dpmpp_3s three times; dpmpp_2m_sde adds fresh noise in every step."
                ),
                order_input(
                    f"Highest order. auto is the solver's default, or 2 from cfg {HIGH_GUIDANCE:g} up, where higher orders overshoot in "
                    "few steps. Solvers with only one order ignore it."
                ),
                advanced(
                    io.Combo.Input(
                        "variant",
                        options=list(VARIANTS),
                        default=AUTO,
                        tooltip="auto is the published form. unipc: bh2, bh1, vary_coeff, lagrange (exact). dpmpp and res: published, "
                        "lagrange (exact). deis: logrho, rhoab, tab. dpmpp_2m_sde: midpoint, heun.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "corrector", default=True, tooltip="unipc: correct every step with the next step's model call, at no extra call."
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "lower_order_final",
                        default=True,
                        tooltip="Lower the order in the last steps, as unipc, dpmpp and deis do by default.",
                    )
                ),
                advanced(
                    io.Boolean.Input(
                        "afs",
                        default=False,
                        tooltip="Analytical first step: a guess replaces the first model call. It saves one call, but in our measurements "
                        "it cost far more quality than taking one step less.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "eta",
                        default=1.0,
                        min=0.0,
                        max=10.0,
                        step=0.01,
                        round=False,
                        tooltip="dpmpp_2m_sde: amount of fresh noise. 0 is deterministic, 1 is the reverse SDE.",
                    )
                ),
                advanced(
                    io.Float.Input(
                        "s_noise",
                        default=1.0,
                        min=0.0,
                        max=10.0,
                        step=0.01,
                        round=False,
                        tooltip="dpmpp_2m_sde: factor on the fresh noise. 1 is the correct value; slightly more restores detail.",
                    )
                ),
                version_input(),
            ],
            outputs=[
                io.Sampler.Output("sampler", display_name="sampler", tooltip="For SamplerCustomAdvanced and SamplerCustom."),
                io.String.Output("report", display_name="report", tooltip="What was chosen, as text."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(
        cls, solver: str | None = None, order: str | None = None, variant: str | None = None, algorithm_version: int | None = None
    ) -> bool | str:
        return _problem(solver, order, variant, algorithm_version) or True

    @classmethod
    def execute(
        cls,
        solver: str,
        order: str = AUTO,
        variant: str = AUTO,
        corrector: bool = True,
        lower_order_final: bool = True,
        afs: bool = False,
        eta: float = 1.0,
        s_noise: float = 1.0,
        algorithm_version: int = NEWEST_VERSION,
    ) -> io.NodeOutput:
        check(_problem(str(solver), str(order), str(variant), algorithm_version))
        entry = solver_named(solver)
        highest = chosen_order(order) if len(entry.orders) > 1 else None
        given = dict(variant=variant, corrector=corrector, lower_order_final=lower_order_final, eta=eta, s_noise=s_noise, afs=afs)
        options = applicable(solver, given)
        report = _report(solver, highest, options, algorithm_version)
        write_entry(
            cls.hidden,
            {
                "node": "FewStepSampler",
                "solver": solver,
                "order": AUTO if highest is None and len(entry.orders) > 1 else highest or entry.orders[0],
                **options,
                "algorithm_version": algorithm_version,
                "fewstep": __version__,
            },
        )
        sampler = comfy.samplers.KSAMPLER(solver_function(solver, highest, **options))
        return io.NodeOutput(sampler, report, ui=as_ui(report))


def _problem(solver: Any, order: Any, variant: Any, algorithm_version: Any) -> str | None:
    wrong = problem_with(algorithm_version, solver=(solver, SOLVERS), order=(order, ORDERS), variant=(variant, VARIANTS))
    wrong = wrong or order_problem(solver, order)
    if wrong or solver is None or variant is None or variant == AUTO:
        return wrong
    variants = SOLVERS[solver].variants
    if not variants or variant in variants:
        return None
    return f"variant was {variant!r}; {solver} has the variants {', '.join(variants)}. Choose one of them, or auto."


def _report(solver: str, order: int | None, options: dict[str, Any], algorithm_version: int) -> str:
    entry = solver_named(solver)
    lines = [f"FewStep: {entry.title} ({entry.source})"]
    if order is None and len(entry.orders) > 1:
        lowered = f"; 2 from cfg {HIGH_GUIDANCE:g} up" if entry.default_order > 2 else ""
        lines.append(f"Order: auto ({entry.default_order}{lowered})")
    else:
        lines.append(f"Order: {order or entry.orders[0]}")
    if entry.variants:
        lines.append(f"Variant: {options.get('variant', entry.variants[0])}")
    calls = "1" if entry.calls_per_step == 1 else f"{entry.calls_per_step}, 1 in the step to 0"
    lines.append(f"Model calls per step: {calls}; twice that with classifier-free guidance")
    lines += [f"{name}: {value}" for name, value in options.items() if name not in ("variant", "afs")]
    if options.get("afs"):
        lines.append("Analytical first step: one model call fewer")
    lines.append(version_line(algorithm_version))
    return "\n".join(lines)


NODES: list[type[io.ComfyNode]] = [FewStepSampler]
