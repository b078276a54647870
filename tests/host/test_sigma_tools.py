"""Nodes that read, write, change, draw and compare lists of noise levels, on the real host."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
from PIL import Image

from .comfyui import Graph, PromptRefused
from .graphs import Source, demo, ksampler, sampler_custom, tensor

LEVELS = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]


def read_text(graph: Graph, text: str, append_zero: bool = False):
    return graph.node("FewStepSigmasFromText", text=text, append_zero=append_zero)


def probe(graph: Graph, folder, **inputs):
    return graph.node("ProbeOut", folder=str(folder), key="", **inputs)


def refusal(comfy, graph: Graph) -> str:
    with pytest.raises(PromptRefused) as refused:
        comfy.post_prompt(graph)
    return " ".join(refused.value.sentences())


def manual_sigmas(text: str) -> list[float]:
    """The rule by which the node ManualSigmas of newer ComfyUI (0.10) reads its text."""
    return [float(np.float32(number)) for number in re.findall(r"[-+]?(?:\d*\.*\d+)", text)]


# --- Text ---


def test_text_becomes_the_levels_it_says(comfy, tmp_path):
    graph = Graph()
    plain = probe(graph, tmp_path, sigmas=read_text(graph, "sigmas: [14.5; 2.5e0 |\n.5]")[0])
    zero = probe(graph, tmp_path, sigmas=read_text(graph, "14.5 2.5", append_zero=True)[0])
    python = probe(graph, tmp_path, sigmas=read_text(graph, "torch.FloatTensor([np.float32(14.5), ２．５, 0.])")[0])
    result = comfy.run(graph)
    assert result.ui(python, "sigmas") == [14.5, 2.5, 0.0]
    assert result.ui(plain, "sigmas") == [14.5, 2.5, 0.5]
    assert result.ui(zero, "sigmas") == [14.5, 2.5, 0.0]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("14.6", "needs at least two"),
        ("1, 2", "must decrease"),
        ("nan, 0", "must be finite"),
        ("two, one", "'two', which is not a number"),
        ("14.6, 9.2, ..., 0.03, 0", "levels were left out"),
        ("14.6, 9.2, …, 0.03, 0", "levels were left out"),
        ("14,6; 5,4; 3,2; 1,0", "Write decimal points"),
    ],
)
def test_wrong_text_is_refused_before_anything_runs(comfy, tmp_path, text, sentence):
    graph = Graph()
    probe(graph, tmp_path, sigmas=read_text(graph, text)[0])
    assert sentence in refusal(comfy, graph)


@pytest.mark.parametrize("family", ["edm", "vp", "flow"])
def test_an_optimized_list_goes_through_text_unchanged(comfy, tmp_path, family):
    source = demo(family)
    graph = source.graph
    scheduler = graph.node("FewStepScheduler", model=source.model, steps=7)
    written = graph.node("FewStepSigmasToText", sigmas=scheduler[0], digits=0, separator="comma")
    again = read_text(graph, written[0])  # linked text is read when it is known
    first, second = probe(graph, tmp_path, sigmas=scheduler[0], text=written[0]), probe(graph, tmp_path, sigmas=again[0])
    result = comfy.run(graph)
    text = result.ui(written, "text")[0]
    assert result.ui(first, "text") == [text]
    assert result.ui(first, "sigmas") == result.ui(second, "sigmas") == manual_sigmas(text)


def test_wrong_linked_text_makes_the_node_red_and_the_queue_goes_on(comfy, tmp_path):
    graph = Graph()
    written = graph.node("FewStepSigmasToText", sigmas=read_text(graph, "3 2 1")[0], digits=0, separator="comma")
    joined = graph.node("StringConcatenate", string_a=written[0], string_b="4", delimiter=" ")
    probe(graph, tmp_path, sigmas=read_text(graph, joined[0])[0])
    result = comfy.run_any(graph)
    assert not result.ok and "Number 4 of the text is 4, not below the previous one, 1" in result.error
    graph = Graph()
    after = probe(graph, tmp_path, sigmas=read_text(graph, "3 2 1")[0])
    assert comfy.run(graph).ui(after, "sigmas") == [3, 2, 1]


def test_digits_and_separator_of_the_written_text(comfy):
    graph = Graph()
    sigmas = read_text(graph, "14.61464, 0.0291675, 0.0000123, 0")[0]
    exact = graph.node("FewStepSigmasToText", sigmas=sigmas, digits=0, separator="comma")
    short = graph.node("FewStepSigmasToText", sigmas=sigmas, digits=3, separator="line break")
    result = comfy.run(graph)
    assert result.ui(exact, "text") == ["14.61464, 0.0291675, 0.0000123, 0"]
    assert result.ui(short, "text") == ["14.6\n0.0292\n0.0000123\n0"]


# --- Resample and split ---


@pytest.mark.parametrize("steps", [1, 4, 10, 25])
def test_a_table_gets_another_number_of_steps(comfy, tmp_path, steps):
    graph = Graph()
    given = read_text(graph, str(LEVELS))
    resampled = graph.node("FewStepResampleSigmas", sigmas=given[0], steps=steps, family="auto")
    out = probe(graph, tmp_path, sigmas=resampled[0])
    sigmas = np.array(comfy.run(graph).ui(out, "sigmas"))
    assert len(sigmas) == steps + 1 and (np.diff(sigmas) < 0).all()
    assert sigmas[0] == pytest.approx(14.615) and sigmas[-1] == 0
    if steps == 10:
        np.testing.assert_allclose(sigmas, LEVELS, rtol=1e-6)


def test_the_family_of_a_connected_model_is_used(comfy, tmp_path):
    """Levels below 1 alone look like a flow model's."""
    source = demo("vp")
    given = read_text(source.graph, "0.9 0.5 0.1")
    outs = {}
    for name, more in {"guess": {}, "model": {"model": source.model}}.items():
        for family in ("auto", "vp", "flow"):
            node = source.graph.node("FewStepResampleSigmas", sigmas=given[0], steps=5, family=family, **more)
            outs[name, family] = probe(source.graph, tmp_path, sigmas=node[0])
    result = comfy.run(source.graph)
    lists = {key: result.ui(out, "sigmas") for key, out in outs.items()}
    assert lists["guess", "auto"] == lists["guess", "flow"] != lists["guess", "vp"]
    assert lists["model", "auto"] == lists["model", "vp"] == lists["guess", "vp"]


