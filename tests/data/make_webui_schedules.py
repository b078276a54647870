"""Writes webui_schedules.json: the lists that the schedule types of AUTOMATIC1111's WebUI give for Stable Diffusion 1.5 and XL.

    python tests/data/make_webui_schedules.py CHECKOUT

CHECKOUT is a folder with the WebUI (1.10.1 was used; its modules/sd_schedulers.py is run, with a stand-in for modules/shared.py, and
k-diffusion's own DiscreteSchedule as the model). The tests and docs/make_schedule_names.py read only the JSON file.
"""

from __future__ import annotations

import json
import runpy
import sys
import types
from pathlib import Path

import torch

from fewstep.demo.kdiffusion import k_diffusion
from fewstep.schedules import NoiseSchedule

STEPS = (1, 3, 5, 8, 10, 20)
MODELS = ("sd15", "sdxl")


def main() -> None:
    checkout = Path(sys.argv[1])
    version = next(line for line in (checkout / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line.startswith("## "))
    shared = types.SimpleNamespace(
        opts=types.SimpleNamespace(beta_dist_alpha=0.6, beta_dist_beta=0.6),  # the settings' defaults
        sd_model=types.SimpleNamespace(is_sdxl=False),
    )
    modules = types.ModuleType("modules")
    modules.shared = shared
    sys.modules["modules"], sys.modules["k_diffusion"] = modules, k_diffusion
    schedulers = runpy.run_path(str(checkout / "modules" / "sd_schedulers.py"))["schedulers"]

    lists = {}
    for name in MODELS:
        shared.sd_model.is_sdxl = name == "sdxl"
        levels = torch.tensor(NoiseSchedule.preset(name).levels, dtype=torch.float32)
        model = k_diffusion.external.DiscreteSchedule(levels, quantize=False)
        lists[name] = {}
        for entry in schedulers:
            if entry.function is None:
                continue
            options = {"inner_model": model} if entry.need_inner_model else {}
            ends = {} if entry.name == "uniform" else {"sigma_min": float(levels[0]), "sigma_max": float(levels[-1])}
            if entry.name == "uniform":  # it ignores them, but has to be given some
                ends = {"sigma_min": None, "sigma_max": None}
            lists[name][entry.label] = {
                str(n): [float(f"{float(sigma):.9g}") for sigma in entry.function(n=n, device="cpu", **ends, **options)] for n in STEPS
            }
    note = f"Produced by AUTOMATIC1111's WebUI {version[3:].strip()} through tests/data/make_webui_schedules.py."
    text = json.dumps({"note": note, "lists": lists}, separators=(",", ":")).replace('},"', '},\n"')
    Path(__file__).with_name("webui_schedules.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
