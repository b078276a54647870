"""A real ComfyUI, started for tests and from the shell.

In tests use the fixtures of conftest.py: `comfy` (one server for the whole session) and `boot_comfy` (more of them).
By hand, `python tests/host/comfyui.py` starts one on port 8199 until Ctrl+C; `--help` has the options. All of them are the pinned version
of get_comfyui.py, or the checkout that the environment variable FEWSTEP_COMFYUI_DIR names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path

if __package__:
    from ..processes import TiedProcess
    from . import get_comfyui
else:
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import get_comfyui
    from processes import TiedProcess

ROOT = get_comfyui.ROOT
PROBE = ROOT / "tests/data/comfy_packs/probe"  # nodes that count model calls and hand tensors out
STAND_INS = Path(__file__).resolve().parent / "stand_ins"
NEWER_STAND_INS = STAND_INS.with_name("stand_ins_newer")
BOOT_LIMIT = 120  # seconds; 5 to 10 on an idle machine
RUN_LIMIT = 120


@dataclass(frozen=True)
class Host:
    """A ComfyUI, the folder of its packages, and the modules in the place of packages that it has to do without, first ones first.

    `problem`: why it cannot be started, as a sentence; "" where it can.
    """

    version: str
    comfyui: Path
    packages: Path
    stand_ins: tuple[Path, ...]
    problem: str = ""

    @property
    def path(self) -> list[str]:
        """What it finds before the packages of the tests."""
        return [*map(str, self.stand_ins), str(self.packages)]


NAMED = "FEWSTEP_COMFYUI_DIR"


def chosen_host(named: str = "") -> Host:
    """The ComfyUI in the folder `named`, or else the pinned one of get_comfyui.py."""
    if not named:
        problem = "" if get_comfyui.is_ready() else get_comfyui.why_not()
        return Host(get_comfyui.VERSION, get_comfyui.COMFYUI, get_comfyui.PACKAGES, (STAND_INS,), problem)
    checkout, stand_ins = Path(named).resolve(), (NEWER_STAND_INS, STAND_INS)
    try:
        version, packages = get_comfyui.version_of(checkout), get_comfyui.packages_for(checkout)
    except RuntimeError as error:
        return Host("", checkout, checkout, stand_ins, f"{NAMED} was {named!r}. {error}")
    ready = get_comfyui.is_ready_for(checkout)
    problem = "" if ready else f"The packages of {checkout} are not installed: `python tests/host/get_comfyui.py --for {checkout}` does it."
    return Host(version, checkout, packages, stand_ins, problem)


HOST = chosen_host(os.environ.get(NAMED, ""))
"""The ComfyUI that all host tests and benchmarks run on."""


class PromptRefused(Exception):
    """The server did not take a prompt (HTTP 400); `answer` is its JSON."""

    def __init__(self, answer: dict):
        self.answer = answer
        super().__init__(json.dumps(answer, indent=1))

    def sentences(self) -> list[str]:
        """Return all texts of all nodes' errors."""
        errors = [error for node in self.answer.get("node_errors", {}).values() for error in node["errors"]]
        return [f"{error.get('message', '')}: {error.get('details', '')}" for error in errors]


class Node:
    """A node of a `Graph`; `node[i]` is the link to its output `i`."""

    def __init__(self, number: str):
        self.id = number

    def __getitem__(self, output: int) -> list:
        return [self.id, output]


class Graph:
    """A workflow in the form that `POST /prompt` takes, written node by node."""

    def __init__(self):
        self.prompt: dict[str, dict] = {}

    def node(self, class_type: str, **inputs) -> Node:
        number = str(len(self.prompt) + 1)
        self.prompt[number] = {"class_type": class_type, "inputs": inputs}
        return Node(number)


class Result:
    """How a prompt ended: what the server's history says of it."""

    def __init__(self, prompt_id: str, entry: dict):
        self.id, self.outputs, self.status = prompt_id, entry["outputs"], entry["status"]
        self.messages = {name: data for name, data in self.status["messages"]}

    @property
    def ok(self) -> bool:
        return self.status["status_str"] == "success"

    @property
    def error(self) -> str:
        """The text of the red node, or ""."""
        return self.messages.get("execution_error", {}).get("exception_message", "")

    @property
    def interrupted(self) -> bool:
        return "execution_interrupted" in self.messages

    @property
    def cached(self) -> set[str]:
        """The ids of the nodes that were not run again."""
        return set(self.messages.get("execution_cached", {}).get("nodes", ()))

    def ui(self, node: Node | str, name: str):
        """Return what a node sent to the browser under `name`."""
        return self.outputs[getattr(node, "id", node)][name]


