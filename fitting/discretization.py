"""[H24] phase 1: the noise levels with the least error of a first-order sampler, from one teacher pass.

From the paper (arXiv 2412.10786): a first-order sampler's result is a convex combination of the model's outputs at the scheduled levels;
the discretization error of a schedule has an upper bound that can be estimated by Monte Carlo without running the sampler; phase 1
minimises it over the schedule. Everything below (the forms, the weightings and the search) is derived here and not taken from the paper.

In VE variables (y = x/alpha, sigma = e^-lambda, every family) a sample follows y' = eps, eps = (y - D)/sigma, or d(y/sigma) = -D/sigma^2
dsigma. A step of DDIM, which is Euler's method, from level s to t < s keeps eps_s fixed, or equivalently D_s. Starting on an exact
trajectory, its error in y_t is

    e(s, t) = INT_t^s (eps_s - eps_u) du = t INT_t^s (D_u - D_s) u^-2 du.                                                            (1)

Three bounds of the form SUM over steps of INT_t^s E|q_s - q_u|^2 u^p du follow, each by Jensen's inequality:

* q = eps, p = 0. Errors persist unchanged to the end and add up: |SUM e|^2 <= (s_0 - s_N) SUM INT |eps_s - eps_u|^2 du, where the
  weights (s_i - s_{i+1})/(s_0 - s_N) sum to 1.
* q = D, p = -2. Errors of y/sigma persist: |SUM e/t|^2 <= (1/s_N - 1/s_0) SUM INT |D_s - D_u|^2 u^-2 du.
* q = D, p = -1, the default. Errors of y have about the same weight wherever they arise and are uncorrelated, so their squares add up:
  with (1), |e|^2 <= t^2 (1/t - 1/s) INT |D_s - D_u|^2 u^-2 du, and t (1 - t/s) <= u in the integral gives

      SUM |e|^2 <= SUM INT_t^s |D_s - D_u|^2 du/u = SUM INT |D_s - D_u|^2 dlambda.                                                   (2)

  Why the weight should be constant: the error of a step at level s lies in directions that the model is just resolving, with a variance
  near s^2. There the derivative of D is near 1/2 at every level, so the remaining steps damp all such errors alike. (2) depends neither on
  the family nor on the scale of sigma, so one default works for all.

All are *teacher-forced*: the model is evaluated on exact trajectories, while a sampler drifts away from them. None bounds the sampler's
actual error, so the guard (guard.py) decides. On the demo model (benchmarks/discretization.py), (2) was the best of the forms and
weightings on average over 4 to 8 calls in all three families; p is a parameter for models that behave differently. "velocity" uses
q = (x - D)/s and u = s in the model's own variables instead, which differs from "eps" for flow models.

The last step goes to 0, where a first-order sampler returns D itself. It is compared with the trajectory's end D(sigma_min), so its
integral ends at sigma_min. A schedule is therefore N levels and 0, "0 in place of sigma_min". Paths that end with a step from sigma_min
to 0, at no cost, are included, and are chosen if they are better.

M[i, k] = E|q_i - q_k|^2 on a grid of levels is all that is needed. Two estimators:

* along teacher trajectories (`discretization_costs`): states and outputs of a stored pass, no further model calls;
* simulation-free (`discretization_costs_from_samples`): x = alpha x0 + std n with the same noise n at every level, from samples x0.

Integrating each row of M cumulatively with the trapezoidal rule gives the cost of every edge. Costs add up along a path, so a shortest
path (shortest_path.py) is the best schedule on the grid, for every N at once. A refinement then moves the nodes off the grid, to the
nearby minimum of the cost's cubic interpolant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..schedules import NoiseSchedule
from ..schedules.checks import real_number, whole_number
from ..schedules.families import alpha_of, check_family, sigma_from_half_log_snr
from .setting import FitError, Setting
from .shortest_path import Path, shortest_paths
from .teacher import DEFAULT_STEPS, Progress, Teacher, teacher_sigmas

Array = NDArray[np.float64]
Form = Literal["data", "eps", "velocity"]
FORMS: tuple[Form, ...] = get_args(Form)
DEFAULT_WEIGHTING: dict[Form, float] = {"data": -1.0, "eps": 0.5, "velocity": 0.5}
"""Default exponent p of each form: (2) for "data", the best measured for "eps", and the same for "velocity"."""

_SLICE = 1 << 22  # numbers converted to float64 at a time


@dataclass(frozen=True)
class PairCosts:
    """How much the model's outputs differ between the levels of a grid, and the resulting schedules.

    Attributes
    ----------
    differences : array [K, K]
        M: mean over samples and their elements of (q_i - q_k)^2, with q_i from the model that samples and q_k from the one
        that made the trajectories (usually the same model).
    sigmas : array [K + 1]
        The grid and a 0.
    lambdas : array [K]
        Half-log-SNR of the grid; finite even if a flow model starts at s = 1.
    family : {"vp", "edm", "flow"}
        The model family.
    form : {"data", "eps", "velocity"}
        What q is: D, (x - alpha D)/std or (x - D)/sigma.
    """

    differences: Array
    sigmas: Array
    lambdas: Array
    family: str
    form: Form = "data"

    def __post_init__(self) -> None:
        check_family(self.family)
        _check_form(self.form)
        count = len(self.lambdas)
        if count < 1 or self.differences.shape != (count, count) or self.sigmas.shape != (count + 1,):
            raise ValueError(
                f"differences had shape {self.differences.shape}, sigmas {self.sigmas.shape} and lambdas {self.lambdas.shape}; "
                "for K levels they must be [K, K], [K + 1] and [K]."
            )
        if not (np.diff(self.sigmas) < 0).all() or self.sigmas[-1] != 0 or not (np.diff(self.lambdas) > 0).all():
            raise ValueError("The grid's sigmas must strictly decrease to a last 0, and its lambdas strictly increase.")
        if not np.isfinite(self.differences).all():
            raise FitError("The model's outputs on the grid are not all finite (NaN or infinity). Run the model in a higher precision.")

    def schedule(self, steps: int, weighting: float | None = None, refine: bool = True) -> Tensor:
        """The best list for `steps` steps: see `discretization_schedule`."""
        return self.schedules_for([steps], weighting, refine)[steps]

    def schedules_for(self, steps: Iterable[int], weighting: float | None = None, refine: bool = True) -> dict[int, Tensor]:
        """The best list for each number of steps; all share one search.

        Parameters
        ----------
        steps : iterable of int
            Numbers of steps in 1..K.
        weighting : float or None
            Exponent p; None is the form's `DEFAULT_WEIGHTING`.
        refine : bool
            Whether to move nodes off the grid.

        Returns
        -------
        dict
            Number of steps -> float64 Tensor [N + 1], strictly decreasing to 0.
        """
        numbers = [whole_number(number, "steps", 1) for number in steps]
        if not numbers:
            return {}
        paths = self.paths(max(numbers), weighting)
        cumulated = self.cumulated(weighting)
        return {number: torch.from_numpy(self._levels(paths[number - 1], cumulated if refine else None)) for number in numbers}

    def paths(self, most: int, weighting: float | None = None) -> list[Path]:
        """The cheapest path on the grid with n steps, for n = 1..most; node K is the level 0."""
        return shortest_paths(self.edges(weighting), most)

    def cumulated(self, weighting: float | None = None) -> Array:
        """[K, K]: the weighted integral of row i from the first level to level k."""
        power = DEFAULT_WEIGHTING[self.form] if weighting is None else real_number(weighting, "weighting")
        ve = np.exp(-self.lambdas)  # VE sigma, with dsigma = sigma dlambda; a flow model's own s has ds = s (1 - s) dlambda
        own = np.asarray(sigma_from_half_log_snr(self.lambdas, self.family))
        weight = own ** (power + 1) * alpha_of(own, self.family) if self.form == "velocity" else ve ** (power + 1)
        integrand = self.differences * weight
        pieces = 0.5 * (integrand[:, 1:] + integrand[:, :-1]) * np.diff(self.lambdas)
        return np.concatenate([np.zeros((len(integrand), 1)), pieces.cumsum(1)], axis=1)

    def edges(self, weighting: float | None = None) -> Array:
        """[K + 1, K + 1]: cost of a step from level i to level j > i, 0 elsewhere; column K is the step to 0."""
        cumulated = self.cumulated(weighting)
        between = np.triu(cumulated - np.diagonal(cumulated)[:, None])
        return np.pad(np.concatenate([between, between[:, -1:]], axis=1), ((0, 1), (0, 0)))

    def _levels(self, path: Path, cumulated: Array | None) -> Array:
        nodes = np.array(path.nodes)
        levels = self.sigmas[nodes].copy()
        inner = nodes[1:-1]
        if cumulated is None or not len(inner) or len(self.lambdas) < 3:
            return levels
        moved = _refined(cumulated, self.lambdas, inner)
        # nodes that did not move keep the grid's exact level
        levels[1:-1] = np.where(moved == self.lambdas[inner], levels[1:-1], sigma_from_half_log_snr(moved, self.family))
        return levels


def discretization_costs(
    teacher: Teacher, form: Form = "data", progress: Progress | None = None, student: Setting | None = None
) -> PairCosts:
    """M along the trajectories of a teacher pass.

    Runs the missing part of the pass and makes no other model calls; holds one batch of it in memory.

    Parameters
    ----------
    teacher : Teacher
        Made with `states=True`; 64 to 128 steps are a fine grid.
    form : {"data", "eps", "velocity"}
        See `PairCosts`.
    progress : callable or None
        Progress of the teacher pass, or of the student's calls.
    student : Setting or None
        The same seeds with the model that will sample, if it is not the teacher's (phase 2 tunes it): a step from level i
        keeps *its* q_i, along the teacher's trajectory. Calls it once per level.

    Returns
    -------
    PairCosts

    Raises
    ------
    ValueError
        If the teacher keeps no states, or the form is unknown.
    FitError
        If states or outputs are not finite.
    """
    check_states(teacher)
    _check_form(form)
    teacher.run(progress)
    ns = teacher.setting.noise_schedule
    grid = teacher.sigmas[:-1].numpy()
    total = _Differences(grid, ns.family, form)
    if student is not None and (student.seeds, student.shape, student.batch) != (
        teacher.setting.seeds, teacher.setting.shape, teacher.setting.batch
    ):  # fmt: skip
        raise ValueError("The student's setting differs from the teacher's in seeds, batch or shape; only its model may differ.")
    chunks = list((teacher.setting if student is None else student).chunks())
    for index, (chunk, tensors) in enumerate(zip(chunks, teacher.batches(), strict=True)):
        outputs = None
        if student is not None:
            outputs = _asked(chunk, tensors["x"], grid, progress, index * len(grid), len(chunks) * len(grid))
        total.add(tensors["x"], tensors["d"], outputs)
    return total.costs(ns)


def _asked(student: Setting, x: Tensor, grid: Array, progress: Progress | None, before: int, calls: int) -> Tensor:
    """The student's D [K, B, ...] at states x [K, B, ...]."""
    found = []
    for k, sigma in enumerate(grid.tolist()):
        found.append(student.denoised(x[k].to(student.device, student.dtype), sigma).cpu().float())
        if progress is not None:
            progress(before + k + 1, calls)
    return torch.stack(found)


