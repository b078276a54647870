"""FewStepSampler and FewStepKSampler: results of the package, honest counts, and everything the host does around a sampler."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewstep.demo import load_demo_model
from fewstep.schedules import optimal_sigmas
from fewstep.solvers import HIGH_GUIDANCE, SOLVERS, SolverTable, build_table, few_step_table, sample
from fewstep.solvers.noise import BrownianNoise

from .comfyui import PromptRefused
from .graphs import Source, demo, sampler_custom, tensor

FAMILIES = ("vp", "edm", "flow")


def standalone(family, table, seed, cfg, batch_size=2, noise_sampler=None, start=None):
    """What the package makes of the host's noise for `seed`, without a host. `start`: a picture to begin from."""
    model = load_demo_model(family)
    noise = torch.randn(batch_size, 1, 32, 32, generator=torch.manual_seed(seed))
    first = table.sigmas[0]
    at_start = abs(first / model.noise_schedule.sigma_max - 1) < 1e-5
    if family == "flow":
        x = first * noise + (1 - first) * (0 if start is None else start)
    else:
        x = noise * ((1 + first**2) ** 0.5 if at_start else first) + (0 if start is None else start)
    labels = torch.arange(batch_size) % 10
    return sample(lambda x, sigma: model(x, sigma, labels, cfg), x, table, disable=True, noise_sampler=noise_sampler).numpy()


def sampled(comfy, tmp_path, family, sampler_inputs, steps=5, cfg=2.0, seed=5, **scheduler_inputs):
    """FewStepScheduler and FewStepSampler with SamplerCustom: the latent, counted calls, and the levels."""
    source = demo(family)
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=steps, **scheduler_inputs)
    sampler = source.graph.node("FewStepSampler", **sampler_inputs)
    out = source.out(tmp_path, latent=sampler_custom(source, sampler[0], scheduler[0], cfg=cfg, noise_seed=seed)[0], sigmas=scheduler[0])
    result = comfy.run(source.graph)
    return tensor(result, out), result.ui(out, "calls"), result.ui(out, "sigmas")


DETERMINISTIC = [name for name, solver in SOLVERS.items() if not solver.stochastic]


@pytest.mark.parametrize("solver", DETERMINISTIC)
def test_every_solver_gives_what_the_package_gives(comfy, tmp_path, solver):
    for family in FAMILIES:
        latent, calls, sigmas = sampled(comfy, tmp_path, family, {"solver": solver})
        table = build_table(solver, sigmas, family)
        assert calls == [table.nfe]
        np.testing.assert_allclose(latent, standalone(family, table, 5, 2.0), atol=1e-4, err_msg=family)


OPTIONS = [
    ({"solver": "unipc", "order": "2", "variant": "bh1"}, {"order": 2, "variant": "bh1"}),
    ({"solver": "unipc", "variant": "lagrange", "corrector": False}, {"variant": "lagrange", "corrector": False}),
    ({"solver": "unipc", "order": "4", "lower_order_final": False}, {"order": 4, "lower_order_final": False}),
    ({"solver": "ipndm", "lower_order_final": True}, {"lower_order_final": False}),  # on: as published
    ({"solver": "deis", "variant": "rhoab"}, {"variant": "rhoab"}),
    ({"solver": "deis", "variant": "tab"}, {"variant": "tab", "t_of": load_demo_model("vp").noise_schedule.t_of}),
    ({"solver": "dpmpp_multistep", "order": "1", "variant": "lagrange", "afs": True}, {"order": 1, "variant": "lagrange", "afs": True}),
    # what the solver does not have is ignored, also by the browser, which hides it
    ({"solver": "heun", "order": "3", "variant": "bh2", "corrector": False, "eta": 0.3}, {}),
]


@pytest.mark.parametrize(("inputs", "options"), OPTIONS)
def test_options_reach_the_solver(comfy, tmp_path, inputs, options):
    latent, calls, sigmas = sampled(comfy, tmp_path, "vp", inputs)
    table = build_table(inputs["solver"], sigmas, "vp", **options)
    assert calls == [table.nfe]
    np.testing.assert_allclose(latent, standalone("vp", table, 5, 2.0), atol=1e-4)


