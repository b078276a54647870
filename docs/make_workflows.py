"""Make `example_workflows/`, the pictures of `web/docs/` and `docs/comfy.png`, on the real ComfyUI in a real browser.

    python docs/make_workflows.py [PART OF A NAME]

ComfyUI's page builds the graphs of `example_graphs.py` and saves them, so the files are what a user would save. Those on the built-in
model are run, and their pictures become the thumbnails; the others need a checkpoint, and show their graph. Needs what the tests need:
`python install.py --test` installs it.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "host"))

from browser import Page, open_page  # noqa: E402
from comfyui import Comfy  # noqa: E402
from example_graphs import AMED, CALIBRATE, CALIBRATE_OWN, COMPARE, FIVE_STEPS, GRAPHS, REFINE, TRAIN_AMED, TUNE_LORA, Graph  # noqa: E402
from PIL import Image, ImageDraw, ImageFont  # noqa: E402

FOLDER = ROOT / "example_workflows"
SCREENSHOT = ROOT / "docs" / "comfy.png"
HELP = ROOT / "web" / "docs"
LONGEST_RUN = 600_000  # milliseconds; those that fit or train take half a minute on an idle machine
SIDE, QUALITY = 512, 88  # of thumbnails: the dialog shows them square
DARK, LIGHT = (24, 24, 27), (228, 228, 231)

BUILD = """(graph) => {
  app.graph.clear();
  const made = {};
  for (const [key, spec] of Object.entries(graph.nodes)) {
    const node = (made[key] = LiteGraph.createNode(spec.type));
    if (!node) throw new Error(`ComfyUI has no node ${spec.type}`);
    app.graph.add(node);
    node.pos = graph.boxes[key][0];
    if (spec.title) node.title = spec.title;
    for (const [name, value] of Object.entries(spec.inputs)) {
      if (Array.isArray(value)) continue;
      const widget = name ? node.widgets.find((widget) => widget.name === name) : node.widgets[0];
      if (!widget) throw new Error(`${spec.type} has no input ${name}`);
      widget.value = value;
      widget.callback?.(value);
    }
  }
  for (const [key, spec] of Object.entries(graph.nodes)) {
    for (const [name, value] of Object.entries(spec.inputs)) {
      if (!Array.isArray(value)) continue;
      const [from, output] = value;
      // By name, else by type: some nodes name their outputs after themselves.
      const outputs = made[from].outputs;
      const slot = outputs.find((o) => o.name === output) ?? outputs.find((o) => o.type === output.toUpperCase());
      const input = made[key].inputs.findIndex((i) => i.name === name);
      if (!slot || input < 0) throw new Error(`no link from ${from}.${output} to ${key}.${name}`);
      made[from].connect(outputs.indexOf(slot), made[key], input);
    }
  }
  for (const [key, [, size]] of Object.entries(graph.boxes)) made[key].setSize(size);
  for (const [title, at, size, color] of graph.frames) {
    const group = new LiteGraph.LGraphGroup(title);
    Object.assign(group, { color });
    group.pos = at;
    group.size = size;
    app.graph.add(group);
  }
  return Object.fromEntries(Object.entries(made).map(([key, node]) => [key, node.id]));
}"""


def tidy(workflow: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two times of saving the same graph."""
    workflow = {key: value for key, value in workflow.items() if key not in ("id", "revision")}
    # Sizes are those of the canvas. Without a view, ComfyUI 0.3.75's new renderer pulls nodes and groups apart when it loads them.
    workflow["extra"] = {"ds": {"scale": 0.75, "offset": [80, 115]}, "workflowRendererVersion": "LG"}
    for node in workflow["nodes"]:
        node["pos"] = [round(value) for value in node["pos"]]
        node["size"] = [round(value) for value in node["size"]]
    return workflow


def build(page: Page, graph: Graph) -> dict[str, int]:
    """Make a file of a graph; returns the nodes' ids by key."""
    nodes = {key: {"type": node.type, "inputs": dict(node.inputs), "title": node.title} for key, node in graph.nodes.items()}
    ids = page.js(BUILD, {"nodes": nodes, "boxes": graph.boxes(), "frames": graph.frames()})
    page.settle(1000)  # sizes settle when the canvas has been drawn
    (FOLDER / f"{graph.name}.json").write_text(as_text(tidy(page.workflow())), encoding="utf-8")
    return ids


