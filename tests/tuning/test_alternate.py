"""Phase 1 and phase 2 in turn: the best round comes back, the guard decides on seeds nothing has seen, and it can be stopped anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from fewstep.fitting import Candidate, Ending, FitError, Interrupted, Limit, Setting, Teacher
from fewstep.fitting.calibrate import calibrate
from fewstep.fitting.progress import INTERRUPTED, Stage
from fewstep.fitting.run import run_table
from fewstep.fitting.tuning import (
    Alternation,
    CalibrationPhase,
    DiscretizationPhase,
    FullWeights,
    GivenTable,
    LoraAdapters,
    OtherState,
    alternate,
)
from fewstep.fitting.tuning.phase_one import _ending_in_zero
from fewstep.solvers import SolverTable, build_table

from ..fitting_problems import GAUSSIANS, setting_of
from .networks import SIDE, Tunable, table_of, tunable_setting
from .test_tune import Raising, numbers, same

SEEDS = 40
SPLIT = {"held_out": 8, "guard": 8}
LR = {"lr": 0.02, "average": 0.5, "passes": 3, "checks": 2}


def teacher_of(setting: Setting, states: bool = False) -> Teacher:
    return Teacher(setting, 24, states=states)


def error_of(setting: Setting, table: SolverTable, ends: Tensor) -> float:
    return float((run_table(setting, table).end.double() - ends.double()).square().mean().sqrt())


def test_a_given_table():
    setting = tunable_setting(SEEDS)
    teacher, adapters, table = teacher_of(setting), LoraAdapters(setting.model, 3), table_of()
    stages: list[Stage] = []
    result = alternate(setting, GivenTable(table), adapters, teacher=teacher, progress=stages.append, **SPLIT, **LR)
    assert result.table is table and result.first_table is table and len(result.rounds) == 1
    assert result.stopped == "phase 1 has no other table for the tuned model"
    (round_,) = result.rounds
    assert round_.kept and round_.held_out_after < 0.98 * round_.held_out_before and round_.history[0].error == round_.held_out_before
    unseen, ends = setting.subset(range(32, 40)), teacher.end_points[32:]
    with adapters.attached():
        tuned = error_of(unseen, table, ends)
    scores = {score.candidate.name: score.error for score in result.comparison.scores}
    assert scores == pytest.approx({"tuned model": tuned, "phase 1 alone": error_of(unseen, table, ends)}, rel=1e-5)
    assert result.ships
    assert [stage.what for stage in stages] == sorted((stage.what for stage in stages), key=["teacher", "train", "guard"].index)
    held = setting.subset(range(24, 32))
    with adapters.attached():
        assert error_of(held, table, teacher.end_points[24:32]) == pytest.approx(round_.held_out_after, rel=1e-5)


def test_the_guard_refuses_what_does_not_win():
    """Against a rival that is better than anything tuned in a few batches, and where tuning was told to learn something else."""
    setting = tunable_setting(SEEDS)
    ends = teacher_of(setting).end_points
    rival = Candidate("many steps", table_of("unipc", 20, order=3))
    result = alternate(setting, GivenTable(table_of()), LoraAdapters(setting.model, 3), teacher=ends, stock=[rival], **SPLIT, **LR)
    assert not result.ships and result.comparison.winner.candidate is rival
    wrong = ends.clone()
    wrong[:32] += 1.0  # of the guard's seeds it is the truth
    result = alternate(setting, GivenTable(table_of()), LoraAdapters(setting.model, 3), teacher=wrong, **SPLIT, **LR)
    assert result.rounds[0].held_out_after < result.rounds[0].held_out_before and not result.ships
    judged = alternate(
        setting, GivenTable(table_of()), adapters := LoraAdapters(setting.model, 3), teacher=ends, **SPLIT, **LR,
        judge=lambda images, chunk: -torch.ones(len(images)) * bool(setting.model.out._forward_hooks or not is_plain(images, chunk)),
    )  # fmt: skip
    assert judged.comparison.scores[0].candidate.name == "tuned model" and not judged.ships
    assert not setting.model.out._forward_hooks and adapters.names


def is_plain(images: Tensor, chunk: Setting) -> bool:
    return torch.equal(images, run_table(chunk, table_of()).end)


# --- rounds ------------------------------------------------------------------------------------------------------------------------------


@dataclass
class Listed:
    """Tables one after the other; keeps what the model says when it is asked."""

    setting: Setting
    tables: list[SolverTable]
    name: str = "listed"
    asked: list[tuple[int, Tensor]] = field(default_factory=list)
    error: BaseException | None = None

    def _next(self) -> SolverTable:
        self.asked.append((len(self.asked), self.setting.denoised(torch.ones(len(self.setting.seeds), 1, SIDE, SIDE), 1.0)))
        return self.tables[len(self.asked) - 1]

    def first(self, told=None) -> SolverTable:
        return self._next()

    def again(self, table: SolverTable, told=None) -> SolverTable | None:
        if self.error is not None:
            raise self.error
        assert table is self.tables[len(self.asked) - 1]
        return self._next() if len(self.asked) < len(self.tables) else None


def lists(*inner: float) -> list[SolverTable]:
    return [build_table("ddim", [20.0, level, 0.5, 0.0], "edm") for level in inner]


def test_the_best_round_comes_back():
    """A good table, and then a hopeless one, with which nothing gets better."""
    setting = tunable_setting(SEEDS)
    tables = [*lists(3.0), build_table("ddim", [20.0, 0.022, 0.021, 0.0], "edm")]
    phase, adapters, teacher = Listed(setting.subset(range(4)), tables), LoraAdapters(setting.model, 3), teacher_of(setting)
    result = alternate(setting, phase, adapters, teacher=teacher, **SPLIT, **LR)
    assert [each.kept for each in result.rounds] == [True, False]
    assert result.table is tables[0] and result.rounds[1].table is tables[1]
    assert result.stopped == "the last round lowered the held-out error by less than 2%"
    with adapters.attached():
        error = error_of(setting.subset(range(24, 32)), tables[0], teacher.end_points[24:32])
    assert error == pytest.approx(result.rounds[0].held_out_after, rel=1e-5)


def test_rounds_go_on_from_each_other():
    setting = tunable_setting(SEEDS)
    phase = Listed(setting.subset(range(4)), lists(1.0, 2.0, 3.0, 4.0))
    adapters = LoraAdapters(setting.model, 3)
    result = alternate(setting, phase, adapters, teacher=teacher_of(setting), rounds=3, tolerance=0.0, **SPLIT, **LR)
    assert result.stopped in ("3 rounds were made", "the last round lowered the held-out error by less than 0%")
    plain = setting.subset(range(4)).denoised(torch.ones(4, 1, SIDE, SIDE), 1.0)
    assert torch.equal(phase.asked[0][1], plain)  # the first table is for the untuned model
    assert all(not torch.equal(said, plain) for _, said in phase.asked[1:])  # the others for the tuned one
    assert len(result.rounds) > 1 and [each.round for each in result.rounds] == list(range(1, len(result.rounds) + 1))
    best = min(result.rounds, key=lambda each: each.held_out_after)
    assert result.table is best.table and [each.kept for each in result.rounds][best.round - 1]
    again = LoraAdapters(setting.model, 3)
    one = alternate(setting, GivenTable(lists(1.0)[0]), again, teacher=teacher_of(setting), rounds=1, **SPLIT, **LR)
    assert one.stopped == "one round was made" and one.rounds[0].held_out_after == result.rounds[0].held_out_after


def test_an_error_of_nothing_ends_the_rounds():
    """The table is the teacher's own, so that there is nothing to lower."""
    setting = tunable_setting(SEEDS)
    tables = lists(3.0, 2.0)
    ends = torch.cat([run_table(chunk, tables[0]).end for chunk in setting.chunks()])
    result = alternate(setting, Listed(setting.subset([0]), tables), LoraAdapters(setting.model, 3), teacher=ends, **SPLIT, **LR)
    assert result.rounds[0].held_out_after == 0 and result.stopped.startswith("the last round lowered") and not result.ships


