"""Reads bottleneck features of a network while it runs: the input of an AMED predictor for each image.

A predictor uses 64 numbers per image (arXiv 2312.00094): the output of the network's middle block, averaged over channels and pooled to
8x8 for any picture size. They are a by-product of a model call that sampling makes anyway, captured by forward hooks that exist only
inside `with tap:`.

One call of a denoiser on B images may run its network on more than B rows (both halves of classifier-free guidance in one batch, in
either order), or several times (one half at a time). Only the caller of the network knows which rows are conditional, so a tap calls
`rows`:

    ModuleTap       any module; `rows` returns its conditional rows, and without it the rows must be the images
    MarkedTap       networks to which the host passes `transformer_options["cond_or_uncond"]` (ComfyUI, Forge, reForge)
    tap_for(model)  the middle block, found through the attributes of a k-diffusion style denoiser

Everything is pooled inside the hook: a network may modify its activations afterwards, and only 64 numbers per row are kept.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GRID = 8
FEATURES = GRID * GRID
"""Numbers per image."""

Rows = Callable[[int], "Sequence[tuple[Hashable, slice]] | None"]
"""rows(number of rows) -> the conditional parts of the network's current call: pairs (name of the conditioning, its rows), each part with
the whole batch of images. Empty if the call has none; None if they cannot be determined."""

_CHAIN = ("inner_model", "network", "net", "unet", "model", "diffusion_model")
_LONGEST_CHAIN = 8


class TapError(RuntimeError):
    """Features did not arrive, or cannot be assigned to images; the message says what to do."""


class FeatureTap(Protocol):
    """What sampling and training need of a tap.

    Attributes
    ----------
    source : str
        Where the features come from, such as "middle block of UNetModel"; written into checkpoints.
    """

    source: str

    def __enter__(self) -> FeatureTap: ...

    def __exit__(self, *error: object) -> None: ...

    def read(self, batch: int) -> Tensor:
        """Features [batch, 64] of the last model call, float32, detached, on the network's device.

        Raises
        ------
        TapError
            If none arrived, or the conditional rows cannot be determined.
        """
        ...


def call_begins(tap: FeatureTap) -> None:
    """Tell a tap that a call of the denoiser begins, if it has a method `begin`; others detect that, or use the last pass."""
    begin = getattr(tap, "begin", None)
    if callable(begin):
        begin()


class EnteredTap:
    """A tap that has been entered already, for a callee that enters what it is given."""

    def __init__(self, tap: FeatureTap) -> None:
        self.tap, self.source = tap, tap.source

    def __enter__(self) -> EnteredTap:
        call_begins(self.tap)
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def read(self, batch: int) -> Tensor:
        """See `FeatureTap.read`."""
        return self.tap.read(batch)


def pooled(maps: Tensor) -> Tensor:
    """Activations [R, C, H, W] (or [R, C, frames, H, W]) -> features [R, 64] in float32: mean over channels and frames, 8x8 cells."""
    if maps.ndim not in (4, 5):
        raise TapError(
            f"The tapped module returned a tensor of shape {tuple(maps.shape)}, but features are read from [rows, channels, height, "
            "width]. Tap another module, or use a table, which needs no features."
        )
    means = maps.detach().mean(dim=tuple(range(1, maps.ndim - 2)), dtype=torch.float32)
    size = means.shape[-2:]
    if means.device.type == "mps" and (size[0] % GRID or size[1] % GRID):  # not implemented on MPS
        return _cells(means.cpu()).to(means.device)
    return _cells(means)


def _cells(means: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(means[:, None], GRID).flatten(1)


class ModuleTap:
    """Features from the output of any module.

    Parameters
    ----------
    module : Module
        Its output is a tensor [rows, channels, height, width], or `maps` converts it to one.
    rows : callable or None
        See `Rows`; default: the rows are the images.
    maps : callable or None
        Output of the module -> activations, for other kinds of output.
    denoiser : Module or None
        The module that is called once per call of the denoiser: earlier features are then discarded, and parts from several
        network calls are averaged by name. Without it, and without `begin`, the last network call with conditional rows is
        used.
    source : str
        See `FeatureTap`.
    """

    def __init__(
        self,
        module: nn.Module,
        rows: Rows | None = None,
        *,
        maps: Callable[[Any], Tensor] | None = None,
        denoiser: nn.Module | None = None,
        source: str = "",
    ) -> None:
        self.module, self.rows, self.maps, self.denoiser = module, rows, maps, denoiser
        self.source = source or f"output of {type(module).__name__}"
        self._parts: dict[Hashable, Tensor] = {}
        self._begun = False
        self._problem = ""
        self._passes = 0
        self._hooks: list[Any] = []

    def __enter__(self) -> ModuleTap:
        if self._hooks:
            raise RuntimeError("The tap is in use; leave its `with` block before entering it again, or create another tap.")
        self._forget()
        self._hooks = [self.module.register_forward_hook(self._arrived)]
        if self.denoiser is not None:
            self._hooks.append(self.denoiser.register_forward_pre_hook(lambda module, args: self.begin()))
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self._begun = False
        self._forget()

    def begin(self) -> None:
        """Start of a call of the denoiser: discard earlier features."""
        self._begun = True
        self._forget()

    def read(self, batch: int) -> Tensor:
        """See `FeatureTap.read`."""
        if self._problem:
            raise TapError(self._problem)
        if not self._parts:
            raise TapError(
                f"No features arrived from the {self.source} in the last model call. The network may be compiled, or another extension "
                "may skip its blocks or calls (caching): turn that off, or use a table, which needs no features."
            )
        found = list(self._parts.values())
        sizes = {len(part) for part in found}
        if sizes != {batch}:
            rows = " and ".join(map(str, sorted(sizes)))
            advice = (
                "Give the tap `rows`, or the denoiser a method conditional_rows(count), to say which of them are conditional"
                if self.rows is None
                else "The model may see parts of the batch at a time (context windows, tiles)"
            )
            raise TapError(
                f"The {self.source} gave features of {rows} rows for {batch} images. {advice}; or use a table, which needs no features."
            )
        return found[0] if len(found) == 1 else torch.stack(found).mean(0)

    def _forget(self) -> None:
        self._parts, self._problem, self._passes = {}, "", 0

    def _arrived(self, module: nn.Module, args: object, output: Any) -> None:
        self._passes += 1
        if self.rows is None and self._begun and self._passes > 1:
            self._problem = (
                f"The network ran {self._passes} times in one call of the denoiser, as for both halves of guidance, but it is not known "
                f"which pass is conditional ({self.source}). Give the tap `rows`, or the denoiser a method conditional_rows(count); or use "
                "a table, which needs no features."
            )
            return
        parts = self._conditional(output)
        if parts is None:
            return
        if not self._begun and parts:
            self._parts = {}
        for name, part in parts:
            # A later pass of the same conditioning in one call comes from another extension, on modified activations.
            self._parts.setdefault(name, part)

    def _conditional(self, output: Any) -> list[tuple[Hashable, Tensor]] | None:
        try:
            features = pooled(output if self.maps is None else self.maps(output))
            chosen = [("", slice(None))] if self.rows is None else self.rows(len(features))
        except TapError as error:
            self._problem = str(error)  # raised by `read`: a hook must not stop a model call whose features are not needed
            return None
        if chosen is None:
            self._problem = (
                f"It is not known which of the {len(features)} rows in the {self.source} belong to the conditional half of guidance. "
                "Sample with the host's own guiders, or use a table, which needs no features."
            )
            return None
        return [(name, features[rows]) for name, rows in chosen]


class MarkedTap(ModuleTap):
    """Features from a block of a network that its host calls with `transformer_options`.

    `transformer_options["cond_or_uncond"]` has a number for each part of the batch, where 0 means conditional, in any order. If the host
    also names the parts ("uuids"), the names are more reliable: guiders with three prompts have their own numbering, and extensions may
    run a single prompt under the number 0.

    Parameters
    ----------
    network : Module
        Called with transformer_options as a keyword or positional argument.
    block, maps, source
        As in `ModuleTap`.
    known : callable
        Returns a mapping from names to whether the part belongs to the positive prompt; other names are decided by number.
    """

    def __init__(
        self,
        network: nn.Module,
        block: nn.Module,
        *,
        maps: Callable[[Any], Tensor] | None = None,
        known: Callable[[], Mapping[Hashable, bool]] = dict,
        source: str = "",
    ) -> None:
        super().__init__(block, self._marked, maps=maps, source=source)
        self.network, self.known = network, known
        self.options: Mapping[str, Any] = {}
        self.given: Tensor | None = None
        """First argument of the network's current call, for `maps` that need the picture size."""

    def __enter__(self) -> MarkedTap:
        super().__enter__()
        self._hooks.append(self.network.register_forward_pre_hook(self._called, with_kwargs=True))
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self.options, self.given = {}, None

    def _called(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        options = kwargs.get("transformer_options")
        if options is None:
            options = next((value for value in args if isinstance(value, Mapping) and "cond_or_uncond" in value), {})
        self.options = options
        self.given = args[0] if args and isinstance(args[0], Tensor) else None

    def _marked(self, count: int) -> list[tuple[Hashable, slice]] | None:
        marks = list(self.options.get("cond_or_uncond") or ())
        if not marks or count % len(marks):
            return None
        names = list(self.options.get("uuids") or ())
        if len(names) != len(marks):
            names = list(range(len(marks)))
        known, size = self.known(), count // len(marks)
        if max(marks) > 1 and not set(names) <= known.keys():
            return None
        positive = [known.get(name, mark == 0) for name, mark in zip(names, marks, strict=True)]
        return [(name, slice(i * size, (i + 1) * size)) for i, name in enumerate(names) if positive[i]]


def middle_of(network: Any) -> tuple[nn.Module, str] | None:
    """The module whose output is a U-Net's bottleneck, and its name; None for a network without `middle_block`.

    This is the last part of the middle block: hosts call the parts one by one, so a hook on the whole block would never run.
    """
    if not hasattr(network, "middle_block"):
        return None
    block, name = network.middle_block, "middle block"
    if block is None:  # reduced U-Nets
        block, name = getattr(network, "input_blocks", None), "last input block"
    if isinstance(block, (nn.Sequential, nn.ModuleList)) and len(block):
        block = block[-1]
    return (block, f"{name} of {type(network).__name__}") if isinstance(block, nn.Module) else None


def tap_for(model: Any) -> ModuleTap | None:
    """A tap for a denoiser whose attributes lead to a U-Net (`.inner_model`, `.model.diffusion_model`, ...); None if there is no U-Net.

    A denoiser in that chain that runs both halves of guidance in one batch must have a method conditional_rows(count) -> slice, which
    returns the conditional rows of the network's current call.
    """
    links = list(_chain(model))
    found = next(((link, *middle) for link in links if (middle := middle_of(link)) is not None), None)
    if found is None:
        return None
    network, block, source = found
    denoiser = model if isinstance(model, nn.Module) and model is not network else None
    guided = next((link for link in links if callable(getattr(link, "conditional_rows", None))), None)
    if guided is None:
        return ModuleTap(block, denoiser=denoiser, source=source)
    return ModuleTap(block, lambda count: [("", guided.conditional_rows(count))], denoiser=denoiser, source=source)


def _chain(model: Any) -> Iterator[Any]:
    """The model and the objects that its attributes lead to, breadth first."""
    waiting, seen = [(model, 0)], {id(model)}
    while waiting:
        link, depth = waiting.pop(0)
        yield link
        for name in _CHAIN if depth < _LONGEST_CHAIN else ():
            inner = getattr(link, name, None)
            if inner is not None and id(inner) not in seen and not isinstance(inner, (str, int, float, Tensor)):
                seen.add(id(inner))
                waiting.append((inner, depth + 1))
