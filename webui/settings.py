"""FewStep's page in the host's settings."""

from __future__ import annotations

from .choices import LABELS, Choices

STRENGTH = "fewstep_strength"
ORDER_AT_GUIDANCE = "fewstep_order_at_guidance"
_SECTION = ("fewstep", "FewStep")


def add_settings() -> None:
    """Add the page; the host calls this at every start of the user interface."""
    import gradio as gr
    from modules import shared

    options = {
        STRENGTH: shared.OptionInfo(
            0.0,
            "Strength p of the model-error term in the error bound that FewStep's optimized schedules minimise",
            gr.Number,
            infotext=LABELS["strength"],
            section=_SECTION,
        ),
        ORDER_AT_GUIDANCE: shared.OptionInfo(
            True,
            "FewStep DEIS, iPNDM and SDE use order 2 at CFG scale 4 and above (if the panel's order is Auto)",
            gr.Checkbox,
            infotext=LABELS["order_at_guidance"],
            section=_SECTION,
        ),
    }
    _explain(
        options[STRENGTH],
        "0: the default that measured best, with the same schedule for all solvers. The paper uses 2, with the order of each solver.",
    )
    for name, option in options.items():
        shared.opts.add_option(name, option)


def _explain(option: object, text: str) -> None:
    info = getattr(option, "info", None)
    if callable(info):
        info(text)


def from_settings(choices: Choices) -> Choices:
    """The choices with those that come from the host's settings."""
    from modules import shared

    for name, setting in (("strength", STRENGTH), ("order_at_guidance", ORDER_AT_GUIDANCE)):
        value = getattr(shared.opts, setting, None)
        if value is not None:
            choices = choices.with_value(name, value)
    return choices
