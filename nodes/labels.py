"""What people read for the names of nodes' inputs, and what they may search for.

Workflows, prompts and help pages know an input by its id, which never changes. The label is the id with blanks, unless it has one here.
ComfyUI before 0.33 shows labels from `locales/` only, and knows no search aliases.
"""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

LABELS: Mapping[str, str] = {
    "afs": "analytical first step",
    "append_zero": "append a final 0",
    "class_name": "class",
    "eta": "fresh noise (eta)",
    "held_out_share": "held-out share",
    "lower_order_final": "lower order at the end",
    "nfe": "model calls",
    "p": "model-error strength (p)",
    "first_call": "first call",
    "s_noise": "noise factor (s_noise)",
    "texts": "recipe texts",
}
"""By id."""

LABELS_OF: Mapping[str, Mapping[str, str]] = {
    "FewStepApplyRecipe": {"text": "recipe text"},
    "FewStepTuneLora": {"text": "recipe text"},
    "FewStepTrainAmed": {"form": "solver (form)"},
}
"""By node, where the same id means something else elsewhere."""

ALIASES: Mapping[str, tuple[str, ...]] = {
    "FewStepScheduler": ("optimal steps", "optimized sigmas", "few steps", "time steps", "noise levels", "DM-NonUniform", "fast sampling"),
    "FewStepBaselineScheduler": ("karras", "AYS", "align your steps", "GITS", "OSS", "optimal steps", "beta", "sgm_uniform"),
    "FewStepSampler": ("unipc", "dpm++", "dpmpp", "deis", "ipndm", "heun", "solver"),
    "FewStepKSampler": ("few steps", "fast sampler", "ksampler", "all in one"),
    "FewStepSigmasFromText": ("manual sigmas", "paste sigmas", "string to sigmas", "custom sigmas"),
    "FewStepSigmasToText": ("print sigmas", "show sigmas", "sigmas to string"),
    "FewStepResampleSigmas": ("interpolate sigmas", "stretch sigmas"),
    "FewStepSplitSigmas": ("split sigmas", "high noise low noise", "wan 2.2 split"),
    "FewStepPlotSigmas": ("graph sigmas", "sigma chart", "show sigmas"),
    "FewStepCompareSchedules": ("schedule grid", "xy plot", "benchmark schedulers"),
    "FewStepLoadDemoModel": ("test model", "try without checkpoint", "fashion mnist"),
    "FewStepCalibrate": ("fit", "optimize sampler", "few step recipe", "tune sampler to checkpoint"),
    "FewStepCompareRecipes": ("benchmark recipes", "which sampler is best", "evaluate"),
    "FewStepTeacherSettings": ("reference run", "many steps"),
    "FewStepApplyRecipe": ("use recipe", "paste recipe", "recipe sampler"),
    "FewStepTrainAmed": ("AMED-Solver", "train predictor", "approximate mean direction"),
    "FewStepAmedSampler": ("AMED-Solver", "approximate mean direction"),
    "FewStepTuneLora": ("distill", "train lora", "few-step lora", "fine-tune"),
}
"""By node: words for what it does that are not in its name."""


def label_of(node_id: str, name: str) -> str:
    """The label of an input."""
    return LABELS_OF.get(node_id, {}).get(name) or LABELS.get(name) or name.replace("_", " ")


def label(schema: io.Schema) -> None:
    """Give the inputs of a node their labels, and the node its search aliases."""
    for given in schema.inputs:
        given.display_name = given.display_name or label_of(schema.node_id, given.id)
    schema.search_aliases = list(ALIASES.get(schema.node_id, ()))
