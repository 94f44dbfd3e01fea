import pytest
import torch

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL, Encoder
from motion.models.temporal_decoder import ClipDecoder, FrameDecoder, LatentEncoder
from tests.goldens import read_golden
from tests.manifests import manifest_shapes
from tests.svd_networks import CONDITION_PREFIX, FIRST_STAGE_PREFIX, TINY_AUTOENCODER, tiny_decoder, tiny_encoder
from tests.weights_recipe import fill_module


@pytest.fixture(scope="module")
def golden():
    return read_golden("svd_vae_tiny")


@pytest.fixture(scope="module")
def decoder():
    return tiny_decoder()


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def shapes_below(prefix):
    shapes = manifest_shapes("svd")
    return {key.removeprefix(prefix): shape for key, shape in shapes.items() if key.startswith(prefix)}


def test_state_dicts_have_the_keys_and_shapes_of_the_file():
    config = AutoencoderConfig()
    with torch.device("meta"):
        parts = {"decoder": ClipDecoder(config), "condition": LatentEncoder(config), "encoder": Encoder(config)}
    shapes = {name: {key: tuple(t.shape) for key, t in part.state_dict().items()} for name, part in parts.items()}
    first_stage = shapes_below(FIRST_STAGE_PREFIX)
    encoder = {"encoder." + key: shape for key, shape in shapes["encoder"].items()}
    assert {**shapes["decoder"], **encoder} == first_stage
    condition = shapes_below(CONDITION_PREFIX)
    assert shapes["condition"] == {key: condition[key] for key in condition if key.startswith(("encoder.", "quant_"))}


def test_decoder_equals_the_original(golden, decoder):
    assert_close(decoder.decode(golden["in.z1"]), golden["out.dec1_timesteps1"])
    assert_close(decoder.decode(golden["in.z5"]), golden["out.dec5_timesteps5"])


def test_frames_decoded_alone_equal_the_original(golden, decoder):
    alone = torch.cat([decoder.decode(latents[None]) for latents in golden["in.z5"]])
    assert_close(alone, golden["out.dec5_timesteps1_each"])


def test_encoder_equals_the_original(golden):
    assert_close(tiny_encoder().encode(golden["in.image"]).mode(), golden["out.cond_latent_mode"])


def test_first_stage_encoder_equals_the_original(golden):
    encoder = Encoder(TINY_AUTOENCODER).eval().requires_grad_(False)
    fill_module(encoder, FIRST_STAGE_PREFIX + "encoder.")
    assert_close(encoder(golden["in.image"]), golden["out.first_stage_moments"])


def test_frame_decoder_is_the_autoencoders_other_half(golden):
    autoencoder = AutoencoderKL(TINY_AUTOENCODER).eval().requires_grad_(False)
    fill_module(autoencoder, FIRST_STAGE_PREFIX)
    decoder = FrameDecoder(TINY_AUTOENCODER).eval().requires_grad_(False)
    fill_module(decoder, FIRST_STAGE_PREFIX)
    assert torch.equal(decoder.decode(golden["in.z5"]), autoencoder.decode(golden["in.z5"]))


def test_norms_over_frames_have_the_unets_eps(decoder):
    norms = {name: module for name, module in decoder.named_modules() if isinstance(module, torch.nn.GroupNorm)}
    for name, norm in norms.items():
        assert norm.eps == (1e-5 if ".time_stack." in name else 1e-6), name