def test_automatic_order_is_lower_at_high_guidance(comfy, tmp_path):
    for cfg, order in ((HIGH_GUIDANCE - 0.1, 3), (HIGH_GUIDANCE, 2)):
        for solver in ("unipc", "deis"):
            latent, _, sigmas = sampled(comfy, tmp_path, "vp", {"solver": solver}, cfg=cfg)
            expected = standalone("vp", build_table(solver, sigmas, "vp", order), 5, cfg)
            np.testing.assert_allclose(latent, expected, atol=1e-4)
    chosen, _, sigmas = sampled(comfy, tmp_path, "vp", {"solver": "unipc", "order": "3"}, cfg=7.0)
    np.testing.assert_allclose(chosen, standalone("vp", build_table("unipc", sigmas, "vp", 3), 5, 7.0), atol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_fresh_noise_is_not_the_initial_noise_and_follows_the_seed(comfy, tmp_path, family):
    options = {"solver": "dpmpp_2m_sde", "eta": 0.8, "s_noise": 1.1, "variant": "heun"}
    latent, calls, sigmas = sampled(comfy, tmp_path, family, options, steps=6)
    again, _, _ = sampled(comfy, tmp_path, family, options, steps=6)
    other, _, _ = sampled(comfy, tmp_path, family, options, steps=6, seed=6)
    assert calls == [6]
    assert np.array_equal(latent, again) and not np.allclose(latent, other)
    table = build_table("dpmpp_2m_sde", sigmas, family, eta=0.8, s_noise=1.1, variant="heun")
    fresh = BrownianNoise(torch.zeros(2, 1, 32, 32), min(s for s in sigmas if s), sigmas[0], 5 + 1)
    np.testing.assert_allclose(latent, standalone(family, table, 5, 2.0, noise_sampler=fresh), atol=1e-4)
    initial = torch.randn(2, 1, 32, 32, generator=torch.manual_seed(5))
    for i, row in enumerate(table.rows):
        if row.noise:
            drawn = BrownianNoise(torch.zeros(2, 1, 32, 32), min(s for s in sigmas if s), sigmas[0], 6)(sigmas[i], sigmas[i + 1])
            correlation = np.corrcoef(drawn.flatten(), initial.flatten())[0, 1]
            assert abs(correlation) < 0.1


def split_in_two(source: Source, sampler: str, at: int, steps: int = 6):
    scheduler = source.graph.node("FewStepScheduler", model=source.model, steps=steps)
    parts = source.graph.node("SplitSigmas", sigmas=scheduler[0], step=at)
    sampler_node = source.graph.node("FewStepSampler", solver=sampler)
    whole = sampler_custom(source, sampler_node[0], scheduler[0])
    high = sampler_custom(source, sampler_node[0], parts[0])
    low = sampler_custom(source, sampler_node[0], parts[1], latent=high[0], add_noise=False)
    return whole, low


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("at", "calls"), [(3, [6, 3, 3]), (0, [6, 0, 6]), (6, [6, 6, 0])])
def test_parts_of_lists_with_leftover_noise(comfy, tmp_path, family, at, calls):
    """At 0 and 6 one part has a single level: nothing is sampled and what comes in goes out, as with the host's samplers."""
    source = demo(family)
    whole, low = split_in_two(source, "euler", at)
    outs = [source.out(tmp_path, latent=node[0]) for node in (whole, low)]
    result = comfy.run(source.graph)
    assert sorted(max((result.ui(out, "calls") for out in outs), key=len)) == sorted(calls)
    one, two = (tensor(result, out) for out in outs)
    if at == 3:
        assert np.abs(one - two).max() < 1e-4
    assert np.isfinite(two).all()


