"""Writes the results of calibration.py as Markdown, with a line for every target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from fewstep.fitting import error_ratio

Parts = dict[str, Any]
BARS = {5: (0.70, 0.54), 8: (0.54, 0.36)}
"""Target ratios to best stock and to DPM++ 2M on Karras, by number of calls."""
METHODS = ("best stock", "DPM++ 2M Karras", "calibrated", "plain fit")
GOALS = {5: 0.60, 8: 0.45}
MEMORY_BAR = 1.2
MEASURE = """\
All errors are root mean squares per pixel, in units of the images' range [-1, 1], between the end points of a method and of a 64-step
teacher (UniPC 3 on uniform half-log-SNR down to sigma_min, then the model's D there) from the same noise, over the held-out seeds. Ratios
are followed by their 95 % bootstrap interval over seeds. "per seed" is the ratio to best stock of the mean over seeds of each seed's
error; the few seeds that end in another picture than the teacher's do not dominate it. Model calls are counted, not computed.

**Best stock** is the smallest error of all stock samplers (with their noise turned off, if they have any) on all baseline schedules, each
in up to three forms: as published, moved down to sigma_min before the 0, and ending at sigma_min. All combinations are scored on a few
held-out seeds (samplers far behind on three schedules are not tried on the others), the better ones on more, and the best on all. At
numbers of calls other than 5, 8 and 12, only those are tried that were good at the nearest two of these. **Plain fit** is
benchmarks/plain_fit.py on 24 seeds, without a limit on calls. **Calibrated** is `fewstep.fitting.calibrate` with its defaults and a limit
of 300 calls at 5, 1200 at 8, and 300 (N/5)^2.95 otherwise, separately for each number of calls. Of the given seeds it uses as many as its
limit allows, the hardest first (the calls that rank them count towards the fit). The table that it returns is measured, which is stock if
the guard chose stock. The guard has separate seeds, half as many as the fit. **Effort high** is the same with the limit of the effort
*high*, 8 N^3 calls.

**Outside** is the share of pixels outside [-1, 1], **excess** the mean of max(|x| - 1, 0) over all pixels; images are not clamped.
**Judged** is the share of images that the classifier recognises as the requested class.
"""


def ratio(part: Parts, reference: Parts) -> str:
    """As text, with its interval."""
    value, low, high = error_ratio(np.array(part["squares"]), np.array(reference["squares"]))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def of_typical_seeds(part: Parts, reference: Parts) -> str:
    """The ratio of the means over seeds of each seed's root mean square error, which a few hard seeds do not decide."""
    ours, theirs = (np.sqrt(np.array(p["squares"])).mean() for p in (part, reference))
    return f"{ours / theirs:.3f}"


def more_calls(nfe: int, tenths: int) -> int:
    return -(-nfe * tenths // 10)


class Section:
    """The results of one problem."""

    def __init__(self, key: str, parts: Parts, fit_seeds: Sequence[int]) -> None:
        prefix = f"{key}/"
        self.key = key
        self.parts = {name.removeprefix(prefix): part for name, part in parts.items() if name.startswith(prefix)}
        found = sorted({int(name.split("/")[2]) for name in self.parts if name.startswith("fit/")})
        self.fit_seeds = [n for n in fit_seeds if n in found] or found
        self.first = self.fit_seeds[0] if self.fit_seeds else 0
        self.nfes = sorted({int(name.split("/")[1]) for name in self.parts if name.startswith("fit/")})

    def get(self, *names: object) -> Parts | None:
        return self.parts.get("/".join(map(str, names)))

    def at(self, nfe: int) -> tuple[Parts | None, ...]:
        """Best stock, DPM++ 2M on Karras, calibrated, plain fit."""
        return self.get("stock", nfe), self.get("karras", nfe), self.get("fit", nfe, self.first), self.get("plain", nfe)

    def high(self, nfe: int) -> Parts | None:
        """Calibrated with effort high."""
        return self.get("high", nfe, self.first)

    def errors(self) -> list[str]:
        """Errors and ratios."""
        seeds = [n for n in self.fit_seeds if self.get("fit", 5, n) or self.get("fit", 8, n)]
        with_high = any(map(self.high, self.nfes))
        lines = [
            "| calls | best stock | its error | DPM++ 2M Karras | calibrated | to best stock | per seed | to DPM++ 2M Karras | "
            + "".join(f"{n} seeds, to best stock | " for n in seeds[1:])
            + ("effort high | to best stock | per seed | " if with_high else "")
            + "plain fit | to best stock | to DPM++ 2M Karras |",
        ]  # fmt: skip
        lines.append("|---" * (lines[0].count("|") - 1) + "|")
        for nfe in self.nfes:
            stock, karras, fit, plain = self.at(nfe)
            if not (stock and karras and fit):
                continue
            cells = [str(nfe), stock["name"], f"{stock['rmse']:.4f}", f"{karras['rmse']:.4f}"]
            cells += [f"{fit['rmse']:.4f}" + ("" if fit["fit_won"] else " (stock)"), ratio(fit, stock)]
            cells += [of_typical_seeds(fit, stock), ratio(fit, karras)]
            for n in seeds[1:]:
                other = self.get("fit", nfe, n)
                cells.append(ratio(other, stock) if other else "")
            if with_high:
                high = self.high(nfe)
                returned = "" if high is None or high["fit_won"] else " (stock)"
                cells += [f"{high['rmse']:.4f}{returned}", ratio(high, stock), of_typical_seeds(high, stock)] if high else [""] * 3
            cells += [f"{plain['rmse']:.4f}", ratio(plain, stock), ratio(plain, karras)] if plain else ["", "", ""]
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    def costs(self) -> list[str]:
        """Model calls, on a batch each."""
        lines = [
            "| calls of the table | seeds | parameters | limit | fit | start | guard | teacher | counted samples | Jacobians | seconds "
            "| starting point | returned | stopped because |",
            "|---" * 14 + "|",
        ]
        for nfe in self.nfes:
            for n, fit in [*((n, self.get("fit", nfe, n)) for n in self.fit_seeds), (f"{self.first}, effort high", self.high(nfe))]:
                if not fit:
                    continue
                calls = fit["calls"]
                lines.append(
                    f"| {nfe} | {n} (batch {fit['batch']}) | {fit['parameters']} | {fit['limit']} | {calls['fit']} | {calls['start']} | "
                    f"{calls['guard']} | {calls['teacher']} | {fit['counted_samples']} | {fit['jacobians']} | {fit['seconds']:.0f} | "
                    f"{fit['start']} | {fit['winner']} | {fit['stopped'] or '-'} |"
                )
            plain = self.get("plain", nfe)
            if plain:
                lines.append(
                    f"| {nfe} | plain fit | {plain['parameters']} | none | {plain['calls']} | | | | | | {plain['seconds']:.0f} | "
                    f"order 2 on uniform half-log-SNR | | (only {plain['made']} calls made; the others are repetitions) |"
                )
        return lines

    def pictures(self) -> list[str]:
        """Accuracy and saturation."""
        lines = ["| method | judged | outside | excess |", "|---|---|---|---|"]
        rows = [("teacher", self.get("teacher"))]
        for nfe in self.nfes:
            rows += [(f"{label}, {nfe} calls", part) for label, part in zip(METHODS, self.at(nfe), strict=True)]
        for label, part in rows:
            if part and "judged" in part:
                lines.append(f"| {label} | {np.mean(part['judged']):.1%} | {part['outside']:.2%} | {part['excess']:.2e} |")
        return lines

    def finalists(self) -> list[str]:
        """The best stock combinations."""
        lines = []
        for nfe in self.nfes:
            stock, screen = self.get("stock", nfe), self.get("screen", nfe)
            if stock and screen:
                judged = [f" ({row['accuracy']:.0%})" if "accuracy" in row else "" for row in stock["finalists"]]
                rows = [f"{row['name']} {row['rmse']:.4f}{text}" for row, text in zip(stock["finalists"], judged, strict=True)]
                head = f"{nfe} calls, {screen['combinations']} combinations, {screen['finite']} of them scored"
                lines.append(f"* {head}: {'; '.join(rows)}.")
        return lines

    def bars(self) -> Iterator[tuple[str, bool]]:
        """What has to hold, and whether it does."""
        for nfe in self.nfes:
            stock, karras, fit, plain = self.at(nfe)
            if not (stock and karras and fit):
                continue
            what = f"{self.key}, {nfe} calls"
            if nfe in BARS:
                for reference, bar, label in ((stock, BARS[nfe][0], "best stock"), (karras, BARS[nfe][1], "DPM++ 2M Karras")):
                    value = fit["rmse"] / reference["rmse"]
                    yield f"{what}: {value:.3f} of {label}, at most {bar:.2f}", value <= bar
                    if plain:
                        reproduced = plain["rmse"] / reference["rmse"]
                        yield f"{what}: {value:.3f} of {label}, at most the plain fit's {reproduced:.3f} here", value <= reproduced
                value = fit["rmse"] / stock["rmse"]
                yield f"{what}: {value:.3f} of best stock, goal {GOALS[nfe]:.2f}", value <= GOALS[nfe]
            calls = fit["calls"]["fit"]
            yield f"{what}: {calls} calls for the fit, at most {fit['limit']}", calls <= fit["limit"]
            for tenths, name, label in ((13, "stock", "best stock"), (15, "karras", "DPM++ 2M Karras")):
                other = self.get(name, more_calls(nfe, tenths))
                if other:
                    better = fit["rmse"] <= other["rmse"]
                    yield f"{what}: no worse than {label} at {more_calls(nfe, tenths)} ({fit['rmse']:.4f}, {other['rmse']:.4f})", better
                    high = self.high(nfe)
                    if high:
                        aim = f"no worse than {label} at {more_calls(nfe, tenths)} ({high['rmse']:.4f}, {other['rmse']:.4f})"
                        yield f"{what}, effort high ({high['calls']['fit']} calls for the fit): {aim}", high["rmse"] <= other["rmse"]
            if "judged" in fit and nfe in BARS:
                ours, theirs = float(np.mean(fit["judged"])), float(np.mean(stock["judged"]))
                yield f"{what}: judged accuracy {ours:.1%}, at least that of the best stock, {theirs:.1%}", ours >= theirs
                most = max(row["accuracy"] for row in stock["finalists"])
                yield f"{what}: judged accuracy {ours:.1%}, at least the highest of the stock finalists, {most:.1%}", ours >= most
                teacher = self.get("teacher")
                if teacher and self.key.endswith("cfg7"):
                    distance, stock_distance = (abs(part["excess"] - teacher["excess"]) for part in (fit, stock))
                    aim = f"as close to the teacher's {teacher['excess']:.2e} as best stock's {stock['excess']:.2e}"
                    yield f"{what}: excess {fit['excess']:.2e}, {aim}", distance <= stock_distance


def as_markdown(parts: Parts, common: dict[str, Any], fit_seeds: Sequence[int], call_limit: Callable[[int], int]) -> str:
    """The document."""
    plan = common["plan"]
    hosts = "; ".join(note if note.startswith(host) else f"{host}: {note}" for host, note in common["hosts"].items())
    text = [
        "# Calibration: measurements\n",
        "Written by `python benchmarks/calibration.py --out docs/measurements/calibration.md`. How to use it: "
        "[Calibrate your checkpoint](../calibrating.md).\n",
        f"{plan['held_out']} held-out seeds from {plan['first_seed']} on; fits on {', '.join(map(str, fit_seeds))} seeds. Device: "
        f"{common['device']}. Stock: {hosts}. Screening: {plan['first']} seeds, the best {plan['kept']} combinations on {plan['second']}, "
        f"{plan['finalists']} on all ({plan['few_finalists']} if the number of calls is not 5 or 8, or the guidance not 1).\n",
        MEASURE,
    ]
    keys = dict.fromkeys("/".join(name.split("/")[:2]) for name in parts if name.split("/")[1].startswith("cfg"))
    sections = [Section(key, parts, fit_seeds) for key in keys]
    sections = [section for section in sections if section.nfes]
    bars = [bar for section in sections if not section.key.startswith("mixture") for bar in section.bars()]
    memory = {name.split("/")[1]: part for name, part in parts.items() if name.startswith("memory/")}
    for nfe, part in memory.items():
        for measure in ("tensors", "process"):
            if measure in part:
                value = part[measure]["ratio"]
                bars.append((f"memory ({measure}), {nfe} calls: {value:.2f} of plain sampling, at most {MEMORY_BAR}", value <= MEMORY_BAR))
    for section in sections:
        name, cfg = section.key.split("/cfg")
        title = "Gaussian mixture in the plane" if name == "mixture" else f"Demo model as {name}, guidance {cfg}"
        text.append(f"## {title}\n")
        if name == "mixture":
            text.append(_mixture(section))
        text += ["### End points\n", *section.errors(), "", "### Cost, in model calls, each on a batch\n", *section.costs(), ""]
        if section.get("teacher") and "judged" in section.parts["teacher"]:
            text += ["### Judged accuracy and saturation\n", *section.pictures(), ""]
        if section.finalists():
            text += ["### The best stock combinations (error, judged accuracy)\n", *section.finalists(), ""]
    if memory:
        text.append("## Peak memory of calibrating, relative to sampling with the same batch\n")
        text += ["| calls | batch | measure | sampling | calibrating | ratio |", "|---|---|---|---|---|---|"]
        for nfe, part in memory.items():
            for measure in ("tensors", "process"):
                if measure in part:
                    found = part[measure]
                    text.append(
                        f"| {nfe} | {part['batch']} | {measure} | {found['sample'] / 1e6:.1f} MB | {found['fit'] / 1e6:.1f} MB | "
                        f"{found['ratio']:.2f} |"
                    )
        text.append("\nTensors: weights and the peak total size of live tensors. Process: peak resident size, including imports.\n")
    times = {name: part for name, part in parts.items() if name.startswith("time/")}
    if times:
        text.append("## Time of a model call\n")
        for name, part in times.items():
            text.append(f"* {name.removeprefix('time/').rpartition('/')[0]}, {part['batch']} images: {part['milliseconds']:.1f} ms")
        text.append("")
    if bars:
        text.append(f"## Targets\n\n{sum(passed for _, passed in bars)} of {len(bars)} are met.\n")
        text += [f"* {'pass' if passed else '**FAIL**'}: {line}" for line, passed in bars]
        text.append("")
    return "\n".join(text)


def _mixture(section: Section) -> str:
    """What error means where samples may end in another cluster."""
    seeds = len(section.parts["teacher"]["squares"])
    rows = []
    for nfe in section.nfes:
        values = zip(METHODS, section.at(nfe), strict=True)
        shown = ", ".join(f"{label} {part['median']:.2g}" for label, part in values if part and math.isfinite(part["median"]))
        rows.append(f"Median distance to the teacher with {nfe} calls: {shown}.")
    return (
        f"{seeds} held-out seeds; a sample has only two numbers, so fits use more seeds. A sample that ends in another cluster than the "
        "teacher's contributes as much as thousands of small errors, so it dominates the root mean square. " + " ".join(rows) + "\n"
    )
