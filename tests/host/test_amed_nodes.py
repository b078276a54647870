"""AMED nodes on the real server: pictures are the package's, files are kept apart, what does not fit is told."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep.amed import FORMS, AmedConfig, AmedPredictor, AmedTable, load_amed, sample_amed, save_amed
from fewstep.amed.joint import end_points
from fewstep.demo import load_demo_model
from fewstep.demo.amed_shipped import AMED_CFG, AMED_FAMILY, AMED_FOLDER, demo_amed
from fewstep.fitting import Teacher
from fewstep.recipes import Recipe, model_identity
from fewstep.schedules import NoiseSchedule, baseline_sigmas

from .comfyui import Graph, PromptRefused
from .graphs import demo, sampler_custom, sd3, sd15, tensor
from .test_calibrate_nodes import standalone

CFG = 2.0


def stamps(ns: NoiseSchedule, calls: int = 5) -> tuple[float, ...]:
    levels = baseline_sigmas("uniform_lambda", ns, (calls + 1) // 2)
    return tuple(levels.tolist())


def predictor(ns: NoiseSchedule, form: str = "amed", calls: int = 5, **options) -> AmedPredictor:
    """With random heads, so that images differ in their times."""
    net = AmedPredictor(AmedConfig(form, stamps(ns, calls), ns.family, **{"scale_time": 0.1, **options}))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        net.heads.weight.copy_(torch.randn(net.heads.weight.shape, generator=generator))
        net.heads.bias.copy_(torch.randn(3, generator=generator) * 0.3)
    return net


def kept(comfy, net, name: str, **facts) -> str:
    """Put a net into the server's folder; its name there."""
    path = comfy.base / "models" / "fewstep" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_amed(path, net, **{"cfg": CFG, **facts})
    return path.name


def sampled(source, loaded, cfg: float = CFG, checks=None, **changes):
    """Add sampler and scheduler of a predictor, the sampling itself, and the node that shows the times."""
    graph = source.graph
    sampler = graph.node("FewStepAmedSampler", predictor=loaded, **(checks or {}))
    scheduler = graph.node("FewStepAmedScheduler", predictor=loaded)
    run = sampler_custom(source, sampler[0], scheduler[0], **{"cfg": cfg, **changes})
    shown = graph.node("FewStepAmedTimes", sampler=sampler[0], samples=run[0])
    return sampler, scheduler, run, shown


def expected_of(net, family: str, batch: int, cfg: float = CFG) -> torch.Tensor:
    """The same pictures without a host."""
    noise = torch.randn(batch, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    start = net.config.stamps[0]
    start = torch.tensor(start if family == "flow" else (1 + start**2) ** 0.5, dtype=torch.float32)
    extra = {"labels": torch.arange(batch), "cfg": cfg}
    return sample_amed(load_demo_model(family), noise * start, None, net, extra_args=extra, disable=True)


# --- Sampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "form", "cfg", "options"),
    [
        ("edm", "amed", CFG, {}),
        ("vp", "ipndm3", CFG, {}),
        ("flow", "unipc2", CFG, {}),
        ("edm", "dpmpp2", 1.0, {}),
        ("vp", "dpm2", CFG, {"afs": True}),
    ],
)
def test_a_predictors_pictures_are_those_of_the_package(comfy, tmp_path, family, form, cfg, options):
    """Features, rows of guidance, times and steps: the same end points as without a host, each image with its own times."""
    net = predictor(load_demo_model(family).noise_schedule, form, **options)
    source = demo(family, batch_size=3)
    loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, f"{family} {form} {cfg}", cfg=cfg))
    sampler, scheduler, run, shown = sampled(source, loaded[0], cfg)
    out = source.out(tmp_path, latent=run[0], sigmas=scheduler[0], text=shown[2], image=shown[1])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [net.config.nfe]
    np.testing.assert_allclose(result.ui(out, "sigmas"), net.config.stamps, rtol=1e-6)
    expected = expected_of(net, family, 3, cfg)
    np.testing.assert_allclose(tensor(result, out), expected.numpy(), atol=2e-4)
    assert expected.std() > 0.2
    lines = result.ui(out, "text")[0].splitlines()
    assert f"{net.config.nfe} model calls: intermediate times of 3 images" in lines[0] and len(lines) == 1 + net.config.pairs
    assert any(re.search(r"r 0\.\d{3} \(0\.\d{3} to ", line) for line in lines), "the images' times differ"
    image = tensor(result, out, "image")
    assert image.shape == (1, 432, 768, 3)
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(tmp_path / f"times-{family}-{form}.png")
    assert "Warning" not in result.ui(sampler, "text")[0]