def test_what_is_as_good_as_before_does_not_ship():
    """Where no check was better the adapters are at nothing, and both have the same error to the last bit."""
    setting = tunable_setting(SEEDS)
    ends = teacher_of(setting).end_points
    wrong = torch.cat([ends[:24] + 3.0, ends[24:]])
    result = alternate(setting, GivenTable(table_of()), LoraAdapters(setting.model, 3), teacher=wrong, **SPLIT, **(LR | {"lr": 0.2}))
    assert result.rounds[0].held_out_after == result.rounds[0].held_out_before
    assert len({score.error for score in result.comparison.scores}) == 1
    assert not result.ships


@pytest.mark.parametrize("error", [FitError("broken"), Interrupted("enough"), ValueError("wrong")])
def test_a_failing_second_round_leaves_the_first_one_s_numbers(error):
    setting = tunable_setting(SEEDS)
    tables, teacher = lists(3.0, 2.0), teacher_of(setting)
    first = LoraAdapters(setting.model, 3)
    alternate(setting, GivenTable(tables[0]), first, teacher=teacher, rounds=1, **SPLIT, **LR)
    adapters, phase = LoraAdapters(setting.model, 3), Listed(setting.subset([0]), tables, error=error)
    if isinstance(error, Interrupted):
        result = alternate(setting, phase, adapters, teacher=teacher, **SPLIT, **LR)
        assert result.stopped == INTERRUPTED and result.comparison is None and not result.ships
    else:
        with pytest.raises(type(error), match=str(error)):
            alternate(setting, phase, adapters, teacher=teacher, **SPLIT, **LR)
    assert same(numbers(adapters), numbers(first))


