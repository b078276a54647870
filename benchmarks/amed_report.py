"""Writes the results of amed.py as Markdown: the tables, and at the end a line for every target. docs/amed.md says what they mean."""
from __future__ import annotations

from typing import Any

import numpy as np

from fewstep.fitting import error_ratio

Parts = dict[str, Any]
BAR, BAR_NFE = 0.75, 5
ROUNDING = 1e-5  # the guard may return the base solver itself, whose coefficients are then computed in another way
MINUTES, SHARE, MILLISECONDS = 20.0, 0.02, 0.2
PUBLISHED_TRAJECTORIES = 10_000
_SCHEDULES = {
    "fewstep": "optimized steps", "recipe": "calibrated recipe", "karras": "Karras' schedule", "uniform_lambda": "uniform half-log-SNR",
}  # fmt: skip


def ratio(part: Parts, reference: Parts) -> str:
    """As text, with its interval."""
    value, low, high = error_ratio(np.array(part["squares"]), np.array(reference["squares"]))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def best_base(parts: Parts, form: str, nfe: int, schedule: str) -> tuple[str, Parts] | None:
    """The plain solver in the best of the ways that the bar names."""
    known = parts.get(f"base/{form}/{nfe}/{schedule}")
    if known is None:
        return None
    ways = {name: part for name, part in known.items() if isinstance(part, dict)}
    name = min(ways, key=lambda way: ways[way]["rmse"])
    return name, ways[name]


def files(parts: Parts) -> list[tuple[str, str, int, Parts]]:
    """(kind, form, nfe, result) of every shipped file."""
    found = []
    for name, part in parts.items():
        kind, *rest = name.split("/")
        if kind in ("table", "predictor"):
            found.append((kind, rest[0], int(rest[1]), part))
    return sorted(found, key=lambda entry: (entry[2], entry[1], entry[0]))


def bars(parts: Parts) -> list[tuple[str, bool]]:
    """Every bar with whether it holds."""
    lines = []
    for kind, form, nfe, part in files(parts):
        base = best_base(parts, form, nfe, part["facts"]["schedule"])
        if base is None:
            continue
        value = part["rmse"] / base[1]["rmse"]
        what = f"{form}, {kind}, {nfe} calls: {ratio(part, base[1])} of its own base solver ({base[0]}, {base[1]['rmse']:.4f})"
        if nfe == BAR_NFE:
            lines.append((f"{what}, at most {BAR:g}", value <= BAR))
        lines.append((f"{what}, never worse", value <= 1 + ROUNDING))
    for name, part in parts.items():
        if name.startswith("training/") and "/karras/end/" in name:
            form = name.split("/")[1]
            base = best_base(parts, form, BAR_NFE, "karras")
            if base is not None:
                value = part["rmse"] / base[1]["rmse"]
                what = f"{name.removeprefix('training/')}: {ratio(part, base[1])} of its own base solver ({base[0]}, {base[1]['rmse']:.4f})"
                lines.append((f"{what}, at most {BAR:g}", value <= BAR))
    cost = parts.get("cost")
    if cost is not None:
        minutes = PUBLISHED_TRAJECTORIES * (cost["teacher"] + cost["training"]) / 60 / 2
        what = f"training a 5-call predictor on {PUBLISHED_TRAJECTORIES} trajectories: {minutes:.1f} minutes on 2 cores"
        lines.append((f"{what}, at most {MINUTES:g}", minutes <= MINUTES))
        extra = cost["choose"] + cost["read"] + cost["pool"]
        lines.append((f"a predictor costs {1000 * extra:.3f} ms per step, at most {MILLISECONDS:g} ms", 1000 * extra <= MILLISECONDS))
        share = extra / cost["call"]
        lines.append((f"that is {100 * share:.2f} % of a model call, at most {100 * SHARE:g} %", share <= SHARE))
    return lines


