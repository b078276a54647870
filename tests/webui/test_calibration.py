"""What the Calibrate button runs, on a model with a known answer, and what it says while it runs."""

from __future__ import annotations

import html
import importlib
import sys
import tempfile
import threading
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch

from fewstep.fitting import Budget, Setting
from fewstep.jobs.calibrate import BY_TIME, recipe_from
from fewstep.recipes import Book, Recipe
from fewstep.schedules import NoiseSchedule, baseline_sigmas
from fewstep.solvers import build_table
from fewstep.webui.calibration import Course, Picture, fit, plan_of, run
from fewstep.webui.choices import Choices
from fewstep.webui.known import known_recipes
from fewstep.webui.names import CALIBRATED
from fewstep.webui.plot import sigma_plot
from fewstep.webui.samplers import sampler_function

from ..disks import disk

NS = NoiseSchedule.edm(0.02, 40.0)


PICTURE = Picture("", "", 64, 64, 2.0)


def plan(calls="4", effort="low", seeds=9, batch=4):
    return plan_of(calls, effort, seeds, batch)


def setting(model, of):
    return Setting(model, NS, (1, 4, 4), tuple(of.seeds), batch=of.batch)


def denoised(x, sigma):
    """Two points at -1 and 1 in every pixel."""
    return torch.tanh(x / sigma.view(-1, 1, 1, 1) ** 2)


def test_a_fit_ends_in_a_recipe():
    batches = []

    def model(x, sigma):
        batches.append(len(x))
        return denoised(x, sigma)

    course, wanted = Course(), plan()
    fit(setting(model, wanted), wanted, course)
    outcome = course.outcome
    assert outcome.finished and len(outcome.done) == 1 and 0.5 < course.share <= 1
    assert max(batches) <= 4 and course.lines[0].startswith("4 calls: comparing on held-out seeds: model call ")
    assert course.lines[-1].startswith("Expected cost: at most")
    recipe = recipe_from(outcome.done[4], wanted, {"model": "two points", "cfg": 2.0})
    assert recipe.nfe == 4 and recipe.facts.cfg == 2.0 and recipe.facts.seeds == 6 and recipe.facts.model == "two points"
    assert Recipe.from_text(recipe.to_text()) == recipe


def test_interrupting_keeps_what_is_finished():
    course, wanted = Course(), plan("3, 5")
    fit(setting(denoised, wanted), wanted, course, stopped=lambda: bool(course.outcome.done))
    assert course.outcome.interrupted and [nfe for nfe, result in course.outcome.done.items() if result.comparison] == [3]
    nothing = Course()
    fit(setting(denoised, wanted), wanted, nothing, stopped=lambda: True)
    assert nothing.outcome.interrupted and not nothing.outcome.done


class HostPicture:
    """The host's processing object: an attribute for every argument."""

    def __init__(self, **given):
        self.__dict__.update(given, scripts=None, closed=False)

    def close(self):
        self.closed = True


class Guided(torch.nn.Module):
    """What the host gives to its samplers."""

    noise_schedule = NS

    def __init__(self, picture):
        super().__init__()
        self.p, self.step = picture, 0
        self.model = SimpleNamespace(diffusion_model=torch.nn.Conv2d(1, 1, 1))

    def forward(self, x, sigma, cond=None):
        assert len(x) == self.p.batch_size and cond == "of the host"
        return denoised(x, sigma)


