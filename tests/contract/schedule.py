"""The noise schedule that the sampler really used, against the formula it comes from."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contract.clips import init_image

STEPS = 4
DENOISING_STRENGTH = 0.6
STRENGTH = {"denoising_strength": DENOISING_STRENGTH}
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": STEPS, **STRENGTH}


def alphas_cumprod(kind: str) -> np.ndarray:
    """ᾱ of AnimateDiff's "linear" and of Stable Diffusion's "scaled_linear" schedule, float64 [1000]."""
    if kind == "linear":
        betas = np.linspace(0.00085, 0.012, 1000)
    else:
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.cumprod(1 - betas)


def sigmas(kind: str) -> np.ndarray:
    """σ = √((1 - ᾱ) / ᾱ) of every timestep."""
    kept = alphas_cumprod(kind)
    return np.sqrt((1 - kept) / kept)


def spread(table: np.ndarray, steps: int) -> np.ndarray:
    """`steps` evenly spaced places of a σ table from its end to its beginning, log σ interpolated (k-diffusion)."""
    places = np.linspace(len(table) - 1, 0, steps)
    return np.exp(np.interp(places, np.arange(len(table)), np.log(table)))


def check_steps(steps: list[dict], kind: str, sampler: str) -> None:
    """Every step of a record ran on the schedule `kind`."""
    for step in steps:
        np.testing.assert_allclose(step["alphas_cumprod"], alphas_cumprod(kind)[[0, 499, 999]], rtol=1e-4)
    used = np.array([step["sigma"] for step in steps])
    if sampler == "DDIM":
        if not np.array_equal(
            used, used.round()
        ):  # its steps are timesteps, and it reads ᾱ at them; Forge shows their σ
            assert max(np.abs(np.log(sigmas(kind) / sigma)).min() for sigma in used) < 1e-3
        return
    table = sigmas(kind)[19::20] if sampler == "LCM" else sigmas(kind)  # LCM knows 50 timesteps
    # The hires pass makes its steps by leaving out the first ones of a longer schedule.
    allowed = np.concatenate([spread(table, STEPS), spread(table, int(STEPS / DENOISING_STRENGTH))])
    assert max(np.abs(np.log(allowed / sigma)).min() for sigma in used) < 1e-3
    np.testing.assert_allclose(steps[0]["sampler_sigmas"], table[[0, -1]], rtol=1e-3)


class ScheduleContract:
    @pytest.mark.parametrize(
        ("sampler", "way"),
        [
            ("Euler", "img2img"),
            *(
                pytest.param(sampler, way, marks=pytest.mark.thorough)
                for sampler in ("Euler", "DDIM", "LCM")
                for way in ("txt2img", "img2img", "hires")
                if (sampler, way) != ("Euler", "img2img")
            ),
        ],
    )
    def test_the_sampler_reads_the_modules_schedule(self, host, sampler, way):
        fields = {"steps": STEPS, "sampler_name": sampler}
        if way == "img2img":
            host.clip_from(init_image(), frames=2, **STRENGTH, **fields)
        else:
            host.clip(frames=2, **(HIRES if way == "hires" else {}), **fields)
        steps = host.record()["steps"]
        check_steps(steps, "linear", sampler)
        assert any(step["hires"] for step in steps) == (way == "hires")
        if way == "img2img":
            host.img2img(
                init_image(), denoising_strength=0.6, sampler_name=sampler, steps=STEPS, probe={"record": True}
            )
        else:
            host.txt2img(probe={"record": True}, sampler_name=sampler, steps=STEPS)
        check_steps(host.record()["steps"], "scaled_linear", sampler)

    def test_euler_begins_at_the_modules_largest_sigma(self, host):
        host.clip(frames=2, steps=STEPS)
        used = [step["sigma"] for step in host.record()["steps"]]
        np.testing.assert_allclose(used, spread(sigmas("linear"), STEPS), rtol=1e-3)