def discretization_costs_from_samples(
    setting: Setting, samples: Tensor, steps: int = DEFAULT_STEPS, form: Form = "data", progress: Progress | None = None
) -> PairCosts:
    """M from clean samples, noised to every level of a grid with the same noise; no sampler is run.

    On the demo model trajectories gave better lists.

    Parameters
    ----------
    setting : Setting
        The model, with one seed (for the noise) per sample; its `per_seed` arguments belong to the samples.
    samples : Tensor [S, *shape]
        x0 as the model would generate them (latents for latent models).
    steps : int
        Levels of the grid, which is that of a teacher with this many steps; also the model calls per batch.
    form : {"data", "eps", "velocity"}
        See `PairCosts`.
    progress : callable or None
        Called after every model call; may raise `Interrupted`.

    Returns
    -------
    PairCosts

    Raises
    ------
    ValueError
        If the samples have the wrong shape, or the form is unknown.
    FitError
        If the model's output cannot be used.
    """
    _check_form(form)
    wanted = (len(setting.seeds), *setting.shape)
    if not isinstance(samples, Tensor) or tuple(samples.shape) != wanted:
        shown = f"shape {tuple(samples.shape)}" if isinstance(samples, Tensor) else type(samples).__name__
        raise ValueError(f"samples had {shown}; they must have one sample per seed of the setting: shape {list(wanted)}.")
    ns = setting.noise_schedule
    grid = teacher_sigmas(ns, whole_number(steps, "steps", 1))[:-1].numpy()
    total = _Differences(grid, ns.family, form)
    chunks = list(setting.chunks())
    first = 0
    for index, chunk in enumerate(chunks):
        clean = samples[first : first + len(chunk.seeds)].to(device=setting.device, dtype=torch.float32)
        noise = replace(chunk, start=None).initial(1.0).float()
        first += len(chunk.seeds)
        states, outputs = [], []
        for k, sigma in enumerate(grid.tolist()):
            x = (float(alpha_of(sigma, ns.family)) * clean + sigma * noise).to(setting.dtype)
            states.append(x.cpu().float())
            outputs.append(chunk.denoised(x, sigma).detach().cpu().float())
            if progress is not None:
                progress(index * len(grid) + k + 1, len(chunks) * len(grid))
        total.add(torch.stack(states), torch.stack(outputs))
    return total.costs(ns)


