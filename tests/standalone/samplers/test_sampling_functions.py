"""The loops against closed forms and against diffusers, through the samplers that run them."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)

from motion.standalone import samplers
from motion.standalone.samplers.denoisers import EpsDenoiser, LcmDenoiser
from motion.standalone.samplers.sampling_functions import ancestral_split
from tests.standalone.samplers.closed_form import (
    MEAN,
    STD,
    ConsistentModel,
    GaussianModel,
    ode_end,
    request,
    sample,
    sample_img2img,
)

pytestmark = pytest.mark.usefixtures("host")
SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.parametrize(
    ("name", "steps", "tolerance"), [("Euler", 400, 0.02), ("DPM++ 2M", 60, 0.005), ("DDIM", 250, 0.02)]
)
def test_ode_samplers_reach_the_end_of_the_ode(name, steps, tolerance):
    model = GaussianModel()
    p = request(model, steps=steps)
    x = p.rng.next()
    sampler = samplers.create_sampler(name, model)
    result = sample(sampler, p, x)
    sigma_max = EpsDenoiser(model).sigma_max
    # DDIM starts from x itself, which lies at noise level σ on the scale √(σ² + 1).
    start = x * ((sigma_max**2 + 1) ** 0.5 if name == "DDIM" else sigma_max)
    assert (result - ode_end(start, sigma_max)).abs().max() < tolerance


@pytest.mark.parametrize("steps", [1, 4])
def test_lcm_ends_where_the_consistency_function_points(steps):
    model = ConsistentModel()
    p = request(model, steps=steps, shape=(4, 64, 64))
    result = sample(samplers.create_sampler("LCM", model), p)
    assert result.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert result.std().item() == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize(("name", "changes"), [("Euler a", {}), ("DDIM", {"eta": 1.0}), ("Euler", {"s_churn": 20.0})])
def test_stochastic_samplers_draw_from_the_data(name, changes):
    model = GaussianModel()
    p = request(model, steps=100, shape=(4, 64, 64), **changes)
    result = sample(samplers.create_sampler(name, model), p)
    assert result.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert result.std().item() == pytest.approx(STD, abs=0.05)  # 100 steps are a little narrow


def test_more_steps_come_closer():
    model, errors = GaussianModel(), []
    for steps in (10, 20, 40):
        p = request(model, steps=steps)
        x = p.rng.next()
        result = sample(samplers.create_sampler("Euler", model), p, x)
        sigma_max = EpsDenoiser(model).sigma_max
        errors.append((result - ode_end(x * sigma_max, sigma_max)).abs().max().item())
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


def run_diffusers(scheduler, model, x, *, steps_left_out=0, **step_arguments):
    """diffusers' loop on the same model; x at the first noise level, on the scheduler's own scale."""
    timesteps = scheduler.timesteps[: len(scheduler.timesteps) - steps_left_out]
    for timestep in timesteps:
        scaled = scheduler.scale_model_input(x, timestep)
        cond = {"c_crossattn": [torch.zeros(len(x), 1, 2)], "c_concat": [0]}
        eps = model.apply_model(scaled, timestep.expand(len(x)).float(), cond)
        x = scheduler.step(eps, timestep, x, **step_arguments).prev_sample
    return x


def test_euler_equals_diffusers():
    model = GaussianModel()
    p = request(model, steps=10)
    x = p.rng.next()
    theirs = EulerDiscreteScheduler(**SD, timestep_spacing="linspace")
    theirs.set_timesteps(10)
    expected = run_diffusers(theirs, model, x * theirs.sigmas[0])
    torch.testing.assert_close(sample(samplers.create_sampler("Euler", model), p, x), expected, rtol=0, atol=1e-4)


def test_dpmpp_2m_karras_equals_diffusers():
    model = GaussianModel()
    p = request(model, steps=10, scheduler="Karras")
    x = p.rng.next()
    theirs = DPMSolverMultistepScheduler(
        **SD, use_karras_sigmas=True, final_sigmas_type="zero", timestep_spacing="linspace"
    )
    theirs.set_timesteps(10)
    # diffusers rounds timesteps; the fractional ones of its own sigmas keep the model's answer the same
    denoiser = EpsDenoiser(model)
    fractional = denoiser.sigma_to_t(theirs.sigmas[:-1])
    theirs_x = x * theirs.sigmas[0] / (theirs.sigmas[0] ** 2 + 1) ** 0.5
    for index, timestep in enumerate(fractional):
        cond = {"c_crossattn": [torch.zeros(1, 1, 2)], "c_concat": [0]}
        eps = model.apply_model(theirs_x, timestep.expand(1), cond)
        theirs_x = theirs.step(eps, theirs.timesteps[index], theirs_x).prev_sample
    torch.testing.assert_close(sample(samplers.create_sampler("DPM++ 2M", model), p, x), theirs_x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.8])
def test_ddim_equals_diffusers_but_for_its_last_step(eta):
    model = GaussianModel()
    p = request(model, steps=10, eta=eta, seeds=[3])
    x = p.rng.next()
    theirs = DDIMScheduler(**SD, timestep_spacing="leading", steps_offset=1, set_alpha_to_one=False, clip_sample=False)
    theirs.set_timesteps(10)
    noise = request(model, seeds=[3]).rng
    noise.next()
    expected = x
    for timestep in theirs.timesteps[:-1]:
        cond = {"c_crossattn": [torch.zeros(1, 1, 2)], "c_concat": [0]}
        eps = model.apply_model(expected, timestep.expand(1).float(), cond)
        variance_noise = noise.next() if eta else None
        expected = theirs.step(eps, timestep, expected, eta=eta, variance_noise=variance_noise).prev_sample
    torch.testing.assert_close(sample(samplers.create_sampler("DDIM", model), p, x), expected, rtol=0, atol=1e-4)


def test_euler_a_equals_diffusers(monkeypatch):
    model = GaussianModel()
    p = request(model, steps=10, seeds=[5])
    x = p.rng.next()
    theirs = EulerAncestralDiscreteScheduler(**SD, timestep_spacing="linspace")
    theirs.set_timesteps(10)
    noise = request(model, seeds=[5]).rng
    noise.next()
    module = "diffusers.schedulers.scheduling_euler_ancestral_discrete.randn_tensor"
    monkeypatch.setattr(module, lambda *args, **kwargs: noise.next())
    expected = run_diffusers(theirs, model, x * theirs.sigmas[0])
    torch.testing.assert_close(sample(samplers.create_sampler("Euler a", model), p, x), expected, rtol=0, atol=1e-4)


def test_lcm_equals_diffusers(monkeypatch):
    model = GaussianModel()
    # 8 steps fall on timesteps that the model was distilled on; others are rounded to these.
    p = request(model, steps=8, seeds=[5])
    x = p.rng.next()
    timesteps = list(range(999, 0, -140))
    theirs = LCMScheduler(**SD, original_inference_steps=50, clip_sample=False)
    theirs.set_timesteps(timesteps=timesteps)
    noise = request(model, seeds=[5]).rng
    noise.next()
    module = "diffusers.schedulers.scheduling_lcm.randn_tensor"
    monkeypatch.setattr(module, lambda *args, **kwargs: noise.next())
    sigma_max = LcmDenoiser(model).sigma_max
    expected = run_diffusers(theirs, model, x * sigma_max / (sigma_max**2 + 1) ** 0.5)
    result = sample(samplers.create_sampler("LCM", model), p, x)
    assert [round(call.t[0].item()) for call in model.calls[-8:]] == timesteps
    # The boundary scalings act on x of different scales there and here: 7e-6 of it.
    torch.testing.assert_close(result, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ancestral_split_keeps_the_noise_level(eta):
    down, up = ancestral_split(torch.tensor(5.0), torch.tensor(3.0), eta)
    assert (down**2 + up**2).item() == pytest.approx(9.0)
    assert (up > 0) == (eta > 0)


@pytest.mark.parametrize("name", ["Euler", "DPM++ 2M", "DDIM", "LCM", "Euler a"])
def test_img2img_starts_at_the_strength_s_noise_level(name):
    model = GaussianModel()
    p = request(model, steps=20, denoising_strength=0.5)
    latents = torch.full((1, 4, 8, 8), 10.0)
    sample_img2img(samplers.create_sampler(name, model), p, latents)
    timesteps = [call.t[0].item() for call in model.calls]
    if name == "DDIM":
        assert timesteps == [float(t) for t in range(451, 1, -50)]
        start = model.alphas_cumprod[501].item()
        scaled = model.calls[0].x.mean().item()
        assert scaled == pytest.approx(10.0 * start**0.5, abs=0.2)
    else:
        assert len(timesteps) == 11
        schedule = samplers.create_sampler(name, model).get_sigmas(p, 20)
        assert model.sigma(model.calls[0].t)[0].item() == pytest.approx(schedule[9].item(), rel=0.08)


def test_img2img_with_given_steps_does_them_all():
    model = GaussianModel()
    p = request(model, steps=20, denoising_strength=0.5)
    sample_img2img(samplers.create_sampler("Euler", model), p, torch.zeros(1, 4, 8, 8), steps=6)
    assert len(model.calls) == 6
    assert model.calls[0].t[0].item() == pytest.approx(999 * 5 / 11, abs=1)


def test_img2img_without_strength_keeps_the_picture():
    model = GaussianModel()
    latents = torch.randn(1, 4, 8, 8)
    p = request(model, steps=20, denoising_strength=0.0)
    result = sample_img2img(samplers.create_sampler("DDIM", model), p, latents)
    # DDIM's lowest level keeps 4 % of noise, as in the web UI.
    assert (result - latents).abs().max() < 0.25
