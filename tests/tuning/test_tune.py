"""Tuning lowers the end-point error on seeds it has not seen, keeps the best, can be stopped anywhere, and leaves the network alone."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fewstep.fitting import FitError, Interrupted, Teacher
from fewstep.fitting.progress import INTERRUPTED, Stage
from fewstep.fitting.run import run_table
from fewstep.fitting.trajectories import Trajectories
from fewstep.fitting.tuning import FullWeights, LoraAdapters, OtherState, Samples, load_lora, save_lora, tune
from fewstep.fitting.tuning.objective import TuningObjective
from fewstep.fitting.tuning.options import TuningOptions
from fewstep.training.distributed import Group

from ..half_precision import FLOAT16, needs_float16
from .networks import SIDE, Tunable, table_of, tunable_setting

LR = {"lr": 0.02, "average": 0.5}


def ends_of(setting) -> Tensor:
    return Teacher(setting, 24).end_points


def adapters_of(setting, kind: str = "lora"):
    network = setting.model if isinstance(setting.model, Tunable) else setting.model.inner_model
    return FullWeights(network) if kind == "full" else LoraAdapters(network, 3)


def numbers(adapters) -> list[Tensor]:
    return [p.detach().clone() for p in adapters.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def samples(count: int = 40) -> Samples:
    clean = 0.3 * torch.randn(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))
    return Samples(clean, {"labels": torch.arange(count) % 5})


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
@pytest.mark.parametrize("how", [{"kind": "lora"}, {"kind": "full"}, {"kind": "lora", "method": "steps"}])
def test_lowers_the_error_on_new_seeds(family, how):
    setting = tunable_setting(56, family=family)
    arguments = {name: value for name, value in how.items() if name != "kind"}
    adapters, table = adapters_of(setting, how["kind"]), table_of(family=family)
    result = tune(setting, table, adapters, held_out=16, teacher=ends_of(setting), passes=6, checks=4, **LR, **arguments)
    new = replace(tunable_setting(40, family=family), model=setting.model, seeds=tuple(range(1000, 1040)))
    targets = ends_of(new)

    def error() -> float:
        return float((run_table(new, table).end - targets).square().mean().sqrt())

    before = error()
    with adapters.attached():
        after = error()
    assert result.improved and result.adapters is adapters and result.table is table
    assert result.held_out_after < 0.95 * result.held_out_before and after < 0.97 * before
    assert result.history[0].batches == 0 and result.history[-1].batches == 30 and len(result.history) == 5
    assert result.held_out_after == min(check.error for check in result.history)


def test_the_result_is_what_the_file_of_it_gives(tmp_path):
    setting = tunable_setting(24)
    adapters, table = adapters_of(setting), table_of()
    tune(setting, table, adapters, held_out=8, teacher=ends_of(setting), checks=1, **LR)
    save_lora(tmp_path / "a.safetensors", adapters)
    loaded = load_lora(setting.model, tmp_path / "a.safetensors")
    with adapters.attached():
        wanted = run_table(setting, table).end
    with loaded.attached():
        assert torch.equal(run_table(setting, table).end, wanted)
    assert not torch.equal(run_table(setting, table).end, wanted)


def test_nothing_returned_is_worse_than_the_untuned_model():
    setting = tunable_setting(24)
    ends = ends_of(setting)
    ends[:16] = 3.0  # what is tuned on has nothing to do with what is measured on
    adapters = adapters_of(setting)
    before = numbers(adapters)
    result = tune(setting, table_of(), adapters, held_out=8, teacher=ends, passes=6, lr=0.1, checks=1)
    assert result.history[-1].error > result.held_out_before
    assert not result.improved and result.held_out_after == result.held_out_before
    assert same(numbers(adapters), before)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_the_network_stays_as_it_was(kind):
    setting = tunable_setting(16)
    network = setting.model
    network.out.weight.requires_grad_(True)
    network.out.bias.requires_grad_(False)
    before = [(name, id(p), p.requires_grad, p.detach().clone()) for name, p in network.named_parameters()]
    adapters = adapters_of(setting, kind)

    def unchanged() -> bool:
        now = list(network.named_parameters())
        hooks = [module._forward_hooks or module._forward_pre_hooks for module in network.modules()]
        return not any(hooks) and all(
            (name, id(p), p.requires_grad) == (wanted, identity, asked) and torch.equal(p, value) and p.grad is None
            for (name, p), (wanted, identity, asked, value) in zip(now, before, strict=True)
        )

    arguments = {"held_out": 8, "teacher": ends_of(setting), "checkpointing": True, **LR}
    assert tune(setting, table_of(), adapters, **arguments).improved and unchanged()
    assert all(p.grad is None for p in adapters.parameters())
    for error in (Interrupted("enough"), FitError("broken"), KeyboardInterrupt(), ValueError("x"), torch.cuda.OutOfMemoryError("CUDA: x")):
        for at in (0, 2, 9, 14):
            pressed = replace(setting, model=Raising(network, at, error))
            adapters = adapters_of(pressed, kind)
            with pytest.raises(BaseException) if at < 3 or not isinstance(error, Interrupted) else Nothing():
                tune(pressed, table_of(), adapters, **arguments)
            assert unchanged(), (error, at)
            assert all(not p.grad_fn and p.grad is None for p in adapters.parameters())


class Nothing:
    """No exception is expected."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


