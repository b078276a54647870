"""Two experts for one sampling: a model for high noise and one for low noise, switched by the noise level of each call (Wan 2.2).

Calls above the boundary go to HIGH, the others to LOW. (Wan's authors give a call exactly there to HIGH; but a list with a level on the
boundary is cut there, and its lower part belongs to LOW.) The sampler sees one guider, so its history of earlier calls passes the handoff.
Each expert is an ordinary guider that the host prepares as always (weights, prompts, hooks, wrappers), one inside the other: only loading
LOW's weights waits until its first call. So each expert is loaded once in a run from high noise to low, and where memory is short, the
host moves HIGH out when LOW comes in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.patcher_extension
import comfy.samplers
from torch import Tensor

from ...schedules.split import is_above
from ..host import noise_schedule_of

_logger = logging.getLogger("fewstep")

_LOW = "low "  # before the names of LOW's prompts


class _Loading:
    """Wrapper of the host's loading that can let it wait, and repeats it when the expert's turn comes again."""

    def __init__(self) -> None:
        self.waits = False
        self.load: Callable[[], Any] | None = None

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        self.load = lambda: executor(*args, **kwargs)
        if not self.waits:
            return self.load()
        patcher, conds = args[0], args[2]
        return patcher.model, conds, []


class _Expert:
    """One model with its guider and, while sampling, its prepared options."""

    def __init__(self, model: Any) -> None:
        self.loading = _Loading()
        self.patcher = model.clone()
        self.patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING, "fewstep_experts", self.loading)
        self.guider = comfy.samplers.CFGGuider(self.patcher)
        self.options: dict[str, Any] | None = None
        self.calls, self.ready = 0, False

    def begin(self, extra_args: dict[str, Any]) -> None:
        self.options, self.calls, self.ready = extra_args["model_options"], 0, not self.loading.waits

    def end(self) -> None:
        self.options, self.loading.load = None, None

    def take_turn(self) -> None:
        """Bring its weights to where the model computes, unless the host has done so and nobody has had a turn since."""
        if not self.ready and self.loading.load is not None:
            self.loading.load()
        self.ready = False
        if hasattr(self.patcher.model, "current_patcher"):  # two experts may be one network with different LoRAs
            self.patcher.model.current_patcher = self.patcher


class _Inside(comfy.samplers.Sampler):
    """A sampler that hands on everything the host has prepared."""

    def __init__(self, work: Callable[..., Tensor]) -> None:
        self.work = work

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False):
        return self.work(model_wrap, sigmas, extra_args, callback, noise, latent_image, denoise_mask, disable_pbar)


class TwoExpertGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance with two models.

    Parameters
    ----------
    high, low : ModelPatcher
        For calls above the boundary, and for the others.
    boundary : float
        Noise level; a flow model's is also the time that the network is told, so Wan's 0.875 is 0.875 whatever the shift.

    Attributes
    ----------
    turns : list of str
        The experts in the order in which the last run called them: "high", "low".

    Raises
    ------
    ValueError
        If the models have different noise levels, or the boundary lies outside them.
    """

    def __init__(self, high: Any, low: Any, boundary: float) -> None:
        super().__init__(high)
        ns, other = noise_schedule_of(high), noise_schedule_of(low)
        if ns.fingerprint() != other.fingerprint():
            raise ValueError(
                f"The two models have different noise levels (sigma {ns.sigma_min:.4g} to {ns.sigma_max:.4g} and {other.sigma_min:.4g} to "
                f"{other.sigma_max:.4g}, or another shift between); put the same ModelSampling node, with the same shift, on both."
            )
        if not ns.sigma_min < boundary < ns.sigma_max:
            raise ValueError(
                f"boundary was {boundary:g}; it must lie between the model's lowest level {ns.sigma_min:.4g} and its highest, "
                f"{ns.sigma_max:.4g}. For Wan 2.2, use 0.875 (text to video) or 0.9 (image to video)."
            )
        self.low_patcher, self.boundary = low, float(boundary)
        self._experts = {"high": _Expert(high), "low": _Expert(low)}
        self.turns: list[str] = []

    def set_conds(self, positive: Any, negative: Any) -> None:
        super().set_conds(positive, negative)
        for expert in self._experts.values():
            expert.guider.set_conds(positive, negative)

    def set_cfg(self, high: float, low: float) -> None:
        self.cfg_high, self.cfg_low, self.cfg = high, low, max(high, low)
        for expert, cfg in zip(self._experts.values(), (high, low), strict=True):
            expert.guider.set_cfg(cfg)

    @property
    def conds(self) -> dict[str, Any]:
        """The prepared prompts of both experts; LOW's have names of their own."""
        high, low = (getattr(expert.guider, "conds", {}) for expert in self._experts.values())
        return {**high, **{_LOW + side: prompts for side, prompts in low.items()}}

    @conds.setter
    def conds(self, given: dict[str, Any]) -> None:
        for name, expert in self._experts.items():
            own = {side.removeprefix(_LOW): p for side, p in given.items() if side.startswith(_LOW) == (name == "low")}
            if own:
                expert.guider.conds = own

    def sample(self, noise, latent_image, sampler, sigmas, denoise_mask=None, callback=None, disable_pbar=False, seed=None):
        """As `CFGGuider.sample`."""
        if sigmas.shape[-1] == 0:
            return latent_image
        high, low = self._experts.values()
        self.turns, high.loading.waits, low.loading.waits = [], False, True
        found: list[Tensor] = []

        def with_both(outer, levels, outer_args, outer_callback, x, latent, mask, pbar):
            high.begin(outer_args)
            self.inner_model = outer.inner_model

            def innermost(inner, _, inner_args, *others):
                low.begin(inner_args)
                found.append(sampler.sample(self, levels, outer_args, outer_callback, x, latent, mask, pbar))
                return found[0]

            low.guider.sample(noise, latent_image, _Inside(innermost), sigmas, denoise_mask, None, True, seed)
            return found[0]

        def with_low(inner, levels, inner_args, *others):
            low.begin(inner_args)
            self.inner_model = inner.inner_model
            return sampler.sample(self, levels, inner_args, *others)

        above = is_above(float(sigmas[0]), self.boundary)
        low.loading.waits = above
        try:
            first, inside = (high, with_both) if above else (low, with_low)
            return first.guider.sample(noise, latent_image, _Inside(inside), sigmas, denoise_mask, callback, disable_pbar, seed)
        finally:
            turns = ", ".join(self.turns) or "none"
            _logger.info("FewStep: model calls: %d with HIGH, %d with LOW; order %s", high.calls, low.calls, turns)
            for expert in (high, low):
                expert.end()
            if "inner_model" in vars(self):
                del self.inner_model

    def outer_predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006 (the host's signature)
        """One call of the expert that the noise level belongs to."""
        name = self._turn_of(timestep)
        expert = self._experts[name]
        if not self.turns or self.turns[-1] != name:
            expert.take_turn()
            self.turns.append(name)
        expert.calls += 1
        given = self._experts["high"].options
        options = model_options if name == "high" or given is None else _carried(model_options, given, expert.options or {})
        return expert.guider.outer_predict_noise(x, timestep, options, seed)

    def _turn_of(self, timestep: Tensor) -> str:
        if self._experts["high"].options is None:  # the run began at or below the boundary
            return "low"
        levels = timestep.detach().reshape(-1).double().tolist()
        above = {is_above(level, self.boundary) for level in levels}
        if len(above) > 1:
            raise ValueError(
                f"The samples of one batch have noise levels on both sides of the boundary {self.boundary:g} ({min(levels):.4g} to "
                f"{max(levels):.4g}), and one call goes to one expert. Use a sampler with the same levels for all, or one sample per batch."
            )
        return "high" if above.pop() else "low"


def _carried(given: dict[str, Any], prepared: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """An expert's `own` options with what a sampler added to the `prepared` ones of the other (cfg++ samplers add a function)."""
    if given is prepared:
        return own
    out = dict(own)
    for name, value in given.items():
        before = prepared.get(name)
        if value is before:
            continue
        if isinstance(value, dict):
            out[name] = _carried(value, before if isinstance(before, dict) else {}, own.get(name) or {})
        elif isinstance(value, list):
            known = before if isinstance(before, list) else []
            out[name] = [*(own.get(name) or []), *(v for v in value if all(v is not k for k in known))]
        elif not isinstance(before, (bool, int, float, str)) or value != before:
            out[name] = value
    return out
