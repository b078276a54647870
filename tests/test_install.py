"""`install.py`, run as people and hosts run it: real interpreters, real pip.

Two things keep it short and possible offline. Hook tests install wheels of a few lines that are made here. Environment
tests lend this session's packages to the new environment through PYTHONPATH, where pip finds the pinned needs met, so
only making the environment, building the package and the start are done again.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from .processes import TiedProcess

ROOT = Path(__file__).resolve().parents[1]


def load_install():
    spec = importlib.util.spec_from_file_location("fewstep_install_script", ROOT / "install.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = load_install()


def make_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {need}\n" for need in requires)
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


def offline_with(folder: Path) -> dict[str, str]:
    """Return variables with which pip knows the wheels in `folder` and nothing else."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}


# --- The hosts' hook --------------------------------------------------------------------------------------------------


class Host:
    """A host's interpreter: a virtual environment with pip and nothing else."""

    def __init__(self, folder: Path, run_python, with_pip=True):
        venv.create(folder, with_pip=with_pip, symlinks=os.name != "nt")
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self.run_python = run_python

    def hook(self, plugin: Path, requirements: str, env: dict[str, str]):
        plugin.mkdir(exist_ok=True)
        shutil.copy(ROOT / "install.py", plugin)
        (plugin / "requirements.txt").write_text(requirements)
        # Hosts run the hook from wherever they are.
        return self.run_python(plugin / "install.py", python=self.python, env=env, cwd=plugin.parent)

    def version(self, name: str) -> str:
        code = f"from importlib.metadata import version; print(version({name!r}))"
        return self.run_python("-c", code, python=self.python).stdout.strip()

    def pip_install(self, wheels: Path, *needs: str) -> None:
        result = self.run_python("-m", "pip", "install", *needs, python=self.python, env=offline_with(wheels))
        assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def host(tmp_path_factory, run_python):
    return Host(tmp_path_factory.mktemp("host") / "env", run_python)


def is_one_sentence_for_people(text: str) -> bool:
    return text.startswith("FewStep: ") and text.count("\n") == 1 and "Traceback" not in text


def test_hook_installs_what_is_missing_and_a_second_run_finds_nothing_to_do(host, tmp_path):
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "needed_a", "1.4")
    make_wheel(wheels, "needed_b", "2.0")
    requirements = "# a comment\nneeded_a>=1.2  # and another\n\nneeded_b\n"
    first = host.hook(tmp_path / "plugin", requirements, offline_with(wheels))
    assert (first.returncode, first.stderr) == (0, "")
    assert "installed needed_a 1.4, needed_b 2.0" in first.stdout
    assert host.version("needed_a") == "1.4"
    second = host.hook(tmp_path / "plugin", requirements, offline_with(tmp_path / "nothing here"))
    assert second.returncode == 0
    assert "nothing to install" in second.stdout and "needed_a 1.4" in second.stdout


def test_hook_never_upgrades_what_satisfies_not_even_through_a_new_package(host, tmp_path):
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "array_lib", "1.26.4")
    host.pip_install(wheels, "array_lib")
    make_wheel(wheels, "array_lib", "2.4.0")
    make_wheel(wheels, "science_lib", "1.13", requires=("array_lib>=1.22",))
    make_wheel(wheels, "science_lib", "1.17", requires=("array_lib>=2.0",))
    result = host.hook(tmp_path / "plugin", "array_lib>=1.23.5\nscience_lib>=1.10\n", offline_with(wheels))
    assert result.returncode == 0, result.stderr
    assert host.version("array_lib") == "1.26.4"
    assert host.version("science_lib") == "1.13"


def test_hook_raises_what_is_too_old_within_its_major_version(host, tmp_path):
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "old_lib", "1.21")
    host.pip_install(wheels, "old_lib")
    make_wheel(wheels, "old_lib", "1.26")
    make_wheel(wheels, "old_lib", "2.4")
    result = host.hook(tmp_path / "plugin", "old_lib>=1.23.5\n", offline_with(wheels))
    assert result.returncode == 0, result.stderr
    assert host.version("old_lib") == "1.26"


