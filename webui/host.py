"""The little that differs between hosts and is asked for in several places."""

from __future__ import annotations

from typing import Any


def has_schedule_choice() -> bool:
    """Whether the schedule is a choice of its own (A1111 since 1.9, Forge, reForge); else it is a setting."""
    try:
        from modules import sd_schedulers  # noqa: F401
    except ImportError:
        return False
    return True


def sampler_options(name: str | None) -> dict[str, Any]:
    """The host's options of a sampler; empty for an unknown one."""
    from modules import sd_samplers

    config = sd_samplers.find_sampler_config(name)
    return getattr(config, "options", None) or {}


def architecture() -> str:
    """The loaded model's preset name ("sd15", "sdxl", "flux", ...), "" if it is not known. It selects among published tables."""
    from modules import shared

    model = shared.sd_model
    for attribute, name in (("is_sdxl", "sdxl"), ("is_sd3", "sd3"), ("is_sd2", "sd20"), ("is_sd1", "sd15")):
        if getattr(model, attribute, False):
            return name
    config = getattr(getattr(getattr(model, "forge_objects", None), "unet", None), "model", None)
    kind = type(getattr(config, "config", None)).__name__.lower()
    return {"flux": "flux", "fluxschnell": "flux_schnell", "chroma": "chroma"}.get(kind, "")


def structure_of_picture(sampler: str | None, width: Any, height: Any) -> float | None:
    """Largest structures of a picture's latent (schedules/first_level.py); None for samplers that know no step without a call."""
    from ..schedules import structure_scale
    from .names import sampler_entry

    entry = sampler_entry(sampler)
    if entry is None or not entry.solver:
        return None
    return structure_scale((4, int(height or 1024) // 8, int(width or 1024) // 8), deviation=1.0)


def set_shift(value: Any) -> None:
    """Set the loaded model's shift, as a picture does with the page's slider *Distilled CFG Scale* (Forge Neo); nothing in other hosts."""
    from modules import shared

    setter = getattr(shared.sd_model, "set_shift", None)
    if callable(setter) and value:
        setter(shift=float(value))  # only of models that have one: the host knows them


def ensure_loaded() -> None:
    """Load the chosen checkpoint where the host does so with the first picture only (Forge)."""
    from modules import sd_models

    load = getattr(sd_models, "forge_model_reload", None)
    if load is not None:
        load()


def schedule_of_loaded_model() -> Any:
    """The noise schedule of the loaded model, as a sampler of it would see it.

    Raises
    ------
    ValueError : its levels are not understood.
    """
    from modules import sd_samplers, shared

    from .levels import noise_schedule_of
    from .names import SAMPLERS

    sampler = sd_samplers.create_sampler(SAMPLERS[0].name, shared.sd_model)
    ns = noise_schedule_of(sampler.model_wrap_cfg)
    name = architecture()
    return ns.named(name) if name else ns


def in_models_thread(work: Any) -> Any:
    """What `work()` returns, run where the host runs its models (Forge has one thread for that).

    Raises
    ------
    Whatever `work` raises.
    """
    try:
        from modules_forge import main_thread
    except ImportError:
        return work()
    run = getattr(main_thread, "run_and_wait_result", None)
    if run is None:
        return work()
    outcome: dict[str, Any] = {}

    def kept() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:  # the thread would only print it
            outcome["error"] = error

    run(kept)
    if "error" in outcome:
        raise outcome["error"]
    return outcome.get("result")