def test_a_table_samples_as_its_solver_table(comfy, tmp_path):
    ns = load_demo_model("vp").noise_schedule
    net = AmedTable.constant("ipndm2", stamps(ns, 7), r=[0.4, 0.5, 0.6], c=1.005, family="vp")
    source = demo("vp", batch_size=2)
    loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, "table"))
    _, _, run, shown = sampled(source, loaded[0])
    out = source.out(tmp_path, latent=run[0], text=shown[2])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [7]
    np.testing.assert_allclose(tensor(result, out), expected_of(net, "vp", 2).numpy(), atol=1e-4)
    assert [f"r {r:.3f}," in line for r, line in zip((0.4, 0.5, 0.6), result.ui(out, "text")[0].splitlines()[1:], strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize("make", [sd15, sd3])
def test_checkpoints_of_stable_diffusion(comfy, tmp_path, make):
    """Random weights in the layouts of SD 1.5 (a U-Net) and SD 3 (a transformer), in half precision, loaded by the host."""
    flow = make is sd3
    ns = NoiseSchedule.flow(3.0) if flow else NoiseSchedule.preset("sd15")
    net = predictor(ns, "amed", 3)
    source = make(comfy, batch_size=2)
    loaded = source.graph.node(
        "FewStepLoadAmed", name=kept(comfy, net, make.__name__, feature_source="joint_blocks[1] of X" if flow else "middle block of X")
    )
    _, _, run, shown = sampled(source, loaded[0], checks={"model": source.model, "latent_image": source.latent})
    out = source.out(tmp_path, latent=run[0], text=shown[2])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [3]
    assert np.isfinite(tensor(result, out)).all() and re.search(r"r 0\.\d{3} \(0\.\d{3} to ", result.ui(out, "text")[0])


def test_img2img_masks_and_other_sizes_work(comfy, tmp_path):
    """Inpainting changes what the model sees outside the network, and the bottleneck of a larger picture is pooled."""
    net = predictor(load_demo_model("vp").noise_schedule)
    source = demo("vp", class_name="dress", batch_size=2)
    loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, "sizes"))
    larger = source.graph.node("LatentUpscale", samples=source.latent, upscale_method="bilinear", width=320, height=512, crop="disabled")
    mask = source.graph.node("SolidMask", value=1.0, width=320, height=512)
    masked = source.graph.node("SetLatentNoiseMask", samples=larger[0], mask=mask[0])
    _, _, run, _ = sampled(source, loaded[0], latent=masked[0])
    out = source.out(tmp_path, latent=run[0])
    result = comfy.run(source.graph)
    assert tensor(result, out).shape == (2, 1, 64, 40) and np.isfinite(tensor(result, out)).all()


def test_guiders_with_three_prompts_read_the_positive_ones_features(comfy, tmp_path):
    """DualCFGGuider numbers its prompts in another order. With its second prompt the negative one it is plain guidance, so the pictures
    must be those of CFGGuider: they are only if the features are."""
    net = predictor(load_demo_model("edm").noise_schedule)
    source = demo("edm", batch_size=2)
    graph = source.graph
    loaded = graph.node("FewStepLoadAmed", name=kept(comfy, net, "guiders"))
    sampler, scheduler = (graph.node(name, predictor=loaded[0]) for name in ("FewStepAmedSampler", "FewStepAmedScheduler"))
    prompts = {"model": source.model, "negative": source.negative}
    dual = graph.node(
        "DualCFGGuider", **prompts, cond1=source.positive, cond2=source.negative, cfg_conds=CFG, cfg_cond2_negative=3.0, style="regular"
    )
    noise = graph.node("RandomNoise", noise_seed=5)
    run = graph.node(
        "SamplerCustomAdvanced", noise=noise[0], guider=dual[0], sampler=sampler[0], sigmas=scheduler[0], latent_image=source.latent
    )
    out = source.out(tmp_path, latent=run[0])
    np.testing.assert_allclose(tensor(comfy.run(graph), out), expected_of(net, "edm", 2).numpy(), atol=2e-4)


