"""Nodes of the tests alone: they count model calls, make conditioning without a text encoder and hand tensors out."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch

CALLS: dict[str, list[int]] = {}  # per key of a ProbeModel, the model calls of each sampling so far
ASKED: dict[str, list[tuple[list[float], list[float]]]] = {}  # of its last sampling, the levels of each call and what the host was told


class ProbeModel:
    """The model, with every call of a sampler counted, and slowed down if asked for.

    The file `watched` tells how many calls were begun, for who wants to know while it runs.
    """

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {"model": ("MODEL",), "key": ("STRING", {"default": ""})},
            "optional": {"delay": ("FLOAT", {"default": 0.0}), "watched": ("STRING", {"default": ""})},
        }
    )
    RETURN_TYPES, FUNCTION, CATEGORY = ("MODEL",), "count", "probe"

    def count(self, model, key, delay=0.0, watched=""):
        from comfy.patcher_extension import WrappersMP

        CALLS[key], ASKED[key] = [], []

        def sampling(executor, *args, **kwargs):
            CALLS[key].append(0)
            ASKED[key] = []
            return executor(*args, **kwargs)

        def one_call(executor, *args, **kwargs):
            CALLS[key][-1] += 1
            ASKED[key].append((args[1].tolist(), args[2]["transformer_options"]["sample_sigmas"].tolist()))
            if watched:
                Path(watched).write_text(str(CALLS[key][-1]))
            time.sleep(delay)
            return executor(*args, **kwargs)

        model = model.clone()
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "probe", sampling)
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "probe", one_call)
        return (model,)


class ProbeConditioning:
    """Random conditioning of any shape, always the same for the same seed."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "tokens": ("INT", {"default": 4}), "width": ("INT", {"default": 768}),
                "pooled": ("INT", {"default": 0}), "seed": ("INT", {"default": 0}),
            }
        }
    )  # fmt: skip
    RETURN_TYPES, FUNCTION, CATEGORY = ("CONDITIONING",), "make", "probe"

    def make(self, tokens, width, pooled, seed):
        generator = torch.Generator().manual_seed(seed)
        more = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
        return ([[torch.randn(1, tokens, width, generator=generator), more]],)


class ProbeSigmas:
    """Any list of noise levels, such as packs make them."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {"levels": ("STRING", {"default": ""})}})
    RETURN_TYPES, FUNCTION, CATEGORY = ("SIGMAS",), "make", "probe"

    def make(self, levels):
        return (torch.FloatTensor([float(level) for level in levels.split()]),)


class ProbeOut:
    """Send to the client what it is given: numbers and text as they are, tensors as files; and the counted calls."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {"folder": ("STRING", {"default": ""}), "key": ("STRING", {"default": ""})},
            "optional": {
                "latent": ("LATENT",), "image": ("IMAGE",), "sigmas": ("SIGMAS",), "text": ("STRING", {"forceInput": True}),
            },
        }
    )  # fmt: skip
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "out", "probe", True
    IS_CHANGED = classmethod(lambda cls, **kwargs: float("nan"))  # never cached

    def out(self, folder, key, latent=None, image=None, sigmas=None, text=None):
        answer = {"calls": CALLS.get(key, []), "asked": ASKED.get(key, [])}
        tensors = {"latent": None if latent is None else latent["samples"], "image": image}
        for name, tensor in tensors.items():
            if tensor is not None:
                path = Path(folder, f"probe-{name}-{time.monotonic_ns()}.npy")
                np.save(path, tensor.float().numpy(), allow_pickle=False)
                answer[name] = [str(path)]
        if sigmas is not None:
            answer["sigmas"] = sigmas.tolist()
        if text is not None:
            answer["text"] = [text]
        return {"ui": answer}


class ProbeHost:
    """Tell what packs could change in the host: its lists, what it calls, and how much hangs on it."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "tell", "probe", True
    IS_CHANGED = classmethod(lambda cls, **kwargs: float("nan"))  # never cached

    def tell(self):
        import comfy.samplers
        import comfy.utils
        import folder_paths
        from comfy.k_diffusion import sampling
        from server import PromptServer

        import nodes

        server, lists = PromptServer.instance, comfy.samplers
        told = {
            "SAMPLER_NAMES": lists.SAMPLER_NAMES,
            "SCHEDULER_NAMES": lists.SCHEDULER_NAMES,
            "KSAMPLER_NAMES": lists.KSAMPLER_NAMES,
            "KSampler.SAMPLERS": lists.KSampler.SAMPLERS,
            "KSampler.SCHEDULERS": lists.KSampler.SCHEDULERS,
            "KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS": sorted(lists.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS),
            "SCHEDULER_HANDLERS": {name: id(handler.handler) for name, handler in lists.SCHEDULER_HANDLERS.items()},
            "samplers": {name: id(value) for name, value in vars(sampling).items() if name.startswith("sample_")},
            "functions": [id(getattr(lists, name)) for name in ("sampling_function", "calc_cond_batch", "sample", "calculate_sigmas")],
            "nodes": {name: id(value) for name, value in nodes.NODE_CLASS_MAPPINGS.items()},
            "folders": {name: sorted(map(str, value[0])) for name, value in folder_paths.folder_names_and_paths.items()},
            "routes": sorted(f"{route.method} {route.resource}" for route in server.app.router.routes()),
            "prompt handlers": [id(handler) for handler in server.on_prompt_handlers],
            "progress hook": id(comfy.utils.PROGRESS_BAR_HOOK),
        }
        return {"ui": {"text": [json.dumps(told)]}}


NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in (ProbeModel, ProbeConditioning, ProbeSigmas, ProbeOut, ProbeHost)}
