"""Make `docs/settings.md` and `docs/settings.svg`: FewStep's noise levels beside those of ComfyUI's own templates, family by family.

    python docs/make_settings.py

The templates' settings are those of schedules/template_settings.py. Two templates take their levels from nodes of their own
(Flux2Scheduler, LTXVScheduler), which depend on the size of the picture; they are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fewstep.schedules import BASELINES, NoiseSchedule, baseline_sigmas, optimal_sigmas
from fewstep.schedules.families import half_log_snr
from fewstep.schedules.model_families import PRESETS
from fewstep.schedules.template_settings import DISTILLED_VARIANTS, NOT_LISTED, TEMPLATE_SETTINGS, WITHOUT_TEMPLATE, TemplateSettings

DOCS = Path(__file__).resolve().parent
STEPS = 8
PANEL, COLUMNS, MARGIN, HEAD = (230, 130), 4, 26, 34
GREY, BLUE = "#999999", "#3f789e"
INTRODUCTION = f"""# What FewStep changes in the settings people have

Made by `python docs/make_settings.py`. For each template: its own settings, the {STEPS} levels that its scheduler gives with so few steps,
and FewStep's {STEPS}. *Noisy* is the share of steps that begin where there is more noise than picture (half-log-SNR below 0). The levels
are for the template's shift; FewStep Scheduler reads yours. Which sampler to use with them is another question: see
[choices.md](choices.md).

![Levels of the templates and of FewStep](settings.svg)

Grey line: the template's own number of steps. Grey dots: its scheduler with {STEPS} steps. Blue dots: FewStep with {STEPS}. Across: share
of the steps; upwards: noise level (flow models), or its logarithm.

| template | its settings | noisy | its levels with {STEPS} steps | noisy | FewStep's levels | noisy |
|---|---|---|---|---|---|---|
"""


FAMILIES = """
## Families

The levels of each preset are those of the host's own class of the family (tests/test_noise_schedule.py, ComfyUI 0.3.75 and 0.33.0), the
settings those of its official template (tests/test_template_settings.py, templates 0.1.50). FewStep Scheduler reads the connected model
in any case; the preset's name selects what it compares with. Nothing in the weights tells a model that was distilled to few steps from
the others: the report judges by the names of the model and LoRA files before the node, and says so.

| family | preset | compared with | distilled variants |
|---|---|---|---|"""


def schedule_of(known: TemplateSettings) -> NoiseSchedule:
    """The family's noise schedule with the template's shift."""
    return NoiseSchedule.preset(known.preset) if known.shift is None else NoiseSchedule.flow(known.shift)


def lists_of(known: TemplateSettings) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the template's levels, its scheduler's with few steps, FewStep's)."""
    ns = schedule_of(known)
    own, few = (baseline_sigmas(known.scheduler, ns, steps).numpy() for steps in (known.steps, STEPS))
    return own, few, optimal_sigmas(ns, STEPS, cache=False).numpy()


def noisy_share(levels: np.ndarray, family: str) -> str:
    return f"{100 * np.mean(half_log_snr(levels[:-1], family) < 0):.0f} %"


def row(known: TemplateSettings) -> str:
    family = schedule_of(known).family
    own, few, ours = lists_of(known)
    shown = [", ".join(f"{level:.4g}" for level in levels) for levels in (few, ours)]
    cells = [known.template, str(known), noisy_share(own, family), shown[0], noisy_share(few, family), shown[1], noisy_share(ours, family)]
    return f"| {' | '.join(cells)} |"


def drawable() -> list[TemplateSettings]:
    return [known for known in TEMPLATE_SETTINGS if known.scheduler in BASELINES]


def heights(levels: np.ndarray, family: str, lowest: float, highest: float) -> np.ndarray:
    """0 to 1: the noise level of a flow model; otherwise its logarithm, without the last level, 0."""
    if family == "flow":
        return levels
    return (np.log(levels[:-1]) - np.log(lowest)) / (np.log(highest) - np.log(lowest))


def panel(known: TemplateSettings, left: int, top: int) -> list[str]:
    ns = schedule_of(known)
    own, few, ours = (heights(levels, ns.family, ns.sigma_min, ns.sigma_max) for levels in lists_of(known))
    width, height = PANEL

    def points(values: np.ndarray, steps: int) -> list[tuple[float, float]]:
        return [(left + width * i / steps, top + HEAD + height * (1 - value)) for i, value in enumerate(values)]

    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points(own, known.steps))
    return [
        f'<text x="{left}" y="{top + 12}" font-weight="bold">{known.template}</text>',
        f'<text x="{left}" y="{top + 27}">{known.sampler} / {known.scheduler}, {known.steps} steps</text>',
        f'<rect x="{left}" y="{top + HEAD}" width="{width}" height="{height}" fill="none" stroke="#dddddd"/>',
        f'<polyline points="{line}" fill="none" stroke="{GREY}" stroke-width="1.5"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{GREY}"/>' for x, y in points(few, STEPS)),
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{BLUE}"/>' for x, y in points(ours, STEPS)),
    ]


def picture() -> str:
    known = drawable()
    across, down = PANEL[0] + MARGIN, PANEL[1] + HEAD + MARGIN
    width, height = COLUMNS * across + MARGIN, -(-len(known) // COLUMNS) * down + MARGIN
    parts = [part for i, each in enumerate(known) for part in panel(each, MARGIN + i % COLUMNS * across, MARGIN + i // COLUMNS * down)]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>"]) + "\n"


def page() -> str:
    return INTRODUCTION + "\n".join(row(known) for known in drawable()) + "\n" + families()


def families() -> str:
    """Which families have a preset, what it was compared with, and how distilled variants are told apart."""
    lines = [FAMILIES]
    known: dict[str, list[str]] = {}
    for each in TEMPLATE_SETTINGS:
        known.setdefault(each.preset, []).append(f"{each.template}: {each}")
    for name in [*known, *WITHOUT_TEMPLATE]:
        compared = "<br>".join(known.get(name, [])) or WITHOUT_TEMPLATE[name]
        lines.append(f"| {PRESETS[name].title} | `{name}` | {compared} | {DISTILLED_VARIANTS.get(name, '')} |")
    lines += [f"| {name} | none | {reason} | |" for name, reason in NOT_LISTED.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (DOCS / "settings.md").write_text(page(), encoding="utf-8")
    (DOCS / "settings.svg").write_text(picture(), encoding="utf-8")
