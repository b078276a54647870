"""Training reaches smaller end-point errors on seeds it has not seen, by every method, and does what it says on the way."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from fewstep.amed import AmedConfig, AmedPredictor, AmedTable, load_amed, save_amed, train_amed
from fewstep.amed.joint import candidate, constants_on, end_points, plain_candidate, stamps_of
from fewstep.amed.taps import ModuleTap
from fewstep.amed.training import OtherState, saved_table
from fewstep.fitting import Ending, FitError, Interrupted, Limit, Stage, Teacher, compare
from fewstep.fitting.run import run_table
from fewstep.fitting.trajectories import Trajectories, refined
from fewstep.schedules import baseline_sigmas, optimal_sigmas
from fewstep.solvers import build_table

from ..toy_denoiser import SCHEDULES, ToyDenoiser, toy_setting

STAMPS = {family: tuple(baseline_sigmas("uniform_lambda", ns, 3).tolist()) for family, ns in SCHEDULES.items()}


def config_of(form: str = "ipndm2", family: str = "edm", **changes: object) -> AmedConfig:
    return AmedConfig(form, STAMPS[family], family, **({"scale_dir": 0.1, "scale_time": 0.1} | changes))  # type: ignore[arg-type]


def ends_of(setting) -> Tensor:
    """Teacher end points."""
    return Teacher(setting, 32).end_points


def error(setting, net, ends: Tensor) -> float:
    return float((end_points(setting, net) - ends).double().square().mean().sqrt())


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
@pytest.mark.parametrize(("mode", "method"), [("predictor", "end"), ("table", "end"), ("table", "forward"), ("predictor", "steps")])
def test_lowers_the_error_on_new_seeds(family, mode, method):
    setting = toy_setting(56, family=family)
    ends = ends_of(setting)
    config = config_of("amed" if method == "steps" else "ipndm2", family)
    result = train_amed(setting, config, mode=mode, method=method, held_out=16, teacher=ends, passes=4, checks=4)
    new = replace(toy_setting(40, family=family), seeds=tuple(range(1000, 1040)))
    targets = ends_of(new)
    plain = error(new, AmedTable(config), targets)
    assert result.held_out_after < 0.95 * result.held_out_before
    assert error(new, result.net, targets) < 0.98 * plain
    assert result.net.facts["error_after"] == result.held_out_after and result.net.facts["method"] == method


@pytest.mark.parametrize("form", ["euler", "dpm2", "ipndm4", "dpmpp2", "dpmpp3", "unipc2", "unipc3"])
def test_every_form_learns(form):
    setting = toy_setting(32)
    result = train_amed(setting, config_of(form), held_out=8, teacher=ends_of(setting), passes=4, checks=2)
    assert result.held_out_after < result.held_out_before


def test_the_published_optimisation_moves_states_towards_the_teacher_s():
    """With one interval the loss of the step is the error of the end point, so both methods have the same gradient."""
    setting = toy_setting(24, batch=24)
    stamps = (5.0, 0.5)
    config = AmedConfig("amed", stamps, "edm", scale_dir=0.1)
    trajectories = Trajectories(setting.subset(range(16)), stamps, "unipc", 3, 6)
    ends = torch.cat([trajectories.states(0)[-1], torch.zeros(8, *setting.shape)])
    arguments = {"mode": "table", "held_out": 8, "teacher": ends, "anneal": False, "passes": 3}
    found = [
        train_amed(setting, config, method="steps", trajectories=trajectories, **arguments),
        train_amed(setting, config, method="end", **arguments),
    ]
    assert [check.loss for check in found[0].history[1:]] == pytest.approx([check.loss for check in found[1].history[1:]], rel=1e-5)


def test_nothing_returned_is_worse_than_the_plain_solver():
    setting = toy_setting(24)
    ends = ends_of(setting)
    ends[:16] = 10.0  # what is trained on has nothing to do with what is measured on
    for mode in ("predictor", "table"):
        result = train_amed(setting, config_of(), mode=mode, held_out=8, teacher=ends, passes=3, lr=0.1)
        assert not result.improved and result.held_out_after == result.held_out_before
        choice = result.net.choose(0, torch.randn(3, 64))
        assert all(bool((value == number).all()) for value, number in zip(choice, (0.5, 1.0, 1.0), strict=True))


def test_a_predictor_can_begin_with_a_table():
    setting = toy_setting(48)
    ends = ends_of(setting)
    table = train_amed(setting, config_of(), mode="table", method="forward", held_out=16, teacher=ends)
    assert isinstance(table.net, AmedTable)
    result = train_amed(setting, config_of(), held_out=16, teacher=ends, start=table.net, lr=1e-3, passes=2)
    assert result.history[0].error == pytest.approx(table.held_out_after, rel=0.05)
    assert result.held_out_before == pytest.approx(table.held_out_before) and result.held_out_after <= result.history[0].error
    assert isinstance(result.net, AmedPredictor)


def test_the_model_stays_as_it_was():
    setting = toy_setting(16)
    assert isinstance(setting.model, ToyDenoiser)
    before = {name: value.clone() for name, value in setting.model.state_dict().items()}
    train_amed(setting, config_of(), held_out=8, teacher=ends_of(setting), checkpointing=True)
    assert all(torch.equal(value, before[name]) for name, value in setting.model.state_dict().items())
    assert setting.model.strength.requires_grad and setting.model.strength.grad is None
    assert not setting.model.middle_block._forward_hooks and not setting.model._forward_pre_hooks


def test_the_same_seed_gives_the_same_numbers_and_checkpointing_changes_none():
    setting = toy_setting(24)
    ends = ends_of(setting)
    runs = [
        train_amed(setting, config_of(), held_out=8, teacher=ends, passes=2, seed=seed, checkpointing=checkpointing)
        for seed, checkpointing in ((1, False), (1, False), (1, True), (2, False))
    ]
    first, again, recomputed, other = ([p.detach() for p in run.net.parameters()] for run in runs)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first, recomputed, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


class Stop:
    """Interrupts at the batch given."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.stages: list[Stage] = []

    def __call__(self, stage: Stage) -> None:
        self.stages.append(stage)
        if stage.what == "train" and stage.done >= self.at:
            raise Interrupted("enough")


