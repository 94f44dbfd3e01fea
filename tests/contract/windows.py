"""Long clips: what runs in windows, what is seen of it meanwhile, and that nothing of it stays."""

from __future__ import annotations

import time

import numpy as np
import pytest

from tests.contract.clips import CLEARLY_DIFFERENT, decode_mp4, difference, read_parameters
from tests.contract.identity import unchanged
from tests.contract.refusals import check_refused
from tests.contract.rows import TOLERANCE, settings, words

FRAMES, LENGTH = 7, 4  # two windows, one frame shared
LONG = {"context_length": LENGTH, "context_schedule": "static"}
UNET = {**LONG, "window_scope": "unet"}


def clip(host, motion=UNET, **fields) -> np.ndarray:
    """A clip's frames as decoded, float32 [f, 3, h, w]."""
    answer = host.clip(frames=FRAMES, motion=motion, **{"override_settings": settings(), **fields})
    assert answer.status == 200, answer.message
    return host.decoded()


class WindowContract:
    @pytest.mark.parametrize("module", ["v2", pytest.param("v1", marks=pytest.mark.thorough)])
    def test_the_scope_says_what_runs_in_windows(self, host, module):
        pixels = {}
        for scope, rows, frames in (("attention", 2 * FRAMES, FRAMES), ("unet", 2 * LENGTH, LENGTH)):
            answer = host.clip(frames=FRAMES, module=module, motion={**LONG, "window_scope": scope})
            record = host.record()
            assert [call["rows"] for call in record["unet_calls"]] == [2 * FRAMES] * 2
            assert {(call["rows"], call["num_frames"]) for call in record["temporal_calls"]} == {(rows, frames)}
            mp4 = decode_mp4(answer.mp4s[0])
            assert len(mp4.frames) == FRAMES
            assert read_parameters(mp4.infotext)["Motion window scope"] == scope
            pixels[scope] = answer.pixels
            host.keep_frames(f"{FRAMES} frames, scope {scope}, {module}", answer.pixels)
        still = host.clip(frames=FRAMES, motion={"motion_scale": 0}).pixels
        assert min(difference(frames, still) for frames in pixels.values()) > CLEARLY_DIFFERENT

    def test_with_one_window_both_scopes_are_the_plain_clip(self, host):
        plain = clip(host, {"context_length": FRAMES})
        for scope in ("attention", "unet"):
            frames = clip(host, {"context_length": FRAMES, "window_scope": scope})
            np.testing.assert_allclose(frames, plain, atol=1e-5)

    def test_auto_names_the_scope_that_it_came_to(self, host):
        answer = host.clip(frames=FRAMES, motion=LONG)
        assert read_parameters(answer.info["infotexts"][0])["Motion window scope"] in ("attention", "unet")

    @pytest.mark.thorough
    def test_prompts_of_two_lengths_together_or_apart_and_joined_by_and(self, host):
        together = clip(host, prompt="a cat", negative_prompt=words(80), override_settings=settings(pad=True))
        apart = clip(host, prompt="a cat", negative_prompt=words(80), override_settings=settings(pad=True, batch=False))
        np.testing.assert_allclose(together, apart, atol=TOLERANCE)
        alone, halves = clip(host, prompt="a cat"), clip(host, prompt="a cat :0.5 AND a cat :0.5")
        np.testing.assert_allclose(halves, alone, atol=TOLERANCE)

    def test_conds_of_each_frame_follow_it_into_its_window(self, host):
        """Two windows without overlap: the second one is the clip of its frames alone."""
        alike = {"seed_behaviour": "same for all frames", "context_overlap": 0, "context_length": 3}
        fields = {"steps": 1, "override_settings": settings()}
        both = {**UNET, **alike, "context_schedule": "batched"}
        host.clip(frames=6, motion=both, prompt="0 hold: a red cat\n3: a blue dog", **fields)
        long = host.decoded()
        for part, prompt in ((slice(0, 3), "a red cat"), (slice(3, 6), "a blue dog")):
            host.clip(frames=3, motion=alike, prompt=prompt, **fields)
            np.testing.assert_allclose(long[part], host.decoded(), atol=TOLERANCE)

    def test_after_a_clip_whose_unet_ran_in_windows(self, host):
        with unchanged(host):
            assert host.clip(frames=FRAMES, motion=UNET, module="v1").status == 200

    def test_after_an_error_in_mid_window(self, host):
        with unchanged(host):
            answer = host.clip(frames=FRAMES, motion=UNET, probe={"raise_in_window": 2})
            assert (answer.status, answer.message) == (500, "probe: window 2")

    def test_progress_moves_and_an_interrupt_is_answered_within_a_step(self, host):
        fields = {"frames": 3 * (LENGTH - 1) * 4 + 1, "steps": 2, "motion": UNET}  # 12 windows
        with unchanged(host):
            thread, answers = host.clip_in_background(**fields, probe={"slow_window_seconds": 0.3})
            seen = self._watch(host, thread)
            host.post("/sdapi/v1/interrupt")
            thread.join(timeout=60)
            record = host.record()
        assert answers[0].status == 200
        assert len(answers[0].pixels) == fields["frames"]
        assert len(record["unet_calls"]) == 1  # two would be the clip
        windows = [int(text.split()[2]) for text, _ in seen]
        assert windows == sorted(set(windows))
        assert len(windows) >= 3
        shares = [share for _, share in seen]
        assert shares == sorted(shares)
        assert shares[-1] > shares[0]
        assert max(windows) < 12

    def _watch(self, host, thread) -> list[tuple[str, float]]:
        """(line of text, progress) of the first windows that the progress request names."""
        seen: dict[str, float] = {}
        while thread.is_alive() and len(seen) < 4:
            progress = host.get("/sdapi/v1/progress")
            text = progress["textinfo"] or ""
            if text.startswith("Motion: window "):
                seen.setdefault(text, progress["progress"])
            time.sleep(0.02)
        return list(seen.items())

    @pytest.mark.parametrize(
        ("motion", "expected"),
        [
            ({"window_scope": "clip"}, "`window_scope` must be one of 'auto', 'attention', 'unet', got 'clip'"),
            pytest.param({"window_scope": 3}, "window_scope.*got 3", marks=pytest.mark.thorough),
        ],
    )
    def test_a_bad_scope_is_refused(self, host, motion, expected):
        check_refused(host, expected, motion=motion)
