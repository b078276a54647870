"""What the results of `fewstep bench` say: how many calls of other settings match FewStep's, and all errors as tables."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .bench import HEADLINE_CALLS, part_name
from .bench_judged import judged_lines
from .bench_problems import PROBLEMS, noise_schedule_of, title_of
from .bench_settings import BEST_STOCK, CALIBRATED, FEWSTEP, OURS, TUNED, USUAL, compared

Document = Mapping[str, Any]
Result = Mapping[str, Any]
_SAVES = (0.25, 0.6)


def scenes(document: Document) -> list[tuple[str, float]]:
    """Problem and guidance of all results, in the order of `PROBLEMS`."""
    found = {(name.split("/")[0], float(name.split("/")[1].removeprefix("cfg "))) for name in document["results"]}
    return sorted(found, key=lambda scene: (PROBLEMS.index(scene[0]), scene[1]))


def calls_in(document: Document, name: str, cfg: float) -> list[int]:
    """Numbers of calls with results."""
    start = part_name(name, cfg, 0, "").split("0 calls")[0]
    return sorted({int(part.split("/")[2].split()[0]) for part in document["results"] if part.startswith(start)})


def curve(document: Document, name: str, cfg: float, method: str) -> dict[int, float]:
    """Error by number of calls."""
    found = {}
    for calls in calls_in(document, name, cfg):
        result = document["results"].get(part_name(name, cfg, calls, method))
        if result is not None:
            found[calls] = result["rmse"]
    return found


def relative_curve(document: Document, name: str, cfg: float, method: str, own: Result, part: int | None = None) -> dict[int, float]:
    """Error of a method by number of calls, relative to that of one result: on the seeds that both have, or on one set of them."""
    found = {}
    for calls in calls_in(document, name, cfg):
        result = document["results"].get(part_name(name, cfg, calls, method))
        if result is not None:
            both = min(len(result["sets"]), len(own["sets"]))
            if part is None:
                found[calls] = _error(result, own, both) / _error(own, result, both)
            elif part < both:
                found[calls] = result["sets"][part] / own["sets"][part]
    return found


def _error(result: Result, other: Result, sets: int) -> float:
    """Of all seeds if the other has as many, else of the sets that both have."""
    if result["seeds"] == other["seeds"]:
        return float(result["rmse"])
    return math.sqrt(sum(error**2 for error in result["sets"][:sets]) / sets)


def matching_calls(errors: Mapping[int, float], error: float) -> float:
    """The number of calls at which a curve comes down to an error, between its points in logarithms of both.

    Infinity if it does not within its range; its least number of calls if it begins below.
    """
    before: int | None = None
    for calls in sorted(errors):
        if errors[calls] <= error:
            if before is None or errors[before] <= 0 or errors[calls] <= 0 or error <= 0:
                return float(calls)
            share = math.log(errors[before] / error) / math.log(errors[before] / errors[calls])
            return before * (calls / before) ** share
        before = calls
    return math.inf


def headlines(document: Document, calls: Sequence[int] = HEADLINE_CALLS) -> list[dict[str, Any]]:
    """For each problem, guidance and setting of FewStep's: the calls of others that match, with all seeds, then with each set of them."""
    found = []
    for name, cfg in scenes(document):
        for method in OURS:
            for count in calls:
                own = document["results"].get(part_name(name, cfg, count, method))
                if own is None:
                    continue
                matched = {}
                for other in compared(noise_schedule_of(name)):
                    whole, *parts = (relative_curve(document, name, cfg, other, own, part) for part in (None, *range(len(own["sets"]))))
                    if whole:  # a set that lacks some of the calls would end before the others
                        curves = [whole, *(errors for errors in parts if errors.keys() == whole.keys())]
                        matched[other] = [_shown(errors, 1.0) for errors in curves]
                found.append({"problem": name, "cfg": cfg, "calls": count, "setting": method, "matched by": matched})
    return found


def _shown(errors: Mapping[int, float], error: float) -> str:
    matched = matching_calls(errors, error)
    if math.isinf(matched):
        return f"> {max(errors)}"
    return f"<= {min(errors)}" if matched <= min(errors) else f"{matched:.1f}"


def _with_spread(shown: Sequence[str]) -> str:
    """Of all seeds, and the least and the most of their parts."""
    if len(shown) < 2 or len(set(shown)) == 1:
        return shown[0] if shown else ""
    parts = sorted(shown[1:], key=_as_number)
    return f"{shown[0]} ({parts[0]} to {parts[-1]})"