def test_a_repeated_level_costs_no_call(comfy, tmp_path):
    """For more steps than the model has levels, the host's own schedulers repeat some."""
    source = demo()
    sigmas = source.graph.node("BasicScheduler", model=source.model, scheduler="simple", steps=1003, denoise=1.0)
    tail = source.graph.node("SplitSigmas", sigmas=sigmas[0], step=985)
    sampler = source.graph.node("FewStepSampler", solver="dpmpp_2m")
    out = source.out(tmp_path, latent=sampler_custom(source, sampler[0], tail[1])[0], sigmas=tail[1])
    result = comfy.run(source.graph)
    levels = result.ui(out, "sigmas")
    assert result.ui(out, "calls") == [len(set(levels)) - 1] and np.isfinite(tensor(result, out)).all()


def test_errors_in_the_model_reach_the_host(in_host):
    told = in_host(
        """
import importlib, torch
load_pack()
import comfy.model_management, comfy.samplers
pack = next(name for name in sys.modules if name.endswith("nodes.host")).removesuffix(".nodes.host")
sampling = importlib.import_module(pack + ".nodes.sampling")
sampler = nodes.NODE_CLASS_MAPPINGS["FewStepSampler"].execute("unipc").args[0]
with torch.inference_mode():
    patcher = nodes.NODE_CLASS_MAPPINGS["FewStepLoadDemoModel"].execute("vp", "mixed", 1).args[0]

class Denoiser:
    model_patcher = patcher
    def __call__(self, x, sigma, **more):
        raise comfy.model_management.InterruptProcessingException()

x, sigmas = torch.zeros(1, 1, 4, 4), torch.tensor([14.0, 1.0, 0.0])
try:
    sampler.sampler_function(Denoiser(), x, sigmas)
except comfy.model_management.InterruptProcessingException:
    interrupted = True
same = [sampler.sampler_function(Denoiser(), x, sigmas[:n]) is x for n in (0, 1)]
try:
    sampler.sampler_function(lambda x, sigma: x, x, sigmas)
except ValueError as error:
    homeless = str(error)
tell(interrupted=interrupted, same=same, homeless=homeless, isinstance=isinstance(sampler, comfy.samplers.KSAMPLER))
"""
    )
    assert told["interrupted"] and told["same"] == [True, True] and told["isinstance"]
    assert "model_patcher" in told["homeless"] and told["homeless"].endswith(".")


@pytest.mark.parametrize(
    ("inputs", "word"),
    [
        ({"solver": "dpmpp_2m_sde", "order": "3"}, "order was 3"),
        ({"solver": "unipc", "variant": "rhoab"}, "variant was 'rhoab'"),
        ({"algorithm_version": 7}, "update"),
        ({"eta": -1.0}, "eta"),
    ],
)
def test_impossible_combinations_are_refused(comfy, tmp_path, inputs, word):
    source = demo()
    sampler = source.graph.node("FewStepSampler", **inputs)
    source.out(tmp_path, text=sampler[1])
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any(word in sentence for sentence in refusal.value.sentences())


def test_variants_that_do_not_fit_the_model_are_a_red_node(comfy, tmp_path):
    source = demo("flow")
    scheduler = source.graph.node("FewStepScheduler", model=source.model)
    sampler = source.graph.node("FewStepSampler", solver="deis", variant="tab")
    source.out(tmp_path, latent=sampler_custom(source, sampler[0], scheduler[0])[0])
    assert "logrho" in comfy.run_any(source.graph).error


# --- All in one -------------------------------------------------------------------------------------------------------


def wired(source: Source, latent: list, seed: int, cfg: float, sigmas: list, solver: str, add_noise: bool = True):
    """The nodes that FewStepKSampler stands for."""
    graph = source.graph
    sampler = graph.node("FewStepSampler", solver=solver)
    guider = graph.node("CFGGuider", model=source.model, positive=source.positive, negative=source.negative, cfg=cfg)
    noise = graph.node("RandomNoise", noise_seed=seed) if add_noise else graph.node("DisableNoise")
    links = {"noise": noise[0], "guider": guider[0], "sampler": sampler[0], "sigmas": sigmas, "latent_image": latent}
    return graph.node("SamplerCustomAdvanced", **links)


def all_in_one(source: Source, latent: list, **inputs):
    links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": latent}
    return source.graph.node("FewStepKSampler", **links, **inputs)