def test_memory_that_runs_out_in_the_second_round_keeps_the_best_so_far():
    setting = tunable_setting(SEEDS)
    ends, tables = teacher_of(setting).end_points, lists(1.0, 3.0)
    first = LoraAdapters(setting.model, 3)
    alternate(setting, GivenTable(tables[0]), first, teacher=ends, **SPLIT, **LR)

    def run(at: int) -> tuple[LoraAdapters, Raising, object]:
        model = Raising(setting.model, at, torch.cuda.OutOfMemoryError("CUDA out of memory."))
        adapters, phase = LoraAdapters(setting.model, 3), Listed(setting.subset([0]), tables)
        try:
            result = alternate(replace(setting, model=model), phase, adapters, teacher=ends, rounds=2, **SPLIT, **LR)
        except FitError as error:
            assert "Memory ran out" in str(error) and at > 0
            result = error.best
        return adapters, model, result

    whole, model, finished = run(-1)
    assert isinstance(finished, Alternation) and len(finished.rounds) == 2
    # in the first measurement of the second round nothing is known of it; after its first check the best of it counts
    first_round = 3 + 9 * 3 + 2 * 3  # the first measurement, nine batches and two checks of three calls each
    adapters, _, part = run(first_round + 1)
    assert same(numbers(adapters), numbers(first)) and isinstance(part, Alternation) and len(part.rounds) == 1
    adapters, _, part = run(model.here - 6 - 8)  # six calls of the guard; the eight before are of the second round's last third
    assert isinstance(part, Alternation) and part.ending is Ending.FAILED and part.comparison is None and "Memory ran out" in part.stopped
    assert len(part.rounds) == 2 and part.rounds[1].kept and part.rounds[1].held_out_after < part.rounds[0].held_out_after
    assert not same(numbers(adapters), numbers(whole)) and not same(numbers(adapters), numbers(first))


# --- phases ------------------------------------------------------------------------------------------------------------------------------


def test_the_schedule_is_made_again_for_the_tuned_model():
    setting = tunable_setting(48)
    few = Teacher(replace(setting.subset(range(16)), batch=16), 24, states=True)
    phase = DiscretizationPhase(few, 3)
    adapters = LoraAdapters(setting.model, 3)
    stages: list[Stage] = []
    result = alternate(setting, phase, adapters, teacher=teacher_of(setting), progress=stages.append, **SPLIT, **LR)
    assert result.first_table.solver == "ddim" and result.first_table.nfe == 3 and result.first_table.sigmas[-1] == 0
    assert len(result.rounds) >= 2 and result.rounds[1].table.sigmas != result.first_table.sigmas
    told = [(stage.done, stage.total) for stage in stages if stage.what == "table" and stage.round == 2]
    assert told == [(k + 1, 24) for k in range(24)]  # the tuned model is asked once at each level
    assert phase.first().sigmas == result.first_table.sigmas  # the stored pass is still the untuned model's
    assert result.rounds[0].held_out_after < 0.98 * result.rounds[0].held_out_before


