"""ComfyUI's real page in a headless Chromium: templates, curves inside nodes, hidden inputs, no complaints on the console.

Screenshots are kept in .venv/screenshots.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from .browser import open_page, why_no_browser
from .comfyui import ROOT
from .workflows import to_prompt

pytestmark = pytest.mark.skipif(bool(why_no_browser()), reason=why_no_browser() or "-")

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
DEMO = ROOT / "example_workflows" / "01 Try it.json"
SCREENSHOTS = ROOT / ".venv" / "screenshots"
SCHEDULER = "FewStepScheduler"
RENDERERS = ["classic", "vue"]


@pytest.fixture(scope="module")
def page(comfy):
    """A page with the classic renderer."""
    with open_page(comfy.url) as page:
        page.renderer = "classic"
        yield page


@pytest.fixture(scope="module")
def vue_page(comfy):
    """A page with the new renderer."""
    with open_page(comfy.url, Comfy__VueNodes__Enabled=True) as page:
        page.renderer = "vue"
        yield page


@pytest.fixture(params=RENDERERS)
def any_page(request):
    """A page with each of the two renderers of nodes."""
    return request.getfixturevalue("page" if request.param == "classic" else "vue_page")


def keep(page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    path = SCREENSHOTS / f"{name}.png"
    page.page.screenshot(path=path)
    assert path.stat().st_size > 30_000, f"{path} is as good as empty"


def load_template(page, name: str) -> None:
    """As a user does: the button in the side bar, then the card."""
    page.page.locator(".templates-tab-button, button:has(.icon-\\[comfy--template\\])").first.click()
    page.page.locator(f'[data-testid="template-workflow-{name}"]').click()
    page.until("() => fewstepTest.node('FewStepScheduler')")
    page.rest()


def click_arrow(page, node_type: str, name: str) -> None:
    """Raise a number by a click: the arrow on the canvas, or the plus of the new renderer."""
    if page.renderer == "vue":
        box = page.page.locator(f'[data-node-id="{node_id(page, node_type)}"] .lg-node-widget', has_text=name).first
        box.locator('.p-inputnumber-increment-button, [data-testid="increment"]').first.click()
        return
    x, y = page.js(
        """([type, name]) => {
          const node = fewstepTest.node(type), widget = fewstepTest.widget(type, name), { ds, canvas } = app.canvas;
          const at = [node.pos[0] + node.size[0] - 25, node.pos[1] + widget.y + 10];
          const box = canvas.getBoundingClientRect();
          return at.map((value, i) => (value + ds.offset[i]) * ds.scale + (i ? box.top : box.left));
        }""",
        [node_type, name],
    )
    page.page.mouse.click(x, y)


def node_id(page, node_type: str) -> int:
    return page.js("(type) => fewstepTest.node(type).id", node_type)


def shown_inputs(page, node_type: str) -> list[str]:
    """The inputs of a node that can be seen, in order; with those that newer pages fold away, unfolded."""
    if page.renderer == "vue":
        folded = page.page.locator(f'[data-node-id="{node_id(page, node_type)}"]').get_by_text("Show advanced inputs")
        if folded.count():
            folded.click()
            page.settle(300)
        rows = page.page.locator(f'[data-node-id="{node_id(page, node_type)}"] .lg-node-widget').all()
        texts = [row.inner_text().split("\n")[0] for row in rows if row.is_visible()]
        names = page.js("(type) => fewstepTest.node(type).widgets.map((w) => [w.label || w.name, w.name])", node_type)
        return [name for label, name in names if label in texts]
    return page.js(
        """(type) => {
          const node = fewstepTest.node(type);
          return node.widgets.filter((w) => w.serialize !== false && node.isWidgetVisible(w)).map((w) => w.name);
        }""",
        node_type,
    )


def wait_for_inputs(page, node_type: str, right) -> None:
    """Wait until `right` is true of the inputs that can be seen."""
    for _ in range(50):
        shown = shown_inputs(page, node_type)
        if right(shown):
            return
        page.settle(100)
    raise AssertionError(shown)


def point_at_step(page, node_type: str, share: float) -> None:
    page.js("(type) => { fewstepTest.box(type).id = 'curve-under-test'; }", node_type)
    box = page.page.locator("#curve-under-test .fewstep-plot").bounding_box()
    page.page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] / 2)


EMPTY = {"last_node_id": 0, "last_link_id": 0, "nodes": [], "links": [], "groups": [], "config": {}, "extra": {}, "version": 0.4}


def new_graph(page, chain: list[tuple[str, dict]], node_type: str = SCHEDULER) -> None:
    """A graph of nodes that pass a MODEL on, the last into a node of `node_type`."""
    # Newer pages keep the values of cleared nodes for new ones with the same ids; not those of another workflow.
    page.load({**EMPTY, "id": str(uuid.uuid4())})
    page.js(
        """([chain, last]) => {
          let before = null;
          for (const [type, values] of [...chain, [last, {}]]) {
            const node = LiteGraph.createNode(type);
            app.graph.add(node);
            for (const [name, value] of Object.entries(values)) node.widgets.find((w) => w.name === name).value = value;
            if (before) before.connect(before.outputs.findIndex((o) => o.type === "MODEL"), node, "model");
            before = node;
          }
        }""",
        [chain, node_type],
    )


# --- A user's first minutes, in both renderers ---


def test_first_minutes(any_page):
    page = any_page
    load_template(page, "01 Try it")
    first = page.wait_for_curve(SCHEDULER, "curve.dots === 6")
    assert first["calls"] == "5 calls (10 with CFG)" and first["state"] == "preview" and first["assumed"] == "Demo model (edm)"
    keep(page, f"loaded-{page.renderer}")

    click_arrow(page, SCHEDULER, "steps")
    second = page.wait_for_curve(SCHEDULER, "curve.dots === 7")
    assert second["calls"] == "6 calls (12 with CFG)" and second["path"] != first["path"]

    point_at_step(page, SCHEDULER, 0.5)
    readout = page.wait_for_curve(SCHEDULER, "curve.readout")["readout"]
    assert readout.startswith("step 3 of 6") and "σ" in readout and "λ" in readout and "%" in readout
    page.page.mouse.down()
    page.page.mouse.up()
    linear = page.wait_for_curve(SCHEDULER, f"curve.path !== {second['path']!r}")
    assert linear["axis"] == "σ, linear"
    page.page.mouse.move(5, 400)

    # Something that the other renderer's run has not left in the server's cache.
    page.set_widget("FewStepLoadDemoModel", "class_name", {"classic": "coat", "vue": "bag"}[page.renderer])
    page.run()
    ran = page.wait_for_curve(SCHEDULER, "curve.state === 'exact, as run'")
    assert ran["dots"] == 7 and ran["report"].startswith("FewStep: 6 optimized steps")
    page.until("() => app.nodeOutputs[fewstepTest.node('SaveImage').id].images.length === 10")
    if page.renderer == "vue":
        assert page.page.locator(f'[data-node-id="{node_id(page, "SaveImage")}"] img').first.is_visible()
    else:
        page.until("() => fewstepTest.node('SaveImage').imgs?.length === 10")
    keep(page, f"run-{page.renderer}")
    assert page.complaints() == []


def test_only_inputs_that_count_are_shown(any_page):
    page = any_page
    page.load(DEMO.read_text(encoding="utf-8"))
    page.rest()
    expected = {
        "unipc": ["solver", "order", "variant", "corrector", "lower_order_final", "afs", "algorithm_version"],
        "heun": ["solver", "afs", "algorithm_version"],
        "dpmpp_2m_sde": ["solver", "order", "variant", "afs", "eta", "s_noise", "algorithm_version"],
        "dpmpp_2m": ["solver", "variant", "lower_order_final", "afs", "algorithm_version"],
    }
    before = page.prompt()[str(node_id(page, "FewStepSampler"))]["inputs"]
    nodes = json.loads(DEMO.read_text(encoding="utf-8"))["nodes"]
    saved_values = next(node["widgets_values"] for node in nodes if node["type"] == "FewStepSampler")
    for solver in (*expected, "unipc", "heun"):  # what was hidden comes back, more than once
        page.set_widget("FewStepSampler", "solver", solver)
        wait_for_inputs(page, "FewStepSampler", lambda shown, inputs=expected[solver]: shown == inputs)
        saved = page.workflow()
        node = next(node for node in saved["nodes"] if node["type"] == "FewStepSampler")
        assert node["widgets_values"] == [solver, *saved_values[1:]]
        assert page.prompt()[str(node["id"])]["inputs"] == {**before, "solver": solver}
        if solver == "heun":
            keep(page, f"heun-{page.renderer}")
    page.set_widget(SCHEDULER, "schedule", "karras")
    inputs = ["solver", "steps", "denoise", "schedule", "algorithm_version", "boundary"]
    wait_for_inputs(page, SCHEDULER, lambda shown: shown == inputs)
    page.set_widget(SCHEDULER, "schedule", "optimized")
    wait_for_inputs(page, SCHEDULER, lambda shown: {"p", "first_call"} <= set(shown))
    page.set_widget(SCHEDULER, "denoise", 0.5)
    wait_for_inputs(page, SCHEDULER, lambda shown: "first_call" not in shown)
    assert page.complaints() == []


def test_inputs_that_count_in_other_nodes(any_page):
    page = any_page
    page.load(DEMO.read_text(encoding="utf-8"))
    page.js(
        """() => {
          for (const [i, type] of ["FewStepKSampler", "FewStepSplitSigmas", "FewStepTwoExpertGuider"].entries()) {
            const node = LiteGraph.createNode(type);
            node.pos = [400 * i, 700];
            app.graph.add(node);
          }
        }"""
    )
    page.rest()
    for preset, there in (("Fast 5", False), ("Custom", True), ("Balanced 8", False)):
        page.set_widget("FewStepKSampler", "preset", preset)
        wait_for_inputs(page, "FewStepKSampler", lambda shown, there=there: ("steps" in shown) is there)
    for name in ("sigma", "percent", "step"):
        page.set_widget("FewStepSplitSigmas", "split_at", name)
        wait_for_inputs(page, "FewStepSplitSigmas", lambda shown, name=name: shown == ["split_at", name])
    for name, there in (("custom", True), ("0.9 (Wan 2.2 image to video)", False)):
        page.set_widget("FewStepTwoExpertGuider", "boundary", name)
        wait_for_inputs(page, "FewStepTwoExpertGuider", lambda shown, there=there: ("boundary_sigma" in shown) is there)


def test_a_connected_input_is_not_hidden(page):
    new_graph(page, [("FewStepLoadDemoModel", {})], "FewStepKSampler")
    page.js(
        """() => {
          const number = LiteGraph.createNode("PrimitiveInt"), node = fewstepTest.node("FewStepKSampler");
          app.graph.add(number);
          number.widgets[0].value = 4;
          number.connect(0, node, node.inputs.findIndex((input) => input.name === "steps"));
        }"""
    )
    page.settle(300)
    widget = "fewstepTest.widget('FewStepKSampler', 'steps')"
    assert page.js(f"() => fewstepTest.node('FewStepKSampler').isWidgetVisible({widget})") is True
    page.set_widget("FewStepKSampler", "preset", "Custom")
    assert page.wait_for_curve("FewStepKSampler", "curve.dots === 5")["calls"] == "4 calls (8 with CFG)"


def test_only_choices_of_the_solver_are_offered(page):
    page.load(DEMO.read_text(encoding="utf-8"))
    offered = "(name) => fewstepTest.widget('FewStepSampler', name).options.values"
    assert sorted(page.js(offered, "variant")) == ["auto", "bh1", "bh2", "lagrange", "vary_coeff"]
    page.set_widget("FewStepSampler", "variant", "bh1")
    page.set_widget("FewStepSampler", "order", "4")
    page.set_widget("FewStepSampler", "solver", "dpmpp_2m_sde")
    assert page.js(offered, "variant") == ["auto", "midpoint", "heun"] and page.js(offered, "order") == ["auto", "1", "2"]
    chosen = "() => ['variant', 'order'].map((name) => fewstepTest.widget('FewStepSampler', name).value)"
    assert page.js(chosen) == ["auto", "auto"]
    page.set_widget("FewStepSampler", "solver", "unipc")
    assert page.js(offered, "order") == ["auto", "1", "2", "3", "4"]
    # The lists of other nodes and of the definition are untouched.
    assert page.js("() => LiteGraph.createNode('FewStepSampler').widgets.find((w) => w.name === 'variant').options.values.length") == 5


def test_the_note_below_the_sampler_counts_calls(any_page):
    page = any_page
    page.load(DEMO.read_text(encoding="utf-8"))
    words = "(solver) => fewstepTest.node('FewStepSampler').widgets.find((w) => w.name === 'fewstep_note').element.textContent"
    assert page.js(words) == "UniPC: 1 call per step (2 with CFG)"
    page.set_widget("FewStepSampler", "solver", "heun")
    assert page.js(words) == "Heun: 2 calls per step (4 with CFG), the last step 1"


# --- Workflows ---


def values_of(workflow: dict) -> list[tuple]:
    return sorted((node["id"], node["type"], node.get("widgets_values") or []) for node in workflow["nodes"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_examples_are_saved_as_they_were_loaded_without_overlaps_and_readable(page, comfy, path: Path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.page.set_viewport_size({"width": 1600, "height": 900})
    page.load(workflow)
    page.rest()
    saved = page.workflow()
    assert values_of(saved) == values_of(workflow)
    sizes = {node["id"]: [round(value) for value in node["size"]] for node in saved["nodes"]}
    assert sizes == {node["id"]: node["size"] for node in workflow["nodes"]}
    assert sorted(saved["links"]) == sorted(workflow["links"])
    for number, node in to_prompt(workflow, comfy.object_info).items():
        queued = page.prompt()[number]
        assert queued["class_type"] == node["class_type"]
        # The page has inputs of its own in some nodes.
        assert {name: queued["inputs"].get(name) for name in node["inputs"]} == node["inputs"]
    assert overlaps(page) == []
    page.view(0, 0, 0.1)
    page.js("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.until("() => app.canvas.ds.scale > 0.61", limit=10_000)  # below 60 % the page draws no text
    assert page.complaints() == []


def overlaps(page) -> list[tuple[str, str]]:
    """Pairs of nodes of which one covers a part of the other."""
    boxes = page.js("() => app.graph.nodes.map((n) => [n.title, ...n.pos, ...n.size])")
    return [
        (title, other)
        for i, (title, x, y, width, height) in enumerate(boxes)
        for other, x2, y2, width2, height2 in boxes[:i]
        if not (x + width <= x2 or x2 + width2 <= x or y + height <= y2 - 30 or y2 + height2 <= y - 30)
    ]


SAVED = sorted((ROOT / "tests/data/saved_workflows").rglob("*.json"))


@pytest.mark.parametrize("path", SAVED, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_workflows_saved_by_earlier_versions_keep_their_values_and_links(page, path: Path):
    """Values are positional, links too; what has been added since has its default, or what it means where it is not named."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.load(workflow)
    page.rest()
    saved = {node["id"]: node for node in page.workflow()["nodes"]}
    for node in workflow["nodes"]:
        values = node.get("widgets_values") or []
        assert (saved[node["id"]].get("widgets_values") or [])[: len(values)] == values, node["type"]
    assert named_links(page.workflow()) == named_links(workflow)
    assert page.complaints() == []


