"""Records how prompts of this version look, for test_api_prompts.py: once per version, before it is released.

    python tests/host/make_api_prompts.py

Writes tests/data/api_prompts/VERSION.json: the order of each node's widgets, and for each node a prompt in which every widget has a value,
with the noise levels that it gave. A file that is there stays as it is: its prompts are out in the world.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

if __package__:
    from .comfyui import ROOT, Comfy, Graph, Node, Result
    from .workflows import widgets_of
else:
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from comfyui import ROOT, Comfy, Graph, Node, Result
    from workflows import widgets_of

FOLDER = ROOT / "tests/data/api_prompts"
RECIPE = next((ROOT / "demo/recipes").glob("edm-4.json"))


def prompts() -> dict[str, Graph]:
    """A small prompt for every node, by its id: it is the last of the graph whose output is shown."""
    found = {}
    for node_id, build in BUILDERS.items():
        graph = Graph()
        demo = graph.node("FewStepLoadDemoModel", family="edm", class_name="mixed", batch_size=2)
        build(graph, demo)
        found[node_id] = graph
    return found


def _model(demo: Node) -> dict:
    return {"model": demo[0], "positive": demo[1], "negative": demo[2], "latent_image": demo[3]}


def _small(demo: Node) -> dict:
    return {**_model(demo), "cfg": 2.0, "seeds": 2, "batch_size": 2}


def _recipe(graph: Graph) -> Node:
    return graph.node("FewStepLoadRecipe", name=f"demo model: {RECIPE.stem}")


def _levels(graph: Graph, demo: Node) -> list:
    return graph.node("FewStepBaselineScheduler", model=demo[0], schedule="karras", steps=4)[0]


def _shown(graph: Graph, *links: list) -> None:
    for link in links:
        graph.node("PreviewAny", source=link)


def _amed(graph: Graph) -> Node:
    return graph.node("FewStepLoadAmed", name="demo model: ipndm3-5-table")


BUILDERS = {
    "FewStepLoadDemoModel": lambda g, d: _shown(g, d[3]),
    "FewStepScheduler": lambda g, d: _shown(g, g.node("FewStepScheduler", model=d[0], steps=5, order="2", p="2.0", denoise=0.8)[1]),
    "FewStepBaselineScheduler": lambda g, d: _shown(g, g.node("FewStepBaselineScheduler", model=d[0], schedule="beta", steps=7)[1]),
    "FewStepSampler": lambda g, d: _shown(g, g.node("FewStepSampler", solver="dpmpp_2m", order="2", corrector=False)[1]),
    "FewStepKSampler": lambda g, d: _shown(
        g, g.node("FewStepKSampler", **_model(d), seed=3, cfg=2.0, preset="Custom", steps=4, solver="deis")[2]
    ),
    "FewStepSigmasFromText": lambda g, d: g.node(
        "FewStepSigmasToText", sigmas=g.node("FewStepSigmasFromText", text="14.6, 2.9, 0.4", append_zero=True)[0]
    ),
    "FewStepSigmasToText": lambda g, d: g.node("FewStepSigmasToText", sigmas=_levels(g, d), digits=4, separator="blank"),
    "FewStepResampleSigmas": lambda g, d: g.node(
        "FewStepSigmasToText", sigmas=g.node("FewStepResampleSigmas", sigmas=_levels(g, d), steps=6, family="edm")[0]
    ),
    "FewStepSplitSigmas": lambda g, d: g.node(
        "FewStepSigmasToText", sigmas=g.node("FewStepSplitSigmas", sigmas=_levels(g, d), split_at="sigma", sigma=1.0)[1]
    ),
    "FewStepPlotSigmas": lambda g, d: g.node("FewStepPlotSigmas", sigmas_1=_levels(g, d)),
    "FewStepCompareSchedules": lambda g, d: g.node(
        "FewStepCompareSchedules", **_model(d), vae=d[4], seed=1, cfg=1.0, steps=2, reference_steps=0, max_images=1
    ),
    "FewStepLoadRecipe": lambda g, d: _shown(g, _recipe(g)[1]),
    "FewStepApplyRecipe": lambda g, d: _shown(g, g.node("FewStepApplyRecipe", text="", recipe=_recipe(g)[0])[2]),
    "FewStepSaveRecipe": lambda g, d: g.node("FewStepSaveRecipe", recipe=_recipe(g)[0], name="of a prompt", overwrite=True),
    "FewStepRecipeToText": lambda g, d: g.node("FewStepRecipeToText", recipe=_recipe(g)[0]),
    "FewStepSaveBook": lambda g, d: g.node("FewStepSaveBook", texts=_recipe(g)[1], name="book of a prompt", overwrite=True),
    "FewStepPickFromBook": lambda g, d: _shown(g, g.node("FewStepPickFromBook", book="book of a prompt.json", calls=4, cfg=2.0)[1]),
    "FewStepTeacherSettings": lambda g, d: g.node(
        "FewStepCompareRecipes", **_small(d), nfe=2, stock="none", recipe_1=_recipe_of_two(g, d),
        teacher=g.node("FewStepTeacherSettings", steps=16, store_on_disk=False)[0],
    ),
    "FewStepCalibrate": lambda g, d: _shown(g, g.node("FewStepCalibrate", **_small(d), nfe="2", effort="low")[2]),
    "FewStepCompareRecipes": lambda g, d: g.node("FewStepCompareRecipes", **_small(d), stock="none", recipe_1=_recipe(g)[0]),
    "FewStepLoadAmed": lambda g, d: _shown(g, _amed(g)[1]),
    "FewStepSaveAmed": lambda g, d: g.node("FewStepSaveAmed", predictor=_amed(g)[0], name="of a prompt", overwrite=True),
    "FewStepAmedSampler": lambda g, d: _shown(g, g.node("FewStepAmedSampler", predictor=_amed(g)[0], cfg_to_check=2.0)[1]),
    "FewStepAmedScheduler": lambda g, d: _shown(g, g.node("FewStepAmedScheduler", predictor=_amed(g)[0])[1]),
    "FewStepTrainAmed": lambda g, d: _shown(
        g, g.node("FewStepTrainAmed", **_model(d), cfg=2.0, nfe=3, mode="table", trajectories=4, batch_size=2, effort="low")[2]
    ),
    "FewStepTuneLora": lambda g, d: g.node(
        "FewStepTuneLora", **_model(d), cfg=2.0, recipe=_recipe(g)[0], trajectories=4, batch_size=2, effort="low", name="of a prompt",
        overwrite=True,
    ),
}  # fmt: skip
"""FewStepAmedTimes has no widgets."""


def _recipe_of_two(graph: Graph, demo: Node) -> list:
    return graph.node("FewStepCalibrate", **_small(demo), nfe="2", effort="low")[0]


def levels_of(result: Result) -> dict[str, list[float]]:
    """The noise levels that nodes of a run have drawn or written, by the node's number."""
    found = {}
    for number, output in result.outputs.items():
        if output.get("fewstep_curve"):
            found[number] = output["fewstep_curve"][0]["sigmas"]
        elif "text" in output and re.fullmatch(r"[\d.,\s]+", output["text"][0]):
            found[number] = [float(part) for part in re.split(r"[,\s]+", output["text"][0].strip())]
    return found


