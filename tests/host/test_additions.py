"""Motion LoRAs, domain adapters and noise schedules in a clip, by field and by prompt, and without a trace."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from motion.errors import CheckpointError, SettingsError
from motion.injection.beta_schedule import LAST_ALPHA_OF_ZERO_SNR, alphas_cumprod, with_zero_terminal_snr
from motion.protocols import BetaSchedule
from motion.standalone import shared
from motion.standalone.script_base import Script
from tests.contract.weights import sdxl_motion_lora
from tests.host.conftest import FRAMES
from tests.networks import assert_same_state, state_of
from tests.standalone import tiny_host


def pixels(processed):
    return np.stack([np.asarray(image, dtype=np.int16) for image in processed.images])


def difference(first, second):
    return np.abs(first - second).mean(axis=(1, 2, 3))


@pytest.fixture
def plain(studio):
    return pixels(studio.clip())


def test_a_tag_in_the_prompt_is_the_field(studio, plain):
    by_field = studio.clip({"motion_loras": "<lora:pan:0.8>"})
    by_prompt = studio.clip(prompt="a cat<lora:pan:0.8>")
    assert (pixels(by_field) == pixels(by_prompt)).all()
    assert difference(pixels(by_field), plain).min() > 0.1
    for clip in (by_field, by_prompt):
        assert "<lora" not in clip.all_prompts[0]
        assert 'Motion LoRAs: "<lora:pan:0.8>"' in clip.infotexts[0]
    assert (pixels(studio.clip()) == plain).all()


def test_loras_add_up_and_cancel(studio, plain):
    both = pixels(studio.clip({"motion_loras": "<lora:pan:0.7> <lora:zoom:0.5>"}))
    pan = pixels(studio.clip({"motion_loras": "<lora:pan:0.7>"}))
    assert difference(both, pan).min() > 0.05
    cancelled = pixels(studio.clip({"motion_loras": "<lora:pan:0.7> <lora:pan:-0.7>"}))
    assert np.abs(cancelled - plain).max() <= 1


def test_a_frame_range_that_covers_the_clip_is_the_whole_clip(studio):
    whole = pixels(studio.clip({"motion_loras": "<lora:pan:0.8>"}))
    ranged = pixels(studio.clip({"motion_loras": "<lora:pan:0.8@0-3>"}))
    half = pixels(studio.clip({"motion_loras": "<lora:pan:0.8@0-1>"}))
    assert np.abs(whole - ranged).max() <= 1
    assert np.abs(whole - half).max() > 1


def test_frames_with_different_tags_are_refused(studio):
    class Prompts(Script):
        def title(self):
            return "Prompts"

        def process_batch(self, p, *args, **kwargs):
            pass

        def before_process(self, p, *args):
            p.prompt = ["a <lora:pan:0.5>"] + ["a"] * (FRAMES - 1)

    with pytest.raises(SettingsError, match="All frames and both passes of a clip must have the same motion LoRAs"):
        studio.clip(neighbours=[Prompts()])


@pytest.fixture
def sdxl_lora(module_folder):
    path = module_folder / "xl-pan.safetensors"
    save_file(sdxl_motion_lora(), path)
    yield path
    path.unlink()


@pytest.mark.parametrize("scale", [1, 0])
def test_a_lora_of_another_base_is_refused_before_sampling(studio, sdxl_lora, scale):
    p = studio.job({"motion_loras": "<lora:pan:0.8> <lora:xl-pan:0.8>", "motion_scale": scale})
    calls = []
    handle = studio.model.model.diffusion_model.register_forward_pre_hook(lambda *args: calls.append(args))
    try:
        with pytest.raises(CheckpointError, match=r"xl-pan.*made for sdxl, .*module is for sd15\. Choose") as caught:
            tiny_host.run(p)
    finally:
        handle.remove()
    assert (caught.value.status_code, calls) == (422, [])


def test_adapter_changes_the_clip_and_leaves_no_trace(studio, plain):
    unet, still = studio.model.model.diffusion_model, studio.still()
    before = state_of(unet)
    full = pixels(studio.clip({"domain_adapter": "adapter"}))
    assert difference(full, plain).min() > 0.1
    assert (pixels(studio.clip({"domain_adapter": "adapter", "domain_adapter_strength": 0})) == plain).all()
    assert_same_state(before, state_of(unet))
    assert studio.still() == still


def sigmas_of(studio, motion, **fields):
    used = []

    class Probe(Script):
        def title(self):
            return "Probe"

        def process_before_every_sampling(self, p, *args, **kwargs):
            used.append(p.sampler.model_wrap_cfg.inner_model)

    studio.clip(motion, neighbours=[Probe()], **fields)
    return used[0]


@pytest.mark.parametrize(
    ("name", "schedule"),
    [
        ("auto", BetaSchedule("linear")),
        ("host", BetaSchedule("scaled_linear")),
        ("linear", BetaSchedule("linear")),
        ("scaled linear", BetaSchedule("scaled_linear")),
        ("SDXL 0.020", BetaSchedule("scaled_linear", end=0.020)),
    ],
)
def test_the_schedule_is_the_one_asked_for(studio, name, schedule):
    table = alphas_cumprod(schedule)
    expected = ((1 - table) / table).sqrt()
    got = sigmas_of(studio, {"beta_schedule": name}).sigmas
    assert torch.allclose(got, expected, rtol=1e-5)


def test_zero_terminal_snr_is_kept(studio):
    own = studio.model.alphas_cumprod_original
    try:
        studio.model.alphas_cumprod_original = with_zero_terminal_snr(own)
        got = sigmas_of(studio, {}).sigmas
    finally:
        studio.model.alphas_cumprod_original = own
    table = with_zero_terminal_snr(alphas_cumprod(BetaSchedule("linear")))
    assert table[0].item() == pytest.approx(alphas_cumprod(BetaSchedule("linear"))[0].item())
    assert got[-1].item() == pytest.approx((1 / LAST_ALPHA_OF_ZERO_SNR) ** 0.5, rel=1e-3)
    assert torch.allclose(got[:-1], ((1 - table) / table).sqrt()[:-1], rtol=1e-4)


def test_animate_lcm_divides_100_steps(studio):
    """Timesteps 999, 989, … of an AnimateLCM module; 999, 979, … of the others (hosts' LCM has 50)."""
    by_family = {
        family: sigmas_of(studio, {"motion_module": "v2", "module_family": family}, sampler_name="LCM")
        for family in ("sd15_v2", "animate_lcm")
    }
    assert [wrap.skip_steps for wrap in by_family.values()] == [20, 10]
    table = alphas_cumprod(BetaSchedule("linear"))[9::10]
    assert torch.allclose(by_family["animate_lcm"].sigmas, ((1 - table) / table).sqrt(), rtol=1e-5)
    assert shared.state.interrupted is False
