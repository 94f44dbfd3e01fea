"""The adapters of Forge and reForge, on small objects of their models' make: choice, schedule, rows, LCM's steps."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from motion.errors import InjectionError, SettingsError
from motion.injection.beta_schedule import alphas_cumprod
from motion.protocols import BetaSchedule, UNetRoom
from motion.standalone.samplers.denoisers import LcmDenoiser

pytestmark = pytest.mark.usefixtures("web_ui")

LINEAR, SCALED_LINEAR = BetaSchedule("linear"), BetaSchedule("scaled_linear")


def sigmas_of(schedule):
    kept = alphas_cumprod(schedule).float()
    return ((1 - kept) / kept).sqrt()


class DiscreteSchedule(nn.Module):
    """What turns σ into timesteps in both hosts' models."""

    def __init__(self):
        super().__init__()
        self.set_sigmas(sigmas_of(SCALED_LINEAR))

    def set_sigmas(self, sigmas):
        self.register_buffer("sigmas", sigmas)
        self.register_buffer("log_sigmas", sigmas.log())


class FlowSchedule(nn.Module):
    """Flux's: no table of discrete steps."""


def request(schedules, **attributes):
    """A txt2img request on a model with such `schedules`, by the name under which the host keeps one."""
    model = SimpleNamespace(diffusion_model=nn.Linear(4, 4), **schedules)
    patcher = SimpleNamespace(model=model, load_device=torch.device("cpu"))
    objects = SimpleNamespace(unet=patcher)
    return SimpleNamespace(sd_model=SimpleNamespace(forge_objects=objects, **attributes), sampler_name="Euler")


def adapter_for(p, num_frames=4):
    from motion.host.detect import adapter_for

    return adapter_for(p, num_frames)


def test_the_place_of_the_schedule_says_which_host_it_is():
    assert adapter_for(request({"predictor": DiscreteSchedule()})).name == "Forge"
    reforge = request({"model_sampling": DiscreteSchedule()}, alphas_cumprod=torch.ones(1000))
    assert adapter_for(reforge).name == "reForge"
    a1111 = SimpleNamespace(sd_model=SimpleNamespace(model=SimpleNamespace(diffusion_model=nn.Linear(4, 4))))
    assert adapter_for(a1111).name == "A1111"


@pytest.mark.parametrize("name", ["predictor", "model_sampling"])
def test_a_model_without_a_schedule_is_refused(name):
    with pytest.raises(InjectionError, match=r"SimpleNamespace that has no noise schedule to set\. Choose another"):
        adapter_for(request({name: FlowSchedule()}))


def test_a_stand_in_before_the_model_is_loaded_is_refused():
    with pytest.raises(InjectionError, match=r"Clips are made with Stable Diffusion 1\.5 and SDXL checkpoints"):
        adapter_for(SimpleNamespace(sd_model=SimpleNamespace(cond_stage_model=None)))


@pytest.mark.parametrize(
    ("flags", "base"), [({"is_sd1": True}, "sd15"), ({"is_sd2": True}, "sd2"), ({"is_sdxl": True}, "sdxl")]
)
def test_the_models_flags_name_its_family(flags, base):
    every = {"is_sd1": False, "is_sd2": False, "is_sdxl": False, **flags}
    assert adapter_for(request({"predictor": DiscreteSchedule()}, **every)).base() == base


def test_a_clip_runs_on_its_schedule_and_leaves_the_very_tensors_that_were_there():
    schedule = DiscreteSchedule()
    before = (schedule.sigmas, schedule.log_sigmas)
    host = adapter_for(request({"predictor": schedule}))
    with pytest.raises(RuntimeError, match="in the sampler"), host.beta_schedule(LINEAR):
        torch.testing.assert_close(schedule.sigmas, sigmas_of(LINEAR), rtol=1e-5, atol=0)
        torch.testing.assert_close(schedule.log_sigmas, schedule.sigmas.log(), rtol=0, atol=0)
        raise RuntimeError("in the sampler")
    assert schedule.sigmas is before[0]
    assert schedule.log_sigmas is before[1]


def test_what_a_sampler_leaves_in_forges_model_is_taken_out():
    p = request({"predictor": DiscreteSchedule()})
    with adapter_for(p).beta_schedule(LINEAR):
        p.sd_model.alphas_cumprod = torch.zeros(1000)  # DDIM does so when it is made
    assert not hasattr(p.sd_model, "alphas_cumprod")