class Comfy:
    """A running server. `base` is its folder (models, input, output, user, custom_nodes)."""

    def __init__(
        self, base: Path, packs=(ROOT,), environment=None, extra_args=(), port: int | None = None, host: Host = HOST
    ):
        self.base, self.port = Path(base), port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client_id = uuid.uuid4().hex
        self.log_file = self.base / "comfy.log"
        self.known_nodes: dict = {}
        make_base(self.base, packs)
        with open(self.log_file, "wb") as log:
            self.process = TiedProcess(
                command(self.base, self.port, *extra_args),
                cwd=host.comfyui, env=variables(environment, host), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self.boot_seconds = self._wait_until_it_answers()
        except BaseException:  # Ctrl+C, too: nobody else knows of it yet
            self.stop()
            raise

    def _wait_until_it_answers(self) -> float:
        started = time.monotonic()
        while time.monotonic() - started < BOOT_LIMIT:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with code {self.process.returncode}:\n{self.log[-4000:]}")
            try:
                self.get("/system_stats")
                return time.monotonic() - started
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"ComfyUI did not answer within {BOOT_LIMIT} s:\n{self.log[-4000:]}")

    @property
    def log(self) -> str:
        return plain(self.log_file.read_text(encoding="utf-8", errors="replace"))

    def stop(self) -> None:
        self.process.end()  # it has nothing to save, and ends by itself only after seconds

    def __enter__(self) -> Comfy:
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def add_model(self, kind: str, name: str, as_name: str | None = None) -> str:
        """Put a file of `random_models` into the server's folder `kind` and return its name there."""
        link = self.base / "models" / kind / (as_name or name)
        if not link.exists():
            link.symlink_to(random_models() / kind / name)
        return link.name

    # --- HTTP ---

    def request(self, path: str, data: dict | None = None, timeout: float = 60) -> tuple[int, bytes]:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get(self, path: str):
        """Return the answer of a GET, as JSON where it is JSON, else as bytes; raise on a status other than 200."""
        status, body = self.request(path)
        if status != 200:
            raise RuntimeError(f"GET {path}: HTTP {status}: {body[:500]!r}")
        try:
            return json.loads(body)
        except ValueError:
            return body

    @property
    def object_info(self) -> dict:
        return self.get("/object_info")

    # --- Prompts ---

    def with_defaults(self, prompt: dict) -> dict:
        """Return a prompt in which widgets that are not named have their default values, as on the page."""
        self.known_nodes = self.known_nodes or self.object_info
        filled = {}
        for number, node in prompt.items():
            known = self.known_nodes.get(node["class_type"], {"input": {}})["input"]
            inputs = {**known.get("required", {}), **known.get("optional", {})}
            defaults = {name: options[0]["default"] for name, (_, *options) in inputs.items() if options and "default" in options[0]}
            filled[number] = {**node, "inputs": {**defaults, **node["inputs"]}}
        return filled

    def post_prompt(self, prompt: Graph | dict, as_it_is: bool = False, **more) -> str:
        """Queue a prompt and return its id; raise PromptRefused where the server's validation finds something.

        `as_it_is`: without the defaults that the page would add.
        """
        graph = prompt.prompt if isinstance(prompt, Graph) else prompt
        graph = graph if as_it_is else self.with_defaults(graph)
        # Without a client id the history has no outputs of nodes that were cached.
        status, body = self.request("/prompt", {"prompt": graph, "client_id": self.client_id, **more})
        answer = json.loads(body)
        if status != 200 or answer.get("node_errors"):
            raise PromptRefused(answer)
        return answer["prompt_id"]

    def wait(self, prompt_id: str, limit: float = RUN_LIMIT) -> Result:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return Result(prompt_id, history[prompt_id])
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI ended with code {self.process.returncode}:\n{self.log[-4000:]}")
            time.sleep(0.02)
        self.interrupt()
        raise TimeoutError(f"the prompt did not end within {limit} s:\n{self.log[-2000:]}")

    def run_any(self, prompt: Graph | dict, limit: float = RUN_LIMIT, **more) -> Result:
        """Queue a prompt and return how it ended, whatever that is."""
        return self.wait(self.post_prompt(prompt, **more), limit)

    def run(self, prompt: Graph | dict, limit: float = RUN_LIMIT, **more) -> Result:
        """Queue a prompt and return its result; raise where a node failed."""
        result = self.run_any(prompt, limit, **more)
        if not result.ok:
            raise RuntimeError(f"the prompt failed: {result.error or result.status}\n{self.log[-3000:]}")
        return result

    def interrupt(self) -> None:
        self.request("/interrupt", {})

    def interrupt_once_it_runs(self, prompt_id: str, limit: float = RUN_LIMIT) -> Result:
        """Interrupt a prompt when its turn has come, and return how it ended.

        Asked again until it has ended: the host forgets what it was asked between taking a prompt from its queue and beginning it.
        """
        deadline = time.monotonic() + limit
        while prompt_id not in (history := self.get(f"/history/{prompt_id}")):
            if any(prompt_id in running for running in self.get("/queue")["queue_running"]):
                self.interrupt()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the prompt was not interrupted within {limit} s:\n{self.log[-2000:]}")
            time.sleep(0.05)
        return Result(prompt_id, history[prompt_id])

    def queue_is_empty(self) -> bool:
        queue = self.get("/queue")
        return not queue["queue_running"] and not queue["queue_pending"]

    def images(self, result: Result) -> list[Path]:
        """Return the files of all pictures that the prompt saved or previewed."""
        folders = {"output": self.base / "output", "temp": self.base / "temp", "input": self.base / "input"}
        images = [image for output in result.outputs.values() for image in output.get("images", ())]
        return [folders[image["type"]] / image["subfolder"] / image["filename"] for image in images]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def make_base(base: Path, packs) -> None:
    """Make the folder of a server with `packs` (folders, linked under their own names) as its custom nodes."""
    for name in ("models/checkpoints", "models/diffusion_models", "custom_nodes", "input", "output", "user/default"):
        (base / name).mkdir(parents=True, exist_ok=True)
    for pack in map(Path, packs):
        link = base / "custom_nodes" / ("fewstep" if pack == ROOT else pack.name)
        if not link.exists():
            link.symlink_to(pack, target_is_directory=True)
    settings = base / "user/default/comfy.settings.json"
    if not settings.exists():
        # Otherwise a window about templates covers the page.
        settings.write_text('{"Comfy.TutorialCompleted": true}', encoding="utf-8")