class Raising(nn.Module):
    """The call of this number raises."""

    def __init__(self, inner: nn.Module, at: int, error: BaseException) -> None:
        super().__init__()
        self.inner_model, self.at, self.error, self.here = inner, at, error, 0

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        self.here += 1
        if self.here - 1 == self.at:
            raise self.error
        return self.inner_model(x, sigma, **extra)


def course(setting=None, kind: str = "lora", **changes):
    """A short tuning; its result and numbers."""
    setting = setting or tunable_setting(24)
    adapters = adapters_of(setting, kind)
    arguments = {"held_out": 8, "teacher": ends_of(tunable_setting(24)), "passes": 2, "checks": 2} | LR | changes
    return tune(setting, table_of(), adapters, **arguments), numbers(adapters)


def test_the_seed_decides_and_checkpointing_does_not():
    (_, first), (_, again), (_, recomputed), (_, other) = (
        course(seed=seed, checkpointing=checkpointing, passes=3)
        for seed, checkpointing in ((1, False), (1, False), (1, True), (2, False))
    )
    assert same(first, again) and not same(first, other)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first, recomputed, strict=True))


@pytest.mark.parametrize("more", [{}, {"method": "steps", "own_states": True}, {"matching": 0.5, "denoising": 1.0, "samples": samples()}])
def test_accumulated_batches_are_larger_ones(more):
    small, large = tunable_setting(28, batch=4), tunable_setting(28, batch=8)
    ends = ends_of(large)
    (first, one), (second, two) = (
        course(setting, teacher=ends, accumulate=accumulate, **more) for setting, accumulate in ((small, 2), (large, 1))
    )
    assert [check.error for check in first.history] == pytest.approx([check.error for check in second.history], rel=1e-4)
    assert [check.loss for check in first.history[1:]] == pytest.approx([check.loss for check in second.history[1:]], rel=1e-4)
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(one, two, strict=True))
    assert first.improved


def test_no_average_keeps_the_numbers_of_a_check():
    result, now = course(average=0.0, checks=1)
    with_average, averaged = course(average=0.9, checks=1)
    assert result.improved and with_average.improved and not same(now, averaged)
    assert result.held_out_after != with_average.held_out_after


# --- teacher -----------------------------------------------------------------------------------------------------------------------------