def test_both_of_reforges_places_agree_and_are_restored():
    schedule, kept = DiscreteSchedule(), alphas_cumprod(SCALED_LINEAR).float()
    p = request({"model_sampling": schedule}, alphas_cumprod=kept)
    with adapter_for(p).beta_schedule(LINEAR):
        torch.testing.assert_close(1 / (schedule.sigmas**2 + 1), p.sd_model.alphas_cumprod, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(p.sd_model.alphas_cumprod, alphas_cumprod(LINEAR).float())
    assert p.sd_model.alphas_cumprod is kept


def test_zero_terminal_snr_stays_in_a_clips_schedule():
    schedule = DiscreteSchedule()
    host = adapter_for(request({"predictor": schedule}))
    # What the hosts make of the last σ before they sample.
    schedule.set_sigmas(torch.cat([schedule.sigmas[:-1], torch.tensor([4518.6])]))
    with host.beta_schedule(LINEAR):
        assert schedule.sigmas[-1] > 1000
        assert schedule.sigmas[500] != pytest.approx(sigmas_of(SCALED_LINEAR)[500].item(), rel=0.05)


def test_zero_terminal_snr_that_the_host_would_leave_after_an_error_is_undone():
    schedule = DiscreteSchedule()
    before = schedule.sigmas
    host = adapter_for(request({"predictor": schedule}))
    schedule.set_sigmas(before * 2)
    host.sampling_failed()
    assert schedule.sigmas is before


def test_a_call_holds_whole_entries_however_many():
    host = adapter_for(request({"predictor": DiscreteSchedule()}))
    assert [len(host.rows_of_call(rows).rows) for rows in (4, 8, 12)] == [1, 2, 3]
    with pytest.raises(InjectionError, match="whole number of clips of 4 frames, got 6 rows"):
        host.rows_of_call(6)


def test_what_there_is_for_a_call_is_what_the_host_plans_with(monkeypatch):
    memory = SimpleNamespace(
        get_total_memory=lambda device: 1000, minimum_inference_memory=lambda: 300, module_size=lambda module: 80
    )
    p = request({"predictor": DiscreteSchedule()})
    p.width, p.height = 64, 96
    host = adapter_for(p)
    model = p.sd_model.forge_objects.unet.model
    model.computation_dtype = model.storage_dtype = torch.float32
    monkeypatch.setattr(host, "_memory_management", lambda: memory)
    assert host.unet_room() == UNetRoom(2, 96, 620)


def test_another_extensions_schedule_in_mid_clip_is_refused_by_name():
    p = request({"model_sampling": DiscreteSchedule()}, alphas_cumprod=torch.ones(1000))
    host = adapter_for(p)
    with host.beta_schedule(LINEAR):
        p.sd_model.forge_objects.unet.model.model_sampling = DiscreteSchedule()
        with pytest.raises(InjectionError, match="Advanced Model Sampling"):
            host.rows_of_call(8)


def lcm_sampler(kept):
    denoiser = LcmDenoiser(SimpleNamespace(alphas_cumprod=kept))
    return SimpleNamespace(model_wrap_cfg=SimpleNamespace(inner_model=denoiser)), denoiser


def test_lcm_chooses_from_as_many_timesteps_as_the_module_was_distilled_on():
    from motion.host.adapter import set_lcm_steps

    kept = alphas_cumprod(SCALED_LINEAR).float()
    sampler, denoiser = lcm_sampler(kept)
    assert (denoiser.skip_steps, len(denoiser.sigmas)) == (20, 50)
    set_lcm_steps(sampler, kept, 100)
    assert (denoiser.skip_steps, len(denoiser.sigmas), len(denoiser.log_sigmas)) == (10, 100, 100)
    torch.testing.assert_close(denoiser.sigmas, sigmas_of(SCALED_LINEAR)[9::10])
    assert denoiser.sigma_to_t(denoiser.sigmas).tolist() == list(range(9, 1000, 10))


def test_other_samplers_are_left_alone():
    from motion.host.adapter import set_lcm_steps

    euler = SimpleNamespace(model_wrap_cfg=SimpleNamespace(inner_model=SimpleNamespace(sigmas=torch.ones(3))))
    set_lcm_steps(euler, torch.ones(1000), 100)
    set_lcm_steps(SimpleNamespace(), torch.ones(1000), 100)
    assert len(euler.model_wrap_cfg.inner_model.sigmas) == 3


class Patcher(SimpleNamespace):
    """A patcher as far as guidance goes."""

    def clone(self):
        return Patcher(**{**vars(self), "after_guidance": [*self.after_guidance]})

    def set_model_sampler_post_cfg_function(self, function):
        self.after_guidance.append(function)


def guided_request(cfg_scale):
    p = request({"predictor": DiscreteSchedule()})
    objects = p.sd_model.forge_objects
    objects.unet = Patcher(**vars(objects.unet), after_guidance=[])
    p.cfg_scale, p.sampler = cfg_scale, None
    return p, objects


def test_each_frames_guidance_is_its_own_and_the_patcher_is_put_back():
    p, objects = guided_request(cfg_scale=6)
    host, before = adapter_for(p, 3), objects.unet
    unguided, guided = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2)
    with host.frame_guidance([0.5, 1.0, 2.0]):
        for _ in range(2):  # hosts may announce a pass twice
            host.begin_pass(None)
        (function,) = objects.unet.after_guidance
        result = function({"denoised": guided, "uncond_denoised": unguided})
        torch.testing.assert_close(result[0], (unguided[0] + guided[0]) / 2)
        torch.testing.assert_close(result[1], guided[1])
        torch.testing.assert_close(result[2], 2 * guided[2] - unguided[2])
        for missing in (None, torch.zeros(3, 4, 2, 2)):  # a step without the negative prompt
            assert function({"denoised": guided, "uncond_denoised": missing}) is guided
        objects.unet = Patcher(**vars(before))  # the hires pass has another one
        host.begin_pass(None)
        assert len(objects.unet.after_guidance) == 1
    assert before.after_guidance == []
    assert objects.unet.after_guidance == []


def test_guidance_of_single_frames_needs_a_negative_prompt():
    p, _ = guided_request(cfg_scale=1)
    with (
        pytest.raises(SettingsError, match="a CFG scale other than 1 in Forge, got 1"),
        adapter_for(p).frame_guidance([1.0]),
    ):
        pass
