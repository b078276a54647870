"""Packages that are not in requirements.txt may be missing: what does not need them works, the rest says what to install."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ("tqdm", "matplotlib", "PIL", "k_diffusion", "torchsde", "torchvision", "diffusers", "pytest")

WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

missing = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Missing())
"""


@pytest.fixture
def without(run_python, tmp_path):
    """Return a function that runs code in a Python in which these modules cannot be found."""

    def run(missing, code, *arguments):
        (tmp_path / "program.py").write_text(WITHOUT + code, encoding="utf-8")
        return run_python("program.py", ",".join(missing), *arguments, cwd=tmp_path)

    return run


COMMAND = """
from fewstep.cli import main

status = main(["schedule", "5"]) or main(["recipe", "show", sys.argv[1]])
sys.exit(status)
"""


def test_commands_that_print_need_nothing_else(without):
    result = without(OPTIONAL, COMMAND, ROOT / "demo/recipes/edm-4.json")
    assert result.returncode == 0 and len(result.stdout) > 400, result.stderr


FAILING = """
from fewstep.cli import main

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("missing", "arguments", "package"),
    [
        ("matplotlib", ("schedule", "5", "--plot", "x.png"), "matplotlib"),
        ("PIL", ("sample", "--steps", "2"), "pillow"),
        ("tqdm", ("sample", "--steps", "2"), "tqdm"),
        ("k_diffusion", ("sample", "--steps", "2"), "k-diffusion"),
    ],
)
def test_commands_that_need_more_say_what_to_install(missing, arguments, package, without):
    """In a process of its own: modules that are loaded already would not be missed."""
    result = without([missing], FAILING, *arguments)
    assert result.returncode == 2, result.stdout
    assert f"needs the package {package}, which is not installed. `pip install {package}`" in result.stderr


CORE = """
import torch
from fewstep import amed, fitting, jobs, recipes, schedules, solvers, training
import fewstep.fitting.tuning

schedules.cache.default_cache()
sigmas = schedules.optimal_sigmas(schedules.NoiseSchedule.edm(0.0123, 79.0), 3)
x = solvers.sample(lambda x, sigma: 0.5 * x, torch.ones(1, 1, 4, 4) * sigmas[0], solvers.build_table("unipc", sigmas))
try:
    solvers.sample_dpmpp_2m_sde(lambda x, sigma: 0.5 * x, torch.ones(1, 1, 4, 4), sigmas)
except ImportError as error:
    print(len(x), bool(x.isfinite().all()), "Install torchsde" in str(error))
"""


def test_the_core_needs_nothing_else(without):
    """Without platformdirs, too: lists are then computed again in every session."""
    result = without((*OPTIONAL, "platformdirs"), CORE)
    assert result.stdout.split() == ["1", "True", "True"], result.stdout + result.stderr


HOSTS = {"comfy", "comfy_api", "comfy_execution", "folder_paths", "server", "latent_preview", "comfy_extras", "aiohttp", "PIL"}
REQUIRED = {"numpy", "torch", "safetensors", "scipy", "platformdirs"}


def test_nodes_import_what_every_comfyui_has_and_nothing_else():
    """requirements.txt, and what ComfyUI itself cannot do without."""
    found = {}
    for path in (ROOT / "nodes").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level and node.module else []
            found |= {name.split(".")[0]: path.relative_to(ROOT) for name in names}
    assert not found.keys() - REQUIRED - HOSTS - sys.stdlib_module_names, found
    assert {"comfy_api", "torch", "PIL"} <= found.keys()
