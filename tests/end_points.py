"""Where everything that samples, fits or trains ends on small problems: what data/end_points.json records and test_end_points.py compares.

`GROUPS` names functions that each return arrays by name; None stands for a combination that is refused. They use public names only, so
that the code behind these can be rearranged while the bits stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewstep import solvers
from fewstep.amed import AmedConfig, load_amed, sample_amed, train_amed
from fewstep.demo import load_demo_model
from fewstep.fitting import Calibration, Limit, Setting, Teacher, calibrate
from fewstep.fitting.tuning import CalibrationPhase, DiscretizationPhase, FullWeights, LoraAdapters, Samples, alternate, tune
from fewstep.recipes import Recipe
from fewstep.schedules import baseline_sigmas
from fewstep.solvers import SOLVERS, SolverTable, build_table, sample

from .problems import MIXTURES, Array, Mixture
from .toy_denoiser import SCHEDULES, SIDE, toy_setting
from .tuning.networks import table_of, tunable_setting

DEMO = Path(__file__).resolve().parents[1] / "demo"
FAMILIES = ("vp", "edm", "flow")
FROM_NOISE = Mixture("flow", 1.0, 0.3)
"""Begins at s = 1, where the half-log-SNR is minus infinity."""

Arrays = dict[str, Array | None]


@dataclass(frozen=True)
class Group:
    """arrays : makes them. tolerance : of the numbers where the arithmetic differs, as a share of each array's root mean square."""

    arrays: Callable[[], Arrays]
    tolerance: float


# --- solvers -----------------------------------------------------------------------------------------------------------------------------