@pytest.fixture
def host(monkeypatch, tmp_path):
    """As much of a host as makes pictures; `pictures` are those that it made."""
    pictures = []

    def process_images(p):
        pictures.append(p)
        assert p.scripts.alwayson_scripts == [], "reForge looks for one of its own, so there must be a list"
        sampler_function(CALIBRATED)(Guided(p), torch.zeros(p.batch_size, 1, 4, 4), torch.tensor([1.0, 0.5, 0.0]), {"cond": "of the host"})

    state = SimpleNamespace(interrupted=False, skipped=False, begin=lambda job: None, end=lambda: None)
    loaded = SimpleNamespace(sd_checkpoint_info=SimpleNamespace(name_for_extra="two points"), parameterization="eps")
    content = {
        "processing": {"StableDiffusionProcessingTxt2Img": HostPicture, "process_images": process_images},
        "scripts": {"ScriptRunner": lambda: SimpleNamespace(alwayson_scripts=[])},
        "sd_samplers_common": {"InterruptedException": type("InterruptedException", (BaseException,), {})},
        "shared": {"state": state, "sd_model": loaded},
        "paths": {"models_path": str(tmp_path)},
        "call_queue": {"queue_lock": threading.Lock()},
    }
    package = ModuleType("modules")
    monkeypatch.setitem(sys.modules, "modules", package)
    for name, parts in content.items():
        module = ModuleType(f"modules.{name}")
        module.__dict__.update(parts)
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
        setattr(package, name, module)
    return SimpleNamespace(pictures=pictures, state=state, folder=tmp_path / "fewstep/recipes", loaded=loaded)


def test_a_picture_of_the_host_carries_it(host):
    course = Course()
    course.outcome.began -= 1000  # it has waited for the queue
    run(PICTURE, plan("3"), course)
    assert 0 < course.outcome.seconds < 500
    [(recipe, path)] = course.saved
    assert path.parent == host.folder and Recipe.load(path) == recipe
    assert recipe.nfe == 3 and recipe.facts.model == "two points" and recipe.facts.resolution == (1, 4, 4) and recipe.facts.cfg == 2.0
    [picture] = host.pictures
    assert picture.closed and picture.do_not_save_samples and (picture.width, picture.height, picture.cfg_scale) == (64, 64, 2.0)
    assert course.calls > 100 and host.state.sampling_step <= host.state.sampling_steps


def test_saved_recipes_of_other_checkpoints_join_the_race_of_a_budget(host):
    ours = Recipe.from_table(build_table("unipc", baseline_sigmas("karras", NS, 3), NS.family), cfg=2.0, model="another")
    for name, recipe in {
        "other": ours,
        "own": Recipe.from_table(ours.table(), cfg=2.0, model="two points"),
        "far": Recipe.from_table(ours.table(), cfg=7.0, model="another"),
        "flow": Recipe.from_table(build_table("unipc", [1, 0.5, 0.2, 0], "flow"), cfg=2.0, model="another"),
    }.items():
        recipe.save(host.folder / f"{name}.json")
    (host.folder / "damaged.json").write_text("{", encoding="utf-8")
    assert known_recipes(NS.family, {"cfg": 2.0, "model": "two points"}) == [ours]
    course = Course()
    run(PICTURE, replace(plan_of("3", BY_TIME, 0, 4), budget=Budget(2500)), course)
    pool = course.outcome.within.races[3]
    names = [score.candidate.name for score in pool.finalists] + list(pool.screened_out)
    assert [name for name in names if "another" in name] == ["recipe 1, for another"]


def test_interrupting_the_host_interrupts_it(host):
    host.state.interrupted = True
    course = Course()
    run(PICTURE, plan("3"), course)
    assert course.outcome.interrupted and not course.saved and host.pictures[0].closed


@pytest.fixture
def actions(host, monkeypatch):
    """What the panel's buttons do, in that host."""
    gradio = ModuleType("gradio")
    gradio.update = lambda **changed: changed
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.delitem(sys.modules, "fewstep.webui.panel_actions", raising=False)
    yield importlib.import_module("fewstep.webui.panel_actions")
    del sys.modules["fewstep.webui.panel_actions"]


PAGE = {"prompt": "", "neg_prompt": "", "width": 64, "height": 64, "cfg_scale": 2.0}


def test_the_button_tells_how_far_it_is_and_fills_the_panel(actions, host):
    news = list(actions.calibrate("3", "low", 9, 4, 10, PAGE))
    assert all("<progress" in report and (text, saved) == ({}, {}) for report, text, saved in news[:-1])
    report, text, saved = news[-1]
    assert "<progress" not in report and "Recipe for 3 model calls, saved as" in report
    [path] = host.folder.iterdir()
    assert Recipe.from_text(text) == Recipe.load(path) and saved == {"choices": ["", path.stem], "value": path.stem}
    assert "choose the sampling method FewStep Calibrated" in report and "<table>" in report and "**" not in report


