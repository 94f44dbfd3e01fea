import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL, DiagonalGaussian
from tests.manifests import manifest_shapes
from tests.weights_recipe import fill_module

PREFIX = "first_stage_model."


@pytest.fixture(scope="module")
def autoencoder():
    module = AutoencoderKL(AutoencoderConfig(ch=32)).eval().requires_grad_(False)
    fill_module(module, PREFIX)
    return module


@pytest.fixture(scope="module")
def oracle(autoencoder):
    other = diffusers.AutoencoderKL(
        block_out_channels=(32, 64, 128, 128),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
    )
    state = {PREFIX + key: tensor for key, tensor in autoencoder.state_dict().items()}
    other.load_state_dict(convert_ldm_vae_checkpoint(state, other.config))
    return other.eval().requires_grad_(False)


def pictures(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(3)) * 2 - 1


@pytest.mark.parametrize("manifest", ["v1-5-pruned-emaonly", "sd_xl_base_1.0"])
def test_state_dict_has_the_keys_and_shapes_of_the_file(manifest):
    with torch.device("meta"):
        module = AutoencoderKL(AutoencoderConfig())
    shapes = manifest_shapes(manifest)
    expected = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
    assert {key: tuple(t.shape) for key, t in module.state_dict().items()} == expected


def test_encoder_equals_diffusers(autoencoder, oracle):
    x = pictures(2, 3, 64, 48)
    result, expected = autoencoder.encode(x), oracle.encode(x).latent_dist
    assert result.mean.shape == (2, 4, 8, 6)
    torch.testing.assert_close(result.mean, expected.mean, atol=2e-5, rtol=0)
    torch.testing.assert_close(result.logvar, expected.logvar, atol=2e-5, rtol=0)
    torch.testing.assert_close(result.std, expected.std, atol=2e-5, rtol=0)


def test_decoder_equals_diffusers(autoencoder, oracle):
    z = torch.randn(2, 4, 9, 7, generator=torch.Generator().manual_seed(4))
    result = autoencoder.decode(z)
    assert result.shape == (2, 3, 72, 56)
    torch.testing.assert_close(result, oracle.decode(z).sample, atol=2e-5, rtol=0)


def test_norms_have_the_autoencoder_eps(autoencoder):
    assert {module.eps for module in autoencoder.modules() if isinstance(module, torch.nn.GroupNorm)} == {1e-6}


def test_two_runs_are_bit_identical(autoencoder):
    x = pictures(1, 3, 32, 32)
    assert torch.equal(autoencoder.encode(x).mean, autoencoder.encode(x).mean)
    z = autoencoder.encode(x).mode()
    assert torch.equal(autoencoder.decode(z), autoencoder.decode(z))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(autoencoder, dtype):
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(4))
    half = AutoencoderKL(autoencoder.config)
    half.load_state_dict(autoencoder.state_dict())
    half.to(dtype)
    assert half.dtype == dtype
    result = half.decode(z.to(dtype)).float()
    torch.testing.assert_close(result, autoencoder.decode(z), atol=0.02 if dtype == torch.float16 else 0.15, rtol=0)


def test_sample_is_mean_plus_noise_times_deviation():
    mean, logvar = torch.full((1, 4, 2, 2), 0.5), torch.full((1, 4, 2, 2), 2 * torch.tensor(3.0).log().item())
    noise = torch.randn(1, 4, 2, 2)
    posterior = DiagonalGaussian(mean, logvar)
    torch.testing.assert_close(posterior.sample(noise=noise), 0.5 + 3 * noise)
    torch.testing.assert_close(
        posterior.sample(torch.Generator().manual_seed(9)),
        posterior.sample(noise=torch.randn(mean.shape, generator=torch.Generator().manual_seed(9))),
    )
    assert posterior.mode() is mean


def test_sample_draws_the_same_noise_in_every_precision():
    shape = (1, 4, 2, 2)
    exact = DiagonalGaussian(torch.zeros(shape), torch.zeros(shape)).sample(torch.Generator().manual_seed(9))
    half = torch.zeros(shape, dtype=torch.float16)
    assert torch.equal(DiagonalGaussian(half, half).sample(torch.Generator().manual_seed(9)), exact.half())
