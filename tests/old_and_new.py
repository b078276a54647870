"""The core's tests with old and new Pythons, torch, numpy, scipy and safetensors, each really installed.

    python tests/old_and_new.py [--tests short|core|whole] [--folder FOLDER] [--only NAME ...]

Makes a throwaway environment per row of `CASES` in FOLDER (default: a temporary one; about 6 GB at a time), runs `CORE` there, two minutes
of one core, or `SHORT` or `WHOLE` in its place, and writes the results to docs/old_and_new.json. Rows that have a result for
the present code are skipped, so a run that was stopped goes on; `--again` runs them again. A row whose Python is not on this machine, or
whose packages cannot be had, is recorded as not run, with the reason. full_hardening.py writes the table of docs/hardening.md from it.

k-diffusion, whose needs have versions of their own, is not installed: what compares with it is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs/old_and_new.json"
LIMIT = 3600  # seconds for the tests of a row


@dataclass(frozen=True)
class Case:
    """Versions of a row; "" stands for the newest that pip finds for this Python."""

    name: str
    python: str
    torch: str
    numpy: str = ""
    scipy: str = ""
    safetensors: str = ""
    platformdirs: str = ""


CASES = (
    # The oldest of requirements.txt, with the oldest torch of pyproject.toml.
    Case("3.10 oldest", "3.10", "2.0.0", "1.23.5", "1.10.0", "0.4.0", "3.0.0"),
    Case("3.10 newest", "3.10", "2.13.0"),
    Case("3.11 oldest", "3.11", "2.13.0", "1.23.5", "1.10.0", "0.4.0", "3.0.0"),
    Case("3.11 newest", "3.11", "2.13.0"),
    # The oldest that exist as wheels for these Pythons.
    Case("3.12 oldest", "3.12", "2.2.0", "1.26.0", "1.11.2", "0.4.0", "3.0.0"),
    Case("3.12 newest", "3.12", "2.13.0"),
    Case("3.13 oldest", "3.13", "2.6.0", "2.1.0", "1.14.1", "0.4.5", "3.0.0"),
    Case("3.13 newest", "3.13", "2.13.0"),
)

CORE = (
    "test_noise_schedule", "test_objective", "test_optimize", "test_optimal_sigmas", "test_baselines", "test_tapered", "test_resample",
    "test_sigma_text", "test_cache", "test_boundary", "test_host_tables", "test_known_tables", "test_table", "test_walk", "test_jump",
    "test_keeping", "test_sampler_functions", "test_solver_bad_input", "test_any_sampling", "test_recipes", "test_recipe_book",
    "test_recipe_pasted", "test_hostile_files", "test_hostile_sizes", "test_hostile_names", "test_fitting_levenberg",
    "test_fitting_parameters", "test_fitting_residual", "test_fitting_teacher", "test_fitting_guard", "test_fitting_run",
    "test_fitting_seed_choice", "test_fitting_two_stages", "amed/test_forms", "amed/test_predictor", "amed/test_sampling",
    "amed/test_checkpoint", "amed/test_taps", "amed/test_any_amed", "tuning/test_lora", "tuning/test_lora_file", "tuning/test_samples",
    "test_rooms", "test_torch_names",
)  # fmt: skip
"""Schedules, solvers, recipes, the cache, files, fits, AMED, adapters, import rules: what depends on versions, without long work."""
WHOLE = (
    *CORE, "test_convergence_order", "test_discretization", "test_fitting_race", "test_fitting_calibrate",
    "test_fitting_course", "test_fitting_within", "test_rebuild", "test_killed", "amed/test_training", "amed/test_distributed",
    "tuning/test_objectives", "tuning/test_tune", "tuning/test_alternate", "tuning/test_student_costs", "tuning/test_distributed",
)  # fmt: skip
"""All tests of the rooms that no host is needed for; what compares bit for bit with records, and the demo, have pinned versions."""
SHORT = (
    "test_objective", "test_optimize", "test_tapered", "test_boundary", "test_host_tables", "test_known_tables", "test_table", "test_walk",
    "test_any_sampling", "test_recipe_book", "test_fitting_guard", "test_fitting_run", "test_fitting_two_stages", "amed/test_forms",
    "amed/test_sampling", "amed/test_any_amed", "tuning/test_lora", "test_torch_names",
)  # fmt: skip
"""A quarter of a minute."""
LISTS = {"short": SHORT, "core": CORE, "whole": WHOLE}  # from the smallest on
WITHOUT = "not k_diffusion"
TOOLS = ("pytest", "hypothesis", "tqdm", "pillow", "matplotlib", "torchsde", "tomli", "packaging")


def interpreter(version: str) -> str | None:
    """A Python of this version: on the path, or among those of pyenv."""
    found = [shutil.which(f"python{version}"), *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for python in filter(None, found):
        command = [python, "-c", "import sys, venv, ensurepip; print(sys.version)"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode == 0 and told.stdout.startswith(f"{version}."):
            return python
    return None


def code_digest() -> str:
    """Of the code that a row tests."""
    rooms = ("schedules", "solvers", "fitting", "training", "amed", "recipes", "jobs")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")] + [ROOT / "tensor_files.py", ROOT / "requirements.txt"]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def pinned(name: str, version: str) -> str:
    return f"{name}=={version}" if version else name


def installed(case: Case, python: str, home: Path) -> tuple[str, str]:
    """The Python of an environment with the row's packages, and why there is none; one that an interrupted run left is used again."""
    own, ready = str(home / "bin/python"), home / "ready"
    if ready.exists():
        return own, ""
    shutil.rmtree(home, ignore_errors=True)
    subprocess.run([python, "-m", "venv", home], check=True)
    packages = [pinned(name, getattr(case, name)) for name in ("torch", "numpy", "scipy", "safetensors", "platformdirs")]
    pip = [own, "-m", "pip", "install", "-q", "--no-cache-dir", "--only-binary=:all:", "--prefer-binary"]
    # In one call, so that pip finds tools that go with the old packages.
    done = subprocess.run([*pip, *packages, *TOOLS], capture_output=True, text=True, check=False)
    if done.returncode:
        return own, "pip: " + (re.findall(r"ERROR: (.+)", done.stderr) or ["failed"])[-1][:200]
    (home / "links").mkdir()
    (home / "links/fewstep").symlink_to(ROOT, target_is_directory=True)
    ready.touch()
    return own, ""