def named_links(workflow: dict) -> set[tuple]:
    """Links by the ids of their nodes and the names of outputs and inputs."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    outputs = {
        link: (node["id"], output["name"])
        for node in nodes.values()
        for output in node.get("outputs", ())
        for link in output["links"] or ()
    }
    inputs = {
        given["link"]: (node["id"], given["name"])
        for node in nodes.values()
        for given in node.get("inputs", ())
        if given.get("link") is not None
    }
    assert outputs.keys() == inputs.keys() == {link[0] for link in workflow["links"]}
    for number, origin, place, target, slot, _ in workflow["links"]:
        assert nodes[origin]["outputs"][place]["name"] == outputs[number][1] and nodes[target]["inputs"][slot]["name"] == inputs[number][1]
    return {outputs[link] + inputs[link] for link in outputs}


def test_an_address_with_the_former_name_of_a_template_opens_it(comfy):
    # Newer pages take no names with blanks from an address.
    with open_page(f"{comfy.url}/?template=img2img&source=fewstep") as page:
        page.until("() => fewstepTest.node('FewStepKSampler')")
        assert page.complaints() == []


# --- What the preview stands for ---


@pytest.mark.parametrize(
    ("chain", "assumed"),
    [
        ([], "Stable Diffusion 1.x"),
        ([("CheckpointLoaderSimple", {"ckpt_name": "sd_xl_base_1.0.safetensors"})], "Stable Diffusion XL"),
        ([("CheckpointLoaderSimple", {"ckpt_name": "folder/ponyDiffusionV6XL.safetensors"})], "Stable Diffusion XL"),
        ([("CheckpointLoaderSimple", {"ckpt_name": "v2-1_768-ema-pruned.ckpt"})], "Stable Diffusion 2.x (v-prediction)"),
        ([("UNETLoader", {"unet_name": "flux1-dev.safetensors"})], "FLUX.1 dev"),
        ([("UNETLoader", {"unet_name": "wan2.2_t2v_high_noise_14B_fp16.safetensors"})], "Wan"),
        ([("UNETLoader", {"unet_name": "qwen_image_fp8_e4m3fn.safetensors"})], "Qwen-Image"),
        ([("CheckpointLoaderSimple", {"ckpt_name": "sd3.5_large.safetensors"})], "Stable Diffusion 3"),
        ([("ImageOnlyCheckpointLoader", {"ckpt_name": "whatever.safetensors"})], "Stable Video Diffusion"),
        ([("FewStepLoadDemoModel", {"family": "flow"})], "Demo model (flow)"),
        ([("FewStepLoadDemoModel", {"family": "flow", "model": "emoji"})], "Demo model (emoji)"),
        (
            [("CheckpointLoaderSimple", {"ckpt_name": "sd_xl_base_1.0.safetensors"}), ("LoraLoaderModelOnly", {}), ("RescaleCFG", {})],
            "Stable Diffusion XL",
        ),
        (
            [("CheckpointLoaderSimple", {"ckpt_name": "sd15.safetensors"}), ("ModelSamplingDiscrete", {"zsnr": True})],
            "Stable Diffusion tables rescaled",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_graph_tells_which_noise_schedule_to_assume(page, chain, assumed):
    new_graph(page, chain)
    assert page.wait_for_curve(SCHEDULER, "curve.dots > 0")["assumed"].startswith(assumed)


def first_level(curve: dict) -> float:
    return float(curve["levels"].split(": ")[1].split(",")[0])


def second_level(curve: dict) -> float:
    return float(curve["levels"].split(", ")[1])


def test_model_sampling_nodes_count_with_their_values(page):
    levels = []
    for shift in (3.0, 12.0):
        new_graph(page, [("UNETLoader", {"unet_name": "sd3.safetensors"}), ("ModelSamplingSD3", {"shift": shift})])
        levels.append(second_level(page.wait_for_curve(SCHEDULER, "curve.dots > 0")))
    assert levels[0] < levels[1]
    new_graph(page, [("UNETLoader", {"unet_name": "x.safetensors"}), ("ModelSamplingContinuousEDM", {"sigma_max": 50.0, "sigma_min": 0.1})])
    assert first_level(page.wait_for_curve(SCHEDULER, "curve.dots > 0")) == 50
    new_graph(page, [("UNETLoader", {"unet_name": "flux1-dev.safetensors"}), ("ModelSamplingFlux", {"width": 512, "height": 512})])
    assert page.wait_for_curve(SCHEDULER, "curve.dots > 0")["assumed"].startswith("FLUX.1 dev")


def test_a_changed_loader_changes_the_preview(page):
    new_graph(page, [("FewStepLoadDemoModel", {"family": "edm"})])
    assert first_level(page.wait_for_curve(SCHEDULER, "curve.dots > 0")) == 20
    page.set_widget("FewStepLoadDemoModel", "family", "vp")
    page.js("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")  # what a click or key does
    curve = page.wait_for_curve(SCHEDULER, "curve.assumed === 'Demo model (vp)' && !curve.levels.includes(' 20,')")
    assert 14.6 < first_level(curve) < 14.7


def test_a_choice_of_the_noise_schedule_is_kept_in_the_workflow(page):
    new_graph(page, [("CheckpointLoaderSimple", {"ckpt_name": "mystery.safetensors"})])
    page.wait_for_curve(SCHEDULER, "curve.dots > 0")
    select = "fewstepTest.box('FewStepScheduler').querySelector('select')"
    page.js(f"() => {{ const select = {select}; select.value = 'svd'; select.dispatchEvent(new Event('change')); }}")
    assert first_level(page.wait_for_curve(SCHEDULER, "curve.levels.includes(' 700,')")) == 700
    saved = page.workflow()
    page.load(saved)
    assert first_level(page.wait_for_curve(SCHEDULER, "curve.levels.includes(' 700,')")) == 700
    assert page.js(f"() => {select}.value") == "svd"


def test_the_model_is_found_through_the_border_of_a_subgraph(page):
    new_graph(page, [("FewStepLoadDemoModel", {"family": "flow"}), ("RescaleCFG", {})])
    page.wait_for_curve(SCHEDULER, "curve.dots > 0")
    page.js(
        """() => {
          window.fewstepSubgraph = app.graph.convertToSubgraph(new Set([fewstepTest.node("FewStepScheduler")])).subgraph;
          app.canvas.setGraph(fewstepSubgraph);
        }"""
    )
    box = "fewstepSubgraph.nodes[0].widgets.find((w) => w.name === 'fewstep_curve').element"
    assert page.until(f"() => {box}.isConnected && {box}.querySelector('select').selectedOptions[0].textContent") == "Demo model (flow)"
    page.js("() => app.canvas.setGraph(app.rootGraph)")


# --- Requests ---


def requests_of(page) -> list[str]:
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url) if "/fewstep/preview" in request.url else None)
    return asked


def test_many_edits_are_one_request_and_a_known_answer_none(page):
    new_graph(page, [("FewStepLoadDemoModel", {"family": "edm"})])
    page.wait_for_curve(SCHEDULER, "curve.dots > 0")
    asked = requests_of(page)
    page.js(
        """() => {
          const widget = fewstepTest.widget("FewStepScheduler", "steps");
          for (let steps = 20; steps < 30; steps++) widget.callback((widget.value = steps));
        }"""
    )
    page.wait_for_curve(SCHEDULER, "curve.dots === 30")
    assert len(asked) == 1
    page.set_widget(SCHEDULER, "steps", 28)
    page.wait_for_curve(SCHEDULER, "curve.dots === 29")
    page.set_widget(SCHEDULER, "steps", 29)
    page.wait_for_curve(SCHEDULER, "curve.dots === 30")
    assert len(asked) == 2


def test_a_late_answer_does_not_replace_a_newer_one(page):
    new_graph(page, [("FewStepLoadDemoModel", {"family": "edm"})])
    page.wait_for_curve(SCHEDULER, "curve.dots > 0")

    def slow(route):
        page.page.wait_for_timeout(1000)
        route.continue_()

    page.page.route("**/fewstep/preview?*steps=23*", slow)
    page.set_widget(SCHEDULER, "steps", 23)
    page.settle(400)
    page.set_widget(SCHEDULER, "steps", 24)
    page.wait_for_curve(SCHEDULER, "curve.dots === 25")
    page.rest(1000)
    assert page.curve(SCHEDULER)["dots"] == 25
    page.page.unroute("**/fewstep/preview?*steps=23*")


def test_a_removed_node_asks_nothing(page):
    new_graph(page, [("FewStepLoadDemoModel", {"family": "edm"})])
    page.wait_for_curve(SCHEDULER, "curve.dots > 0")
    asked = requests_of(page)
    page.set_widget(SCHEDULER, "steps", 41)
    page.js("() => { window.fewstepBox = fewstepTest.box('FewStepScheduler'); app.graph.remove(fewstepTest.node('FewStepScheduler')); }")
    page.settle(600)
    assert asked == [] and not page.js("() => fewstepBox.isConnected")


def test_the_graph_moves_below_the_pointer(page):
    """The wheel zooms and the middle button drags, over the drawing as beside it."""
    page.load(DEMO.read_text(encoding="utf-8"))
    page.wait_for_curve(SCHEDULER, "curve.dots > 0")
    point_at_step(page, SCHEDULER, 0.5)
    scale, offset = page.js("() => [app.canvas.ds.scale, app.canvas.ds.offset[0]]")
    page.page.mouse.down(button="middle")
    page.page.mouse.move(700, 500, steps=4)
    page.page.mouse.up(button="middle")
    assert page.js("() => app.canvas.ds.offset[0]") != offset
    point_at_step(page, SCHEDULER, 0.5)
    page.page.mouse.wheel(0, -200)
    page.settle(300)
    assert page.js("() => app.canvas.ds.scale") > scale


def test_what_is_wrong_is_said_in_the_node(page):
    new_graph(page, [("FewStepLoadDemoModel", {"family": "edm"})])
    page.set_widget(SCHEDULER, "steps", 500)
    assert "after the node has run" in page.wait_for_curve(SCHEDULER, "curve.readout")["readout"]
    page.set_widget(SCHEDULER, "steps", 5)
    assert page.wait_for_curve(SCHEDULER, "curve.dots === 6")["readout"] == ""


# --- Runs ---


def test_edits_after_a_run_use_the_model_that_ran(page):
    page.load(DEMO.read_text(encoding="utf-8"))
    page.set_widget("FewStepLoadDemoModel", "family", "vp")
    page.set_widget("RandomNoise", "noise_seed", 99)
    page.run()
    page.wait_for_curve(SCHEDULER, "curve.state === 'exact, as run'")
    page.set_widget(SCHEDULER, "steps", 7)
    assert page.wait_for_curve(SCHEDULER, "curve.dots === 8")["state"] == "exact for this model"
    page.set_widget(SCHEDULER, "steps", 5)
    assert page.wait_for_curve(SCHEDULER, "curve.dots === 6")["state"] == "exact, as run"
    page.js("() => { const node = fewstepTest.node('FewStepScheduler'); node.disconnectInput(node.findInputSlot('model')); }")
    assert page.wait_for_curve(SCHEDULER, "curve.state === 'preview'")["assumed"] == "Stable Diffusion 1.x"
    page.set_widget(SCHEDULER, "steps", 6)
    assert page.wait_for_curve(SCHEDULER, "curve.dots === 7")["state"] == "preview"
    connect = "fewstepTest.node('FewStepLoadDemoModel').connect(0, fewstepTest.node('FewStepScheduler'), 'model')"
    page.js(f"() => {{ {connect}; }}")
    assert page.wait_for_curve(SCHEDULER, "curve.state === 'exact for this model'")["dots"] == 7
    page.set_widget("FewStepLoadDemoModel", "family", "flow")
    page.js("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    assert page.wait_for_curve(SCHEDULER, "curve.state === 'preview'")["assumed"] == "Demo model (flow)"


def test_lists_in_one_drawing_and_calls_without_guidance(page):
    page.load((ROOT / "example_workflows" / "05 Compare schedules.json").read_text(encoding="utf-8"))
    page.set_widget("FewStepCompareSchedules", "reference_steps", 0)
    page.run()
    plot = page.wait_for_curve("FewStepPlotSigmas", "curve.dots === 18")
    assert "optimized: " in plot["levels"] and "karras: " in plot["levels"] and plot["axis"] == "half-log-SNR λ"
    page.view(-1500, 0, 1)
    keep(page, "plot")
    page.load((ROOT / "example_workflows" / "04 Image to image.json").read_text(encoding="utf-8"))
    assert page.wait_for_curve("FewStepKSampler", "curve.dots === 9")["calls"] == "8 calls (16 with CFG)"
    page.set_widget("FewStepKSampler", "cfg", 1)
    page.set_widget("FewStepKSampler", "preset", "Fast 5")
    assert page.wait_for_curve("FewStepKSampler", "curve.dots === 6")["calls"] == "5 calls"
    assert page.complaints() == []


def test_settings(page):
    page.set(FewStep__Curve=False)
    try:
        new_graph(page, [("FewStepLoadDemoModel", {"family": "edm"})])
        page.rest()
        assert page.js("() => fewstepTest.box('FewStepScheduler')") is None and page.page.locator(".fewstep").count() == 0
        assert page.js("() => app.extensionManager.setting.get('FewStep.Dropdown')") is True
        assert page.complaints() == []
    finally:
        page.set(FewStep__Curve=True)


def test_a_light_theme_is_readable(page):
    page.set(Comfy__ColorPalette="light")
    try:
        page.load(DEMO.read_text(encoding="utf-8"))
        page.wait_for_curve(SCHEDULER, "curve.dots === 6")
        background, text = page.js(
            """() => {
              const box = document.querySelector(".fewstep");
              const of = (element, property) => getComputedStyle(element)[property].match(/[\\d.]+/g).slice(0, 3).map(Number);
              return [of(box, "backgroundColor"), of(box.querySelector("svg text"), "fill")];
            }"""
        )
        brightness = [sum(c * w for c, w in zip(color, (0.299, 0.587, 0.114), strict=True)) for color in (background, text)]
        assert brightness[0] - brightness[1] > 90
        keep(page, "light")
    finally:
        page.set(Comfy__ColorPalette="dark")
