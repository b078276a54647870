"""The guard: scores candidates on seeds that no fit has seen, so that a result is never worse than the best stock setting.

The score is the root mean square distance of end points to the teacher's. If there are many candidates, all are scored on a few seeds
first, and the better ones on all. Let r_s be the root mean square distance of seed s. A candidate made by this package (optimized steps,
fitted tables) is chosen instead of the best stock candidate (r_s') if

    its error is below:  mean r_s^2 < mean r_s'^2,  or
    it is significantly closer on the typical seed (Wilcoxon's signed-rank test of r_s against r_s', p < 0.025),
    and not significantly farther in the mean square:  mean(r_s^2 - r_s'^2) <= 2 standard errors  (12 seeds or more)

The second rule is for errors with a heavy tail: a seed near the border between two modes of the model that ends in the other mode
contributes as much to a mean square as a hundred others, so a single such seed would decide. If there is a judge, it must also not find
the candidate significantly worse.

k additional such seeds shift the mean by only about sqrt(k) standard errors, so a limit of two misses up to four of them, however many
seeds there are. Where the tail matters and 24 or more seeds decide, the last limit is therefore half a standard error. Simulated with 48
seeds: a fit that is better by a quarter on the typical seed, but has 1.2 times the root mean square because 4 % of its seeds instead of 1 %
end in another picture, is returned in 48 % instead of 96 % of the cases; one that flips no more often, and has 0.87 of it, in 82 % instead
of 100 %.

Among the candidates of this package that are ahead of stock, one may be a fit that started from another of them, or from stock. It has an
advantage: the others were chosen on these very seeds, for being best there, and it was fitted on others. It is taken unless it is farther
on the median seed, or farther in the mean square by more than what one further seed in another picture makes: one standard error (half of
one where 24 or more seeds decide; with fewer than 12 the mean square decides).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .candidates import Candidate, SamplerCandidate
from .failures import enough_memory
from .residual import ResidualMap, mapped
from .run import Run, run_table
from .setting import FitError, Setting
from .teacher import Teacher

Array = NDArray[np.float64]
Judge = Callable[[Tensor, Setting], Tensor]
"""judge(end points [B, *shape], their seeds' setting) -> a score for each; higher is better (e.g. 1 if a classifier agrees)."""

SCREENED_ON, FINALISTS = 4, 6
_BEYOND_CHANCE = 2.0  # standard errors of the paired difference
_CHANCE = 0.025  # one-sided
_FEW_SEEDS = 12  # with fewer, significance cannot be tested, and the mean square decides
_SHOW_THE_TAIL, _IN_THE_TAIL = 24, 0.5  # seeds, and the standard errors that a candidate may be farther on them where the tail matters
_ONE_SEED = 1.0  # standard errors that one seed far away makes


@dataclass(frozen=True)
class Score:
    """A candidate's result on the held-out seeds.

    Attributes
    ----------
    candidate : Candidate or SamplerCandidate
        The candidate.
    squares : array [S]
        Mean square distance of each seed to the teacher; inf if an end point is not finite.
    judged : array [S] or None
        The judge's score of each seed.
    calls : int
        Model calls per sample.
    """

    candidate: Candidate | SamplerCandidate
    squares: Array
    judged: Array | None
    calls: int

    @property
    def error(self) -> float:
        """Root mean square distance over all seeds."""
        return math.sqrt(float(self.squares.mean()))


@dataclass(frozen=True)
class Comparison:
    """Scores in order of error, and which candidate to use.

    Attributes
    ----------
    scores : tuple of Score
        On all seeds, best first.
    screened_out : tuple of str
        Names of candidates that were only scored on the first few seeds.
    winner : Score
        The candidate to use.
    best_stock : Score or None
        The best candidate of kind "stock", if there was one.
    verdict : str
        One sentence.
    calls : int
        Total model calls, each on one batch.
    """

    scores: tuple[Score, ...]
    screened_out: tuple[str, ...]
    winner: Score
    best_stock: Score | None
    verdict: str
    calls: int

    def score_of(self, name: str) -> Score:
        """The score of a candidate by name."""
        for score in self.scores:
            if score.candidate.name == name:
                return score
        raise ValueError(f"There is no score for {name!r}; there are scores for {', '.join(s.candidate.name for s in self.scores)}.")

    def ratio(self, score: Score, draws: int = 2000) -> tuple[float, float, float]:
        """Error of `score` relative to the best stock candidate, with the ends of its 95% bootstrap interval over seeds."""
        if self.best_stock is None:
            raise ValueError("There was no stock candidate to compare with.")
        return error_ratio(score.squares, self.best_stock.squares, draws)

    def table(self) -> str:
        """All scores as a Markdown table."""
        judged = any(score.judged is not None for score in self.scores)
        lines = ["| candidate | kind | model calls | error | to best stock |" + (" judged |" if judged else "")]
        lines.append("|---|---|---|---|---|" + ("---|" if judged else ""))
        for score in self.scores:
            mark = "**" if score is self.winner else ""
            ratio = f"{score.error / self.best_stock.error:.2f}" if self.best_stock and self.best_stock.error else "-"
            line = f"| {mark}{score.candidate.name}{mark} | {score.candidate.kind} | {score.calls} | {score.error:.4g} | {ratio} |"
            lines.append(line + (f" {float(np.mean(score.judged)):.1%} |" if score.judged is not None else (" |" if judged else "")))
        return "\n".join(lines)


def error_ratio(squares: Array, reference: Array, draws: int = 2000) -> tuple[float, float, float]:
    """Ratio of root mean squares and its 95% bootstrap interval; both are resampled with the same seeds (shared noise and teacher)."""
    picks = np.random.default_rng(0).integers(0, len(squares), (draws, len(squares)))
    ratios = np.sqrt(squares[picks].mean(1) / reference[picks].mean(1))
    low, high = np.quantile(ratios, [0.025, 0.975])
    return math.sqrt(float(squares.mean() / reference.mean())), float(low), float(high)


def check_candidates(candidates: Sequence[Candidate | SamplerCandidate], family: str) -> None:
    """ValueError if there are no candidates, or one is stochastic or for another family; for jobs, before the teacher's pass."""
    if not candidates:
        raise ValueError("There are no candidates; at least one is needed.")
    for candidate in candidates:
        if candidate.family != family:
            raise ValueError(
                f"{candidate.name} is made for {candidate.family} models, but the model's family is {family}."
            )
        if isinstance(candidate, Candidate) and candidate.table.stochastic:
            raise ValueError(
                f"{candidate.name} adds fresh noise in its steps; only deterministic solvers can be compared by their end points."
            )


def compare(
    setting: Setting,
    teacher: Teacher | Tensor,
    candidates: Sequence[Candidate | SamplerCandidate],
    *,
    mapping: ResidualMap | None = None,
    judge: Judge | None = None,
    screen: int = SCREENED_ON,
    finalists: int = FINALISTS,
    progress: Callable[[int, int], object] | None = None,
) -> Comparison:
    """Score `candidates` on the seeds of `setting` and pick one.

    Parameters
    ----------
    setting : Setting
        Held-out seeds: none of them may have been used in a fit.
    teacher : Teacher or Tensor [S, *shape]
        The setting's teacher, or its end points.
    candidates : sequence
        The candidates.
    mapping : callable or None
        Maps end points to what is compared; default: the end points themselves.
    judge : callable or None
        Optional second opinion.
    screen, finalists : int
        All candidates are scored on the first `screen` seeds; the best `finalists` and all fitted ones on all seeds.
    progress : callable or None
        Called with (model calls so far, upper bound of the total); may raise `Interrupted` to stop.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If there are no candidates, one is stochastic or for another family, or the teacher has other seeds.
    FitError
        If no candidate has finite end points, or the model fails.
    """
    check_candidates(candidates, setting.noise_schedule.family)
    if isinstance(teacher, Teacher) and teacher.setting.seeds != setting.seeds:
        raise ValueError("The teacher's pass has other seeds than the setting; make it from the same setting.")
    targets = teacher.end_points if isinstance(teacher, Teacher) else teacher
    if tuple(targets.shape) != (len(setting.seeds), *setting.shape):
        raise ValueError(
            f"The teacher's end points have shape {tuple(targets.shape)}; the setting has {len(setting.seeds)} seeds of shape "
            f"{setting.shape}."
        )
    scorer = Scorer(mapping, judge, progress)
    entering = list(candidates)
    screened_out: list[str] = []
    if len(entering) > finalists and screen < len(setting.seeds):
        first = setting.subset(range(screen))
        most = max(c.nfe for c in entering)
        remaining = min(len(entering), finalists + sum(c.kind == "fitted" for c in entering))
        scorer.expect(sum(c.nfe for c in entering) * _chunks(first) + remaining * most * _chunks(setting))
        ranked = sorted(scorer.scores(first, targets[:screen], entering), key=lambda score: score.error)
        kept = [score.candidate for score in ranked if score.candidate.kind == "fitted"]
        others = [score.candidate for score in ranked if score.candidate.kind != "fitted"]
        stock_first = [c for c in others if c.kind == "stock"][: -(-finalists // 2)]  # keep the reference
        kept += stock_first + [c for c in others if c not in stock_first][: finalists - len(stock_first)]
        screened_out = [candidate.name for candidate in entering if candidate not in kept]
        entering = kept
    else:
        scorer.expect(sum(c.nfe for c in entering) * _chunks(setting))
    return decided(scorer.scores(setting, targets, entering), screened_out, scorer.calls)


def decided(
    scores: Sequence[Score],
    screened_out: Sequence[str] = (),
    calls: int = 0,
    tail_matters: bool = False,
    fitted: Score | None = None,
) -> Comparison:
    """The guard's decision between scores on the same seeds.

    Parameters
    ----------
    scores : sequence of Score
        Of all candidates.
    screened_out, calls
        See `Comparison`.
    tail_matters : bool
        Whether a candidate that is closer on the typical seed may be only slightly farther in the mean square.
    fitted : Score or None
        The one of the scores that was fitted on other seeds, while the others were chosen on these. Without stock it has no advantage.

    Raises
    ------
    FitError
        None of the errors is finite.
    """
    ranked = sorted(scores, key=lambda score: score.error)
    if not math.isfinite(ranked[0].error):
        raise FitError("No candidate has finite end points. Run the model in a higher precision, or lower the guidance.")
    best_stock = next((score for score in ranked if score.candidate.kind == "stock" and math.isfinite(score.error)), None)
    winner, verdict = _winner(ranked, best_stock, tail_matters, fitted)
    return Comparison(tuple(ranked), tuple(screened_out), winner, best_stock, verdict, calls)


def _winner(scores: Sequence[Score], best_stock: Score | None, tail_matters: bool, fitted: Score | None) -> tuple[Score, str]:
    score, refused, passed_over = scores[0], [], ""
    if best_stock is not None:
        score = best_stock
        for rival in scores:
            if rival.candidate.kind == "stock" or not _ahead(rival, best_stock, tail_matters):
                continue
            if judged_worse(rival, best_stock):
                refused.append(rival.candidate.name)
            elif _ahead(rival, score, tail_matters):
                score = rival
        if fitted is not None and score is not best_stock and _ahead(fitted, best_stock, tail_matters):
            if fitted.candidate.name not in refused and fitted is not score and _as_good(fitted, score):
                passed_over = f" {score.candidate.name} has {score.error:.4g}, but was chosen on these very seeds."
                score = fitted
    name, error = score.candidate.name, score.error
    judged = (f" The judge found {', '.join(refused)} worse than stock." if refused else "") + passed_over
    if best_stock is None:
        return score, f"{name} has the smallest error, {error:.4g}; no stock candidate was compared." + judged
    if score is best_stock:
        return score, f"Stock wins: nothing compared is better than {name} (error {error:.4g}), so you get that." + judged
    if error >= best_stock.error:
        typical = f"{_typical(score):.4g} against {_typical(best_stock):.4g} for the best stock candidate, {best_stock.candidate.name}"
        tail = f"its root mean square, {error:.4g} against {best_stock.error:.4g}, is dominated by a few seeds that end elsewhere"
        return score, f"{name} is closer to the teacher on the typical seed, {typical}; {tail}." + judged
    better = f"{name} has {error / best_stock.error:.2f} of the error of the best stock candidate, {best_stock.candidate.name}"
    return score, f"{better} ({error:.4g} against {best_stock.error:.4g})." + judged


def _ahead(score: Score, other: Score, tail_matters: bool) -> bool:
    """Whether to prefer one score to another by the rules in the module's docstring."""
    if not math.isfinite(score.error) or score.error < other.error:
        return math.isfinite(score.error)
    if len(score.squares) < _FEW_SEEDS:
        return False
    allowed = _IN_THE_TAIL if tail_matters and len(score.squares) >= _SHOW_THE_TAIL else _BEYOND_CHANCE
    return not beyond_chance(score.squares - other.squares, allowed) and _typically_closer(score, other)


def _as_good(fitted: Score, other: Score) -> bool:
    """Whether to prefer a fit to a candidate that was chosen on these seeds."""
    if len(fitted.squares) < _FEW_SEEDS or judged_worse(fitted, other):
        return False
    allowed = _IN_THE_TAIL if len(fitted.squares) >= _SHOW_THE_TAIL else _ONE_SEED
    return not beyond_chance(fitted.squares - other.squares, allowed) and _typical(fitted) < _typical(other)


def _typically_closer(score: Score, other: Score) -> bool:
    """Whether the seeds of `score` are significantly closer to the teacher, however far away a few of them are."""
    from scipy.stats import wilcoxon  # slow to import

    differences = np.sqrt(other.squares) - np.sqrt(score.squares)
    return bool(differences.any()) and float(wilcoxon(differences, alternative="greater").pvalue) < _CHANCE


def _typical(score: Score) -> float:
    """Median over seeds of the root mean square distance of each."""
    return float(np.median(np.sqrt(score.squares)))


def _chunks(setting: Setting) -> int:
    return -(-len(setting.seeds) // setting.batch)


def judged_worse(score: Score, other: Score) -> bool:
    """Whether the judge, if there is one, finds a score's pictures worse than another's beyond chance."""
    return score.judged is not None and other.judged is not None and beyond_chance(other.judged - score.judged)


def beyond_chance(differences: Array, errors: float = _BEYOND_CHANCE) -> bool:
    """Whether the mean of paired differences [S] is more than `errors` standard errors above zero."""
    spread = float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return float(differences.mean()) > max(errors * spread, 0.0)


class Scorer:
    """Samples candidates in batches of seeds, with one batch in memory at a time.

    Attributes
    ----------
    calls : int
        Model calls so far, each on one batch.
    """

    def __init__(self, mapping: ResidualMap | None, judge: Judge | None, progress: Callable[[int, int], object] | None) -> None:
        self.mapping, self.judge, self.progress = mapping, judge, progress
        self.calls = self.expected = 0

    def expect(self, calls: int) -> None:
        self.expected = calls

    def scores(self, setting: Setting, targets: Tensor, candidates: Sequence[Candidate | SamplerCandidate]) -> list[Score]:
        squares: list[list[Tensor]] = [[] for _ in candidates]
        judged: list[list[Tensor]] = [[] for _ in candidates]
        for chunk, target in zip(setting.chunks(), targets.split(setting.batch), strict=True):
            first: Run | None = None
            wanted = self._compared(target, chunk)
            for index, candidate in enumerate(candidates):
                with enough_memory(setting.batch):  # a sampler's own calls and the judge
                    if isinstance(candidate, Candidate):
                        run = run_table(chunk, candidate.table, first, self._called)
                        first, end = first or run, run.end  # most tables start with the same call
                    else:
                        end = self._sampled(candidate, chunk)
                    squares[index].append((self._compared(end, chunk) - wanted).square().mean(1))
                    if self.judge is not None:
                        judged[index].append(self.judge(end.to(setting.dtype), chunk).detach().double().cpu().reshape(-1))
        return [
            Score(candidate, _finite(torch.cat(square)), torch.cat(opinion).numpy() if opinion else None, candidate.nfe)
            for candidate, square, opinion in zip(candidates, squares, judged, strict=True)
        ]

    def _sampled(self, candidate: SamplerCandidate, chunk: Setting) -> Tensor:
        end = candidate.run(chunk)
        for _ in range(candidate.nfe):  # counted afterwards: the model is not wrapped, so that taps find its modules
            self._called()
        if end.shape != (len(chunk.seeds), *chunk.shape):
            shown = f"{tuple(end.shape)} for {len(chunk.seeds)} seeds of shape {chunk.shape}"
            raise FitError(f"{candidate.name} returned end points of shape {shown}; its `run` must return one per seed.")
        return end

    def _compared(self, end: Tensor, chunk: Setting) -> Tensor:
        return mapped(end, self.mapping, chunk.device, torch.float64)

    def _called(self) -> None:
        self.calls += 1
        if self.progress is not None:
            self.progress(self.calls, max(self.expected, self.calls))


def _finite(squares: Tensor) -> Array:
    return torch.where(squares.isfinite(), squares, torch.inf).numpy()
