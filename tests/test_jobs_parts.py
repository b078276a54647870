"""What jobs share: how far they are and how long it takes, words for it, and which files they keep."""

from __future__ import annotations

import math
import os
import pathlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewstep.fitting import Stage
from fewstep.jobs import Pace, TeacherPlan
from fewstep.jobs.pace import part_of
from fewstep.jobs.plan import Plan, keep_newest
from fewstep.jobs.train_amed import AmedPlan
from fewstep.jobs.words import cost_line, duration, label, notes, progress_lines, time_left

from .job_cases import CONFIG

COSTS = {("teacher", 0): 400.0, ("fit", 5): 300.0, ("guard", 5): 100.0, ("train", 2): 200.0}


class Clock:
    """Shows what it is set to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def stage_of(part: tuple[str, int], done: int, total: float) -> Stage:
    what, number = part
    return Stage(what, done, total, **({"round": number} if what in ("train", "table") else {"nfe": number}))


def job(calls_of=lambda part: 50) -> list[Stage]:
    """Every model call of a job with these costs."""
    return [stage_of(part, done, calls_of(part)) for part in COSTS for done in range(1, calls_of(part) + 1)]


# --- pace --------------------------------------------------------------------------------------------------------------------------------


def test_at_constant_speed_the_time_left_is_right():
    """A thousand sample-calls at 4 per second."""
    clock = Clock()
    pace = Pace(COSTS, 8, clock)
    assert pace.seconds_left is None and pace.share == 0
    for stage in job():
        clock.now += COSTS[part_of(stage)] / 50 / 4
        pace.reach(stage)
        passed = clock.now - 100
        assert pace.seconds_left == pytest.approx(250 - passed) and pace.share == pytest.approx(passed / 250)
    assert pace.share == 1 and pace.seconds_left == 0


def test_a_part_that_ends_early_shortens_the_rest():
    """The fit is over after a tenth of its calls: the rest is what the others cost, at the pace of what was done."""
    clock = Clock()
    pace = Pace(COSTS, 8, clock)
    pace.reach(stage_of(("teacher", 0), 1, 50))
    clock.now += 40  # 10 sample-calls per second
    pace.reach(stage_of(("teacher", 0), 50, 50))
    assert pace.seconds_left == pytest.approx(60) and pace.share == pytest.approx(0.4)
    clock.now += 3
    pace.reach(stage_of(("fit", 5), 5, 50))
    assert pace.seconds_left == pytest.approx(57)
    clock.now += 1
    pace.reach(stage_of(("guard", 5), 5, 50))
    assert pace.seconds_left == pytest.approx(9 + 20) and pace.share == pytest.approx(1 - 290 / 1000)


def test_a_part_that_was_found_on_disk_does_not_count_as_pace():
    """A stored teacher reports nothing; the fit's first calls say how long the fit and the rest take."""
    clock = Clock()
    pace = Pace(COSTS, 8, clock)
    clock.now += 6  # 5 sample-calls per second
    pace.reach(stage_of(("fit", 5), 5, 50))
    assert pace.seconds_left == pytest.approx((270 + 100 + 200) / 5) and pace.share == pytest.approx(0.43)


def test_what_is_resumed_does_not_count_as_pace():
    """Of the teacher's calls 4 of 5 were there, and half of the training: only the others took time."""
    clock = Clock()
    pace = Pace(COSTS, 8, clock)
    for done in range(41, 51):
        clock.now += 1  # 8 sample-calls per second
        pace.reach(stage_of(("teacher", 0), done, 50))
    assert pace.seconds_left == pytest.approx(600 / 8) and pace.share == pytest.approx(0.4)
    for part in (("fit", 5), ("guard", 5)):
        for done in range(1, 51):
            clock.now += COSTS[part] / 50 / 8
            pace.reach(stage_of(part, done, 50))
    for done in range(26, 51):
        clock.now += 4 / 8
        pace.reach(stage_of(("train", 2), done, 50))
        assert pace.seconds_left == pytest.approx((50 - done) * 4 / 8)
    assert pace.share == 1


