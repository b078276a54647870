"""The example workflows, written down by node types, inputs and places; `make_workflows.py` makes files of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Point = tuple[int, int]

LEFT, TOP = 20, 60
COLUMN_GAP, TITLE, GAP = 50, 30, 30  # pixels; a node's title is above its place
WIDEST, HIGHEST = 1900, 975
"""Of a whole graph: what a page of 1600 x 900 shows enlarged enough to draw text (from 60 % on) when it fits the graph into its window."""


@dataclass(frozen=True)
class Node:
    """`inputs` by name: a value of a widget, or a link, written ("key of the other node", "its output")."""

    type: str
    height: int
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None


@dataclass(frozen=True)
class Group:
    """A frame around neighbouring columns, counted from 0."""

    title: str
    first: int
    last: int
    color: str


@dataclass(frozen=True)
class Graph:
    """A workflow in columns, left to right: their widths, and the keys of their nodes from the top.

    `pictures`: keys of the nodes that make the thumbnail; none for workflows that need a checkpoint.
    """

    name: str
    nodes: Mapping[str, Node]
    columns: tuple[tuple[int, str], ...]
    groups: tuple[Group, ...] = ()
    pictures: tuple[str, ...] = ()

    def boxes(self) -> dict[str, tuple[Point, Point]]:
        """Place and size of each node.

        Raises
        ------
        ValueError
            If a node is in no column, or the graph is too large to be read at once.
        """
        found: dict[str, tuple[Point, Point]] = {}
        x = LEFT
        for width, keys in self.columns:
            y = TOP
            for key in keys.split():
                found[key] = (x, y), (width, self.nodes[key].height)
                y += self.nodes[key].height + GAP + TITLE
            if y - GAP - TITLE - TOP > HIGHEST:
                raise ValueError(f"{self.name}: the column {keys} is {y - GAP - TITLE - TOP} high; at most {HIGHEST} can be read.")
            x += width + COLUMN_GAP
        if found.keys() != self.nodes.keys() or x - COLUMN_GAP - LEFT > WIDEST:
            raise ValueError(f"{self.name}: {found.keys() ^ self.nodes.keys()} are in no column, or {x - COLUMN_GAP - LEFT} is too wide.")
        return found

    def frames(self) -> list[tuple[str, Point, Point, str]]:
        """Title, place, size and colour of each group."""
        boxes, found = self.boxes(), []
        for group in self.groups:
            inside = [boxes[key] for _, keys in self.columns[group.first : group.last + 1] for key in keys.split()]
            left, right = min(at[0] for at, _ in inside) - 15, max(at[0] + size[0] for at, size in inside) + 15
            bottom = max(at[1] + size[1] for at, size in inside) + 15
            found.append((group.title, (left, TOP - 80), (right - left, bottom - TOP + 80), group.color))
        return found


BLUE, GREEN, PURPLE = "#3f789e", "#8A8", "#a1309b"  # of groups, from the page's own menu


def note(text: str, height: int) -> Node:
    return Node("MarkdownNote", height, {"": text.strip()}, "Note")


def fixed_seed(seed: int, name: str = "noise_seed") -> dict[str, Any]:
    return {name: seed, "control_after_generate": "fixed"}


FIVE_STEPS = Graph(
    "01 Try it",
    {
        "note": note(
            """
## Five steps

Press **Run**: ten pictures in 5 model calls (10 with guidance), from the small model that ships with FewStep. Nothing is downloaded.

**FewStep Scheduler** shows the noise levels as you edit. Point at a dot for its values; click to change the axis.

Try: *steps* 3 to 8, *schedule* karras, *family* vp or flow, another *solver* in both FewStep nodes.

To use your own model, put its loader and prompts in place of *FewStep Load Demo Model*.
            """,
            330,
        ),
        "demo": Node("FewStepLoadDemoModel", 216, {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "scheduler": Node("FewStepScheduler", 530, {"model": ("demo", "model"), "solver": "unipc", "steps": 5}),
        "sampler": Node("FewStepSampler", 252, {"solver": "unipc"}),
        "guider": Node(
            "CFGGuider",
            98,
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 3.0},
        ),
        "noise": Node("RandomNoise", 82, fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            106,
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("sampler", "SAMPLER"),
                "sigmas": ("scheduler", "SIGMAS"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            130,
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", 576, {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep"}),
    },
    ((330, "note demo"), (330, "scheduler"), (300, "sampler guider noise"), (270, "run decode scale"), (470, "save")),
    (Group("Optimized steps and solver", 1, 2, BLUE),),
    ("save",),
)

COMPARE = Graph(
    "05 Compare schedules",
    {
        "note": note(
            """
