"""Pictures of a run's present state: a plain DDIM sampler, decoded and laid out on a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from einops import repeat
from PIL import Image
from torch import Tensor, nn

from motion.injection.beta_schedule import alphas_cumprod
from motion.models.autoencoder import AutoencoderKL
from motion.protocols import BetaSchedule
from motion.training.denoising import Contexts
from motion.training.latent_bank import decode_latents
from motion.video import contact_sheet

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preview:
    """What a sample sheet shows.

    Attributes:
        captions: one row each; the empty caption must be known to the contexts too.
        num_frames: frames of a clip; 1 for stills, which then share rows.
        size: (height, width) of the latents.
        schedule: noise schedule.
        steps: of the sampler.
        guidance_scale: of classifier-free guidance.
        columns: frames shown of each clip.
        seed: of the noise.
    """

    captions: tuple[str, ...]
    num_frames: int
    size: tuple[int, int]
    schedule: BetaSchedule
    steps: int = 20
    guidance_scale: float = 5.0
    columns: int = 8
    seed: int = 0


@torch.no_grad()
def sample_latents(unet: nn.Module, contexts: Contexts, preview: Preview, captions: Sequence[str]) -> Tensor:
    """Latents `(b f) 4 h w` of one clip per caption: DDIM with η = 0 (arXiv:2010.02502, eq. 12)."""
    device = next(unet.parameters()).device
    frames, count = preview.num_frames, len(captions)
    generator = torch.Generator().manual_seed(preview.seed)
    x = torch.randn(count * frames, 4, *preview.size, generator=generator).to(device)
    rows = contexts.contexts([*captions, *[""] * count]).to(device)
    context = repeat(rows, "b n d -> (b f) n d", f=frames)
    alphas = alphas_cumprod(preview.schedule).to(device)
    timesteps = torch.linspace(len(alphas) - 1, 0, preview.steps + 1).round().long()[:-1]
    following = [*timesteps[1:].tolist(), -1]
    for timestep, after in zip(timesteps.tolist(), following, strict=True):
        both = torch.full((2 * len(x),), timestep, device=device)
        conditional, unconditional = unet(torch.cat([x, x]), both, context).chunk(2)
        noise = unconditional + preview.guidance_scale * (conditional - unconditional)
        alpha = alphas[timestep]
        alpha_after = alphas[after] if after >= 0 else torch.ones_like(alpha)
        clean = (x - (1 - alpha).sqrt() * noise) / alpha.sqrt()
        x = alpha_after.sqrt() * clean + (1 - alpha_after).sqrt() * noise
    return x


def draw_sheet(
    unet: nn.Module, contexts: Contexts, autoencoder: AutoencoderKL, preview: Preview, scale_factor: float
) -> Image.Image:
    """The preview's clips, a few frames of each in a row; stills fill the rows."""
    shown: list[Frames] = []
    for caption in preview.captions:  # one at a time: a sheet must not need more memory than a training step
        latents = sample_latents(unet, contexts, preview, [caption])
        frames = decode_latents(autoencoder, latents, scale_factor)
        chosen = np.linspace(0, len(frames) - 1, min(preview.columns, len(frames))).round().astype(int)
        shown.extend(frames[index] for index in chosen)
    return contact_sheet(shown, columns=preview.columns)
