"""However a job fails, it ends with a sentence, what it had found is kept, and the next run goes on to the same numbers.

All four jobs, with each way of training, go through the same failures: at random calls of the model, each in another part of the job,
memory runs out, values are not finite, or the user interrupts; disks are full or cannot be written; saved states are of other runs.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fewstep.amed import AmedTable, save_amed
from fewstep.fitting import Ending, FitError, Interrupted, Stage
from fewstep.fitting.failures import enough_memory
from fewstep.fitting.tuning import LoraAdapters, save_lora
from fewstep.jobs import Outcome
from fewstep.jobs.saving import save_somewhere
from fewstep.recipes import Recipe
from fewstep.tensor_files import load_tensors, save_tensors
from fewstep.training import OtherState

from .disks import below_a_file, disk
from .job_cases import CASES, CONFIG, Case, Disturb, check_files, is_a_sentence, left_as_it_was, undisturbed
from .tuning.networks import Tunable, table_of

MOMENTS = 3
every_job = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_training = pytest.mark.parametrize("case", [case for case in CASES if case.trains], ids=lambda case: case.name)


def run(case: Case, plan: Any, disturb: Disturb | None = None, report: Callable[[int], object] | None = None) -> tuple[Any, list[Stage]]:
    """Outcome and stages of a run that may fail. report : called with the number of each report from 1; may raise."""
    setting, stages = case.setting(disturb), []

    def progress(stage: Stage) -> None:
        stages.append(stage)
        if report is not None:
            report(len(stages))

    with left_as_it_was(setting.model):
        outcome = case.run(setting, plan, progress)
    return outcome, stages


def check(case: Case, outcome: Outcome, stages: list[Stage]) -> None:
    """How it ended is said, and nothing is lost."""
    assert outcome.ending is not None
    assert (outcome.error is not None) == (outcome.ending is Ending.FAILED)
    if outcome.error is not None:
        assert type(outcome.error) is FitError and is_a_sentence(str(outcome.error)), outcome.error
    assert case.lost(outcome, stages) == ""
    assert not any(bool(value.isnan().any()) for value in case.numbers(outcome))


def check_resumed(case: Case, folder: Path) -> None:
    """What was left in the folder is whole, and leads to the same numbers."""
    check_files(folder)
    setting = case.setting()
    outcome = case.run(setting, case.stored_plan(folder))
    assert outcome.finished and outcome.error is None
    assert all(torch.equal(now, wanted) for now, wanted in zip(case.numbers(outcome), undisturbed(case).numbers, strict=True))
    check_files(folder)


def from_call(number: int, error: BaseException, times: float = math.inf) -> Disturb:
    """The call of this number raises, and as many calls as there are `times` in all."""

    def disturb(output: Tensor, call: int) -> Tensor:
        if number <= call < number + times:
            raise error
        return output

    return disturb


# --- memory ------------------------------------------------------------------------------------------------------------------------------

OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation"), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
]  # fmt: skip


@every_job
def test_memory_runs_out(case, tmp_path):
    """At a call and at all after it. (A real one would take the machine's memory; these are the exceptions that it raises.)"""
    for number, ((call, _), error) in enumerate(zip(undisturbed(case).moments(MOMENTS, "memory"), OUT_OF_MEMORY, strict=False)):
        folder = tmp_path / str(number)
        outcome, stages = run(case, case.stored_plan(folder), from_call(call, error))
        check(case, outcome, stages)
        assert str(outcome.error).startswith("Memory ran out in a batch of 4 samples. Use smaller batches"), call
        check_resumed(case, folder)


@every_job
def test_memory_runs_out_for_a_moment(case, tmp_path):
    """At one call: what can go on does."""
    ((call, _),) = undisturbed(case).moments(1, "a moment")
    outcome, stages = run(case, case.stored_plan(tmp_path), from_call(call, OUT_OF_MEMORY[0], 1))
    check(case, outcome, stages)
    assert outcome.finished or "Memory ran out" in str(outcome.error)
    check_resumed(case, tmp_path)


# --- values that are not finite ----------------------------------------------------------------------------------------------------------


def spoiled_from(number: int, value: float, times: float = math.inf) -> Disturb:
    """Outputs of one sample are not finite from the call of this number on."""

    def disturb(output: Tensor, call: int) -> Tensor:
        if not number <= call < number + times:
            return output
        mask = torch.zeros(len(output), *[1] * (output.ndim - 1), dtype=torch.bool)
        mask[0] = True
        return torch.where(mask, torch.full_like(output, value), output)

    return disturb


@every_job
@pytest.mark.parametrize("times", [1, math.inf])
def test_values_are_not_finite(case, times, tmp_path):
    for number, (call, _) in enumerate(undisturbed(case).moments(MOMENTS, f"values {times}")):
        folder = tmp_path / str(number)
        outcome, stages = run(case, case.stored_plan(folder), spoiled_from(call, (math.nan, math.inf)[number % 2], times))
        check(case, outcome, stages)
        assert not outcome.interrupted
        assert outcome.error is None or "finite" in str(outcome.error), outcome.error
        check_files(folder)


@every_job
def test_targets_are_not_finite(case, tmp_path):
    """Of one sample, in the teacher's last batch."""
    setting = case.setting()
    last = 8 * (len(setting.seeds) // setting.batch)
    outcome, stages = run(case, case.stored_plan(tmp_path), spoiled_from(last, math.nan))
    if case.name == "amed steps":  # only the end points of the held-out seeds are needed, and states at the stamps when their turn comes
        outcome, stages = run(case, case.stored_plan(tmp_path / "other"), spoiled_from(8, math.nan))
    assert {stage.what for stage in stages} == {"teacher"} and case.numbers(outcome) == []
    check(case, outcome, stages)
    assert str(outcome.error).startswith("The teacher's end points are not finite (NaN or infinity). Run the model in a higher precision")


# --- interruption ------------------------------------------------------------------------------------------------------------------------


@every_job
def test_interrupted_by_progress(case, tmp_path):
    for number, (_, report) in enumerate(undisturbed(case).moments(MOMENTS, "progress")):
        folder = tmp_path / str(number)

        def interrupt(here: int, report: int = report) -> None:
            if here >= report:
                raise Interrupted("by progress")

        outcome, stages = run(case, case.stored_plan(folder), report=interrupt)
        check(case, outcome, stages)
        assert outcome.interrupted
        check_resumed(case, folder)


@every_job
def test_interrupted_inside_the_model(case, tmp_path):
    """As hosts do it; again and again, until it is through."""
    folder, calls = tmp_path, [call for call, _ in undisturbed(case).moments(MOMENTS, "model")]
    for call in sorted(calls):
        outcome, stages = run(case, case.stored_plan(folder), from_call(call, Interrupted("by the host"), 1))
        check(case, outcome, stages)
        assert outcome.interrupted or outcome.finished  # a run that was resumed makes fewer calls
    check_resumed(case, folder)


# --- disks -------------------------------------------------------------------------------------------------------------------------------


def check_said_of_files(outcome: Outcome) -> None:
    assert not outcome.interrupted
    if outcome.error is not None:
        assert "could not be " in str(outcome.error) and "Free space or choose another " in str(outcome.error), outcome.error


@every_job
def test_the_disk_is_full(case, tmp_path):
    """From the beginning, after the first batch of a training, or from a random moment on: a teacher's batch, the teacher's states at a
    student's stamps, or the state of a training cannot be written."""
    trained = [index + 1 for index, (stage, _) in enumerate(undisturbed(case).calls) if stage.what == "train"]
    moments = [0, *trained[:1], *(report for _, report in undisturbed(case).moments(MOMENTS - 1, "disk"))]
    for number, moment in enumerate(moments):
        folder = tmp_path / str(number)
        with disk() as fill:
            if not moment:
                fill()
            outcome, stages = run(case, case.stored_plan(folder), report=lambda here, moment=moment: fill() if here == moment else None)
        check(case, outcome, stages)
        check_said_of_files(outcome)
        assert outcome.error is not None or moment
        check_resumed(case, folder)


PLACES = [
    *((case, "teacher") for case in CASES), *((case, "states") for case in CASES if case.trains),
    *((case, "more") for case in CASES if "steps" in case.name),
]  # fmt: skip


@pytest.mark.parametrize("case, place", PLACES, ids=[f"{case.name}, {place}" for case, place in PLACES])
def test_a_folder_cannot_be_written(case, place, tmp_path):
    """For the teacher's pass, for the states, or for whatever else the job stores."""
    folders = {name: below_a_file(tmp_path) if name == place else tmp_path / name for name in ("teacher", "states", "more")}
    outcome, stages = run(case, case.plan(**folders))
    check(case, outcome, stages)
    check_said_of_files(outcome)
    assert outcome.ending is Ending.FAILED
    assert (case.numbers(outcome) == []) == (place == "teacher")
    (tmp_path / "a file").unlink()
    check_files(tmp_path)


# --- saved states ------------------------------------------------------------------------------------------------------------------------


@cache
def saved_state(case: Case, seed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a training of this seed leaves behind."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "state.safetensors"
        assert case.run(case.setting(), case.plan(None, resume=file, seed=seed)).finished
        return load_tensors(file)


def write_another_run(path: Path, case: Case) -> None:
    save_tensors(path, *saved_state(case, 1))


def write_old_format(path: Path, case: Case) -> None:
    """As FewStep wrote it before trainings had a common file: AMED's named after its parameters, a tuning's without its target."""
    tensors, facts = saved_state(case, 0)
    known = {"identity": "0123456789abcdef01234567", "record": facts["record"]}
    if case.name.startswith("tune"):
        save_tensors(path, tensors, {**known, "tuning": 1})
        return
    names = [name for name, _ in case.run(case.setting(), case.plan(None)).training.net.named_parameters()]

    def old(name: str) -> str:
        first, _, index = name.rpartition(".")
        return name if first == "start" else f"{'net' if first == 'now' else first}.{names[int(index)]}"

    save_tensors(path, {old(name): value for name, value in tensors.items()}, {**known, "amed_training": 2, "target": facts["target"]})


def write_half(path: Path, case: Case) -> None:
    save_tensors(path, *saved_state(case, 0))
    path.write_bytes(path.read_bytes()[:-9])


def write_record_without_history(path: Path, case: Case) -> None:
    tensors, facts = saved_state(case, 0)
    save_tensors(path, tensors, {**facts, "record": {}})


def write_nonsense(path: Path, case: Case) -> None:
    path.write_bytes(b"This is not a state.")


WRONG = [write_another_run, write_old_format, write_half, write_record_without_history, write_nonsense]
every_wrong_state = pytest.mark.parametrize("write", WRONG, ids=lambda write: write.__name__.removeprefix("write_"))


@every_training
@every_wrong_state
def test_a_wrong_state_that_the_user_named_is_refused(case, write, tmp_path):
    """It may be hours of another training, so it is not touched."""
    file = tmp_path / "state.safetensors"
    write(file, case)
    content, outcome = file.read_bytes(), None
    with pytest.raises(OtherState) as refused:
        outcome = run(case, case.plan(None, resume=file))
    assert outcome is None and str(refused.value).startswith(f"{file} ") and str(refused.value).endswith("elete it to start over.")
    assert "()" not in str(refused.value) and is_a_sentence("F" + str(refused.value))
    assert [path.name for path in tmp_path.iterdir()] == [file.name] and file.read_bytes() == content


@every_training
@every_wrong_state
def test_a_wrong_state_that_fewstep_named_is_replaced(case, write, tmp_path, caplog):
    plan = case.stored_plan(tmp_path)
    plan.state_file.parent.mkdir()
    write(plan.state_file, case)
    outcome, stages = run(case, plan)
    check(case, outcome, stages)
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "does not match; starting over" in caplog.text
    check_resumed(case, tmp_path)


def test_a_wrong_state_of_a_later_round_costs_that_round_only(tmp_path, caplog):
    (case,) = (case for case in CASES if case.name == "tune end")
    plan = case.stored_plan(tmp_path)
    assert run(case, plan)[0].finished
    second = plan.state_file.with_name(f"{plan.state_file.stem}.round-2.safetensors")
    write_another_run(second, case)
    outcome, stages = run(case, plan)
    check(case, outcome, stages)
    assert "starting over" in caplog.text and {stage.round for stage in stages if stage.what == "train"} == {2}
    check_resumed(case, tmp_path)


@every_job
def test_a_wrong_teacher_batch_is_made_again(case, tmp_path):
    """Of another pass, or cut off: what jobs without a state file go on from."""
    outcome, _ = run(case, case.plan(tmp_path))
    batches = sorted(tmp_path.rglob("batch-*.safetensors"))
    batches[0].write_bytes(batches[0].read_bytes()[:-5])
    if len(batches) > 1:
        tensors, facts = load_tensors(batches[1])
        save_tensors(batches[1], {name: value + 1 for name, value in tensors.items()}, {**facts, "key": "another"})
    again, stages = run(case, case.plan(tmp_path))
    check(case, again, stages)
    made = [stage for stage in stages if stage.what == "teacher" or (stage.what, stage.round) == ("table", 1)]  # a table's has its own pass
    assert len(made) == 8 * len(batches[:2])
    assert all(torch.equal(now, wanted) for now, wanted in zip(case.numbers(again), case.numbers(outcome), strict=True))


# --- results -----------------------------------------------------------------------------------------------------------------------------


def written_results() -> dict[str, Callable[[Path], object]]:
    """By file name, how each kind of result is written."""
    network = Tunable()
    return {
        "recipe.json": Recipe.from_table(table_of()).save, "amed.safetensors": lambda path: save_amed(path, AmedTable(CONFIG)),
        "lora.safetensors": lambda path: save_lora(path, LoraAdapters(network, 2)),
    }  # fmt: skip


@pytest.mark.parametrize("name", written_results())
def test_a_full_disk_is_an_error_of_the_system(name, tmp_path):
    """Of every kind of file: the nodes that save them know no other."""
    write, path = written_results()[name], tmp_path / name
    with disk() as fill, pytest.raises(OSError):
        fill()
        write(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", written_results())
def test_a_result_is_saved_where_it_can_be(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    (tmp_path / "temporary").mkdir()
    write = written_results()[name]
    path, problem = save_somewhere(tmp_path / "new" / name, write)
    assert path == tmp_path / "new" / name and problem == ""
    wanted = below_a_file(tmp_path) / name
    other, problem = save_somewhere(wanted, write)
    assert sorted(other.read_bytes()) == sorted(path.read_bytes())  # safetensors has no fixed order of its metadata
    assert other.is_relative_to(tmp_path / "temporary")
    assert is_a_sentence("T" + problem) and str(wanted) in problem and str(other.parent) in problem
    shutil.rmtree(other.parent)
    content = path.read_bytes()
    with disk() as fill, pytest.raises(OSError) as error:
        fill()
        save_somewhere(path, write)
    assert is_a_sentence(str(error.value)) and str(path) in str(error.value) and "Free space" in str(error.value)
    assert path.read_bytes() == content  # the former file
    assert list((tmp_path / "temporary").iterdir()) == [] and [file.name for file in path.parent.iterdir()] == [name]


def test_errors_of_the_model_are_told_apart_in_older_torch(monkeypatch):
    """Before 2.5, `torch` has no `OutOfMemoryError` of its own."""
    monkeypatch.delattr(torch, "OutOfMemoryError", raising=False)
    for error in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), torch.cuda.OutOfMemoryError("CUDA out of memory.")):
        expected = FitError if isinstance(error, torch.cuda.OutOfMemoryError) else RuntimeError
        with pytest.raises(RuntimeError) as raised, enough_memory(4):
            raise error
        assert type(raised.value) is expected
