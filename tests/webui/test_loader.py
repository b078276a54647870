"""`scripts/fewstep.py`: its own package name, no traces on sys.path, several starts, other extensions, and failures."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

HOST = '''
"""As much of a host as the script touches, in a process of its own."""
import importlib.util, json, sys, types
from pathlib import Path

root, other, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
callbacks = []

def module(name, **content):
    made = types.ModuleType(name)
    made.__dict__.update(content)
    sys.modules[name] = made
    return made

class Script:
    pass

class Info:
    def __init__(self, *a, **k): pass
    def info(self, text): return self

sys.path.insert(0, sys.argv[4])
from stand_ins import samplers_module, schedulers_module, old_options

schedulers = schedulers_module()
samplers, common, kdiffusion = samplers_module(schedulers if kind != "old" else None)
kdiffusion.k_diffusion_scheduler = {"Automatic": None}
sys.path.pop(0)
host = module("modules")
host.__path__ = []
parts = dict(
    scripts=module("modules.scripts", Script=Script, AlwaysVisible=object(), scripts_data=[]),
    shared=module("modules.shared", opts=old_options(), OptionInfo=Info, sd_model=None, state=None),
    script_callbacks=module(
        "modules.script_callbacks",
        **{name: callbacks.append for name in ("on_ui_settings", "on_before_ui", "on_app_started")},
    ),
    call_queue=module("modules.call_queue", queue_lock=None),
)
module("gradio", update=dict, Warning=print)
if kind != "broken":
    for name, made in (("sd_samplers", samplers), ("sd_samplers_common", common), ("sd_samplers_kdiffusion", kdiffusion)):
        sys.modules["modules." + name] = made
        parts[name] = made
if kind not in ("old", "broken"):
    sys.modules["modules.sd_schedulers"] = schedulers
    parts["sd_schedulers"] = schedulers
for name, made in parts.items():
    setattr(host, name, made)

def run(path):
    spec = importlib.util.spec_from_file_location(path.name, path)  # under a name that is no module's, and not in sys.modules
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script

def forge_like():
    """Every extension root in front of the path for good, and each script's once more while it runs."""
    global_path = [str(other), str(root), *sys.path]
    for folder, name in ((root, "fewstep.py"), (other, "other.py")):
        sys.path = [str(folder)] + global_path
        yield run(folder / "scripts" / name)
        sys.path = global_path

starts = []
before = list(sys.path)
for start in range(3):
    sys.path = list(before)
    ours, others = forge_like()
    for callback in callbacks:
        if getattr(callback, "__name__", "") == "<lambda>" and not callback.__code__.co_varnames:
            callback()
    starts.append({
        "class": getattr(getattr(ours, "FewStepScript", None), "__name__", None),
        "classes": sum(isinstance(v, type) and issubclass(v, Script) for v in vars(ours).values()),
        "owner": others.OWNER,
        "on_path": [p for p in sys.path if p == str(root)],
        "modules": sorted(n for n in sys.modules if n.startswith("fewstep_webui_extension"))[:1],
        "count": sum(n.startswith("fewstep_webui_extension") for n in sys.modules),
        "bare": [n for n in ("webui", "solvers", "recipes", "fitting") if n in sys.modules],
        "nodes": [n for n in sys.modules if n.startswith("fewstep_webui_extension.nodes")],
        "samplers": len(samplers.all_samplers), "schedules": len(schedulers.schedulers), "callbacks": len(callbacks),
        "old": len(kdiffusion.k_diffusion_scheduler),
    })
    callbacks.clear()
print("TOLD" + json.dumps(starts))
'''


@pytest.fixture
def started(tmp_path, run_python):
    """Return a function: FewStep and a second extension started three times in a small host of a kind."""

    def start(kind="new", root=None):
        here = Path(__file__).resolve()
        other = tmp_path / "other extension"
        (other / "scripts").mkdir(parents=True)
        (other / "schedules").mkdir()
        (other / "nodes.py").write_text("OWNER = 'other'\n")
        (other / "schedules" / "__init__.py").write_text("OWNER = 'other'\n")
        (other / "scripts" / "other.py").write_text("import nodes, schedules\nOWNER = [nodes.OWNER, schedules.OWNER]\n")
        (tmp_path / "host.py").write_text(HOST)
        result = run_python(tmp_path / "host.py", root or here.parents[2], other, kind, here.parent, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout.partition("TOLD")[2]), result.stderr

    return start


def test_three_starts_beside_another_extension(started):
    starts, log = started()
    for start in starts:
        assert start["class"] == "FewStepScript" and start["classes"] == 1
        assert start["owner"] == ["other", "other"]
        assert start["on_path"] == [] and start["bare"] == [] and start["nodes"] == []
    first = starts[0]
    assert all(start == first for start in starts), "nothing is added by a reload"
    assert "off" not in log


def test_a_host_without_the_module_of_schedules(started):
    starts, log = started("old")
    assert all(start["class"] == "FewStepScript" and start["old"] == starts[0]["old"] > 10 for start in starts)
    assert "off" not in log


def test_what_fails_is_off_with_one_line_and_the_rest_works(started):
    starts, log = started("broken")
    assert starts[0]["class"] == "FewStepScript"
    lines = [line for line in log.splitlines() if "FewStep's samplers are off on this host" in line]
    assert len(lines) == 3, "one a start"


def test_a_folder_with_an_error_does_not_stop_the_host(started, copy_of_the_checkout):
    root = copy_of_the_checkout("sd-webui-few.step")
    (root / "webui" / "names.py").write_text("this is no Python\n")
    starts, log = started(root=root)
    assert starts[0]["class"] is None and starts[0]["owner"] == ["other", "other"]
    assert log.count("FewStep could not be loaded and is off") == 3 and "Traceback" not in log


def test_any_folder_name(started, copy_of_the_checkout):
    starts, _ = started(root=copy_of_the_checkout("sd-webui-few.step (1)"))
    assert starts[2]["class"] == "FewStepScript"


def test_comfyui_sees_nothing_of_it():
    """The nodes and the package itself never import the WebUI's part, and its script is in no folder that ComfyUI reads."""
    root = Path(__file__).resolve().parents[2]
    rooms = ("nodes", "schedules", "solvers", "fitting", "recipes")
    for path in (root / "__init__.py", *(path for room in rooms for path in (root / room).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert "webui" not in (node.module or "").split("."), path
