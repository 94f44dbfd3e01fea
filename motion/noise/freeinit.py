"""FreeInit (arXiv:2312.07537): a clip is sampled again from noise whose low frequencies come from its last try.

Training clips at the last timestep aren't pure noise: slow and large things shine through, and a clip that starts from
pure noise misses them, which shows as flicker. So the finished latents are noised back to the last timestep, and the
next iteration starts from the low frequencies of that, over time and space, and from the high ones of fresh noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from motion.noise.frequencies import low_pass, mixed
from motion.settings import MotionSettings


def diffused(samples: Tensor, noise: Tensor, alpha_cumprod: float) -> Tensor:
    """Clean latents noised to the timestep whose ᾱ is `alpha_cumprod`."""
    noised: Tensor = samples * alpha_cumprod**0.5 + noise * (1 - alpha_cumprod) ** 0.5
    return noised


def start_sigma(x: Tensor, picture: Tensor, noise: Tensor) -> float:
    """σ at which sampling from a picture began, told by where it began.

    Web UIs choose it by rules of their own, which differ between samplers. Whatever they are, the start is a · picture
    + s · noise, and σ = s / a; a and s are found by least squares.

    Args:
        x: f c h w, the latents of the first step.
        picture: f c h w, the clean latents that it started from.
        noise: f c h w, the unit noise that was added.

    Raises:
        ValueError: `x` isn't made of the picture and the noise.
    """
    columns = torch.stack([picture.flatten(), noise.flatten()], dim=1).double().cpu()
    target = x.flatten().double().cpu()
    if not picture.any():  # nothing says what it counts
        return _positive(float(torch.linalg.lstsq(columns[:, 1:], target[:, None]).solution[0]))
    scale, added = torch.linalg.lstsq(columns, target[:, None]).solution.flatten().tolist()
    return _positive(added / scale if scale > 0 else float("nan"))


def _positive(sigma: float) -> float:
    if not sigma > 0:
        raise ValueError(f"Sampling must start from the picture and noise, got a noise level of {sigma}.")
    return sigma


@dataclass(frozen=True)
class FreeInit:
    """What a request asks for.

    Attributes:
        iterations: how often the clip is sampled; 1 is as without FreeInit.
        kind: filter, as `low_pass` names them.
        d_s: where the filter stops along height and width, above 0 up to 1.
        d_t: where it stops along the frames.
        order: steepness of the filter "butterworth".
        coarse_to_fine: sample the early iterations in fewer steps.
    """

    iterations: int
    kind: str
    d_s: float
    d_t: float
    order: int
    coarse_to_fine: bool

    @classmethod
    def of(cls, settings: MotionSettings) -> FreeInit | None:
        """What `settings` ask for; None where the clip is sampled once."""
        if settings.freeinit_iterations == 1:
            return None
        return cls(
            settings.freeinit_iterations,
            settings.freeinit_filter,
            settings.freeinit_d_s,
            settings.freeinit_d_t,
            settings.freeinit_order,
            settings.freeinit_coarse_to_fine,
        )

    def steps(self, iteration: int, steps: int) -> int:
        """Steps of iteration `iteration`, counted from 0, of a request for `steps`; the last one has all of them."""
        if not self.coarse_to_fine:
            return steps
        return max(1, steps * (iteration + 1) // self.iterations)

    def next_noise(self, samples: Tensor, first: Tensor, fresh: Tensor, alpha_cumprod: float) -> Tensor:
        """Noise that the next iteration starts from, like `first`.

        Filters are computed on the CPU in fp32: latents are small, and not every device has Fourier transforms.

        Args:
            samples: f c h w, what the last iteration has made.
            first: f c h w, unit noise that the first iteration started from.
            fresh: f c h w, unit noise that no iteration has seen.
            alpha_cumprod: ᾱ of the last timestep.
        """
        return self._mixed(diffused(_plain(samples), _plain(first), alpha_cumprod), fresh, like=first)

    def next_noise_on_picture(
        self, samples: Tensor, first: Tensor, fresh: Tensor, picture: Tensor, sigma: float
    ) -> Tensor:
        """The same where sampling starts from a picture at the noise level `sigma`, which the paper has no word on.

        Picture and noise together are the start. So of the low frequencies, the noise has to bring what leads from the
        picture to the samples, noised to that level.

        Args:
            samples: as in `next_noise`.
            first: as in `next_noise`.
            fresh: as in `next_noise`.
            picture: f c h w, clean latents of the start.
            sigma: σ of the start.
        """
        low = (_plain(samples) - _plain(picture)) / sigma + _plain(first)
        return self._mixed(low, fresh, like=first)

    def _mixed(self, low: Tensor, fresh: Tensor, *, like: Tensor) -> Tensor:
        frames, _, height, width = low.shape
        mask = low_pass(self.kind, (frames, height, width), d_s=self.d_s, d_t=self.d_t, order=self.order)
        return mixed(low, _plain(fresh), mask).to(like)


def _plain(latents: Tensor) -> Tensor:
    return latents.float().cpu()
