"""The A1111 adapter knows which row of a UNet call is which frame, for every way that host splits a step."""

from types import SimpleNamespace

import pytest
import torch

from motion.errors import InjectionError
from motion.protocols import BetaSchedule

pytestmark = pytest.mark.usefixtures("web_ui")

FRAMES = 4


def calls(num_entries, splits, *, num_unconds=1):
    """Layouts of one step's calls: `num_entries` conds per frame, then the unconds, cut into calls of `splits` rows."""
    from motion.host.a1111 import A1111Host

    host = A1111Host(SimpleNamespace(), FRAMES)
    host.begin_step(num_entries * FRAMES, (num_entries + num_unconds) * FRAMES)
    return [host.rows_of_call(rows).rows for rows in splits]


def frames_from(start, step=1):
    return tuple(range(start, start + step * FRAMES, step))


def test_cond_and_uncond_together():
    assert calls(1, [8]) == [(frames_from(0), frames_from(4))]


def test_cond_and_uncond_apart():
    """Other token counts, or batching of cond and uncond off."""
    assert calls(1, [4, 4]) == [(frames_from(0),), (frames_from(0),)]


def test_uncond_skipped():
    """skip_early_cond, NGMS: the callback saw the unconds, the UNet does not."""
    assert calls(1, [4]) == [(frames_from(0),)]


def test_and_is_interleaved_per_frame():
    assert calls(2, [12]) == [(frames_from(0, 2), frames_from(1, 2), frames_from(8))]
    assert calls(3, [16]) == [(frames_from(0, 3), frames_from(1, 3), frames_from(2, 3), frames_from(12))]


def test_and_with_unequal_tokens_but_whole_conds():
    assert calls(2, [8, 4]) == [(frames_from(0, 2), frames_from(1, 2)), (frames_from(0),)]


@pytest.mark.parametrize(("entries", "splits"), [(2, [4, 4, 4]), (3, [8, 4, 4]), (3, [4, 4, 4, 4])])
def test_and_in_split_calls_is_refused_by_name(entries, splits):
    with pytest.raises(InjectionError, match="A prompt with AND was split"):
        calls(entries, splits)


def test_edit_models_have_two_unconds():
    assert calls(1, [12], num_unconds=2) == [(frames_from(0), frames_from(4), frames_from(8))]


def test_calls_outside_the_denoiser_are_whole_clips():
    assert calls(1, [8, 4])[1] == (frames_from(0),)
    with pytest.raises(InjectionError, match="whole number of clips of 4 frames, got 3 rows"):
        calls(1, [8, 3])


@pytest.mark.parametrize("swallowed", [True, False])
def test_a_checkpoint_loaded_in_mid_clip_keeps_its_own_schedule(swallowed):
    """The hires checkpoint goes into the same model object. A file without a schedule makes ours its original."""
    from motion.host.a1111 import A1111Host
    from motion.injection.beta_schedule import alphas_cumprod

    own, other = (alphas_cumprod(BetaSchedule("scaled_linear", end=end)) for end in (0.012, 0.013))
    model = SimpleNamespace(alphas_cumprod=own, alphas_cumprod_original=own)
    with A1111Host(SimpleNamespace(sd_model=model), FRAMES).beta_schedule(BetaSchedule("linear")):
        assert not torch.equal(model.alphas_cumprod, own)
        if not swallowed:
            model.alphas_cumprod.copy_(other)  # load_state_dict writes the file's into the buffer
        model.alphas_cumprod_original = model.alphas_cumprod
    expected = own if swallowed else other
    assert torch.equal(model.alphas_cumprod, expected)
    assert torch.equal(model.alphas_cumprod_original, expected)


def test_conds_that_are_no_whole_clips_are_refused():
    from motion.host.a1111 import A1111Host

    host = A1111Host(SimpleNamespace(), FRAMES)
    host.begin_step(5, 9)
    with pytest.raises(InjectionError, match="whole number of clips of 4 frames, got 9 rows"):
        host.rows_of_call(9)