def as_markdown(parts: Parts, options: dict[str, Any]) -> str:
    """The whole report, of what there is so far."""
    text = [
        "# AMED: measurements\n",
        "Written by `python benchmarks/amed.py --out docs/measurements/amed.md`. What it means: [AMED](../amed.md).\n",
        f"Demo model as {options['family']} at guidance {options['cfg']:g}. {options['held_out']} held-out seeds from {options['first']} "
        "on, used neither in training nor by the guard. All errors are root mean squares per pixel, in units of the "
        "images' range [-1, 1], between the end points of a method and of a 64-step teacher (UniPC 3 on uniform half-log-SNR down to "
        "sigma_min, then the model's D there) from the same noise. Ratios are followed by their 95 % bootstrap interval over seeds.\n",
        "The **own base solver** is the form at r = 0.5, c = 1, a = 1: with the same number of model calls on the doubled grid of the same "
        "stamps, and on a single grid of that many steps from the same schedule, each also with the analytical first step (AFS, one more "
        "step for the same calls); the best of these is used.\n",
    ]
    text += _shipped(parts) + _bases(parts) + _stamps(parts) + _trainings(parts, options) + _limits(parts) + _guards(parts) + _cost(parts)
    found = bars(parts)
    if found:
        text.append(f"## Targets\n\n{sum(passed for _, passed in found)} of {len(found)} are met.\n")
        text += [f"* {'pass' if passed else '**FAIL**'}: {line}" for line, passed in found] + [""]
    return "\n".join(text)