def test_the_guard_compares_predictors_with_recipes_and_their_own_plain_solver(comfy, tmp_path):
    """At equal calls, with the errors of the package; the winner goes on as a recipe where it is one."""
    tables = {}
    for net in (predictor(load_demo_model("edm").noise_schedule), demo_amed("table", "ipndm3", 5)):
        source = demo("edm", counted=False)
        loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, f"guard {type(net).__name__}"))
        links = {"model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent}
        teacher = source.graph.node("FewStepTeacherSettings", steps=16)
        node = source.graph.node(
            "FewStepCompareRecipes", **links, predictor=loaded[0], teacher=teacher[0], stock="none", cfg=CFG, seeds=4, first_seed=40
        )
        source.out(tmp_path, text=node[1], image=node[2])
        best = source.graph.node("FewStepRecipeToText", recipe=node[0])
        result = comfy.run(source.graph)
        tables[type(net)] = result.ui(node, "text")[0]
        rows = {line.split("|")[1].strip(" *"): line.split("|")[3:5] for line in tables[type(net)].splitlines() if line.startswith("| ")}
        kind = "predictor" if isinstance(net, AmedPredictor) else "table"
        calls, error = rows[f"{net.config.method.title}, {kind}, 5 calls"]
        setting = standalone("edm", CFG, range(40, 44), 40, 4)
        with torch.no_grad():
            ends = end_points(setting, net)
            distance = float((ends - Teacher(setting, 16).end_points).double().square().mean().sqrt())
        assert int(calls) == 5 and float(error) == pytest.approx(distance, rel=2e-3)
        assert Recipe.from_text(result.ui(best, "fewstep_recipe")[0]).nfe == 5
    assert "at r = 0.5, c = 1, a = 1" in tables[AmedPredictor] and "ipndm" in tables[AmedTable].lower()


# --- Files --------------------------------------------------------------------------------------------------------------


def test_saved_predictors_are_offered_and_other_files_are_not(comfy, tmp_path):
    folder = comfy.base / "models" / "fewstep"
    net = predictor(load_demo_model("edm").noise_schedule)
    name = kept(comfy, net, "to save")
    (folder / "sub").mkdir(exist_ok=True)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, folder / "other.safetensors")
    save_file({"a": torch.zeros(2)}, folder / "sub" / "foreign.safetensors", metadata={"fewstep": '{"format": "else"}'})
    (folder / "broken.safetensors").write_bytes(b"no header")
    graph = Graph()
    loaded = graph.node("FewStepLoadAmed", name=name)
    saved = [graph.node("FewStepSaveAmed", predictor=loaded[0], name=name) for name in ("mine", "mine.safetensors")]
    result = comfy.run(graph)
    files = [result.ui(node, "text")[0].splitlines()[0] for node in saved]
    assert sorted(files) == ["Saved as mine (2).safetensors", "Saved as mine.safetensors"]
    again = load_amed(folder / "mine.safetensors")
    assert again.config == net.config and torch.equal(again.heads.weight, net.heads.weight) and again.facts["cfg"] == CFG
    (offered,) = comfy.get("/object_info/FewStepLoadAmed")["FewStepLoadAmed"]["input"]["required"]["name"][1:]
    names = offered["options"]
    assert {name, "mine.safetensors", "mine (2).safetensors"} <= set(names)
    assert not any("other" in name or "foreign" in name or "broken" in name for name in names)


