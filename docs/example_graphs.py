"""The example workflows, written down by node types, inputs and places; `make_workflows.py` makes files of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Point = tuple[int, int]


@dataclass(frozen=True)
class Node:
    """`inputs` by name: a value of a widget, or a link, written ("key of the other node", "its output")."""

    type: str
    at: Point
    size: Point | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    title: str | None = None


@dataclass(frozen=True)
class Group:
    title: str
    at: Point
    size: Point
    color: str


@dataclass(frozen=True)
class Graph:
    """`pictures`: keys of the nodes that make the thumbnail; none for workflows that need a checkpoint."""

    name: str
    nodes: Mapping[str, Node]
    groups: tuple[Group, ...] = ()
    pictures: tuple[str, ...] = ()


BLUE, GREEN, PURPLE = "#3f789e", "#8A8", "#a1309b"  # of groups, from the page's own menu


def note(text: str, at: Point, size: Point) -> Node:
    return Node("MarkdownNote", at, size, {"": text.strip()}, "Note")


def fixed_seed(seed: int) -> dict[str, Any]:
    return {"noise_seed": seed, "control_after_generate": "fixed"}


FIVE_STEPS = Graph(
    "5-step demo",
    {
        "note": note(
            """
## Five steps

Press **Run**: ten pictures in 5 model calls (10 with guidance), from the small model that ships with FewStep. Nothing is downloaded.

**FewStep Scheduler** shows the noise levels as you edit. Point at a dot for its values; click to change the axis.

Try: *steps* 3 to 8, *schedule* karras, *family* vp or flow, another *solver* in both FewStep nodes.

To use your own model, put its loader and prompts in place of *FewStep Load Demo Model*.
            """,
            (20, 60),
            (330, 330),
        ),
        "demo": Node("FewStepLoadDemoModel", (20, 450), (330, 186), {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "scheduler": Node("FewStepScheduler", (410, 60), (330, 470), {"model": ("demo", "model"), "solver": "unipc", "steps": 5}),
        "sampler": Node("FewStepSampler", (800, 60), (300, 252), {"solver": "unipc"}),
        "guider": Node(
            "CFGGuider",
            (800, 380),
            (300, 98),
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 3.0},
        ),
        "noise": Node("RandomNoise", (800, 540), (300, 82), fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            (1160, 60),
            (270, 106),
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("sampler", "SAMPLER"),
                "sigmas": ("scheduler", "SIGMAS"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", (1160, 230), (270, 46), {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            (1160, 340),
            (270, 130),
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", (1490, 60), (560, 576), {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep"}),
    },
    (Group("Optimized steps and solver", (395, -20), (720, 665), BLUE),),
    ("save",),
)

COMPARE = Graph(
    "compare schedules",
    {
        "note": note(
            """
## Which schedule on this model?

*FewStep Compare Schedules* samples the same noise with every schedule listed in it, counts the model calls, and measures the distance to
a run with 100 steps. The table is below it.

*FewStep Plot Sigmas* shows where the steps of three of them lie: equal distances on **half-log-SNR** are equally hard for a solver.

Compare on **your** model before you trust a table: put its loader, prompts and empty latent in place of the demo model.
            """,
            (20, 60),
            (330, 330),
        ),
        "demo": Node("FewStepLoadDemoModel", (20, 450), (330, 186), {"family": "vp", "class_name": "mixed", "batch_size": 10}),
        "compare": Node(
            "FewStepCompareSchedules",
            (410, 60),
            (480, 620),
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
        "table": Node("PreviewAny", (410, 750), (480, 260), {"source": ("compare", "table")}, "Table"),
        "save": Node("SaveImage", (950, 60), (640, 420), {"images": ("compare", "IMAGE"), "filename_prefix": "FewStep compare"}),
        "optimized": Node("FewStepScheduler", (950, 550), (300, 450), {"model": ("demo", "model"), "solver": "dpmpp_2m", "steps": 5}),
        "karras": Node("FewStepBaselineScheduler", (1290, 550), (300, 330), {"model": ("demo", "model"), "schedule": "karras", "steps": 5}),
        "uniform": Node(
            "FewStepBaselineScheduler", (1290, 930), (300, 330), {"model": ("demo", "model"), "schedule": "uniform_lambda", "steps": 5}
        ),
        "plot": Node(
            "FewStepPlotSigmas",
            (1650, 60),
            (440, 620),
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
        "chart": Node("PreviewImage", (1650, 750), (440, 310), {"images": ("plot", "IMAGE")}, "Chart"),
    },
    (),
    ("save", "chart"),
)

IMAGE_TO_IMAGE = Graph(
    "img2img",
    {
        "note": note(
            """
