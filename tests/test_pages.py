"""Pages: links and anchors lead somewhere, names are those of the hosts' menus, made tables are current, snippets and diffs run."""

from __future__ import annotations

import importlib
import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fewstep.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "web" / "docs").glob("*.md")])
WRITTEN = [page for page in PAGES if "measurements" not in page.parts]
BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


# --- Links ------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """As GitHub makes them from headings."""
    found: dict[str, int] = {}
    names = set()
    for heading in re.findall(r"^#{1,6} (.+)$", BLOCK.sub("", text_of(page)), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
        again = found.get(name, 0)
        found[name] = again + 1
        names.add(f"{name}-{again}" if again else name)
    return names


def targets(page: Path) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", text_of(page)))
    return re.findall(r"!?\[[^\]]*\]\(([^)\s]+)\)", text)


def problem_with(page: Path, target: str) -> str | None:
    if re.match(r"https?://", target):
        return None
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists() or not file.is_relative_to(ROOT):
        return f"{target}: there is no such file"
    if anchor and anchor not in anchors(file):
        return f"{target}: there is no such heading; there are {', '.join(sorted(anchors(file)))}"
    return None


@every_page
def test_links_and_pictures_lead_somewhere(page):
    assert not [problem for target in targets(page) if (problem := problem_with(page, target))]


def test_a_broken_link_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    links = "[a](#one-thing-two) [b](#two) ![c](c.png) `[d](e.md)` [f](https://g.h) [i](page.md#one-thing-two)"
    page.write_text(f"# One thing, two\n\n{links}\n", encoding="utf-8")
    assert [problem.split(":")[0] for target in targets(page) if (problem := problem_with(page, target))] == ["#two", "c.png"]


def test_every_page_is_in_the_index():
    listed = {(DOCS / target).resolve() for target in targets(DOCS / "README.md")}
    assert {page for page in DOCS.rglob("*.md") if page.name != "README.md"} <= listed


def test_every_picture_is_shown_or_named():
    shown = " ".join(text_of(page) for page in PAGES) + text_of(ROOT / "pyproject.toml")
    pictures = [path for path in DOCS.iterdir() if path.suffix in (".png", ".svg", ".jpg")]
    assert pictures and not [path.name for path in pictures if path.name not in shown]


# --- Names ------------------------------------------------------------------------------------------------------------


def spoken(pattern: str, *folders: str) -> set[str]:
    files = (file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return {name for file in files for name in re.findall(pattern, text_of(file))}


def test_nodes_and_entries_have_the_names_that_pages_give_them():
    nodes = spoken(r'display_name="(FewStep [^"]+)"', "nodes")
    webui = spoken(r'"(FewStep [A-Za-z0-9+ ]+)"', "webui")
    names = {"FewStep", *webui, *nodes, *(name.removesuffix(" (all in one)") for name in nodes)}
    wrong = {}
    for page in WRITTEN:
        given = re.findall(r"(?<![*\w])\*{1,2}(FewStep [^*\n]+)\*{1,2}(?!\*)", text_of(page))
        if unknown := {name for name in given if name not in names}:
            wrong[page.name] = unknown
    assert len(nodes) > 25 and not wrong


def test_menu_entries_exist():
    source = text_of(ROOT / "nodes" / "dropdown.py") + text_of(ROOT / "webui" / "names.py")
    entries = set(re.findall(r'"(fewstep(?:_\w+)?)"', source))
    used = {name for page in WRITTEN for name in re.findall(r"`(fewstep_\w+)`", text_of(page))}
    assert used and used <= entries


def test_templates_exist():
    used = {name for page in WRITTEN for name in re.findall(r"\*(\d\d [^*\n]+)\*", text_of(page))}
    assert len(used) > 5 and used <= {path.stem for path in (ROOT / "example_workflows").glob("*.json")}


LABELS = re.compile(r"(?:label=|gr\.Button\(|gr\.Accordion\()\"([^\"]+)\"")
HOST = {
    "Sampling method", "Schedule type", "Sampling steps", "CFG Scale", "Automatic", "Settings → Sampler parameters", "WebUI", "ComfyUI",
    "Distilled CFG Scale", "Shift", "Extensions → Install from URL", "Apply and restart UI", "in WebUI", "Interrupt",
}  # fmt: skip


def test_controls_of_the_panel_have_the_names_that_pages_give_them():
    """On the pages that describe them in italics."""
    panel = {name for file in (ROOT / "webui").glob("*.py") for name in LABELS.findall(text_of(file))}
    page = text_of(DOCS / "calibrating.md").split("### In the WebUI")[1].split("### ")[0]
    page += text_of(DOCS / "sharing.md")
    italics = {name for name in re.findall(r"(?<!\*)\*([A-Z][A-Za-z ]+)\*(?!\*)", page)}
    unknown = {name for name in italics if name not in panel | HOST and not name.startswith(("FewStep", "SamplerCustom"))}
    assert {"Calibrate the loaded checkpoint", "Recipe", "Model calls", "Minutes"} <= italics & panel and not unknown


# --- What scripts make ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def script():
    """Returns a module of docs/ by name; they are not left in the process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        yield importlib.import_module
    for name in {path.stem for path in DOCS.glob("*.py")} & set(sys.modules):
        del sys.modules[name]


TABLES = {"make_times": "calibrating.md", "make_schedule_names": "faq.md", "make_choosing": "choosing.md"}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_current(script, name):
    page, blocks = text_of(DOCS / TABLES[name]), script("blocks")
    assert blocks.filled(page, script(name).blocks()) == page, f"run python docs/{name}.py"


def test_summaries_are_current(script):
    blocks = script("blocks")
    for page, tables in script("make_summaries").blocks().items():
        assert blocks.filled(text_of(DOCS / page), tables) == text_of(DOCS / page), "run python docs/make_summaries.py"


def test_the_readme_s_figures_of_amed_and_tuning(script):
    readme, summaries = text_of(ROOT / "README.md"), script("make_summaries")
    verdict = text_of(DOCS / "measurements" / "amed.md").split("### 7 model calls\n\n")[1].splitlines()[0]
    assert "table, 7 calls has 0.64 of the error of the best stock candidate" in verdict
    assert "| 0.64 of the error of the best stock setting with 7 calls |" in readme
    assert "| 5 | 0.56 |" in summaries.tuning() and "| 0.56 of the error of 5 first-order steps |" in readme


def test_a_page_without_a_place_is_told(script):
    blocks = script("blocks")
    assert blocks.filled("a\n<!-- from x -->\nold\n<!-- end -->\nb", {"x": "new"}) == "a\n<!-- from x -->\nnew\n<!-- end -->\nb"
    with pytest.raises(ValueError, match="0 places for y"):
        blocks.filled("a\n<!-- from x -->\n<!-- end -->\n", {"y": "new"})


def test_the_drawing_of_the_rooms_is_current(script):
    assert text_of(DOCS / "rooms.svg") == script("make_rooms").picture(), "run python docs/make_rooms.py"


def test_scripts_write_the_pages_that_name_them():
    for page in PAGES:
        for command in re.findall(r"[Ww]ritten by `python (\S+) --out (\S+?)`", text_of(page)):
            assert (ROOT / command[0]).is_file() and ROOT / command[1] == page


def test_webui_lists_that_are_the_same_are_ours(script):
    """Recorded from the WebUI's own code."""
    names = script("make_schedule_names")
    equal = {name for name, comfyui, webui in names.lists() if names.same(comfyui, webui)}
    assert equal == {"normal", "karras", "exponential", "sgm_uniform", "simple", "ddim_uniform"}
    listed = set(names.NAMES) - {"ays", "ddim_uniform"}
    assert all(names.same(names.ours(name), names.recorded("comfyui")[name]["8"]) for name in listed)


def test_operations_are_those_of_the_published_sizes():
    models = json.loads(text_of(DOCS / "forward_passes.json"))["models"]
    billions = {name: round(known["parameters"] / 1e9, 1) for name, known in models.items()}
    assert billions == {"SD 1.5": 0.9, "SDXL": 2.6, "SD 3.5 large": 8.1, "FLUX.1 dev": 11.9, "Qwen-Image": 20.4, "Wan 2.2 14B": 14.3}
    assert all(known["operations"] > 100 * known["parameters"] for known in models.values())


def test_the_plots_say_what_the_text_says(script):
    theory = script("make_theory")
    page = text_of(DOCS / "theory.md")
    ns = theory.NoiseSchedule.preset(theory.PRESET)
    bounds = {name: theory.teeth(theory.half_log_snrs(name, ns)) for name in theory.LISTS}
    lambdas = theory.half_log_snrs("optimized", ns)
    released = importlib.import_module("fewstep.schedules").released_objective(lambdas, 3.0, order=1)
    assert bounds["optimized"].sum() == pytest.approx(released, rel=1e-9)
    assert bounds["optimized"].sum() < bounds["uniform_lambda"].sum() < bounds["karras"].sum() and len(bounds["karras"]) == 4
    tables = theory.tables()
    assert [table.nfe for table in tables.values()] == [5, 5, 5] and len(tables["Euler"].rows[-1].b) == 1
    assert tables["calibrated"].rows[-1].b[0] > 1 > 0 > tables["calibrated"].rows[-1].b[1]  # overshoots along the slope
    constant, more = importlib.import_module("fewstep.schedules.first_level").STRUCTURES
    assert f"({constant} + {more} N)" in page
    levels = theory.jump_lists()
    assert (levels["from the highest level"] < 1).sum() == 2 and (levels["after a jump"] > 1).sum() == 4


# --- What pages say to type -------------------------------------------------------------------------------------------


def test_snippets_run_one_after_the_other(tmp_path, capsys):
    """(Those of README.md: test_bench.py.)"""
    snippets = re.findall(r"^```python\n(.*?)^```", text_of(DOCS / "python.md"), re.DOTALL | re.MULTILINE)
    (tmp_path / "page.py").write_text("\n".join(snippets), encoding="utf-8")
    names = runpy.run_path(str(tmp_path / "page.py"))
    assert names["images"].shape == (4, 1, 32, 32) and names["images"].abs().max() < 1.3
    assert names["outcome"].ending.value == "finished" and names["result"].fit_won and names["warnings"] == []
    assert "Budget: 2,500 sample-calls" in names["report"] and names["text"].startswith("fewstep1:")
    assert "5 model calls" in capsys.readouterr().out  # of the printed table
    assert names["latents"].shape == (2, 4, 128, 128)


@pytest.mark.parametrize("page", [DOCS / "faq.md", DOCS / "sharing.md"], ids=lambda page: page.name)
def test_commands_print_what_pages_say(page, capsys):
    for block in re.findall(r"(?:^    .+\n)+", text_of(page), re.MULTILINE):
        command, *answer = [line.strip() for line in block.splitlines()]
        if answer:
            assert command.startswith("fewstep ") and main(command.split()[1:]) in (None, 0)
            assert capsys.readouterr().out.split() == " ".join(answer).split()


CHANGED = """
import sys, types
import numpy as np, torch
package = types.ModuleType("changed")
package.__path__, package.__version__ = [sys.argv[1]], "0"
sys.modules["changed"] = package
from changed.schedules import NoiseSchedule, baseline_sigmas
from changed.solvers import build_table, sample
from changed.diffusers_host import sampled

def order(steps=64):
    errors = []
    for n in (steps, 2 * steps):  # data of deviation 1: x = sqrt(1 + sigma^2) times a constant
        table = build_table("ralston", np.geomspace(1.5, 0.4, n + 1))
        end = sample(lambda x, sigma: x / (1 + sigma.view(-1, 1) ** 2), torch.full((1, 1), (1 + 1.5**2) ** 0.5, dtype=torch.float64), table)
        errors.append(abs(float(end) - (1 + 0.4**2) ** 0.5))
    return np.log2(errors[0] / errors[1])

for name in ("sd15", "zsnr", "svd"):
    for steps in (1, 2, 5, 50):
        sigmas = baseline_sigmas("laplace", NoiseSchedule.preset(name), steps)
        assert len(sigmas) == steps + 1 and sigmas[-1] == 0 and bool((sigmas.diff() < 0).all())
calls = []
def predict(x, t):
    calls.append(float(t[0]))
    sigma = NoiseSchedule.preset("sd15").sigma_of_t(t).to(x).view(-1, 1, 1, 1)
    return x * sigma / (1 + sigma**2).sqrt()
alphas = 1 / (1 + NoiseSchedule.preset("sd15").levels ** 2)
scheduler = types.SimpleNamespace(alphas_cumprod=alphas, config=types.SimpleNamespace(prediction_type="epsilon"))
end = sampled(predict, scheduler, torch.randn(2, 4, 32, 32, generator=torch.Generator().manual_seed(0)), 5)
print(order(), len(calls), float(end.std()), len(build_table("ralston", [2.0, 1.0, 0.0]).rows))
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="git, which applies the diffs, is not installed")
def test_the_diffs_of_contributing_apply_and_work(tmp_path, run_python):
    diffs = re.findall(r"^```diff\n(.*?)^```", text_of(ROOT / "CONTRIBUTING.md"), re.DOTALL | re.MULTILINE)
    assert len(diffs) == 3
    for folder in ("schedules", "solvers"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in {"tensor_files.py", *re.findall(r"^--- a/(tests/\S+)", "".join(diffs), re.MULTILINE)}:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    for diff in diffs:
        done = subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=diff, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    done = run_python("-c", CHANGED, tmp_path)
    assert done.returncode == 0, done.stderr
    order, calls, spread, rows = map(float, done.stdout.split())
    assert 1.9 < order < 2.1 and calls == 5 and 0.8 < spread < 1.2 and rows == 3