def test_those_that_come_with_fewstep_are_offered_and_fit_the_demo_model(comfy):
    offered = comfy.get("/object_info/FewStepLoadAmed")["FewStepLoadAmed"]["input"]["required"]["name"][1]["options"]
    shipped = [f"demo model: {path.stem}" for path in sorted(AMED_FOLDER.glob("*.safetensors"))]
    assert shipped and [name for name in offered if name.startswith("demo model: ")] == shipped
    source = demo(AMED_FAMILY, counted=False)
    checks = {"model": source.model, "latent_image": source.latent, "cfg_to_check": AMED_CFG}
    samplers = []
    for name in shipped:
        loaded = source.graph.node("FewStepLoadAmed", name=name)
        samplers.append(source.graph.node("FewStepAmedSampler", predictor=loaded[0], **checks))
        source.graph.node("PreviewAny", source=samplers[-1][1])
    result = comfy.run(source.graph)
    for name, sampler in zip(shipped, samplers, strict=True):
        report = result.ui(sampler, "text")[0]
        assert "Warning" not in report and "Error on held-out seeds" in report, name


@pytest.mark.parametrize("name", ["../outside", "a/b", "", "con"])
def test_unsafe_names_are_refused(comfy, name):
    graph = Graph()
    loaded = graph.node("FewStepLoadAmed", name=kept(comfy, predictor(load_demo_model("edm").noise_schedule), "safe"))
    graph.node("FewStepSaveAmed", predictor=loaded[0], name=name)
    with pytest.raises(PromptRefused) as refused:
        comfy.post_prompt(graph)
    assert "name was" in " ".join(refused.value.sentences())


def test_damaged_and_missing_files_are_red_with_a_sentence(comfy):
    folder = comfy.base / "models" / "fewstep"
    path = folder / kept(comfy, predictor(load_demo_model("edm").noise_schedule), "damaged")
    content = path.read_bytes()
    path.write_bytes(content.replace(b'\\"version\\": 1', b'\\"version\\": 7'))
    for name, sentence in (("damaged.safetensors", "has version 7 of the format"), ("gone.safetensors", "There is no AMED predictor")):
        graph = Graph()
        graph.node("FewStepAmedScheduler", predictor=graph.node("FewStepLoadAmed", name=name)[0])
        graph.node("FewStepSaveAmed", predictor=["1", 0])
        with pytest.raises(PromptRefused) as refused:
            comfy.post_prompt(graph)
        assert sentence in " ".join(refused.value.sentences())


# --- What does not fit --------------------------------------------------------------------------------------------------


def failed(comfy, source, run) -> str:
    source.graph.node("PreviewAny", source=run)
    result = comfy.run_any(source.graph)
    assert not result.ok
    return result.error


def test_other_levels_other_families_and_networks_without_features_are_refused(comfy, tmp_path):
    ns = load_demo_model("vp").noise_schedule
    name = kept(comfy, predictor(ns), "vp only")

    source = demo("vp")
    loaded = source.graph.node("FewStepLoadAmed", name=name)
    sampler = source.graph.node("FewStepAmedSampler", predictor=loaded[0])
    other = source.graph.node("FewStepScheduler", model=source.model, steps=3)
    text = failed(comfy, source, sampler_custom(source, sampler[0], other[0])[0])
    assert "noise levels that are not its own 4: number 2 is " in text and "FewStep AMED Scheduler" in text

    source = demo("flow")
    loaded = source.graph.node("FewStepLoadAmed", name=name)
    assert "for vp models, but the model is flow" in failed(comfy, source, sampled(source, loaded[0])[2][0])

    source = demo("flow")
    loaded = source.graph.node("FewStepLoadAmed", name=name)
    sampler = source.graph.node("FewStepAmedSampler", predictor=loaded[0], model=source.model)
    assert "for vp models, but the model is flow" in failed(comfy, source, sampler[1])

    source = demo("vp")
    loaded = source.graph.node("FewStepLoadAmed", name=name)
    sampler = source.graph.node("FewStepAmedSampler", predictor=loaded[0], solver="ipndm3")
    text = failed(comfy, source, sampler[1])
    assert "solver was 'ipndm3', but this predictor was trained with 'amed'" in text

    source = demo("vp")
    shown = source.graph.node(
        "FewStepAmedTimes", sampler=source.graph.node("KSamplerSelect", sampler_name="euler")[0], samples=source.latent
    )
    assert "not an AMED sampler" in failed(comfy, source, shown[2])


