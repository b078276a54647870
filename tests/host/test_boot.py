"""ComfyUI starts with the pack, alone and beside others, and lists what it brings."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from . import get_comfyui
from .comfyui import HOST, NAMED, ROOT, command, free_port, make_base, plain, variables
from .graphs import demo, ksampler

RIVAL = ROOT / "tests/data/comfy_packs/rival"
NODES = {
    "FewStepScheduler": "sampling/custom_sampling/schedulers",
    "FewStepBaselineScheduler": "sampling/custom_sampling/schedulers",
    "FewStepSampler": "sampling/custom_sampling/samplers",
    "FewStepKSampler": "FewStep",
    "FewStepSigmasFromText": "sampling/custom_sampling/sigmas",
    "FewStepSigmasToText": "sampling/custom_sampling/sigmas",
    "FewStepResampleSigmas": "sampling/custom_sampling/sigmas",
    "FewStepSplitSigmas": "sampling/custom_sampling/sigmas",
    "FewStepPlotSigmas": "FewStep",
    "FewStepCompareSchedules": "FewStep",
    "FewStepLoadDemoModel": "FewStep",
    "FewStepCalibrate": "FewStep/recipes",
    "FewStepTeacherSettings": "FewStep/recipes",
    "FewStepCompareRecipes": "FewStep/recipes",
    "FewStepApplyRecipe": "FewStep/recipes",
    "FewStepLoadRecipe": "FewStep/recipes",
    "FewStepSaveRecipe": "FewStep/recipes",
    "FewStepRecipeToText": "FewStep/recipes",
    "FewStepPickFromBook": "FewStep/recipes",
    "FewStepSaveBook": "FewStep/recipes",
    "FewStepLoadAmed": "FewStep/AMED",
    "FewStepAmedSampler": "FewStep/AMED",
    "FewStepAmedScheduler": "FewStep/AMED",
    "FewStepAmedTimes": "FewStep/AMED",
    "FewStepTrainAmed": "FewStep/AMED",
    "FewStepSaveAmed": "FewStep/AMED",
    "FewStepTuneLora": "FewStep/recipes",
    "FewStepTwoExpertGuider": "sampling/custom_sampling/guiders",
}


def ours(object_info: dict) -> dict:
    return {name: node for name, node in object_info.items() if node["python_module"].endswith(".fewstep")}


def tracebacks(log: str) -> list[str]:
    """Return the tracebacks of a log, less those of the host's own extras that lack an optional package."""
    blocks = re.findall(r"^Traceback .*\n(?:[ \n].*\n?)*.*", log, re.MULTILINE)
    return [block for block in blocks if "comfy_extras" not in block]


def says_nothing_bad(log: str) -> bool:
    """Whether a log has neither a traceback nor one of the pack's lines about something that was left out."""
    return not tracebacks(log) and "left out" not in log and not re.search(r"(Cannot import|IMPORT FAILED).*custom_nodes.fewstep", log)


def test_the_log_reader_sees_what_it_must():
    extra = 'Traceback (most recent call last):\n  File "x/comfy_extras/y.py", line 2\nModuleNotFoundError: spandrel\n'
    other = 'Traceback (most recent call last):\n  File "fewstep/nodes.py", line 1\n    f()\nKeyError: 1\nnext\n'
    assert tracebacks(extra) == []
    assert len(tracebacks(extra + "line\n" + other + extra)) == 1


@pytest.fixture(scope="module")
def beside_a_rival(boot_comfy):
    return boot_comfy([ROOT, RIVAL], environment={"FEWSTEP_DROPDOWN": "0"})


def test_boots_with_only_this_pack_and_ends_well(comfyui_installed, tmp_path):
    make_base(tmp_path, [ROOT])
    start = command(tmp_path, free_port(), "--quick-test-for-ci")
    env = variables({"FEWSTEP_CACHE_DIR": str(tmp_path / "cache")})
    result = subprocess.run(start, cwd=HOST.comfyui, env=env, capture_output=True, text=True, check=False, timeout=120)
    log = plain(result.stdout + result.stderr)
    assert result.returncode == 0, log
    assert re.search(r"seconds: .*custom_nodes/fewstep$", log, re.MULTILINE)
    assert says_nothing_bad(log), log


def test_the_server_is_the_host_that_was_asked_for(comfy):
    assert comfy.get("/system_stats")["system"]["comfyui_version"] == HOST.version
    assert Path(os.environ[NAMED]).resolve() == HOST.comfyui if os.environ.get(NAMED) else HOST.version == get_comfyui.VERSION


