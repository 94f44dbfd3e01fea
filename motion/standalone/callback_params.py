"""What callbacks receive; part of `modules.script_callbacks`. Fields may be replaced by a callback."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image


@dataclass(eq=False)
class ImageSaveParams:
    """An image on its way to the disk.

    Attributes:
        image: the picture.
        p: the processing object it came from, or None.
        filename: where it goes.
        pnginfo: text entries of the file; the infotext is "parameters".
    """

    image: Image.Image
    p: Any
    filename: str
    pnginfo: dict[str, Any]


@dataclass(eq=False)
class ExtraNoiseParams:
    """Noise about to be added beyond the denoising strength; all b c h w."""

    noise: torch.Tensor
    x: torch.Tensor
    xi: torch.Tensor


@dataclass(eq=False)
class CFGDenoiserParams:
    """One call of the UNet, before it.

    Attributes:
        x: latents of all rows, conds then unconds.
        image_cond: image conditioning of the same rows.
        sigma: noise level of each row.
        sampling_step: finished steps.
        total_sampling_steps: steps of this pass.
        text_cond: encoded prompts.
        text_uncond: encoded negative prompts.
        denoiser: the CFGDenoiser that is called.
    """

    x: torch.Tensor
    image_cond: torch.Tensor
    sigma: torch.Tensor
    sampling_step: int
    total_sampling_steps: int
    text_cond: Any
    text_uncond: Any
    denoiser: Any = None


@dataclass(eq=False)
class CFGDenoisedParams:
    """One call of the UNet, after it: `x` holds the predictions of all rows."""

    x: torch.Tensor
    sampling_step: int
    total_sampling_steps: int
    inner_model: Any


@dataclass(eq=False)
class AfterCFGCallbackParams:
    """The combined prediction `x`, one row per image."""

    x: torch.Tensor
    sampling_step: int
    total_sampling_steps: int


@dataclass(eq=False)
class UiTrainTabParams:
    """What the training tab offers to extensions."""

    txt2img_preview_params: Any


@dataclass(eq=False)
class ImageGridLoopParams:
    """A grid about to be made."""

    imgs: list[Image.Image]
    cols: int
    rows: int


@dataclass
class BeforeTokenCounterParams:
    """A prompt whose tokens are about to be counted."""

    prompt: str
    steps: int
    styles: list[str]
    is_positive: bool = True