def masked(source: Source, latent: list) -> list:
    half = source.graph.node("SolidMask", value=1.0, width=128, height=256)
    empty = source.graph.node("SolidMask", value=0.0, width=256, height=256)
    mask = source.graph.node("MaskComposite", destination=empty[0], source=half[0], x=128, y=0, operation="add")
    return source.graph.node("SetLatentNoiseMask", samples=latent, mask=mask[0])[0]


CASES = {
    "plain": {},
    "no guidance": {"cfg": 1.0},
    "high guidance": {"cfg": 7.0, "preset": "Fast 5"},
    "quality": {"preset": "Quality 12"},
    "one step": {"steps": 1},
    "another solver": {"solver": "deis"},
    "two calls a step": {"solver": "heun", "steps": 4},
    "fresh noise": {"solver": "dpmpp_2m_sde"},
    "image to image": {"start": "picture", "denoise": 0.6},
    "nothing": {"start": "picture", "denoise": 0.0},
    "inpainting": {"start": "masked", "denoise": 0.8},
    "inpainting with fresh noise": {"start": "masked", "solver": "dpmpp_2m_sde"},
    "part of a batch": {"start": "batch"},
    "without noise": {"start": "picture", "denoise": 0.5, "add_noise": False},
}


ALL_FAMILIES = ("plain", "image to image", "inpainting", "fresh noise")


OF_VERSION_2 = ("plain", "high guidance", "quality")


@pytest.mark.parametrize(
    ("family", "case", "version"),
    [*((f, c, 3) for f in FAMILIES for c in (CASES if f == "vp" else ALL_FAMILIES)), *(("vp", c, 2) for c in OF_VERSION_2)],
)
def test_all_in_one_is_byte_for_byte_what_the_wired_nodes_give(comfy, tmp_path, family, case, version):
    settings = {"cfg": 3.0, "preset": "Custom", "steps": 6, "solver": "auto", "denoise": 1.0, "add_noise": True, **CASES[case]}
    start = settings.pop("start", "empty")
    source = demo(family, batch_size=3)
    latent = source.latent
    if start in ("picture", "masked"):
        latent = all_in_one(source, latent, seed=1, cfg=2.0, preset="Fast 5")[0]
    if start == "masked":
        latent = masked(source, latent)
    if start == "batch":  # the host then draws the noise that the whole batch would have had
        latent = source.graph.node("LatentFromBatch", samples=latent, batch_index=1, length=2)[0]
    one = all_in_one(source, latent, seed=77, algorithm_version=version, **settings)
    steps = {"Fast 5": 5, "Quality 12": 12}.get(settings["preset"], settings["steps"])
    solver = settings["solver"]
    if solver == "auto":
        solver = "deis" if version >= 3 and settings["cfg"] >= 4 else "unipc"
    sigmas = one[1]  # guidance decides over them, of which the scheduler node knows nothing
    if version < 3:
        sigmas = source.graph.node("FewStepScheduler", model=source.model, solver=solver, steps=steps, denoise=settings["denoise"])[0]
    parts = wired(source, latent, 77, settings["cfg"], sigmas, solver, settings["add_noise"])
    outs = [source.out(tmp_path, latent=one[0], sigmas=one[1], text=one[2]), source.out(tmp_path, latent=parts[0], sigmas=sigmas)]
    before = source.out(tmp_path, latent=latent)
    result = comfy.run(source.graph)
    whole, separate = (tensor(result, out) for out in outs)
    assert np.array_equal(whole, separate)
    assert result.ui(outs[0], "sigmas") == result.ui(outs[1], "sigmas")
    if case == "nothing":
        assert np.array_equal(whole, tensor(result, before))
        return
    curve, report = result.ui(one, "fewstep_curve")[0], result.ui(outs[0], "text")[0]
    drawn_before = [5] if start in ("picture", "masked") else []
    counted = max((result.ui(out, "calls") for out in outs), key=len)  # by the one of the two that the host ran last
    assert sorted(counted) == sorted(drawn_before + [curve["nfe"]] * 2), "the reported calls are the counted ones"
    assert curve["calls_with_cfg"] == curve["nfe"] * (1 if settings["cfg"] == 1 else 2)
    assert f"Model calls: {curve['nfe']} (" in report
    if start == "masked":
        kept = tensor(result, before)
        assert np.abs(whole - kept)[..., :15].max() < 1e-4 < np.abs(whole - kept)[..., 17:].max()


