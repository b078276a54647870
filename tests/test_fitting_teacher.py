"""Teacher passes: the right path, stored whole or not at all, resumed after an interruption, and kept apart by what decides them."""

from __future__ import annotations

import gc
import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import fewstep.fitting.teacher as teacher_module
import fewstep.tensor_files as tensor_files
from fewstep.fitting import FitError, Interrupted, Setting, Teacher
from fewstep.fitting.batch_files import checksums
from fewstep.fitting.teacher import teacher_sigmas
from fewstep.schedules import NoiseSchedule
from fewstep.schedules.families import half_log_snr
from fewstep.solvers import build_table, sample

from .fitting_problems import FAMILIES, GAUSSIANS, MIXTURES, SCHEDULES, calls_of, setting_of
from .problems import Gaussian


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class Stop:
    """A progress callback that interrupts after some calls."""

    def __init__(self, after):
        self.after, self.told = after, []

    def __call__(self, done, total):
        self.told.append((done, total))
        if len(self.told) >= self.after:
            raise Interrupted("stop")


# --- the path ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("steps", [1, 2, 3, 64])
def test_levels_are_even_down_to_sigma_min_and_end_at_zero(family, steps):
    ns = SCHEDULES[family]
    sigmas = teacher_sigmas(ns, steps)
    assert sigmas.dtype == torch.float64 and len(sigmas) == steps + 1
    assert float(sigmas[0]) == ns.sigma_max and float(sigmas[-1]) == 0
    if steps > 1:
        assert float(sigmas[-2]) == ns.sigma_min
    lam = np.asarray(half_log_snr(sigmas[:-1].numpy(), family))
    widths = np.diff(lam[np.isfinite(lam)])
    assert widths == pytest.approx(widths.mean(), rel=0.01) if len(widths) else True


