"""The video UNet as a function of noisy latents and a noise level, with guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from motion.models.video_unet import VideoUNet
from motion.svd.conditioning import ClipConditions
from motion.svd.guidance import guide
from motion.svd.noise_levels import VScaling


class ClipDenoiser:
    """Predicts the clean latents of one clip.

    The conditioned and the unconditioned prediction are computed one after the other: at a clip's size a device is busy
    with one of them, and the memory of both is not needed at once. Where no frame is guided there is only one.

    Args:
        unet: the UNet, on the latents' device.
        conditions: of the clip.
        scales: guidance scale of each frame, `f`.
    """

    def __init__(self, unet: VideoUNet, conditions: ClipConditions, scales: Tensor) -> None:
        self._unet = unet
        self._conditions = conditions
        self._unconditional = conditions.unconditional()
        self._scales = scales
        self._is_guided = bool((scales != 1).any())

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Clean latents of noisy ones, `f c h w`, at a level σ > 0."""
        scaling = VScaling.at(sigma)
        scaled = x * scaling.c_in
        timesteps = scaling.c_noise.to(x.device).expand(len(x))
        velocity = self._predict(scaled, timesteps, self._conditions)
        if self._is_guided:
            velocity = guide(self._predict(scaled, timesteps, self._unconditional), velocity, self._scales)
        return scaling.c_skip * x + scaling.c_out * velocity

    def _predict(self, scaled: Tensor, timesteps: Tensor, conditions: ClipConditions) -> Tensor:
        num_frames = len(scaled)
        joined = torch.cat([scaled, conditions.latents.expand(num_frames, -1, -1, -1)], dim=1)
        context = conditions.embedding.expand(num_frames, -1, -1)
        vector = conditions.vector.expand(num_frames, -1)
        velocity: Tensor = self._unet(joined, timesteps, context, vector, num_frames)
        return velocity
