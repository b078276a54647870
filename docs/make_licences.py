"""Writes docs/licences.md: the licence of every package that FewStep asks for, as its own metadata says it.

    python docs/make_licences.py [FOLDER ...]

Looks into the running environment (that of `install.py --test` has all but the host's) and into further folders of packages. Packages that
are found nowhere, such as those for other Pythons, keep the line that the page has.
"""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/licences.md"
FILES = {
    "requirements.txt": "Installed with FewStep, unless the host has them",
    "requirements-demo.txt": "`install.py --demo`",
    "requirements-demo-nodeps.txt": "`install.py --demo`, without what they ask for themselves",
    "requirements-test.txt": "`install.py --test`",
    "requirements-host.txt": "The ComfyUI of the tests",
}
NOT_SAID = "its metadata does not say"
_START = """# Licences of what FewStep asks for

FewStep itself is under the MIT licence. It contains no code of these packages; pip installs them. Written by `python docs/make_licences.py`
from the packages' own metadata; a test compares the names with the requirement files.
"""
_SHORT = {
    "MIT License": "MIT", "The MIT License": "MIT", "BSD License": "BSD", "Apache Software License": "Apache-2.0",
    "Python Software Foundation License": "PSF-2.0", "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0", "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0", "Apache": "Apache-2.0", "Apache 2": "Apache-2.0", "Apache License, Version 2.0": "Apache-2.0",
}  # fmt: skip


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names_in(file: str) -> list[str]:
    """The packages of a requirement file, once each."""
    lines = (line.split("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
    return list(dict.fromkeys(normal(re.split(r"[=>;\s]", line)[0]) for line in lines if line and not line.startswith("-")))


def licence_of(distribution: metadata.Distribution) -> str:
    """What the metadata says: an SPDX expression, else its classifiers, else its first line of free text."""
    told = distribution.metadata
    if expression := told["License-Expression"]:
        return str(expression)
    classified = [value.rpartition(" :: ")[2] for value in told.get_all("Classifier") or [] if value.startswith("License ::")]
    text = (told["License"] or "").strip().partition("\n")[0]
    found = [name for name in classified if name != "OSI Approved"] or [text[:60]]
    return ", ".join(_SHORT.get(name, name) for name in found if name and name != "UNKNOWN") or NOT_SAID


def known_rows() -> dict[str, str]:
    """The lines of the page by package."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = {match[1]: match[2] for match in re.finditer(r"^\| ([a-z0-9-]+) \| (.+) \|$", text, re.MULTILINE)}
    return {name: row for name, row in found.items() if name not in ("package", "---")}


def main(folders: list[str]) -> None:
    rows = known_rows()
    for distribution in metadata.distributions(path=[*sys.path, *folders]):
        if distribution.metadata["Name"]:
            rows[normal(distribution.metadata["Name"])] = licence_of(distribution)
    text, listed = _START, set[str]()
    for file, title in FILES.items():
        new = sorted(set(names_in(file)) - listed)
        listed |= set(new)
        text += f"\n## {title}\n\n| package | licence |\n| --- | --- |\n"
        text += "".join(f"| {name} | {rows.get(name, NOT_SAID)} |\n" for name in new)
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