def test_the_log_reader_sees_errors_between_colours_and_levels():
    said = '\x1b[1m\x1b[33m[WARNING]\x1b[0m Traceback (most recent call last):\n  File "fewstep/nodes.py", line 1\nKeyError: 1\n'
    assert not says_nothing_bad(plain(said))
    assert not says_nothing_bad(plain("\x1b[31m[ERROR]\x1b[0m Cannot import /x/custom_nodes/fewstep module for custom nodes: no\n"))
    assert says_nothing_bad(plain("\x1b[32m[INFO]\x1b[0m    0.3 seconds: /x/custom_nodes/fewstep\n"))


def test_lists_all_nodes_in_their_categories(comfy):
    assert {name: node["category"] for name, node in ours(comfy.object_info).items()} == NODES
    assert says_nothing_bad(comfy.log.partition("got prompt")[0])  # then come errors that other tests provoke


def test_every_node_says_what_it_is_and_every_input_what_it_does(comfy):
    for name, node in ours(comfy.object_info).items():
        assert node["display_name"].startswith("FewStep "), name
        assert len(node["description"]) > 40, name
        for kind, inputs in node["input"].items():
            for input_name, (_, *options) in inputs.items() if kind != "hidden" else ():
                assert options and len(options[0].get("tooltip", "")) > 15, f"{name}.{input_name} has no tooltip"
        tooltips = node.get("output_tooltips") or []
        assert len(tooltips) == len(node["output"]) and all(tooltips), f"{name}: outputs without tooltip"


def test_loading_is_cheap_and_takes_no_module_names(in_host):
    """What it costs in milliseconds, benchmarks/comfy_boot.py measures; here, that nothing heavy comes with it."""
    told = in_host(
        """
import server, execution
asyncio.run(nodes.init_builtin_extra_nodes())
before = set(sys.modules)
loaded = load_pack()
heavy = {"matplotlib", "scipy.optimize", "k_diffusion", "diffusers", "IPython"} & (set(sys.modules) - before)
new = {name.split(".")[0] for name in set(sys.modules) - before}
tell(loaded=loaded, heavy=sorted(heavy), new=sorted(new), nodes=nodes.__file__)
"""
    )
    assert told["loaded"] and told["heavy"] == []
    folders = {path.stem for path in ROOT.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert not (folders | {"fewstep"}) & set(told["new"]), "a name without the pack's own in front belongs to others"
    assert told["nodes"] == str(HOST.comfyui / "nodes.py")


def test_the_page_loads_every_script_once(comfy):
    """No file twice under two names, and helper modules are not loaded as extensions."""
    scripts = [path for path in comfy.get("/extensions") if "fewstep" in path.lower()]
    web = ROOT / "web"
    assert len(scripts) == len(set(scripts)) == len(list(web.rglob("*.js")))
    for path in scripts:
        assert comfy.request(path)[0] == 200


def test_boots_beside_a_pack_whose_modules_have_the_names_of_ours(beside_a_rival):
    info = beside_a_rival.object_info
    assert ours(info).keys() == NODES.keys()
    assert "RivalNode" in info
    assert says_nothing_bad(beside_a_rival.log)


def test_both_packs_work_beside_each_other(beside_a_rival):
    source = demo(counted=False)
    sigmas = source.graph.node("FewStepScheduler", model=source.model, steps=4)
    ours_text = source.graph.node("FewStepSigmasToText", sigmas=sigmas[0])
    sampled = ksampler(source, sampler_name="euler", scheduler="rival")
    image = source.graph.node("VAEDecode", samples=sampled[0], vae=source.vae)
    source.graph.node("SaveImage", images=image[0], filename_prefix="both")
    source.graph.node("PreviewAny", source=ours_text[0])
    result = beside_a_rival.run(source.graph)
    assert len(beside_a_rival.images(result)) == 2
    assert beside_a_rival.images(result)[0].is_file()


def test_an_environment_variable_turns_the_dropdown_entries_off(beside_a_rival):
    info = beside_a_rival.object_info
    choices = json.dumps([info["KSampler"]["input"]["required"], info["KSamplerSelect"]["input"]["required"]])
    assert "euler" in choices and "rival" in choices
    assert "fewstep" not in choices
    source = demo(counted=False)
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=3)  # not what ran before: cached nodes send nothing
    source.graph.node("PreviewAny", source=scheduler[1])
    report = beside_a_rival.run(source.graph).ui(scheduler, "text")[0]
    assert "Pair with: FewStep Sampler, solver unipc.\n" in report and "KSampler" not in report, report