def test_interrupting_what_waits_leaves_the_picture_in_work_alone(actions, host):
    lock = actions.queue_lock
    lock.acquire()
    course = actions.calibrate("3", "low", 9, 4, 10, PAGE)
    assert "Waiting for the queue" in next(course)[0]
    actions.interrupt()
    lock.release()
    assert "Interrupted" in list(course)[-1][0]
    assert host.pictures == [] and not host.state.interrupted


def test_a_failure_of_the_host_is_told_in_the_panel(actions, host, monkeypatch):
    def fails(p):
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(sys.modules["modules.processing"], "process_images", fails)
    assert list(actions.calibrate("3", "low", 9, 4, 10, PAGE))[-1] == ("<p><b>out of &lt;memory&gt;</b></p>", {}, {})
    assert list(actions.calibrate("three", "low", 9, 4, 10, PAGE))[-1][0].startswith("<p><b>nfe was")


@pytest.mark.parametrize(
    "changed", [{"calls": ""}, {"calls": "0"}, {"calls": "99"}, {"calls": "five"}, {"effort": "more"}, {"seeds": 1}, {"batch": 0}]
)
def test_plans_that_cannot_be(changed):
    with pytest.raises(ValueError, match=r"possible|must"):
        plan(**changed)


def test_the_plot_has_a_mark_a_level_and_the_numbers():
    plot = sigma_plot([14.6, 3.0, 0.5, 0.0], "UPC <3>")
    assert plot.count("<circle") == 4 and "14.6, 3, 0.5, 0" in plot and "UPC &lt;3&gt;" in plot
    assert "no levels" in sigma_plot([0.0], "x")


def test_a_recipe_that_no_disk_takes_is_shown(actions, host):
    """The result of minutes to hours is not lost, and neither is the next one."""
    with disk() as fill:
        real = sys.modules["modules.processing"].process_images

        def process_images(p):
            real(p)
            fill()

        sys.modules["modules.processing"].process_images = process_images
        report, text, _ = list(actions.calibrate("3, 2", "low", 9, 4, 10, PAGE))[-1]
    recipe = Recipe.from_text(text)
    assert recipe.nfe == 2 and html.escape(text) in report
    assert "Recipe for 3 model calls, not saved" in report and report.count("Free space or choose another folder") == 2
    assert list(host.folder.glob("*")) == []