def test_an_unfinished_teacher_is_never_made_by_the_tuned_model():
    setting = tunable_setting(8)
    teacher = Teacher(setting, 16, states=True)
    with pytest.raises(ValueError, match="not finished"):
        DiscretizationPhase(teacher, 3).again(table_of())
    with pytest.raises(ValueError, match="not finished"):
        CalibrationPhase(setting, teacher, 3).again(table_of())
    assert setting.model.calls == 0


def test_calibration_and_tuning():
    setting = tunable_setting(48)
    some = replace(setting.subset(range(18)), batch=12)
    phase = CalibrationPhase(some, Teacher(some, 24), 3, Limit(calls=40), held_out=6)
    adapters = LoraAdapters(setting.model, 3)
    result = alternate(setting, phase, adapters, teacher=teacher_of(setting), rounds=2, **SPLIT, **LR)
    assert result.first_table.nfe == 3 and result.first_table.sigmas[-1] == 0 and result.rounds[0].kept
    assert result.table in [each.table for each in result.rounds]
    if len(result.rounds) == 2:
        assert result.rounds[1].table.sigmas[0] == result.first_table.sigmas[0]


def test_a_stock_setting_that_ends_above_zero_is_not_what_is_tuned_for():
    """Where one wins a calibration, the best of the others is taken."""
    setting = setting_of(GAUSSIANS["edm"], 12, batch=6)
    result = calibrate(setting, 3, teacher=Teacher(setting, 24), held_out=4, limit=Limit(calls=30))
    ending = [score.candidate.table for score in result.comparison.scores if score.candidate.table.sigmas[-1] > 0]
    assert ending  # some of the stock settings do
    ranked = [score.candidate.table for score in result.comparison.scores if score.candidate.table.sigmas[-1] == 0]
    assert _ending_in_zero(replace(result, table=ending[0])) is ranked[0]
    assert _ending_in_zero(replace(result, table=ranked[-1])) is ranked[-1]


class StopIn:
    """Interrupts at a call of one kind."""

    def __init__(self, what: str, at: int, round: int = 1) -> None:
        self.what, self.at, self.round, self.seen = what, at, round, 0

    def __call__(self, stage: Stage) -> None:
        if stage.what == self.what and stage.round == self.round:
            self.seen += 1
            if self.seen == self.at:  # once only, as a key that is pressed
                raise Interrupted("enough")


def test_an_interrupted_calibration_interrupts_all():
    """It would keep what it has, and the tuning would go on with an unproven table."""
    setting = tunable_setting(40)
    some = setting.subset(range(12))
    teacher = Teacher(some, 24).run()
    ends = teacher_of(setting).end_points
    for at in (1, 14, 60):
        phase, stop = CalibrationPhase(some, teacher, 3, Limit(calls=40), held_out=4), StopIn("table", at)
        with pytest.raises(Interrupted):
            alternate(setting, phase, LoraAdapters(setting.model, 3), teacher=ends, progress=stop, **SPLIT, **LR)
    adapters = LoraAdapters(setting.model, 3)
    phase = CalibrationPhase(some, teacher, 3, Limit(calls=40), held_out=4)
    result = alternate(setting, phase, adapters, teacher=ends, progress=StopIn("table", 5, 2), **SPLIT, **LR)
    assert result.stopped == INTERRUPTED and result.comparison is None and len(result.rounds) == 1


# --- stopping and going on ---------------------------------------------------------------------------------------------------------------


