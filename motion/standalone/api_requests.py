"""What the API's requests and answers hold, under A1111's names."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from motion.errors import SettingsError

_NOT_FOR_PROCESSING = (
    "sampler_index",
    "script_name",
    "script_args",
    "send_images",
    "save_images",
    "alwayson_scripts",
    "infotext",
    "init_images",
    "include_init_images",
    "mask",
)


class GenerationRequest(BaseModel):
    """Fields that both tabs have; null means what leaving the field out means."""

    prompt: str | None = ""
    negative_prompt: str | None = ""
    styles: list[str] | None = None
    seed: int | None = -1
    subseed: int | None = -1
    subseed_strength: float | None = 0
    seed_resize_from_h: int | None = -1
    seed_resize_from_w: int | None = -1
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int | None = Field(default=1, ge=1)
    n_iter: int | None = Field(default=1, ge=1)
    steps: int | None = Field(default=50, ge=1)
    cfg_scale: float | None = 7.0
    width: int | None = Field(default=512, ge=8, multiple_of=8)
    height: int | None = Field(default=512, ge=8, multiple_of=8)
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool | None = False
    do_not_save_grid: bool | None = False
    eta: float | None = None
    denoising_strength: float | None = Field(default=None, ge=0, le=1)
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool | None = False
    sampler_index: str | None = "Euler"
    script_name: str | None = None
    script_args: list[Any] | None = []
    send_images: bool | None = True
    save_images: bool | None = False
    alwayson_scripts: dict[str, Any] | None = {}
    force_task_id: str | None = None
    infotext: str | None = Field(default=None, description="Not supported: leave it out or empty.")

    def processing_arguments(self) -> dict[str, Any]:
        """Arguments of the tab's processing class: what the request sets, and this API's defaults.

        Raises:
            SettingsError: `infotext` is given.
        """
        if self.infotext:
            raise SettingsError(
                f"`infotext` is not supported here, got {self.infotext!r:.80}. Set the request's other fields instead."
            )
        given = self.model_dump(exclude=set(_NOT_FOR_PROCESSING), exclude_none=True)
        return {
            **given,
            "sampler_name": self.sampler_name or self.sampler_index,
            "do_not_save_samples": not self.save_images,
            "do_not_save_grid": not self.save_images,
        }


class Txt2ImgRequest(GenerationRequest):
    """POST /sdapi/v1/txt2img."""

    enable_hr: bool | None = False
    firstphase_width: int | None = 0
    firstphase_height: int | None = 0
    hr_scale: float | None = Field(default=2.0, ge=1)
    hr_upscaler: str | None = None
    hr_second_pass_steps: int | None = Field(default=0, ge=0)
    hr_resize_x: int | None = Field(default=0, ge=0)
    hr_resize_y: int | None = Field(default=0, ge=0)
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = ""
    hr_negative_prompt: str | None = ""


class Img2ImgRequest(GenerationRequest):
    """POST /sdapi/v1/img2img; pictures are base64, with or without a data URL's head."""

    init_images: list[str] | None = None
    resize_mode: int | None = Field(default=0, ge=0, le=3)
    denoising_strength: float | None = Field(default=0.75, ge=0, le=1)
    image_cfg_scale: float | None = None
    mask: str | None = None
    mask_blur_x: int | None = Field(default=4, ge=0)
    mask_blur_y: int | None = Field(default=4, ge=0)
    mask_blur: int | None = Field(default=None, ge=0)
    mask_round: bool | None = True
    inpainting_fill: int | None = Field(default=0, ge=0, le=3)
    inpaint_full_res: bool | None = True
    inpaint_full_res_padding: int | None = 0
    inpainting_mask_invert: int | None = 0
    initial_noise_multiplier: float | None = None
    include_init_images: bool | None = False


class GenerationResponse(BaseModel):
    """Images as base64; what scripts add as text passes through."""

    images: list[str] | None = Field(default=None, description="The generated images in base64 format.")
    parameters: dict[str, Any]
    info: str


class ProgressResponse(BaseModel):
    """GET /sdapi/v1/progress."""

    progress: float = Field(description="The progress with a range of 0 to 1")
    eta_relative: float = Field(description="ETA in seconds")
    state: dict[str, Any] = Field(description="The current state snapshot")
    current_image: str | None = Field(default=None, description="This host draws no previews.")
    textinfo: str | None = None
