"""Guiders: what combines the model's answers to several prompts, and what can be told about how it does that.

A GUIDER is ComfyUI's object between sampler and model: plain classifier-free guidance, or one with more prompts, scales or models. For a
fit it is the model, so its class and settings go into the recipe, and a recipe is warned about with another guider.

    guider            class, e.g. CFGGuider, Guider_PerpNeg
    guider_settings   its numbers, e.g. cfg=5, neg_scale=1
    guider_models     further models that it samples with, e.g. low=0123456789abcdef
    guidance          of the positive conditioning (FluxGuidance and relatives)
    conditioning      other facts of prompts, e.g. positive: strength=0.5
    guidance_patches  functions on the model that change guidance, e.g. CFGOverride(cfg=1, sigma_hi=1, sigma_lo=0.8)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import comfy.model_patcher
import comfy.patcher_extension
import comfy.samplers

from ..host import scale_of
from .identity import weights_identity

GUIDER, SETTINGS, MODELS, GUIDANCE = "guider", "guider_settings", "guider_models", "guidance"
CONDITIONING, PATCHES = "conditioning", "guidance_patches"

_PLAIN = ("CFGGuider", "Guider_Basic")
"""Guiders that a guidance scale says everything about; without one, it is 1."""

_FACTOR = 1.5  # of guidance scales, as in recipes.use
_LONGEST = 200  # bytes of a fact
_OF_PROMPTS = ("strength", "mask_strength", "start_percent", "end_percent", "set_area_to_bounds")
_FUNCTIONS = (
    "sampler_cfg_function", "sampler_pre_cfg_function", "sampler_post_cfg_function", "sampler_calc_cond_batch_function",
    "model_function_wrapper",
)  # fmt: skip

Scalar = bool | int | float | str


def plain_guider(model: Any, positive: Any, negative: Any, cfg: float) -> Any:
    """Classifier-free guidance, as KSampler has it."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def chosen_guider(model: Any, positive: Any, negative: Any, cfg: float, guider: Any) -> Any:
    """The connected guider, or a plain one for the connected model and prompts.

    Raises
    ------
    ValueError
        If both or neither are connected.
    TypeError
        If another pack sent something else through a socket of this name.
    """
    given = {"model": model, "positive": positive, "negative": negative}
    if guider is None:
        missing = [name for name, value in given.items() if value is None]
        if missing:
            raise ValueError(
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not connected; connect model, positive and negative, or a "
                "guider instead of the three."
            )
        return plain_guider(model, positive, negative, cfg)
    connected = [name for name, value in given.items() if value is not None]
    if connected:
        raise ValueError(
            f"Both a guider and {' and '.join(connected)} are connected; a guider brings its own model and prompts, so disconnect one or "
            "the other."
        )
    if not isinstance(guider, comfy.samplers.CFGGuider):
        raise TypeError(
            f"guider was {type(guider).__name__}, which is none of ComfyUI's guiders; connect CFG Guider, Basic Guider or another node "
            "whose guider is made of them."
        )
    return guider


def is_plain(guider: Any) -> bool:
    """Whether model, prompts and one scale say everything about it."""
    return type(guider).__name__ in _PLAIN


def settings_of(guider: Any) -> dict[str, Scalar]:
    """Numbers, switches and words that the guider was set to, by name; none for a plain one, whose scale is a fact of its own."""
    if is_plain(guider):
        return {}
    own = getattr(guider, "settings", None)  # of our own guiders
    found = own() if callable(own) else vars(guider)
    scalars = {name: value for name, value in found.items() if isinstance(value, (bool, int, float, str)) and name[0] != "_"}
    if any(name.startswith("cfg") and name != "cfg" for name in scalars):
        scalars.pop("cfg", None)  # the base class has one that is not used then
    return scalars


def models_of(guider: Any) -> dict[str, Any]:
    """The models that it samples with beside its first one, by name."""
    found = {name.removesuffix("_model_patcher").removesuffix("_patcher"): value for name, value in vars(guider).items()
             if name != "model_patcher" and isinstance(value, comfy.model_patcher.ModelPatcher)}  # fmt: skip
    return dict(sorted(found.items()))


def guider_facts(guider: Any) -> dict[str, Scalar]:
    """What can be told about it, for `Facts.extra`; see the top of this file."""
    facts: dict[str, Scalar] = {GUIDER: type(guider).__name__}
    texts = {
        SETTINGS: _listed(settings_of(guider)),
        MODELS: _listed({name: weights_identity(model) or "unknown" for name, model in models_of(guider).items()}),
        CONDITIONING: "; ".join(_prompt_facts(guider)),
        PATCHES: "; ".join(_patches(guider)),
    }
    facts |= {name: _cut(text) for name, text in texts.items() if text}
    guidance = _guidance(guider)
    return facts if guidance is None else {**facts, GUIDANCE: guidance}


def guider_sentence(guider: Any) -> str:
    """Its class, scale and settings, for reports."""
    settings = _listed(settings_of(guider), " ") or f"cfg {scale_of(guider):g}"
    guidance = _guidance(guider)
    return f"{type(guider).__name__} ({settings}{'' if guidance is None else f', guidance {guidance:g}'})"


