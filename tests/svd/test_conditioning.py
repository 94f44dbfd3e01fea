import pytest
import torch
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as oracle

from motion.svd.conditioning import CLIP_MEAN, CLIP_STD, ClipConditions, clip_pixels, embed_vector
from tests.goldens import read_golden


def assert_close(result, expected):
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["down", "up"])
def test_clip_pixels_equal_the_original(name):
    golden = read_golden("svd_clip_preprocess")
    result = clip_pixels(golden[f"in.image_{name}_u8"].float() / 127 - 1)
    assert_close(result[:, :, 60:160, 60:160][:, :, ::2, ::2], golden["out.crop_" + name])
    assert_close(result[:, :, ::16], golden["out.rows_" + name])
    assert_close(result.mean((2, 3)), golden["out.mean_" + name])


@pytest.mark.parametrize("size", [(30, 47), (56, 200), (130, 61)])
def test_clip_pixels_of_another_size_equal_diffusers(size):
    pictures = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mean, std = (torch.tensor(values)[:, None, None] for values in (CLIP_MEAN, CLIP_STD))
    expected = (oracle._resize_with_antialiasing(pictures, (56, 56)) + 1) / 2
    assert_close(clip_pixels(pictures, 56), (expected - mean) / std)


def test_a_strip_is_blurred_as_far_as_it_reaches():
    assert clip_pixels(torch.zeros(1, 3, 2, 4000), 16).isfinite().all()


def test_vector_equals_the_original():
    golden = read_golden("svd_math")
    rows = [embed_vector(*row.tolist()) for row in golden["in.vector_conditioning"]]
    assert_close(torch.cat(rows), golden["out.vector"])


def test_unconditional_has_no_picture_and_the_same_numbers():
    conditions = ClipConditions(torch.ones(1, 1, 4), torch.ones(1, 4, 2, 2), torch.ones(1, 6))
    without = conditions.unconditional()
    assert not without.embedding.any()
    assert not without.latents.any()
    assert without.vector is conditions.vector
