"""The UNet of Stable Video Diffusion in sgm's layout: keys of `model.diffusion_model.*` load as they are."""

from __future__ import annotations

from torch import Tensor

from motion.models.unet import UNetConfig, UNetModel
from motion.models.video_blocks import VideoResBlock, VideoTransformer
from motion.models.video_rows import VideoRows

SVD_CONFIG = UNetConfig(in_channels=8, num_head_channels=64, context_dim=1024, use_linear=True, adm_in_channels=768)
"""Shape of the public weights: svd, svd_xt, svd_xt_1_1."""


class VideoUNet(UNetModel):
    """Predicts v of all frames of a clip at once, from noisy latents beside those of the picture that is animated."""

    def res_block(self, in_channels: int, out_channels: int) -> VideoResBlock:
        """A residual block over pixels and frames."""
        return VideoResBlock(in_channels, out_channels, self.embedding_channels)

    def transformer(self, channels: int, depth: int) -> VideoTransformer:
        """A transformer over pixels and frames."""
        return VideoTransformer(*self.transformer_shape(channels, depth))

    # Wider than the image UNet's on purpose: what calls this one knows its clips.
    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor,
        num_frames: int,
        stills: Tensor | None = None,
    ) -> Tensor:
        """Predict v.

        Args:
            x: noisy latents times c_in beside the picture's latents, `(b f) in_channels h w`, any floating dtype.
            timesteps: `(b f)`, a quarter of ln σ.
            context: the picture's embedding `(b f) m context_dim`; temporal layers take that of a clip's first frame.
            y: embedded frame rate, motion and noise, `(b f) adm_in_channels`.
            num_frames: f.
            stills: bool `b f` or `(b f)`, true for rows that are pictures of their own; None where there are none.

        Returns:
            `(b f) out_channels h w`, in `x`'s dtype; inside, the weights' dtype is used.

        Raises:
            ValueError: rows that are no whole number of clips.
        """
        if num_frames < 1 or len(x) % num_frames:
            raise ValueError(
                f"The rows must be whole clips of {num_frames} frames, got {len(x)} rows. Pass all frames of a clip."
            )
        rows = VideoRows(num_frames, None if stills is None else stills.reshape(-1).bool())
        return self._run_blocks(x, self._embed(timesteps, y), context, rows)