def guider_warnings(facts: Mapping[str, Any], guider: Any, what: str = "recipe") -> list[str]:
    """One sentence for each thing in which `guider` is not the guider of a fit.

    Parameters
    ----------
    facts : mapping
        By name, as `guider_facts` gave them. Without a class, the fit was to plain guidance, and nothing else is known.
    guider : comfy.samplers.CFGGuider
        Which will be sampled with.
    what : str
        What was fitted.
    """
    fitted, here = str(facts.get(GUIDER) or _PLAIN[0]), type(guider).__name__
    if fitted != here and not (fitted in _PLAIN and here in _PLAIN):
        settings = facts.get(SETTINGS)
        return [
            f"The {what} was fitted to the guider {fitted}{f' ({settings})' if settings else ''}, but this is {here}, which bends the "
            f"paths in another way. Use {fitted}, or fit again with {here}."
        ]
    if GUIDER not in facts:
        return []
    found, now = [], guider_facts(guider)
    for name, given, own in _differences(str(facts.get(SETTINGS, "")), str(now.get(SETTINGS, ""))):
        found.append(f"The {what} was fitted with {name} {given} in {fitted}, but it is {own} here. Restore it, or fit again.")
    found += _guidance_warning(what, facts.get(GUIDANCE), now.get(GUIDANCE))
    for name, given, own in _differences(str(facts.get(MODELS, "")), str(now.get(MODELS, ""))):
        if "unknown" not in (given, own):
            found.append(f"The {what} was fitted with the {name} model {given}, but this one is {own}. Use that model, or fit again.")
    given, own = str(facts.get(PATCHES, "")), str(now.get(PATCHES, ""))
    if given != own:
        found.append(
            f"The {what} was fitted with {given or 'no function'} on the model's guidance, but here is {own or 'none'}. Restore that, or "
            "fit again."
        )
    return found


def _guidance_warning(what: str, fitted: Any, here: Any) -> list[str]:
    if not isinstance(fitted, (int, float)) and not isinstance(here, (int, float)):
        return []
    if isinstance(fitted, (int, float)) and isinstance(here, (int, float)) and not _far(float(fitted), float(here)):
        return []
    shown = [f"guidance {value:g}" if isinstance(value, (int, float)) else "no guidance" for value in (fitted, here)]
    return [
        f"The {what} was fitted with {shown[0]} in the positive conditioning (FluxGuidance), but there is {shown[1]} here. Restore it, or "
        "fit again."
    ]


def _guidance(guider: Any) -> float | None:
    prompts = getattr(guider, "original_conds", {}).get("positive") or ()
    values = [cond.get("guidance") for cond in prompts if isinstance(cond, Mapping)]
    return next((float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)), None)


def _prompt_facts(guider: Any) -> Iterator[str]:
    for side, prompts in getattr(guider, "original_conds", {}).items():
        known: dict[str, Scalar] = {}
        for cond in prompts or ():
            known |= {name: cond[name] for name in _OF_PROMPTS if isinstance(cond.get(name), (bool, int, float))}
            for name in ("area", "timestep_start", "hooks", "reference_latents", "gligen"):
                if cond.get(name) is not None:
                    known[name] = True
            if cond.get("control") is not None:
                known["control"] = type(cond["control"]).__name__
        if known:
            yield f"{side}: {_listed(known)}"


def _patches(guider: Any) -> Iterator[str]:
    """Functions of others that change how answers are combined, with the numbers that they were made with."""
    patcher = guider.model_patcher
    for name in _FUNCTIONS:
        given = patcher.model_options.get(name)
        for function in given if isinstance(given, list) else [given]:
            if function is not None:
                yield _named(function)
    wrappers = getattr(patcher, "wrappers", {}).get(comfy.patcher_extension.WrappersMP.PREDICT_NOISE, {})
    for functions in wrappers.values():
        yield from map(_named, functions)


def _named(function: Any) -> str:
    """Of `CFGOverride.execute.<locals>.wrapper` with cfg, start and end: CFGOverride(cfg=1, ...)."""
    name = str(getattr(function, "__qualname__", type(function).__name__)).split(".")[0]
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None) or ()
    numbers = {}
    for free, cell in zip(code.co_freevars if code is not None else (), cells, strict=False):
        try:
            value = cell.cell_contents
        except ValueError:  # not filled
            continue
        if isinstance(value, (bool, int, float)):
            numbers[free] = value
    return f"{name}({_listed(numbers)})" if numbers else name


def _listed(values: Mapping[str, Scalar], between: str = "=") -> str:
    return ", ".join(f"{name}{between}{f'{value:.6g}' if isinstance(value, float) else value}" for name, value in values.items())


def _differences(fitted: str, here: str) -> Iterator[tuple[str, str, str]]:
    """(name, value there, value here) of listed values that are not about the same."""
    one, two = (dict(part.partition("=")[::2] for part in text.split(", ") if part) for text in (fitted, here))
    for name in [*one, *(name for name in two if name not in one)]:
        there, own = one.get(name, "not set"), two.get(name, "not set")
        try:
            different = _far(float(there), float(own)) if "cfg" in name or "scale" in name else not math.isclose(float(there), float(own))
        except ValueError:
            different = there != own
        if different:
            yield name, there, own


def _far(one: float, other: float) -> bool:
    if one <= 0 or other <= 0:
        return one != other
    return max(one, other) / min(one, other) > _FACTOR * (1 + 1e-9)


def _cut(text: str) -> str:
    plain = "".join(c if c.isprintable() else "?" for c in text).encode()
    return plain[:_LONGEST].decode(errors="ignore")