def main() -> None:
    version = re.search(r'^__version__ = "(.+)"', (ROOT / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)[1]
    path = FOLDER / f"{version}.json"
    if path.exists():
        raise SystemExit(f"{path} is there already.")
    with tempfile.TemporaryDirectory() as base, Comfy(Path(base), [ROOT], {"FEWSTEP_CACHE_DIR": base}) as comfy:
        info = comfy.object_info
        recorded = {}
        for name, graph in prompts().items():
            prompt = comfy.with_defaults(graph.prompt)
            recorded[name] = {"prompt": prompt, "levels": levels_of(comfy.run(prompt))}
            print(name, flush=True)
    widgets = {name: [widget for widget, _ in widgets_of(node)] for name, node in info.items() if name.startswith("FewStep")}
    assert {name for name, names in widgets.items() if names} <= set(recorded), widgets.keys() - set(recorded)
    lines = [f'  {json.dumps(name)}: {json.dumps(entry)}' for name, entry in recorded.items()]
    orders = [f"  {json.dumps(name)}: {json.dumps(names)}" for name, names in widgets.items()]
    text = '{\n "widgets": {\n' + ",\n".join(orders) + '\n },\n "prompts": {\n' + ",\n".join(lines) + "\n }\n}\n"
    FOLDER.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
