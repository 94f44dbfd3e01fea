import math

import pytest
import torch
from einops import rearrange

from motion.errors import InjectionError
from motion.models.temporal_transformer import TemporalTransformer, sinusoidal_table
from tests.goldens import read_golden
from tests.weights_recipe import fill_module

PREFIX = "down_blocks.0.motion_modules.0.temporal_transformer."


@pytest.fixture
def transformer():
    module = TemporalTransformer(32, num_heads=8, max_length=24)
    fill_module(module, PREFIX)
    torch.manual_seed(0)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("golden", "channels", "max_length", "norm_over_frames"),
    [
        ("motion_module_v1_c32", 32, 24, False),
        ("motion_module_v2_c32", 32, 32, False),
        ("motion_module_sdxl_c64", 64, 32, True),
    ],
)
def test_equals_the_original(golden, channels, max_length, norm_over_frames):
    module = TemporalTransformer(channels, 8, max_length, norm_over_frames=norm_over_frames).requires_grad_(False)
    fill_module(module, PREFIX)
    tensors = read_golden(golden)
    inputs = [key for key in tensors if key.startswith("in.x_")]
    assert inputs
    for key in inputs:
        num_frames = tensors[key].shape[2]
        result = module(rearrange(tensors[key], "b c f h w -> (b f) c h w"), num_frames)
        expected = rearrange(tensors[key.replace("in.x_", "out.y_")], "b c f h w -> (b f) c h w")
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_table_holds_sines_and_cosines_of_the_position():
    table = sinusoidal_table(24, 32)
    assert table.shape == (1, 24, 32)
    assert table.dtype == torch.float32
    for position, pair in ((0, 0), (1, 0), (7, 3), (23, 15)):
        angle = position * 10_000 ** (-2 * pair / 32)
        assert table[0, position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[0, position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_norm_has_the_eps_of_the_original(transformer):
    assert transformer.norm.eps == 1e-6


def test_new_module_is_the_identity():
    x = torch.randn(8, 32, 3, 2)
    assert torch.equal(TemporalTransformer(32, num_heads=8, max_length=24)(x, num_frames=8), x)


def test_scale_zero_returns_the_input_itself(transformer):
    x = torch.randn(8, 32, 3, 2)
    assert transformer(x, num_frames=8, scale=0.0) is x


def test_scale_multiplies_the_branch_only(transformer):
    x = torch.randn(8, 32, 3, 2)
    branch = transformer(x, num_frames=8) - x
    torch.testing.assert_close(transformer(x, num_frames=8, scale=0.5), x + 0.5 * branch, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_frame_is_what_its_own_scale_makes_of_all_to_the_bit(transformer, dtype):
    x, scales = torch.randn(8, 32, 3, 2, dtype=dtype), (0.0, 0.3, 1.0, 1.7)
    module = transformer.to(dtype)
    each = torch.tensor(scales).repeat(2)[:, None, None, None]
    result = module(x, num_frames=4, scale=each)
    assert result.dtype == dtype
    for row, scale in enumerate(scales * 2):
        assert torch.equal(result[row], module(x, num_frames=4, scale=scale)[row])
    assert torch.equal(result[::4], x[::4])


def test_scales_of_frames_multiply_the_branch_by_hand(transformer):
    x, scales = torch.randn(8, 32, 3, 2), torch.linspace(0, 2, 8)[:, None, None, None]
    branch = transformer(x, num_frames=8) - x
    torch.testing.assert_close(transformer(x, num_frames=8, scale=scales), x + scales * branch, atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm_over_frames", [False, True])
def test_entries_do_not_see_one_another(transformer, norm_over_frames):
    transformer.norm_over_frames = norm_over_frames
    cond, uncond = torch.randn(2, 8, 32, 3, 2)
    together = transformer(torch.cat([cond, uncond]), num_frames=8)
    apart = torch.cat([transformer(cond, num_frames=8), transformer(uncond, num_frames=8)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=0)


def test_frames_see_one_another(transformer):
    x = torch.randn(8, 32, 3, 2)
    changed = x.clone()
    changed[7] = torch.randn(32, 3, 2)
    difference = (transformer(changed, num_frames=8) - transformer(x, num_frames=8)).abs().amax(dim=(1, 2, 3))
    assert (difference[:7] > 1e-4).all()


def test_pixels_of_a_frame_do_not_mix_after_the_norm(transformer):
    transformer.norm = torch.nn.Identity()
    x = torch.randn(4, 32, 3, 2)
    changed = x.clone()
    changed[:, :, 0, 0] = torch.randn(4, 32)
    difference = (transformer(changed, num_frames=4) - transformer(x, num_frames=4)).abs().amax(dim=(0, 1))
    assert difference[0, 0] > 0.1
    assert difference.flatten()[1:].max() == 0


def test_two_runs_are_bit_identical(transformer):
    x = torch.randn(32, 32, 4, 4)
    assert torch.equal(transformer(x, num_frames=16), transformer(x, num_frames=16))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near_float32(transformer, dtype):
    x = torch.randn(16, 32, 3, 2)
    expected = transformer(x, num_frames=16)
    result = transformer.to(dtype)(x.to(dtype), num_frames=16)
    assert result.dtype == dtype
    # A value near 8 has a bfloat16 step of 2^-5; a few roundings add up.
    torch.testing.assert_close(result.float(), expected, atol=0.02 if dtype == torch.float16 else 0.15, rtol=0)


def test_position_table_follows_the_tokens_dtype(transformer):
    x = torch.randn(4, 32, 2, 2, dtype=torch.float16)
    module = transformer.half()
    for attention in module.transformer_blocks[0].attention_blocks:
        attention.pos_encoder.float()
    assert module(x, num_frames=4).dtype == torch.float16


@pytest.mark.parametrize("num_frames", [0, -1, 25])
def test_refuses_frames_without_a_position(transformer, num_frames):
    with pytest.raises(InjectionError, match=rf"1 to 24 frame positions, got {num_frames} frames.*at most 24"):
        transformer(torch.zeros(25, 32, 2, 2), num_frames=num_frames)


def test_refuses_rows_that_are_no_whole_clips(transformer):
    with pytest.raises(InjectionError, match="whole number of clips of 8 frames, got 12 rows"):
        transformer(torch.zeros(12, 32, 2, 2), num_frames=8)
