"""The steps of an AMED sample, used by sampling with a predictor and, with gradients, by training.

    walk = AmedWalk(config, model, x)
    state = walk.begin()
    for n in range(config.pairs):
        denoised = walk.evaluate(state, n)
        state = walk.advance(state, n, denoised, net.choose(n, features))
    end = walk.finish(state)

A state is never modified, so it can be kept and continued again. If x has half precision, states and history are kept in float32. Every
image of the batch has its own coefficients and its own noise level at the intermediate call. Nothing here synchronises with the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..solvers.loop import check_output
from .coefficients import Choice, Update, coefficients_for
from .config import AmedConfig

ModelCall = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma [B]) -> D, both in the dtype of the walk's x."""


class AmedState(NamedTuple):
    """The state of a sample at a time stamp, before the model is called there.

    Attributes
    ----------
    x : Tensor [B, ...]
        The sample.
    start : Tensor
        The state at the start of the last half step, where UniPC's corrector starts.
    history : tuple of Tensor
        Earlier slopes or outputs, newest first.
    widths : tuple of Tensor
        Widths in half-log-SNR of the half steps that follow them, newest first, each [B, 1, ...] or [1, 1, ...].
    pending : Update or None
        The last half step; its corrector, if any, redoes it after the evaluation at this stamp.
    """

    x: Tensor
    start: Tensor
    history: tuple[Tensor, ...] = ()
    widths: tuple[Tensor, ...] = ()
    pending: Update | None = None

    def detached(self) -> AmedState:
        """The same state, detached from the graph."""
        pending = self.pending
        if pending is not None:
            a, fix = pending.a, pending.corrector
            pending = pending._replace(
                a=None if a is None else a.detach(),
                b=tuple(weight.detach() for weight in pending.b),
                corrector=None if fix is None else tuple(weight.detach() for weight in fix),
            )
        history, widths = (tuple(value.detach() for value in values) for values in (self.history, self.widths))
        return AmedState(self.x.detach(), self.start.detach(), history, widths, pending)


class AmedWalk:
    """The steps of a batch.

    Parameters
    ----------
    config : AmedConfig
        Form, stamps and family.
    model : callable
        See `ModelCall`.
    x : Tensor [B, ...]
        At the first stamp; the model is called in its dtype. Not changed.
    """

    def __init__(self, config: AmedConfig, model: ModelCall, x: Tensor) -> None:
        self.config, self.model, self.dtype = config, model, x.dtype
        self.working = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        self.coefficients = coefficients_for(config, self.working, x.device)
        self._x = x
        levels = torch.tensor(config.stamps, dtype=torch.promote_types(self.working, torch.float32)).to(x.dtype).to(x.device)
        self._levels = (levels[:, None] * x.new_ones([x.shape[0]])).unbind()
        self._per_image = (-1, *[1] * (x.ndim - 1))
        self._slopes = config.method.kind != "data"

    def begin(self) -> AmedState:
        """The state at the first stamp."""
        # a copy, in case the model writes into its input
        return self.restart(self._x.to(self.working, copy=True))

    @staticmethod
    def restart(x: Tensor) -> AmedState:
        """A state at any stamp without history: forms with a history restart at order 1."""
        return AmedState(x, x)

    def evaluate(self, state: AmedState, n: int) -> Tensor:
        """D at stamp n, in the walk's precision: a model call, or the analytical guess at the first stamp if the config says so."""
        factor = self.config.afs_factor if n == 0 else None
        if factor is not None:
            return state.x * factor
        return self._call(state.x, self._levels[n])

    def advance(self, state: AmedState, n: int, denoised: Tensor, choice: Choice) -> AmedState:
        """From stamp n to n + 1 through the chosen intermediate time: one model call there.

        Parameters
        ----------
        state : AmedState
            The state at stamp n.
        n : int
            Index of the step.
        denoised : Tensor
            Result of `evaluate(state, n)`.
        choice : Choice
            r, c, a, each [B] or [1], on any device.

        Returns
        -------
        AmedState
        """
        r, c, a = (value.to(self.working).to(self._x.device).view(self._per_image) for value in choice)
        pair = self.coefficients.pair(n, Choice(r, c, a), state.widths)
        start, history = self._evaluated(state, denoised, self.config.stamps[n])
        x = self._combined(pair.first, start, start, history)
        level = pair.level.to(self.dtype).view(-1).expand(x.shape[0])
        between = AmedState(x, start, history, pending=pair.first)
        middle, history = self._evaluated(between, self._call(x, level), pair.middle)
        x = self._combined(pair.second, middle, start, history)
        if self.config.method.kind == "step":
            return self.restart(x)
        kept = self.config.method.history - 1  # the next evaluation adds one
        return AmedState(x, middle, history[:kept], (*pair.widths, *state.widths)[:kept], pair.second)

    def finish(self, state: AmedState) -> Tensor:
        """The end point from the state at the last stamp above 0, in the walk's precision.

        This is the state itself or, if the last stamp is 0, the model's D there (one call).
        """
        if not self.config.ends_at_zero:
            return state.x
        # the plain step to 0 returns D, with weight 0 on the state, so no corrector is needed
        return self.evaluate(state, self.config.pairs)

    def _call(self, x: Tensor, level: Tensor) -> Tensor:
        seen = x if self.working is self.dtype else x.to(self.dtype)
        denoised = self.model(seen, level)
        check_output(denoised, x)
        return denoised.to(self.working)

    def _evaluated(self, state: AmedState, denoised: Tensor, sigma: Tensor | float) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The state, corrected if a corrector was pending, and the history including this evaluation."""
        if self._slopes:
            newest = (state.x - denoised) / sigma
        else:
            newest = denoised
        history = (newest, *state.history)
        if state.pending is None or state.pending.corrector is None:
            return state.x, history
        return self._sum(state.start, state.pending.a, history, state.pending.corrector), history

    def _combined(self, update: Update, x: Tensor, start: Tensor, history: tuple[Tensor, ...]) -> Tensor:
        return self._sum(start if update.from_start else x, update.a, history, update.b)

    def _sum(self, base: Tensor, a: Tensor | None, history: tuple[Tensor, ...], weights: tuple[Tensor, ...]) -> Tensor:
        """a * base + SUM b_j q_j."""
        out = base if a is None else base * a
        for weight, q in zip(weights, history, strict=False):
            out = torch.addcmul(out, q, weight)
        return out
