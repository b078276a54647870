"""What every test session needs before the first import of the package."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Set before anything reads them. Tests must not touch the user's cache, open windows or ask a model hub.
_cache = tempfile.TemporaryDirectory(prefix="fewstep-test-cache-")
os.environ["FEWSTEP_CACHE_DIR"] = _cache.name
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def pytest_configure(config):
    # Another copy of the package, say an older wheel, would pass or fail tests that are not about this folder.
    spec = importlib.util.find_spec("fewstep")
    if spec is None or not spec.origin:
        pytest.exit(
            "`import fewstep` does not work here. Run `python install.py --test`, or in an environment of your own "
            "`pip install -e .` first.",
            returncode=3,
        )
    if Path(spec.origin).resolve().parent != ROOT:
        pytest.exit(
            f"`import fewstep` finds {spec.origin}, but the tests are those of {ROOT}. Run `python install.py --test` "
            "in this folder, or `pip install -e .`.",
            returncode=3,
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from .two_processes import scheduler

    return scheduler(config, log)


@pytest.fixture(scope="session", autouse=True)
def one_copy_of_the_core():
    """Looks at what the whole process has imported."""
    from .loaded_files import loaded_twice

    yield
    assert not loaded_twice(sys.modules)


@pytest.fixture(scope="session")
def copy_of_the_checkout(tmp_path_factory):
    """Return a function that copies what git knows or would add, under a name that is no Python identifier."""

    def copy(name="ComfyUI-FewStep"):
        destination = tmp_path_factory.mktemp("checkout") / name
        ignore = shutil.ignore_patterns(
            ".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "build", "dist", "*.egg-info"
        )
        return Path(shutil.copytree(ROOT, destination, ignore=ignore))

    return copy


@pytest.fixture(scope="session")
def run_python():
    """Return a function that runs this Python with `arguments` and returns the finished process and its text."""

    def run(*arguments, python=sys.executable, env=None, **options):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
        command = [str(python), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env={**environment, **(env or {})}, check=False, **options
        )

    return run


@pytest.fixture(scope="session")
def free_port():
    """A port of this machine on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