def command(base: Path, port: int, *extra_args: str) -> list[str]:
    """Return the command that starts a server."""
    return [
        sys.executable, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch",
        "--disable-api-nodes", "--base-directory", str(base), "--user-directory", str(base / "user"),
        "--database-url", "sqlite:///:memory:", *extra_args,
    ]  # fmt: skip


def plain(log: str) -> str:
    """Return a log without the colours and levels that newer versions write before every message, some in the middle of a line."""
    return re.sub(r"^\[[A-Z]+\] ", "", re.sub(r"\x1b\[[0-9;]*m", "", log), flags=re.MULTILINE)


def variables(more=None, host: Host = HOST) -> dict[str, str]:
    """Return the environment of a server: its own packages come before those of the tests."""
    path = [*host.path, os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONDONTWRITEBYTECODE": "",
        "OMP_NUM_THREADS": "1",  # the models are small: a second thread costs more than it brings
        "HF_HUB_OFFLINE": "1",
        **(more or {}),
    }


def random_models() -> Path:
    """Return the folder of make_models.py's files, which are made once."""
    script = Path(__file__).with_name("make_models.py")
    folder = HOST.packages.with_name(f"models-{hashlib.sha256(script.read_bytes()).hexdigest()[:12]}")
    if not folder.is_dir():
        unfinished = folder.with_suffix(f".{os.getpid()}")
        environment = variables()
        environment["PYTHONPATH"] += os.pathsep + str(HOST.comfyui)
        made = subprocess.run(
            [sys.executable, str(script), str(unfinished)], env=environment, capture_output=True, text=True, check=False
        )
        if made.returncode:
            raise RuntimeError(f"the models could not be made:\n{made.stderr[-4000:]}")
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
            shutil.rmtree(unfinished)  # another test process was first; its files are the same
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description="Start ComfyUI with this checkout as its node pack, until Ctrl+C.")
    parser.add_argument("--port", type=int, default=8199)
    parser.add_argument("--base", type=Path, help="folder of the server; kept (default: a temporary one)")
    parser.add_argument("--pack", type=Path, action="append", default=[], help="another node pack; may be repeated")
    parser.add_argument("arguments", nargs="*", help="arguments for ComfyUI, after --")
    options = parser.parse_args()
    if HOST.problem:
        raise SystemExit(HOST.problem)
    base = options.base or Path(tempfile.mkdtemp(prefix="fewstep-comfy-"))
    server = Comfy(base, [ROOT, PROBE, *options.pack], extra_args=options.arguments, port=options.port)
    print(f"{server.url} answers after {server.boot_seconds:.1f} s; folder {base}, log {server.log_file}", flush=True)
    try:
        server.process.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
        if not options.base:
            shutil.rmtree(base, ignore_errors=True)


if __name__ == "__main__":
    main()
