"""Prompts that travel: every frame is sampled with the conds, and the guidance, that its keyframes say."""

from __future__ import annotations

import numpy as np
import pytest

from motion.conditioning.prompt_travel import read_prompt
from tests.contract.client import decode_mp4
from tests.contract.refusals import check_refused
from tests.contract.rows import TOLERANCE, rows_of_calls, settings, words

FRAMES = 4
STILL = {"motion_scale": 0}  # frames don't see each other, so that each is the picture of its prompt
PROMPT = "a photo,\n0 hold: a red cat\n2: a blue dog\nin a room"
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.6}


def clip(host, **fields) -> np.ndarray:
    """A clip's frames as decoded, float32 [f, 3, h, w]."""
    answer = host.clip(frames=FRAMES, **{"override_settings": settings(), **fields})
    assert answer.status == 200, answer.message
    return host.decoded()


def stills(host, **fields) -> np.ndarray:
    """The same of the host's own batch."""
    host.txt2img(batch_size=FRAMES, probe={"record": True}, **{"override_settings": settings(), **fields})
    return host.decoded()


class TravelContract:
    @pytest.mark.parametrize("hires", [{}, pytest.param(HIRES, marks=pytest.mark.thorough)], ids=["plain", "hires"])
    def test_frames_are_the_pictures_of_their_keyframes(self, host, hires):
        frames = clip(host, prompt=PROMPT, motion=STILL, **hires)
        for part, text in ((slice(0, 2), "a red cat"), (slice(2, 4), "a blue dog")):
            batch = stills(host, prompt=f"a photo, {text}, in a room", **hires)
            np.testing.assert_allclose(frames[part], batch[part], atol=TOLERANCE)
        assert np.abs(frames[0] - batch[0]).mean() > 10 * TOLERANCE

    @pytest.mark.parametrize("method", ["slerp", pytest.param("lerp", marks=pytest.mark.thorough)])
    def test_frames_between_lie_between(self, host, method):
        motion = {**STILL, "seed_behaviour": "same for all frames", "prompt_interpolation": method}
        frames = clip(host, prompt="0: a red cat\n3: a blue dog", motion=motion)
        steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
        assert (steps > TOLERANCE).all()
        assert steps.max() < 0.7 * np.abs(frames[-1] - frames[0]).mean()

    def test_keyframes_and_negative_prompts_of_any_length_in_one_clip(self, host):
        fields = {"prompt": f"0 hold: cat\n2: {words(160)}", "negative_prompt": f"0: {words(80)}\n3: fog"}
        answer = host.clip(frames=FRAMES, override_settings=settings(), **fields)
        assert answer.status == 200, answer.message
        for step in host.record()["steps"]:
            assert (step["cond_tokens"], step["uncond_tokens"]) == ([FRAMES, 231], [FRAMES, 154])
        assert {call["num_frames"] for call in host.record()["temporal_calls"]} == {FRAMES}

    @pytest.mark.thorough
    def test_cond_and_uncond_together_or_apart(self, host):
        fields = {"prompt": PROMPT, "negative_prompt": "0: fog\n2: rain"}
        together = clip(host, **fields)
        apart = clip(host, override_settings=settings(batch=False), **fields)
        if host.kind != "forge":
            assert rows_of_calls(host) == [FRAMES] * 4
        np.testing.assert_allclose(together, apart, atol=TOLERANCE)

    @pytest.mark.thorough
    def test_prompt_editing_inside_a_keyframe(self, host):
        frames = clip(host, prompt="0 hold: a [cat:dog:2]\n2: a bird", motion=STILL, steps=4)
        batch = stills(host, prompt="a [cat:dog:2]", steps=4)
        np.testing.assert_allclose(frames[:2], batch[:2], atol=TOLERANCE)

    def test_guidance_of_single_frames(self, host):
        fields = {"cfg_scale": 6, "negative_prompt": "fog"}
        frames = clip(host, prompt="a cat\n0 hold cfg=3:\n2 cfg=12:", motion=STILL, **fields)
        for part, cfg_scale in ((slice(0, 2), 3), (slice(2, 4), 12)):
            batch = stills(host, **{**fields, "prompt": "a cat", "cfg_scale": cfg_scale})
            np.testing.assert_allclose(frames[part], batch[part], atol=10 * TOLERANCE)
        assert np.abs(frames[0] - batch[0]).mean() > 100 * TOLERANCE

    def test_the_clip_says_what_was_typed(self, host):
        negative = "0: fog\n3: rain"
        answer = host.clip(frames=FRAMES, prompt=PROMPT, negative_prompt=negative)
        assert decode_mp4(answer.mp4s[0]).infotext.startswith(f"{PROMPT}\nNegative prompt: {negative}\nSteps: 2")
        assert (answer.info["prompt"], answer.info["negative_prompt"]) == (PROMPT, negative)

    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [
            ("0: a cat\na dog\n3: a bird", "Prompt line 'a dog': every line between"),
            pytest.param("0: a cat\n9: a dog", "'9: a dog': Frame 9 is outside the clip", marks=pytest.mark.thorough),
            pytest.param("0: a cat AND a dog", "without AND", marks=pytest.mark.thorough),
            pytest.param("0: <lora:style:1>", "<lora:style:1> can't change", marks=pytest.mark.thorough),
        ],
    )
    def test_a_malformed_prompt_is_refused_and_quoted(self, host, prompt, expected):
        check_refused(host, expected, prompt=prompt)

    @pytest.mark.thorough
    def test_lines_without_keyframes_are_an_ordinary_prompt(self, host):
        prompt = "a photo: cat,\n16:9\n2 dogs: a portrait"
        assert not read_prompt(prompt).is_travel
        frames = clip(host, prompt=prompt, motion=STILL)
        np.testing.assert_allclose(frames, stills(host, prompt=prompt), atol=TOLERANCE)
