"""Texts and files from strangers, changed until they reach new lines of the readers: refused with our ValueError, or whole.

    pip install atheris
    python tests/fuzz_guided.py [--seconds 300] [TARGET ...]

Atheris is libFuzzer for Python. It is not among the requirements of the tests, as it has wheels for Linux only; test_hostile_files.py makes
its changes at random. Each target runs in a process of its own and begins with valid files, and with what former runs have kept in
.venv/fuzz/TARGET. The first input that raises anything else ends the run; libFuzzer writes it to crash-... there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".venv/fuzz"
RECIPES = sorted((ROOT / "demo/recipes").glob("*.json"))[::7]


def recipe_text(data: bytes) -> None:
    """A byte for the hint, and a payload: whoever can compute the checksum can write any."""
    from fewstep.recipes import Recipe, text

    texts = _texts()
    front = f"fewstep1:{texts[data[0] % len(texts)].split(':')[1] if data else 'x'}:{text._base62(data[1:])}"
    recipe = Recipe.from_text(f"{front}:{text._checksum(front)}")
    assert Recipe.from_text(recipe.to_text()) == recipe and recipe.table().nfe


def recipe_file(data: bytes) -> None:
    from fewstep.recipes import Recipe

    recipe = Recipe.from_json(data.decode("utf-8", "replace"))
    assert Recipe.from_json(recipe.to_json()) == recipe and recipe.table().nfe


def book(data: bytes) -> None:
    from fewstep.recipes import Book

    found = Book.from_json(data.decode("utf-8", "replace"))
    assert Book.from_json(found.to_json()) == found


def levels(data: bytes) -> None:
    from fewstep.schedules.text import parse_sigmas

    assert len(parse_sigmas(data.decode("utf-8", "replace"))) >= 2


def amed(data: bytes) -> None:
    from fewstep.amed import load_amed

    file = KEPT / f"amed-{os.getpid()}.safetensors"
    file.write_bytes(data)
    assert load_amed(file).config.nfe


def _texts() -> list[str]:
    from fewstep.recipes import Recipe

    global _known
    _known = _known or [Recipe.load(path).to_text() for path in RECIPES]
    return _known


_known: list[str] = []


def _payloads() -> list[bytes]:
    from fewstep.recipes import text

    return [bytes([number]) + text._bytes(each.split(":")[2]) for number, each in enumerate(_texts())]


def _books() -> list[bytes]:
    from fewstep.recipes import Book, Recipe

    return [Book((Recipe.load(path),)).to_json().encode() for path in RECIPES]


def _levels() -> list[bytes]:
    return [b"14.6, 5, 1, 0", b"sigmas: [14.61, 2.5e0; 0.03 0]", b"tensor([1., 0.5, 0.])"]


def _amed() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "demo/amed").glob("*.safetensors"))[:2]]


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "recipe_text": (recipe_text, _payloads),
    "recipe_file": (recipe_file, lambda: [path.read_bytes() for path in RECIPES]),
    "book": (book, _books),
    "levels": (levels, _levels),
    "amed": (amed, _amed),
}
"""By name: what reads an input, and valid ones."""


def fuzz(name: str, seconds: int) -> None:
    """In this process, which libFuzzer ends."""
    import atheris

    watched = ["fewstep.recipes", "fewstep.schedules.text", "fewstep.amed.checkpoint", "fewstep.tensor_files"]
    with atheris.instrument_imports(include=watched):
        import fewstep.amed.checkpoint
        import fewstep.recipes
        import fewstep.schedules.text  # noqa: F401
    read, seeds = TARGETS[name]
    folder = KEPT / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (folder / f"seed-{number}").write_bytes(seed)

    def attempt(data: bytes) -> None:
        try:
            read(data)
        except ValueError as error:
            assert not isinstance(error, UnicodeError) and " " in str(error), repr(error)

    options = [f"-max_total_time={seconds}", "-max_len=8000", "-timeout=5", "-rss_limit_mb=3000", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], str(folder), *options], attempt)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description="Change inputs from strangers until they reach new lines of the readers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default")
    parser.add_argument("--seconds", type=int, default=300, help="for each target (default 300)")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = set(options.targets) - TARGETS.keys()
    if unknown:
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    if options.here:
        fuzz(options.targets[0], options.seconds)
    failed = 0
    for name in options.targets or TARGETS:
        command = [sys.executable, __file__, name, "--seconds", str(options.seconds), "--here"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        runs = re.findall(r"Done (\d+) runs", done.stderr)
        reached = re.findall(r"cov: (\d+)", done.stderr)
        if done.returncode or not runs:
            print(done.stderr[-3000:], file=sys.stderr)
            failed = 1
        else:
            found = f"{reached[0]} places of the code reached at first, {reached[-1]} at last"
            print(f"{name.replace('_', ' ')}, guided: {runs[-1]} cases, {found}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
