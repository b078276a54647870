"""The servers of the host tests."""

from __future__ import annotations

import json
import os

import pytest

from .comfyui import HOST, NAMED, PROBE, ROOT, Comfy, make_base, variables
from .warm_host import WarmHost

LOG_LINES = 40


@pytest.fixture(scope="session")
def comfyui_installed():
    """Skip, saying why, where ComfyUI could not be had; fail where one was asked for by name."""
    if HOST.problem and os.environ.get(NAMED):
        pytest.fail(HOST.problem)
    if HOST.problem:
        pytest.skip(HOST.problem)


@pytest.fixture(scope="session")
def boot_comfy(comfyui_installed, tmp_path_factory):
    """Return a function that boots one more server; all are stopped at the end of the session.

    `packs`: folders of node packs, by default this checkout alone. A server costs seconds: use `comfy` where it will do.
    """
    servers = []

    def boot(packs=(ROOT,), environment=None, extra_args=()) -> Comfy:
        environment = {"FEWSTEP_CACHE_DIR": str(tmp_path_factory.mktemp("cache")), **(environment or {})}
        servers.append(Comfy(tmp_path_factory.mktemp("comfy"), packs, environment, extra_args))
        return servers[-1]

    yield boot
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def comfy(boot_comfy) -> Comfy:
    """The server that most tests share: this pack, and the tests' own that counts calls and hands tensors out."""
    return boot_comfy([ROOT, PROBE])


HOST_PRELUDE = """
import asyncio, json, sys
sys.path.insert(0, {comfyui!r})
import comfy.options
comfy.options.enable_args_parsing(False)
from comfy.cli_args import args
args.cpu, args.base_directory = True, {base!r}
import utils.extra_config  # as main.py does: importing nodes puts a folder first that has another `utils`
import nodes

def load_pack():
    return asyncio.run(nodes.load_custom_node({pack!r}))

def tell(**what):
    print("TOLD:" + json.dumps(what))
"""


@pytest.fixture(scope="session")
def warm_host(comfyui_installed, tmp_path_factory):
    """The process that the programs of `in_host` are forked from."""
    host = WarmHost(HOST.comfyui, variables(), tmp_path_factory.mktemp("output"))
    yield host
    host.stop()


@pytest.fixture
def in_host(warm_host, tmp_path):
    """Return a function that runs Python code where ComfyUI's modules can be imported, without a server.

    The code knows `nodes`, `load_pack()` and `tell(name=value)`; what it told is returned, with the log as `log`.
    """

    def run(code: str, settings=None, environment=None, limit: float = 120) -> dict:
        make_base(tmp_path, [ROOT])
        if settings is not None:
            (tmp_path / "user/default/comfy.settings.json").write_text(json.dumps(settings), encoding="utf-8")
        pack = str(tmp_path / "custom_nodes/fewstep")
        prelude = HOST_PRELUDE.format(comfyui=str(HOST.comfyui), base=str(tmp_path), pack=pack)
        env = variables({"FEWSTEP_CACHE_DIR": str(tmp_path / "cache"), **(environment or {})})
        result = warm_host.run(prelude + code, env, limit)
        assert result.returncode == 0, result.stdout + result.stderr
        told = [line.removeprefix("TOLD:") for line in result.stdout.splitlines() if line.startswith("TOLD:")]
        return {**json.loads(told[-1]), "log": result.stderr}

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, Comfy):
                # What comes before is the host's start, the same for all.
                lines = value.log.partition("To see the GUI")[2].splitlines()[-LOG_LINES:]
                report.sections.append((f"log of {name} ({value.log_file})", "\n".join(lines)))
    return report
