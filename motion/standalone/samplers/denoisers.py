"""Wrappers that turn the ε prediction of an SD model into what the samplers ask for.

The noise levels follow from `sd_model.alphas_cumprod` at the moment a wrapper is made: σ = √((1 − ᾱ) / ᾱ).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from motion.standalone.sd_model import SdModel

LCM_TIMESTEPS = 50  # timesteps that latent consistency models are distilled on
LCM_SIGMA_DATA = 0.5
LCM_TIMESTEP_SCALE = 10.0


def append_zero(sigmas: torch.Tensor) -> torch.Tensor:
    """`sigmas` with the last step to σ = 0."""
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def over_latents(values: torch.Tensor) -> torch.Tensor:
    """One value per row -> b 1 1 1."""
    return values[:, None, None, None]


class DiscreteSchedule(nn.Module):
    """Map between noise levels σ and the timesteps that a model was trained on.

    Attributes:
        sigmas: rising, one per timestep, fp32.
        log_sigmas: their logarithms.
        quantize: round to whole timesteps instead of interpolating log σ.
    """

    sigmas: torch.Tensor
    log_sigmas: torch.Tensor

    def __init__(self, alphas_cumprod: torch.Tensor, quantize: bool) -> None:
        super().__init__()
        sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("log_sigmas", sigmas.log())
        self.quantize = quantize

    @property
    def sigma_min(self) -> torch.Tensor:
        """Lowest noise level."""
        return self.sigmas[0]

    @property
    def sigma_max(self) -> torch.Tensor:
        """Highest noise level."""
        return self.sigmas[-1]

    def get_sigmas(self, n: int) -> torch.Tensor:
        """`n` falling sigmas at evenly spaced timesteps, then 0."""
        timesteps = torch.linspace(len(self.sigmas) - 1, 0, n, device=self.sigmas.device)
        return append_zero(self.t_to_sigma(timesteps))

    def sigma_to_t(self, sigma: torch.Tensor) -> torch.Tensor:
        """Timestep of each σ: fractional, or int64 when quantized."""
        log_sigma = sigma.log()
        distances = log_sigma - self.log_sigmas[:, None]
        if self.quantize:
            return distances.abs().argmin(dim=0).view(sigma.shape)
        below = (distances >= 0).sum(dim=0).sub(1).clamp(min=0, max=len(self.log_sigmas) - 2)
        low, high = self.log_sigmas[below], self.log_sigmas[below + 1]
        weight = ((low - log_sigma) / (low - high)).clamp(0, 1)
        return ((1 - weight) * below + weight * (below + 1)).view(sigma.shape)

    def t_to_sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """σ of each, possibly fractional, timestep; log σ is interpolated."""
        timestep = timestep.float()
        below, above, weight = timestep.floor().long(), timestep.ceil().long(), timestep.frac()
        return ((1 - weight) * self.log_sigmas[below] + weight * self.log_sigmas[above]).exp()


class EpsDenoiser(DiscreteSchedule):
    """x at noise level σ -> the picture without noise, D(x; σ) = x − σ·ε(x / √(σ² + 1), t)."""

    def __init__(self, model: SdModel, quantize: bool = False) -> None:
        super().__init__(model.alphas_cumprod, quantize)
        self.inner_model = model

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Noisy x, b c h w, and one σ per row -> denoised, b c h w."""
        return x - over_latents(sigma) * self._eps(x, sigma, **kwargs)

    def _eps(self, x: torch.Tensor, sigma: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        scale = over_latents(1 / (sigma**2 + 1) ** 0.5)
        return self.inner_model.apply_model(x * scale, self.sigma_to_t(sigma), **kwargs)


class LcmDenoiser(EpsDenoiser):
    """Denoiser of a latent consistency model (arXiv:2310.04378), which knows every 20th timestep only."""

    def __init__(self, model: SdModel) -> None:
        skip = len(model.alphas_cumprod) // LCM_TIMESTEPS
        DiscreteSchedule.__init__(self, model.alphas_cumprod[skip - 1 :: skip].float(), quantize=False)
        self.inner_model = model
        self.skip_steps = skip

    def get_sigmas(self, n: int) -> torch.Tensor:
        """`n` falling sigmas at evenly spaced timesteps, then 0."""
        start, end = float(self.sigma_to_t(self.sigma_max)), float(self.sigma_to_t(self.sigma_min))
        return append_zero(self.t_to_sigma(torch.linspace(start, end, n, device=self.sigmas.device)))

    def sigma_to_t(self, sigma: torch.Tensor) -> torch.Tensor:
        """Nearest timestep that the model was distilled on, int64."""
        distances = sigma.log() - self.log_sigmas[:, None]
        return distances.abs().argmin(dim=0).view(sigma.shape) * self.skip_steps + (self.skip_steps - 1)

    def t_to_sigma(self, timestep: torch.Tensor) -> torch.Tensor:
        """σ of each timestep, log σ interpolated between the distilled ones."""
        index = (timestep.float() - (self.skip_steps - 1)) / self.skip_steps
        return super().t_to_sigma(index.clamp(min=0, max=len(self.sigmas) - 1))

    def forward(self, x: torch.Tensor, sigma: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Noisy x, b c h w, and one σ per row -> consistency function f(x, t), b c h w.

        The boundary scalings of consistency models (arXiv:2303.01469, appendix C) act on the x of noise level σ.
        """
        denoised = super().forward(x, sigma, **kwargs)
        timestep = over_latents(self.sigma_to_t(sigma)) * LCM_TIMESTEP_SCALE
        total = timestep**2 + LCM_SIGMA_DATA**2
        return timestep / total**0.5 * denoised + LCM_SIGMA_DATA**2 / total * x


class TimestepDenoiser(nn.Module):
    """ε prediction at whole timesteps, for the samplers that walk over timesteps."""

    def __init__(self, model: SdModel) -> None:
        super().__init__()
        self.inner_model = model

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """Noisy x, b c h w, and one timestep per row -> ε, b c h w."""
        return self.inner_model.apply_model(x, timesteps, **kwargs)