def _as_number(shown: str) -> float:
    return math.inf if shown.startswith(">") else float(shown.removeprefix("<= "))


def headline_rows(found: Sequence[Mapping[str, Any]], spread: bool = True) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| model | guidance | FewStep's setting | calls | Euler, simple | DPM++ 2M, Karras (flow: simple) | best of all stock |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in found:
        shown = [row["matched by"].get(other, [""]) for other in compared(noise_schedule_of(row["problem"]))]
        cells = [_with_spread(each if spread else each[:1]) for each in shown]
        first = (title_of(row["problem"]), f"{row['cfg']:g}", row["setting"], str(row["calls"]))
        lines.append(f"| {' | '.join((*first, *cells))} |")
    return lines


def headlines_as_text(found: Sequence[Mapping[str, Any]]) -> str:
    """For a terminal."""
    lines = ["Calls of other settings that match FewStep's calls:"]
    for row in found:
        others = ", ".join(f"{other} {shown[0]}" for other, shown in row["matched by"].items())
        lines.append(f"{title_of(row['problem'])}, guidance {row['cfg']:g}: {row['calls']} calls, {row['setting']} = {others}")
    return "\n".join(lines)


def lost_rankings(document: Document, calls: int = 5) -> list[str]:
    """Sentences for each ranking that must hold at few calls and does not: FewStep ahead of the usual settings, calibration of FewStep."""
    lost = []
    for name, cfg in scenes(document):
        errors = {method: curve(document, name, cfg, method).get(calls) for method in (*USUAL, *OURS)}
        own = errors[FEWSTEP]
        if own is None:
            continue
        must = [(FEWSTEP, other) for other in compared(noise_schedule_of(name))[:2]]
        must += [(CALIBRATED, FEWSTEP)] if errors[CALIBRATED] is not None and cfg == 2 else []
        lost += [
            f"{name} at guidance {cfg:g}, {calls} calls: {better} ({errors[better]:.4g}) is not ahead of {worse} ({errors[worse]:.4g})."
            for better, worse in must
            if not errors[better] < errors[worse]  # type: ignore[operator]
        ]
    return lost


def behind_rows(document: Document) -> list[str]:
    """Lines of a Markdown table: where a usual setting is ahead of FewStep's default."""
    lines = ["| model | guidance | calls | ahead | FewStep's error relative to it |", "|---|---|---|---|---|"]
    for name, cfg in scenes(document):
        curves = {method: curve(document, name, cfg, method) for method in USUAL}
        for calls, error in curve(document, name, cfg, FEWSTEP).items():
            errors = {method: points[calls] for method, points in curves.items() if calls in points}
            best = min(errors, key=lambda method: errors[method])
            if errors[best] < error:
                lines.append(f"| {title_of(name)} | {cfg:g} | {calls} | {best} | {error / errors[best]:.2f} |")
    return lines


def tally(document: Document) -> list[str]:
    """How often each of FewStep's settings is ahead of the best of all stock with as many calls."""
    lines = []
    for method in OURS:
        ahead = total = 0
        for name, cfg in scenes(document):
            stock = curve(document, name, cfg, BEST_STOCK)
            for calls, error in curve(document, name, cfg, method).items():
                if calls in stock:
                    total += 1
                    ahead += error < stock[calls]
        if total:
            lines.append(f"* {method}: ahead of the best of all stock in {ahead} of {total} comparisons (model, guidance and calls).")
    return lines