## Image to image

The picture on the left is generated first, so that this runs as it is. For your own picture, put *Load Image* in its place.

With **denoise** below 1 sampling starts part of the way: at that fraction of the model's time, with **all** steps of the preset from
there to the end. (In ComfyUI's KSampler, the scheduler *fewstep* follows ComfyUI's rule: the last part of a longer list.)

Higher denoise: further from the input.
            """,
            (20, 60),
            (330, 330),
        ),
        "first": Node(
            "FewStepLoadDemoModel", (20, 450), (330, 186), {"family": "vp", "class_name": "sneaker", "batch_size": 6}, "A sneaker ..."
        ),
        "make": Node(
            "FewStepKSampler",
            (410, 60),
            (330, 560),
            {
                "model": ("first", "model"),
                "positive": ("first", "positive"),
                "negative": ("first", "negative"),
                "latent_image": ("first", "LATENT"),
                "seed": 11,
                "control_after_generate": "fixed",
                "cfg": 3.0,
                "preset": "Balanced 8",
            },
            "Make the input picture",
        ),
        "decode_input": Node("VAEDecode", (410, 690), (330, 46), {"samples": ("make", "LATENT"), "vae": ("first", "VAE")}),
        "input": Node("PreviewImage", (410, 800), (330, 330), {"images": ("decode_input", "IMAGE")}, "Input (put your Load Image here)"),
        "second": Node(
            "FewStepLoadDemoModel",
            (20, 700),
            (330, 186),
            {"family": "vp", "class_name": "ankle boot", "batch_size": 6},
            "... becomes an ankle boot",
        ),
        "encode": Node("VAEEncode", (800, 60), (330, 46), {"pixels": ("decode_input", "IMAGE"), "vae": ("second", "VAE")}),
        "change": Node(
            "FewStepKSampler",
            (800, 170),
            (330, 560),
            {
                "model": ("second", "model"),
                "positive": ("second", "positive"),
                "negative": ("second", "negative"),
                "latent_image": ("encode", "LATENT"),
                "seed": 12,
                "control_after_generate": "fixed",
                "cfg": 3.0,
                "preset": "Fast 5",
                "denoise": 0.6,
            },
            "Change it, 5 steps from denoise 0.6",
        ),
        "decode": Node("VAEDecode", (800, 800), (330, 46), {"samples": ("change", "LATENT"), "vae": ("second", "VAE")}),
        "scale": Node(
            "ImageScale",
            (800, 910),
            (330, 130),
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", (1190, 60), (560, 500), {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep img2img"}),
    },
    (),
    ("input", "save"),
)


def text_to_image(name: str, notes: str, checkpoint: str, latent: Node, steps: int, cfg: float, negative: str) -> Graph:
    """A checkpoint with text encoders and VAE, and FewStep's scheduler and sampler."""
    prompt = "a lighthouse on a cliff at dusk, waves below, photograph"
    return Graph(
        name,
        {
            "note": note(notes, (20, 60), (330, 420)),
            "loader": Node("CheckpointLoaderSimple", (20, 540), (330, 98), {"ckpt_name": checkpoint}),
            "latent": latent,
            "positive": Node("CLIPTextEncode", (410, 60), (340, 150), {"clip": ("loader", "CLIP"), "text": prompt}, "Prompt"),
            "negative": Node("CLIPTextEncode", (410, 270), (340, 110), {"clip": ("loader", "CLIP"), "text": negative}, "Negative prompt"),
            "scheduler": Node("FewStepScheduler", (410, 450), (340, 450), {"model": ("loader", "MODEL"), "steps": steps}),
            "sampler": Node("FewStepSampler", (810, 60), (300, 252), {"solver": "unipc"}),
            "guider": Node(
                "CFGGuider",
                (810, 380),
                (300, 98),
                {
                    "model": ("loader", "MODEL"),
                    "positive": ("positive", "CONDITIONING"),
                    "negative": ("negative", "CONDITIONING"),
                    "cfg": cfg,
                },
            ),
            "noise": Node("RandomNoise", (810, 540), (300, 82), fixed_seed(7)),
            "run": Node(
                "SamplerCustomAdvanced",
                (1170, 60),
                (270, 106),
                {
                    "noise": ("noise", "NOISE"),
                    "guider": ("guider", "GUIDER"),
                    "sampler": ("sampler", "SAMPLER"),
                    "sigmas": ("scheduler", "SIGMAS"),
                    "latent_image": ("latent", "LATENT"),
                },
            ),
            "decode": Node("VAEDecode", (1170, 230), (270, 46), {"samples": ("run", "output"), "vae": ("loader", "VAE")}),
            "save": Node("SaveImage", (1500, 60), (560, 620), {"images": ("decode", "IMAGE"), "filename_prefix": "FewStep"}),
        },
    )