## Which schedule on this model?

*FewStep Compare Schedules* samples the same noise with every schedule listed in it, counts the model calls, and measures the distance to
a run with 100 steps. The table is below it.

*FewStep Plot Sigmas* shows where the steps of three of them lie: equal distances on **half-log-SNR** are equally hard for a solver.

Compare on **your** model before you trust a table: put its loader, prompts and empty latent in place of the demo model.
            """,
            380,
        ),
        "demo": Node("FewStepLoadDemoModel", 216, {"family": "vp", "class_name": "mixed", "batch_size": 10}),
        "compare": Node(
            "FewStepCompareSchedules",
            620,
            {
                "model": ("demo", "model"),
                "positive": ("demo", "positive"),
                "negative": ("demo", "negative"),
                "latent_image": ("demo", "LATENT"),
                "vae": ("demo", "VAE"),
                "seed": 7,
                "control_after_generate": "fixed",
                "cfg": 3.0,
                "steps": 5,
                "solver": "dpmpp_2m",
                "schedules": "optimized\nuniform_lambda\nkarras\nsgm_uniform",
                "reference_steps": 100,
                "max_images": 10,
                "tile_size": 96,
            },
        ),
        "table": Node("PreviewAny", 260, {"source": ("compare", "table")}, "Table"),
        "save": Node("SaveImage", 420, {"images": ("compare", "IMAGE"), "filename_prefix": "FewStep compare"}),
        "optimized": Node("FewStepScheduler", 510, {"model": ("demo", "model"), "solver": "dpmpp_2m", "steps": 5}),
        "karras": Node("FewStepBaselineScheduler", 330, {"model": ("demo", "model"), "schedule": "karras", "steps": 5}),
        "uniform": Node("FewStepBaselineScheduler", 330, {"model": ("demo", "model"), "schedule": "uniform_lambda", "steps": 5}),
        "plot": Node(
            "FewStepPlotSigmas",
            560,
            {
                "sigmas_1": ("optimized", "SIGMAS"),
                "sigmas_2": ("karras", "SIGMAS"),
                "sigmas_3": ("uniform", "SIGMAS"),
                "model": ("demo", "model"),
                "axis": "half-log-SNR",
                "labels": "optimized\nkarras\nuniform half-log-SNR",
                "title": "5 steps",
            },
        ),
        "chart": Node("PreviewImage", 310, {"images": ("plot", "IMAGE")}, "Chart"),
    },
    ((300, "note demo"), (360, "compare table"), (280, "optimized karras"), (290, "uniform plot"), (470, "save chart")),
    (),
    ("save", "chart"),
)

IMAGE_TO_IMAGE = Graph(
    "04 Image to image",
    {
        "note": note(
            """
## Image to image

The picture on the left is generated first, so that this runs as it is. For your own picture, put *Load Image* in its place.

With **denoise** below 1 sampling starts part of the way: at that fraction of the model's time, with **all** steps of the preset from
there to the end. (In ComfyUI's KSampler, the scheduler *fewstep* follows ComfyUI's rule: the last part of a longer list.)

