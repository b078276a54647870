"""All attempts to break FewStep, in their full numbers: hours. What came of them is written into docs/hardening.md.

    python tests/full_hardening.py [--only PART ...] [--again]

The ordinary suite runs a sample of each part. Here a part that has ended well for the present code is not run again, and soak.py and
old_and_new.py go on where they stopped, so the command can be stopped and started at any time. Results are kept in docs/hardening.json;
`--write` only writes the page from them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, VERSIONS = ROOT / "docs/hardening.json", ROOT / "docs/hardening.md", ROOT / "docs/old_and_new.json"
SOAK = ROOT / ".venv/soak.jsonl"
BEGIN, END = "<!-- written by tests/full_hardening.py -->\n", "<!-- end -->\n"

PARTS: dict[str, tuple[str, str]] = {
    "files": ("Files: recipes, books, cache, presets, AMED, LoRA, teachers, states, typed noise levels", "test_hostile_files.py"),
    "sizes": ("Files of 6 GiB, or with records of 15 MB: the memory that reading them took", "test_hostile_sizes.py"),
    "guided": ("Texts and files that are changed until they reach new lines of the readers (needs atheris)", "fuzz_guided.py"),
    "names": ("Names of files in workflows, requests and the WebUI", "test_hostile_names.py"),
    "kills": ("Processes killed (kill -9), many at once, without a home", "test_killed.py"),
    "disks": ("Disks that are full, out of files, or read-only", "test_real_disks.py"),
    "numbers": ("Families, solvers, numbers of calls, ranges, precisions, broken models", "test_any_sampling.py"),
    "amed": ("AMED: forms, stamps, ranges, precisions, broken models", "amed/test_any_amed.py"),
    "soak": ("ComfyUI: prompts in random order with everything going on at once", "host/soak.py"),
    "versions": ("Old and new Pythons and packages", "old_and_new.py"),
}
"""By name: what it is about, and the file that does it."""
ROWS = """Oldest are the lower bounds of requirements.txt, or the oldest that exist for this Python;
torch is as old as pyproject.toml allows in the first row. core: the tests of schedules, solvers, recipes, the cache, files, fits, AMED,
adapters and import rules; short: a part of these; whole: all that need no host, no demo and no records to compare bits with."""


def commands(part: str) -> list[str]:
    file = PARTS[part][1]
    if part == "soak":
        return [sys.executable, f"tests/{file}", "--prompts", "520", "--record", str(SOAK)]
    if part in ("versions", "guided"):
        return [sys.executable, f"tests/{file}"]
    return [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", f"tests/{file}"]


def code_of(part: str) -> str:
    """A digest of what the part attacks and of its own file."""
    rooms = ("schedules", "solvers", "fitting", "training", "amed", "recipes", "jobs", "nodes", "webui")
    files = sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))
    files += [ROOT / "tensor_files.py", ROOT / "tests" / PARTS[part][1]]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def told_lines(output: str) -> list[str]:
    """What `hardening.tell` said."""
    return [line for line in output.splitlines() if re.match(r"[A-Za-z][^:]*: \d[\d.]* [a-z]", line)]


def run(part: str) -> dict[str, Any]:
    print(f"{part} ...", flush=True)
    start = time.monotonic()
    done = subprocess.run(
        commands(part), cwd=ROOT, env={**os.environ, "FEWSTEP_HARDENING": "full"}, stdout=subprocess.PIPE, text=True, check=False
    )
    result = {"commit": commit(), "code": code_of(part), "exit": done.returncode, "seconds": round(time.monotonic() - start)}
    if part == "soak":
        told = done.stdout[done.stdout.index("\n{\n") :]
        return {**result, "summary": json.loads(told)}
    return {**result, "lines": told_lines(done.stdout)}


# --- the page ----------------------------------------------------------------------------------------------------------------------------


def counted(lines: list[str]) -> list[str]:
    """Lines of numbers as sentences of a list, numbers with their thousands apart."""
    return [f"- {re.sub(r'(?<![.,0-9])[0-9]{4,}(?![0-9.])', lambda match: f'{int(match[0]):,}', line)}" for line in lines]


def soak_lines(summary: dict[str, Any]) -> list[str]:
    ways, ended = (", ".join(f"{count} {name}" for name, count in summary[key].items()) for key in ("ways", "ended"))
    lines = [
        f"prompts: {summary['prompts']} of {summary['kinds']} kinds ({ways}); they ended: {ended}",
        f"requests meanwhile: {summary['previews']}; the server's slowest plain answer took {summary['slowest_answer_s']:.2f} s",
        f"reloads of the page: {summary['reloads']}",
        f"host lists and {summary['stock_pictures']} pictures of stock samplers and schedulers before and after: "
        + ("the same to the last bit" if summary["host_unchanged"] else "**not the same**"),
    ]
    for server in summary["memory"]:
        if server["growth"]:
            readings = server["readings_MiB"]
            lines.append(
                f"memory after warm-up, {len(readings)} readings over {server['prompts']} prompts: {min(readings):.0f} to "
                f"{max(readings):.0f} MiB; the last three differ from the first three by {100 * (server['growth'] - 1):+.1f} %"
            )
    return lines + [f"complaint: {text}" for text in summary["complaints"]]


def versions_table(results: dict[str, Any]) -> list[str]:
    lines = ["| row | Python | torch | numpy | scipy | safetensors | tests |", "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, row in results.items():
        if "versions" not in row:
            lines.append(f"| {name} | | | | | | not run: {row.get('not_run', 'no result')} |")
            continue
        versions = row["versions"]
        found = " | ".join(versions[key] for key in ("python", "torch", "numpy", "scipy", "safetensors"))
        counts = ", ".join(f"{row[key]:,} {key}" for key in ("passed", "failed", "skipped", "error") if row.get(key))
        lines.append(f"| {name} | {found} | {row['tests']}: {counts}{row.get('note', '')} |")
    commits = sorted({row["commit"] for row in results.values() if "versions" in row})
    return [*lines, "", f"At commit {', '.join(commits)}."] if commits else lines


def page_part(results: dict[str, Any], versions: dict[str, Any]) -> str:
    """The part of the page that is written from results."""
    text = ""
    for part, (title, file) in PARTS.items():
        result = results.get(part)
        text += f"\n### {title}\n\n`tests/{file}`"
        if part == "versions":
            text += f", each row really installed. {ROWS}\n\n" + "\n".join(versions_table(versions)) + "\n"
        elif result is None:
            text += ": not run in full.\n"
        else:
            lines = soak_lines(result["summary"]) if "summary" in result else result["lines"]
            ending = "" if result["exit"] == 0 else f" It ended with code {result['exit']}."
            text += f", in full at commit {result['commit']}.{ending}\n\n" + "\n".join(counted(lines)) + "\n"
    return text


def write_page() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    versions = json.loads(VERSIONS.read_text(encoding="utf-8")) if VERSIONS.exists() else {}
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{page_part(results, versions)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description="Run all attempts to break FewStep in full, and write docs/hardening.md.")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts to run")
    parser.add_argument("--again", action="store_true", help="run parts again that have ended well for this code")
    parser.add_argument("--write", action="store_true", help="only write the page")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in [] if options.write else options.only or PARTS:
        known = results.get(part, {})
        if options.again or known.get("code") != code_of(part) or known.get("exit"):
            results[part] = run(part)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            write_page()
    write_page()
    return int(any(result["exit"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
