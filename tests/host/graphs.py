"""Beginnings and ends of workflows that several tests share."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .comfyui import Comfy, Graph, Node, Result


@dataclass
class Source:
    """A graph that has a model whose calls are counted; the other members are links to what sampling needs."""

    graph: Graph
    key: str
    model: list
    positive: list
    negative: list
    latent: list
    vae: list | None = None

    def out(self, folder: Path, **inputs) -> Node:
        """Add the node that hands out tensors, texts and the counted calls."""
        return self.graph.node("ProbeOut", folder=str(folder), key=self.key, **inputs)


def demo(family: str = "vp", batch_size: int = 2, class_name: str = "mixed", counted=True, **more: str) -> Source:
    """The built-in model: 32x32 grey pictures, one channel. Not `counted`: for servers without the probe pack."""
    graph, key = Graph(), uuid.uuid4().hex
    loader = graph.node("FewStepLoadDemoModel", family=family, class_name=class_name, batch_size=batch_size, **more)
    model = graph.node("ProbeModel", model=loader[0], key=key) if counted else loader
    return Source(graph, key, model[0], loader[1], loader[2], loader[3], loader[4])


def demo_of(recipe: Path, **more) -> Source:
    """The built-in model that a shipped recipe is for."""
    kind = recipe.stem.partition("-")[0]
    return demo("flow", model="emoji", **more) if kind == "emoji" else demo(kind, **more)


def sd3(comfy: Comfy, batch_size: int = 1) -> Source:
    """Random weights in the layout of Stable Diffusion 3, loaded by the host's own loader: flow, shift 3."""
    graph, key = Graph(), uuid.uuid4().hex
    name = comfy.add_model("diffusion_models", "sd3.safetensors")
    loader = graph.node("UNETLoader", unet_name=name, weight_dtype="default")
    counted = graph.node("ProbeModel", model=loader[0], key=key)
    texts = [graph.node("ProbeConditioning", tokens=8, width=4096, pooled=2048, seed=seed)[0] for seed in (1, 2)]
    latent = graph.node("EmptySD3LatentImage", width=64, height=64, batch_size=batch_size)
    return Source(graph, key, counted[0], *texts, latent[0])


def sd15(comfy: Comfy, batch_size: int = 1) -> Source:
    """Random weights in the layout of Stable Diffusion 1.5, loaded by the host's own loader: epsilon prediction."""
    graph, key = Graph(), uuid.uuid4().hex
    name = comfy.add_model("checkpoints", "sd15.safetensors")
    loader = graph.node("CheckpointLoaderSimple", ckpt_name=name)
    counted = graph.node("ProbeModel", model=loader[0], key=key)
    texts = [graph.node("ProbeConditioning", tokens=8, width=768, pooled=0, seed=seed)[0] for seed in (1, 2)]
    latent = graph.node("EmptyLatentImage", width=64, height=64, batch_size=batch_size)
    return Source(graph, key, counted[0], *texts, latent[0], loader[2])


def ksampler(source: Source, latent: list | None = None, **changes) -> Node:
    """Add the stock KSampler, with FewStep's dropdown entries unless `changes` say otherwise."""
    inputs = {
        "model": source.model, "positive": source.positive, "negative": source.negative,
        "latent_image": latent or source.latent, "seed": 5, "steps": 5, "cfg": 2.0, "denoise": 1.0,
        "sampler_name": "fewstep_unipc", "scheduler": "fewstep",
    }  # fmt: skip
    return source.graph.node("KSampler", **{**inputs, **changes})


def ksampler_advanced(source: Source, latent: list | None = None, **changes) -> Node:
    inputs = {
        "model": source.model, "positive": source.positive, "negative": source.negative,
        "latent_image": latent or source.latent, "noise_seed": 5, "steps": 8, "cfg": 2.0, "add_noise": "enable",
        "start_at_step": 0, "end_at_step": 10000, "return_with_leftover_noise": "disable",
        "sampler_name": "fewstep_unipc", "scheduler": "fewstep",
    }  # fmt: skip
    return source.graph.node("KSamplerAdvanced", **{**inputs, **changes})


def sampler_custom(source: Source, sampler: list, sigmas: list, latent: list | None = None, **changes) -> Node:
    inputs = {
        "model": source.model, "positive": source.positive, "negative": source.negative,
        "latent_image": latent or source.latent, "noise_seed": 5, "cfg": 2.0, "add_noise": True,
        "sampler": sampler, "sigmas": sigmas,
    }  # fmt: skip
    return source.graph.node("SamplerCustom", **{**inputs, **changes})


def tensor(result: Result, out: Node, name: str = "latent") -> np.ndarray:
    """Return a tensor that a ProbeOut node wrote."""
    return np.load(result.ui(out, name)[0])
