"""A second extension for the host tests: it has modules of the same names as FewStep's, samples without FewStep's entries, and opens a few
addresses that a test asks."""

import importlib.util
import json
import os
import sys
import threading
from pathlib import Path

import nodes  # its own, or the isolation failed
import schedules

OWNERS = {"nodes": getattr(nodes, "OWNER", nodes.__file__), "schedules": getattr(schedules, "OWNER", schedules.__file__)}

from modules import script_callbacks, scripts, sd_samplers, sd_samplers_common, sd_samplers_kdiffusion, shared  # noqa: E402

ALONE = "fewstep_standalone_for_tests"


def standalone():
    """FewStep as anybody loads it, another copy than the extension's."""
    if ALONE not in sys.modules:
        root = Path(os.environ["FEWSTEP_ROOT"])
        spec = importlib.util.spec_from_file_location(ALONE, root / "__init__.py", submodule_search_locations=[str(root)])
        module = importlib.util.module_from_spec(spec)
        sys.modules[ALONE] = module
        spec.loader.exec_module(module)
    return sys.modules[ALONE]


def sample_alone(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """UniPC of order 3 on the levels that the host hands over, or on those of its own where the test asks for it."""
    solvers = standalone().solvers
    return solvers.sample(model, x, solvers.build_table("unipc", sigmas, "vp", 3), extra_args, callback, disable)


def levels_alone(steps):
    """The optimized list for the loaded model's own table."""
    alone = standalone()
    table = getattr(shared.sd_model, "alphas_cumprod", None)
    if table is None:
        sigmas = shared.sd_model.forge_objects.unet.model.predictor.sigmas
    else:
        sigmas = ((1 - table) / table) ** 0.5
    ns = alone.schedules.NoiseSchedule.vp_sigmas(sigmas.detach().cpu())
    return alone.schedules.optimal_sigmas(ns, steps).float()


DATA = sd_samplers_common.SamplerData(
    "Probe", lambda model: sd_samplers_kdiffusion.KDiffusionSampler(sample_alone, model), ["probe"], {}
)
if "Probe" not in sd_samplers.all_samplers_map:
    sd_samplers.all_samplers.append(DATA)
else:
    sd_samplers.all_samplers[:] = [DATA if data.name == "Probe" else data for data in sd_samplers.all_samplers]
sd_samplers.all_samplers_map["Probe"] = DATA
sd_samplers.set_samplers()


class Counter(scripts.Script):
    """Counts the pictures that the host has made."""

    made = 0

    def title(self):
        return "Probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def postprocess(self, p, processed, *given):
        Counter.made += 1


def addresses(demo, app):
    @app.get("/probe/state")
    def state():
        root = os.environ["FEWSTEP_ROOT"]
        ours = [name for name in sys.modules if name.startswith("fewstep_webui_extension")]
        on_path = [p for p in sys.path if p and os.path.realpath(p) == os.path.realpath(root)]
        names = ("nodes", "schedules", "solvers", "recipes", "fitting", "webui")
        bare = {n: str(getattr(sys.modules[n], "__file__", "")) for n in names if n in sys.modules}
        return {
            "owners": OWNERS, "ours": len(ours), "on_path": on_path, "bare": bare, "comfy_nodes": [n for n in ours if ".nodes" in n],
            "pictures": Counter.made,
        }  # fmt: skip

    @app.get("/probe/levels")
    def levels(steps: int):
        return {"sigmas": levels_alone(steps).tolist()}

    @app.post("/probe/reload")
    def reload():
        threading.Timer(0.2, shared.state.request_restart).start()
        return {}

    @app.post("/probe/options")
    def options(text: str):
        for name, value in json.loads(text).items():
            shared.opts.set(name, value)
        return {}

    @app.get("/probe/axes")
    def axes():
        """Places of the axes in txt2img's menu of the X/Y/Z plot, by label."""
        module = next(data.module for data in scripts.scripts_data if data.path.endswith("xyz_grid.py"))
        menu = [option for option in module.axis_options if type(option) is module.AxisOption or not option.is_img2img]
        return {option.label: place for place, option in enumerate(menu) if "FewStep" in option.label}


script_callbacks.on_app_started(addresses)