STABLE_DIFFUSION = text_to_image(
    "SD 1.5 or SDXL 6 steps",
    """
## Six steps with Stable Diffusion 1.5, 2.x or SDXL

1. Choose your checkpoint below. For SDXL set width and height to 1024.
2. **Run**: 6 model calls, 12 with guidance.

The scheduler reads the noise levels from the checkpoint itself, including v-prediction and zero terminal SNR. Until the first run the
curve is a preview based on the file name.

The sampler uses order 3, and order 2 from cfg 4 up, where higher orders overshoot.

**Not** for checkpoints distilled to few steps (Turbo, Lightning, LCM, Hyper, DMD): they were trained for their own steps.
    """,
    "v1-5-pruned-emaonly-fp16.safetensors",
    Node("EmptyLatentImage", (20, 700), (330, 106), {"width": 512, "height": 512, "batch_size": 1}),
    6,
    6.0,
    "blurry, text, watermark",
)

FLOW = text_to_image(
    "Flux or SD3 8 steps",
    """
## Eight steps with SD 3.5, Flux or another flow model

**SD 3.5**: choose a checkpoint that contains the text encoders.

**FLUX.1 dev**: choose the all-in-one *flux1-dev-fp8.safetensors*, set *cfg* to **1** (no negative prompt, half the work), and put
*FluxGuidance* (3.5) between the prompt and *CFGGuider*. With separate files use *Load Diffusion Model*, *DualCLIPLoader* and *Load VAE*
in place of the checkpoint loader.

A *ModelSamplingSD3* or *ModelSamplingFlux* node before the scheduler is respected: its shift is read from the model.

**Not** for schnell, Turbo or Lightning models.
    """,
    "sd3.5_medium_incl_clips_t5xxlfp8scaled.safetensors",
    Node("EmptySD3LatentImage", (20, 700), (330, 106), {"width": 1024, "height": 1024, "batch_size": 1}),
    8,
    4.5,
    "",
)

