"""A real Stable Diffusion WebUI, started for tests.

A host is whatever checkout the environment names; nothing is downloaded and nothing is written into it (data go to a folder of the test).

    FEWSTEP_WEBUI_DIR      the checkout: AUTOMATIC1111, Forge, reForge, Forge Classic or Forge Neo
    FEWSTEP_WEBUI_PYTHON   the interpreter of its environment; default CHECKOUT/venv/bin/python
    FEWSTEP_WEBUI_MODEL    the checkpoint; default the first in CHECKOUT/models/Stable-diffusion
    FEWSTEP_WEBUI_FLOW     a checkpoint of a flow model (Forge: SD3, Flux) for the tests of these; without one they are skipped
    FEWSTEP_WEBUI_PORT     default 7871; flow models have the next
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from ..processes import TiedProcess

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).resolve().parent / "probe_extension"
BOOT_LIMIT = 600  # seconds; half a minute on an idle machine
ANSWER_LIMIT = 600
_STARTED = "Startup time: "

# The host's packages are older than the torch of a test machine, and torchvision without its compiled part does not import.
WRAPPER = """
import os, runpy, sys
try:
    import torchvision
except Exception:
    for name in [n for n in sys.modules if n.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torch
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys.kept_library = library
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def why_no_host() -> str:
    """A sentence where no host is to be tested with, else ""."""
    folder = os.environ.get("FEWSTEP_WEBUI_DIR", "")
    if not folder:
        return (
            "No WebUI was tested: FEWSTEP_WEBUI_DIR does not name a checkout of AUTOMATIC1111, Forge, reForge or Forge Neo. With one, and "
            "FEWSTEP_WEBUI_PYTHON for its environment, these tests boot it."
        )
    if not (Path(folder) / "launch.py").is_file():
        return f"No WebUI was tested: FEWSTEP_WEBUI_DIR names {folder}, which has no launch.py."
    if not interpreter().is_file():
        return f"No WebUI was tested: there is no Python at {interpreter()}; FEWSTEP_WEBUI_PYTHON names it."
    if model() is None:
        return "No WebUI was tested: the checkout has no checkpoint; FEWSTEP_WEBUI_MODEL names one."
    return ""


def checkout() -> Path:
    return Path(os.environ["FEWSTEP_WEBUI_DIR"]).resolve()


def interpreter() -> Path:
    return Path(os.environ.get("FEWSTEP_WEBUI_PYTHON") or checkout() / "venv/bin/python")


def model() -> Path | None:
    named = os.environ.get("FEWSTEP_WEBUI_MODEL")
    if named:
        return Path(named)
    return next(iter(sorted((checkout() / "models/Stable-diffusion").glob("*.safetensors"))), None)


def flow_model() -> Path | None:
    named = os.environ.get("FEWSTEP_WEBUI_FLOW")
    return Path(named) if named else None


def kind() -> str:
    """ "a1111", "forge", "neo", "reforge" or "classic"."""
    folder = checkout()
    if not (folder / "modules_forge").is_dir():
        return "a1111"
    if (folder / "backend").is_dir():
        return "forge" if '"--always-cpu"' in (folder / "backend/args.py").read_text(encoding="utf-8") else "neo"
    return "reforge" if (folder / "modules/sd_schedulers.py").is_file() else "classic"


def _neo_version() -> str:
    """What Forge Neo expects in its settings."""
    text = (checkout() / "modules/launch_utils.py").read_text(encoding="utf-8")
    return re.search(r'^VERSION_UID\b.*"(.*)"', text, re.MULTILINE)[1]


class Refused(Exception):
    """The host answered with an error; `text` is what it said."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"HTTP {code}: {text}")
        self.text = text


class WebUI:
    """A running host. `data` is its folder (extensions, models, outputs)."""

    def __init__(self, data: Path, checkpoint: Path | None = None, next_port: int = 0) -> None:
        self.data, self.kind = data, kind()
        self.port = int(os.environ.get("FEWSTEP_WEBUI_PORT", "7871")) + next_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_file = data / "webui.log"
        for folder in ("extensions", "models/Stable-diffusion", "models/fewstep/recipes", "models/fewstep/amed", "tmp"):  # the last: Neo
            (data / folder).mkdir(parents=True, exist_ok=True)
        chosen = checkpoint or model()
        assert chosen is not None
        if self.kind == "neo":
            (data / "models/Stable-diffusion" / chosen.name).symlink_to(chosen)
        # The probe comes first in one alphabet and the order of loading, FewStep between the two.
        for name, folder in (("a_probe", PROBE), ("fewstep", ROOT)):
            (data / "extensions" / name).symlink_to(folder, target_is_directory=True)
        settings = {
            "live_previews_enable": False, "samples_save": False, "grid_save": False, "sd_checkpoint_hash": "",
            # A request's overrides are taken back only where the settings are written down.
            "sigma_min": 0.0, "sigma_max": 0.0, "always_discard_next_to_last_sigma": False, "img2img_fix_steps": False,
            # Of a text encoder of random weights the usual emphasis makes 0 / 0 in some hosts.
            "emphasis": "No norm",
            **({"k_sched_type": "Automatic"} if self.kind == "classic" else {}),
            # Without it, it takes the settings for those of another generation and waits for a key; the checkpoint is a setting there.
            **({"VERSION_UID": _neo_version(), "sd_model_checkpoint": chosen.name} if self.kind == "neo" else {}),
        }  # fmt: skip
        (data / "config.json").write_text(json.dumps(settings), encoding="utf-8")
        (data / "boot.py").write_text(WRAPPER, encoding="utf-8")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))},
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "GRADIO_ANALYTICS_ENABLED": "False",
            "PYTHONUNBUFFERED": "1",
            "FEWSTEP_ROOT": str(ROOT),
            "FEWSTEP_CACHE_DIR": str(data / "cache"),
        }
        environment.pop("PYTHONPATH", None)
        # Some flags are of one host only; most call the others unknown and go on, Forge Classic ends.
        cpu = {"a1111": ["--use-cpu", "all", "--no-half", "--precision", "full"], "neo": ["--cpu", "--force-fp32"]}.get(
            self.kind, ["--always-cpu", "--all-in-fp32"]
        )
        others = [] if self.kind == "neo" else ["--no-download-sd-model", "--ckpt", str(chosen)]
        others += ["--do-not-download-clip"] if self.kind not in ("classic", "neo") else []
        command = [
            str(interpreter()), str(data / "boot.py"), "launch.py", "--skip-prepare-environment", "--skip-torch-cuda-test",
            "--skip-python-version-check", "--skip-version-check", "--no-hashing", "--data-dir", str(data),
            "--server-name", "127.0.0.1", "--api", "--port", str(self.port), *cpu, *others,
            # Forge's page gets its own scripts and styles only where the checkout is the data folder, or is named here.
            "--gradio-allowed-path", str(checkout()),
        ]  # fmt: skip
        with open(self.log_file, "wb") as log:
            self.process = TiedProcess(command, cwd=checkout(), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self.boot_seconds = self.wait(1)
        except BaseException:  # Ctrl+C, too: nobody else knows of it yet
            self.stop()
            raise

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def wait(self, starts: int) -> float:
        """Until it has started so many times and answers; how long that took.

        It is not asked before it says so: a request in the middle of a start stops it ("Cannot add middleware after ...").
        """
        began = time.monotonic()
        while time.monotonic() - began < BOOT_LIMIT:
            if self.process.poll() is not None:
                raise RuntimeError(f"The host ended with code {self.process.returncode}:\n{self.log[-4000:]}")
            if self.log.count(_STARTED) >= starts:
                try:
                    self.get("/probe/state", limit=10)
                    return time.monotonic() - began
                except (OSError, Refused, ValueError):
                    pass
            time.sleep(0.5)
        self.stop()
        raise RuntimeError(f"The host did not answer within {BOOT_LIMIT} s:\n{self.log[-4000:]}")

    def stop(self) -> None:
        self.process.end()

    # --- its API ---

    def get(self, path: str, limit: float = ANSWER_LIMIT) -> dict:
        return self._ask(urllib.request.Request(self.url + path), limit)

    def post(self, path: str, **body) -> dict:
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return self._ask(request, ANSWER_LIMIT)

    def _ask(self, request: urllib.request.Request, limit: float) -> dict:
        try:
            with urllib.request.urlopen(request, timeout=limit) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, error.read().decode(errors="replace")) from error

    def names(self) -> tuple[list[str], list[str]]:
        """Names of samplers and labels of schedules."""
        samplers = [entry["name"] for entry in self.get("/sdapi/v1/samplers")]
        if self.kind == "classic":
            return samplers, self.get("/probe/state")["old_schedules"]
        return samplers, [entry["label"] for entry in self.get("/sdapi/v1/schedulers")]

    def picture(self, mode: str = "txt2img", panel: list | None = None, **settings) -> Picture:
        """A 64x64 picture; `panel`: the arguments of FewStep's script."""
        usual = {"prompt": "a cat", "negative_prompt": "a dog", "steps": 4, "width": 64, "height": 64, "cfg_scale": 5, "seed": 7}
        if "infotext" in settings:
            # Forge reads these fields of its own with isinstance(value, list[str]), which raises; fields that are given are not read.
            usual = {"hr_additional_modules": ["Use same choices"], "styles": []} if self.kind in ("forge", "neo") else {}
        body = {**usual, **settings}
        body = {name: value for name, value in body.items() if value is not None}
        if self.kind == "classic" and "scheduler" in body:  # a setting there
            schedule = body.pop("scheduler").replace("Karras", "karras")
            body["override_settings"] = {"k_sched_type": schedule, **body.get("override_settings", {})}
        if panel is not None:
            body["alwayson_scripts"] = {"FewStep": {"args": panel}}
        answer = self.post(f"/sdapi/v1/{mode}", **body)
        return Picture(answer["images"][0], json.loads(answer["info"])["infotexts"][0])


class Picture:
    """One picture of the host: `png` as it came, `pixels`, and the text beside it."""

    def __init__(self, image: str, infotext: str) -> None:
        self.png = base64.b64decode(image.partition(",")[2] or image)
        self.encoded = image
        self.infotext = infotext

    @property
    def pixels(self) -> bytes:
        from PIL import Image

        return Image.open(io.BytesIO(self.png)).convert("RGB").tobytes()

    @property
    def fields(self) -> dict[str, str]:
        """Names and values of the last line, as the host reads them."""
        found = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', self.infotext.split("\n")[-1])
        return {name: json.loads(value) if value.startswith('"') else value for name, value in found}