def discretization_schedule(
    source: Teacher | PairCosts, steps: int, *, form: Form | None = None, weighting: float | None = None, refine: bool = True
) -> Tensor:
    """The noise levels with the least discretization loss for a first-order sampler ([H24] phase 1; module docstring).

    For several numbers of steps, compute `discretization_costs` once and call its `schedules_for`.

    Parameters
    ----------
    source : Teacher or PairCosts
        A teacher with states, or costs computed before.
    steps : int
        N, from 1 to the number of levels of the grid.
    form : {"data", "eps", "velocity"} or None
        For a teacher; default "data". Costs have their own.
    weighting : float or None
        Exponent p of the integral over sigma; default `DEFAULT_WEIGHTING`: -1 for "data", an integral over half-log-SNR.
    refine : bool
        Whether to move nodes off the grid.

    Returns
    -------
    Tensor
        float64 [steps + 1] on the CPU, strictly decreasing from the grid's first level to 0: N model calls.

    Raises
    ------
    ValueError
        If the teacher has no states, there are more steps than levels, or the form or weighting is not valid.
    FitError
        If the model's outputs are not finite.
    """
    if isinstance(source, PairCosts):
        if form is not None and form != source.form:
            raise ValueError(f"form was {form!r}, but these costs were computed for {source.form!r}; compute new ones, or omit form.")
        return source.schedule(steps, weighting, refine)
    return discretization_costs(source, "data" if form is None else form).schedule(steps, weighting, refine)