CALIBRATE = Graph(
    "calibrate",
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
            (20, 60),
            (330, 420),
        ),
        "demo": Node("FewStepLoadDemoModel", (20, 540), (330, 186), {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "calibrate": Node(
            "FewStepCalibrate",
            (410, 60),
            (360, 640),
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
        "chart": Node("PreviewImage", (410, 770), (360, 220), {"images": ("calibrate", "plot")}, "Errors on held-out seeds"),
        "report": Node("PreviewAny", (20, 790), (330, 260), {"source": ("calibrate", "report")}, "Report"),
        "apply": Node(
            "FewStepApplyRecipe",
            (830, 60),
            (340, 480),
            {"recipe": ("calibrate", "recipe"), "model": ("demo", "model"), "latent_image": ("demo", "LATENT"), "cfg_to_check": 3.0},
        ),
        "keep": Node(
            "FewStepSaveRecipe",
            (830, 610),
            (340, 126),
            {"recipe": ("apply", "used"), "name": "demo model, 4 calls", "overwrite": True},
        ),
        "guider": Node(
            "CFGGuider",
            (830, 820),
            (340, 98),
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 3.0},
        ),
        "noise": Node("RandomNoise", (1230, 820), (270, 82), fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            (1230, 60),
            (270, 106),
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("apply", "sampler"),
                "sigmas": ("apply", "sigmas"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", (1230, 230), (270, 46), {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            (1230, 340),
            (270, 130),
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", (1560, 60), (560, 576), {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep recipe"}),
    },
    (Group("Fit once", (395, -20), (390, 1030), PURPLE), Group("Use and share", (815, -20), (370, 790), BLUE)),
    ("save", "chart"),
)

