"""The trained demo models as k-diffusion style denoisers.

"fashion" comes in each of the three model families; "emoji" (`demo.emoji`) is a flow model from s = 1 and comes only as such.

The fashion network was trained in EDM form on sigma in [0.02, 20]. The other families are exact changes of variables of the same denoiser:

    edm    D(x, sigma), sigma in [0.02, 20]
    vp     the VE form of a discrete 1000-step model with Stable Diffusion's alphas: sigma is mapped to the (fractional) timestep
           and back as k-diffusion's wrappers do, so the model has sd15's range 0.0292..14.6
    flow   x_flow = x/(1 + sigma), s = sigma/(1 + sigma):  D_flow(x, s) = D(x/(1 - s), s/(1 - s)), s up to 20/21. s = 1 is evaluated at
           the largest trained s.
"""
from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..schedules import NoiseSchedule, structure_scale
from ..tensor_files import load_tensors
from .data import CLASS_NAMES, load_images
from .judge import Judge, load_judge
from .network import IMAGE_SIZE, EDMPrecond, UNet

WEIGHTS_FILE = Path(__file__).parent / "weights" / "demo_unet.safetensors"
SIGMA_MIN, SIGMA_MAX = 0.02, 20.0
_DEVIATION = 0.6  # of a pixel, in both data sets
DemoFamily = Literal["edm", "vp", "flow"]
DemoName = Literal["fashion", "emoji"]
FAMILIES: dict[str, tuple[str, ...]] = {"fashion": ("edm", "vp", "flow"), "emoji": ("flow",)}
"""What each model comes as; the first is the default."""


