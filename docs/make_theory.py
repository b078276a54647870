"""Make the three plots of docs/theory.md, and print the numbers that its text quotes.

    python docs/make_theory.py

They need matplotlib (`python install.py --demo` installs it) and the emoji model that ships with the package; a minute on one core.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from fewstep.demo import load_demo_model
from fewstep.demo.calibration import demo_setting
from fewstep.demo.shipped import demo_recipe
from fewstep.fitting.run import run_table
from fewstep.schedules import DEFAULT_BOUND, NoiseSchedule, baseline_sigmas, few_step_sigmas, optimal_sigmas
from fewstep.schedules.objective import model_error_bound
from fewstep.solvers import SolverTable, build_table

DOCS = Path(__file__).resolve().parent
STEPS = 5
GREY, BLUE, ORANGE = "#999999", "#3f789e", "#d98032"
PRESET = "sdxl"
LISTS = {"karras": "Karras", "uniform_lambda": "uniform half-log-SNR", "optimized": "FewStep"}
SEEDS, TEACHER_STEPS = 8, 48
EMOJI_CFG = 2.0


# --- The bound --------------------------------------------------------------------------------------------------------


def half_log_snrs(name: str, ns: NoiseSchedule) -> np.ndarray:
    """The nodes of a list on the whole range: the bound is that of the list that ends at sigma_min in place of 0."""
    sigmas = (optimal_sigmas(ns, STEPS, cache=False) if name == "optimized" else baseline_sigmas(name, ns, STEPS)).numpy().copy()
    if sigmas[-2] == ns.sigma_min or np.isclose(sigmas[-2], ns.sigma_min):
        return -np.log(sigmas[:-1])
    sigmas[-1] = ns.sigma_min
    return -np.log(sigmas)


def teeth(lambdas: np.ndarray) -> np.ndarray:
    """The terms of the bound of order 1: model error at a node times the weight of its answer."""
    errors, _ = model_error_bound(lambdas[:-1], DEFAULT_BOUND["vp"][0], "vp")
    return errors * np.diff(np.exp(lambdas))


def draw_bound(path: Path) -> None:
    import matplotlib.pyplot as plt

    ns = NoiseSchedule.preset(PRESET)
    p = DEFAULT_BOUND["vp"][0]
    figure, panels = plt.subplots(1, len(LISTS), figsize=(9.6, 2.9), sharey=True, layout="constrained")
    fine = np.linspace(-np.log(ns.sigma_max), -np.log(ns.sigma_min), 500)
    floor = model_error_bound(fine, p, "vp")[0] * np.exp(fine)
    for panel, (name, title) in zip(panels, LISTS.items(), strict=True):
        lambdas = half_log_snrs(name, ns)
        for first, last in pairwise(lambdas):
            inside = np.linspace(first, last, 80)
            height = model_error_bound(np.array([first]), p, "vp")[0] * np.exp(inside)
            panel.fill_between(inside, height, color=BLUE, alpha=0.35, linewidth=0)
            panel.plot([first], [height[0]], "o", color=BLUE, markersize=4)
        panel.plot(fine, floor, color=GREY, linewidth=1.5)
        panel.set_title(f"{title}: bound {teeth(lambdas).sum():.1f}", fontsize=10)
        panel.set_xlabel("half-log-SNR (noise on the left, picture on the right)", fontsize=8)
        panel.set_ylim(0, 4.2)
        panel.tick_params(labelsize=8)
    panels[0].set_ylabel("model error x weight", fontsize=9)
    save(figure, path)


# --- The free jump ----------------------------------------------------------------------------------------------------


def answers() -> tuple[np.ndarray, np.ndarray]:
    """Noise-to-signal ratios of a many-step run of the emoji model, and how far its answers are from the final picture, relative."""
    model = load_demo_model("emoji")
    setting = demo_setting(model, EMOJI_CFG, SEEDS, SEEDS)
    ns = setting.noise_schedule
    sigmas = baseline_sigmas("uniform_lambda", ns, TEACHER_STEPS)
    table = build_table("unipc", sigmas, ns.family)
    found: list[tuple[float, torch.Tensor]] = []

    def watched(x: torch.Tensor, sigma: torch.Tensor, **extra: object) -> torch.Tensor:
        answer = model(x, sigma, **extra)
        found.append((float(sigma[0]), answer.detach()))
        return answer

    end = run_table(replace(setting, model=watched), table).end
    scale = float((end - end.mean(0)).square().mean().sqrt())
    ratios = np.array([level / (1 - level) if level < 1 else np.inf for level, _ in found])
    distances = np.array([float((answer - end).square().mean().sqrt()) / scale for _, answer in found])
    return ratios, distances


def calls(sigmas: np.ndarray) -> np.ndarray:
    """Noise-to-signal ratios of the levels at which the model is called."""
    levels = sigmas[:-1]
    with np.errstate(divide="ignore"):
        return levels / (1 - levels)


def jump_lists() -> dict[str, np.ndarray]:
    """Ratios at which the model is called, from the highest level and after a jump."""
    model = load_demo_model("emoji")
    ns = model.noise_schedule
    lower = few_step_sigmas(ns, STEPS, model.structure).numpy()[1:]
    return {"from the highest level": calls(optimal_sigmas(ns, STEPS, cache=False).numpy()), "after a jump": calls(lower)}


def draw_jump(path: Path) -> None:
    import matplotlib.pyplot as plt

    ratios, distances = answers()
    figure, panel = plt.subplots(figsize=(7.2, 3.3), layout="constrained")
    finite = np.isfinite(ratios)
    panel.plot(ratios[finite], distances[finite], color=GREY, linewidth=2)
    most = 500.0
    for height, color, (name, levels) in zip((1.17, 1.27), (GREY, BLUE), jump_lists().items(), strict=True):
        shown = np.minimum(levels, most)
        panel.plot(shown, np.full(len(shown), height), "o", color=color, markersize=6, label=f"{STEPS} calls {name}")
    panel.legend(loc="lower left", fontsize=9, frameon=False)
    panel.set_xscale("log")
    panel.set_xlim(700, 0.01)
    panel.set_ylim(0, 1.36)
    panel.set_xlabel("noise / picture (highest level on the left; pure noise is drawn at 500)", fontsize=9)
    panel.set_ylabel("answer's distance from the final picture", fontsize=9)
    panel.tick_params(labelsize=8)
    save(figure, path)


# --- The table of a solver --------------------------------------------------------------------------------------------


def weights(table: SolverTable) -> np.ndarray:
    """Weight of answer j in step i; nan where there is none."""
    found = np.full((len(table.rows), len(table.rows)), np.nan)
    for i, row in enumerate(table.rows):
        for j, weight in enumerate(row.b):
            found[i, i - j] = weight
    return found


def tables() -> dict[str, SolverTable]:
    """Three on the demo model's noise schedule: one answer each, published multistep, fitted."""
    recipe = demo_recipe("edm", STEPS)
    assert recipe is not None
    sigmas = optimal_sigmas(load_demo_model("edm").noise_schedule, STEPS, cache=False)
    return {"Euler": build_table("euler", sigmas), "UniPC 3": build_table("unipc", sigmas), "calibrated": recipe.table()}


def draw_tables(path: Path) -> None:
    import matplotlib.pyplot as plt

    found = tables()
    figure, panels = plt.subplots(1, len(found), figsize=(9.6, 3.1), layout="constrained")
    for panel, (name, table) in zip(panels, found.items(), strict=True):
        values = weights(table)
        panel.imshow(values, cmap="RdBu", vmin=-1.6, vmax=1.6)
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                panel.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color="white" if abs(value) > 1.1 else "black")
        panel.set_title(name, fontsize=10)
        panel.set_xticks(range(STEPS), [f"{j + 1}" for j in range(STEPS)], fontsize=8)
        panel.set_yticks(range(STEPS), [f"{i + 1}" for i in range(STEPS)], fontsize=8)
        panel.set_xlabel("answer of call", fontsize=9)
    panels[0].set_ylabel("step", fontsize=9)
    save(figure, path)


def save(figure: object, path: Path) -> None:
    """As a small PNG."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=110, metadata={"Software": None})  # type: ignore[attr-defined]
    plt.close(figure)  # type: ignore[arg-type]


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    draw_bound(DOCS / "theory_bound.png")
    draw_tables(DOCS / "theory_table.png")
    draw_jump(DOCS / "theory_jump.png")


if __name__ == "__main__":
    main()