def _options_of(name: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Every order and variant with and without the analytical first step, and the other options one at a time."""
    entry = SOLVERS[name]
    orders: Sequence[int | None] = entry.orders if len(entry.orders) > 1 else (None,)
    for order in orders:
        for variant in entry.variants or (None,):
            for afs in (False, True):
                options = {"order": order, "variant": variant, "afs": afs or None}
                chosen = {option: value for option, value in options.items() if value is not None}
                yield " ".join(f"{option}={value}" for option, value in chosen.items()), chosen
    more: dict[str, object] = {
        "corrector": False, "disable_corrector": [1, 3], "lower_order_final": False, "gamma": 1.5, "eta": 0.4, "s_noise": 1.1, "r": 0.4,
        "r1": 0.25, "r2": 0.6,
    }  # fmt: skip
    yield from ((f"{option}={value}", {option: value}) for option, value in more.items() if option in entry.options)
    if "lower_order_final" in entry.options:
        yield "lower_order_final=True", {"lower_order_final": True}
    if entry.varying_order:
        yield "order=[1, 2, 3, 2, 1, 1]", {"order": [1, 2, 3, 2, 1, 1]}


def _sampled(name: str, problem: Mixture, sigmas: Array, dtype: torch.dtype = torch.float64, **options: object) -> Array | None:
    """The end points of `sample_<name>`, which must be those of its table; None where both refuse."""
    x = torch.from_numpy(problem.start()).to(dtype)

    def model(x: Tensor, sigma: Tensor, seed: int) -> Tensor:
        return problem.model(x, sigma)

    extra_args = {"seed": 11}  # of the fresh noise
    sampler = getattr(solvers, f"sample_{name}")
    try:
        table = build_table(name, sigmas, problem.family, **options)  # type: ignore[arg-type]
    except ValueError:
        try:
            sampler(model, x, torch.from_numpy(sigmas), extra_args, family=problem.family, **options)
        except ValueError:
            return None
        raise AssertionError(f"build_table refuses what sample_{name} takes: {options}") from None
    ends = sampler(model, x, torch.from_numpy(sigmas), extra_args, family=problem.family, **options)
    assert torch.equal(ends, sample(model, x, table, extra_args)), f"sample_{name} and its table end elsewhere: {options}"
    return ends.double().numpy()


def solver_ends(name: str) -> Arrays:
    """On a mixture of Gaussians, 6 steps to 0; without options also fewer, to a level above 0, from pure noise, in half precision."""
    arrays: Arrays = {}
    for family, problem in MIXTURES.items():
        sigmas = np.append(problem.grid(5), 0.0)
        for label, options in _options_of(name):
            arrays[f"{family} {label}".strip()] = _sampled(name, problem, sigmas, **options)
            if options.get("variant") == "tab":  # needs the model's time, and was refused without it
                arrays[f"{family} {label} t_of"] = _sampled(name, problem, sigmas, t_of=SCHEDULES[family].t_of, **options)
        arrays[f"{family}, 1 step"] = _sampled(name, problem, sigmas[[0, -1]])
        arrays[f"{family}, 2 steps"] = _sampled(name, problem, sigmas[[0, 3, -1]])
        arrays[f"{family}, ends above 0"] = _sampled(name, problem, problem.grid(6))
        arrays[f"{family}, float32"] = _sampled(name, problem, sigmas, torch.float32)
        arrays[f"{family}, bfloat16"] = _sampled(name, problem, sigmas, torch.bfloat16)
    sigmas = np.append(FROM_NOISE.grid(5, "sigma"), 0.0)
    arrays["from pure noise"] = _sampled(name, FROM_NOISE, sigmas)
    arrays["from pure noise afs=True"] = _sampled(name, FROM_NOISE, sigmas, afs=True)
    return arrays


# --- the demo model with what ships for it -----------------------------------------------------------------------------------------------

LABELS = torch.tensor([3, 7])


def numbers_of_table(table: SolverTable) -> Array:
    """Every number of it, in one row."""
    numbers: list[float] = [*table.sigmas, *table.orders]
    for row in table.rows:
        numbers += [row.step, row.sigma, row.a, *row.b, row.from_step_start, row.stage, row.q_x, row.q_d, row.noise]
        numbers += [] if row.afs is None else [row.afs]
        numbers += [] if row.corrector is None else [row.corrector.a, *row.corrector.b]
    return np.array(numbers, dtype=np.float64)


def recipe_ends(family: str) -> Arrays:
    """Two pictures with each shipped recipe of a family, at the guidance it is for."""
    model = load_demo_model(family)  # type: ignore[arg-type]
    arrays: Arrays = {}
    for path in sorted((DEMO / "recipes").glob(f"{family}-*.json")):
        recipe = Recipe.load(path)
        table = recipe.table()
        x = model.initial_state(model.initial_noise(2, seed=5), table.sigmas[0])
        arrays[path.stem] = sample(model, x, table, {"labels": LABELS, "cfg": recipe.facts.cfg}).numpy()
        arrays[f"{path.stem}, table"] = numbers_of_table(table)
    return arrays


def amed_ends() -> Arrays:
    """Two pictures with each shipped predictor and table."""
    arrays: Arrays = {}
    for path in sorted((DEMO / "amed").glob("*.safetensors")):
        net = load_amed(path)
        model = load_demo_model(net.config.family)  # type: ignore[arg-type]
        x = model.initial_state(model.initial_noise(2, seed=5), net.config.stamps[0])
        arrays[path.stem] = sample_amed(model, x, None, net, {"labels": LABELS, "cfg": 2.0}).numpy()
    return arrays


# --- fits and trainings ------------------------------------------------------------------------------------------------------------------


def demo_setting(seeds: int, batch: int) -> Setting:
    """Seeds 0, 1, ... of the demo model at guidance 2, the classes in turn."""
    model = load_demo_model("edm")
    labels = {"labels": torch.arange(seeds) % 10}
    return Setting(model, model.noise_schedule, (1, 32, 32), tuple(range(seeds)), {"cfg": 2.0}, labels, batch, name="demo")


@cache
def _demo_teacher(seeds: int, batch: int) -> Tensor:
    return Teacher(demo_setting(seeds, batch), 24).end_points


def _of_calibration(result: Calibration) -> dict[str, Array]:
    assert result.comparison is not None
    scores = sorted(result.comparison.scores, key=lambda score: score.candidate.name)
    return {
        "table": numbers_of_table(result.table),
        "fitted": numbers_of_table(result.fitted),
        "guard": np.array([score.error for score in scores]),
        "calls": np.array([result.comparison.calls, *(score.calls for score in scores)], dtype=np.float64),
    }


def calibrations() -> Arrays:
    """Of the demo model, and of a toy with the analytical first step."""
    setting = demo_setting(12, 12)
    teacher = Teacher(setting, 24)
    results = {f"{nfe} calls": calibrate(setting, nfe, held_out=4, teacher=teacher, limit=Limit(calls=30 * nfe)) for nfe in (3, 5)}
    for family in FAMILIES:
        results[f"toy {family} with afs"] = calibrate(
            toy_setting(12, 8, family), 4, held_out=4, afs=True, limit=Limit(calls=120)
        )
    return {f"{name}, {what}": array for name, result in results.items() for what, array in _of_calibration(result).items()}


def _history(result) -> Array:
    """Batches, loss (0 before the first batch) and error of every check, and the held-out error at the end."""
    checks = [(check.batches, np.nan_to_num(check.loss), check.error) for check in result.history]
    return np.array([*np.ravel(checks), result.held_out_after], dtype=np.float64)


def _flat(tensors: Sequence[Tensor]) -> Array:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors]).numpy()


def demo_trainings(mode: str, method: str) -> Arrays:
    """AMED on the demo model."""
    setting = demo_setting(24, 8)
    stamps = tuple(baseline_sigmas("uniform_lambda", setting.noise_schedule, 2).tolist())
    config = AmedConfig("ipndm3", stamps, "edm", scale_dir=0.3, scale_time=0.3)
    result = train_amed(
        setting, config, mode=mode, method=method, held_out=8, teacher=_demo_teacher(24, 8), checks=2, limit=Limit(calls=60)
    )  # type: ignore[arg-type]
    return dict(_of_training(result))


def toy_trainings(form: str) -> Arrays:
    """AMED on a toy, each form with each method, with and without the analytical first step, and the less common options."""
    plain = {"passes": 2, "checks": 2}
    cases: list[tuple[str, bool, dict[str, object]]] = [
        ("edm", False, {"mode": "predictor", "method": "steps"}),
        ("vp", False, {"mode": "predictor", "method": "steps", "own_states": False, "anneal": True}),
        ("edm", True, {"mode": "table", "method": "steps"}),
        ("vp", True, {"mode": "predictor", "method": "end"}),
        ("flow", False, {"mode": "table", "method": "end"}),
        ("flow", True, {"mode": "table", "method": "end", "checkpointing": True, "anneal": False, "patience": 1, "seed": 3}),
        ("edm", False, {"mode": "table", "method": "end", "autocast": torch.float16}),
        # not to the end: where a fit has converged, rounding decides its last steps
        ("edm", True, {"mode": "table", "method": "forward", "limit": Limit(calls=100)}),
    ]
    arrays: Arrays = {}
    nets = {}
    for family, afs, options in cases:
        setting = toy_setting(24, family=family)
        config = _toy_config(form, family, afs)
        result = train_amed(setting, config, held_out=8, teacher=Teacher(setting, 24).end_points, **(plain | options))  # type: ignore[arg-type]
        label = " ".join([family, *(f"{name}={value}" for name, value in options.items() if name != "limit")]) + " afs" * afs
        arrays |= {f"{label}, {what}": array for what, array in _of_training(result).items()}
        nets[label] = result.net
    setting = toy_setting(24)
    start = nets["edm mode=table method=steps afs"]
    ends = Teacher(setting, 24).end_points
    result = train_amed(setting, _toy_config(form, "edm", True), held_out=8, teacher=ends, start=start, lr=1e-3, **plain)  # type: ignore[arg-type]
    return arrays | {f"begun with a table, {what}": array for what, array in _of_training(result).items()}


def _toy_config(form: str, family: str, afs: bool) -> AmedConfig:
    stamps = tuple(baseline_sigmas("uniform_lambda", SCHEDULES[family], 3).tolist())
    return AmedConfig(form, stamps, family, afs, scale_dir=0.1, scale_time=0.1)


def _of_training(result) -> dict[str, Array]:
    return {"net": _flat(list(result.net.state_dict().values())), "history": _history(result)}


def _of_tuning(result) -> dict[str, Array]:
    return {"adapters": _flat(list(result.adapters.parameters())), "history": _history(result), "table": numbers_of_table(result.table)}


def tunings() -> Arrays:
    """LoRA and all weights of a small network, with both methods on tables with each kind of row."""
    samples = Samples(0.3 * torch.randn(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5)), {"labels": torch.arange(40) % 5})
    cases: dict[str, tuple[str, SolverTable, dict[str, object]]] = {
        "end": ("edm", table_of("ipndm", order=3), {}),
        "end afs": ("vp", table_of("dpmpp_2m", 4, "vp", afs=True), {"checkpointing": True}),
        "end unipc": ("flow", table_of("unipc", 3, "flow", order=2), {"accumulate": 2}),
        "end heun": ("edm", table_of("heun", 2), {"patience": 1}),
        "end samples": ("edm", table_of(), {"matching": 0.5, "denoising": 1.0, "samples": samples}),
        "steps": ("edm", table_of(), {"method": "steps"}),
        "steps afs": ("vp", table_of("deis", 4, "vp", order=2, afs=True), {"method": "steps"}),
        "steps heun": ("flow", table_of("heun", 2, "flow"), {"method": "steps"}),
        "steps own states unipc": ("edm", table_of("unipc", order=3), {"method": "steps", "own_states": True}),
        "end, long gradients": ("edm", table_of("dpmpp_2m"), {"matching": 300.0}),
        "end, many batches": ("edm", table_of(steps=2), {"passes": 60}),  # the learning rate rises over the first 20
        "end autocast": ("edm", table_of("dpmpp_2m"), {"autocast": torch.bfloat16}),
        "steps autocast": ("edm", table_of("dpmpp_2m"), {"method": "steps", "autocast": torch.float16, "average": 0.0}),
        "full": ("edm", table_of("dpmpp_2m"), {}),
    }
    arrays: Arrays = {}
    for label, (family, table, options) in cases.items():
        setting = tunable_setting(24, family=family)
        adapters = FullWeights(setting.model) if label == "full" else LoraAdapters(setting.model, 3)  # type: ignore[arg-type]
        ends = Teacher(setting, 24).end_points
        options = {"passes": 3, "checks": 2, "lr": 0.02, "average": 0.5} | options
        result = tune(setting, table, adapters, held_out=8, teacher=ends, **options)  # type: ignore[arg-type]
        arrays |= {f"{label}, {what}": array for what, array in _of_tuning(result).items()}
    return arrays


def demo_tuning() -> Arrays:
    """LoRA of the demo model."""
    setting = demo_setting(24, 8)
    table = build_table("dpmpp_2m", baseline_sigmas("uniform_lambda", setting.noise_schedule, 3), "edm")
    adapters = LoraAdapters(setting.model.network, 2)  # type: ignore[attr-defined]
    arrays: Arrays = dict(_of_tuning(tune(setting, table, adapters, held_out=8, teacher=_demo_teacher(24, 8), passes=1, checks=2)))
    return arrays


def alternations() -> Arrays:
    """Two rounds with either kind of phase 1."""
    arrays: Arrays = {}
    for kind in ("calibration", "discretization"):
        setting = tunable_setting(32)
        some = setting.subset(range(12))
        phase = (
            CalibrationPhase(some, Teacher(some, 24), 3, Limit(calls=90), 4)
            if kind == "calibration" else DiscretizationPhase(Teacher(some, 24, states=True), 3)
        )  # fmt: skip
        adapters = LoraAdapters(setting.model, 3)  # type: ignore[arg-type]
        result = alternate(
            setting, phase, adapters, rounds=2, tolerance=0.0, held_out=8, guard=8, teacher=Teacher(setting, 24).end_points, lr=0.02,
            average=0.5, passes=2, checks=2,
        )  # fmt: skip
        assert result.comparison is not None
        errors = {score.candidate.name: score.error for score in result.comparison.scores}
        arrays |= {
            f"{kind}, adapters": _flat(list(result.adapters.parameters())),
            f"{kind}, table": numbers_of_table(result.table),
            f"{kind}, first table": numbers_of_table(result.first_table),
            f"{kind}, rounds": np.array([(r.held_out_before, r.held_out_after) for r in result.rounds]).ravel(),
            f"{kind}, guard": np.array([errors[name] for name in sorted(errors)]),
        }
    return arrays


FORMS = ("amed", "euler", "dpm2", "ipndm3", "dpmpp2", "unipc2")
TRAININGS = (("predictor", "steps"), ("predictor", "end"), ("table", "end"), ("table", "forward"))

GROUPS: dict[str, Group] = {
    **{f"solver {name}": Group(partial(solver_ends, name), 1e-5) for name in SOLVERS},
    **{f"recipes {family}": Group(partial(recipe_ends, family), 1e-4) for family in FAMILIES},
    "AMED files": Group(amed_ends, 1e-4),
    "calibrate": Group(calibrations, 0.05),
    **{f"train AMED {mode} {method}": Group(partial(demo_trainings, mode, method), 0.05) for mode, method in TRAININGS},
    **{f"train AMED toy {form}": Group(partial(toy_trainings, form), 0.05) for form in FORMS},
    "tune": Group(tunings, 0.05),
    "tune demo": Group(demo_tuning, 0.05),
    "alternate": Group(alternations, 0.05),
}