class _Differences:
    """Accumulates M from inner products of q, batch by batch in float64."""

    def __init__(self, grid: Array, family: str, form: Form) -> None:
        self.grid, self.family, self.form = grid, family, form
        self.products = torch.zeros(len(grid), len(grid), dtype=torch.float64)
        self.steps_squares = torch.zeros(len(grid), dtype=torch.float64)  # of the model that samples
        self.paths_squares = torch.zeros(len(grid), dtype=torch.float64)  # of the model that made the trajectories
        self.count = 0

    def add(self, x: Tensor, d: Tensor, student: Tensor | None = None) -> None:
        """Add states and outputs [K, B, *shape] of a batch, and the outputs of the model that samples if it is another one."""
        x, d = x.flatten(1), d.flatten(1)
        student = None if student is None else student.flatten(1)
        width = max(1, _SLICE // len(self.grid))
        for first in range(0, d.shape[1], width):
            part = slice(first, first + width)
            q = self._q(x[:, part], d[:, part])
            own = q if student is None else self._q(x[:, part], student[:, part])
            self.products += own @ q.T
            self.steps_squares += own.square().sum(1)
            self.paths_squares += q.square().sum(1)
        self.count += d.shape[1]

    def _q(self, x: Tensor, d: Tensor) -> Tensor:
        if self.form == "data":
            return d.double()
        sigma = torch.from_numpy(self.grid)[:, None]
        alpha = torch.from_numpy(np.asarray(alpha_of(self.grid, self.family)))[:, None]
        return (x.double() - (alpha * d.double() if self.form == "eps" else d.double())) / sigma

    def costs(self, ns: NoiseSchedule) -> PairCosts:
        """The costs from all batches."""
        steps, paths = self.steps_squares.numpy() / self.count, self.paths_squares.numpy() / self.count
        products = self.products.numpy() / self.count
        differences = np.maximum(steps[:, None] + paths[None, :] - 2 * products, 0.0)  # NaN stays and is reported
        lambdas = np.asarray(ns.lambda_of(np.minimum(self.grid, ns.finite_sigma_max)))
        return PairCosts(differences, np.append(self.grid, 0.0), lambdas, self.family, self.form)


def _refined(cumulated: Array, lambdas: Array, inner: NDArray[np.int64]) -> Array:
    """The inner nodes in lambda, each moved at most a third of the way to its neighbours, to the minimum of the cost.

    The cost from u to v is C(u, v) - C(u, u), where C is the cubic spline through `cumulated`; on the grid it is the path's cost.
    """
    from scipy.interpolate import RectBivariateSpline
    from scipy.optimize import minimize

    order = min(3, len(lambdas) - 1)
    spline = RectBivariateSpline(lambdas, lambdas, cumulated, kx=order, ky=order, s=0)
    start = lambdas[inner]

    def value_and_slope(nodes: Array) -> tuple[float, Array]:
        u = np.concatenate([lambdas[:1], nodes])
        v = np.append(nodes, lambdas[-1])
        cost = spline.ev(u, v) - spline.ev(u, u)
        from_u = spline.ev(u, v, dx=1) - spline.ev(u, u, dx=1) - spline.ev(u, u, dy=1)
        from_v = spline.ev(u, v, dy=1)
        return float(cost.sum()), from_u[1:] + from_v[:-1]

    around = np.concatenate([lambdas[:1], start, lambdas[-1:]])
    below, above = np.diff(around)[:-1] / 3, np.diff(around)[1:] / 3  # so that no two nodes can meet
    begun, _ = value_and_slope(start)
    if not begun > 0:
        return start
    found = minimize(
        lambda nodes: tuple(part / begun for part in value_and_slope(nodes)),
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(start - below, start + above, strict=True)),
        options={"ftol": 1e-13, "gtol": 1e-8},
    )
    moved = np.clip(found.x, start - below, start + above)
    return moved if np.isfinite(moved).all() and value_and_slope(moved)[0] < begun else start


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"form was {form!r}; it must be one of {', '.join(map(repr, FORMS))}.")


def check_states(teacher: Teacher) -> None:
    if not isinstance(teacher, Teacher):
        raise ValueError(f"The source was {type(teacher).__name__}; it must be a Teacher with states, or costs made from one.")
    if not teacher.states:
        raise ValueError("The teacher keeps only end points, but schedules are fitted to its states. Create it with states=True.")