def test_a_part_without_a_bound_comes_closer_to_its_end():
    """Where a total is unknown, a third of the expected calls is half the part."""
    clock = Clock()
    pace = Pace(COSTS, 10, clock)
    shares = []
    for done in range(1, 200):
        clock.now += 1
        pace.reach(stage_of(("fit", 5), done, math.inf))
        shares.append(pace.share)
    assert shares[9] == pytest.approx(1 - (150 + 300) / 1000)  # 300 / 10 calls expected, a third of them done
    assert shares == sorted(shares) and 0.65 < shares[-1] < 0.7
    assert pace.seconds_left > 0


def test_an_unknown_cost_leaves_the_time_open():
    clock = Clock()
    pace = Pace({("teacher", 0): 100.0, ("fit", 5): math.inf, ("guard", 5): 100.0}, 8, clock)
    clock.now += 10
    pace.reach(stage_of(("teacher", 0), 5, 10))
    assert pace.seconds_left is None and pace.share == 0
    pace.reach(stage_of(("fit", 5), 5, math.inf))
    assert pace.seconds_left is None and pace.share == 0
    pace.reach(Stage("something else", 5, 10))
    assert pace.share == 0


@given(st.lists(st.tuples(st.sampled_from([*COSTS, ("other", 0)]), st.integers(0, 60), st.sampled_from([0, 50, math.inf])), max_size=30))
def test_the_share_never_falls(reports):
    """Whatever is reported, in whatever order."""
    clock = Clock()
    pace, before = Pace(COSTS, 8, clock), 0.0
    for part, done, total in reports:
        clock.now += 1
        pace.reach(stage_of(part, done, total))
        assert before <= pace.share <= 1
        assert pace.seconds_left is None or 0 <= pace.seconds_left < math.inf
        before = pace.share


# --- words -------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds, words",
    [(0.0, "0 s"), (0.2, "1 s"), (40, "40 s"), (89.5, "90 s"), (90, "2 min"), (1440, "24 min"), (5340, "89 min"), (5341, "1 h 30 min"),
     (7200, "2 h 00 min"), (90_000, "25 h 00 min")],
)  # fmt: skip
def test_a_duration(seconds, words):
    assert duration(seconds) == words


def test_progress_in_words():
    clock = Clock()
    pace = Pace(COSTS, 8, clock)
    stage = Stage("fit", 25, 50, nfe=5, error=0.123456)
    cost = cost_line(COSTS)
    assert progress_lines(stage, pace) == ["5 calls: fitting: model call 25 of 50", "error 0.1235", cost] and time_left(pace) == ""
    clock.now += 15  # 10 per second
    pace.reach(stage)
    assert progress_lines(stage, pace) == ["5 calls: fitting: model call 25 of 50, about 45 s left", "error 0.1235", cost]
    assert time_left(pace) == "about 45 s left"
    stage = Stage("train", 3, math.inf, error=0.5, loss=0.25, round=2, constants={"r": (0.5, 0.4), "c": (1.0, 1.0), "a": (1.0, 0.99)})
    first, *rest, last = progress_lines(stage, pace)
    assert first == "Training, round 2: batch 3, about 45 s left"
    assert last == cost and rest == notes(stage) == ["loss 0.25", "best error 0.5", "r 0.500 0.400", "a 1.000 0.990"]
    assert notes(Stage("teacher", 1, 2)) == [] and label(Stage("train", 1, 2, round=1)) == "Training"


def test_the_cost_in_words():
    line = cost_line({("teacher", 0): 2304.0, ("fit", 5): 1000.4, ("fit", 8): 2000.0, ("guard", 8): 96.0})
    assert line == "Expected cost: at most 5,400 sample-calls (teacher 2,304, fit 3,000, comparison 96)"
    assert cost_line({("fit", 5): math.inf}) == "Expected cost: unlimited (fit without limit)"


# --- files -------------------------------------------------------------------------------------------------------------------------------

COMMON = {"seeds": tuple(range(12)), "held_out": 4, "batch": 4, "name": "toy", "config": CONFIG}


def plan(**changes) -> AmedPlan:
    return AmedPlan(**{**COMMON, "states": pathlib.Path("states"), **changes})


