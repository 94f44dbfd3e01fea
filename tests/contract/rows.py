"""Every way in which a host lays out the rows of a UNet call."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

FRAMES = 3
TOLERANCE = 1e-4  # of 1.0: other row counts make other matrix kernels, nothing else
LENGTHS = list(itertools.product((10, 80, 160), (0, 80, 200)))
FAST_LENGTHS = ((10, 80),)
TOKENS = ("cond_tokens", "uncond_tokens")


def words(count: int) -> str:
    """A prompt of `count` tokens."""
    return " ".join(["cat"] * count)


def settings(*, pad: bool = False, batch: bool = True, **more) -> dict:
    """Options for one request. All are named each time, since hosts let unnamed ones keep an earlier request's."""
    return {"pad_cond_uncond": pad, "batch_cond_uncond": batch, "skip_early_cond": 0.0, **more}


def made(host, **fields) -> np.ndarray:
    """A clip's frames as decoded, float32 [f, 3, h, w]; every temporal layer must have seen whole clips."""
    answer = host.clip(frames=FRAMES, **{"override_settings": settings(), **fields})
    assert answer.status == 200, answer.message
    calls = host.record()["temporal_calls"]
    assert calls
    assert all(call["num_frames"] == FRAMES and call["rows"] % FRAMES == 0 for call in calls)
    return host.decoded()


def rows_of_calls(host) -> list[int]:
    return [call["rows"] for call in host.record()["unet_calls"]]


class RowsContract:
    @pytest.mark.parametrize(
        ("prompt", "negative"),
        [
            pytest.param(*pair, marks=() if pair in FAST_LENGTHS else pytest.mark.thorough, id="{}-{}".format(*pair))
            for pair in LENGTHS
        ],
    )
    def test_prompts_of_any_length_padded_or_not_together_or_apart(self, host, prompt, negative):
        fields = {"prompt": words(prompt), "negative_prompt": words(negative)}
        results = {}
        for pad, batch in itertools.product((False, True), (True, False)):
            results[pad, batch] = made(host, override_settings=settings(pad=pad, batch=batch), **fields)
            lengths_differ = len({step[key][1] for step in host.record()["steps"] for key in TOKENS}) > 1
            together = host.kind == "forge" or (batch and (pad or not lengths_differ))
            assert rows_of_calls(host) == ([2 * FRAMES] * 2 if together else [FRAMES] * 4)
        for pad in (False, True):
            np.testing.assert_allclose(results[pad, True], results[pad, False], atol=TOLERANCE)

    def test_prompts_joined_by_and_are_entries_of_their_own(self, host):
        alone = made(host, prompt="a cat")
        silent = made(host, prompt="a cat AND a red balloon :0")
        assert rows_of_calls(host) == [3 * FRAMES] * 2
        halves = made(host, prompt="a cat :0.5 AND a cat :0.5")
        np.testing.assert_allclose(silent, alone, atol=TOLERANCE)
        np.testing.assert_allclose(halves, alone, atol=TOLERANCE)
        assert np.abs(made(host, prompt="a cat AND a red balloon") - alone).mean() > 10 * TOLERANCE

    @pytest.mark.thorough
    def test_two_entries_with_a_longer_negative_prompt(self, host):
        fields = {"negative_prompt": words(80)}
        silent = made(host, prompt="a cat AND a red balloon :0", **fields)
        expected = [3 * FRAMES] if host.kind == "forge" else [2 * FRAMES, FRAMES]
        assert rows_of_calls(host) == expected * 2
        np.testing.assert_allclose(silent, made(host, prompt="a cat", **fields), atol=TOLERANCE)

    @pytest.mark.parametrize(
        ("prompt", "negative", "batch"),
        [
            ("a cat AND a balloon", "", False),
            pytest.param("a cat AND a balloon AND a tree", words(80), True, marks=pytest.mark.thorough),
            pytest.param("a cat AND a balloon AND a tree", "", False, marks=pytest.mark.thorough),
        ],
    )
    def test_and_that_would_split_a_clip_is_refused_by_name(self, host, prompt, negative, batch):
        written = host.written_files()
        fields = {"prompt": prompt, "negative_prompt": negative, "override_settings": settings(batch=batch)}
        if host.kind == "forge":  # its calls hold whole entries whatever their length, so there is nothing to refuse
            made(host, **fields)
            return
        answer = host.clip(frames=FRAMES, **fields)
        assert answer.status == 422
        assert "AND" in answer.message
        assert host.written_files() == written

    def test_calls_without_the_negative_prompt(self, host):
        fields = {"negative_prompt": "fog", "cfg_scale": 1}
        both = made(host, **fields)
        early = made(host, override_settings=settings(skip_early_cond=1.0), **fields)
        assert rows_of_calls(host) == [FRAMES] * 2
        np.testing.assert_allclose(early, both, atol=TOLERANCE)

    @pytest.mark.thorough
    def test_negative_guidance_that_stops_below_a_noise_level(self, host):
        made(host, negative_prompt="fog", steps=4, s_min_uncond=4.0)
        assert rows_of_calls(host)[0] == 2 * FRAMES
        assert FRAMES in rows_of_calls(host)
