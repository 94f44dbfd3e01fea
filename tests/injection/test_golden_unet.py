"""A UNet with motion modules computes what the original code computes (tests/data/goldens/unet_sd15tiny_v2.json)."""

import pytest
from einops import rearrange, repeat

from motion.injection import injected
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from tests.goldens import read_golden
from tests.weights_recipe import fill_module

TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def networks():
    unet = UNetModel(UNetConfig(model_channels=32, context_dim=48)).eval().requires_grad_(False)
    fill_module(unet, "model.diffusion_model.")
    motion = MotionModel(MotionModuleConfig((32, 64, 128, 128), (128, 128, 64, 32), 128, max_length=32))
    fill_module(motion)
    return unet, motion.eval().requires_grad_(False)


@pytest.mark.parametrize("suffix", ["", "16"])
def test_unet_with_motion_modules_matches_the_original(networks, suffix):
    unet, motion = networks
    golden = read_golden("unet_sd15tiny_v2")
    latents = golden[f"in.latents{suffix}"]
    num_frames = latents.shape[2]
    x = rearrange(latents, "b c f h w -> (b f) c h w")
    context = repeat(golden[f"in.context{suffix}"], "b n c -> (b f) n c", f=num_frames)
    timesteps = golden[f"in.timestep{suffix}"].expand(x.shape[0])
    with injected(unet, motion, num_frames):
        got = unet(x, timesteps, context)
    expected = rearrange(golden[f"out.motion{suffix}"], "b c f h w -> (b f) c h w")
    assert (got - expected).abs().max() <= TOLERANCE
    plain = unet(x, timesteps, context)
    assert (plain - expected).abs().max() > 1, "the modules must matter"
    if not suffix:
        still = rearrange(golden["out.no_motion"], "b c f h w -> (b f) c h w")
        assert (plain - still).abs().max() <= TOLERANCE