@pytest.mark.parametrize("method", ["steps", "end"])
def test_an_interrupted_training_goes_on_to_the_same_result(tmp_path, method):
    setting = toy_setting(32)
    arguments = {"method": method, "held_out": 8, "teacher": ends_of(setting), "passes": 3, "checks": 3}
    whole = train_amed(setting, config_of(), **arguments)
    file = tmp_path / "state.safetensors"
    stop = Stop(4)
    part = train_amed(setting, config_of(), resume=file, progress=stop, **arguments)
    assert part.ending is Ending.INTERRUPTED and stop.stages[-1].done == 4
    assert len(stop.stages[-1].constants["r"]) == 2 and math.isfinite(stop.stages[-1].loss)
    rest = train_amed(setting, config_of(), resume=file, **arguments)
    for a, b in zip(whole.net.parameters(), rest.net.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [check.error for check in rest.history] == [check.error for check in whole.history]
    with pytest.raises(ValueError, match="other settings"):
        train_amed(setting, config_of(scale_dir=0.2), resume=file, **arguments)
    file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        train_amed(setting, config_of(), resume=file, **arguments)


class Pressed(nn.Module):
    """A host's model: the call of this number is interrupted."""

    def __init__(self, inner: ToyDenoiser, at: int) -> None:
        super().__init__()
        self.inner_model, self.at = inner, at

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        if self.inner_model.calls == self.at:
            raise Interrupted("enough")
        return self.inner_model(x, sigma, **extra)


def test_wherever_the_model_is_interrupted_the_rest_gives_the_same(tmp_path):
    """In the middle of a batch of several Adam steps, and in a check."""
    ends, arguments = ends_of(toy_setting(24)), {"method": "steps", "held_out": 8, "passes": 2, "checks": 2}

    def run(at: int, **more):
        setting = toy_setting(24)
        trajectories = Trajectories(setting.subset(range(16)), STAMPS["edm"], "unipc", 2, 0, tmp_path)
        pressed = replace(setting, model=Pressed(setting.model, at))
        result = train_amed(pressed, config_of(), teacher=ends, trajectories=trajectories, **arguments, **more)
        return result, setting.model.calls

    run(-1)  # the trajectories are stored now
    whole, calls = run(-1)
    for at in range(5, calls, 3):
        file = tmp_path / f"{at}.safetensors"
        part, _ = run(at, resume=file)
        assert part.ending is Ending.INTERRUPTED
        rest, _ = run(-1, resume=file)
        assert [(check.batches, check.error) for check in rest.history] == [(check.batches, check.error) for check in whole.history]
        assert [check.loss for check in rest.history[1:]] == pytest.approx([check.loss for check in whole.history[1:]], rel=1e-12)
        assert all(torch.equal(a, b) for a, b in zip(whole.net.parameters(), rest.net.parameters(), strict=True))


def test_an_interruption_before_anything_is_known(tmp_path):
    setting = toy_setting(24)
    ends, file = ends_of(setting), tmp_path / "state.safetensors"
    setting = replace(setting, model=Pressed(setting.model, setting.model.calls + 1))
    with pytest.raises(Interrupted):
        train_amed(setting, config_of(), held_out=8, teacher=ends, resume=file)
    assert not file.exists()


def test_what_decides_whether_a_training_goes_on(tmp_path):
    """Rounding of end points and memory do not; another teacher, start, tap or other trajectories do."""
    setting = toy_setting(24)
    teacher, file = Teacher(setting, 16), tmp_path / "state.safetensors"
    start = AmedTable.constant("ipndm2", STAMPS["edm"], 0.45, family="edm", scale_dir=0.1, scale_time=0.1)
    arguments = {"mode": "table", "held_out": 8, "checks": 1, "start": start}
    first = train_amed(setting, config_of(), teacher=teacher, resume=file, **arguments)
    again = train_amed(setting, config_of(), teacher=teacher, resume=file, checkpointing=True, **arguments)
    assert again.history == first.history or again.history[-1] == first.history[-1]
    known = saved_table(file, config_of())
    assert known is not None and torch.equal(known.r_logit, start.r_logit)
    other = AmedTable.constant("ipndm2", STAMPS["edm"], 0.3, family="edm", scale_dir=0.1, scale_time=0.1)
    for changes in ({"teacher": Teacher(setting, 20)}, {"start": other}, {"start": None}, {"teacher": 1.01 * teacher.end_points}):
        with pytest.raises(OtherState, match="other settings"):
            train_amed(setting, config_of(), resume=file, **({"teacher": teacher} | arguments | changes))
    assert saved_table(tmp_path / "none", config_of()) is None
    ends = teacher.end_points
    train_amed(setting, config_of(), held_out=8, checks=1, teacher=ends, resume=tmp_path / "tensor")
    train_amed(setting, config_of(), held_out=8, checks=1, teacher=ends * (1 + 1e-6), resume=tmp_path / "tensor")
    with pytest.raises(OtherState):
        tap = ModuleTap(setting.model.middle_block, denoiser=setting.model, source="elsewhere")
        train_amed(setting, config_of(), held_out=8, checks=1, teacher=ends, resume=tmp_path / "tensor", tap=tap)


def test_gradients_stay_out_of_a_model_that_is_a_function():
    setting = toy_setting(16)
    inner = setting.model
    plain = replace(setting, model=lambda x, sigma, **extra: inner(x, sigma, **extra))
    train_amed(plain, config_of(), mode="table", held_out=8, teacher=ends_of(setting))
    assert inner.strength.grad is None and inner.strength.requires_grad


def test_weights_made_in_inference_mode():
    setting = toy_setting(16)
    ends = ends_of(setting)
    with torch.inference_mode():
        setting.model.strength = nn.Parameter(torch.ones(()))
    assert setting.model.strength.is_inference()
    with pytest.raises(ValueError, match="method 'forward'"):
        train_amed(setting, config_of(), mode="table", held_out=8, teacher=ends)
    result = train_amed(setting, config_of(), mode="table", method="forward", held_out=8, teacher=ends, limit=Limit(calls=40))
    assert result.held_out_after <= result.held_out_before and setting.model.strength.requires_grad


class Spoiled(nn.Module):
    """NaN for some calls."""

    def __init__(self, inner: ToyDenoiser, every: int) -> None:
        super().__init__()
        self.inner_model, self.every, self.calls = inner, every, 0

    def forward(self, x: Tensor, sigma: Tensor, **extra: Tensor) -> Tensor:
        out = self.inner_model(x, sigma, **extra)
        if torch.is_grad_enabled():
            self.calls += 1
            if self.calls % self.every == 0:
                return out * math.nan
        return out


def test_values_that_are_not_finite_are_survived_or_reported():
    setting = toy_setting(40)
    ends = ends_of(setting)
    sometimes = replace(setting, model=Spoiled(setting.model, 11))
    result = train_amed(sometimes, config_of(), held_out=8, teacher=ends, passes=3)
    assert result.skipped > 0 and result.improved
    assert all(bool(p.isfinite().all()) for p in result.net.parameters())
    always = replace(setting, model=Spoiled(setting.model, 1))
    with pytest.raises(FitError, match="not finite"):
        train_amed(always, config_of(), held_out=8, teacher=ends, passes=9)


def test_half_precision_of_the_model():
    setting = toy_setting(24)
    result = train_amed(setting, config_of(), held_out=8, teacher=ends_of(setting), passes=2, autocast=torch.bfloat16)
    assert result.improved


def test_early_stop():
    setting = toy_setting(24)
    ends = ends_of(setting)
    ends[:16] = 10.0
    result = train_amed(setting, config_of(), held_out=8, teacher=ends, passes=10, checks=10, patience=2)
    assert len(result.history) == 3 and "no better" in result.stopped


def test_analytical_first_step_and_last_stamp_above_zero():
    setting = toy_setting(40)
    ends = ends_of(setting)
    stamps = (*STAMPS["edm"][:-1], 0.02)
    config = AmedConfig("ipndm3", stamps, "edm", afs=True, scale_dir=0.1)
    calls = setting.model.calls
    result = train_amed(setting, config, held_out=8, teacher=ends, passes=3)
    assert result.improved and setting.model.calls > calls
    calls = setting.model.calls
    end_points(setting.subset([0]), result.net)
    assert setting.model.calls - calls == config.nfe == 5


def test_stored_trajectories_are_shared_and_gone_on_with(tmp_path):
    setting = toy_setting(24)
    first = Trajectories(setting, STAMPS["edm"], "heun", None, 1, tmp_path)
    made = [first.states(index) for index in range(3)]
    assert first.calls == 3 * first.calls_each
    again = Trajectories(setting, STAMPS["edm"], "heun", None, 1, tmp_path)
    next(tmp_path.rglob("batch-00001*")).write_bytes(b"cut off")
    assert all(torch.equal(again.states(index), made[index]) for index in range(3))
    assert again.calls == again.calls_each  # of the damaged one
    assert Trajectories(setting, STAMPS["edm"], "heun", None, 2, tmp_path).key != first.key


@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
@pytest.mark.parametrize(("solver", "order"), [("heun", None), ("ipndm", 3), ("dpmpp_multistep", 2), ("unipc", 3)])
def test_trajectories_pass_through_the_states_of_an_exact_pass(family, solver, order):
    setting = toy_setting(6, family=family, batch=6)
    stamps = STAMPS[family]
    states = Trajectories(setting, stamps, solver, order, 40).states(0)
    exact = Trajectories(setting, stamps, "unipc", 3, 160).states(0)
    assert states.shape == (4, 6, 1, 8, 8)
    assert torch.equal(states[0], setting.initial(stamps[0]))
    assert float((states - exact).abs().max()) < 0.02 * float(exact[-1].abs().max())


def test_levels_between_stamps_are_even_in_half_log_snr():
    assert refined((8.0, 2.0, 0.5, 0.0), 1, "edm") == pytest.approx([8.0, 4.0, 2.0, 1.0, 0.5, 0.0])
    assert len(refined((0.9, 0.1), 2, "flow")) == 4
    with pytest.raises(ValueError, match="infinite"):
        refined((1.0, 0.1), 2, "flow")


def test_stamps_of_an_optimized_list():
    assert stamps_of([20, 5, 1.2, 0.3, 0.08, 0]) == (20, 1.2, 0.08, 0)
    assert stamps_of(torch.tensor([20, 5, 1.0])) == (20, 1)
    for bad in ([20, 5, 1, 0.2, 0], [20, 5, 1, 0.2], [20, 0]):
        with pytest.raises(ValueError, match="levels"):
            stamps_of(bad)


@pytest.mark.parametrize(("form", "solver", "order"), [("ipndm3", "ipndm", 3), ("dpmpp2", "dpmpp_2m", None), ("unipc2", "unipc", 2)])
@pytest.mark.parametrize("family", ["vp", "edm", "flow"])
def test_constants_on_a_list_are_the_plain_solver_on_it(form, solver, order, family):
    levels = optimal_sigmas(SCHEDULES[family], 7)
    config = AmedConfig(form, stamps_of(levels), family)
    setting = toy_setting(6, family=family)
    expected = run_table(setting, build_table(solver, levels, family, order)).end
    assert torch.allclose(end_points(setting, constants_on(levels, config)), expected, atol=1e-5)
    with pytest.raises(ValueError, match="stamps"):
        constants_on(optimal_sigmas(SCHEDULES[family], 5), config)


def test_on_optimized_steps_the_guard_decides_between_all(tmp_path):
    setting = toy_setting(56)
    ends = ends_of(setting)
    levels = optimal_sigmas(SCHEDULES["edm"], 5)
    config = AmedConfig("unipc2", stamps_of(levels), "edm", scale_dir=0.1, scale_time=0.1)
    predictor = train_amed(setting, config, held_out=16, teacher=ends, passes=3).net
    table = train_amed(setting, config, mode="table", method="forward", held_out=16, teacher=ends).net
    held = replace(toy_setting(24), seeds=tuple(range(500, 524)))
    rivals = [plain_candidate(config), candidate(predictor), candidate(table)]
    comparison = compare(held, Teacher(held, 32), rivals)
    assert comparison.winner.candidate.kind == "fitted" and {score.calls for score in comparison.scores} == {5}
    save_amed(tmp_path / "p.safetensors", predictor, model="toy")
    again = load_amed(tmp_path / "p.safetensors")
    assert torch.equal(end_points(held, again), end_points(held, predictor))
    assert again.facts["error_before"] > again.facts["error_after"]
    calibrated = build_table("unipc", levels, "edm", 2)
    assert calibrated.nfe == config.nfe


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "network"}, "mode"),
        ({"method": "gradient"}, "method"),
        ({"method": "forward"}, "forward passes alone"),
        ({"held_out": 24}, "held out"),
        ({"lr": 0.0}, "lr"),
        ({"passes": 0}, "passes"),
        ({"autocast": torch.float64}, "autocast"),
        ({"teacher": torch.zeros(3, 1, 8, 8)}, "end points"),
        ({"teacher": [1.0]}, "teacher was list"),
        ({"patience": 0}, "patience"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**33}, "2\\^32"),
        ({"start": 0.5}, "start was float"),
        ({"start": AmedTable.constant("amed", (5.0, 1.0), family="edm")}, "another form"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(changes, said):
    setting = toy_setting(24)
    arguments = {"held_out": 8, "teacher": torch.zeros(24, 1, 8, 8)} | changes
    with pytest.raises(ValueError, match=said):
        train_amed(setting, config_of(), **arguments)
    assert setting.model.calls == 0


def test_a_model_without_features_needs_a_table():
    setting = toy_setting(16)
    inner = setting.model
    plain = replace(setting, model=lambda x, sigma, **extra: inner(x, sigma, **extra))
    with pytest.raises(ValueError, match="middle block"):
        train_amed(plain, config_of(), held_out=8, teacher=ends_of(setting))
    assert train_amed(plain, config_of(), mode="table", held_out=8, teacher=ends_of(setting), passes=3).improved


def test_the_published_method_asks_the_teacher_for_held_out_seeds_only():
    setting = toy_setting(24, batch=8)
    teacher = Teacher(setting, 300)
    result = train_amed(setting, config_of(), method="steps", held_out=8, teacher=teacher, checks=1)
    assert 300 <= result.calls < 400 and not teacher.finished