def as_markdown(document: Document, tables: str = "") -> str:
    """The report; with `tables`, a link to where `long_tables` are, it leaves these out."""
    lines = [_HEAD, "## Calls that match", "", _MATCH, ""]
    lines += headline_rows(headlines(document))
    if not any(part.endswith(f"/{TUNED}") for part in document["results"]):
        lines += ["", _NO_TUNED]
    lines += ["", "## Where FewStep is behind", "", *tally(document), "", _BEHIND, "", *behind_rows(document)]
    lines += ["", "## Pictures as a classifier sees them", "", *judged_lines(document)]
    if document.get("host"):
        lines += ["", "## Many steps with a cache", "", _CACHES, "", caches_in_a_sentence(document)]
        lines += ["", f"[All settings]({tables}#many-steps-with-a-cache)"] if tables else ["", _CACHE_ROWS, "", *cache_rows(document)]
    if document.get("amed"):
        lines += ["", "## AMED on the emoji model", "", _AMED, "", *amed_rows(document)]
    lines += ["", "## All errors", ""]
    lines += [f"[Of every setting]({tables}), also of the median seed."] if tables else _all_errors(document)
    lines += ["", "## How it was made", ""]
    runs: dict[str, list[str]] = {}
    for run in document["runs"]:
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        host = f"{run['host']}; " if "host" in run else ""
        where = f"Commit {run['commit'][:10]}, {run['date']}; {host}{versions}; {run['machine']}; seeds {run['seeds']}:"
        runs.setdefault(where, []).append(run["command"])
    for where, commands in runs.items():
        lines += [where, "", *(f"    {command}" for command in commands), ""]
    lines += [f"The teacher takes {document['runs'][0]['teacher']}." if document["runs"] else "", ""]
    return "\n".join(lines)


def long_tables(document: Document, report: str) -> str:
    """The page beside the report, with a link to it: every error, and every setting with a cache."""
    lines = ["# FewStep side by side: every error", "", f"What it means: [FewStep side by side]({report}).", "", *_all_errors(document)]
    if document.get("host"):
        lines += ["", "## Many steps with a cache", "", _CACHES, _CACHE_ROWS, "", *cache_rows(document)]
    return "\n".join([*lines, ""])


def _all_errors(document: Document) -> list[str]:
    lines = [_ERRORS]
    for name, cfg in scenes(document):
        lines += ["", f"### {title_of(name)}, guidance {cfg:g}, {_seeds(document, name, cfg)} seeds", "", *_errors(document, name, cfg)]
    return lines


def cache_scenes(document: Document) -> list[tuple[str, float]]:
    """Problem and guidance of what was measured in the host."""
    found = dict.fromkeys(tuple(part.split("/")[:2]) for part in document.get("host", {}))
    return [(name, float(cfg.removeprefix("cfg "))) for name, cfg in found]


def caches(document: Document, name: str, cfg: float) -> dict[str, Mapping[str, Any]]:
    """What was measured in the host with a model and a guidance, by label."""
    start = f"{name}/cfg {cfg:g}/"
    return {part.removeprefix(start): row for part, row in document.get("host", {}).items() if part.startswith(start)}


def times_the_passes(document: Document) -> list[float]:
    """Of settings whose cache saves 25 to 60 %, their forward passes as a multiple of the default's for the same error; 0: out of reach."""
    found = []
    for name, cfg in cache_scenes(document):
        own = _default_by_passes(document, name, cfg)
        for row in caches(document, name, cfg).values():
            if row["cache"] and _SAVES[0] <= 1 - row["passes"] / row["most"] <= _SAVES[1]:
                found.append(row["passes"] / matching_calls(own, row["rmse"]))
    return found


def caches_in_a_sentence(document: Document) -> str:
    """How often the default is as close with fewer passes, and by how much."""
    times = times_the_passes(document)
    more = sorted(each for each in times if each > 1)
    if not more:
        return ""
    return (
        f"Of {len(times)} settings whose cache saves 25 to 60 %, {len(more)} take more forward passes than FewStep's default does for the "
        f"same error: {more[0]:.1f} to {more[-1]:.1f} times as many, {more[len(more) // 2]:.1f} in the middle."
    )


def _default_by_passes(document: Document, name: str, cfg: float) -> dict[int, float]:
    """The default's error by forward passes, on the seeds of the host's rows."""
    errors = document.get("host default", {}).get(f"{name}/cfg {cfg:g}", {"rmse": {}})["rmse"]
    return {(1 if cfg == 1 else 2) * int(calls): error for calls, error in errors.items()}


def cache_rows(document: Document) -> list[str]:
    """Lines of a Markdown table: forward passes and error with the host's caches, and the passes with which FewStep is as close."""
    lines = ["| model | guidance | in ComfyUI | forward passes | saved | error (median) | FewStep's passes for that error |"]
    lines.append("|---" * 7 + "|")
    for name, cfg in cache_scenes(document):
        own = _default_by_passes(document, name, cfg)
        for label, row in caches(document, name, cfg).items():
            saved = f"{100 * (1 - row['passes'] / row['most']):.0f} %"
            matched = _shown(own, row["rmse"]) if own else ""
            cells = (f"{row['passes']:.1f}", saved, f"{row['rmse']:.4f} ({row['median']:.4f})", matched)
            lines.append(f"| {title_of(name)} | {cfg:g} | {label} | {' | '.join(cells)} |")
    return lines


