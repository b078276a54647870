"""What the results of `fewstep bench` say: how many calls of other settings match FewStep's, and all errors as tables."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .bench import part_name
from .bench_problems import PROBLEMS, noise_schedule_of, title_of
from .bench_settings import AMED, BEST_STOCK, CALIBRATED, FEWSTEP, USUAL, compared

Document = Mapping[str, Any]
OURS = (FEWSTEP, CALIBRATED, AMED)
HEADLINE_CALLS = (5, 8)


def scenes(document: Document) -> list[tuple[str, float]]:
    """Problem and guidance of all results, in the order of `PROBLEMS`."""
    found = {(name.split("/")[0], float(name.split("/")[1].removeprefix("cfg "))) for name in document["results"]}
    return sorted(found, key=lambda scene: (PROBLEMS.index(scene[0]), scene[1]))


def calls_in(document: Document, name: str, cfg: float) -> list[int]:
    """Numbers of calls with results."""
    start = part_name(name, cfg, 0, "").split("0 calls")[0]
    return sorted({int(part.split("/")[2].split()[0]) for part in document["results"] if part.startswith(start)})


def curve(document: Document, name: str, cfg: float, method: str, half: int | None = None) -> dict[int, float]:
    """Error by number of calls; of every second seed, from the first (0) or second (1) on, or of all."""
    found = {}
    for calls in calls_in(document, name, cfg):
        result = document["results"].get(part_name(name, cfg, calls, method))
        if result is not None:
            squares = result["squares"] if half is None else result["squares"][half::2]
            found[calls] = math.sqrt(sum(squares) / len(squares))
    return found


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
    """For each problem, guidance and setting of FewStep's: the calls of others that match, with all seeds and with each half."""
    found = []
    for name, cfg in scenes(document):
        beside = compared(noise_schedule_of(name))
        others = {method: [curve(document, name, cfg, method, half) for half in (None, 0, 1)] for method in beside}
        for method in OURS:
            own = [curve(document, name, cfg, method, half) for half in (None, 0, 1)]
            for count in calls:
                if count in own[0]:
                    matched = {
                        other: [_shown(curves[k], own[k][count]) for k in range(3)] for other, curves in others.items() if curves[0]
                    }
                    found.append({"problem": name, "cfg": cfg, "calls": count, "setting": method, "matched by": matched})
    return found


def _shown(errors: Mapping[int, float], error: float) -> str:
    matched = matching_calls(errors, error)
    if math.isinf(matched):
        return f"> {max(errors)}"
    return f"<= {min(errors)}" if matched <= min(errors) else f"{matched:.1f}"


def _with_spread(shown: Sequence[str]) -> str:
    return shown[0] if shown[1] == shown[2] == shown[0] else f"{shown[0]} ({shown[1]}; {shown[2]})"


def headline_rows(found: Sequence[Mapping[str, Any]], spread: bool = True) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| model | guidance | FewStep's setting | calls | Euler, simple | DPM++ 2M, Karras (flow: simple) | best of all stock |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in found:
        shown = [row["matched by"].get(other, ["", "", ""]) for other in compared(noise_schedule_of(row["problem"]))]
        cells = [_with_spread(each) if spread else each[0] for each in shown]
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


def as_markdown(document: Document) -> str:
    """The whole report."""
    lines = [_HEAD, "## Calls that match", "", _MATCH, ""]
    lines += headline_rows(headlines(document))
    lines += ["", "## Where FewStep is behind", "", *tally(document), "", _BEHIND, "", *behind_rows(document)]
    lines += ["", "## All errors", "", _ERRORS]
    for name, cfg in scenes(document):
        lines += ["", f"### {title_of(name)}, guidance {cfg:g}, {_seeds(document, name, cfg)} seeds", "", *_errors(document, name, cfg)]
    lines += ["", "## How it was made", ""]
    for run in document["runs"]:
        versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
        where = f"commit {run['commit'][:10]}, {run['date']}; {versions}; {run['machine']}; seeds {run['seeds']}"
        lines += [f"* `{run['command']}`  ", f"  {where}"]
    lines += ["", f"The teacher takes {document['runs'][0]['teacher']}." if document["runs"] else "", ""]
    return "\n".join(lines)


def _seeds(document: Document, name: str, cfg: float) -> str:
    start = f"{name}/cfg {cfg:g}/"
    counts = sorted({len(result["squares"]) for part, result in document["results"].items() if part.startswith(start)})
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


_HEAD = """# FewStep side by side

How far the end of few-step sampling is from where the same noise ends with a 64-step teacher, against model calls. `fewstep bench` measured
everything here and wrote this page; `fewstep bench --quick` repeats the core of it within three minutes.

![Error against forward passes](bench.png)
"""
_MATCH = """With so many calls, FewStep is as close to the teacher as each of the others with the number in its column; "> 12" means that
12 calls, the most that were measured there, are not enough. In parentheses: the same with each half of the seeds. The best of all stock
is an oracle: the best of 60 to 75 combinations of solver and schedule, chosen on these very seeds for each number of calls (all run on the
first few seeds, the six best on all). Nobody has it, but it is what a patient search could find. DPM++ 2M is computed with the
half-log-SNR of flow models where the model is one; older hosts did not."""
_ERRORS = """Root mean square error over all seeds, and of the median seed in parentheses. With guidance every call is two forward
passes. The recipes were fitted at guidance 2 and are used where their own check does not object. Left out: EasyCache and LazyCache,
Frechet distances, tuned weights."""
_BEHIND = """Where one of the usual settings is closer to the teacher than FewStep's default with as many calls, and FewStep's error
relative to it:"""
