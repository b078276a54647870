"""The ways in which this folder becomes `fewstep`: wheel, editable, any folder name; and what importing it costs."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import zipfile
from pathlib import Path

import pytest

import fewstep

from .loaded_files import loaded_twice, names_of_our_files

ROOT = Path(__file__).resolve().parents[1]

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
CORE = ("schedules", "solvers")
IMPORT_BUDGET = 0.150  # seconds that hosts pay at start-up


def requirement_lines(name):
    lines = (line.split("#")[0].strip() for line in (ROOT / name).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


# --- Metadata ---------------------------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere():
    assert fewstep.__version__ == PROJECT["project"]["version"]


def test_requirements_txt_and_the_package_ask_for_the_same_and_never_for_torch():
    lines = requirement_lines("requirements.txt")
    assert lines == PROJECT["project"]["dependencies"]
    assert all(re.fullmatch(r"[a-z]+>=[0-9.]+", line) for line in lines), "hosts ship many versions: lower bounds only"
    assert not any("torch" in line for line in lines)


PINNED = (
    "requirements-demo.txt", "requirements-demo-nodeps.txt", "requirements-test.txt", "requirements-host.txt",
    "tests/host/requirements-newer.txt",
)  # fmt: skip


@pytest.mark.parametrize("name", PINNED)
def test_the_private_environments_are_pinned(name):
    pin = re.compile(r"[\w.-]+==[\w.]+(; python_version (<|>=) \"3\.11\")?")
    lines = [line for line in requirement_lines(name) if not line.startswith("-r ")]
    assert lines and all(pin.fullmatch(line) for line in lines)


def test_the_pins_lie_within_what_the_package_asks_for():
    from packaging.requirements import Requirement

    pins = [Requirement(line) for line in requirement_lines("requirements-demo.txt")]
    for need in map(Requirement, PROJECT["project"]["dependencies"]):
        found = [pin for pin in pins if pin.name == need.name]
        assert found and all(need.specifier.contains(next(iter(pin.specifier)).version) for pin in found), need


def test_every_package_folder_is_listed():
    found = {path.parent.relative_to(ROOT).parts for path in ROOT.glob("[a-z]*/**/__init__.py")}
    # nodes, webui and others belong to hosts: they use this folder as a plugin, never as an installed package.
    host_side = {"nodes", "webui", "scripts", "tests", "benchmarks"}
    ours = {".".join(("fewstep", *parts)) for parts in found if parts[0] not in host_side}
    assert ours | {"fewstep"} == set(PACKAGES)


def test_the_types_of_every_core_package_are_checked():
    """Data folders have no code, and what mypy is given includes the packages inside."""
    rooms = {name.split(".")[1] for name in PACKAGES if "." in name} - {"demo"}
    assert {f"fewstep.{room}" for room in rooms} == set(PROJECT["tool"]["mypy"]["packages"])


# --- The registry of ComfyUI nodes ------------------------------------------------------------------------------------


def test_what_the_registry_reads():
    project, comfy = PROJECT["project"], PROJECT["tool"]["comfy"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"]), "three numbers, as in semantic versioning"
    assert re.fullmatch(r"[a-z](?:[-_.]?[a-z0-9])*", project["name"]) and "comfy" not in project["name"]
    assert project["urls"]["Repository"].startswith("https://")
    assert comfy.keys() == {"PublisherId", "DisplayName", "Icon", "requires-comfyui"}, "a `web` here would load the page's scripts twice"
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    icon = ROOT / comfy["Icon"].partition("/main/")[2]
    width, height = map(int, re.search(r'width="(\d+)" height="(\d+)"', icon.read_text(encoding="utf-8")).groups())
    assert max(width, height) <= 400


def shipped(*endings):
    """Return the files that users get, less those that only run when asked for on the command line."""
    others = {"tests", "benchmarks", "docs", "scripts", "build", "dist"}
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.suffix in endings and parts[0] not in others and not parts[0].startswith(".") and parts != ("install.py",):
            yield path


NEVER_CALLED = {"eval", "exec", "compile", "__import__"}
NEVER_IMPORTED = {"pickle", "marshal", "shelve", "subprocess", "pip", "socket", "urllib", "http", "requests", "ftplib", "ctypes"}


def test_shipped_code_runs_no_text_and_reaches_no_network():
    """As the registry demands, of everything that a host imports."""
    found = []
    for path in shipped(".py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = set()
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names = {node.func.id} & NEVER_CALLED
            elif isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names} & NEVER_IMPORTED
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = {node.module.split(".")[0]} & NEVER_IMPORTED
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
                names = {node.attr} & {"system", "popen", "execv", "execvp", "spawnl"}
            found += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in names]
    assert not found


def test_the_page_gets_nothing_from_elsewhere():
    """Scripts and styles come from the folder itself: no content delivery network, no text run as code."""
    found = []
    for path in shipped(".js", ".mjs", ".css"):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"https?://(?!www\.w3\.org/)\S+|\beval\(|new Function\(", text):
            found.append(f"{path.relative_to(ROOT)}: {match[0]}")
    assert not found


def test_the_entry_point_is_there_and_costs_nothing_without_a_host(run_python):
    code = (
        "import sys, inspect, fewstep; print(inspect.iscoroutinefunction(fewstep.comfy_entrypoint), fewstep.WEB_DIRECTORY, "
        "hasattr(fewstep, 'NODE_CLASS_MAPPINGS'), [m for m in sys.modules if m.startswith('fewstep.') or m == 'torch'])"
    )
    assert run_python("-c", code).stdout.split() == ["True", "./web", "False", "[]"]


# --- The wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(copy_of_the_checkout, run_python, tmp_path_factory):
    """Return the path of a wheel built from a copy, so that nothing is left in the checkout."""
    checkout, folder = copy_of_the_checkout(), tmp_path_factory.mktemp("wheel")
    command = ("-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, checkout)
    result = run_python(*command)
    assert result.returncode == 0, result.stdout + result.stderr
    return next(folder.glob("fewstep-*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    data = PROJECT["tool"]["setuptools"]["package-data"]
    files = set()
    for package in PACKAGES:
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in ("*.py", *data.get(package, ())):
            files |= set(folder.glob(pattern))
    not_packaged = {ROOT / "install.py", ROOT / "setup.py"}
    expected = {f"fewstep/{path.relative_to(ROOT).as_posix()}" for path in files - not_packaged}
    information = {name for name in names if ".dist-info/" in name}
    assert set(names) - information == expected
    assert any(name.endswith("LICENSE") for name in information)
    assert {"fewstep/cli.py", "fewstep/schedules/__init__.py", "fewstep/solvers/__init__.py"} <= set(names)


def test_the_installed_wheel_works_from_elsewhere(wheel, run_python, tmp_path):
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")
    names = sorted(name for name in PACKAGES if name != "fewstep")
    imports = "; ".join(f"import {name}" for name in ("fewstep.cli", *names))
    code = f"{imports}; print(fewstep.__file__, *[name for name in {names} if sys.modules[name].__file__.startswith(sys.argv[1])])"
    result = run_python("-c", f"import sys; {code}", tmp_path, env={"PYTHONPATH": str(tmp_path / "site")}, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    file, *rooms = result.stdout.split()
    assert Path(file) == tmp_path / "site/fewstep/__init__.py"
    assert rooms == names and {"fewstep.training", "fewstep.jobs"} <= set(rooms)


# --- A folder of any name ---------------------------------------------------------------------------------------------

LIKE_A_HOST = """
import importlib.util, sys
from pathlib import Path