def _seeds(document: Document, name: str, cfg: float) -> str:
    start = f"{name}/cfg {cfg:g}/"
    counts = sorted({result["seeds"] for part, result in document["results"].items() if part.startswith(start)})
    return " or ".join(map(str, counts))


def _errors(document: Document, name: str, cfg: float) -> list[str]:
    passes = 1 if cfg == 1 else 2
    calls = calls_in(document, name, cfg)
    lines = [f"| calls | {' | '.join(map(str, calls))} |", "|---" * (len(calls) + 1) + "|"]
    lines.append(f"| forward passes | {' | '.join(str(passes * each) for each in calls)} |")
    for method in (*USUAL, BEST_STOCK, *OURS):
        results = [document["results"].get(part_name(name, cfg, each, method)) for each in calls]
        if any(results):
            cells = [f"{result['rmse']:.4f} ({result['median']:.4f})" if result else "" for result in results]
            lines.append(f"| {method} | {' | '.join(cells)} |")
    winners = [document["results"].get(part_name(name, cfg, each, BEST_STOCK), {}).get("setting", "") for each in calls]
    return [*lines, f"| which is | {' | '.join(winners)} |"]


def amed_rows(document: Document) -> list[str]:
    """Lines of a Markdown table: AMED tables beside the solvers that they start from."""
    lines = ["| guidance | calls | setting | error (median) |", "|---|---|---|---|"]
    for part, row in document.get("amed", {}).items():
        _, cfg, calls, label = part.split("/", 3)
        lines.append(f"| {cfg.removeprefix('cfg ')} | {calls.split()[0]} | {label} | {row['rmse']:.4f} ({row['median']:.4f}) |")
    return lines


_HEAD = """# FewStep side by side

How far the end of few-step sampling is from where the same noise ends with a 64-step teacher, against model calls. `fewstep bench` wrote
this page and measured all of it except the caches and AMED on the emoji model; `fewstep bench --quick` repeats the core of it within
three minutes.

![Error against forward passes](bench.png)
"""
_MATCH = """With the calls given, FewStep ends as close to the teacher as each other setting does with the number of calls in its column; ">
8" means that 8 calls, the most that were measured there, are not enough, "<= 5" that 5, the fewest, are. In parentheses: the lowest and
the highest result over separate sets of 25 seeds (four smaller ones where there are 25 in all). The best of all stock is an oracle: the
best of 60 to 75 combinations of solver and schedule, chosen on these very seeds for each number of calls (all run on the first few seeds;
the best of those, and the usual settings, on all). Nobody has it, but it is what a patient search could find. DPM++ 2M is computed with
the half-log-SNR of flow models where the model is one; ComfyUI does not."""
_ERRORS = """Root mean square error over all seeds, and of the median seed in parentheses. With guidance every call is two forward
passes. The recipes are those that ship, fitted at guidance 2 and used where their own check does not object, and those of the other
folders named in the commands; `benchmarks/recipes/README.md` says how these were made. No LoRA ships with the demo models: a tuned model
is listed where `--tuned` named one."""
_NO_TUNED = """A LoRA on top of a recipe is not in these tables: none ships with the demo models. What one adds was measured on seeds of its
own, in [Tune a LoRA to its few steps](tuning.md#what-was-measured); `--tuned` puts yours into the tables."""
_BEHIND = """Where one of the usual settings is closer to the teacher than FewStep's default with as many calls, and FewStep's error
relative to it:"""
_CACHES = """What many would do instead of using fewer steps: 20 or 30 of them, with the node EasyCache or LazyCache of ComfyUI, which
skips forward passes where the model's answer hardly changes. Measured in the real host (`benchmarks/host_caches.py`), each picture sampled
alone, its forward passes counted in the network, on the first 8 seeds (emoji: 4)."""
_CACHE_ROWS = "The last column has the passes after which FewStep's default is as close to the teacher, on the same seeds."
_AMED = """Tables fitted with forward passes on 32 other seeds (`benchmarks/amed_emoji.py`), on every second level of the optimized steps
from s = 1, beside their own solver, UniPC on all of those steps, and FewStep's default."""
