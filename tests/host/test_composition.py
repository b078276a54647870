"""FewStep's samplers with what ComfyUI composes: docs/composition.md says what was run, and this test runs it.

    FEWSTEP_WRITE_COMPOSITION=1 python -m pytest tests/host/test_composition.py     writes the part for the host that runs

With FEWSTEP_COMFYUI_DIR (see test_newer_host.py) that is the checkout that it names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from . import get_comfyui
from .comfyui import NEWER_STAND_INS, PINNED, ROOT, STAND_INS, Host, make_base, variables
from .conftest import HOST_PRELUDE

PAGE = ROOT / "docs" / "composition.md"
CODE = """
import importlib
load_pack()
pack = next(name.removesuffix(".nodes.host") for name in sys.modules if name.endswith(".nodes.host"))
sys.path.insert(0, {folder!r})
import inside_composition
import comfyui_version
rows = inside_composition.compose(lambda name: importlib.import_module(f"{{pack}}.{{name}}"))
tell(rows=rows, version=comfyui_version.__version__)
"""


def host_named() -> Host:
    checkout = os.environ.get("FEWSTEP_COMFYUI_DIR")
    if not checkout:
        return PINNED
    folder = Path(checkout).resolve()
    return Host(folder, get_comfyui.packages_for(folder), (NEWER_STAND_INS, STAND_INS))


@pytest.fixture(scope="module")
def told(comfyui_installed, tmp_path_factory):
    base, host = tmp_path_factory.mktemp("host"), host_named()
    make_base(base, [ROOT])
    prelude = HOST_PRELUDE.format(comfyui=str(host.comfyui), base=str(base), pack=str(base / "custom_nodes/fewstep"))
    code = prelude + CODE.format(folder=str(Path(__file__).parent))
    env = variables({"FEWSTEP_CACHE_DIR": str(base / "cache")}, host)
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=host.comfyui, env=env, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return json.loads([line for line in result.stdout.splitlines() if line.startswith("TOLD:")][-1].removeprefix("TOLD:"))


def table(told: dict) -> str:
    lines = ["| composed with | Euler (*euler*) | recipe (*euler*) | AMED table (*dpm_2*) | UniPC |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {' | '.join(found.values())} |" for name, found in told["rows"]]
    return "\n".join(lines)


def test_everything_works_as_stock_or_says_why_not(told):
    for name, found in told["rows"]:
        for sampler, outcome in found.items():
            assert outcome in ("as stock", "works"), f"{name}, {sampler}: {outcome}"


def test_the_page_says_what_was_run(told):
    page, head = PAGE.read_text(encoding="utf-8"), f"## ComfyUI {told['version']}"
    parts = re.split(r"(?=^## ComfyUI )", page, flags=re.MULTILINE)
    own = f"{head}\n\n{table(told)}\n"
    if os.environ.get("FEWSTEP_WRITE_COMPOSITION"):
        others = [part.strip() + "\n" for part in parts[1:] if not part.startswith(f"{head}\n")]
        PAGE.write_text(parts[0].rstrip() + "\n\n" + "\n".join(sorted([*others, own])), encoding="utf-8")
        return
    assert own.strip() in [part.strip() for part in parts], f"run the test with FEWSTEP_WRITE_COMPOSITION=1:\n{own}"