def test_hook_never_installs_torch(host, tmp_path):
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "torch", "9.9")
    make_wheel(wheels, "needed_c", "1.0")
    result = host.hook(tmp_path / "plugin", "torch>=1.0\nneeded_c\n", offline_with(wheels))
    assert result.returncode == 0, result.stderr
    assert host.version("needed_c") == "1.0"
    assert host.version("torch") == "", "pip could have installed this wheel, and the hook let it"


def test_hook_says_in_one_sentence_that_packages_conflict_and_changes_nothing(host, tmp_path):
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "kept_lib", "1.0")
    host.pip_install(wheels, "kept_lib")
    make_wheel(wheels, "kept_lib", "2.0")
    make_wheel(wheels, "greedy_lib", "1.0", requires=("kept_lib>=2.0",))
    result = host.hook(tmp_path / "plugin", "greedy_lib>=1.0\n", offline_with(wheels))
    assert result.returncode == 1
    assert is_one_sentence_for_people(result.stderr)
    assert "greedy_lib>=1.0" in result.stderr and "pip said: Cannot install" in result.stderr
    assert "(constraint) kept" in result.stderr, "the sentence names the package in the way"
    assert host.version("kept_lib") == "1.0"


def test_hook_says_in_one_sentence_that_a_package_does_not_exist(host, tmp_path):
    (tmp_path / "wheels").mkdir()
    result = host.hook(tmp_path / "plugin", "missing_lib>=1.0\n", offline_with(tmp_path / "wheels"))
    assert result.returncode == 1
    assert is_one_sentence_for_people(result.stderr)
    assert "pip found no version of missing_lib>=1.0 at all" in result.stderr


def test_hook_says_in_one_sentence_that_the_network_is_gone(host, tmp_path, free_port):
    proxy = f"http://127.0.0.1:{free_port}"
    env = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"), proxy)
    (tmp_path / "nothing").mkdir()
    env |= {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "1", "PIP_FIND_LINKS": str(tmp_path / "nothing")}
    result = host.hook(tmp_path / "plugin", "missing_lib>=1.0\n", env)
    assert result.returncode == 1
    assert is_one_sentence_for_people(result.stderr)
    assert "the package registry could not be reached" in result.stderr


def test_hook_says_in_one_sentence_that_there_is_no_pip(tmp_path, run_python):
    bare = Host(tmp_path / "env", run_python, with_pip=False)
    result = bare.hook(tmp_path / "plugin", "missing_lib>=1.0\n", {})
    assert result.returncode == 1
    assert is_one_sentence_for_people(result.stderr)
    assert "this Python has no pip" in result.stderr


def test_hook_refuses_a_line_it_cannot_read(host, tmp_path):
    result = host.hook(tmp_path / "plugin", "needed_d==1.0; python_version > '3'\n", {})
    assert result.returncode == 1
    assert is_one_sentence_for_people(result.stderr)
    assert "needed_d==1.0" in result.stderr