AMED = Graph(
    "AMED",
    {
        "note": note(
            """
## Intermediate times learned for this model

**Run**: ten pictures in 5 model calls. There are two steps with an additional model call at an intermediate time. A small **predictor**
chooses this time for each picture from the model's internal features. *FewStep AMED Times* shows which times it chose.

The predictor ships with FewStep and is for this small model, at *cfg* 2 and 5 calls. To train one for your own model, use the template
*train AMED*.
            """,
            (20, 60),
            (330, 330),
        ),
        "demo": Node("FewStepLoadDemoModel", (20, 450), (330, 186), {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "load": Node("FewStepLoadAmed", (410, 60), (330, 300), {"name": "demo model: ipndm3-5-predictor"}),
        "sampler": Node(
            "FewStepAmedSampler",
            (410, 430),
            (330, 170),
            {"predictor": ("load", "predictor"), "model": ("demo", "model"), "latent_image": ("demo", "LATENT"), "cfg_to_check": 2.0},
        ),
        "scheduler": Node("FewStepAmedScheduler", (410, 670), (330, 290), {"predictor": ("load", "predictor"), "model": ("demo", "model")}),
        "guider": Node(
            "CFGGuider",
            (800, 60),
            (300, 98),
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 2.0},
        ),
        "noise": Node("RandomNoise", (800, 220), (300, 82), fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            (800, 370),
            (300, 106),
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
            (800, 540),
            (420, 330),
            {"sampler": ("sampler", "sampler"), "samples": ("run", "output")},
            "The times it took",
        ),
        "decode": Node("VAEDecode", (1160, 60), (270, 46), {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            (1160, 170),
            (270, 130),
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", (1490, 60), (560, 576), {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep AMED"}),
    },
    (Group("What was trained", (395, -20), (360, 1000), PURPLE),),
    ("save", "times"),
)

TRAIN_AMED = Graph(
    "train AMED",
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
            (20, 60),
            (330, 440),
        ),
        "demo": Node("FewStepLoadDemoModel", (20, 560), (330, 186), {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "teacher": Node("FewStepTeacherSettings", (20, 810), (330, 106), {"steps": 32}),
        "train": Node(
            "FewStepTrainAmed",
            (410, 60),
            (360, 760),
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
        "chart": Node("PreviewImage", (830, 60), (380, 400), {"images": ("train", "plot")}, "Times, and the course of the training"),
        "report": Node("PreviewAny", (830, 530), (380, 290), {"source": ("train", "report")}, "Report"),
        "keep": Node(
            "FewStepSaveAmed",
            (830, 880),
            (380, 106),
            {"predictor": ("train", "predictor"), "name": "demo model, 5 calls", "overwrite": True},
        ),
        "sampler": Node("FewStepAmedSampler", (1270, 60), (300, 170), {"predictor": ("train", "predictor")}),
        "scheduler": Node("FewStepAmedScheduler", (1270, 300), (300, 290), {"predictor": ("train", "predictor")}),
        "guider": Node(
            "CFGGuider",
            (1270, 660),
            (300, 98),
            {"model": ("demo", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 2.0},
        ),
        "noise": Node("RandomNoise", (1270, 820), (300, 82), fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            (1630, 60),
            (270, 106),
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("sampler", "sampler"),
                "sigmas": ("scheduler", "sigmas"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", (1630, 230), (270, 46), {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            (1630, 340),
            (270, 130),
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", (1960, 60), (560, 576), {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep AMED"}),
    },
    (Group("Train once", (395, -20), (830, 1030), PURPLE), Group("Use", (1255, -20), (330, 620), BLUE)),
    ("save", "chart"),
)

FIRST_ORDER_RECIPE = (
    "fewstep1:ddim-4nfe-edm:AZRQfnPoAXU93BGacLxAQE2x5Xnxr96j82wBrqK0ZUaY4J6loDhgNfm2xOtxf3cLKX9XWWmDUNwye9YyNdKBDGoG8hx2HmlSZI22vywhJHkI"
    "c1001IExPTY9Y5cJAkR0cpzE5SrM5mU6SRM00:531utV3"
)
"""4 steps of DDIM on optimized levels: a first-order solver has the most to gain."""

TUNE_LORA = Graph(
    "tune LoRA",
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
            (20, 60),
            (330, 470),
        ),
        "demo": Node("FewStepLoadDemoModel", (20, 590), (330, 186), {"family": "edm", "class_name": "mixed", "batch_size": 10}),
        "teacher": Node("FewStepTeacherSettings", (20, 840), (330, 106), {"steps": 32}),
        "tune": Node(
            "FewStepTuneLora",
            (410, 60),
            (360, 1090),
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
        "chart": Node("PreviewImage", (830, 60), (380, 400), {"images": ("tune", "plot")}, "The tuning, and who wins"),
        "report": Node("PreviewAny", (830, 530), (380, 290), {"source": ("tune", "report")}, "Report"),
        "apply": Node(
            "FewStepApplyRecipe",
            (1270, 60),
            (330, 480),
            {"recipe": ("tune", "recipe"), "model": ("tune", "model"), "latent_image": ("demo", "LATENT"), "cfg_to_check": 2.0},
        ),
        "guider": Node(
            "CFGGuider",
            (1270, 610),
            (330, 98),
            {"model": ("tune", "model"), "positive": ("demo", "positive"), "negative": ("demo", "negative"), "cfg": 2.0},
        ),
        "noise": Node("RandomNoise", (1270, 770), (330, 82), fixed_seed(7)),
        "run": Node(
            "SamplerCustomAdvanced",
            (1660, 60),
            (270, 106),
            {
                "noise": ("noise", "NOISE"),
                "guider": ("guider", "GUIDER"),
                "sampler": ("apply", "sampler"),
                "sigmas": ("apply", "sigmas"),
                "latent_image": ("demo", "LATENT"),
            },
        ),
        "decode": Node("VAEDecode", (1660, 230), (270, 46), {"samples": ("run", "output"), "vae": ("demo", "VAE")}),
        "scale": Node(
            "ImageScale",
            (1660, 340),
            (270, 130),
            {"image": ("decode", "IMAGE"), "upscale_method": "lanczos", "width": 160, "height": 160, "crop": "disabled"},
            "Enlarge 32 x 32 pictures",
        ),
        "save": Node("SaveImage", (1990, 60), (560, 576), {"images": ("scale", "IMAGE"), "filename_prefix": "FewStep tuned"}),
    },
    (Group("Tune once", (395, -20), (830, 1190), PURPLE), Group("Use", (1255, -20), (360, 890), BLUE)),
    ("save", "chart"),
)


GRAPHS = (FIVE_STEPS, COMPARE, IMAGE_TO_IMAGE, CALIBRATE, AMED, TRAIN_AMED, TUNE_LORA, STABLE_DIFFUSION, FLOW)