@pytest.mark.parametrize("step", [0, 1, 4, 10, 11])
def test_splitting_at_a_step_is_the_hosts_splitting(comfy, tmp_path, step):
    graph = Graph()
    given = read_text(graph, str(LEVELS))
    ours = graph.node("FewStepSplitSigmas", sigmas=given[0], split_at="step", step=step, sigma=1.0, percent=0.5)
    stock = graph.node("SplitSigmas", sigmas=given[0], step=step)
    outs = [probe(graph, tmp_path, sigmas=node[i]) for node in (ours, stock) for i in (0, 1)]
    result = comfy.run(graph)
    lists = [result.ui(out, "sigmas") for out in outs]
    assert lists[:2] == lists[2:]


@pytest.mark.parametrize(
    "split_at, value, high_steps",
    [
        ("sigma", 2.0, 4),
        ("sigma", 1.886, 4),
        ("sigma", 99.0, 0),
        ("sigma", 0.0, 10),
        ("percent", 0.0, 0),
        ("percent", 0.35, 4),
        ("percent", 1.0, 10),
    ],
)
def test_splitting_at_a_level_or_a_share(comfy, tmp_path, split_at, value, high_steps):
    graph = Graph()
    given = read_text(graph, str(LEVELS))
    inputs = {"sigmas": given[0], "split_at": split_at, "step": 3, "sigma": 1.0, "percent": 0.5}
    node = graph.node("FewStepSplitSigmas", **{**inputs, split_at: value})
    high, low = (probe(graph, tmp_path, sigmas=node[i]) for i in (0, 1))
    result = comfy.run(graph)
    np.testing.assert_allclose(result.ui(high, "sigmas"), LEVELS[: high_steps + 1], rtol=1e-6)
    np.testing.assert_allclose(result.ui(low, "sigmas"), LEVELS[high_steps:], rtol=1e-6)


def test_both_parts_together_are_one_sampling(comfy, tmp_path):
    """Euler has no memory, so two runs over the halves must meet one run over the whole."""
    source = demo("vp")
    graph = source.graph
    scheduler = graph.node("FewStepScheduler", model=source.model, steps=6)
    halves = graph.node("FewStepSplitSigmas", sigmas=scheduler[0], split_at="sigma", step=0, sigma=1.0, percent=0.0)
    euler = graph.node("KSamplerSelect", sampler_name="euler")
    whole = sampler_custom(source, euler[0], scheduler[0])
    first = sampler_custom(source, euler[0], halves[0])
    second = sampler_custom(source, euler[0], halves[1], latent=first[0], add_noise=False)
    a, b = source.out(tmp_path, latent=whole[0]), source.out(tmp_path, latent=second[0])
    result = comfy.run(graph)
    np.testing.assert_allclose(tensor(result, b), tensor(result, a), atol=1e-4)
    assert sum(result.ui(b, "calls")) == 12