Higher denoise: further from the input.
            """,
            330,
        ),
        "first": Node("FewStepLoadDemoModel", 216, {"family": "vp", "class_name": "sneaker", "batch_size": 6}, "A sneaker ..."),
        "make": Node(
            "FewStepKSampler",
            560,
            {
                "model": ("first", "model"),
                "positive": ("first", "positive"),
                "negative": ("first", "negative"),
                "latent_image": ("first", "LATENT"),
                **fixed_seed(11, "seed"),
                "cfg": 3.0,
                "preset": "Balanced 8",
            },
            "Make the input picture",
        ),
        "decode_input": Node("VAEDecode", 46, {"samples": ("make", "LATENT"), "vae": ("first", "VAE")}),
        "input": Node("PreviewImage", 330, {"images": ("decode_input", "IMAGE")}, "Input (put your Load Image here)"),
        "second": Node(
            "FewStepLoadDemoModel",
            216,
            {"family": "vp", "class_name": "ankle boot", "batch_size": 6},
            "... becomes an ankle boot",
        ),
        "encode": Node("VAEEncode", 46, {"pixels": ("decode_input", "IMAGE"), "vae": ("second", "VAE")}),
        "change": Node(
            "FewStepKSampler",
            560,
            {
                "model": ("second", "model"),
                "positive": ("second", "positive"),
                "negative": ("second", "negative"),
                "latent_image": ("encode", "LATENT"),
                **fixed_seed(12, "seed"),
                "cfg": 3.0,
                "preset": "Fast 5",
                "denoise": 0.6,
            },
            "Change it, 5 steps from denoise 0.6",
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("change", "LATENT"), "vae": ("second", "VAE")}),
        "scale": Node(
            "ImageScale",
            130,
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", 500, {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep img2img"}),
    },
    ((320, "note first second"), (320, "make decode_input"), (300, "input encode"), (320, "change"), (440, "decode scale save")),
    (),
    ("input", "save"),
)


def text_to_image(name: str, notes: str, checkpoint: str, latent: Node, preset: str, cfg: float, negative: str) -> Graph:
    """A checkpoint with text encoders and VAE, and FewStep's all-in-one node, which chooses steps and solver by the guidance."""
    prompt = "a lighthouse on a cliff at dusk, waves below, photograph"
    return Graph(
        name,
        {
            "note": note(notes, 440),
            "loader": Node("CheckpointLoaderSimple", 98, {"ckpt_name": checkpoint}),
            "latent": latent,
            "positive": Node("CLIPTextEncode", 150, {"clip": ("loader", "CLIP"), "text": prompt}, "Prompt"),
            "negative": Node("CLIPTextEncode", 110, {"clip": ("loader", "CLIP"), "text": negative}, "Negative prompt"),
            "sample": Node(
                "FewStepKSampler",
                560,
                {
                    "model": ("loader", "MODEL"),
                    "positive": ("positive", "CONDITIONING"),
                    "negative": ("negative", "CONDITIONING"),
                    "latent_image": ("latent", "LATENT"),
                    **fixed_seed(7, "seed"),
                    "cfg": cfg,
                    "preset": preset,
                },
            ),
            "decode": Node("VAEDecode", 46, {"samples": ("sample", "LATENT"), "vae": ("loader", "VAE")}),
            "save": Node("SaveImage", 620, {"images": ("decode", "IMAGE"), "filename_prefix": "FewStep"}),
        },
        ((330, "note loader latent"), (320, "positive negative"), (320, "sample"), (220, "decode"), (420, "save")),
    )


STABLE_DIFFUSION = text_to_image(
    "02 Your checkpoint",
    """
## Eight steps with Stable Diffusion 1.5, 2.x or SDXL

1. Choose your checkpoint below. For SDXL set width and height to 1024.
2. **Run**: 8 model calls, 16 with guidance. The preset *Fast 5* takes 5.

The sampler reads the noise levels from the checkpoint itself, including v-prediction and zero terminal SNR, and chooses steps and solver by
the guidance. Until the first run the curve is a preview based on the file name.

**Not** for checkpoints distilled to few steps (Turbo, Lightning, LCM, Hyper, DMD): they were trained for their own steps.
    """,
    "v1-5-pruned-emaonly-fp16.safetensors",
    Node("EmptyLatentImage", 106, {"width": 512, "height": 512, "batch_size": 1}),
    "Balanced 8",
    6.0,
    "blurry, text, watermark",
)