def test_the_teacher_s_states_are_the_untuned_model_s(tmp_path):
    """Also those of batches that come after the first Adam step, which a folder keeps for the next tuning."""
    setting, table = tunable_setting(40), table_of()
    tune(setting, table, adapters_of(setting), method="steps", held_out=8, teacher=ends_of(setting), passes=1, lr=0.2, folder=tmp_path)
    own, stamps = tunable_setting(40).subset(range(32)), (*table.sigmas[:-1], 0.02, 0.0)
    if table.sigmas[-2] < 0.02 * 1.001:
        stamps = table.sigmas
    kept, fresh = Trajectories(own, stamps, "unipc", 3, 4, tmp_path), Trajectories(own, stamps, "unipc", 3, 4)
    for index in range(4):
        assert torch.equal(kept.states(index), fresh.states(index)), index
    assert kept.calls == 0


def test_a_teacher_pass_is_used_as_it_is():
    setting = tunable_setting(24)
    teacher = Teacher(setting, 24).run()
    calls = setting.model.calls
    result = tune(setting, table_of(), adapters_of(setting), held_out=8, teacher=teacher, passes=1, checks=1, **LR)
    assert setting.model.calls - calls == 1 * 3 + 2 * 3 + 1 * 3
    assert result.calls == 3 + 2 * 9 + 3
    fresh = tune(setting, table_of(), adapters_of(setting), held_out=8, passes=1, checks=1, **LR)
    assert fresh.calls == result.calls + 3 * 64
    own = teacher.end_points
    for wrong, said in (
        (Teacher(tunable_setting(25), 24), "other seeds"), (own[:20], "have shape"), ("teacher", "must be a Teacher"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            tune(setting, table_of(), adapters_of(setting), held_out=8, teacher=wrong)
    with pytest.raises(FitError, match="not all finite"):
        tune(setting, table_of(), adapters_of(setting), held_out=8, teacher=own * math.nan)


# --- interruptions -----------------------------------------------------------------------------------------------------------------------


class Stop:
    """Interrupts at the batch given."""

    def __init__(self, at: int, what: str = "train") -> None:
        self.at, self.what = at, what
        self.stages: list[Stage] = []

    def __call__(self, stage: Stage) -> None:
        self.stages.append(stage)
        if stage.what == self.what and stage.done >= self.at:
            raise Interrupted("enough")


VARIETY = {
    "end": {}, "steps": {"method": "steps"},
    "full, checkpointing": {"kind": "full", "checkpointing": True}, "denoising": {"denoising": 0.5, "samples": samples()},
    "accumulated": {"accumulate": 2, "passes": 4}, "bfloat16, no average": {"autocast": torch.bfloat16, "average": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("what", VARIETY)
def test_wherever_it_is_interrupted_the_rest_gives_the_same(tmp_path, what):
    """By the model: in the teacher's states, in the middle of a batch, and in checks."""
    options = VARIETY[what]
    ends = ends_of(tunable_setting(24))

    def run(at: int, **more):
        setting = tunable_setting(24)
        pressed = replace(setting, model=Raising(setting.model, at, Interrupted("enough")))
        return (*course(pressed, teacher=ends, **options, **more), pressed.model.here)

    whole, wanted, calls = run(-1)
    assert whole.improved and calls > 20
    for at in range(3, calls, max(2, calls // 4)):
        file = tmp_path / f"{at}.safetensors"
        part, _, _ = run(at, resume=file)
        assert part.stopped == INTERRUPTED and part.held_out_after <= part.held_out_before
        rest, found, _ = run(-1, resume=file)
        assert [(check.batches, check.error) for check in rest.history] == [(check.batches, check.error) for check in whole.history]
        assert [check.loss for check in rest.history[1:]] == [check.loss for check in whole.history[1:]]
        assert same(found, wanted) and rest.stopped == whole.stopped
    again, once_more, made = run(-1, resume=file)
    assert same(once_more, wanted) and made == 0 and again.held_out_after == whole.held_out_after
    assert sorted(tmp_path.glob("*.part")) == []


def test_an_interruption_by_progress_and_before_anything_is_known(tmp_path):
    file = tmp_path / "state.safetensors"
    stop = Stop(3)
    part, _ = course(progress=stop, resume=file, passes=3)
    assert part.stopped == INTERRUPTED and stop.stages[-1].done == 3 and math.isfinite(stop.stages[-1].loss)
    assert [stage.done for stage in stop.stages] == [1, 2, 3] and {stage.total for stage in stop.stages} == {6}
    _, wanted = course(passes=3)
    rest, found = course(passes=3, resume=file)
    assert same(found, wanted) and rest.seconds > part.seconds
    file.unlink()
    stop = Stop(2, "teacher")
    with pytest.raises(Interrupted):
        course(progress=stop, resume=file, teacher=None)
    assert not file.exists() and stop.stages[-1].total == 3 * 64
    setting = tunable_setting(24)
    for at in (0, 2):  # in the first measurement
        with pytest.raises(Interrupted):
            course(replace(setting, model=Raising(setting.model, at, Interrupted("enough"))), resume=file)
    assert not file.exists()


def test_another_tuning_s_state_is_refused(tmp_path):
    file = tmp_path / "state.safetensors"
    course(resume=file, checks=1)
    content = file.read_bytes()
    others = {
        "seed": {"seed": 1}, "lr": {"lr": 0.01}, "passes": {"passes": 3}, "method": {"method": "steps"}, "kind": {"kind": "full"},
        "teacher": {"teacher": 1.01 * ends_of(tunable_setting(24))}, "seeds": {"setting": tunable_setting(25), "teacher": None},
        "samples": {"denoising": 1.0, "samples": samples()}, "precision": {"autocast": torch.bfloat16},
        "arguments": {"setting": tunable_setting(24, per_seed={"labels": torch.zeros(24, dtype=torch.long)})},
    }  # fmt: skip
    for changes in others.values():
        with pytest.raises(OtherState, match="other settings"):
            course(**({"resume": file, "checks": 1} | changes))
    assert file.read_bytes() == content
    again, _ = course(resume=file, checks=1, checkpointing=True, patience=7, minutes=9.0)  # these decide nothing
    assert again.stopped == "all passes were made"


def test_two_sets_of_samples_are_two_tunings(tmp_path):
    file = tmp_path / "state.safetensors"
    options = {"denoising": 1.0, "checks": 1, "resume": file}
    course(samples=samples(), **options)
    labelled = replace(samples(), per_sample={"labels": torch.zeros(40, dtype=torch.long)})
    for other in (samples(41), labelled):
        with pytest.raises(OtherState):
            course(samples=other, **options)


def test_a_damaged_state_is_refused_and_changes_nothing(tmp_path):
    import json

    from safetensors.torch import save_file

    from fewstep.tensor_files import load_tensors

    file = tmp_path / "state.safetensors"
    course(resume=file, progress=Stop(3), passes=3)
    tensors, facts = load_tensors(file)
    damages = [
        ({"now.0": tensors["now.0"][:1]}, {}), ({"best.1": tensors["best.1"] * math.nan}, {}),
        ({"adam.exp_avg.0": torch.zeros(2)}, {}), ({"adam.exp_avg_sq.1": tensors["adam.exp_avg_sq.1"] * math.inf}, {}),
        ({}, {"done": "three"}), ({}, {"history": [[1, 2]]}), ({}, {"history": None}), ({}, {"best_error": [1.0]}), ({}, None),
    ]  # fmt: skip
    setting = tunable_setting(24)
    for changed, record in damages:
        told = None if record is None else {**facts["record"], **record}
        save_file({**tensors, **changed}, file, {"fewstep": json.dumps({**facts, "record": told})})
        adapters = adapters_of(setting)
        before = numbers(adapters)
        with pytest.raises(OtherState, match="damaged"):
            tune(setting, table_of(), adapters, held_out=8, teacher=ends_of(tunable_setting(24)), passes=3, checks=2, resume=file, **LR)
        assert same(numbers(adapters), before), (list(changed), record)
    for content in (b"", b"nothing"):
        file.write_bytes(content)
        with pytest.raises(OtherState, match="cannot be read"):
            course(resume=file, passes=3)


def test_a_state_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FitError, match="could not be written"):
        course(resume=tmp_path / "file" / "inside.safetensors")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


# --- failures ----------------------------------------------------------------------------------------------------------------------------


class Spoiled(nn.Module):
    """NaN, or a gradient of NaN alone, for some calls with gradients."""

    def __init__(self, inner: nn.Module, every: int, gradient_only: bool = False) -> None:
        super().__init__()
        self.inner_model, self.every, self.gradient_only, self.here = inner, every, gradient_only, 0

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        out = self.inner_model(x, sigma, **extra)
        if torch.is_grad_enabled():
            self.here += 1
            if self.here % self.every == 0:
                return out + 0 * (out - out.detach()).abs().sqrt() if self.gradient_only else out * math.nan
        return out


@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize("method", ["end", "steps"])
def test_values_that_are_not_finite_are_survived_or_reported(gradient_only, method):
    setting = tunable_setting(48)
    ends = ends_of(setting)
    sometimes = replace(setting, model=Spoiled(setting.model, 13, gradient_only))
    adapters = adapters_of(sometimes)
    result = tune(sometimes, table_of(), adapters, method=method, held_out=8, teacher=ends, passes=5, **LR)
    assert 0 < result.skipped < 12 and result.improved
    assert all(bool(p.isfinite().all()) for p in adapters.parameters())
    always = replace(setting, model=Spoiled(setting.model, 1, gradient_only))
    adapters = adapters_of(always)
    before = numbers(adapters)
    with pytest.raises(FitError, match="20 batches in a row"):
        tune(always, table_of(), adapters, method=method, held_out=8, teacher=ends, passes=9)
    assert same(numbers(adapters), before)


class Late(nn.Module):
    """After so many calls with gradients, all are NaN."""

    def __init__(self, inner: nn.Module, after: int) -> None:
        super().__init__()
        self.inner_model, self.after, self.here = inner, after, 0

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        self.here += torch.is_grad_enabled()
        out = self.inner_model(x, sigma, **extra)
        return out * math.nan if torch.is_grad_enabled() and self.here > self.after else out


def test_a_failure_keeps_the_best():
    setting = tunable_setting(24)
    late, table = replace(setting, model=Late(setting.model, 3 * 8)), table_of()
    adapters = adapters_of(late)
    before = numbers(adapters)
    ends = ends_of(setting)
    with pytest.raises(FitError, match="not finite"):
        tune(late, table, adapters, held_out=8, teacher=ends, passes=40, checks=20, **LR)
    assert not same(numbers(adapters), before)
    held = setting.subset(range(16, 24))
    plain = (run_table(held, table).end - ends[16:]).square().mean()
    with adapters.attached():
        assert (run_table(held, table).end - ends[16:]).square().mean() < plain


def test_an_untuned_model_that_fails():
    setting = tunable_setting(24)
    broken = replace(setting, model=Broken(setting.model))
    with pytest.raises(FitError, match="untuned model's end points are not finite"):
        course(broken)


class Broken(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner_model = inner

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        return self.inner_model(x, sigma, **extra) / 0


@pytest.mark.parametrize("when", ["teacher", "tune"])
@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory."), MemoryError(), "too much"], ids=["cuda", "python", "cpu"]
)
def test_memory_that_runs_out(when, error):
    setting = tunable_setting(24)
    model = Raising(setting.model, 5 if when == "tune" else 70, error) if error != "too much" else Greedy(setting.model, when == "tune")
    ends = None if when == "teacher" else ends_of(setting)
    adapters = adapters_of(setting)
    before = numbers(adapters)
    with pytest.raises(FitError, match="Memory ran out in a batch of 8 samples"):
        tune(replace(setting, model=model), table_of(), adapters, held_out=8, teacher=ends)
    assert same(numbers(adapters), before)


class Greedy(nn.Module):
    """Wants more memory than there is in the world."""

    def __init__(self, inner: nn.Module, with_gradients: bool) -> None:
        super().__init__()
        self.inner_model, self.with_gradients = inner, with_gradients

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        if torch.is_grad_enabled() == self.with_gradients:
            torch.empty(2**50)
        return self.inner_model(x, sigma, **extra)


def test_models_that_gradients_cannot_pass():
    setting = tunable_setting(24)
    ends = ends_of(setting)
    network = setting.model
    without = replace(setting, model=lambda x, sigma, **extra: network(x, sigma, **extra).detach())
    for method in ("end", "steps"):
        with pytest.raises(ValueError, match="No gradient of the loss reaches"):
            tune(without, table_of(), LoraAdapters(network, 2), method=method, held_out=8, teacher=ends)
    elsewhere = LoraAdapters(nn.Sequential(nn.Linear(3, 3)), 2)
    with pytest.raises(ValueError, match="calls none of the adapted layers"):
        tune(setting, table_of(), elsewhere, held_out=8, teacher=ends)


class Extra(nn.Module):
    """A layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.unused = Tunable(), nn.Linear(3, 3)

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        return self.inside(x, sigma, **extra)


def test_layers_that_are_never_called_stay_at_nothing():
    setting = replace(tunable_setting(24), model=Extra())
    adapters = LoraAdapters(setting.model, 2)
    result = tune(setting, table_of(), adapters, held_out=8, teacher=ends_of(setting), **LR)
    assert result.improved and adapters.names[-1] == "unused" and not bool(adapters.up[-1].any())


# --- hosts -------------------------------------------------------------------------------------------------------------------------------


def test_inside_inference_mode():
    """What is made there by a host: the adapters, the conditioning, the teacher's end points; the network was loaded elsewhere."""
    network = Tunable()
    with torch.inference_mode():
        setting = replace(tunable_setting(24), model=WithContext(network), extra_args={"context": [torch.zeros(SIDE)]})
        for method in ("end", "steps"):
            adapters = LoraAdapters(network, 3)
            ends = ends_of(setting)
            assert ends.is_inference() and setting.extra_args["context"][0].is_inference()
            assert tune(setting, table_of(), adapters, method=method, held_out=8, teacher=ends, checkpointing=True, **LR).improved
            with adapters.attached():
                run_table(setting, table_of())
    assert all(not p.is_inference() for p in network.parameters())


class WithContext(nn.Module):
    """Conditioning that a layer multiplies: autograd has to keep it."""

    def __init__(self, inner: Tunable) -> None:
        super().__init__()
        self.inner_model = inner

    def forward(self, x: Tensor, sigma: Tensor, context: list[Tensor], **extra: Tensor) -> Tensor:
        return self.inner_model(x, sigma, **extra) + 0.1 * self.inner_model.attn.to_q(context[0])


def test_networks_made_in_inference_mode():
    with torch.inference_mode():
        setting = replace(tunable_setting(24), model=Tunable())
    ends = ends_of(setting)
    calls = setting.model.calls
    model = setting.model
    for refused in (setting, replace(setting, model=lambda x, sigma, **extra: model(x, sigma, **extra))):
        with pytest.raises(ValueError, match=r"torch.inference_mode, so gradients cannot pass"):
            tune(refused, table_of(), LoraAdapters(model, 3), held_out=8, teacher=ends)
    assert model.calls == calls
    with pytest.raises(ValueError, match=r"torch.inference_mode, so gradients cannot pass"):  # buffers; the weights have copies
        tune(setting, table_of(), FullWeights(model), held_out=8, teacher=ends)


@pytest.mark.parametrize("dtype", [FLOAT16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_networks_in_half_precision(dtype, kind):
    setting = tunable_setting(24)
    ends = ends_of(setting)
    for layer in (setting.model.inside, setting.model.attn, setting.model.out):
        layer.to(dtype)
    adapters = adapters_of(setting, kind)
    result = tune(setting, table_of(), adapters, held_out=8, teacher=ends, passes=3, **LR)
    assert result.improved and not result.skipped
    assert setting.model.out.weight.dtype == dtype and all(p.dtype == torch.float32 for p in adapters.parameters() if p.ndim)


@pytest.mark.parametrize("dtype", [FLOAT16, torch.bfloat16])
def test_autocast(dtype):
    exact, wanted = course(passes=3)
    rough, found = course(passes=3, autocast=dtype)
    assert rough.improved and not rough.skipped and not same(found, wanted)
    assert rough.held_out_after == pytest.approx(exact.held_out_after, rel=0.05)


@needs_float16
def test_half_precision_takes_smaller_factors_where_gradients_overflow():
    """Losses times 1024 overflow in float16 here, and times some smaller power of two they do not."""
    setting = tunable_setting(24)
    ends = ends_of(setting)
    steep = replace(setting, model=Steep(setting.model))
    adapters = adapters_of(steep)
    result = tune(steep, table_of(), adapters, held_out=8, teacher=ends, passes=10, autocast=torch.float16, **LR)
    assert 1 <= result.skipped <= 8 and result.improved


def test_the_factor_of_half_precision_is_taken_out_again():
    """And gradients are sums over the samples, however these come in chunks."""
    setting = tunable_setting(24)
    ends, found = ends_of(setting), {}
    network = setting.model
    for batch, factor in ((8, 1.0), (8, 1024.0), (24, 1.0)):
        adapters = LoraAdapters(network, 3)
        with torch.no_grad():
            for up in adapters.up:
                up += 0.1
        options = TuningOptions(
            method="end", matching=1.0, denoising=0.0, own_states=False, passes=1, lr=0.1, average=0.5, checks=1, patience=None, seed=0,
            checkpointing=False, autocast=None,
        )  # fmt: skip
        own = replace(setting, batch=batch)
        objective = TuningObjective(own, own, ends, ends, table_of(), adapters, options, Group())
        assert objective.scale == 1.0
        objective.scale = factor
        found[batch, factor] = objective.gradient(range(24 // batch), 0)
    one, scaled, whole = found.values()
    size = float(one.gradient.abs().max())
    assert size > 1e-3 and torch.allclose(one.gradient, scaled.gradient, rtol=1e-4, atol=1e-5 * size)
    assert torch.allclose(one.gradient, whole.gradient, rtol=1e-3, atol=1e-4 * size)
    assert one.samples == whole.samples == 24 and one.loss == pytest.approx(whole.loss, rel=1e-4)
    half = replace(setting, dtype=torch.float16)
    assert TuningObjective(half, half, ends, ends, table_of(), adapters, options, Group()).scale > 1
    network.out.half()
    assert TuningObjective(setting, setting, ends, ends, table_of(), LoraAdapters(network, 3), options, Group()).scale > 1


class Steep(nn.Module):
    """The gradient passes a float16 tensor in which it is large."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner_model = inner

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        out = self.inner_model(x, sigma, **extra)
        return (out / 4000).half().float() * 4000 - (out.detach() / 4000).half().float() * 4000 + out.detach()


def test_double_precision():
    setting = replace(tunable_setting(24), dtype=torch.float64)
    result = tune(setting, table_of(), adapters_of(setting), held_out=8, teacher=ends_of(setting), **LR)
    assert result.improved


# --- ends ---------------------------------------------------------------------------------------------------------------------------------


def test_early_stop_and_time_limit(tmp_path):
    ends = ends_of(tunable_setting(24))
    ends[:16] = 3.0
    result, _ = course(teacher=ends, passes=10, checks=4, patience=2, lr=0.1)
    assert len(result.history) == 3 and "2 measurements on held-out seeds in a row were no better" in result.stopped
    file = tmp_path / "state.safetensors"
    result, _ = course(passes=10, minutes=1e-9, resume=file)
    assert "minutes had passed" in result.stopped and len(result.history) == 1
    rest, found = course(passes=10, resume=file)
    _, wanted = course(passes=10)
    assert same(found, wanted) and rest.stopped == "all passes were made"


def test_a_check_without_bounds_is_told_as_such_after_a_resumption(tmp_path):
    """An error that is infinite has no number in the file."""
    file = tmp_path / "state.safetensors"
    options = {"lr": 0.9, "passes": 3, "checks": 3, "average": 0.0}
    setting = replace(tunable_setting(24), model=Brittle())
    adapters = adapters_of_brittle(setting)
    part = tune(setting, table_of(), adapters, held_out=8, teacher=torch.zeros(24, 1, SIDE, SIDE), resume=file, **options)
    assert any(math.isinf(check.error) for check in part.history)
    again = tune(
        setting, table_of(), adapters_of_brittle(setting), held_out=8, teacher=torch.zeros(24, 1, SIDE, SIDE), resume=file, **options
    )
    assert again.history[1:] == part.history[1:]


def adapters_of_brittle(setting) -> LoraAdapters:
    return LoraAdapters(setting.model.inside, 3, layers="out")


class Brittle(nn.Module):
    """Infinite as soon as it is tuned, where there are no gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = Tunable()

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        out = self.inside(x, sigma, **extra)
        moved = out - self.inside.exact(x, sigma, **extra) - self.plain(x, sigma)
        return out if torch.is_grad_enabled() or float(moved.abs().max()) < 1e-6 else out / 0

    def plain(self, x: Tensor, sigma: Tensor) -> Tensor:
        hooks, self.inside.out._forward_hooks = self.inside.out._forward_hooks, type(self.inside.out._forward_hooks)()
        try:
            return self.inside(x, sigma) - self.inside.exact(x, sigma)
        finally:
            self.inside.out._forward_hooks = hooks


BAD = [
    ({"method": "all"}, "must be one of end, steps"), ({"matching": -1.0}, "0 or more"), ({"matching": math.inf}, "finite number"),
    ({"matching": 0.0}, "both 0"), ({"denoising": 1.0}, "no samples"), ({"samples": samples()}, "has the weight 0"),
    ({"samples": [torch.zeros(1)], "denoising": 1.0}, "must be Samples"),
    ({"samples": Samples(torch.zeros(2, 3, 8, 8)), "denoising": 1.0}, "The samples have shape"),
    ({"passes": 0}, "passes was 0"), ({"checks": 0}, "checks was 0"), ({"accumulate": 1.5}, "accumulate"), ({"patience": 0}, "patience"),
    ({"seed": -1}, "seed"), ({"seed": 2**32 + 1}, "2.32"), ({"lr": 0.0}, "learning rate"), ({"lr": 1.0}, "learning rate"),
    ({"lr": "fast"}, "finite number"), ({"average": 1.0}, "below 1"), ({"autocast": torch.float32}, "autocast was"),
    ({"minutes": 0}, "time above 0"), ({"minutes": math.nan}, "time above 0"), ({"held_out": 24}, "left to train on"),
    ({"held_out": 0}, "held_out was 0"), ({"table": table_of(family="vp")}, "family is edm"), ({"table": "ddim"}, "must be a SolverTable"),
    ({"table": table_of("dpmpp_2m_sde")}, "fresh noise"), ({"adapters": nn.Linear(2, 2)}, "must be LoraAdapters or FullWeights"),
    ({"method": "steps", "between": -1}, "between"), ({"method": "steps", "folder": "/x", "setting": {"name": ""}}, "no name"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), BAD, ids=[str(index) for index in range(len(BAD))])
def test_bad_arguments_are_refused_before_anything_is_called(changes, said):
    setting = replace(tunable_setting(24), **changes.get("setting", {}))
    arguments = {"table": table_of(), "adapters": adapters_of(setting), "held_out": 8, "teacher": torch.zeros(24, 1, SIDE, SIDE)}
    arguments |= {name: value for name, value in changes.items() if name != "setting"}
    with pytest.raises(ValueError, match=said):
        tune(setting, arguments.pop("table"), arguments.pop("adapters"), **arguments)
    assert setting.model.calls == 0


def test_tables_that_end_above_zero():
    from fewstep.solvers import build_table

    setting = tunable_setting(24)
    with pytest.raises(ValueError, match=r"ends at sigma 0.02; tuning compares end points"):
        tune(setting, build_table("ddim", [20.0, 1.0, 0.02], "edm"), adapters_of(setting), held_out=8)
