"""FewStep's samplers with what ComfyUI composes: docs/composition.md says what was run, and this test runs it.

    FEWSTEP_WRITE_COMPOSITION=1 python -m pytest tests/host/test_composition.py     writes the part for the host that runs
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from .comfyui import ROOT

PAGE = ROOT / "docs" / "composition.md"
GROUPS = ("caches", "prompts", "masks", "latents")
CODE = """
import importlib
load_pack()
pack = next(name.removesuffix(".nodes.host") for name in sys.modules if name.endswith(".nodes.host"))
sys.path.insert(0, {folder!r})
import inside_composition
import comfyui_version
rows = inside_composition.compose(lambda name: importlib.import_module(f"{{pack}}.{{name}}"), {group!r})
tell(rows=rows, version=comfyui_version.__version__)
"""

TOLD: dict[str, dict] = {}
"""By group, what was found."""


@pytest.mark.parametrize("group", GROUPS)
def test_everything_works_as_stock_or_says_why_not(in_host, group):
    told = TOLD[group] = in_host(CODE.format(folder=str(Path(__file__).parent), group=group), limit=400)
    for name, found in told["rows"]:
        for sampler, outcome in found.items():
            assert outcome in ("as stock", "works"), f"{name}, {sampler}: {outcome}"


def table() -> str:
    lines = ["| composed with | Euler (*euler*) | recipe (*euler*) | AMED table (*dpm_2*) | UniPC |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(found.values())} |" for group in GROUPS for name, found in TOLD[group]["rows"]]
    return "\n".join(lines)


def test_the_page_says_what_was_run():
    if TOLD.keys() != set(GROUPS):
        pytest.skip("The page has all groups; run the tests of this file together.")
    head = f"## ComfyUI {TOLD[GROUPS[0]]['version']}"
    parts = re.split(r"(?=^## ComfyUI )", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    own = f"{head}\n\n{table()}\n"
    if os.environ.get("FEWSTEP_WRITE_COMPOSITION"):
        others = [part.strip() + "\n" for part in parts[1:] if not part.startswith(f"{head}\n")]
        PAGE.write_text(parts[0].rstrip() + "\n\n" + "\n".join(sorted([*others, own])), encoding="utf-8")
        return
    assert own.strip() in [part.strip() for part in parts], f"run the test with FEWSTEP_WRITE_COMPOSITION=1:\n{own}"