def test_wherever_it_is_interrupted_the_rest_gives_the_same(tmp_path):
    ends = teacher_of(tunable_setting(SEEDS)).end_points
    options = SPLIT | LR | {"rounds": 2, "tolerance": 0.0}

    def run(at: int = -1, progress=None, **more):
        setting = tunable_setting(SEEDS)
        pressed = replace(setting, model=Raising(setting.model, at, Interrupted("enough")))
        phase = Listed(pressed.subset([0]), lists(1.0, 3.0))
        adapters = LoraAdapters(setting.model, 3)
        result = alternate(pressed, phase, adapters, teacher=ends, progress=progress, **(options | more))
        return result, numbers(adapters), pressed.model.here

    whole, wanted, calls = run()
    assert len(whole.rounds) == 2 and whole.ships
    for number, at in enumerate([2, *range(12, calls - 1, calls // 7), calls - 2]):
        file = tmp_path / f"{number}" / "state.safetensors"
        try:
            part, kept, _ = run(at, resume=file)
        except Interrupted:
            assert at == 2 and not file.exists()
        else:
            assert part.comparison is None and not part.ships
            assert not same(kept, numbers(LoraAdapters(Tunable(), 3))) or part.rounds[-1].held_out_after == part.rounds[0].held_out_before
        rest, found, _ = run(resume=file)
        assert same(found, wanted) and rest.ships
        for ours, theirs in zip(rest.rounds, whole.rounds, strict=True):
            assert (ours.held_out_before, ours.held_out_after) == (theirs.held_out_before, theirs.held_out_after)
            assert ours.history[1:] == theirs.history[1:]
        assert [score.error for score in rest.comparison.scores] == [score.error for score in whole.comparison.scores]
    assert sorted(path.name for path in file.parent.iterdir()) == ["state.round-2.safetensors", "state.safetensors"]
    with pytest.raises(OtherState):
        run(resume=file, lr=0.01)
    second = file.with_name("state.round-2.safetensors")
    content = second.read_bytes()
    second.write_bytes(content[:-5])
    with pytest.raises(OtherState):
        run(resume=file)


def test_an_interruption_in_the_guard_keeps_the_tuned_model():
    setting = tunable_setting(SEEDS)
    adapters = LoraAdapters(setting.model, 3)
    result = alternate(setting, GivenTable(table_of()), adapters, teacher=teacher_of(setting), progress=StopIn("guard", 2), **SPLIT, **LR)
    assert result.comparison is None and result.rounds[0].kept
    assert not same(numbers(adapters), numbers(LoraAdapters(setting.model, 3)))


def test_full_weights_and_the_network_afterwards():
    setting = tunable_setting(SEEDS)
    before = [(id(p), p.detach().clone()) for p in setting.model.parameters()]
    result = alternate(setting, GivenTable(table_of()), FullWeights(setting.model), teacher=teacher_of(setting), **SPLIT, **LR)
    assert result.ships
    assert all(id(p) == identity and torch.equal(p, value) for p, (identity, value) in zip(setting.model.parameters(), before, strict=True))
    json.dumps([round_.held_out_after for round_ in result.rounds])


BAD = [
    ({"rounds": 0}, "rounds was 0"), ({"tolerance": -0.1}, "tolerance was"), ({"tolerance": 1.0}, "tolerance was"),
    ({"held_out": 20, "guard": 20}, "at least one must be left"), ({"held_out": 0}, "held_out was 0"), ({"guard": 2.5}, "guard"),
    ({"lr": 7.0}, "learning rate"), ({"method": "all"}, "must be one of"), ({"teacher": torch.zeros(3)}, "have shape"),
    ({"teacher": teacher_of(tunable_setting(SEEDS + 1))}, "other seeds"), ({"adapters": None}, "must be LoraAdapters"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[str(index) for index in range(len(BAD))])
def test_bad_arguments_are_refused_before_anything_is_called(changes, said):
    setting = tunable_setting(SEEDS)
    arguments = {"adapters": LoraAdapters(setting.model, 3), "teacher": None} | SPLIT | changes
    with pytest.raises(ValueError, match=said):
        alternate(setting, GivenTable(table_of()), arguments.pop("adapters"), **arguments)
    assert setting.model.calls == 0


def test_an_option_that_does_not_exist():
    setting = tunable_setting(SEEDS)
    for wrong in ({"passses": 3}, {"round": 2}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            alternate(setting, GivenTable(table_of()), LoraAdapters(setting.model, 3), **wrong)
    assert setting.model.calls == 0
