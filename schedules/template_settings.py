"""Settings that ComfyUI's official templates sample model families with, as a starting point to compare few steps with.

Taken from the package comfyui-workflow-templates-json 0.1.50, which ComfyUI 0.33.0 asks for; a test compares each number with what the
template says. Only templates that sample the undistilled model are listed. A family without one is left out: nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TemplateSettings:
    """What one template samples with.

    Attributes
    ----------
    preset : str
        The family, a key of `model_families.PRESETS`.
    template, model : str
        Name of the template, and the file of the model in it.
    steps : int
        Of the whole run; for two experts, of both together.
    cfg : float
        Guidance scale; 1 is none.
    sampler, scheduler : str
        ComfyUI's names; "Flux2Scheduler" and "LTXVScheduler" are nodes.
    shift : float or None
        Of the template's ModelSampling node; None for the model's own.
    guidance : float or None
        FluxGuidance of models that are told their guidance.
    """

    preset: str
    template: str
    model: str
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    shift: float | None = None
    guidance: float | None = None

    def __str__(self) -> str:
        more = [f"cfg {self.cfg:g}"]
        more += [] if self.shift is None else [f"shift {self.shift:g}"]
        more += [] if self.guidance is None else [f"guidance {self.guidance:g}"]
        return f"{self.sampler} / {self.scheduler}, {self.steps} steps, {', '.join(more)}"


TEMPLATE_SETTINGS = (
    TemplateSettings(
        "qwen_image", "image_qwen_Image_2512", "qwen_image_2512_fp8_e4m3fn.safetensors", 50, 4.0, "euler", "simple", 3.1
    ),
    TemplateSettings(
        "qwen_image", "image_qwen_image_edit_2511", "qwen_image_edit_2511_fp8mixed.safetensors", 40, 4.0, "euler", "simple", 3.1
    ),
    TemplateSettings("flux", "flux_dev_full_text_to_image", "flux1-dev.safetensors", 20, 1.0, "euler", "simple"),
    TemplateSettings(
        "flux2", "image_flux2", "flux2_dev_fp8mixed.safetensors", 20, 1.0, "euler", "Flux2Scheduler", guidance=4.0
    ),
    TemplateSettings(
        "flux2", "image_flux2_klein_text_to_image", "flux-2-klein-base-4b.safetensors", 20, 5.0, "euler", "Flux2Scheduler"
    ),
    TemplateSettings("z_image", "image_z_image", "z_image_bf16.safetensors", 25, 4.0, "res_multistep", "simple", 3.0),
    TemplateSettings("chroma", "image_chroma_text_to_image", "Chroma1-HD-fp8mixed.safetensors", 26, 3.5, "euler", "beta", 1.0),
    TemplateSettings("hidream", "hidream_i1_full", "hidream_i1_full_fp8.safetensors", 50, 5.0, "uni_pc", "simple", 3.0),
    TemplateSettings(
        "lumina2", "image_netayume_lumina_t2i", "NetaYumev35_pretrained_all_in_one.safetensors", 30, 4.0, "res_multistep", "simple", 4.0
    ),
    TemplateSettings("sd3", "sd3.5_simple_example", "sd3.5_large_fp8_scaled.safetensors", 20, 4.01, "euler", "sgm_uniform"),
    TemplateSettings("wan", "text_to_video_wan", "wan2.1_t2v_1.3B_fp16.safetensors", 30, 6.0, "uni_pc", "simple", 8.0),
    TemplateSettings(
        "wan", "video_wan2_2_14B_t2v", "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", 20, 3.5, "euler", "simple", 5.0
    ),
    TemplateSettings(
        "wan", "video_wan2_2_14B_i2v", "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors", 20, 3.5, "euler", "simple", 5.0
    ),
    TemplateSettings(
        "hunyuan_video", "video_hunyuan_video_1.5_720p_t2v", "hunyuanvideo1.5_720p_t2v_fp16.safetensors", 20, 6.0, "euler", "simple", 7.0
    ),
    TemplateSettings("ltxv", "ltxv_text_to_video", "ltx-video-2b-v0.9.safetensors", 30, 3.0, "euler", "LTXVScheduler"),
    TemplateSettings("anima", "image_anima_base_v1", "anima-base-v1.0.safetensors", 30, 4.0, "euler", "simple"),
    TemplateSettings("sdxl", "sdxl_simple_example", "sd_xl_base_1.0.safetensors", 25, 8.0, "euler", "normal"),
)

DISTILLED_VARIANTS = {
    "qwen_image": "the Lightning LoRAs",
    "flux": "FLUX.1 schnell, Hyper and Turbo LoRAs",
    "flux2": "FLUX.2 klein without base, Turbo LoRAs",
    "z_image": "Z-Image Turbo",
    "hidream": "HiDream-I1 dev and fast",
    "sd3": "SD 3.5 Turbo",
    "wan": "the lightx2v LoRAs",
    "hunyuan_video": "step-distilled HunyuanVideo",
    "ltxv": "distilled LTX models and LoRAs",
    "anima": "the Turbo LoRA",
    "sdxl": "SDXL Turbo, Lightning, Hyper, LCM, DMD2",
}
"""Variants of the families that were distilled to few steps. Only the names of their files tell them apart, not their weights."""


WITHOUT_TEMPLATE = {
    "auraflow": "levels of the host's class; no template samples it",
    "zsnr": "levels of the host's class with zero terminal SNR (SDXL v-prediction such as NoobAI); no template samples it",
    "cosmos": "levels of the host's class; no template samples it",
    "cosmos_predict2": "levels of the host's class; no template samples it (Anima has one of its own)",
}
"""Families whose levels are known but whose usual settings are not, because none of those templates names a model of theirs."""

NOT_LISTED = {
    "LTX-2 and later": "the host's class has the levels of LTX-Video (`ltxv`); their templates sample with distilled models or LoRAs, at "
    "least in a second pass, so there is no one list to compare with",
    "FLUX.3": "ComfyUI 0.33.0 has no class for it; its templates call the maker's service",
}
"""What people ask for and why there is no preset of that name."""


def settings_for(preset: str) -> list[TemplateSettings]:
    """The templates of a family; none where no template samples it."""
    return [known for known in TEMPLATE_SETTINGS if known.preset == preset]
