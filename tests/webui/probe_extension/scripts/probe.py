"""A second extension for the host tests: it has modules of the same names as FewStep's, samples without FewStep's entries, and opens a few
addresses that a test asks."""

import importlib.util
import json
import os
import sys
import threading
import types
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


kept = []  # the predictor of the model as it was loaded
handed = []  # the levels of the last picture of the sampler below


def sample_alone(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """UniPC of order 3 on the levels that the host hands over."""
    handed[:] = sigmas.tolist()
    solvers, family = standalone().solvers, "flow" if of_flow_model() else "vp"
    return solvers.sample(model, x, solvers.build_table("unipc", sigmas, family, 3), extra_args, callback, disable)


def predictor():
    """Forge's, which has the levels; None in other hosts."""
    patched = getattr(shared.sd_model, "forge_objects", None)
    return getattr(patched.unet.model, "predictor", None) if patched is not None else None


def of_flow_model():
    return getattr(predictor(), "prediction_type", None) == "const"


def levels_alone(steps):
    """The optimized list for the loaded model's own table."""
    alone = standalone()
    if predictor() is not None:
        sigmas = predictor().sigmas
    else:
        table = shared.sd_model.alphas_cumprod
        sigmas = ((1 - table) / table) ** 0.5
    sigmas = sigmas.detach().cpu().double()
    if of_flow_model():  # s = shift t / (1 + (shift - 1) t), at t = 1/2
        half = float(sigmas[len(sigmas) // 2 - 1])
        ns = alone.schedules.NoiseSchedule.flow(half / (1 - half), len(sigmas))
    else:
        ns = alone.schedules.NoiseSchedule.vp_sigmas(sigmas)
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
            "pictures": Counter.made, "handed": handed,
            "old_schedules": list(getattr(sd_samplers_kdiffusion, "k_diffusion_scheduler", {})),
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

    @app.post("/probe/flow")
    def flow(on: int):
        """Make the loaded model one of rectified flow whose shift each picture sets (Forge Neo), and back."""
        from backend.modules.k_prediction import PredictionDiscreteFlow

        loaded = shared.sd_model
        network = loaded.forge_objects.unet.model
        if on:
            kept.append(network.predictor)
            network.predictor = PredictionDiscreteFlow(types.SimpleNamespace(sampling_settings={"shift": 3.0}))
        else:
            network.predictor = kept.pop()
        loaded.use_shift = bool(on)
        return {}

    @app.post("/probe/panel")
    def panel(action: str, given: str):
        """What a button of FewStep's panel gives for the arguments [.., {control: value}]."""
        actions = sys.modules["fewstep_webui_extension.webui.panel_actions"]
        made = getattr(actions, action)(*json.loads(given))
        return {"made": made if isinstance(made, str) else [each if isinstance(each, str) else None for each in list(made)[-1]]}

    @app.get("/probe/axes")
    def axes():
        """Places of the axes in txt2img's menu of the X/Y/Z plot, by label."""
        module = next(data.module for data in scripts.scripts_data if data.path.endswith("xyz_grid.py"))
        menu = [option for option in module.axis_options if type(option) is module.AxisOption or not option.is_img2img]
        return {option.label: place for place, option in enumerate(menu) if "FewStep" in option.label}


script_callbacks.on_app_started(addresses)