def as_text(workflow: dict[str, Any]) -> str:
    """JSON with a line for every node and link, for readable differences."""
    parts = []
    for key, value in workflow.items():
        plain = json.dumps(value, ensure_ascii=False)
        if key in ("nodes", "links") and value:
            plain = "[\n  " + ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in value) + "\n ]"
        parts.append(f" {json.dumps(key)}: {plain}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def show_all(page: Page, top: float = 0.0) -> None:
    """Fit the graph into the window."""
    page.js(
        """(top) => {
          const boxes = [...app.graph.nodes, ...app.graph.groups].map((item) => item.boundingRect ?? item._bounding);
          const x0 = Math.min(...boxes.map((b) => b[0])), y0 = Math.min(...boxes.map((b) => b[1]));
          const x1 = Math.max(...boxes.map((b) => b[0] + b[2])), y1 = Math.max(...boxes.map((b) => b[1] + b[3]));
          const left = 70, space = 24, { innerWidth: w, innerHeight: h } = window;
          const scale = Math.min((w - left - 2 * space) / (x1 - x0), (h - top - 2 * space) / (y1 - y0));
          app.canvas.ds.scale = scale;
          app.canvas.ds.offset = [(left + space) / scale - x0, (top + space) / scale - y0];
          app.canvas.setDirty(true, true);
        }""",
        top,
    )
    page.settle(1500)


def pictures(page: Page, comfy: Comfy, node_id: int) -> list[Image.Image]:
    """What a node of the last run saved or previewed."""
    outputs = page.js("(id) => app.nodeOutputs[id].images", str(node_id))
    folders = {"output": comfy.base / "output", "temp": comfy.base / "temp"}
    return [Image.open(folders[found["type"]] / found["subfolder"] / found["filename"]).convert("RGB") for found in outputs]


def thumbnail(rows: list[list[Image.Image]], captions: list[str]) -> Image.Image:
    """Rows of pictures with a line below each, in a square: the page writes the pack's name over the upper left corner."""
    canvas = Image.new("RGB", (SIDE, SIDE), DARK)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(22)
    gap, line = 8, 32 if captions else 0
    height = (SIDE - gap * (len(rows) + 1)) // len(rows) - line
    y = gap
    for i, row in enumerate(rows):
        if captions:
            draw.text((gap + 4, y + height + 2), captions[i], LIGHT, font)
        width = (SIDE - gap * (len(row) + 1)) // len(row)
        for k, picture in enumerate(row):
            scale = min(width / picture.width, height / picture.height)
            small = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS)
            x = gap + k * (width + gap) + (width - small.width) // 2
            canvas.paste(small, (x, y + (height - small.height) // 2))
        y += height + line + gap
    return canvas


def picture_of(graph: Graph, page: Page, comfy: Comfy, ids: dict[str, int]) -> Image.Image:
    """The thumbnail of a graph that has been run; also the pictures of help pages that come from it."""
    found = [pictures(page, comfy, ids[key]) for key in graph.pictures]
    if graph is FIVE_STEPS:
        (images,) = found
        save(row_of(images), HELP / "FewStepLoadDemoModel.jpg")
        save(node_picture(page, "FewStepScheduler"), HELP / "FewStepScheduler.jpg")
        return thumbnail([images[:3], images[3:6], images[6:9]], [])
    if graph is COMPARE:
        save(found[0][0], HELP / "FewStepCompareSchedules.jpg")
        save(found[1][0], HELP / "FewStepPlotSigmas.jpg")
        return thumbnail(found, ["the same noise, 5 steps", "where the steps lie"])
    if graph is CALIBRATE:
        save(found[1][0], HELP / "FewStepCalibrate.jpg")
        return thumbnail([found[0][:3], found[1]], ["4 steps with the fitted recipe", "errors on seeds it has not seen"])
    if graph is AMED:
        save(row_of(found[0]), HELP / "FewStepAmedSampler.jpg")
        save(found[1][0], HELP / "FewStepAmedTimes.jpg")
        return thumbnail([found[0][:3], found[1]], ["5 model calls", "times chosen for each picture"])
    if graph is TRAIN_AMED:
        save(found[1][0], HELP / "FewStepTrainAmed.jpg")
        return thumbnail([found[0][:3], [times_of(found[1][0])]], ["5 model calls with the trained predictor", "the times it has learned"])
    if graph is TUNE_LORA:
        save(found[1][0], HELP / "FewStepTuneLora.jpg")
        return thumbnail([found[0][:3], found[1]], ["4 model calls with the tuned LoRA", "the tuning, and who wins"])
    if graph is REFINE:
        return thumbnail([found[0][2:5], found[1]], ["previews in 5 model calls", "the chosen one in 12"])
    return thumbnail([row[:3] for row in found], ["input", "5 steps from denoise 0.6"])


def times_of(plot: Image.Image) -> Image.Image:
    """The upper chart of a training's picture."""
    return plot.crop((0, 0, plot.width, 432))


def row_of(images: list[Image.Image]) -> Image.Image:
    row = Image.new("RGB", (sum(image.width for image in images), images[0].height), DARK)
    for k, image in enumerate(images):
        row.paste(image, (k * image.width, 0))
    return row


def node_picture(page: Page, node_type: str) -> Image.Image:
    """A node as it is on the canvas, with its title."""
    size = page.js(
        """(type) => {
          const node = fewstepTest.node(type);
          app.canvas.ds.scale = 1;
          app.canvas.ds.offset = [200 - node.pos[0], 140 - node.pos[1]];
          app.canvas.setDirty(true, true);
          return [node.size[0], node.size[1]];
        }""",
        node_type,
    )
    page.settle(1500)
    clip = {"x": 192, "y": 104, "width": size[0] + 16, "height": size[1] + 44}
    return Image.open(io.BytesIO(page.page.screenshot(clip=clip))).convert("RGB")


def save(picture: Image.Image, path: Path) -> None:
    picture.save(path, quality=QUALITY, optimize=True)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    wanted = [graph for graph in GRAPHS if all(part in graph.name for part in sys.argv[1:])]
    with tempfile.TemporaryDirectory() as base, Comfy(Path(base), environment={"FEWSTEP_CACHE_DIR": base}) as comfy:
        for graph in wanted:
            with open_page(comfy.url, 1800, 700) as page:
                ids = build(page, graph)
                text = (FOLDER / f"{graph.name}.json").read_text(encoding="utf-8")
                page.js("([text, name]) => app.loadGraphData(JSON.parse(text), true, true, name)", [text, graph.name])
                page.settle(2000)
                if graph.pictures:
                    page.run(LONGEST_RUN)
                    image = picture_of(graph, page, comfy, ids)
                else:
                    shown = "FewStepCalibrate" if graph is CALIBRATE_OWN else "FewStepKSampler"
                    image = thumbnail([[node_picture(page, shown)]], [graph.name[3:]])
                save(image, FOLDER / f"{graph.name}.jpg")
                if graph is FIVE_STEPS:
                    show_all(page, 90)
                    page.page.screenshot(path=SCREENSHOT)
            print(graph.name)


if __name__ == "__main__":
    main()