def _shipped(parts: Parts) -> list[str]:
    rows = files(parts)
    if not rows:
        return []
    text = ["## Shipped files\n"]
    text += ["| calls | form | stamps from | best base | its error | table | to base | predictor | to base | to table |",
            "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    by_name = {(kind, form, nfe): part for kind, form, nfe, part in rows}
    for form, nfe in dict.fromkeys((form, nfe) for _, form, nfe, _ in rows):
        table, predictor = by_name.get(("table", form, nfe)), by_name.get(("predictor", form, nfe))
        schedule = (table or predictor or {"facts": {}})["facts"].get("schedule", "fewstep")
        base = best_base(parts, form, nfe, schedule)
        if base is None:
            continue
        cells = [str(nfe), form, _SCHEDULES[schedule], base[0], f"{base[1]['rmse']:.4f}"]
        for part in (table, predictor):
            cells += [f"{part['rmse']:.4f}", ratio(part, base[1])] if part else ["", ""]
        cells.append(ratio(predictor, table) if predictor and table else "")
        text.append(f"| {' | '.join(cells)} |")
    text.append("\nConstants of the tables (r, c, a per step):\n")
    for kind, form, nfe, part in rows:
        if kind == "table":
            shown = "; ".join(f"{r:.3f}, {c:.3f}, {a:.3f}" for r, c, a in part["choices"])
            text.append(f"* {form}, {nfe} calls, stamps {', '.join(f'{s:.4g}' for s in part['stamps'])}: {shown}")
    made = {
        f"{form}, {nfe} calls: {part['facts']['trajectories']} images, {part['facts']['seconds']} s" for kind, form, nfe, part in rows
        if kind == "predictor"
    }  # fmt: skip
    if made:
        text.append("\nThe predictors were trained on: " + "; ".join(sorted(made)) + " (wall time, one thread on a busy machine).")
    return [*text, ""]


def _bases(parts: Parts) -> list[str]:
    names = [name for name in parts if name.startswith("base/")]
    if not names:
        return []
    text = ["## Base solvers\n", "| calls | form | schedule | doubled grid | with AFS | single grid | with AFS |"]
    text.append("|---|---|---|---|---|---|---|")
    ways = ("on the doubled grid", "on the doubled grid with AFS", "on a single grid", "on a single grid with AFS")
    for name in names:
        _, form, nfe, schedule = name.split("/")
        errors = [f"{parts[name][way]['rmse']:.4f}" if way in parts[name] else "" for way in ways]
        text.append(f"| {nfe} | {form} | {_SCHEDULES[schedule]} | {' | '.join(errors)} |")
    return [*text, ""]


def _stamps(parts: Parts) -> list[str]:
    names = [name for name in parts if name.startswith("stamps/")]
    if not names:
        return []
    text = [
        "## The effect of the stamps\n",
        "Tables for 5 calls, fitted with forward passes to 48 images, c within 1 ± 0.6 and a within 1 ± 0.8.\n",
        "| form | stamps from | stamps | r = 0.5, c = 1, a = 1 | fitted | to the best base | r, c, a |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        _, form, schedule = name.split("/")
        part, base = parts[name], best_base(parts, form, BAR_NFE, schedule)
        stamps = ", ".join(f"{stamp:.4g}" for stamp in part["stamps"])
        chosen = "; ".join(f"{r:.2f}, {c:.2f}, {a:.2f}" for r, c, a in part["choices"])
        to_base = ratio(part, base[1]) if base else ""
        text.append(f"| {form} | {_SCHEDULES[schedule]} | {stamps} | {part['plain']:.4f} | {part['rmse']:.4f} | {to_base} | {chosen} |")
    return [*text, ""]


def _trainings(parts: Parts, options: dict[str, Any]) -> list[str]:
    names = [name for name in parts if name.startswith("training/")]
    if not names:
        return []
    text = [
        "## The effect of the parts of the method\n",
        f"Predictors for 5 calls, each trained on {options['train_on']} images, from r = 0.5, c = 1, a = 1. Method \"steps\" is the "
        "published optimisation with the published teacher of the form (Heun with one extra level for AMED, iPNDM with two); \"end\" is "
        "the gradient through all steps. AFS: four stamps, the last at sigma_min; without: three and 0.\n",
        "| form | stamps from | method | c within 1 ± | a within 1 ± | AFS | r = 0.5, c = 1, a = 1 | trained | ratio | to the best base |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        _, form, schedule, method, direction, time, afs, _ = name.split("/")
        part, base = parts[name], best_base(parts, form, BAR_NFE, schedule)
        to_base = ratio(part, base[1]) if base else ""
        text.append(
            f"| {form} | {_SCHEDULES[schedule]} | {method} | {direction} | {time} | {'on' if afs == 'afs' else 'off'} | "
            f"{part['plain']:.4f} | {part['rmse']:.4f} | {part['rmse'] / part['plain']:.3f} | {to_base} |"
        )
    return [*text, ""]


def _limits(parts: Parts) -> list[str]:
    """How far choices for each image could go, and whose errors count."""
    text = []
    best = parts.get("best possible")
    if best is not None:
        text += [
            "## Best possible\n",
            f"r, c and a optimised separately for each of {best['images']} held-out images (iPNDM, 5 calls, the shipped stamps), "
            f"{best['steps']} Adam steps with the known end point of the teacher: from {best['table']:.4f}, the shipped table's constants, "
            f"to {best['best']:.4f}. No predictor can know that much.\n",
        ]
    rows = [(kind, form, nfe, part) for kind, form, nfe, part in files(parts) if nfe == BAR_NFE]
    if rows:
        text += ["## Share of the worst seeds in the error, 5 "
            "calls\n", "| form | | error | median over images | share of the worst 5 % in the mean square |",
                 "|---|---|---|---|---|"]  # fmt: skip
    for kind, form, nfe, part in rows:
        base = best_base(parts, form, nfe, part["facts"]["schedule"])
        if base is not None and kind == "table":
            text.append(_tail(form, "best base", base[1]))
        text.append(_tail(form, kind, part))
    return [*text, ""] if text else []


def _tail(form: str, what: str, part: Parts) -> str:
    squares = np.sort(np.array(part["squares"]))[::-1]
    share = squares[: max(1, len(squares) // 20)].sum() / squares.sum()
    return f"| {form} | {what} | {part['rmse']:.4f} | {part['median']:.4f} | {100 * share:.0f} % |"


def _guards(parts: Parts) -> list[str]:
    text = []
    for name, part in parts.items():
        if name.startswith("guard/"):
            text += [f"### {name.removeprefix('guard/')} model calls\n", part["verdict"], "", part["table"], ""]
    return ["## The guard: everything at the same number of calls\n", *text] if text else []


def _cost(parts: Parts) -> list[str]:
    cost = parts.get("cost")
    if cost is None:
        return []
    total = PUBLISHED_TRAJECTORIES * (cost["teacher"] + cost["training"]) / 60
    return [
        "## Cost\n",
        f"Processor time of one image: {1000 * cost['teacher']:.1f} ms for its teacher (20 calls), {1000 * cost['training']:.1f} ms for "
        f"training with the gradient through 5 calls; for 10000 images {total:.1f} minutes of one core; the target assumes half of "
        "that for two cores, which share batches evenly.",
        f"A predictor has {cost['parameters']} parameters. For {cost['batch']} images it takes {1e6 * cost['choose']:.0f} µs per step, "
        f"pooling in the hook {1e6 * cost['pool']:.0f} µs, reading {1e6 * cost['read']:.0f} µs; a model call "
        f"{1000 * cost['call']:.1f} ms ({cost['threads']} thread{'s' * (cost['threads'] != 1)}).",
        "",
    ]
