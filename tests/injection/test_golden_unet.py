"""A UNet with motion modules computes what the original code computes (tests/data/goldens/unet_*.json)."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from einops import rearrange, repeat
from safetensors.torch import save_file

from motion.checkpoints.motion_file import load_motion_model
from motion.injection import injected
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from motion.models.unet_blocks import timestep_embedding
from tests.goldens import read_golden
from tests.weights_recipe import fill, fill_module

TOLERANCE = 2e-5
SD15 = UNetConfig(model_channels=32, context_dim=48)
SIZE_CHANNELS = 32
SDXL = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2, 4),
    transformer_depth=(0, 2, 3),
    mid_transformer_depth=3,
    num_head_channels=16,
    context_dim=40,
    use_linear=True,
    adm_in_channels=48 + 6 * SIZE_CHANNELS,
)


@dataclass(frozen=True)
class Original:
    """One family's original code, and what its public file is called and looks like at this width."""

    golden: str
    file_name: str
    unet: UNetConfig
    position_rows: int
    sizes: dict[int, tuple[int, int]]


ORIGINALS = {
    "sd15_v1": Original("unet_sd15tiny_v1", "mm_sd_v15", SD15, 24, {16: (8, 8), 8: (8, 8), 5: (8, 16)}),
    "sd15_v3": Original("unet_sd15tiny_v3", "v3_sd15_mm", SD15, 32, {16: (8, 8), 8: (8, 8), 5: (8, 16)}),
    "sdxl_beta": Original("unet_sdxltiny_sdxl_beta", "mm_sdxl_v10_beta", SDXL, 32, dict.fromkeys((16, 8, 5), (4, 8))),
    "hotshot_xl": Original(
        "unet_sdxltiny_hotshot_xl", "hsxl_temporal_layers", SDXL, 24, dict.fromkeys((16, 8, 5), (4, 8))
    ),
}
TIMESTEPS = {16: 481.0, 8: 37.0, 5: 903.0}
SIZES = torch.tensor([64.0, 72, 0, 8, 64, 72]).expand(2, 6)


@pytest.fixture(scope="module")
def networks():
    unet = filled_unet(SD15)
    motion = MotionModel(MotionModuleConfig((32, 64, 128, 128), (128, 128, 64, 32), 128, max_length=32))
    fill_module(motion)
    return unet, motion.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=ORIGINALS)
def loaded(request, tmp_path_factory):
    """A family's golden, our UNet, and its motion modules, loaded from a file with the public file's keys."""
    original = ORIGINALS[request.param]
    path = tmp_path_factory.mktemp("motion") / f"{original.file_name}.safetensors"
    write_public_file(original, path, request.param)
    motion, family = load_motion_model(path, device=torch.device("cpu"), dtype=torch.float32)
    assert family.id == request.param
    return original, filled_unet(original.unet), motion


def filled_unet(config):
    unet = UNetModel(config).eval().requires_grad_(False)
    fill_module(unet, "model.diffusion_model.")
    return unet


def write_public_file(original, path, family):
    widths = tuple(original.unet.model_channels * factor for factor in original.unet.channel_mult)
    motion = MotionModel(MotionModuleConfig(widths, widths[::-1], None, max_length=original.position_rows))
    tensors = {}
    for key, value in motion.state_dict().items():
        if family == "hotshot_xl":
            key = key.replace(".motion_modules.", ".temporal_attentions.").replace(".temporal_transformer.", ".")
            key = key.replace(".pos_encoder.pe", ".pos_encoder.positional_encoding")
        is_table = key.endswith((".pe", ".positional_encoding"))
        tensors[key] = value if is_table else fill(key, tuple(value.shape))
    save_file(tensors, path)


def inputs_of(original, num_frames):
    """Latents `(b f) c h w`, timesteps, context and vector condition, of two entries as one call holds them."""
    generator = np.random.RandomState(num_frames)

    def normal(*shape):
        return torch.from_numpy(generator.standard_normal(shape).astype(np.float32))

    latents = normal(2, 4, num_frames, *original.sizes[num_frames])
    context = normal(2, 7, original.unet.context_dim)
    vector = None
    if original.unet.adm_in_channels is not None:
        sizes = timestep_embedding(SIZES, SIZE_CHANNELS).flatten(1)
        vector = repeat(torch.cat([normal(2, 48), sizes], dim=1), "b c -> (b f) c", f=num_frames)
    rows = rearrange(latents, "b c f h w -> (b f) c h w")
    timesteps = torch.full((2 * num_frames,), TIMESTEPS[num_frames])
    return rows, timesteps, repeat(context, "b n c -> (b f) n c", f=num_frames), vector


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


@pytest.mark.parametrize("num_frames", TIMESTEPS)
def test_a_file_of_each_family_gives_what_its_original_code_gives(loaded, num_frames):
    original, unet, motion = loaded
    inputs = inputs_of(original, num_frames)
    expected = rearrange(read_golden(original.golden)[f"out.{num_frames}"], "b c f h w -> (b f) c h w")
    with injected(unet, motion, num_frames):
        got = unet(*inputs)
    assert (got - expected).abs().max() <= TOLERANCE
    assert (unet(*inputs) - expected).abs().max() > 1, "the modules must matter"
