"""Make the table of docs/faq.md: schedules that have one name in several hosts and are different lists.

    python docs/make_schedule_names.py

ComfyUI's lists and those of AUTOMATIC1111's WebUI were recorded from the hosts themselves (tests/data/make_comfyui_schedules.py and
make_webui_schedules.py). Align Your Steps is a node of its own in ComfyUI; its list is that of `baseline_sigmas`, which
tests/test_baselines.py compares with the node.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from blocks import DOCS, table, write

from fewstep.schedules import NoiseSchedule, baseline_sigmas

PAGE = DOCS / "faq.md"
DATA = DOCS.parent / "tests" / "data"
MODEL, STEPS = "sd15", 8
SAME = 1e-3
"""Largest relative difference of lists that are the same but for rounding."""

NAMES = {
    "normal": "Normal", "karras": "Karras", "exponential": "Exponential", "sgm_uniform": "SGM Uniform", "simple": "Simple",
    "ddim_uniform": "DDIM", "beta": "Beta", "kl_optimal": "KL Optimal", "ays": "Align Your Steps",
}  # fmt: skip
"""WebUI's label by ComfyUI's name, which is FewStep's too."""


def recorded(host: str) -> Mapping[str, Mapping[str, Sequence[float]]]:
    """Lists of a host by name and steps."""
    return json.loads((DATA / f"{host}_schedules.json").read_text(encoding="utf-8"))["lists"][MODEL]


def ours(name: str) -> list[float]:
    """FewStep's list."""
    return baseline_sigmas(name, NoiseSchedule.preset(MODEL), STEPS).tolist()


def lists() -> Iterator[tuple[str, Sequence[float], Sequence[float]]]:
    """Name, ComfyUI's list, WebUI's list."""
    comfyui, webui = recorded("comfyui"), recorded("webui")
    for name, label in NAMES.items():
        yield name, ours(name) if name == "ays" else comfyui[name][str(STEPS)], webui[label][str(STEPS)]


def same(first: Sequence[float], second: Sequence[float]) -> bool:
    """But for rounding."""
    return len(first) == len(second) and all(abs(a - b) <= SAME * max(a, b) for a, b in zip(first, second, strict=True))


def shown(levels: Sequence[float]) -> str:
    """As on other pages."""
    return ", ".join(f"{level:.3g}" for level in levels)


def differing() -> str:
    """The table, and a line with the names that mean the same."""
    rows = [
        [f"`{name}`, *{NAMES[name]}*", shown(comfyui), shown(webui)] for name, comfyui, webui in lists() if not same(comfyui, webui)
    ]  # fmt: skip
    equal = [f"`{name}`" for name, comfyui, webui in lists() if same(comfyui, webui)]
    head = ["name in ComfyUI, *in WebUI*", f"ComfyUI, {STEPS} steps", f"AUTOMATIC1111 1.10.1, {STEPS} steps"]
    return f"{table(head, rows)}\n\nThe same in both: {', '.join(equal)}."


def blocks() -> dict[str, str]:
    """The page's table by name."""
    return {"docs/make_schedule_names.py": differing()}


if __name__ == "__main__":
    write(PAGE, blocks())
