import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motion.errors import SettingsError
from motion.svd.choices import GUIDANCE_SHAPES
from motion.svd.guidance import guidance_scales, guide
from tests.goldens import read_golden

GOLDEN = read_golden("svd_math")
SCALES = [key for key in GOLDEN if key.startswith("out.guider_scale_f")]


@pytest.mark.parametrize("key", SCALES)
def test_linear_equals_the_original(key):
    num_frames, lowest, highest = key.removeprefix("out.guider_scale_f").split("_")
    result = guidance_scales("linear", int(num_frames), float(lowest), float(highest))
    torch.testing.assert_close(result, GOLDEN[key], atol=2e-5, rtol=0)


def test_guide_equals_the_original():
    uncond, cond = GOLDEN["in.guider_x"].chunk(2)  # two clips of six frames each
    result = guide(uncond, cond, guidance_scales("linear", 6, 1.0, 2.5))
    torch.testing.assert_close(result, GOLDEN["out.guider_y"], atol=2e-5, rtol=0)


@given(st.sampled_from(GUIDANCE_SHAPES), st.integers(1, 60), st.floats(0, 5), st.floats(0, 5))
def test_scales_stay_between_their_ends(shape, num_frames, min_scale, more):
    scales = guidance_scales(shape, num_frames, min_scale, min_scale + more)
    assert scales.shape == (num_frames,)
    assert scales.min() >= min_scale - 1e-5
    assert scales.max() <= min_scale + more + 1e-5


@given(st.integers(2, 60), st.floats(0, 5), st.floats(0, 5))
def test_triangle_is_the_same_from_both_ends(num_frames, first, middle):
    scales = guidance_scales("triangle", num_frames, first, middle)
    torch.testing.assert_close(scales, scales.flip(0), atol=1e-5, rtol=0)
    assert scales[0].item() == pytest.approx(first, abs=1e-5)
    if num_frames % 2:
        assert scales[num_frames // 2].item() == pytest.approx(middle, abs=1e-5)


@given(st.floats(0, 5))
def test_scale_one_is_the_conditioned_prediction_and_zero_the_other(value):
    uncond, cond = torch.full((4, 1, 1, 1), value), torch.ones(4, 1, 1, 1)
    torch.testing.assert_close(guide(uncond, cond, torch.ones(4)), cond)
    torch.testing.assert_close(guide(uncond, cond, torch.zeros(2)), uncond)


def test_constant_is_the_highest():
    assert guidance_scales("constant", 3, 1.0, 2.5).tolist() == [2.5] * 3


def test_what_can_not_be():
    with pytest.raises(SettingsError, match="one of linear, triangle, constant, got 'cosine'"):
        guidance_scales("cosine", 4, 1.0, 2.0)
    with pytest.raises(SettingsError, match="`num_frames` must be at least 1, got 0"):
        guidance_scales("linear", 0, 1.0, 2.0)