class DemoModel(nn.Module):
    """model(x, sigma, labels=None, cfg=1.0) -> D, with x [B, channels, 32, 32] and sigma [B].

    Attributes
    ----------
    name : {"fashion", "emoji"}
        Which demo model.
    class_names : tuple of str
        By label; the label after the last is "no class".
    shown_labels : tuple of int
        Those with a column in pictures.
    noise_schedule : NoiseSchedule
        Of the family.
    network : module
        The denoiser D(x, sigma, labels); the fashion model's is in EDM form and has its bottleneck at `network.net.middle_block`.
    """

    name: str = "fashion"
    channels: int = 1
    class_names: tuple[str, ...] = CLASS_NAMES
    shown_labels: tuple[int, ...] = tuple(range(len(CLASS_NAMES)))
    noise_schedule: NoiseSchedule

    def __init__(self, network: nn.Module, noise_schedule: NoiseSchedule) -> None:
        super().__init__()
        self.network = network
        self.noise_schedule = noise_schedule
        self._halves = 1

    @property
    def family(self) -> str:
        """"edm", "vp" or "flow"."""
        return self.noise_schedule.family

    @property
    def kind(self) -> str:
        """What `load_demo_model` calls it in one word, as the names of its recipes do: the family of fashion, or another model's name."""
        return self.family if self.name == "fashion" else self.name

    @property
    def structure(self) -> float:
        """The largest structures of its pictures, for where the first call is (schedules/first_level.py)."""
        return structure_scale((self.channels, IMAGE_SIZE, IMAGE_SIZE), _DEVIATION)

    @property
    def trained(self) -> nn.Module:
        """The trained network itself, without preconditioning."""
        return self.network.net  # type: ignore[return-value]

    @property
    def num_classes(self) -> int:
        """Also the label of "no class"."""
        return len(self.class_names)

    def judge(self) -> tuple[Judge, dict]:
        """The classifier of the model's kind of images, and its record."""
        return load_judge()

    def training_images(self) -> tuple[Tensor, Tensor]:
        """What it was trained on, in [-1, 1], and labels; the data do not come with FewStep."""
        return load_images("train")

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None, cfg: float = 1.0) -> Tensor:
        """Predicted clean images [B, channels, 32, 32].

        Parameters
        ----------
        labels : Tensor [B] or None
            Class indices 0..num_classes - 1; None for the unconditional model.
        cfg : float
            Classifier-free guidance scale; 1 is the plain conditional model (one network pass), else both halves run as one batch.
        """
        self._check_input(x, sigma, labels)
        sigma = sigma.to(torch.float32)
        at, scale = self._ve_level(sigma)
        images = x.to(torch.float32) * scale[:, None, None, None]
        denoised = self._guided(images, at, labels, cfg)
        return denoised.to(x.dtype)

    def _ve_level(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """The network's sigma, and the factor that brings x to VE form."""
        return sigma.clamp(SIGMA_MIN, SIGMA_MAX), torch.ones_like(sigma)

    def _guided(self, x: Tensor, sigma: Tensor, labels: Tensor | None, cfg: float) -> Tensor:
        nothing = torch.full((len(x),), self.num_classes, device=x.device)
        self._halves = 1
        if labels is None or cfg == 1.0:
            return self.network(x, sigma, nothing if labels is None else labels.to(x.device))
        self._halves = 2
        both = self.network(x.repeat(2, 1, 1, 1), sigma.repeat(2), torch.cat([labels.to(x.device), nothing]))
        conditional, unconditional = both.chunk(2)
        return unconditional + cfg * (conditional - unconditional)

    def _check_input(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> None:
        size = (self.channels, IMAGE_SIZE, IMAGE_SIZE)
        if x.ndim != 4 or x.shape[1:] != size:
            raise ValueError(f"x had shape {tuple(x.shape)}; the {self.name} demo model takes [B, {', '.join(map(str, size))}].")
        if sigma.shape != x.shape[:1]:
            raise ValueError(f"sigma had shape {tuple(sigma.shape)}; one value per image, [{len(x)}], is needed.")
        if labels is None:
            return
        if labels.is_floating_point() or (labels.numel() and not 0 <= labels.min() <= labels.max() < self.num_classes):
            raise ValueError(f"labels were {labels.tolist()}; they must be integers from 0 to {self.num_classes - 1}, or None.")
        if labels.shape != x.shape[:1]:
            raise ValueError(f"labels had shape {tuple(labels.shape)}; one class index per image, [{len(x)}], is needed.")

    def conditional_rows(self, count: int) -> slice:
        """Of the network's `count` rows in the call that runs now, those with the labels; with guidance the others come after them."""
        return slice(0, count // self._halves)

    def initial_noise(self, count: int, seed: int) -> Tensor:
        """Noise images [count, channels, 32, 32] of variance 1, image k the same for every `count`."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, self.channels, IMAGE_SIZE, IMAGE_SIZE, generator=generator)

    def initial_state(self, noise: Tensor, sigma: float | None = None) -> Tensor:
        """The start of sampling at `sigma` (default: sigma_max): sigma * noise in every family, without an image in it."""
        return noise * (self.noise_schedule.sigma_max if sigma is None else float(sigma))


def timestep_of_sigma(sigma: Tensor, log_levels: Tensor) -> Tensor:
    """Fractional timestep 0..T-1 at sigma [B], linear in ln sigma between the T ascending `log_levels`, clamped to the table."""
    log_sigma = sigma.log().clamp(log_levels[0], log_levels[-1])
    low = (torch.searchsorted(log_levels, log_sigma, right=True) - 1).clamp(0, len(log_levels) - 2)
    below, above = log_levels[low], log_levels[low + 1]
    return low + (log_sigma - below) / (above - below)


def sigma_of_timestep(t: Tensor, log_levels: Tensor) -> Tensor:
    """The noise level at fractional timestep t [B], clamped to the table: the inverse of `timestep_of_sigma`."""
    t = t.clamp(0, len(log_levels) - 1)
    low = t.floor().long().clamp(max=len(log_levels) - 2)
    return torch.lerp(log_levels[low], log_levels[low + 1], t - low).exp()


class DiscreteDemoModel(DemoModel):
    """The vp family: noise levels pass through the timestep, as in a model trained on 1000 of them."""

    def __init__(self, network: nn.Module, noise_schedule: NoiseSchedule) -> None:
        super().__init__(network, noise_schedule)
        levels = torch.from_numpy(noise_schedule.levels.copy()).log().to(torch.float32)
        self.register_buffer("log_levels", levels, persistent=False)

    log_levels: Tensor

    def timestep(self, sigma: Tensor) -> Tensor:
        """Fractional timestep 0..999 at sigma [B]: `timestep_of_sigma` in the model's own table."""
        return timestep_of_sigma(sigma, self.log_levels)

    def trained_level(self, sigma: Tensor) -> Tensor:
        """The noise level [B] that the network sees for sigma."""
        return sigma_of_timestep(self.timestep(sigma), self.log_levels)

    def _ve_level(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return self.trained_level(sigma).clamp(SIGMA_MIN, SIGMA_MAX), torch.ones_like(sigma)


class _FlowDemoModel(DemoModel):
    """The flow family."""

    def _ve_level(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        s = sigma.clamp(SIGMA_MIN / (1 + SIGMA_MIN), SIGMA_MAX / (1 + SIGMA_MAX))
        return s / (1 - s), 1 / (1 - s)


def demo_noise_schedule(family: str) -> NoiseSchedule:
    """The noise schedule of the demo model in a family."""
    if family == "edm":
        return NoiseSchedule.edm(SIGMA_MIN, SIGMA_MAX)
    if family == "vp":
        return NoiseSchedule.preset("sd15")
    if family == "flow":
        return NoiseSchedule.flow(t_eps=SIGMA_MIN / (1 + SIGMA_MIN), t_end=SIGMA_MAX / (1 + SIGMA_MAX))  # shift 1: t = s
    raise ValueError(f"family was {family!r}; the demo model comes as 'edm', 'vp' or 'flow'.")


def kind_of(name: str | None, family: str | None = None) -> str:
    """`DemoModel.kind` of what `load_demo_model` would load."""
    name, family = _chosen(name, family)
    return family if name == "fashion" else name


def demo_noise_schedule_of(name: str, family: str | None = None) -> NoiseSchedule:
    """The noise schedule of a demo model by name, without loading it; arguments as for `load_demo_model`."""
    name, family = _chosen(name, family)
    if name == "emoji":
        from .emoji.model import emoji_noise_schedule

        return emoji_noise_schedule()
    return demo_noise_schedule(family)


@cache
def _network() -> EDMPrecond:
    tensors, record = load_tensors(WEIGHTS_FILE)
    config = record["config"]
    net = UNet(tuple(config["channels"]), config["blocks"], config["embedding"], config["num_classes"])
    net.load_state_dict({name: value.float() for name, value in tensors.items()})
    return EDMPrecond(net, record["sigma_data"]).eval().requires_grad_(False)


def load_demo_model(name: DemoName | DemoFamily | None = None, device: str | torch.device = "cpu",
                    family: DemoFamily | None = None) -> DemoModel:  # fmt: skip
    """A trained demo model as a denoiser; every call gives one of its own.

    Parameters
    ----------
    name : {"fashion", "emoji"}, optional
        "fashion" is grey clothes, the default; "emoji" is in colour. A family here means the fashion model in that family.
    device : str or device
        Where the model is put.
    family : {"edm", "vp", "flow"}, optional
        For fashion, default "edm"; emoji comes as "flow" only.

    Returns
    -------
    DemoModel
        model(x, sigma, labels=, cfg=), with `.noise_schedule`.

    Raises
    ------
    ValueError
        An unknown name or family, or a family that the model does not come in.
    """
    name, family = _chosen(name, family)
    if name == "emoji":
        from .emoji.model import load_emoji_model  # which builds on this module

        return load_emoji_model(device)
    noise_schedule = demo_noise_schedule(family)
    kind = {"edm": DemoModel, "vp": DiscreteDemoModel, "flow": _FlowDemoModel}[family]
    # a copy, so that .half() or training of one model leaves the others as they are
    return kind(copy.deepcopy(_network()), noise_schedule).eval().to(device)


def _chosen(name: str | None, family: str | None) -> tuple[str, str]:
    """Name of the model and its family."""
    if name in FAMILIES["fashion"]:
        if family not in (None, name):
            raise ValueError(f"the model was {name!r}, which means fashion in that family, and family was {family!r}; give one of them.")
        return "fashion", name
    name = "fashion" if name is None else name
    if name not in FAMILIES:
        raise ValueError(f"the demo model was {name!r}; it must be 'fashion', 'emoji', or a family of fashion: 'edm', 'vp', 'flow'.")
    family = FAMILIES[name][0] if family is None else family
    if name == "emoji" and family not in FAMILIES[name]:
        raise ValueError(f"family was {family!r}; the emoji model is a flow model: give 'flow', or no family.")
    return name, family
