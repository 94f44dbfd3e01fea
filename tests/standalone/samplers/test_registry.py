from __future__ import annotations

import pytest
import torch

from motion.errors import SettingsError
from motion.standalone import samplers
from tests.standalone.samplers.closed_form import GaussianModel, request, sample

pytestmark = pytest.mark.usefixtures("host")


def test_names():
    assert sorted(entry.name for entry in samplers.all_samplers) == ["DDIM", "DPM++ 2M", "Euler", "Euler a", "LCM"]


@pytest.mark.parametrize(
    ("asked", "scheduler", "expected"),
    [
        ("Euler", "Automatic", ("Euler", "Automatic")),
        ("k_euler", None, ("Euler", "Automatic")),
        ("euler a", None, ("Euler a", "Automatic")),
        ("k_euler_ancestral", "Karras", ("Euler a", "Karras")),
        ("DPM++ 2M", "Karras", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M Karras", None, ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M Karras", "Automatic", ("DPM++ 2M", "Automatic")),
        ("DPM++ 2M Exponential", None, ("DPM++ 2M", "Exponential")),
        ("Euler SGMUniform", None, ("Euler", "SGM Uniform")),
        ("Euler a Karras", "Uniform", ("Euler a", "Karras")),
        ("ddim", "sgm_uniform", ("DDIM", "SGM Uniform")),
        (None, None, ("DPM++ 2M", "Automatic")),
    ],
)
def test_names_aliases_and_joined_names(asked, scheduler, expected):
    assert samplers.get_sampler_and_scheduler(asked, scheduler) == expected


def test_automatic_can_be_spelled_out():
    found = samplers.get_sampler_and_scheduler("DPM++ 2M Karras", None, convert_automatic=False)
    assert found == ("DPM++ 2M", "Karras")


@pytest.mark.parametrize("name", ["Heun", "Euler b", "Karras", "DPM++ 2M Nothing"])
def test_unknown_samplers_are_refused(name):
    with pytest.raises(SettingsError, match=r"is unknown; this host has DPM\+\+ 2M, Euler a, Euler, DDIM, LCM"):
        samplers.get_sampler_and_scheduler(name, None)
    with pytest.raises(SettingsError, match="is unknown"):
        samplers.create_sampler(name, GaussianModel())


def test_unknown_schedulers_are_refused():
    with pytest.raises(SettingsError, match="this host has Automatic, Uniform, Karras"):
        samplers.get_sampler_and_scheduler("Euler", "Beta")
    model = GaussianModel()
    p = request(model, scheduler="Beta")
    with pytest.raises(SettingsError, match="Scheduler 'Beta' is unknown"):
        sample(samplers.create_sampler("Euler", model), p)


@pytest.mark.parametrize("steps", [0, 1001])
def test_ddim_refuses_steps_that_it_has_no_timesteps_for(steps):
    model = GaussianModel()
    p = request(model, steps=1)
    with pytest.raises(SettingsError, match=f"takes 1 to 1000 steps, got {steps}"):
        samplers.create_sampler("DDIM", model).get_timesteps(p, steps)


def test_hires_names_say_when_they_are_the_same():
    infotext = {"Sampler": "Euler", "Schedule type": "Automatic"}
    assert samplers.get_hr_sampler_and_scheduler(infotext) == ("Use same sampler", "Use same scheduler")
    infotext |= {"Hires sampler": "DPM++ 2M", "Hires schedule type": "Exponential"}
    assert samplers.get_hr_sampler_and_scheduler(infotext) == ("DPM++ 2M", "Exponential")


def test_hidden_samplers_still_work(host):
    host.opts.data["hide_samplers"] = ["LCM"]
    assert "LCM" not in samplers.visible_sampler_names()
    assert samplers.create_sampler("LCM", GaussianModel()).config.name == "LCM"


@pytest.mark.parametrize(
    ("name", "scheduler", "expected"),
    [("DPM++ 2M", "Automatic", "Karras"), ("Euler", "Automatic", None), ("Euler", "karras", "Karras")],
)
def test_schedule_goes_into_the_infotext(name, scheduler, expected):
    model = GaussianModel()
    p = request(model, scheduler=scheduler)
    samplers.create_sampler(name, model).get_sigmas(p, 5)
    assert p.extra_generation_params.get("Schedule type") == expected


def test_hires_schedule_goes_into_the_infotext_when_it_differs():
    model = GaussianModel()
    p = request(model, scheduler="Karras")
    sampler = samplers.create_sampler("Euler", model)
    sampler.get_sigmas(p, 5)
    p.is_hr_pass, p.hr_scheduler = True, "Exponential"
    sampler.get_sigmas(p, 5)
    assert p.extra_generation_params == {"Schedule type": "Karras", "Hires schedule type": "Exponential"}


def test_options_of_the_schedule(host):
    model = GaussianModel()
    sampler = samplers.create_sampler("Euler", model)
    p = request(model, scheduler="Karras")
    plain = sampler.get_sigmas(p, 5)
    host.opts.data.update(sigma_min=0.1, sigma_max=10.0, rho=5.0)
    changed = sampler.get_sigmas(p, 5)
    assert (changed[0].item(), changed[-2].item()) == (pytest.approx(10.0), pytest.approx(0.1))
    assert p.extra_generation_params["Schedule rho"] == 5.0
    host.opts.data.update(sigma_min=0, sigma_max=0, rho=0, always_discard_next_to_last_sigma=True)
    discarded = sampler.get_sigmas(p, 5)
    assert discarded.shape == plain.shape
    assert discarded[-2] > plain[-2]


def test_schedule_override_of_the_request_wins():
    model = GaussianModel()
    p = request(model, sampler_noise_scheduler_override=lambda steps: torch.linspace(3.0, 0.0, steps + 1))
    assert samplers.create_sampler("Euler", model).get_sigmas(p, 3).tolist() == [3.0, 2.0, 1.0, 0.0]
