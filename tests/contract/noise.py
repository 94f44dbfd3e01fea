"""Which frames share noise, and FreeInit: what is sampled, what it is told, and that nothing of it stays."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contract.clips import CLEARLY_DIFFERENT, decode_mp4, difference, init_image, read_parameters
from tests.contract.identity import unchanged
from tests.contract.refusals import check_refused
from tests.contract.rows import TOLERANCE, settings

FRAMES, LENGTH = 6, 3
STILL = {"motion_scale": 0, "context_length": LENGTH, "context_overlap": 1}  # each frame is the picture of its noise
TWICE = {"freeinit_iterations": 2}
STEPS = 3


def clip(host, motion, frames=FRAMES, **fields) -> np.ndarray:
    """A clip's frames as decoded, float32 [f, 3, h, w]."""
    answer = host.clip(frames=frames, motion=motion, **{"override_settings": settings(), **fields})
    assert answer.status == 200, answer.message
    return host.decoded()


def twins(frames: np.ndarray) -> list[int]:
    """Frame -> the first frame that shows the same."""
    return [
        next(other for other in range(len(frames)) if np.abs(frame - frames[other]).max() <= TOLERANCE)
        for frame in frames
    ]


class NoiseContract:
    def test_repeated_noise_comes_again_after_a_window(self, host):
        assert twins(clip(host, {**STILL, "seed_behaviour": "repeated"})) == [0, 1, 2, 0, 1, 2]

    def test_freenoise_shuffles_the_first_windows_frames(self, host):
        frames = clip(host, {**STILL, "seed_behaviour": "FreeNoise"})
        shared = twins(frames)
        assert shared[:LENGTH] == [0, 1, 2]
        for start in (0, 2):  # windows of three that share a frame
            assert sorted(shared[start : start + LENGTH]) == [0, 1, 2]
        np.testing.assert_array_equal(frames, clip(host, {**STILL, "seed_behaviour": "FreeNoise"}))

    def test_seeds_of_single_frames_are_the_pictures_of_these_seeds(self, host):
        frames = clip(host, {**STILL, "frame_seeds": "7, 9 7"}, frames=3)
        assert twins(frames) == [0, 1, 0]
        for frame, seed in zip(frames[:2], (7, 9), strict=True):
            host.txt2img(seed=seed, probe={"record": True}, override_settings=settings())
            np.testing.assert_allclose(frame, host.decoded()[0], atol=TOLERANCE)

    @pytest.mark.parametrize(
        "fields",
        [{}, pytest.param({"sampler_name": "Euler a"}, marks=pytest.mark.thorough)],
        ids=["Euler", "ancestral"],
    )
    def test_freeinit_samples_the_clip_again(self, host, fields):
        once = clip(host, {}, steps=STEPS, **fields)
        answer = host.clip(frames=FRAMES, motion=TWICE, steps=STEPS, override_settings=settings(), **fields)
        calls = host.record()["unet_calls"]
        assert answer.status == 200, answer.message
        assert len(calls) == 2 * STEPS
        twice = host.decoded()
        assert np.abs(twice - once).mean() > 10 * TOLERANCE
        assert read_parameters(decode_mp4(answer.mp4s[0]).infotext)["Motion FreeInit"] == "2"
        np.testing.assert_array_equal(twice, clip(host, TWICE, steps=STEPS, **fields))

    def test_freeinit_of_a_picture(self, host):
        picture, fields = init_image(), {"frames": FRAMES, "steps": 4, "denoising_strength": 0.75}
        once = host.clip_from(picture, **fields)
        single = len(host.record()["unet_calls"])
        twice = host.clip_from(picture, motion=TWICE, **fields)
        assert twice.status == 200, twice.message
        assert len(host.record()["unet_calls"]) == 2 * single
        assert difference(twice.pixels, once.pixels) > CLEARLY_DIFFERENT

    @pytest.mark.parametrize("scope", ["attention", pytest.param("unet", marks=pytest.mark.thorough)])
    def test_freeinit_freenoise_and_windows_together(self, host, scope):
        motion = {**TWICE, "seed_behaviour": "FreeNoise", "context_length": LENGTH, "window_scope": scope}
        assert np.isfinite(clip(host, motion, steps=STEPS)).all()

    @pytest.mark.thorough
    def test_early_iterations_are_shorter_when_they_go_from_coarse_to_fine(self, host):
        clip(host, {"freeinit_iterations": 3, "freeinit_coarse_to_fine": True}, steps=6)
        assert 6 < len(host.record()["unet_calls"]) < 18

    def test_after_a_clip_that_was_sampled_twice(self, host):
        with unchanged(host):
            assert host.clip(motion=TWICE).status == 200

    def test_after_an_error_in_the_second_iteration(self, host):
        number = STEPS + 2
        with unchanged(host):
            answer = host.clip(motion=TWICE, steps=STEPS, probe={"raise_in_unet_call": number})
            assert (answer.status, answer.message) == (500, f"probe: UNet call {number}")

    @pytest.mark.parametrize(
        ("motion", "expected"),
        [
            ({"frame_seeds": "7, 8"}, r"frame_seeds.*each frame \(4\), got 2"),
            ({"freeinit_iterations": 0}, "freeinit_iterations.*from 1 to 10.*got 0"),
            pytest.param(
                {"frame_seeds": "1 2 3 4", "seed_behaviour": "repeated"},
                "seed_behaviour.*'per frame'",
                marks=pytest.mark.thorough,
            ),
            pytest.param({"freeinit_filter": "sinc"}, "freeinit_filter.*butterworth", marks=pytest.mark.thorough),
            pytest.param({"freeinit_d_s": 0}, "freeinit_d_s.*from 0.01", marks=pytest.mark.thorough),
        ],
    )
    def test_a_bad_value_is_refused(self, host, motion, expected):
        check_refused(host, expected, motion=motion)

    def test_named_seeds_for_several_clips_are_refused(self, host):
        check_refused(host, "Batch count must be 1, got 2", motion={"frame_seeds": "1 2 3 4"}, n_iter=2)
