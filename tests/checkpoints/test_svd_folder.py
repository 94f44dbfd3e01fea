"""Folders as diffusers writes them; diffusers is the second oracle of the networks."""

from __future__ import annotations

import json

import diffusers
import pytest
import torch
import transformers

from motion.checkpoints.svd_file import open_svd
from motion.errors import CheckpointError
from tests.svd_folders import small_folder, small_unet, small_vae, write_weights

CPU = torch.device("cpu")
PARTS = ("unet", "vae", "image_encoder")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_folder(tmp_path_factory.mktemp("stable-video-diffusion-img2vid"))


def random(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def test_unet_equals_diffusers(folder):
    other = small_unet(folder)
    with open_svd(folder) as svd:
        unet = svd.load_unet(device=CPU, dtype=None)
        assert (svd.config.num_frames, svd.config.decodes_clips) == (3, True)
    x, context, y = random(2, 3, 8, 8, 8), random(2, 1, 48, seed=2), torch.tensor([[6.0, 127.0, 0.02], [3.0, 9.0, 0.5]])
    timestep = torch.tensor(1.2)
    expected = other(x, timestep, context, y, return_dict=False)[0]
    vector = other.add_time_proj(y.flatten()).reshape(2, -1)
    per_row = (tensor.repeat_interleave(3, dim=0) for tensor in (context, vector))
    result = unet(x.flatten(0, 1), timestep.expand(6), *per_row, 3)
    assert_close(result.unflatten(0, (2, 3)), expected)


def test_autoencoder_equals_diffusers(folder):
    other = small_vae(folder)
    with open_svd(folder) as svd:
        encoder = svd.load_encoder(device=CPU, dtype=None)
        decoder = svd.load_decoder(device=CPU, dtype=None)
    pictures, latents = random(2, 3, 16, 24), random(3, 4, 4, 6)
    assert_close(encoder.encode(pictures).mode(), other.encode(pictures).latent_dist.mode())
    assert_close(decoder.decode(latents), other.decode(latents, num_frames=3).sample)


def test_image_encoder_equals_transformers(folder):
    other = transformers.CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder").eval()
    with open_svd(folder) as svd:
        encoder = svd.load_image_encoder(device=CPU, dtype=None)
    pictures = random(2, 3, 28, 28)
    with torch.no_grad():
        assert_close(encoder(pictures), other(pictures).image_embeds)


def linked(folder, target, parts=PARTS):
    """A folder whose files are those of `folder`, to have one replaced."""
    for name in parts:
        (target / name).mkdir()
        for file in (folder / name).iterdir():
            (target / name / file.name).symlink_to(file)
    return target


def test_an_ordinary_autoencoder_decodes_frames(folder, tmp_path):
    linked(folder, tmp_path, ("unet", "image_encoder"))
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    other = diffusers.AutoencoderKL(block_out_channels=(32, 64), layers_per_block=1, latent_channels=4, **blocks)
    write_weights(other, tmp_path / "vae")
    with open_svd(tmp_path) as svd:
        decoder = svd.load_decoder(device=CPU, dtype=None)
    latents = random(2, 4, 4, 4)
    with torch.no_grad():
        assert_close(decoder.decode(latents), other.decode(latents).sample)


def test_half_precision_variant_is_read_where_it_is_alone(folder, tmp_path):
    linked(folder, tmp_path, ("vae", "image_encoder"))
    small_unet(folder).half().save_pretrained(tmp_path / "unet", variant="fp16")
    with open_svd(tmp_path) as svd:
        assert svd.load_unet(device=CPU, dtype=None).dtype == torch.float16


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("unet", "num_frames", 0, "`num_frames` must be a positive integer, got 0"),
        ("unet", "num_attention_heads", [2, 2], "must give heads of one size for levels of"),
        ("unet", "num_attention_heads", [2, "x"], "must give heads of one size for levels of"),
        ("unet", "_class_name", "UNet2DConditionModel", "This is a UNet2DConditionModel, Stable Video"),
        ("image_encoder", "hidden_act", "quick_gelu", "`hidden_act` must be gelu, got 'quick_gelu'"),
        ("image_encoder", "num_attention_heads", 5, "`hidden_size` must be a multiple of `num_heads`"),
    ],
)
def test_settings_that_do_not_fit(folder, tmp_path, part, name, value, message):
    config = linked(folder, tmp_path) / part / "config.json"
    content = json.loads(config.read_text())
    config.unlink()
    config.write_text(json.dumps({**content, name: value}))
    with pytest.raises(CheckpointError, match=message), open_svd(tmp_path):
        pass


def test_folders_that_lack_something(folder, tmp_path):
    with pytest.raises(CheckpointError, match="need `unet`, `vae`, `image_encoder` in it"), open_svd(tmp_path):
        pass
    for name in PARTS:
        (tmp_path / name).mkdir()
    with pytest.raises(CheckpointError, match=r"config\.json: The file is missing"), open_svd(tmp_path):
        pass
    for name in ("unet", "image_encoder"):
        (tmp_path / name / "config.json").write_text((folder / name / "config.json").read_text())
    with pytest.raises(CheckpointError, match="no weight file in it, such as diffusion_pytorch_model"):
        with open_svd(tmp_path):
            pass


def test_a_file_of_the_folder_is_refused_with_a_hint(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(CheckpointError, match="This is a part of a Stable Video Diffusion folder, not"):
        with open_svd(path):
            pass