def _of_version_2(ns, cfg: float) -> SolverTable:
    return build_table("unipc", optimal_sigmas(ns, 5).to(torch.float32), "vp", 2 if cfg >= 4 else 3)


def _of_version_3(ns, cfg: float) -> SolverTable:
    return few_step_table(ns, 5, 9.6, cfg)


@pytest.mark.parametrize(("version", "table_of"), [(2, _of_version_2), (3, _of_version_3)])
def test_all_in_one_samples_by_guidance_as_the_report_says(comfy, tmp_path, version, table_of):
    for cfg in (1.0, 3.0, 7.0):
        source, table = demo(), table_of(load_demo_model("vp").noise_schedule, cfg)
        one = all_in_one(source, source.latent, seed=5, cfg=cfg, preset="Fast 5", algorithm_version=version)
        out = source.out(tmp_path, latent=one[0], text=one[2])
        result = comfy.run(source.graph)
        report = result.ui(out, "text")[0]
        assert f"order {max(table.orders)}" in report and f"Solver: {SOLVERS[table.solver].title} " in report
        np.testing.assert_allclose(tensor(result, out), standalone("vp", table, 5, cfg), atol=2e-4)


@pytest.mark.parametrize("inputs", [{"preset": "Slow 50"}, {"solver": "unipcc"}, {"algorithm_version": 99}, {"steps": 0}])
def test_all_in_one_refuses_wrong_inputs(comfy, tmp_path, inputs):
    source = demo()
    one = all_in_one(source, source.latent, **inputs)
    source.out(tmp_path, latent=one[0])
    with pytest.raises(PromptRefused) as refusal:
        comfy.post_prompt(source.graph)
    assert any(next(iter(inputs)) in sentence for sentence in refusal.value.sentences())


# --- denoise 0 --------------------------------------------------------------------------------------------------------


def test_denoise_0_passes_a_picture_on_as_the_host_does(comfy, tmp_path):
    source = demo("vp")
    graph = source.graph
    picture = graph.node(
        "KSampler", model=source.model, positive=source.positive, negative=source.negative, latent_image=source.latent, seed=1, steps=3,
        cfg=1.0, denoise=1.0, sampler_name="euler", scheduler="normal",
    )[0]  # fmt: skip
    ours = graph.node(
        "FewStepKSampler", model=source.model, positive=source.positive, negative=source.negative, latent_image=picture, denoise=0.0,
    )  # fmt: skip
    stock = graph.node(
        "KSampler", model=source.model, positive=source.positive, negative=source.negative, latent_image=picture, seed=1, steps=3,
        cfg=1.0, denoise=0.0, sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    two = {}
    for name in ("FewStepScheduler", "FewStepBaselineScheduler"):
        scheduler = graph.node(name, model=source.model, denoise=0.0)
        two[name] = sampler_custom(source, graph.node("FewStepSampler")[0], scheduler[0], picture)
    outs = [source.out(tmp_path, latent=link) for link in (picture, stock[0], ours[0], *(node[0] for node in two.values()))]
    report = source.out(tmp_path, text=ours[2])
    result = comfy.run(graph)
    before, *after = [tensor(result, out) for out in outs]
    for latent in after:
        np.testing.assert_array_equal(latent, before)
    assert "nothing is sampled" in result.ui(report, "text")[0]


def test_denoise_0_on_an_empty_latent_is_refused(comfy, tmp_path):
    source = demo("vp")
    node = source.graph.node(
        "FewStepKSampler", model=source.model, positive=source.positive, negative=source.negative, latent_image=source.latent, denoise=0.0,
    )  # fmt: skip
    source.out(tmp_path, latent=node[0])
    error = comfy.run_any(source.graph).error
    assert "denoise was 0 and latent_image is empty" in error and "Set denoise to 1" in error