def test_a_recipe_is_saved_elsewhere_if_the_folder_cannot_be_written(actions, host, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    host.folder.parent.write_bytes(b"")
    report, text, _ = list(actions.calibrate("3", "low", 9, 4, 10, PAGE))[-1]
    [path] = tmp_path.glob("fewstep-*/*.json")
    assert Recipe.load(path) == Recipe.from_text(text) and html.escape(str(path.parent)) in report and "move it" in report


def test_minutes_are_a_budget_and_batches_are_not_larger_than_a_fit_takes():
    found = plan_of("4, 5", "minutes", 0, 24, 0.5)
    assert found.budget is not None and found.budget.seconds == 30 and found.batch == 8 and found.nfes == [4, 5]
    assert len(found.seeds) > 300
    with pytest.raises(ValueError, match="minutes were 0"):
        plan_of("4", "minutes", 9, 4, 0)


def test_minutes_in_the_panel(actions, host):
    report, text, _ = list(actions.calibrate("3", "minutes", 0, 4, 0.15, PAGE))[-1]
    assert Recipe.from_text(text).nfe == 3
    assert "Budget: 9 s, here " in report and "Layout: " in report and "Spent: " in report


def test_several_recipes_make_a_book_that_is_picked_from_by_steps(actions, host, monkeypatch):
    books = importlib.import_module("fewstep.webui.books")
    report, _, listed = list(actions.calibrate("3, 2", "low", 9, 4, 10, PAGE))[-1]
    assert "The recipe book two points book has recipes for 2, 3 model calls." in report and "two points book" in listed["choices"]
    book = Book.load(host.folder / "two points book.json")
    assert book.calls == (2, 3) and book.model_identity
    assert actions.recipe_text("two points book", "") == ("book two points book", "two points book")
    monkeypatch.setattr(books, "_identity", lambda p: book.model_identity)
    for asked in ("book", "book two points book"):
        for steps in (2, 3):
            picture = SimpleNamespace(steps=steps, cfg_scale=2.0)
            assert Recipe.from_text(books.with_book(Choices(recipe=asked), picture).recipe) == book.pick(steps)
    with pytest.raises(ValueError, match="no recipe for 5 model calls; it has recipes for 2, 3"):
        books.with_book(Choices(recipe="book"), SimpleNamespace(steps=5, cfg_scale=2.0))
    with pytest.raises(ValueError, match="no recipe book 'other'"):
        books.with_book(Choices(recipe="book other"), SimpleNamespace(steps=3, cfg_scale=2.0))
    monkeypatch.setattr(books, "_identity", lambda p: "another")
    with pytest.raises(ValueError, match="no recipe book for the loaded checkpoint"):
        books.with_book(Choices(recipe="book"), SimpleNamespace(steps=3, cfg_scale=2.0))
    text = book.pick(3).to_text()
    assert books.with_book(Choices(recipe=text), SimpleNamespace(steps=9, cfg_scale=2.0)).recipe == text


# --- The page's Distilled CFG Scale, which is the model's shift on Forge Neo -----------------------------------------------------------


class ForgePicture(HostPicture):
    distilled_cfg_scale: float = 3.5


def test_the_guidance_of_a_distilled_model_is_the_page_s(actions, host, monkeypatch):
    host.loaded.use_distilled_cfg_scale = True
    monkeypatch.setattr(sys.modules["modules.processing"], "StableDiffusionProcessingTxt2Img", ForgePicture)
    _, text, _ = list(actions.calibrate("3", "low", 9, 4, 10, PAGE | {"distilled_cfg_scale": 2.5}))[-1]
    assert host.pictures[0].distilled_cfg_scale == 2.5
    assert Recipe.from_text(text).facts.extra == {"distilled_cfg_scale": 2.5}


def test_a_host_without_that_slider_is_not_told_of_it(actions, host):
    _, text, _ = list(actions.calibrate("3", "low", 9, 4, 10, PAGE))[-1]
    assert not hasattr(host.pictures[0], "distilled_cfg_scale") and Recipe.from_text(text).facts.extra == {}


def test_the_shift_is_a_fact_of_the_recipe(actions, host, monkeypatch):
    """On Forge Neo the host sets the shift on the way to the sampler."""
    monkeypatch.setattr(sys.modules["modules.processing"], "StableDiffusionProcessingTxt2Img", ForgePicture)
    monkeypatch.setattr(Guided, "noise_schedule", property(lambda guided: NoiseSchedule.flow(guided.p.distilled_cfg_scale)))
    _, text, _ = list(actions.calibrate("2", "low", 9, 4, 10, PAGE | {"distilled_cfg_scale": 6.0}))[-1]
    recipe = Recipe.from_text(text)
    assert recipe.family == "flow" and recipe.facts.extra == {"shift": 6.0}


def test_a_broken_saved_recipe_is_named_and_not_chosen(actions, host):
    warned = []
    sys.modules["gradio"].Warning = warned.append
    host.folder.mkdir(parents=True)
    (host.folder / "torn.json").write_text("{")
    assert actions.recipe_text("torn", "what was there") == ("what was there", "")
    assert "'torn' cannot be used" in warned[0]
    assert actions.recipe_text("", "what was there") == ("what was there", "") and len(warned) == 1


# --- Show sigmas ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def shown(actions, host, monkeypatch):
    """Return a function: the levels that the panel shows for the page's controls and a recipe."""
    from fewstep.webui.names import schedule_entry
    from fewstep.webui.schedules import schedule_function

    class Loaded:
        shift = 2.5

        def set_shift(self, shift):
            self.shift = shift

    class Sampler:
        def get_sigmas(self, p, steps):
            assert (p.width, p.height, p.sd_model) == (64, 64, loaded)
            ns = NoiseSchedule.flow(loaded.shift)
            holder = SimpleNamespace(noise_schedule=ns)
            name = "FewStep recipe" if p.scheduler == "Automatic" else p.scheduler
            return schedule_function(schedule_entry(name))(n=steps, sigma_min=ns.sigma_min, sigma_max=ns.sigma_max, inner_model=holder)

    loaded = Loaded()
    shared = sys.modules["modules.shared"]
    shared.sd_model, shared.opts = loaded, SimpleNamespace(always_discard_next_to_last_sigma=False)
    samplers, common, models = ModuleType("modules.sd_samplers"), sys.modules["modules.sd_samplers_common"], ModuleType("modules.sd_models")
    samplers.create_sampler = lambda name, model: Sampler()
    samplers.find_sampler_config = lambda name: None
    for name, module in (("sd_samplers", samplers), ("sd_models", models), ("sd_schedulers", ModuleType("modules.sd_schedulers"))):
        monkeypatch.setitem(sys.modules, f"modules.{name}", module)
        monkeypatch.setattr(sys.modules["modules"], name, module, raising=False)
    assert common
    monkeypatch.setattr("fewstep.webui.panel_actions.from_settings", lambda choices: choices)

    def levels(recipe="", **controls):
        page = actions.show_sigmas("Auto", "Auto", True, False, recipe, "None", {"width": 64, "height": 64, **controls})
        found = page.partition('class="fewstep-sigmas"')[2].partition(">")[2].partition("<")[0]
        assert found, page
        return [float(level) for level in found.split(", ")]

    return levels


def test_the_levels_shown_follow_the_page_s_shift(shown):
    for shift in (2.5, 6.0):
        got = shown(sampling="Euler", scheduler="FewStep uniform time", steps=4, distilled_cfg_scale=shift)
        t = [1.0, 0.75025, 0.5005, 0.25075]
        assert got == pytest.approx([*(shift * each / (1 + (shift - 1) * each) for each in t), 0.0], rel=1e-3)


@pytest.mark.parametrize("sampling, scheduler", [("FewStep Calibrated", "Automatic"), ("Euler", "FewStep recipe")])
def test_a_recipe_is_shown_with_its_own_number_of_steps(shown, sampling, scheduler):
    from fewstep.solvers import build_table

    recipe = Recipe.from_table(build_table("euler", [1.0, 0.9, 0.6, 0.25, 0.0], "flow"))
    assert shown(recipe.to_text(), sampling=sampling, scheduler=scheduler, steps=5) == pytest.approx(recipe.levels)


def test_a_book_is_shown_with_its_recipe_for_the_steps(shown, host, monkeypatch):
    from fewstep.recipes import Book
    from fewstep.solvers import build_table

    levels = {3: [1.0, 0.8, 0.3, 0.0], 4: [1.0, 0.9, 0.6, 0.25, 0.0]}
    made = tuple(Recipe.from_table(build_table("euler", each, "flow"), model_identity="a" * 64) for each in levels.values())
    host.folder.mkdir(parents=True)
    Book(made).save(host.folder / "shelf.json")
    monkeypatch.setattr("fewstep.webui.books._identity", lambda p: made[0].facts.model_identity)
    for text in ("book", "book shelf"):
        for steps, expected in levels.items():
            for sampling, scheduler in (("FewStep Calibrated", "Automatic"), ("Euler", "FewStep recipe")):
                assert shown(text, sampling=sampling, scheduler=scheduler, steps=steps, cfg_scale=2.0) == pytest.approx(expected)
    with pytest.raises(AssertionError, match="no recipe for 5 model calls; it has recipes for 3, 4"):
        shown("book", sampling="FewStep Calibrated", scheduler="Automatic", steps=5)


def test_reports_become_html():
    from fewstep.webui.report_html import report_html

    text = "The fit wins by **17 %** <on> new seeds\nand 2 lines\n\n| name | error |\n|---|---:|\n| **ours** | 0.1 |\n| a<b | 0.2 |\n\nEnd"
    page = report_html(text)
    assert "<p>The fit wins by <b>17 %</b> &lt;on&gt; new seeds<br>and 2 lines</p><table>" in page and page.endswith("<p>End</p>")
    assert page.count("<tr>") == 3 and "<b>ours</b>" in page and "a&lt;b" in page and "---" not in page
    assert report_html("") == ""