@pytest.mark.parametrize(
    "node, inputs, name",
    [
        ("FewStepResampleSigmas", {"steps": 5, "family": "sdxl"}, "family"),
        ("FewStepSplitSigmas", {"split_at": "half", "step": 1, "sigma": 1.0, "percent": 0.5}, "split_at"),
        ("FewStepSigmasToText", {"digits": 0, "separator": "tab"}, "separator"),
    ],
)
def test_unknown_choices_are_refused(comfy, tmp_path, node, inputs, name):
    graph = Graph()
    changed = graph.node(node, sigmas=read_text(graph, str(LEVELS))[0], **inputs)
    probe(graph, tmp_path, **{"text" if node == "FewStepSigmasToText" else "sigmas": changed[0]})
    assert f"{name} was {inputs[name]!r}; it must be one of" in refusal(comfy, graph)


# --- Plot ---


@pytest.mark.parametrize("axis", ["log", "linear", "half-log-SNR"])
def test_a_chart_of_four_lists(comfy, tmp_path, axis):
    graph = Graph()
    texts = [str(LEVELS), "14.6 5 1 0", "10 1", "14 7 3 1 0.5 0.2 0"]
    lists = {f"sigmas_{i}": read_text(graph, text)[0] for i, text in enumerate(texts, start=1)}
    plot = graph.node(
        "FewStepPlotSigmas", **lists, axis=axis, labels="first\nsecond", title="Four lists", family="auto", width=640, height=400
    )  # fmt: skip
    out = probe(graph, tmp_path, image=plot[0])
    result = comfy.run(graph)
    image = tensor(result, out, "image")
    assert image.shape == (1, 400, 640, 3) and 0 <= image.min() and image.max() == 1
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(tmp_path / f"plot-{axis}.png")
    for colour in ((0, 114, 178), (213, 94, 0), (0, 158, 115), (170, 68, 153)):
        assert (np.abs(image[0] * 255 - colour).max(-1) < 3).sum() > 100, "a curve is missing"
    curves = result.ui(plot, "fewstep_curve")
    assert [curve["label"] for curve in curves] == ["first", "second", "list 3", "list 4"]
    assert [curve["nfe"] for curve in curves] == [10, 3, 1, 6]
    assert curves[0]["lambdas"][-1] is None and curves[0]["family"] == "vp" and curves[0]["exact"]


def test_a_list_that_leaves_the_familys_range_is_explained(comfy, tmp_path):
    graph = Graph()
    plot = graph.node(
        "FewStepPlotSigmas", sigmas_1=read_text(graph, "14 7 0")[0], axis="half-log-SNR", family="flow",
        labels="", title="", width=640, height=400,
    )  # fmt: skip
    probe(graph, tmp_path, image=plot[0])
    result = comfy.run_any(graph)
    assert not result.ok and "a flow model's sigma must lie in [0, 1]" in result.error


# --- Compare ---


def compare(source: Source, **changes):
    inputs = {
        "model": source.model, "positive": source.positive, "negative": source.negative, "latent_image": source.latent,
        "vae": source.vae, "seed": 3, "cfg": 2.0, "steps": 5, "solver": "unipc", "schedules": "optimized\nkarras\nuniform_lambda",
        "reference_steps": 0, "max_images": 8, "tile_size": 64,
    }  # fmt: skip
    return source.graph.node("FewStepCompareSchedules", **{**inputs, **changes})