folder = Path(sys.argv[1])
# Without a finder for `fewstep`, an absolute import inside the folder fails here as it would in a host.
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
name = str(folder).replace(".", "_x_")  # ComfyUI names a plugin after its path
spec = importlib.util.spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])
module = importlib.util.module_from_spec(spec)
sys.modules[name] = module
spec.loader.exec_module(module)
for room in ("schedules", "solvers", "demo"):
    assert getattr(module, room).__name__ == f"{name}.{room}"
assert "fewstep" not in sys.modules
assert not hasattr(module, "NODE_CLASS_MAPPINGS")
schedule = module.schedules.NoiseSchedule.edm(0.02, 80.0)
print(len(module.schedules.baseline_sigmas("karras", schedule, 5)))
"""


def test_a_host_can_load_the_folder_under_any_name(copy_of_the_checkout, run_python, tmp_path):
    folder = copy_of_the_checkout("my few.step-plugin")
    result = run_python("-c", LIKE_A_HOST, folder, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["6"]


def test_tests_pass_in_a_checkout_with_another_name(copy_of_the_checkout, run_python, tmp_path):
    checkout = copy_of_the_checkout("ComfyUI-FewStep")
    links = tmp_path / "links"
    links.mkdir()
    (links / "fewstep").symlink_to(checkout, target_is_directory=True)
    env = {"PYTHONPATH": str(links)}
    # A file of every folder of tests is imported, a few tests run.
    folders = {path.parent for path in (checkout / "tests").rglob("test_*.py") if "data" not in path.parts}
    files = [checkout / "tests/test_packaging.py", *(min(folder.glob("test_*.py")) for folder in sorted(folders))]
    chosen = "one_copy_of_the_core or version_is_the_same or unknown_attribute"
    result = run_python("-m", "pytest", "-q", "-k", chosen, *files, cwd=checkout, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 passed" in result.stdout


def test_a_session_that_would_test_another_copy_is_refused(copy_of_the_checkout, run_python):
    checkout = copy_of_the_checkout("another")
    env = {"PYTHONPATH": ""}
    result = run_python("-m", "pytest", "-q", "tests/test_packaging.py", cwd=checkout, env=env)
    assert result.returncode == 3
    assert "but the tests are those of" in result.stdout + result.stderr


# --- Importing --------------------------------------------------------------------------------------------------------


def test_rooms_load_when_touched(run_python):
    code = (
        "import sys, fewstep; before = [m for m in sys.modules if m.startswith('fewstep.')]; "
        "fewstep.schedules; print(before, 'fewstep.schedules' in sys.modules, 'schedules' in dir(fewstep))"
    )
    assert run_python("-c", code).stdout.split() == ["[]", "True", "True"]


def test_an_unknown_attribute_is_named():
    with pytest.raises(AttributeError, match=r"'fewstep' has no attribute 'schedulers'; its rooms are schedules"):
        _ = fewstep.schedulers


IMPORT_COST = """
import sys, time
import torch
start = time.process_time()  # unlike the clock on the wall, it does not count what else the machine is doing
import fewstep
package = time.process_time() - start
import fewstep.schedules, fewstep.solvers
core = time.process_time() - start
heavy = [name for name in ("scipy.optimize", "matplotlib", "PIL", "k_diffusion", "diffusers") if name in sys.modules]
print(package, core, *heavy)
"""


def test_importing_is_cheap_and_loads_nothing_heavy(run_python):
    costs = []
    for _ in range(4):  # the best of several, for as long as none is good enough: the first may have to compile
        result = run_python("-c", IMPORT_COST)
        assert result.returncode == 0, result.stderr
        package, core, *heavy = result.stdout.split()
        assert heavy == []
        costs.append((float(package), float(core)))
        if max(costs[-1]) <= IMPORT_BUDGET:
            return
    pytest.fail(f"`import fewstep` and its core took {min(costs)} s at best; {IMPORT_BUDGET} s are allowed")


def test_one_copy_of_the_core():
    """At the end of every test process the same is looked at again (conftest.py)."""
    for room in CORE:
        getattr(fewstep, room)
    loaded = names_of_our_files(sys.modules)
    assert {"__init__.py", "schedules/__init__.py", "solvers/__init__.py"} <= loaded.keys()
    assert not loaded_twice(sys.modules)


def test_a_second_copy_would_be_noticed():
    spec = importlib.util.spec_from_file_location("second_copy", ROOT / "__init__.py")
    second = importlib.util.module_from_spec(spec)
    names = names_of_our_files({"fewstep": fewstep, "second_copy": second})
    assert names == {"__init__.py": {"fewstep", "second_copy"}}
