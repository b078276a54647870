"""The losses of phase 2 for one batch.

`matching` needs no data: the student, which walks a few-step table, is trained to end where a many-step teacher of the untuned model does.

    end     the student's end point against the teacher's, with the gradient through all its steps: what samples are judged by. Any table.
    steps   each step by itself: it starts at the teacher's state at sigma_i, or at the student's own, with what it remembers detached, and
            is to land on the teacher's state at sigma_{i+1}. Outputs D of the step's own model calls enter it with weights that add up to
            b, so its miss is that of these D times b; it is divided by b and weighted like every miss of D in the discretization loss
            (fitting/discretization.py, eq. 2), by the step's length in half-log-SNR. The gradient passes the calls of one step at a time.

`denoising` needs samples x0: the model is to find x0 in alpha x0 + sigma n at the table's own levels sigma, with the same weights. It keeps
the model a denoiser where data are better than the model; it knows nothing of the steps.

Each yields (loss to be differentiated, sum over samples of the mean square that is reported), one after the other, so that of all steps
only one is in memory.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ...schedules import NoiseSchedule
from ...schedules.families import alpha_of, half_log_snr
from ...solvers.table import SolverTable
from ...solvers.walk import Evaluate, Walk, walk_to_end
from ...training.losses import summed_square

Denoiser = Callable[[Tensor, float], Tensor]
"""model(x [B, ...], sigma) -> D, with gradients."""

_SHORTEST = 0.01  # reach of a step, so that no step rules the loss


def step_weights(table: SolverTable, ns: NoiseSchedule) -> list[float]:
    """Length in half-log-SNR of each step of `table`, of mean 1; the step to 0 ends at the model's sigma_min, as in the discretization
    loss, and counts as a tenth of the mean where it begins there."""
    levels = np.maximum(np.asarray(table.sigmas, dtype=np.float64), ns.sigma_min)
    levels = np.minimum(levels, ns.finite_sigma_max)
    lengths = np.diff(np.asarray(half_log_snr(levels, table.family)))
    mean = float(lengths.mean()) or 1.0
    weights = np.maximum(lengths / mean, 0.1)
    return [float(w) for w in weights / weights.mean()]


def end_loss(denoise: Denoiser, x: Tensor, table: SolverTable, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """One loss, at the end point."""
    loss = summed_square(walk_to_end(table, Walk.begin(x), _evaluation(denoise)).state, target)
    yield loss, loss.detach()


def _evaluation(denoise: Denoiser) -> Evaluate:
    return lambda state, index, row: denoise(state, row.sigma).to(state.dtype)


def step_losses(
    denoise: Denoiser, x: Tensor, table: SolverTable, states: Sequence[Tensor], weights: Sequence[float], own_states: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """A loss for each step.

    Parameters
    ----------
    states : sequence of Tensor
        The teacher's [B, ...] at `table.sigmas`, its end point for a last 0.
    weights : sequence of float
        Of the steps, of mean 1.
    own_states : bool
        Start each step from the student's own state instead of the teacher's.
    """
    at, reaches, evaluate = Walk.begin(x), step_reaches(table), _evaluation(denoise)
    for step, rows in enumerate(table.step_rows):
        if not own_states:
            here = states[step].to(x)
            at = Walk(here, here, at.history, False)
        at = walk_to_end(table, at, evaluate, rows)
        if at.state.requires_grad:
            miss = summed_square(at.state, states[step + 1])
            yield miss * (weights[step] / max(abs(reaches[step]), _SHORTEST) ** 2 / len(weights)), miss.detach() / len(weights)
        at = Walk(at.state.detach(), at.step_start.detach(), tuple(q.detach() for q in at.history), False)


def denoising_losses(
    denoise: Denoiser, clean: Tensor, noise: Tensor, table: SolverTable, weights: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """A loss for each model call of the table, with the same noise [B, ...] at every level."""
    rows = [row for row in table.rows if row.calls_model]
    for row in rows:
        x = float(alpha_of(row.sigma, table.family)) * clean + row.sigma * noise
        miss = summed_square(denoise(x, row.sigma).to(clean.dtype), clean)
        yield miss * (weights[row.step] / len(rows)), miss.detach() / len(rows)


def step_reaches(table: SolverTable) -> list[float]:
    """How far each step moves if the outputs of its own model calls all move by one: the sum of their weights in the new state, with
    those in its stages and its corrector. From sigma s to t it is 1 - t/s for a step without memory, Euler's and Heun's alike."""
    zero, one = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
    starts = ((rows, Walk(zero, zero, (zero,) * rows.start, False)) for rows in table.step_rows)
    return [float(walk_to_end(table, start, lambda *_: one, rows).state) for rows, start in starts]


def require_step_states(table: SolverTable, own_states: bool) -> None:
    """Raise a ValueError if the steps of `table` cannot be compared with a teacher's states."""
    if not own_states and any(row.corrector is not None for row in table.rows):
        raise ValueError(
            f"The table's solver is {table.solver}, whose corrector moves the state that a step began with; its steps can start from "
            "the student's own states only. Set own_states, choose the method 'end', or build the table without corrector."
        )
