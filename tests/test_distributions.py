"""What is handed out: wheel, source distribution and the registry's archive hold what they should and nothing else, the same every time."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from .test_packaging import PROJECT, ROOT

LARGEST = 15 << 20  # bytes
NEVER = ("tests/", "benchmarks/", ".ci/", ".git/", ".venv/", "__pycache__/", ".pyc", ".tmp", ".part", ".pytest_cache", ".hypothesis")
WEIGHTS = {f"demo/weights/{name}.safetensors" for name in ("demo_unet", "judge", "emoji_dit", "emoji_judge")}

BUILD = """
import os, sys
os.chdir(sys.argv[1])
from setuptools import build_meta
print(getattr(build_meta, f"build_{sys.argv[2]}")(sys.argv[3]))
"""


@pytest.fixture(scope="module")
def build(copy_of_the_checkout, run_python, tmp_path_factory):
    """Return a function that builds a "wheel" or "sdist" from a fresh copy whose files have this date."""

    def run(kind, date):
        checkout, folder = copy_of_the_checkout(), tmp_path_factory.mktemp("built")
        for path in checkout.rglob("*"):
            os.utime(path, (date, date))
        # The format of wheels has no dates before 1980; with this variable builders write one date into everything.
        result = run_python("-c", BUILD, checkout, kind, folder, env={"SOURCE_DATE_EPOCH": "1700000000"})
        assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
        return folder / result.stdout.split()[-1]

    return run


@pytest.fixture(scope="module")
def wheels(build):
    """Two of the same, from files with other dates."""
    return [build("wheel", date) for date in (1_600_000_000, 1_650_000_000)]


def names_in(wheel: Path) -> set[str]:
    """The files of the package in a wheel."""
    return {name.removeprefix("fewstep/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("fewstep/")}


def check_names(names: set[str]) -> None:
    assert not [name for name in names if any(part in name for part in NEVER)]
    assert not WEIGHTS - names


def test_two_builds_of_the_wheel_are_the_same_file(wheels):
    digests = {hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
    assert len(digests) == 1 and wheels[0].name == f"fewstep-{PROJECT['project']['version']}-py3-none-any.whl"
    check_names(names_in(wheels[0]))
    assert wheels[0].stat().st_size < LARGEST and not names_in(wheels[0]) & {"install.py", "setup.py"}


def test_the_source_distribution_makes_the_wheel(build, wheels, run_python, tmp_path):
    sdist = build("sdist", 1_600_000_000)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
        assert all(member.isfile() or member.isdir() for member in archive.getmembers())
        archive.extractall(tmp_path, filter="data")
    check_names(names)
    assert sdist.stat().st_size < LARGEST and {"LICENSE", "pyproject.toml", "setup.py", "README.md"} <= names
    (checkout,) = tmp_path.iterdir()
    (tmp_path / "wheel").mkdir()
    result = run_python("-c", BUILD, checkout, "wheel", tmp_path / "wheel")
    assert result.returncode == 0, result.stderr[-2000:]
    assert names_in(next((tmp_path / "wheel").iterdir())) == names_in(wheels[0])


def registry_files() -> list[str]:
    """What ComfyUI's registry packs: what git knows, less .comfyignore; in a checkout without git, what git would not ignore."""
    from pathspec import PathSpec

    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if known.returncode == 0:
        names = [name for name in known.stdout.split("\0") if name]
    else:
        ignored = PathSpec.from_lines("gitignore", (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())
        paths = (path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file())
        names = [path for path in paths if not path.startswith(".git/") and not ignored.match_file(path)]
    left_out = PathSpec.from_lines("gitignore", (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines())
    return sorted(name for name in names if not left_out.match_file(name) and (ROOT / name).is_file())


def test_the_archive_of_the_registry():
    names = registry_files()
    check_names(set(names))
    rooms = ("nodes", "web", "locales", "example_workflows", "schedules", "solvers", "fitting", "training", "amed", "recipes", "jobs")
    assert set(rooms) <= {name.split("/")[0] for name in names}
    assert {"__init__.py", "install.py", "requirements.txt", "pyproject.toml", "LICENSE", "SECURITY.md"} <= set(names)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.write(ROOT / name, name)
    assert len(packed.getvalue()) < LARGEST
    assert all(len(name) < 120 and name.isascii() for name in names), "Windows unpacks paths of at most 260 characters"


# --- licences ----------------------------------------------------------------------------------------------------------------------------


def licences():
    spec = importlib.util.spec_from_file_location("make_licences", ROOT / "docs/make_licences.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_licence_of_every_package_is_listed():
    """`python docs/make_licences.py` writes the page anew."""
    page = licences()
    asked = {name for file in page.FILES for name in page.names_in(file)}
    rows = page.known_rows()
    assert asked == rows.keys() and len(asked) > 80
    assert sum(row == page.NOT_SAID for row in rows.values()) <= 4
    for name in ("numpy", "scipy", "safetensors", "platformdirs", "pytest"):
        assert page.licence_of(page.metadata.distribution(name)) == rows[name] or sys.version_info < (3, 11)


def test_what_is_promised_is_in_the_folder():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "security/advisories/new" in text and PROJECT["project"]["urls"]["Repository"] in text
    for name in ("docs/hardening.md", "docs/licences.md"):
        assert f"({name})" in text and Path(ROOT / name).exists()
