"""`fewstep bench`: what it measures, that nothing is measured twice, what its figures say, and the pages made from them."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fewstep.cli import main
from fewstep.demo import bench_measurement, bench_settings, load_demo_model
from fewstep.demo.bench import PICTURES, Plan, measure, part_name
from fewstep.demo.bench_judged import judged_lines
from fewstep.demo.bench_measurement import Measurement, in_sets, summary
from fewstep.demo.bench_problems import NOT_SHIPPED, SHIPPED, noise_schedule_of, problem, title_of
from fewstep.demo.bench_report import (
    as_markdown,
    cache_rows,
    caches_in_a_sentence,
    curve,
    headline_rows,
    headlines,
    long_tables,
    lost_rankings,
    matching_calls,
    relative_curve,
    scenes,
    times_the_passes,
)
from fewstep.demo.bench_results import Results, as_text, commit_of
from fewstep.demo.bench_settings import AMED, BEST_STOCK, CALIBRATED, FEWSTEP, TUNED, USUAL, compared, fitting_recipe, ours, stock, usual
from fewstep.demo.bench_tuned import tuned
from fewstep.fitting.tuning import LoraAdapters, save_lora
from fewstep.recipes import Recipe, model_identity

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def quick():
    """Results of a small run: the two trained models at guidance 1, and Fashion at the guidance of the shipped recipes.

    All of stock runs on a single seed, which is most of what it costs.
    """
    results = Results(None, {"command": "a test"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bench_measurement, "SCREENED_ON", 1)
        measure(Plan(("edm",), (5,), (1.0, 2.0), 4), results)
        measure(Plan(("emoji",), (5,), (1.0,), 4), results)
    return results


@pytest.fixture(scope="module")
def committed():
    return json.loads((ROOT / "docs" / "bench.json").read_text(encoding="utf-8"))


# --- What is measured -------------------------------------------------------------------------------------------------


def test_the_rankings_hold(quick):
    assert lost_rankings(quick.document) == []
    assert curve(quick.document, "edm", 2.0, CALIBRATED)[5] < curve(quick.document, "edm", 2.0, BEST_STOCK)[5]
    assert AMED in str(quick.document) and part_name("edm", 1.0, 5, CALIBRATED) not in quick.document["results"]


def test_a_lost_ranking_would_be_seen(quick):
    document = json.loads(as_text(quick.document))
    document["results"][part_name("edm", 2.0, 5, FEWSTEP)]["rmse"] = 1.0
    lost = lost_rankings(document)
    assert len(lost) == 2 and all(f"edm at guidance 2, 5 calls: {FEWSTEP} (1) is not ahead of" in sentence for sentence in lost)


def test_the_oracle_is_the_best_of_all(quick):
    for name, cfg in (("edm", 1.0), ("edm", 2.0), ("emoji", 1.0)):
        best = curve(quick.document, name, cfg, BEST_STOCK)[5]
        assert all(best <= curve(quick.document, name, cfg, method).get(5, math.inf) * (1 + 1e-3) for method in bench_settings.USUAL)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_setting_makes_the_calls_it_is_listed_under(name):
    on = problem(name, 1, 2.0)
    for calls in (3, 5, 8):
        tables = usual(on, calls) | ours(on, calls, 2.0)
        assert {*compared(on.noise_schedule)[:2], FEWSTEP} <= tables.keys()
        assert {name: table.nfe for name, table in tables.items()} == dict.fromkeys(tables, calls)
        assert {table.nfe for table in stock(on, calls).values()} == {calls}
        assert ("Euler, OptimalSteps" in tables) == (on.noise_schedule.family == "flow")


def test_a_seed_is_the_same_whatever_their_number():
    few, many = problem("mixture-flow", 2, 1.0), problem("mixture-flow", 30, 1.0)  # 30 seeds take two batches
    assert torch.equal(few.noise, many.noise[:2]) and torch.equal(few.labels, many.labels[:2])
    table = ours(few, 3, 1.0)[FEWSTEP]
    torch.testing.assert_close(Measurement(few, 1.0).ends(table, 2), Measurement(many, 1.0).ends(table, 30)[:2])


def test_the_first_call_is_made_once_for_all_tables():
    """Tables that begin alike share it, and end where they would without."""
    on = problem("mixture-flow", 2, 1.0)
    made = []

    def counted(x, sigma, labels):
        made.append(float(sigma[0]))
        return on.denoiser(x, sigma, labels)

    measurement = Measurement(replace(on, denoiser=counted), 1.0)
    tables = list(usual(on, 3).values())
    together = [measurement.ends(table, 2) for table in tables]
    alone = [Measurement(on, 1.0).ends(table, 2) for table in tables]
    assert made.count(1.0) == 1 and len(made) == 1 + 2 * len(tables)
    assert all(torch.equal(one, other) for one, other in zip(together, alone, strict=True))


def test_nothing_is_measured_twice_and_what_changed_is(tmp_path):
    plan, file = Plan(("mixture-flow",), (3, 4), (1.0,), 2, keep=tmp_path / "kept"), tmp_path / "bench.json"
    first = Results(file, {"command": "first"})
    measure(plan, first)
    assert first.measured == 2 * 7 and [run["command"] for run in first.document["runs"]] == ["first"]
    second = Results(file, {"command": "second"})
    measure(plan, second)
    assert second.measured == 0 and second.document == first.document
    del second.document["results"][part_name("mixture-flow", 1.0, 4, FEWSTEP)]  # as if interrupted before it
    second.save()
    third = Results(file, {"command": "third"})
    measure(plan, third)
    assert third.measured == 1 and third.document["results"] == first.document["results"]
    fourth = Results(file, {"command": "fourth"})
    measure(replace(plan, calls=(3,), seeds=3), fourth)
    name = part_name("mixture-flow", 1.0, 3, FEWSTEP)
    assert fourth.measured == 7 and fourth.document["results"][name]["seeds"] == 3
    fifth = Results(file, {"command": "fewer seeds: what is there is better"})
    measure(replace(plan, calls=(3,), seeds=2), fifth)
    assert fifth.measured == 0 and fifth.document["results"][name]["seeds"] == 3
    kept = Results(None, {"command": "from what was kept"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Measurement, "ends", lambda *_: pytest.fail("this was measured before"))
        measure(replace(plan, calls=(3,), seeds=3), kept)
    assert kept.document["results"][name] == fourth.document["results"][name]


def test_what_is_said_of_the_seeds():
    squares = torch.arange(100, dtype=torch.float64)
    assert [len(part) for part in in_sets(squares)] == [25] * 4 and torch.equal(torch.cat(in_sets(squares)), squares)
    assert [len(part) for part in in_sets(squares[:60])] == [25, 25] and [len(part) for part in in_sets(squares[:3])] == [1, 1, 1]
    yes, no = True, False
    features = torch.eye(4, 3)
    teacher = {"ends": torch.zeros(4, 1), "features": features, "recognised": torch.tensor([yes, yes, yes, no])}
    found = summary({"squares": squares[1:5], "features": features + 2.0, "recognised": torch.tensor([yes] * 4)}, teacher)
    assert found["rmse"] == pytest.approx(2.5**0.5, rel=1e-4) and found["median"] == pytest.approx(2**0.5, rel=1e-4)
    assert found["seeds"] == 4 and found["sets"] == [1.0, 1.4142, 1.7321, 2.0]
    assert (found["judged"], found["teacher judged"]) == (1.0, 0.75)
    assert found["frechet"] == pytest.approx(12, abs=1e-4)  # of equal covariances, the squared distance of the means


def test_recipes_of_a_folder_are_used_where_they_fit(tmp_path):
    recipe = (ROOT / "demo" / "recipes" / "edm-5.json").read_text(encoding="utf-8")
    (tmp_path / "edm-5.json").write_text(recipe, encoding="utf-8")
    assert CALIBRATED in ours(problem("edm", 1, 2.0), 5, 2.0, [tmp_path])
    assert CALIBRATED not in ours(problem("edm", 1, 1.0), 5, 1.0, [tmp_path])  # fitted at 2
    assert CALIBRATED not in ours(problem("edm", 1, 2.0), 8, 2.0, [tmp_path])
    for_three = tmp_path / "three"
    shipped = Recipe.load(tmp_path / "edm-5.json")
    replace(shipped, facts=replace(shipped.facts, cfg=3.0)).save(for_three / "edm-5.json")
    for folders in ([tmp_path, for_three], [for_three, tmp_path]):
        assert [fitting_recipe("edm", 5, cfg, folders).facts.cfg for cfg in (2.0, 2.9)] == [2.0, 3.0]
    assert fitting_recipe("mixture-157", 5, 2.0, [tmp_path]) is None


def test_many_pictures_are_scored_for_the_few_settings_of_the_headlines(tmp_path):
    plan = Plan(("edm", "mixture-flow"), (3, 5), (1.0, 2.0), 2, keep=tmp_path, pictures=6)
    results = Results(None, {"command": "a test"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fewstep.demo.bench.stock", lambda on, calls: dict(list(stock(on, calls).items())[:9]))  # all would take long
        measure(replace(plan, problems=("edm",), calls=(5,), cfgs=(1.0,)), results)
        best = results.document["results"][part_name("edm", 1.0, 5, BEST_STOCK)]["setting"]
        measure(replace(plan, problems=("edm",), calls=(5,), cfgs=(1.0,)), results)  # nothing is missing
    found = results.document[PICTURES]
    assert {name.rpartition("/")[2] for name in found} == {"Euler, simple", "DPM++ 2M, Karras", BEST_STOCK, FEWSTEP}
    assert all(row["seeds"] == 6 and row["frechet"] > 0 and row["teacher judged"] > 0 for row in found.values())
    on = problem("edm", 6, 1.0)
    again = Measurement(on, 1.0).score(stock(on, 5)[best])
    assert found[part_name("edm", 1.0, 5, BEST_STOCK)]["frechet"] == pytest.approx(again["frechet"], rel=1e-3)
    lines = judged_lines(results.document)
    assert "| setting | guidance 1, 5 calls (6 pictures) |" in lines
    assert sum(line.startswith("| ") for line in lines) == 1 + 4 and not any(line.startswith("| UniPC") for line in lines)


def test_a_column_of_pictures_has_one_number_of_them():
    """The distance falls with the number of pictures: a result of fewer is not shown beside the others."""
    row = {"frechet": 0.1, "judged": 0.9, "teacher judged": 1.0, "seeds": 200}
    results = {part_name("edm", 1.0, 5, method): row for method in ("Euler, simple", FEWSTEP)}
    results[part_name("edm", 1.0, 5, TUNED)] = {**row, "seeds": 25}
    results[part_name("emoji", 3.0, 8, FEWSTEP)] = row
    pictures = {part_name("emoji", 3.0, 8, CALIBRATED): {**row, "frechet": 0.02, "judged": 1.0, "seeds": 2000}}
    lines = judged_lines({"runs": [], "results": results, PICTURES: pictures})
    assert lines[1:] == [
        "", "### Fashion, EDM", "", "| setting | guidance 1, 5 calls (200 pictures) |", "|---|---|",
        "| Euler, simple | 0.100, 90 % |", f"| {FEWSTEP} | 0.100, 90 % |",
        "", "### Emoji, flow from s = 1", "", "| setting | guidance 3, 8 calls (2,000 pictures) |", "|---|---|",
        f"| {CALIBRATED} | 0.020, 100 % |",
    ]  # fmt: skip


def test_a_tuned_model_is_measured_against_the_teacher_of_the_model_itself(tmp_path):
    """A LoRA without effect scores as its recipe does alone; one with an effect does not; and it is used only where it belongs."""
    model, recipe = load_demo_model("edm"), Recipe.load(ROOT / "demo" / "recipes" / "edm-5.json")
    adapters = LoraAdapters(model.trained, 2, 2.0, "attention")
    facts = {"recipe": recipe.to_text(), "model_identity": model_identity(model.network)}
    nothing, something, of_another = (tmp_path / f"{name}.safetensors" for name in ("nothing", "something", "of_another"))
    save_lora(nothing, adapters, **facts)
    with torch.no_grad():
        for up in adapters.up:
            up += 0.05
    save_lora(something, adapters, **facts)
    save_lora(of_another, adapters, **{**facts, "model_identity": "0" * 16})
    on = problem("edm", 3, 2.0)
    plain = Measurement(on, 2.0, tmp_path / "kept")
    alone = plain.score(recipe.table())
    results = Results(None, {"command": "a test"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("fewstep.demo.bench.stock", lambda on, calls: {FEWSTEP: ours(on, calls, 2.0)[FEWSTEP]})
        for lora in (of_another, nothing, something):
            measure(Plan(("edm",), (5,), (2.0,), 3, keep=tmp_path / "kept", tuned=(lora,)), results)
            found = results.document["results"].get(part_name("edm", 2.0, 5, TUNED))
            if lora is of_another:
                assert found is None
            else:
                assert found["teacher judged"] == alone["teacher judged"]
                assert (found["rmse"] == pytest.approx(alone["rmse"], rel=1e-3)) == (lora is nothing)
    assert tuned(on, nothing, 6, 2.0) is None and tuned(problem("edm", 1, 1.0), nothing, 5, 1.0) is None
    assert tuned(problem("mixture-flow", 1, 2.0), nothing, 5, 2.0) is None
    save_lora(nothing, adapters)
    with pytest.raises(ValueError, match="has no recipe in it; give a LoRA that fewstep tune made"):
        tuned(on, nothing, 5, 2.0)


def test_a_network_that_does_not_ship_is_not_measured_unless_it_is_named(monkeypatch):
    monkeypatch.delenv("FEWSTEP_FASHION_157", raising=False)
    (name,) = NOT_SHIPPED
    assert name not in Plan().problems and title_of(name).endswith("(not shipped)")
    assert noise_schedule_of(name).sigma_max == pytest.approx(157.4, abs=0.1)
    with pytest.raises(FileNotFoundError, match=r"FEWSTEP_FASHION_157 names no file\. The weights do not ship: make them with"):
        measure(Plan((name,), (5,), (1.0,), 2), Results(None, {}))


def test_what_cannot_be_used():
    with pytest.raises(ValueError, match="The problem was 'mnist'; it must be one of edm, vp"):
        Plan(("mnist",))
    with pytest.raises(ValueError, match="seeds was 1; at least 2"):
        Plan(seeds=1)
    with pytest.raises(ValueError, match="calls contained 1"):
        Plan(calls=(1, 5))


def test_the_commit_of_a_checkout(tmp_path):
    assert commit_of(tmp_path) == ""
    git = tmp_path / "repository" / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    (git / "packed-refs").write_text("# pack-refs\nabc123 refs/heads/main\n", encoding="utf-8")
    assert commit_of(git.parent) == "abc123"
    (git / "refs" / "heads" / "main").write_text("def456\n", encoding="utf-8")
    assert commit_of(git.parent) == "def456"
    linked = git / "worktrees" / "other"
    linked.mkdir(parents=True)
    (linked / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
    (linked / "commondir").write_text("../..\n", encoding="utf-8")
    other = tmp_path / "other"
    other.mkdir()
    (other / ".git").write_text(f"gitdir: {linked}\n", encoding="utf-8")
    assert commit_of(other) == "def456"


# --- What the figures say ---------------------------------------------------------------------------------------------


def test_matching_calls():
    errors = {4: 0.2, 8: 0.05, 16: 0.05}
    assert matching_calls(errors, 0.1) == pytest.approx(4 * math.sqrt(2))  # a straight line in logarithms
    assert matching_calls(errors, 0.05) == 8
    assert matching_calls(errors, 0.3) == 4
    assert matching_calls(errors, 0.01) == math.inf
    assert matching_calls({5: 0.2, 6: 0.3, 8: 0.1}, 0.15) == pytest.approx(6 * (8 / 6) ** (math.log(2) / math.log(3)))


def result(*errors):
    return {"rmse": math.sqrt(sum(error**2 for error in errors) / len(errors)), "sets": list(errors), "seeds": 25 * len(errors)}


def test_headlines_have_all_seeds_and_each_set():
    results = {part_name("edm", 1.0, calls, "Euler, simple"): result(0.8 / calls, 0.8 / calls) for calls in (4, 5, 8)}
    results[part_name("edm", 1.0, 5, FEWSTEP)] = result(0.8 / 6, 0.05)
    (row,) = headlines({"runs": [], "results": results}, (5,))
    assert row["setting"] == FEWSTEP and row["matched by"] == {"Euler, simple": ["7.9", "6.0", "> 8"]}
    assert "| 7.9 (6.0 to > 8) |" in headline_rows([row])[2] and "| 7.9 |" in headline_rows([row], spread=False)[2]


def test_results_of_different_numbers_of_seeds_are_compared_on_those_that_both_have():
    results = {part_name("edm", 1.0, 5, "Euler, simple"): result(0.2, 0.2), part_name("edm", 1.0, 8, "Euler, simple"): result(0.1)}
    own = result(0.15, 9.0)
    found = relative_curve({"runs": [], "results": results}, "edm", 1.0, "Euler, simple", own)
    assert found[5] == pytest.approx(0.2 / own["rmse"]) and found[8] == pytest.approx(0.1 / 0.15)
    assert relative_curve({"runs": [], "results": results}, "edm", 1.0, "Euler, simple", own, 1) == {5: pytest.approx(0.2 / 9)}


def test_caches_of_the_host_beside_the_passes_of_the_default():
    """Two passes per call with guidance: 0.1 is reached between 5 and 8 calls, at 10 to 16 passes."""
    own = {"edm/cfg 3": {"seeds": 25, "rmse": {str(calls): 0.8 / calls for calls in (5, 8, 10)}}}
    row = {**result(0.1), "median": 0.05, "passes": 24.0, "most": 40, "cache": "EasyCache"}
    document = {"runs": [], "results": {}, "host default": own, "host": {"edm/cfg 3/Euler, simple, 20 steps, EasyCache 0.2": row}}
    assert cache_rows(document)[2:] == [
        "| Fashion, EDM | 3 | Euler, simple, 20 steps, EasyCache 0.2 | 24.0 | 40 % | 0.1000 (0.0500) | 16.0 |"
    ]
    assert times_the_passes(document) == [pytest.approx(1.5)]
    document["host"]["edm/cfg 3/too close for ten calls"] = {**row, "rmse": 0.01}
    document["host"]["edm/cfg 3/saves next to nothing"] = {**row, "passes": 36.0}
    assert times_the_passes(document) == [pytest.approx(1.5), 0.0]
    assert "Of 2 settings whose cache saves 25 to 60 %, 1 take more forward passes" in caches_in_a_sentence(document)


# --- The command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_results_report_and_plot(capsys, tmp_path):
    out, report, plot = tmp_path / "b.json", tmp_path / "b.md", tmp_path / "b.png"
    options = ["--problems", "mixture-157", "--calls", "4", "5", "--cfg", "1", "--seeds", "2", "--out", str(out)]
    assert main(["bench", *options, "--report", str(report), "--plot", str(plot), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["measured"] == 2 * 9 and said["headlines"][0]["calls"] == 5
    document = json.loads(out.read_text(encoding="utf-8"))
    assert report.read_text(encoding="utf-8") == as_markdown(document)
    assert {"command", "commit", "date", "versions", "machine", "seeds", "teacher"} == document["runs"][0].keys()
    assert plot.read_bytes().startswith(b"\x89PNG")
    tables = tmp_path / "tables.md"
    assert main(["bench", *options, "--report", str(report), "--tables", str(tables)]) == 0
    short = report.read_text(encoding="utf-8")
    assert short == as_markdown(document, "tables.md") and "](tables.md)" in short and "| forward passes |" not in short
    assert tables.read_text(encoding="utf-8") == long_tables(document, "b.md") and "| forward passes | 4 | 5 |" in long_tables(document, "")
    assert main(["bench", *options, "--tables", str(tables)]) == 2
    assert "give both" in capsys.readouterr().err
    assert main(["bench", *options, "--recipes", str(tmp_path / "nowhere")]) == 2
    assert "give folders of recipes" in capsys.readouterr().err
    assert main(["bench", *options, "--tuned", str(tmp_path / "nowhere")]) == 2
    assert "give LoRA files" in capsys.readouterr().err
    report.write_text('{"something": 1}', encoding="utf-8")
    assert main(["bench", *options[:-1], str(report)]) == 2
    assert "holds no results of fewstep bench" in capsys.readouterr().err


# --- Pages ------------------------------------------------------------------------------------------------------------


def test_the_page_is_made_from_the_committed_results(committed):
    docs = ROOT / "docs"
    assert (docs / "bench.md").read_text(encoding="utf-8") == as_markdown(committed, "measurements/bench.md")
    assert (docs / "measurements" / "bench.md").read_text(encoding="utf-8") == long_tables(committed, "../bench.md")


def test_the_readme_has_the_committed_headlines():
    file = ROOT / "benchmarks" / "readme_table.py"
    spec = importlib.util.spec_from_file_location("readme_table", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.split(module.BEGIN)[1].split(module.END)[0] == f"\n{module.table()}\n"


def test_what_the_readme_says_about_the_figures(committed):
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = re.search(r"stock setting up to (\d+) calls without guidance. At guidance 3 this holds up to (\d+) calls", text)
    for cfg, most in zip((1.0, 3.0), map(int, said.groups()), strict=True):
        own, best = (curve(committed, "emoji", cfg, method) for method in (FEWSTEP, BEST_STOCK))
        assert own.keys() == best.keys() >= {5, 8} and all(own[calls] < best[calls] for calls in own if calls <= most)
        following = min(calls for calls in own if calls > most)
        assert own[following] > best[following]
    found = re.search(r"settings from (\d+) to (\d+) calls. Without guidance plain UniPC overtakes it there at (\d+) and (\d+) calls", text)
    low, high, *turns = map(int, found.groups())
    for name, cfg in scenes(committed):
        own, others = curve(committed, name, cfg, FEWSTEP), [curve(committed, name, cfg, method) for method in USUAL]
        if name == "edm":
            assert all(own[calls] < other[calls] for other in others for calls in other if low <= calls <= high)
    own = curve(committed, "edm", 1.0, FEWSTEP)
    behind = {method: {calls for calls, error in curve(committed, "edm", 1.0, method).items() if error < own[calls]} for method in USUAL}
    assert behind["UniPC, simple"] == set(turns)
    assert all(where <= set(turns) for where in behind.values())
    turn = int(re.search(r"\(up to sigma 157\), settings such as Align Your Steps win at guidance 3 from (\d+) calls on", text)[1])
    for name in ("mixture-157", "fashion157"):
        own, *others = (curve(committed, name, 3.0, method) for method in (FEWSTEP, *USUAL))
        assert {calls for other in others for calls in other if other[calls] < own[calls]} == {calls for calls in own if calls >= turn}
    found = re.search(r"Of (\d+) settings that save a quarter of the forward passes or more, (\d+) still need", text).groups()
    times = times_the_passes(committed)
    assert [int(number) for number in found] == [len(times), sum(each > 1 for each in times)]


def test_what_the_page_about_amed_says(committed):
    page = " ".join((ROOT / "docs" / "amed.md").read_text(encoding="utf-8").split())
    found = re.search(r"an iPNDM table has ([\d.]+) of the error of plain UniPC .*? has ([\d.]+) of the table's error", page).groups()
    errors = {part.rpartition("/")[2]: row["rmse"] for part, row in committed["amed"].items() if part.startswith("emoji/cfg 1/5 calls/")}
    plain, default = errors["UniPC 2 on optimized steps from s = 1"], errors["FewStep's default (UniPC 2 after a jump)"]
    ratios = (errors["iPNDM 3, AMED table"] / plain, default / errors["iPNDM 3, AMED table"])
    assert [float(number) for number in found] == pytest.approx(ratios, abs=0.0056)


def test_no_choice_of_the_default_has_a_much_worse_worst_case():
    """What docs/ablations.md says of its tables: a default that is bad somewhere would have to be replaced, or the page changed."""
    page = (ROOT / "docs" / "ablations.md").read_text(encoding="utf-8")
    most = float(re.search(r"the worst case of another option more than (\d+) % smaller than the default's", page)[1])
    shares = []
    for table in page.split("\n## ")[1:]:
        rows = [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")][1:]
        worst = {row[0]: float(row[-2]) for row in rows if all(row)}
        shares.append(100 * (1 - min(worst.values()) / worst["the default"]))
    assert len(shares) == 10 and max(shares) == pytest.approx(most, abs=1.5)  # entries have two digits
    assert most < 15
    solvers = [table for table in page.split("\n## ")[1:] if table.startswith(("Solver at high guidance", "Solver on wide ranges"))]
    assert "In both tables of solvers at the end, the default has the smallest mean." in page
    for table in solvers:  # 12 seeds: that of the mean is surer than a single column
        rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][1:]
        means = {row[1].strip(" *"): float(row[-4]) for row in rows}
        assert min(means.values()) == means["the default"]
    assert len(solvers) == 2


def test_the_python_of_the_readme_runs(tmp_path):
    """On the demo model, with nothing in the place of its `{...}`."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    model = load_demo_model("emoji")
    noise = model.initial_noise(2, 1)
    ends = []
    for block in blocks:
        script = tmp_path / "block.py"
        script.write_text(block.replace("{...}", "{}"), encoding="utf-8")
        ends.append(runpy.run_path(str(script), {"model": model, "noise": noise})["image"])
    assert len(ends) == 2 and all(end.shape == noise.shape and end.isfinite().all() and end.abs().max() < 3 for end in ends)
    assert "fewstep" in sys.modules and not torch.equal(*ends)
