"""Models whose answer is known in closed form, and requests for them."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn

from motion.injection.beta_schedule import alphas_cumprod
from motion.standalone import rng
from motion.standalone.sd_model import SD_BETA_SCHEDULE
from motion.standalone.text import prompt_parser

MEAN, STD = 0.3, 0.5
TOKENS_A_CHUNK = 77


class GaussianModel(nn.Module):
    """ε of pictures whose values are independent N(MEAN, STD²), and a record of every call.

    A prompt's tokens all hold its length, so that a call shows which prompt is in which row; every 10 words make one
    chunk of 77 tokens. The text does not change the prediction unless `text_shift` is set.
    """

    parameterization = "eps"
    is_sdxl = False

    def __init__(self, text_shift: float = 0.0) -> None:
        super().__init__()
        self.model = SimpleNamespace(conditioning_key="crossattn")
        self.alphas_cumprod = self.alphas_cumprod_original = alphas_cumprod(SD_BETA_SCHEDULE)
        self.device = torch.device("cpu")
        self.text_shift = text_shift
        self.cond_stage_model_empty_prompt = self.get_learned_conditioning([""])
        self.calls: list[SimpleNamespace] = []

    def get_learned_conditioning(self, prompts):
        chunks = max(1, *(-(-len(prompt.split()) // 10) for prompt in prompts)) if prompts else 1
        values = torch.tensor([float(len(prompt)) for prompt in prompts])
        return values[:, None, None].expand(len(prompts), chunks * TOKENS_A_CHUNK, 2).clone()

    def apply_model(self, x, t, cond):
        (context,), (image_cond,) = cond["c_crossattn"], cond["c_concat"]
        self.calls.append(SimpleNamespace(x=x.clone(), t=t.clone(), context=context.clone(), image_cond=image_cond))
        sigma = self.sigma(t)[:, None, None, None]
        noisy = x * (sigma**2 + 1).sqrt()
        mean = MEAN + self.text_shift * context[:, 0, 0].view(-1, 1, 1, 1)
        denoised = (STD**2 * noisy + sigma**2 * mean) / (STD**2 + sigma**2)
        return (noisy - denoised) / sigma

    def sigma(self, t):
        """σ of fractional timesteps, log σ interpolated; as trained, whatever schedule a sampler is told."""
        alphas = self.alphas_cumprod_original
        log_sigmas = (((1 - alphas) / alphas) ** 0.5).log()
        below = t.double().floor().long()
        above = (below + 1).clamp(max=len(log_sigmas) - 1)
        return torch.lerp(log_sigmas[below], log_sigmas[above], (t - below).float()).exp()


class ConsistentModel(GaussianModel):
    """The same pictures, but ε points from x straight to where the probability-flow ODE ends."""

    def apply_model(self, x, t, cond):
        super().apply_model(x, t, cond)
        sigma = self.sigma(t)[:, None, None, None]
        noisy = x * (sigma**2 + 1).sqrt()
        return (noisy - ode_end(noisy, sigma)) / sigma


def ode_end(x, sigma):
    """Where the probability-flow ODE of N(MEAN, STD²) leads from x at noise level σ."""
    return MEAN + STD * (x - MEAN) / (STD**2 + sigma**2) ** 0.5


def request(model, prompts=("a",), negative_prompts=None, *, shape=(4, 8, 8), seeds=None, **changes):
    """What a sampler reads of a processing object, with the conds of `prompts` as `p.c` and `p.uc`."""
    negative_prompts = negative_prompts or ["" for _ in prompts]
    fields = {
        "steps": 10,
        "cfg_scale": 1.0,
        "eta": None,
        "s_churn": None,
        "s_tmin": None,
        "s_tmax": None,
        "s_noise": None,
        "s_min_uncond": 0.0,
        "scheduler": "Automatic",
        "is_hr_pass": False,
        "sampler_noise_scheduler_override": None,
        "denoising_strength": 0.6,
        "extra_generation_params": {},
        "scripts": None,
        "mask": None,
        "nmask": None,
        **changes,
    }
    p = SimpleNamespace(**fields)
    p.rng = rng.ImageRNG(shape, seeds or list(range(len(prompts))))
    p.c = prompt_parser.get_multicond_learned_conditioning(model, list(prompts), p.steps)
    p.uc = prompt_parser.get_learned_conditioning(model, list(negative_prompts), p.steps)
    return p


def image_cond(p):
    return torch.zeros(len(p.rng.seeds), 5, 1, 1)


def sample(sampler, p, x=None):
    """txt2img of a request."""
    x = p.rng.next() if x is None else x
    return sampler.sample(p, x, p.c, p.uc, image_conditioning=image_cond(p))


def sample_img2img(sampler, p, latents, steps=None):
    return sampler.sample_img2img(p, latents, p.rng.next(), p.c, p.uc, steps=steps, image_conditioning=image_cond(p))