def test_warnings_for_another_model_cfg_and_size(comfy, tmp_path):
    model = load_demo_model("edm")
    own = {"model_identity": model_identity(model.network), "resolution": [1, 32, 32], "feature_source": "middle block of UNet", "cfg": 3.0}
    net = predictor(model.noise_schedule)

    def report(facts: dict, cfg: float, larger=False, family="edm") -> str:
        source = demo(family)
        loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, f"facts {hash(str(facts))}", **facts))
        latent = source.latent
        if larger:
            latent = source.graph.node("LatentUpscale", samples=latent, upscale_method="bilinear", width=512, height=512, crop="disabled")[
                0
            ]
        sampler = source.graph.node(
            "FewStepAmedSampler", predictor=loaded[0], solver="amed", model=source.model, latent_image=latent, cfg_to_check=cfg
        )
        source.graph.node("PreviewAny", source=sampler[1])
        return comfy.run(source.graph).ui(sampler, "text")[0]

    fine = report(own, 2.5)
    assert "Warning" not in fine and "AMED-Solver (amed), 5 model calls, edm" in fine and "trained at cfg: 3" in fine
    warned = report({**own, "model_identity": "0" * 16, "model": "other.safetensors", "feature_source": "joint_blocks[1] of X"}, 7.5, True)
    assert warned.count("Warning: ") == 4
    for part in (
        "another model (other.safetensors)",
        "trained at cfg 3, but cfg is 7.5",
        "1x32x32, but these are 1x64x64",
        "joint_blocks[1]",
    ):
        assert part in warned
    net = predictor(load_demo_model("vp").noise_schedule)
    assert "highest level is" not in report(own, 3.0, family="vp")


def test_a_cfg_far_from_the_trained_one_is_told_in_the_log(comfy, tmp_path):
    net = predictor(load_demo_model("edm").noise_schedule)
    source = demo("edm", batch_size=1)
    loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, "far", cfg=6.0))
    _, _, run, _ = sampled(source, loaded[0])
    source.out(tmp_path, latent=run[0])
    comfy.run(source.graph)
    assert "trained at cfg 6, but cfg is 2" in comfy.log


def test_pictures_say_what_they_were_made_with(comfy, tmp_path):
    net = predictor(load_demo_model("edm").noise_schedule)
    source = demo("edm", batch_size=1)
    loaded = source.graph.node("FewStepLoadAmed", name=kept(comfy, net, "written"))
    _, _, run, _ = sampled(source, loaded[0])
    decoded = source.graph.node("VAEDecode", samples=run[0], vae=source.vae)
    source.graph.node("SaveImage", images=decoded[0], filename_prefix="amed")
    result = comfy.run(source.graph, extra_data={"extra_pnginfo": {}})
    (path,) = [path for path in comfy.images(result) if path.name.startswith("amed")]
    entries = json.loads(Image.open(path).info["fewstep"]).values()
    entry = next(entry for entry in entries if entry["node"] == "FewStepAmedSampler")
    assert entry["form"] == "amed" and entry["nfe"] == 5 and entry["kind"] == "predictor" and len(entry["sigmas"].split(",")) == 4


def test_every_input_has_a_tooltip(comfy):
    for name in ("FewStepLoadAmed", "FewStepSaveAmed", "FewStepAmedSampler", "FewStepAmedScheduler", "FewStepAmedTimes"):
        info = comfy.get(f"/object_info/{name}")[name]
        assert info["category"] == "FewStep/AMED" and len(info["description"]) > 60 and all(info["output_tooltips"])
        inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
        assert inputs and all(options["tooltip"] for _, options in inputs.values())
    solvers = comfy.get("/object_info/FewStepAmedSampler")["FewStepAmedSampler"]["input"]["optional"]["solver"][1]["options"]
    assert solvers[1:] == list(FORMS)
