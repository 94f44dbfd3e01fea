from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler

from motion.standalone.samplers.denoisers import EpsDenoiser, LcmDenoiser
from motion.standalone.samplers.schedulers import schedulers_map
from tests.standalone.samplers.closed_form import GaussianModel

pytestmark = pytest.mark.usefixtures("host")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def sigmas_of(label, n, denoiser):
    scheduler = schedulers_map[label]
    limits = {"sigma_min": denoiser.sigmas[0].item(), "sigma_max": denoiser.sigmas[-1].item()}
    inner = {"inner_model": denoiser} if scheduler.need_inner_model else {}
    return scheduler.function(n=n, **limits, **inner, device=torch.device("cpu"))


def test_noise_levels_follow_from_the_betas():
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    expected = ((1 - alphas) / alphas) ** 0.5
    sigmas = EpsDenoiser(GaussianModel()).sigmas
    np.testing.assert_allclose(sigmas, expected, rtol=2e-5)
    assert sigmas[0].item() == pytest.approx(0.0292, abs=1e-4)
    assert sigmas[-1].item() == pytest.approx(14.6146, abs=1e-3)


def test_noise_levels_are_read_when_the_denoiser_is_made():
    model = GaussianModel()
    before = EpsDenoiser(model)
    model.alphas_cumprod = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), 0).float()
    assert before.sigma_max.item() == pytest.approx(14.6146, abs=1e-3)
    assert EpsDenoiser(model).sigma_max.item() == pytest.approx(25.146, abs=1e-3)


def test_timesteps_and_noise_levels_are_inverse():
    denoiser = EpsDenoiser(GaussianModel())
    timesteps = torch.tensor([0.0, 0.25, 17.0, 500.5, 998.75, 999.0])
    torch.testing.assert_close(denoiser.sigma_to_t(denoiser.t_to_sigma(timesteps)), timesteps, rtol=0, atol=5e-3)


def test_levels_outside_the_schedule_take_its_ends():
    denoiser = EpsDenoiser(GaussianModel())
    assert denoiser.sigma_to_t(torch.tensor([0.001, 100.0])).tolist() == [0.0, 999.0]


def test_quantized_timesteps_are_whole():
    denoiser = EpsDenoiser(GaussianModel(), quantize=True)
    timesteps = denoiser.sigma_to_t(denoiser.t_to_sigma(torch.tensor([500.4, 500.6])))
    assert timesteps.tolist() == [500, 501]
    assert timesteps.dtype == torch.int64


# 9 divides 999: both take whole timesteps, between which they interpolate differently
@pytest.mark.parametrize(("label", "options"), [("Uniform", {}), ("Karras", {"use_karras_sigmas": True})])
def test_schedules_equal_diffusers(label, options):
    theirs = EulerDiscreteScheduler(**SD, timestep_spacing="linspace", **options)
    theirs.set_timesteps(10)
    torch.testing.assert_close(sigmas_of(label, 10, EpsDenoiser(GaussianModel())), theirs.sigmas, rtol=2e-5, atol=0)


def test_exponential_schedule_has_equal_ratios():
    sigmas = sigmas_of("Exponential", 6, EpsDenoiser(GaussianModel()))
    ratios = sigmas[1:6] / sigmas[:5]
    torch.testing.assert_close(ratios, ratios[:1].expand(5))


@pytest.mark.parametrize("label", ["Uniform", "Karras", "Exponential", "SGM Uniform"])
@pytest.mark.parametrize("denoiser_class", [EpsDenoiser, LcmDenoiser])
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_schedules_fall_from_the_highest_level_to_zero(label, denoiser_class, n):
    denoiser = denoiser_class(GaussianModel())
    sigmas = sigmas_of(label, n, denoiser)
    assert sigmas.shape == (n + 1,)
    assert sigmas[0].item() == pytest.approx(denoiser.sigma_max.item(), rel=1e-5)
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


def test_sgm_uniform_stops_one_step_above_the_lowest():
    denoiser = EpsDenoiser(GaussianModel())
    timesteps = denoiser.sigma_to_t(sigmas_of("SGM Uniform", 9, denoiser)[:-1])
    torch.testing.assert_close(timesteps, torch.arange(999.0, 0.0, -111.0), rtol=0, atol=5e-3)


def test_lcm_knows_every_twentieth_timestep():
    model = GaussianModel()
    denoiser = LcmDenoiser(model)
    assert denoiser.sigma_to_t(denoiser.sigmas).tolist() == list(range(19, 1000, 20))
    torch.testing.assert_close(denoiser.sigmas, EpsDenoiser(model).sigmas[19::20])
    denoiser(
        torch.randn(1, 4, 2, 2), torch.tensor([7.0]), cond={"c_crossattn": [torch.zeros(1, 1, 2)], "c_concat": [0]}
    )
    assert model.calls[-1].t.item() % 20 == 19
