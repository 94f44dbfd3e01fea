import dataclasses

import pytest
import torch

from motion.models.video_blocks import TemporalBlock, TimeMixer
from motion.models.video_rows import VideoRows
from motion.models.video_unet import SVD_CONFIG, VideoUNet
from tests.goldens import read_golden
from tests.manifests import manifest_shapes
from tests.svd_networks import TINY_UNET, UNET_PREFIX, tiny_unet


@pytest.fixture(scope="module")
def golden():
    return read_golden("svd_videounet_tiny")


@pytest.fixture(scope="module")
def unet():
    return tiny_unet()


def inputs(golden):
    return [golden["in." + name] for name in ("x", "timesteps", "context", "y")]


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def test_state_dict_has_the_keys_and_shapes_of_the_file():
    with torch.device("meta"):
        unet = VideoUNet(SVD_CONFIG)
    shapes = manifest_shapes("svd")
    expected = {key.removeprefix(UNET_PREFIX): shape for key, shape in shapes.items() if key.startswith(UNET_PREFIX)}
    assert {key: tuple(t.shape) for key, t in unet.state_dict().items()} == expected
    assert sum(t.numel() for t in unet.parameters()) == 1_524_623_082


def test_equals_the_original(golden, unet):
    assert_close(unet(*inputs(golden), 6), golden["out.y_video"])
    assert_close(unet(*inputs(golden), 6, stills=golden["in.image_only_zero"]), golden["out.y_video"])


def test_stills_equal_the_original(golden, unet):
    assert_close(unet(*inputs(golden), 6, stills=golden["in.image_only_mixed"]), golden["out.y_mixed"])


def test_clips_of_one_frame_equal_the_original(golden, unet):
    assert_close(unet(*(tensor[:2] for tensor in inputs(golden)), 1), golden["out.y_first_1frame"])


def test_clips_do_not_see_one_another(golden, unet):
    both = unet(*inputs(golden), 6)
    apart = [unet(*(tensor[rows] for tensor in inputs(golden)), 6) for rows in (slice(0, 6), slice(6, 12))]
    assert_close(both, torch.cat(apart))


def test_norms_have_the_eps_of_their_kind(unet):
    norms = {name: module for name, module in unet.named_modules() if isinstance(module, torch.nn.GroupNorm)}
    for name, norm in norms.items():
        assert norm.eps == (1e-6 if name.endswith(".norm") else 1e-5), name


def test_rows_that_are_no_whole_clips(golden, unet):
    with pytest.raises(ValueError, match="whole clips of 5 frames, got 12 rows"):
        unet(*inputs(golden), 5)


def test_a_context_of_one_token_is_a_case_of_many():
    """Two equal tokens weigh a half each, so they must give what one gives through the shorter way."""
    block = TemporalBlock(32, 2, 16, 24)
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randn(2 * 3, 4, 32, generator=generator)  # (b f) s c
    context, places = torch.randn(2, 1, 24, generator=generator), torch.randn(3, 32, generator=generator)
    one, two = block(tokens, context, places), block(tokens, context.expand(2, 2, 24), places)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=0)


def test_several_context_tokens_run_through_the_whole_unet(golden, unet):
    x, timesteps, context, y = inputs(golden)
    assert_close(unet(x, timesteps, context.expand(12, 2, 48), y, 6), golden["out.y_video"])


@pytest.mark.parametrize(("factor", "expected"), [(-20.0, 3.0), (0.0, 2.0), (20.0, 1.0)])
def test_mixer_goes_from_temporal_to_spatial(factor, expected):
    mixer = TimeMixer()
    torch.nn.init.constant_(mixer.mix_factor, factor)
    spatial, temporal = torch.ones(2, 1, 1, 1), torch.full((2, 1, 1, 1), 3.0)
    mixed = mixer(spatial, temporal, VideoRows(2))
    torch.testing.assert_close(mixed, torch.full_like(spatial, expected))
    stills = mixer(spatial, temporal, VideoRows(2, torch.tensor([True, False])))
    assert torch.equal(stills[0], spatial[0])
    assert torch.equal(stills[1], mixed[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(golden, dtype):
    half = tiny_unet().to(dtype)
    result = half(*inputs(golden), 6)
    assert result.dtype == torch.float32
    error = (result - golden["out.y_video"]).abs().max()
    assert error < (0.05 if dtype == torch.float16 else 0.3)


def test_gradients_reach_every_parameter_that_one_token_leaves_in_the_graph():
    unet = VideoUNet(dataclasses.replace(TINY_UNET, channel_mult=(1, 2), transformer_depth=(1, 0)))
    generator = torch.Generator().manual_seed(2)
    x, context = torch.randn(4, 8, 8, 8, generator=generator), torch.randn(4, 1, 48, generator=generator)
    unet(x, torch.zeros(4), context, torch.randn(4, 48, generator=generator), 2).square().mean().backward()
    without = {name for name, parameter in unet.named_parameters() if parameter.grad is None}
    unused = ("attn2.to_q", "attn2.to_k", "norm2")  # the softmax over one token is 1
    assert without
    assert all(any(f".{part}." in name for part in unused) for name in without)