def table_rows(text: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|") and "---" not in line]
    return {cells[0]: cells[1:] for cells in lines}


@pytest.mark.parametrize("family", ["edm", "vp", "flow"])
def test_schedules_side_by_side(comfy, tmp_path, family):
    source = demo(family, batch_size=3)
    node = compare(source, reference_steps=30)
    out = source.out(tmp_path, image=node[0], text=node[1])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [30, 5, 5, 5]
    rows = table_rows(result.ui(out, "text")[0])
    assert list(rows) == ["schedule", "optimized", "karras", "uniform_lambda", "reference, 30 steps"]
    assert [cells[1] for cells in rows.values()] == ["model calls", "5", "5", "5", "30"]
    distances = {name: float(rows[name][3].strip("*")) for name in ("optimized", "karras", "uniform_lambda")}
    assert all(0 < value < 3 for value in distances.values())
    assert [name for name in distances if rows[name][3].startswith("**")] == [min(distances, key=distances.get)]
    image = tensor(result, out, "image")
    assert image.shape[0] == 1 and image.shape[1] > 4 * 64 and image.shape[2] > 3 * 64
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(tmp_path / f"compare-{family}.png")
    assert [Image.open(path).size for path in comfy.images(result)] == [image.shape[2:0:-1]]
    assert [curve["label"] for curve in result.ui(node, "fewstep_curve")] == ["optimized", "karras", "uniform_lambda"]
    assert result.ui(node, "text") == result.ui(out, "text")


def test_rows_are_what_the_nodes_give_alone(comfy, tmp_path):
    """The distance that the table shows is that between a scheduler's own run and the reference's."""
    source = demo("vp", batch_size=2)
    graph = source.graph
    node = compare(source, reference_steps=20, schedules="optimized")
    scheduler = graph.node("FewStepScheduler", model=source.model, solver="unipc", steps=5)
    baseline = graph.node("FewStepBaselineScheduler", model=source.model, schedule="uniform_lambda", steps=20)
    sampler = graph.node("FewStepSampler", solver="unipc")
    alone = [sampler_custom(source, sampler[0], sigmas[0], noise_seed=3) for sigmas in (scheduler, baseline)]
    few, many = (source.out(tmp_path, latent=sampled[0]) for sampled in alone)
    table = source.out(tmp_path, text=node[1])
    result = comfy.run(graph)
    expected = np.sqrt(np.mean(np.square(tensor(result, few) - tensor(result, many))))
    assert float(table_rows(result.ui(table, "text")[0])["optimized"][3]) == pytest.approx(expected, abs=2e-4)


def test_calls_of_a_connected_sampler_are_counted(comfy, tmp_path):
    source = demo("edm", batch_size=1)
    heun = source.graph.node("KSamplerSelect", sampler_name="heun")
    node = compare(source, sampler=heun[0], schedules="karras, optimized", steps=4)
    out = source.out(tmp_path, text=node[1])
    result = comfy.run(source.graph)
    assert result.ui(out, "calls") == [7, 7]
    assert [cells[1] for cells in table_rows(result.ui(out, "text")[0]).values()] == ["model calls", "7", "7"]
    assert result.ui(out, "text")[0].startswith("heun, 4 steps, cfg 2")


def test_a_schedule_that_does_not_fit_is_told_before_sampling(comfy, tmp_path):
    source = demo("flow")
    node = compare(source, schedules="optimized\nays")
    source.out(tmp_path, text=node[1])
    result = comfy.run_any(source.graph)
    assert not result.ok and "'ays'" in result.error and "family is 'flow'" in result.error
    source = demo("flow")
    out = source.out(tmp_path, text=compare(source, schedules="optimized")[1])
    assert comfy.run(source.graph).ui(out, "calls") == [5]


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"schedules": "optimized\nkaras"}, "schedules was 'karas'; it must be one of optimized, "),
        ({"schedules": "\n"}, "it must name 1 to 12"),
        ({"solver": "magic"}, "solver was 'magic'; it must be one of"),
        ({"steps": 0}, "steps"),
    ],
)
def test_wrong_comparisons_are_refused(comfy, changes, sentence):
    source = demo()
    compare(source, **changes)
    assert sentence in refusal(comfy, source.graph)


def test_a_long_comparison_can_be_interrupted(comfy, tmp_path):
    source, watched = demo("vp"), tmp_path / "calls"
    source.model = source.graph.node("ProbeModel", model=source.model, key=source.key, delay=0.05, watched=str(watched))[0]
    compare(source, reference_steps=400)
    prompt = comfy.post_prompt(source.graph)
    deadline = time.monotonic() + 60
    while not watched.exists() or int(watched.read_text() or 0) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    comfy.interrupt()
    assert comfy.wait(prompt).interrupted and int(watched.read_text()) < 200
    source = demo("vp")
    out = source.out(tmp_path, latent=ksampler(source)[0])
    assert np.isfinite(tensor(comfy.run(source.graph), out)).all()


# --- All ---


@pytest.mark.parametrize(
    "name, category",
    [
        ("FewStepSigmasFromText", "sampling/custom_sampling/sigmas"),
        ("FewStepSigmasToText", "sampling/custom_sampling/sigmas"),
        ("FewStepResampleSigmas", "sampling/custom_sampling/sigmas"),
        ("FewStepSplitSigmas", "sampling/custom_sampling/sigmas"),
        ("FewStepPlotSigmas", "FewStep"),
        ("FewStepCompareSchedules", "FewStep"),
    ],
)
def test_every_input_has_a_tooltip(comfy, name, category):
    info = comfy.get(f"/object_info/{name}")[name]
    assert info["category"] == category and len(info["description"]) > 60 and all(info["output_tooltips"])
    inputs = {**info["input"].get("required", {}), **info["input"].get("optional", {})}
    assert inputs and all(options["tooltip"] for _, options in inputs.values())
