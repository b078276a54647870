"""The part of host_caches.py that runs inside ComfyUI's Python: samples every setting, one picture at a time, and counts forward passes."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import sys
from pathlib import Path

import comfy.options

comfy.options.enable_args_parsing(False)

from comfy.cli_args import args  # noqa: E402  read by the modules below when they are imported

args.cpu = True

import comfy.sample  # noqa: E402
import comfy.samplers  # noqa: E402
import torch  # noqa: E402

import nodes  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


def load_pack() -> str:
    """Import the checkout as the host does: under a name that is its path."""
    name = str(ROOT).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    pack = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    return name


def part(name: str):
    return importlib.import_module(f"{load_pack.name}.{name}")


class Counter:
    """Forward passes of a network: how many samples went through it."""

    def __init__(self, network: torch.nn.Module) -> None:
        self.passes = 0
        network._answer, self._answer = self, network._answer

    def __call__(self, x, *more):
        self.passes += len(x)
        return self._answer(x, *more)


def main(folder: Path) -> None:
    load_pack.name = load_pack()
    files = part("tensor_files")
    tensors, job = files.load_tensors(folder / "noise.safetensors")
    noise = tensors["noise"]
    emoji = job["problem"] == "emoji"
    extras = Path(os.path.dirname(os.path.dirname(os.path.abspath(comfy.samplers.__file__)))) / "comfy_extras/nodes_easycache.py"
    asyncio.run(nodes.load_custom_node(str(extras), module_parent="comfy_extras"))
    load = part("nodes.demo_model").FewStepLoadDemoModel.execute
    family, which = ("flow", "emoji") if emoji else (job["problem"], "fashion")
    classes = part("nodes.demo_model").CLASSES[which]
    model, _, negative, _, _ = load(family, "mixed", 1, which).args
    positives = [load(family, name, 1, which).args[1] for name in classes]
    counter = Counter(model.model.diffusion_model)
    found = {}
    for k, setting in enumerate(job["settings"]):
        patched = model
        if setting["cache"]:
            patched = nodes.NODE_CLASS_MAPPINGS[setting["cache"]].execute(model, setting["threshold"], 0.15, 0.95, False).args[0]
        sampling = patched.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, setting["scheduler"], setting["steps"])
        sampler = comfy.samplers.sampler_object(setting["sampler"])
        ends, passes = [], []
        for seed in range(len(noise)):
            counter.passes = 0
            empty = torch.zeros_like(noise[seed : seed + 1])
            end = comfy.sample.sample_custom(
                patched, noise[seed : seed + 1], job["cfg"], sampler, sigmas, positives[seed % len(classes)], negative, empty,
                disable_pbar=True, seed=seed,
            )  # fmt: skip
            ends.append(end.cpu())
            passes.append(counter.passes)
        found |= {f"ends{k}": torch.cat(ends).float(), f"passes{k}": torch.tensor(passes)}
    files.save_tensors(folder / "ends.safetensors", found, {})


if __name__ == "__main__":
    logging.disable(logging.INFO)
    with torch.inference_mode():
        main(Path(sys.argv[1]))
