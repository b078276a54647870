"""Where the host's start meets this package."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

_logger = logging.getLogger("fewstep")


def start(leave_path: Callable[[], None]) -> type:
    """Register everything with the host; return the Script class that makes the panel.

    `leave_path` takes the extension's folder off `sys.path`; hosts of the Forge family put it there for good, and back when a script has
    run, so it is called again when all scripts have.

    Each part is on its own: one that fails (a host of another generation) is off, with one line in the log, and the others work. Only
    where there can be no panel, this raises.
    """
    from .script import FewStepScript

    parts = (
        ("manners on sys.path", lambda: _path(leave_path)),
        ("settings", _settings),
        ("schedules", _schedules),
        ("samplers", _samplers),
        ("grid axes", _axes),
    )
    for what, register in parts:
        try:
            register()
        except Exception as error:
            _logger.error("FewStep's %s are off on this host: %s: %s", what, type(error).__name__, error)
    return FewStepScript


def _path(leave_path: Callable[[], None]) -> None:
    from modules import script_callbacks

    script_callbacks.on_before_ui(leave_path)
    script_callbacks.on_app_started(lambda *given: leave_path())  # hosts without a user interface


def _schedules() -> None:
    from . import registry

    try:
        from modules import sd_schedulers
    except ImportError:
        from modules import sd_samplers_kdiffusion, shared

        registry.register_old_schedules(sd_samplers_kdiffusion, shared.opts, loaded_model)
    else:
        registry.register_schedules(sd_schedulers)


def _samplers() -> None:
    from modules import sd_samplers, sd_samplers_common, sd_samplers_kdiffusion

    from .registry import register_samplers

    register_samplers(sd_samplers, sd_samplers_common, sd_samplers_kdiffusion)


def _settings() -> None:
    from modules import script_callbacks

    from .settings import add_settings

    script_callbacks.on_ui_settings(add_settings)


def _axes() -> None:
    from modules import script_callbacks

    from .xyz import add_axes

    script_callbacks.on_before_ui(add_axes)


def loaded_model() -> Any:
    """The model that the host has loaded, as far as a schedule goes: with the table that a sampler of it sees, to the last bit."""
    from .host import schedule_of_loaded_model

    return SimpleNamespace(noise_schedule=schedule_of_loaded_model())
