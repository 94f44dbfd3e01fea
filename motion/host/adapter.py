"""What the extension needs of a web UI for one request: the core's `ModelHost`, and what only hooks know of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from motion.protocols import ModelHost


class HostAdapter(ModelHost, Protocol):
    """One request in one kind of web UI, from the hook `process` on: before it, the model may still change.

    Attributes:
        guides_by_prompt_weights: guidance multiplies by the weight of each picture's prompt, which may differ.
        frames_decoded_at_once: frames to hand to `decode` where the request doesn't say how many.
    """

    guides_by_prompt_weights: bool
    frames_decoded_at_once: int

    def base(self) -> str:
        """Family of the checkpoint that is loaded now: "sd15", "sd2" or "sdxl", as `MotionFamily.base` names them.

        A network that motion modules don't exist for is called what the web UI calls it.
        """
        ...

    def alphas_cumprod(self) -> Tensor:
        """ᾱ of every timestep, as this request is sampled now: [timesteps]."""
        ...

    def begin_pass(self, lcm_original_steps: int | None) -> None:
        """Sampling of a pass is about to begin (`process_before_every_sampling`); some hosts say so twice.

        Args:
            lcm_original_steps: timesteps of the training that LCM's steps are chosen from; None leaves the host's.
        """
        ...

    def frame_guidance(self, ratios: Sequence[float]) -> AbstractContextManager[None]:
        """While in the context, guide frame i by `ratios[i]` times the request's CFG scale.

        Nothing to do where `guides_by_prompt_weights`.

        Raises:
            SettingsError: this web UI can't, with this CFG scale.
        """
        ...

    def begin_step(self, num_cond_rows: int, num_rows: int) -> None:
        """A denoiser step begins (`on_cfg_denoiser`), with so many rows of conds and of all."""
        ...

    def decode(self, latents: Tensor) -> Sequence[Tensor]:
        """Latents `f c h w` -> pictures, each `3 H W` about [-1, 1], on the CPU, as this web UI makes them."""
        ...

    def decoder_room(self) -> int | None:
        """Bytes that decoding may take; None where the device or the web UI says by itself when it was too much."""
        ...

    def sampling_failed(self) -> None:
        """`p.sample` is raising: put back what this web UI changes before it and restores only after a return."""
        ...


def set_lcm_steps(sampler: Any, alphas_cumprod: Tensor, original_steps: int) -> None:
    """Make `sampler`, where it is LCM, choose from `original_steps` of the training's timesteps.

    Web UIs know the 50 of LCM's first models only. A sampler lives for one pass, so nothing has to be put back.

    Args:
        sampler: the web UI's sampler object.
        alphas_cumprod: ᾱ of every timestep, as this pass samples it.
        original_steps: such as 100 for AnimateLCM.
    """
    denoiser: Any = getattr(getattr(sampler, "model_wrap_cfg", None), "inner_model", None)
    if not hasattr(denoiser, "skip_steps"):
        return
    denoiser.skip_steps = len(alphas_cumprod) // original_steps
    valid = alphas_cumprod[denoiser.skip_steps - 1 :: denoiser.skip_steps]
    sigmas = ((1 - valid) / valid).sqrt().to(denoiser.sigmas)
    denoiser.sigmas, denoiser.log_sigmas = sigmas, sigmas.log()