def test_the_state_file_is_the_same_in_another_process(run_python):
    """Hashes of text and sets differ between processes; names of files must not."""
    code = (
        "from pathlib import Path; from fewstep.amed import AmedConfig; "
        "from fewstep.jobs.train_amed import AmedPlan; "
        f"print(AmedPlan(seeds=tuple(range(12)), held_out=4, batch=4, name='toy', states=Path('states'), config={CONFIG!r}).state_file)"
    )
    results = [run_python("-c", code, env={"PYTHONHASHSEED": seed}) for seed in ("1", "2")]
    assert [result.stdout.strip() for result in results] == [str(plan().state_file)] * 2, results[0].stderr
    assert plan().state_file.parent == pathlib.Path("states") and plan().state_file.suffix == ".safetensors"


def test_the_state_file_differs_where_the_plan_does():
    changes = [
        {}, {"seeds": tuple(range(1, 13))}, {"held_out": 5}, {"batch": 3}, {"name": "another"}, {"passes": 2}, {"mode": "table"},
        {"method": "steps"}, {"fit_first": False}, {"config": replace(CONFIG, scale_dir=0.2)}, {"teacher": TeacherPlan(32)},
        {"teacher": TeacherPlan(solver="ddim")},
    ]  # fmt: skip
    names = [plan(**each).state_file.name for each in changes]
    assert len(set(names)) == len(names)


def test_the_state_file_does_not_depend_on_where_states_are():
    elsewhere = plan(states=pathlib.Path("elsewhere"), most_states=3)
    assert elsewhere.state_file == pathlib.Path("elsewhere") / plan().state_file.name
    named = plan(resume=pathlib.Path("named.safetensors"))
    assert named.state_file == pathlib.Path("named.safetensors")
    assert plan(states=None).state_file is None
    assert plan(name="").state_file is None, "another model could be meant"
    assert plan(mode="table", method="forward").state_file is None, "a fit keeps no state"


def test_forgetting_leaves_what_the_user_named(tmp_path):
    for given_, left in (({"states": tmp_path}, ["other.safetensors"]), ({"resume": tmp_path / "mine.safetensors"}, None)):
        mine = plan(**{"states": None, **given_})
        files = [mine.state_file, mine.state_file.with_name(f"{mine.state_file.stem}.round-2.safetensors"), tmp_path / "other.safetensors"]
        for file in files:
            file.write_bytes(b"")
        mine.forget()
        mine.forget()  # nothing is there any more
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == (left or sorted(file.name for file in files))


@pytest.mark.parametrize("most, left", [(1, {"used"}), (2, {"used", "c"}), (3, {"used", "c", "b"}), (9, {"used", "a", "b", "c"})])
def test_the_newest_are_kept(tmp_path, most, left):
    """What is used counts as the newest, though it was made first."""
    for age, name in enumerate(("c", "b", "a", "used")):
        path = tmp_path / name
        if name in ("b", "used"):
            path.mkdir()
            (path / "inside").write_bytes(b"x")
        else:
            path.write_bytes(b"x")
        os.utime(path, (1e9 - age, 1e9 - age))
    keep_newest(tmp_path, "used", most)
    assert {path.name for path in tmp_path.iterdir()} == left
    assert (tmp_path / "used").stat().st_mtime > 1.5e9
    keep_newest(tmp_path / "missing", "used", most)


def test_states_of_all_rounds_are_kept_together(tmp_path):
    """A state of a later round is of no use without those before it."""
    for age, name in enumerate(("a.round-3", "a.round-2", "b.round-2", "b", "a", "c")):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(b"x")
        os.utime(path, (1e9 - age, 1e9 - age))
    keep_newest(tmp_path, "used", 3)
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "a.round-2", "a.round-3", "b", "b.round-2"}
    keep_newest(tmp_path, "used", 2)
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "a.round-2", "a.round-3"}


def test_a_plan_needs_seeds_on_both_sides():
    with pytest.raises(ValueError, match=r"^There are 4 seeds and 4 of them are held out; .* Give more seeds\.$"):
        Plan(seeds=range(4), held_out=4, batch=2)
    with pytest.raises(ValueError, match=r"^batch was 0"):
        Plan(seeds=range(4), held_out=1, batch=0)