def run_case(case: Case, folder: Path, tests: tuple[str, ...]) -> dict[str, object]:
    """Install the row's packages, run the tests, and return what came of it."""
    python = interpreter(case.python)
    if python is None:
        return {"not_run": f"there is no Python {case.python} here"}
    home = folder / case.name.replace(" ", "-")
    try:
        own, problem = installed(case, python, home)
        if problem:
            return {"not_run": problem}
        names = ("torch", "numpy", "scipy", "safetensors", "platformdirs")
        tell = f"import sys, importlib.metadata as m; print(sys.version.split()[0], *[m.version(n) for n in {names}])"
        found = subprocess.run([own, "-c", tell], capture_output=True, text=True, check=True).stdout.split()
        files = [str(ROOT / f"tests/{name}.py") for name in tests]
        environment = {**os.environ, "PYTHONPATH": str(home / "links"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        start, log = time.monotonic(), folder / f"{home.name}.log"
        with open(log, "w") as output:
            code = subprocess.run(
                [own, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-rfEs", "-k", WITHOUT, *files], cwd=ROOT,
                env=environment, stdout=output, stderr=output, timeout=LIMIT, check=False,
            ).returncode  # fmt: skip
            if case == CASES[0]:  # the oldest torch is asked what it has
                subprocess.run([own, str(ROOT / "tests/torch_names.py")], cwd=ROOT, stdout=output, stderr=output, check=True)
        text = log.read_text(errors="replace")
        last = next((line for line in reversed(text.splitlines()) if re.search(r"\d+ (passed|failed|error)", line)), "")
        counts = {name: int(number) for number, name in re.findall(r"(\d+) (passed|failed|skipped|error)", last)}
        failures = sorted(set(re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)))
        seconds = round(time.monotonic() - start)
        versions = dict(zip(("python", *names), found, strict=True))
        return {"versions": versions, **counts, "failures": failures, "seconds": seconds, "exit": code}
    except subprocess.TimeoutExpired:
        return {"not_run": f"the tests did not end within {LIMIT // 60} minutes"}
    except (subprocess.SubprocessError, OSError) as error:
        return {"not_run": str(error)[:200]}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the core's tests with old and new versions of what it needs.")
    parser.add_argument("--folder", type=Path, help="where environments are made (default: a temporary folder)")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="rows to run")
    parser.add_argument("--again", action="store_true", help="run rows again that have a result")
    parser.add_argument("--tests", choices=list(LISTS), default="core", help="which tests (default: core)")
    parser.add_argument("--keep", action="store_true", help="keep the environments in the folder")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    folder, digest = options.folder or Path(tempfile.mkdtemp(prefix="fewstep-versions-")), code_digest()
    folder.mkdir(parents=True, exist_ok=True)
    for case in CASES:
        known = results.get(case.name, {})
        enough = "exit" in known and known.get("code") == digest and [*LISTS].index(known["tests"]) >= [*LISTS].index(options.tests)
        if (options.only and case.name not in options.only) or (enough and not options.again):
            continue
        print(f"{case.name} ...", flush=True)
        known = {"asked": asdict(case), "code": digest, "commit": commit(), "tests": options.tests}
        results[case.name] = {**known, **run_case(case, folder, LISTS[options.tests])}
        if not options.keep:
            shutil.rmtree(folder / case.name.replace(" ", "-"), ignore_errors=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(json.dumps(results[case.name]), flush=True)
    return int(any(result.get("exit", 1) for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