def test_importing_does_nothing_and_leaves_the_hosts_launcher_alone(tmp_path, run_python):
    (tmp_path / "launch.py").write_text("raise SystemExit('the launcher was imported')\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    result = run_python("-c", "import install", env={"PYTHONPATH": paths}, cwd=tmp_path)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    result = run_python(ROOT / "install.py", env={"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_only_the_standard_library_and_the_oldest_pythons_grammar():
    tree = ast.parse((ROOT / "install.py").read_text(encoding="utf-8"), feature_version=install.OLDEST_PYTHON)
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add(node.module.split(".")[0])
    assert names <= sys.stdlib_module_names


def test_runs_on_every_supported_python_at_hand(run_python):
    for minor in range(10, 15):
        python = shutil.which(f"python3.{minor}")
        # A version manager's placeholder is on the path but does not run.
        if python and run_python("-c", "", python=python).returncode == 0:
            result = run_python(ROOT / "install.py", "--help", python=python)
            assert result.returncode == 0 and "--demo" in result.stdout, result.stderr


@pytest.mark.parametrize(
    ("version", "lowest", "enough"),
    [
        ("1.26.4", "1.23.5", True), ("1.23.5", "1.23.5", True), ("1.23", "1.23.0", True), ("2.0.0rc1", "2.0", True),
        ("2.13.0+cpu", "2.13", True), ("10.0", "9.1", True), ("1.23.4", "1.23.5", False), ("0.9.10", "0.10", False),
        ("1.0.post1", "1.0", True), ("5", "", True),
    ],
)  # fmt: skip
def test_versions_are_compared_as_numbers(version, lowest, enough):
    assert (install.release(version) >= install.release(lowest)) is enough


def test_the_shipped_requirements_can_be_read():
    names = {name for name, _ in install.read_requirements(ROOT / "requirements.txt")}
    assert names == {"numpy", "scipy", "safetensors", "platformdirs"}


def test_an_unknown_argument_is_refused_with_what_is_allowed(run_python):
    result = run_python(ROOT / "install.py", "--demp")
    assert result.returncode == 1
    assert is_one_sentence_for_people(result.stderr)
    assert "--demp" in result.stderr and "--demo" in result.stderr


@pytest.mark.network
def test_hook_with_the_registry(host, tmp_path, run_python):
    probe = run_python("-m", "pip", "index", "versions", "platformdirs", env={"PIP_RETRIES": "0"}, timeout=60)
    if probe.returncode:
        pytest.skip("the package registry cannot be reached: the hook was not tried with it")
    requirements = "platformdirs>=3.0\nsafetensors>=0.4\n"  # the two small ones of the shipped file
    result = host.hook(tmp_path / "plugin", requirements, {})
    assert result.returncode == 0, result.stderr
    assert f"installed platformdirs {host.version('platformdirs')}" in result.stdout
    assert host.version("safetensors") != ""


# --- The private environment ------------------------------------------------------------------------------------------


def unmet_pins() -> list[str]:
    unmet = []
    for file, _ in install.NEEDS["test"]:
        for line in re.findall(r"^[^#\s-].*==.*$", install.requirement_lines(file), re.MULTILINE):
            pin = Requirement(line)
            if pin.marker is None or pin.marker.evaluate():
                version = install.installed_version(pin.name)
                if version is None or not pin.specifier.contains(version):
                    unmet.append(f"{line} (here: {version})")
    return unmet


@pytest.fixture(scope="module")
def lent_packages(tmp_path_factory):
    """Variables with which a new environment finds all pinned needs met, and pip has nothing to download from."""
    if unmet := unmet_pins():
        pytest.skip(f"this is not the environment of `install.py --test`, so it cannot be lent: {'; '.join(unmet)}")
    folder = tmp_path_factory.mktemp("lent")
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(path).iterdir():
            # Its own pip, and this package from its own folder, are what the new environment has to prove.
            if not re.match(r"pip\b|_*editable_|fewstep\b", entry.name) and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    (folder / "bin").symlink_to(sysconfig.get_path("scripts"))  # where ruff looks for its program beside its package
    return {"PYTHONPATH": str(folder), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}


def state_of(checkout: Path) -> dict:
    try:
        return json.loads((checkout / ".venv/fewstep-install.json").read_text())
    except (OSError, ValueError):
        return {}


@pytest.fixture(scope="module")
def demo_run(copy_of_the_checkout, lent_packages, run_python):
    """A checkout in which a broken `.venv` lay, and the first `install.py --demo` there."""
    checkout = copy_of_the_checkout()
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/pyvenv.cfg").write_text("home = /nowhere\n")
    result = run_python(checkout / "install.py", "--demo", "--", "--help", env=lent_packages)
    return checkout, result


def test_demo_makes_a_broken_environment_again_and_runs_the_command(demo_run):
    checkout, result = demo_run
    assert result.returncode == 0, result.stdout + result.stderr
    assert "it is incomplete" in result.stdout
    assert "usage: fewstep demo" in result.stdout
    assert state_of(checkout).keys() == {"installing", "demo"}
    scripts = checkout / ".venv" / ("Scripts" if os.name == "nt" else "bin")
    assert list(scripts.glob("fewstep*"))


def test_demo_again_takes_seconds_and_installs_nothing(demo_run, lent_packages, run_python):
    checkout, _ = demo_run
    started = time.monotonic()
    result = run_python(checkout / "install.py", "--demo", "--help", env=lent_packages)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FewStep:" not in result.stdout
    assert time.monotonic() - started < 60, "the start of Python and torch alone, here on a machine that may be busy"


def test_an_environment_does_not_delete_itself(demo_run, lent_packages, run_python):
    checkout, _ = demo_run
    python = checkout / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    state = checkout / ".venv/fewstep-install.json"
    saved = state.read_text()
    state.write_text('{"installing": true}')
    result = run_python(checkout / "install.py", "--demo", python=python, env=lent_packages)
    state.write_text(saved)
    assert result.returncode == 1
    assert is_one_sentence_for_people(result.stderr)
    assert python.exists()


def test_a_renamed_folder_and_the_test_command(demo_run, lent_packages, run_python):
    checkout, _ = demo_run
    checkout = checkout.rename(checkout.with_name("renamed"))
    # A core and tests of a few lines: what is tried here is how the results of the three tools are reported.
    shutil.rmtree(checkout / "tests")
    (checkout / "tests").mkdir()
    for name in ("conftest.py", "loaded_files.py", "two_processes.py"):
        shutil.copy(ROOT / "tests" / name, checkout / "tests")
    (checkout / "tests/test_one.py").write_text(
        "import os\n\nimport fewstep.schedules\n\n\n"
        "def test_good():\n    assert fewstep.schedules.one() == 1 and os.environ['OMP_NUM_THREADS'] == '3'\n\n\n"
        "def test_bad():\n    assert fewstep.schedules.one() == 2\n"
    )
    for file in [*checkout.glob("*.py"), *checkout.glob("[a-z]*/**/*.py")]:
        if file.parent == checkout and file.name in ("__init__.py", "install.py", "setup.py"):
            continue
        if "tests" not in file.relative_to(checkout).parts:
            file.unlink()
            if file.name == "__init__.py":
                file.write_text("def one() -> int:\n    return 1\n")

    def run_tests(*arguments):
        env = {**lent_packages, "OMP_NUM_THREADS": "3"}
        return run_python(checkout / "install.py", "--test", *arguments, env=env)

    def closing_line(result):
        return result.stdout.strip().splitlines()[-1]

    good = run_tests("-k", "good")
    assert good.returncode == 0, good.stdout + good.stderr
    assert "installing fewstep from this folder" in good.stdout, "the environment still pointed to the old name"
    assert re.search(r"1 passed, 1 deselected", closing_line(good))

    assert run_tests().returncode == 1, "a failing test must fail the command"

    (checkout / "schedules/__init__.py").write_text("import os\n\n\ndef one() -> str:\n    return 1\n")
    badly_written = run_tests("-k", "good")
    assert badly_written.returncode == 1
    assert "F401" in badly_written.stdout and 'expected "str"' in badly_written.stdout
    assert "ruff and mypy found problems" in badly_written.stdout
    assert "1 passed" in closing_line(badly_written)


@pytest.mark.skipif(os.name == "nt", reason="kills a process group, which Windows does not have")
def test_an_interrupted_and_an_offline_first_run_are_repaired(
    copy_of_the_checkout, lent_packages, run_python, tmp_path
):
    checkout = copy_of_the_checkout()
    command = [sys.executable, str(checkout / "install.py"), "--demo", "--help"]
    env = {**os.environ, **lent_packages}
    process = TiedProcess(command, env=env, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not state_of(checkout).get("installing"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.end()
    half_written = checkout / ".venv/half-written"
    half_written.touch()

    nothing = tmp_path / "nothing"
    nothing.mkdir()
    offline = run_python(*command[1:], env={**offline_with(nothing), "PYTHONPATH": ""})
    assert offline.returncode == 1
    assert "an earlier installation was interrupted" in offline.stdout
    assert not half_written.exists()
    assert "requirements-demo.txt could not be installed" in offline.stderr.splitlines()[-1]
    assert "Traceback" not in offline.stderr

    repaired = run_python(*command[1:], env=lent_packages)
    assert repaired.returncode == 0, repaired.stdout + repaired.stderr
    assert "interrupted" not in repaired.stdout, "pip had ended by itself: nothing is to be thrown away"
    assert "usage: fewstep demo" in repaired.stdout


def test_without_venv_packages_go_into_a_folder(copy_of_the_checkout, lent_packages, run_python, tmp_path):
    checkout = copy_of_the_checkout()
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "needed_e", "1.0")
    make_wheel(wheels, "needed_f", "1.0", requires=("not_to_be_had",))
    # pip fills such a folder without looking at what is on the path, so the pinned needs would be downloaded again.
    (checkout / "requirements-demo.txt").write_text("needed_e==1.0\n")
    (checkout / "requirements-demo-nodeps.txt").write_text("needed_f==1.0\n")
    # As on Debian without python3-venv: `venv` is there, but not what it needs.
    (tmp_path / "ensurepip.py").write_text("raise ImportError('as in an embedded Python')\n")
    paths = os.pathsep.join([str(tmp_path), lent_packages["PYTHONPATH"]])
    env = {**offline_with(wheels), "PYTHONPATH": paths}

    first = run_python(checkout / "install.py", "--demo", "--help", env=env)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "has no venv module" in first.stdout
    assert "usage: fewstep demo" in first.stdout
    assert (checkout / ".venv/site/needed_e.py").exists() and (checkout / ".venv/site/needed_f.py").exists()
    assert not (checkout / ".venv/pyvenv.cfg").exists()

    second = run_python(checkout / "install.py", "--demo", "--help", env=env)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "FewStep:" not in second.stdout

    make_wheel(wheels, "needed_e", "1.1")
    (checkout / "requirements-demo.txt").write_text("needed_e==1.1\n")
    third = run_python(checkout / "install.py", "--demo", "--help", env=env)
    assert third.returncode == 0, third.stdout + third.stderr
    assert (checkout / ".venv/site/needed_e.py").read_text() == "version = '1.1'\n"


def test_metadata_of_the_installed_package_points_here():
    scripts = {entry.name: entry.value for entry in metadata.distribution("fewstep").entry_points}
    assert scripts["fewstep"] == "fewstep.cli:main"


# --- Debian packages --------------------------------------------------------------------------------------------------


@pytest.fixture
def apt_list(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "ROOT", tmp_path)
    return tmp_path / "apt-packages.txt"


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="not a Debian system")
def test_debian_packages_that_are_there_are_not_installed_again(apt_list, capfd):
    apt_list.write_text("# for the tests\ndpkg\n")
    install.install_debian_packages()
    assert capfd.readouterr().out == ""


@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="not a Debian system")
def test_who_may_not_install_debian_packages_is_told_what_is_missing(apt_list, capfd, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(install.shutil, "which", lambda name: None if name == "sudo" else f"/usr/bin/{name}")
    apt_list.write_text("dpkg\nno-such-package-at-all\n")
    install.install_debian_packages()
    text = capfd.readouterr().out
    assert "To run them: apt-get install no-such-package-at-all" in text and "dpkg," not in text


def test_a_system_without_apt_is_told_so(apt_list, capfd, monkeypatch):
    monkeypatch.setattr(install.shutil, "which", lambda name: None)
    apt_list.write_text("dpkg\n")
    install.install_debian_packages()
    assert "this system has no apt-get for the packages dpkg" in capfd.readouterr().out
