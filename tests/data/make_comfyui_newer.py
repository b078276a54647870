"""Writes comfyui_newer.json: the noise levels of model classes in a newer ComfyUI, and the settings of its official templates.

    PYTHONPATH=PACKAGES python tests/data/make_comfyui_newer.py PATH_TO_COMFYUI TEMPLATES

PATH_TO_COMFYUI is a checkout (0.33.0 was used), PACKAGES what it needs (`python tests/host/get_comfyui.py --for PATH_TO_COMFYUI`), and
TEMPLATES the folder `templates` of the package comfyui-workflow-templates-json in the version that its requirements name (0.1.50).
The tests read only the JSON file, so they need none of these.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from make_comfyui_schedules import MODELS, host_model_sampling, rounded

# fmt: off
# class in comfy.supported_models: (preset, class in comfy.model_base)
MORE = {
    "Anima": ("anima", "Anima"), "HunyuanVideo15": ("hunyuan_video", "HunyuanVideo15"), "LTXAV": ("ltxv", "LTXAV"),
    "WAN22_T2V": ("wan", "WAN21"), "ChromaRadiance": ("chroma", "ChromaRadiance"),
}
SETTINGS = {  # nodes whose widgets are settings of sampling, and the places of those
    "KSampler": {"steps": 2, "cfg": 3, "sampler_name": 4, "scheduler": 5},
    "KSamplerAdvanced": {"steps": 3, "cfg": 4, "sampler_name": 5, "scheduler": 6},
    "SamplerCustom": {"cfg": 3}, "KSamplerSelect": {"sampler_name": 0}, "BasicScheduler": {"scheduler": 0, "steps": 1},
    "Flux2Scheduler": {"steps": 0}, "LTXVScheduler": {"steps": 0}, "CFGGuider": {"cfg": 0}, "FluxGuidance": {"guidance": 0},
    "ModelSamplingAuraFlow": {"shift": 0}, "ModelSamplingSD3": {"shift": 0},
    "UNETLoader": {"unet_name": 0}, "CheckpointLoaderSimple": {"ckpt_name": 0},
}
# fmt: on


def levels_of(sampling) -> dict:
    table = sampling.sigmas
    shown = [0, len(table) // 7, len(table) // 2, len(table) * 9 // 10, len(table) - 1]
    return {"count": len(table), "levels": dict(zip(map(str, shown), rounded(table[shown]), strict=True))}


def settings_of(template: Path) -> list:
    """[type, {widget: value}] of its nodes that are not bypassed, those of subgraphs, too; with switches as the template has them."""
    graph = json.loads(template.read_text(encoding="utf-8"))
    found = []
    for part in [graph, *graph.get("definitions", {}).get("subgraphs", ())]:
        nodes = {node["id"]: node for node in part["nodes"]}
        links = [link if isinstance(link, dict) else dict(zip(("id", "origin_id"), link, strict=False)) for link in part["links"]]
        origins = {link["id"]: nodes.get(link["origin_id"]) for link in links}
        for node in part["nodes"]:
            if node["type"] in SETTINGS and node.get("mode", 0) != 4:
                own = {name: node["widgets_values"][place] for name, place in SETTINGS[node["type"]].items()}
                found.append([node["type"], {name: connected(node, name, origins, value) for name, value in own.items()}])
    return found


def connected(node: dict, name: str, origins: dict, value):
    """What reaches an input through switches; `value`, that of its widget, where nothing is connected inside this graph."""
    by_name = {given["name"]: origins.get(given.get("link")) for given in node.get("inputs", ())}
    source = by_name.get(name)
    if source is None:
        return value
    if source["type"] == "ComfySwitchNode":
        chosen = connected(source, "switch", origins, source["widgets_values"][0])
        return connected(source, "on_true" if chosen else "on_false", origins, value)
    return source["widgets_values"][0] if source["type"].startswith("Primitive") else value


WORDS = {
    "auraflow": r"aura[_-]?flow", "zsnr": r"zsnr|v[_-]?pred|noob", "cosmos": r"cosmos.*2world", "cosmos_predict2": r"cosmos[_-]?predict",
    "LTX-2": r"ltx[_-]2", "FLUX.3": r"flux[._-]?3",
}  # fmt: skip


def files_named(templates: Path, word: str) -> set[str]:
    """Model files that the templates name and that a pattern is found in."""
    texts = (path.read_text(encoding="utf-8") for path in templates.glob("*.json"))
    named = {file for text in texts for file in re.findall(r'"([^"/\s]+\.(?:safetensors|sft|gguf|ckpt))"', text)}
    return {file for file in named if re.search(word, file, re.IGNORECASE)}


def main() -> None:
    comfyui, templates = sys.argv[1], Path(sys.argv[2])
    sys.path.insert(0, comfyui)
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import comfyui_version

    from fewstep.schedules.template_settings import TEMPLATE_SETTINGS

    found = {MODELS[preset][0]: {"preset": preset, **levels_of(host_model_sampling(preset))} for preset in MODELS
             if preset not in ("sd21v", "zsnr", "playground25")}  # fmt: skip
    for name, (preset, kind) in MORE.items():
        MODELS[name] = (name, kind)
        found[name] = {"preset": preset, **levels_of(host_model_sampling(name))}
    settings = {known.template: settings_of(templates / f"{known.template}.json") for known in TEMPLATE_SETTINGS}
    named = {name: sorted(files_named(templates, word)) for name, word in WORDS.items()}
    note = f"Produced by ComfyUI {comfyui_version.__version__} and its templates through tests/data/make_comfyui_newer.py."
    content = {"note": note, "classes": found, "templates": settings, "named": named}
    text = json.dumps(content, separators=(",", ":")).replace('},"', '},\n"')
    Path(__file__).with_name("comfyui_newer.json").write_text(text.replace(']],"', ']],\n"') + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