@pytest.mark.parametrize("family", FAMILIES)
def test_it_comes_near_the_exact_solution_and_nearer_with_more_steps(family):
    problem = GAUSSIANS[family]
    setting = setting_of(problem, 6)
    lowest = problem.exact(setting.initial(problem.sigma_max).numpy(), problem.sigma_max, problem.sigma_min)
    exact = problem.denoised(lowest, problem.sigma_min)  # what the step to 0 returns
    errors = []
    for steps in (16, 64, 128):
        end = Teacher(setting, steps).end_points
        assert end.dtype == torch.float32
        errors.append(float(np.abs(end.numpy() - exact).max()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-3


def test_it_is_the_sampling_loop():
    setting = setting_of(MIXTURES["vp"], 5, batch=2)
    teacher = Teacher(setting, 12)
    x = setting.initial(float(teacher.sigmas[0]))
    table = build_table("unipc", teacher.sigmas, "vp")
    assert torch.equal(teacher.end_points, sample(setting.model, x, table, disable=True).float())
    assert teacher.calls == 3 * 12 and teacher.finished


def test_states_are_what_the_model_saw_and_said():
    setting = setting_of(MIXTURES["flow"], 5, batch=2, dtype=torch.float32)
    teacher = Teacher(setting, 6, states=True)
    batches = list(teacher.batches())
    assert [tuple(batch["x"].shape) for batch in batches] == [(6, 2, 2), (6, 2, 2), (6, 1, 2)]
    assert torch.equal(torch.cat([batch["x"][0] for batch in batches]), setting.initial(1.0))
    for batch in batches:
        for sigma, x, d in zip(teacher.sigmas, batch["x"], batch["d"], strict=False):
            assert torch.equal(d, setting.denoised(x, float(sigma)))
        # the last step to 0 returns D
        assert torch.allclose(batch["end"], batch["d"][-1], atol=1e-6)
    assert all(set(batch) == {"end"} for batch in Teacher(setting, 6).batches())


def test_half_precision_is_kept_as_float32():
    setting = setting_of(GAUSSIANS["edm"], 3, dtype=torch.bfloat16)
    for batch in Teacher(setting, 4, states=True).batches():
        assert {tensor.dtype for tensor in batch.values()} == {torch.float32}


def test_progress_is_told_of_every_call():
    told = []
    setting = setting_of(GAUSSIANS["edm"], 5, batch=2)
    Teacher(setting, 7).run(lambda done, total: told.append((done, total)))
    assert told == [(done, 21) for done in range(1, 22)] and calls_of(setting) == 21


# --- storage ----------------------------------------------------------------------------------------------------------


def test_a_stored_pass_is_read_instead_of_made(tmp_path):
    setting = setting_of(GAUSSIANS["vp"], 5, batch=2)
    first = Teacher(setting, 6, folder=tmp_path, states=True)
    end = first.end_points
    assert contents(tmp_path) == [f"{first.key}/batch-0000{n}.safetensors" for n in range(3)]
    again = Teacher(setting, 6, folder=tmp_path, states=True)
    before = calls_of(setting)
    assert again.finished and torch.equal(again.end_points, end)
    assert calls_of(setting) == before and again.calls == 0
    for ours, theirs in zip(again.batches(), Teacher(setting, 6, states=True).batches(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in ("x", "d", "end"))


def test_an_interrupted_pass_goes_on_where_it_stopped(tmp_path):
    setting = setting_of(GAUSSIANS["vp"], 7, batch=2)
    whole = Teacher(setting, 5).end_points
    before = calls_of(setting)
    teacher = Teacher(setting, 5, folder=tmp_path)
    with pytest.raises(Interrupted):
        teacher.run(Stop(13))  # in the third of four batches
    assert teacher.calls == 13 and not teacher.finished
    assert contents(tmp_path) == [f"{teacher.key}/batch-0000{n}.safetensors" for n in range(2)]
    other = Teacher(setting, 5, folder=tmp_path)
    told = []
    other.run(lambda done, total: told.append((done, total)))
    assert told == [(done, 20) for done in range(11, 21)]
    assert torch.equal(other.end_points, whole) and calls_of(setting) - before == 13 + 10


def test_an_interrupted_pass_in_memory_goes_on_too():
    setting = setting_of(GAUSSIANS["vp"], 7, batch=2)
    teacher = Teacher(setting, 5)
    with pytest.raises(Interrupted):
        teacher.run(Stop(11))
    teacher.run()
    assert teacher.calls == 11 + 10 and teacher.finished
    assert torch.equal(teacher.end_points, Teacher(setting, 5).end_points)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped", "other key", "gone", "without states"])
def test_a_damaged_batch_is_made_again(tmp_path, damage):
    setting = setting_of(GAUSSIANS["vp"], 5, batch=2)
    teacher = Teacher(setting, 5, folder=tmp_path, states=True)
    end = teacher.end_points
    path = tmp_path / teacher.key / "batch-00001.safetensors"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "text":
        path.write_bytes(b"no such thing")
    elif damage == "flipped":
        path.write_bytes(bytes(255 - byte for byte in content[:200]) + content[200:])
    elif damage == "gone":
        path.unlink()
    elif damage == "other key":
        tensor_files.save_tensors(path, {"end": end[2:4], "x": end + 0, "d": end + 0}, {"key": "another"})
    else:
        tensor_files.save_tensors(path, {"end": end[2:4]}, {"key": teacher.key})
    again = Teacher(setting, 5, folder=tmp_path, states=True)
    assert not again.finished
    assert torch.equal(again.end_points, end) and again.calls == 5
    assert Teacher(setting, 5, folder=tmp_path, states=True).finished


def test_a_batch_damaged_while_in_use_is_an_error_in_a_sentence(tmp_path):
    setting = setting_of(GAUSSIANS["vp"], 5, batch=2)
    teacher = Teacher(setting, 5, folder=tmp_path).run()
    (tmp_path / teacher.key / "batch-00001.safetensors").write_bytes(b"")
    with pytest.raises(FitError, match=r"cannot be read.*Delete the folder"):
        _ = teacher.end_points


@pytest.mark.parametrize("error", [OSError("No space left on device"), SafetensorError("IoError: No space left on device")])
def test_a_full_disk_leaves_no_half_written_file(tmp_path, monkeypatch, error):
    setting = setting_of(GAUSSIANS["vp"], 5, batch=2)
    real, written = tensor_files.save_file, []

    def save_file(tensors, name, metadata):
        written.append(name)
        if len(written) == 2:
            with open(name, "wb") as file:
                file.write(b"half")
            raise error
        real(tensors, name, metadata=metadata)

    monkeypatch.setattr(tensor_files, "save_file", save_file)
    teacher = Teacher(setting, 5, folder=tmp_path)
    with pytest.raises(FitError, match=r"could not be stored.*No space left.*Free space"):
        teacher.run()
    assert contents(tmp_path) == [f"{teacher.key}/batch-00000.safetensors"]
    assert torch.equal(Teacher(setting, 5, folder=tmp_path).end_points, Teacher(setting, 5).end_points)


def test_an_interrupt_during_a_write_leaves_no_half_written_file(tmp_path, monkeypatch):
    def replaced(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replaced)
    with pytest.raises(KeyboardInterrupt):
        Teacher(setting_of(GAUSSIANS["vp"], 2), 3, folder=tmp_path).run()
    assert contents(tmp_path) == []


def test_the_key_changes_with_everything_that_matters(tmp_path):
    base = setting_of(GAUSSIANS["vp"], 4, batch=2)
    labelled = replace(base, per_seed={"labels": torch.arange(4)}, extra_args={"cfg": 2.0})
    described = {"cond": [{"area": (1, 2), "pooled": torch.ones(2, 2)}], "empty": torch.zeros(0, dtype=torch.bfloat16)}
    others = {
        "base": Teacher(base, 8),
        "name": Teacher(replace(base, name="other"), 8),
        "seeds": Teacher(setting_of(GAUSSIANS["vp"], 5, batch=2), 8),
        "order of seeds": Teacher(replace(base, seeds=(3, 2, 1, 0)), 8),
        "batch": Teacher(replace(base, batch=3), 8),
        "dtype": Teacher(replace(base, dtype=torch.float32), 8),
        "shape": Teacher(replace(base, shape=(2, 2)), 8),
        "steps": Teacher(base, 9),
        "states": Teacher(base, 8, states=True),
        "solver": Teacher(base, 8, "dpmpp_multistep"),
        "order": Teacher(base, 8, "unipc", 2),
        "schedule": Teacher(replace(base, noise_schedule=NoiseSchedule.vp_linear(0.1, 19.0)), 8),
        "noise": Teacher(replace(base, noise=lambda seed: torch.full((4,), float(seed))), 8),
        "start": Teacher(replace(base, start=lambda noise, sigma: noise * sigma + 1), 8),
        "arguments": Teacher(labelled, 8),
        "labels": Teacher(replace(labelled, per_seed={"labels": torch.arange(4) + 1}), 8),
        "type of labels": Teacher(replace(labelled, per_seed={"labels": torch.arange(4).int()}), 8),
        "cfg": Teacher(replace(labelled, extra_args={"cfg": 3.0}), 8),
        "nested": Teacher(replace(base, extra_args=described), 8),
        "nested value": Teacher(replace(base, extra_args={**described, "cond": [{"area": (1, 3), "pooled": torch.ones(2, 2)}]}), 8),
        "nested tensor": Teacher(replace(base, extra_args={**described, "cond": [{"area": (1, 2), "pooled": torch.zeros(2, 2)}]}), 8),
        "array": Teacher(replace(base, extra_args={"a": np.arange(3)}), 8),
        "array value": Teacher(replace(base, extra_args={"a": np.arange(3) + 1}), 8),
    }
    keys = {name: teacher.key for name, teacher in others.items()}
    assert len(set(keys.values())) == len(keys)
    assert all(len(key) == 24 and int(key, 16) >= 0 for key in keys.values())
    # and with nothing else: another object of the same content has the same key
    assert Teacher(replace(labelled, per_seed={"labels": torch.arange(4).clone()}), 8).key == keys["arguments"]
    assert Teacher(base, 8, folder=tmp_path).key == keys["base"]


def test_the_key_changes_with_the_format_and_the_solvers_version(monkeypatch):
    base = setting_of(GAUSSIANS["vp"], 4)
    key = Teacher(base, 8).key
    monkeypatch.setattr(teacher_module, "FORMAT_VERSION", 999)
    assert Teacher(base, 8).key != key


def test_stored_files_hold_plain_facts(tmp_path):
    teacher = Teacher(setting_of(GAUSSIANS["vp"], 5, batch=3), 4, folder=tmp_path).run()
    tensors, record = tensor_files.load_tensors(tmp_path / teacher.key / "batch-00001.safetensors")
    assert record == {"checksums": checksums(tensors), "format": 2, "key": teacher.key, "seeds": [3, 4]} and json.dumps(record)


def test_memory_holds_one_batch(tmp_path):
    """With a folder, the peak of live tensors does not grow with the number of seeds."""

    def live_bytes():
        tensors = [thing for thing in gc.get_objects() if type(thing) is torch.Tensor]
        return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())

    def peak(batches):
        seen = [0]

        def model(x, sigma):
            if float(sigma[0]) < 0.05:  # the end of a pass, when most is kept
                seen[0] = max(seen[0], live_bytes() - before)
            return x / (1 + sigma[0])

        setting = Setting(model, SCHEDULES["vp"], (64, 64), tuple(range(2 * batches)), batch=2, name=f"{batches}")
        gc.collect()
        before = live_bytes()
        teacher = Teacher(setting, 12, states=True, folder=tmp_path)
        count = sum(len(batch["end"]) for batch in teacher.batches())
        assert count == 2 * batches
        return seen[0]

    small, large = peak(2), peak(12)
    one_batch = 2 * 64 * 64 * 4 * (2 * 12 + 1)
    assert large < 1.15 * small and large < 1.25 * one_batch


# --- what cannot be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("first_bad", [1, 5])
def test_values_that_are_not_finite_are_said_and_not_kept(tmp_path, value, first_bad):
    setting = setting_of(GAUSSIANS["vp"], 4, lambda d, call: d * value if call >= first_bad else d, batch=2)
    teacher = Teacher(setting, 6, folder=tmp_path)
    with pytest.raises(FitError, match="not finite"), np.errstate(invalid="ignore"):
        teacher.run()
    assert contents(tmp_path) == []


def test_finished_batches_survive_a_failure(tmp_path):
    setting = setting_of(GAUSSIANS["vp"], 4, lambda d, call: d * float("nan") if call > 9 else d, batch=2)
    with pytest.raises(FitError):
        Teacher(setting, 6, folder=tmp_path).run()
    assert len(contents(tmp_path)) == 1


def test_a_teacher_that_diverges_is_said():
    setting = setting_of(GAUSSIANS["edm"], 3, lambda d, call: d * (300 if call == 16 else 1))
    with pytest.raises(FitError, match=r"The teacher diverged: its end points have size .*Lower the guidance"):
        Teacher(setting, 16).run()


def test_data_around_zero_is_no_divergence():
    """The first prediction is then almost 0 and the end points are not."""
    problem = Gaussian("edm", 80.0, 0.002, mean=(0.0, 0.0), std=(1.0, 0.5))
    end = Teacher(setting_of(problem, 8), 32).end_points
    assert 0.2 < float(end.std()) < 2


def test_bad_arguments_are_refused_in_a_sentence(tmp_path):
    setting = setting_of(GAUSSIANS["vp"], 3)
    wrong = [
        ({"steps": 0}, "steps was 0"),
        ({"steps": 2.5}, "steps was 2.5"),
        ({"solver": "heun"}, "one model call per step"),
        ({"solver": "dpmpp_2m_sde"}, "deterministic solver"),
        ({"solver": "magic"}, "magic"),
        ({"order": 9}, "order was 9"),
    ]
    for arguments, says in wrong:
        with pytest.raises(ValueError, match=says):
            Teacher(setting, **{"steps": 8, **arguments})
    with pytest.raises(ValueError, match="has no name"):
        Teacher(replace(setting, name=""), 8, folder=tmp_path)
    with pytest.raises(FitError, match="The model returned"):
        Teacher(replace(setting, model=lambda x, sigma: x[:1]), 8).run()
    assert contents(tmp_path) == []