FLOW = text_to_image(
    "03 Flux or SD3",
    """
## Eight steps with SD 3.5, Flux or another flow model

**SD 3.5**: choose a checkpoint that contains the text encoders.

**FLUX.1 dev**: choose the all-in-one *flux1-dev-fp8.safetensors*, set *cfg* to **1** (no negative prompt, half the work), and put
*FluxGuidance* (3.5) between the prompt and *FewStep KSampler*. With separate files use *Load Diffusion Model*, *DualCLIPLoader* and
*Load VAE* in place of the checkpoint loader.

A *ModelSamplingSD3* or *ModelSamplingFlux* node before the sampler is respected: its shift is read from the model. Sampling begins with a
step that needs no model call, because these models start far above the picture.

**Not** for schnell, Turbo or Lightning models.
    """,
    "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
    Node("EmptySD3LatentImage", 106, {"width": 1024, "height": 1024, "batch_size": 1}),
    "Balanced 8",
    4.5,
    "",
)

CALIBRATE = Graph(
    "06 Calibrate the demo model",
    {
        "note": note(
            """
## A recipe fitted to this model

**Run**: *FewStep Calibrate* fits 4 model calls to the result of 64 steps, in about 20 seconds with this small model. The bars show how
well the recipe does on seeds that the fit has not seen. Then ten pictures are sampled with it.

**Keep in workflow** in *FewStep Apply Recipe* writes the recipe into the node; the workflow then gives the same result without fitting
again. Saved pictures carry the recipe already. **Copy recipe** is for sharing.

With your own model: its loader, a typical prompt, an empty latent of your size, your *cfg*, *effort* normal and 36 *seeds*.
            """,
            480,
        ),
        "demo": Node("FewStepLoadDemoModel", 216, {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "calibrate": Node(
            "FewStepCalibrate",
            760,
            {
                "model": ("demo", "model"),
                "positive": ("demo", "positive"),
                "negative": ("demo", "negative"),
                "latent_image": ("demo", "LATENT"),
                "cfg": 3.0,
                "nfe": "4",
                "effort": "low",
                "seeds": 24,
                "first_seed": 1000,
                "batch_size": 8,
            },
        ),
        "chart": Node("PreviewImage", 330, {"images": ("calibrate", "plot")}, "Errors on held-out seeds"),
        "report": Node("PreviewAny", 400, {"source": ("calibrate", "report")}, "Report"),
        "apply": Node(
            "FewStepApplyRecipe",
            460,
            {"recipe": ("calibrate", "recipe"), "model": ("demo", "model"), "latent_image": ("demo", "LATENT"), "cfg_to_check": 3.0},
        ),
        "keep": Node(
            "FewStepSaveRecipe",
            126,
            {"recipe": ("apply", "used"), "name": "demo model, 4 calls", "overwrite": True},
        ),
        "guider": Node(
            "CFGGuider",
            98,
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 3.0},
        ),
        "noise": Node("RandomNoise", 82, fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            106,
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("apply", "sampler"),
                "sigmas": ("apply", "sigmas"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            130,
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", 480, {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep recipe"}),
    },
    ((300, "note demo"), (340, "calibrate"), (320, "chart report"), (330, "apply keep guider noise"), (410, "run decode scale save")),
    (Group("Fit once", 1, 2, PURPLE), Group("Use and share", 3, 3, BLUE)),
    ("save", "chart"),
)

CALIBRATE_OWN = Graph(
    "07 Calibrate your checkpoint",
    {
        "note": note(
            """
## A recipe for your checkpoint

1. Choose your checkpoint and write a typical prompt. For SDXL set width and height to 1024.
2. Set **cfg** to the guidance you use, in both nodes.
3. **Run**. *FewStep Calibrate* says below it how many model calls it will make and, soon, how long that will take. Interrupting
   keeps the best recipe so far.

Then the picture is sampled with the recipe, in 6 model calls. The bars show how well it does on seeds that the fit has not seen.

**Keep in workflow** writes the recipe into *FewStep Apply Recipe*; from then on nothing is fitted again. **Copy recipe** is for sharing.

*effort* low is faster. **Not** for checkpoints distilled to few steps (Turbo, Lightning, LCM, Hyper, DMD).
            """,
            560,
        ),
        "loader": Node("CheckpointLoaderSimple", 98, {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"}),
        "latent": Node("EmptyLatentImage", 106, {"width": 512, "height": 512, "batch_size": 1}),
        "positive": Node(
            "CLIPTextEncode",
            120,
            {"clip": ("loader", "CLIP"), "text": "a lighthouse on a cliff at dusk, waves below, photograph"},
            "Prompt",
        ),
        "negative": Node("CLIPTextEncode", 90, {"clip": ("loader", "CLIP"), "text": "blurry, text, watermark"}, "Negative prompt"),
        "calibrate": Node(
            "FewStepCalibrate",
            640,
            {
                "model": ("loader", "MODEL"),
                "positive": ("positive", "CONDITIONING"),
                "negative": ("negative", "CONDITIONING"),
                "latent_image": ("latent", "LATENT"),
                "cfg": 6.0,
                "nfe": "6",
            },
        ),
        "chart": Node("PreviewImage", 330, {"images": ("calibrate", "plot")}, "Errors on held-out seeds"),
        "report": Node("PreviewAny", 380, {"source": ("calibrate", "report")}, "Report"),
        "keep": Node("FewStepSaveRecipe", 126, {"recipe": ("apply", "used"), "name": "my checkpoint, 6 calls"}),
        "apply": Node(
            "FewStepApplyRecipe",
            460,
            {"recipe": ("calibrate", "recipe"), "model": ("loader", "MODEL"), "latent_image": ("latent", "LATENT"), "cfg_to_check": 6.0},
        ),
        "guider": Node(
            "CFGGuider",
            98,
            {"model": ("loader", "MODEL"), "positive": ("positive", "CONDITIONING"), "negative": ("negative", "CONDITIONING"), "cfg": 6.0},
        ),
        "noise": Node("RandomNoise", 82, fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            106,
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("apply", "sampler"),
                "sigmas": ("apply", "sigmas"),
                "latent_image": ("latent", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("run", "output"), "vae": ("loader", "VAE")}),
        "save": Node("SaveImage", 560, {"images": ("decode", "IMAGE"), "filename_prefix": "FewStep recipe"}),
    },
    (
        (330, "note loader latent"),
        (340, "positive negative calibrate"),
        (320, "chart report keep"),
        (320, "apply guider noise"),
        (380, "run decode save"),
    ),
    (Group("Fit once", 1, 2, PURPLE), Group("Use and share", 3, 3, BLUE)),
)

REFINE = Graph(
    "08 Preview then refine",
    {
        "note": note(
            """
## Preview in 5 calls, refine the ones you like

**Run**: eight previews in 5 model calls each. Choose one and write its number, counted from 0, into **batch index** of *The one you like*:
it is sampled again, from the same noise, in 12 calls. Previews that are done are not sampled again.

Because the sampler adds no noise on the way, 12 calls end in the same picture as 5, with more detail. That is a better use of calls than 12
for every picture.

New previews: another **seed**, the same in both nodes; the other settings must be the same, too.

With your own model: put its loader, prompts and empty latent (of a batch) in place of the demo model.
            """,
            480,
        ),
        "demo": Node("FewStepLoadDemoModel", 216, {"family": "vp", "class_name": "sneaker", "batch_size": 8}),
        "preview": Node(
            "FewStepKSampler",
            560,
            {
                "model": ("demo", "model"),
                "positive": ("demo", "positive"),
                "negative": ("demo", "negative"),
                "latent_image": ("demo", "LATENT"),
                "seed": 21,
                "control_after_generate": "fixed",
                "cfg": 3.0,
                "preset": "Fast 5",
            },
            "Previews, 5 calls",
        ),
        "decode_previews": Node("VAEDecode", 46, {"samples": ("preview", "LATENT"), "vae": ("demo", "VAE")}),
        "scale_previews": Node(
            "ImageScale",
            130,
            {"image": ("decode_previews", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "previews": Node("PreviewImage", 480, {"images": ("scale_previews", "IMAGE")}, "Previews"),
        "choose": Node("LatentFromBatch", 82, {"samples": ("demo", "LATENT"), "batch_index": 3, "length": 1}, "The one you like"),
        "refine": Node(
            "FewStepKSampler",
            560,
            {
                "model": ("demo", "model"),
                "positive": ("demo", "positive"),
                "negative": ("demo", "negative"),
                "latent_image": ("choose", "LATENT"),
                "seed": 21,
                "control_after_generate": "fixed",
                "cfg": 3.0,
                "preset": "Quality 12",
            },
            "Refine, 12 calls",
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("refine", "LATENT"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            130,
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", 440, {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep refined"}),
    },
    (
        (320, "note demo"),
        (330, "preview"),
        (370, "decode_previews scale_previews previews"),
        (330, "choose refine"),
        (350, "decode scale save"),
    ),
    (Group("Preview", 1, 2, PURPLE), Group("Refine", 3, 4, BLUE)),
    ("previews", "save"),
)

AMED = Graph(
    "09 AMED",
    {
        "note": note(
            """
## Intermediate times learned for this model

**Run**: ten pictures in 5 model calls. There are two steps with an additional model call at an intermediate time. A small **predictor**
chooses this time for each picture from the model's internal features. *FewStep AMED Times* shows which times it chose.

The predictor ships with FewStep and is for this small model, at *cfg* 2 and 5 calls. To train one for your own model, use the template
*10 Train AMED*.
            """,
            330,
        ),
        "demo": Node("FewStepLoadDemoModel", 216, {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "load": Node("FewStepLoadAmed", 300, {"name": "demo model: ipndm3-5-predictor"}),
        "sampler": Node(
            "FewStepAmedSampler",
            170,
            {"predictor": ("load", "predictor"), "model": ("demo", "model"), "latent_image": ("demo", "LATENT"), "cfg_to_check": 2.0},
        ),
        "scheduler": Node("FewStepAmedScheduler", 290, {"predictor": ("load", "predictor"), "model": ("demo", "model")}),
        "guider": Node(
            "CFGGuider",
            98,
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 2.0},
        ),
        "noise": Node("RandomNoise", 82, fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            106,
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("sampler", "sampler"),
                "sigmas": ("scheduler", "sigmas"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "times": Node(
            "FewStepAmedTimes",
            330,
            {"sampler": ("sampler", "sampler"), "samples": ("run", "output")},
            "The times it took",
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            130,
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", 480, {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep AMED"}),
    },
    ((330, "note demo"), (330, "load sampler scheduler"), (300, "guider noise run decode scale"), (460, "times save")),
    (Group("What was trained", 1, 1, PURPLE),),
    ("save", "times"),
)

TRAIN_AMED = Graph(
    "10 Train AMED",
    {
        "note": note(
            """
## AMED trained for a model

**Run**: *FewStep Train AMED Predictor* learns where two steps should each call the model once more, in half a minute with this
small model. Then ten pictures are sampled that way. Columns and dots: the times for seeds not used in training. Below: the training
progress.

The predictor is saved in *models/fewstep*; *FewStep Load AMED Predictor* lists it from then on.

With your own model: its loader, a typical prompt, an empty latent of your size, your *cfg*; *trajectories* 400 or more, *effort* normal,
*learning_rate* 0, *fit_table_first* on, and no *FewStep Teacher Settings*. If memory runs out: *checkpointing* on, or *mode* table with
*method* forward.
            """,
            440,
        ),
        "demo": Node("FewStepLoadDemoModel", 216, {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "teacher": Node("FewStepTeacherSettings", 106, {"steps": 32}),
        "train": Node(
            "FewStepTrainAmed",
            860,
            {
                "model": ("demo", "model"),
                "positive": ("demo", "positive"),
                "negative": ("demo", "negative"),
                "latent_image": ("demo", "LATENT"),
                "teacher": ("teacher", "teacher"),
                "cfg": 2.0,
                "form": "ipndm2",
                "nfe": 5,
                "mode": "predictor",
                "method": "end",
                "trajectories": 24,
                "first_seed": 5000,
                "batch_size": 12,
                "effort": "high",
                "learning_rate": 0.02,
                "fit_table_first": False,
            },
        ),
        "chart": Node("PreviewImage", 400, {"images": ("train", "plot")}, "Times, and the course of the training"),
        "report": Node("PreviewAny", 340, {"source": ("train", "report")}, "Report"),
        "keep": Node(
            "FewStepSaveAmed",
            106,
            {"predictor": ("train", "predictor"), "name": "demo model, 5 calls", "overwrite": True},
        ),
        "sampler": Node("FewStepAmedSampler", 170, {"predictor": ("train", "predictor")}),
        "scheduler": Node("FewStepAmedScheduler", 290, {"predictor": ("train", "predictor")}),
        "guider": Node(
            "CFGGuider",
            98,
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 2.0},
        ),
        "noise": Node("RandomNoise", 82, fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            106,
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("sampler", "sampler"),
                "sigmas": ("scheduler", "sigmas"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            130,
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", 440, {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep AMED"}),
    },
    (
        (320, "note demo teacher"),
        (350, "train"),
        (350, "chart report keep"),
        (300, "sampler scheduler guider noise"),
        (380, "run decode scale save"),
    ),
    (Group("Train once", 1, 2, PURPLE), Group("Use", 3, 3, BLUE)),
    ("save", "chart"),
)

FIRST_ORDER_RECIPE = (
    "fewstep1:ddim-4nfe-edm:AZRQfnPoAXU93BGacLxAQE2x5Xnxr96j82wBrqK0ZUaY4J6loDhgNfm2xOtxf3cLKX9XWWmDUNwye9YyNdKBDGoG8hx2HmlSZI22vywhJHkI"
    "c1001IExPTY9Y5cJAkR0cpzE5SrM5mU6SRM00:531utV3"
)
"""4 steps of DDIM on optimized levels: a first-order solver has the most to gain."""

TUNE_LORA = Graph(
    "11 Tune a LoRA",
    {
        "note": note(
            """
## The model tuned to a recipe

**Run**: *FewStep Tune LoRA for Recipe* tunes this small model to 4 steps of a first-order solver, in about a minute. Then ten pictures
are sampled with the LoRA and the recipe. The bars show whether the recipe is better with the LoRA, on seeds used for nothing else.

The LoRA is in *models/loras*. From then on: **Keep in workflow** in *FewStep Apply Recipe*, and ComfyUI's *LoraLoaderModelOnly* (press
**R** first) in place of the tuning node.

With your own model: its loader, a typical prompt, an empty latent of your size, the recipe and *cfg* that you sample with, 400
*trajectories*, *learning_rate* 0.0001, and no *FewStep Teacher Settings*. If memory runs out: *checkpointing* on, *batch_size* 1, fewer
*layers*.
            """,
            470,
        ),
        "demo": Node("FewStepLoadDemoModel", 216, {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "teacher": Node("FewStepTeacherSettings", 106, {"steps": 32}),
        "tune": Node(
            "FewStepTuneLora",
            960,
            {
                "model": ("demo", "model"),
                "positive": ("demo", "positive"),
                "negative": ("demo", "negative"),
                "latent_image": ("demo", "LATENT"),
                "teacher": ("teacher", "teacher"),
                "cfg": 2.0,
                "text": FIRST_ORDER_RECIPE,
                "trajectories": 96,
                "batch_size": 8,
                "effort": "normal",
                "learning_rate": 0.002,
                "name": "demo model, 4 calls",
                "overwrite": True,
            },
        ),
        "chart": Node("PreviewImage", 400, {"images": ("tune", "plot")}, "The tuning, and who wins"),
        "report": Node("PreviewAny", 400, {"source": ("tune", "report")}, "Report"),
        "apply": Node(
            "FewStepApplyRecipe",
            460,
            {"recipe": ("tune", "recipe"), "model": ("tune", "model"), "latent_image": ("demo", "LATENT"), "cfg_to_check": 2.0},
        ),
        "guider": Node(
            "CFGGuider",
            98,
            {"model": ("tune", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 2.0},
        ),
        "noise": Node("RandomNoise", 82, fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            106,
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("apply", "sampler"),
                "sigmas": ("apply", "sigmas"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", 46, {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            130,
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", 440, {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep tuned"}),
    },
    ((320, "note demo teacher"), (350, "tune"), (350, "chart report"), (320, "apply guider noise"), (360, "run decode scale save")),
    (Group("Tune once", 1, 2, PURPLE), Group("Use", 3, 3, BLUE)),
    ("save", "chart"),
)


GRAPHS = (
    FIVE_STEPS, STABLE_DIFFUSION, FLOW, IMAGE_TO_IMAGE, COMPARE, CALIBRATE, CALIBRATE_OWN, REFINE, AMED, TRAIN_AMED, TUNE_LORA,
)  # fmt: skip
"""In the order to try them."""
