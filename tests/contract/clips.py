"""Clips: what comes back, that the temporal layers made it, and that it is the host's own batch without them."""

from __future__ import annotations

import io
import re
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from motion.settings import MotionSettings
from tests.contract.client import decode_gif, decode_mp4

CLEARLY_DIFFERENT = 2.0  # mean difference of 8-bit pixels; equal settings give 0
LOSSY = 8.0  # of the brightness of a frame and itself after H.264; these pictures are nearly noise


def read_parameters(infotext: str) -> dict[str, str]:
    """The last line of an infotext as a dictionary."""
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', infotext.splitlines()[-1])
    return {key: value.strip('"') for key, value in pairs}


def init_image(size: int = 64) -> bytes:
    """A PNG with a gradient."""
    ramp = np.linspace(0, 255, size, dtype=np.uint8)
    pixels = np.stack([np.tile(ramp, (size, 1)), np.tile(ramp[:, None], (1, size)), np.full((size, size), 90)], -1)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean absolute difference of two uint8 arrays."""
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def brightness(frames: np.ndarray) -> np.ndarray:
    """What H.264 with halved colour keeps of uint8 [f, h, w, 3]."""
    return frames @ np.array([0.2126, 0.7152, 0.0722])


class ClipContract:
    @pytest.mark.parametrize(
        "module", ["v2", pytest.param("v1", marks=pytest.mark.thorough), pytest.param("v3", marks=pytest.mark.thorough)]
    )
    def test_sixteen_frames_come_back_as_files_that_name_their_settings(self, host, module):
        asked = {"formats": ["MP4", "GIF"], "fps": "25/2", "loop_count": 3, "motion_scale": 0.9}
        answer = host.clip(module=module, frames=16, motion=asked)
        mp4, gif = decode_mp4(answer.mp4s[0]), decode_gif(answer.gifs[0])
        assert len(answer.files) == 2
        assert mp4.frames.shape == gif.frames.shape == (16, 64, 64, 3)
        assert mp4.fps == gif.fps == Fraction(25, 2)
        assert mp4.infotext == gif.infotext == answer.info["infotexts"][0]
        named = MotionSettings.from_infotext(read_parameters(mp4.infotext))
        assert named == MotionSettings.from_mapping(
            {"enabled": True, "motion_module": module, "num_frames": 16, **asked}
        )
        host.keep_frames(f"16 frames {module}", mp4.frames)

    @pytest.mark.thorough
    @pytest.mark.parametrize("fps", ["24000/1001", 1, 60, 0.25])
    def test_the_mp4_has_exactly_the_rate_that_was_asked_for(self, host, fps):
        assert decode_mp4(host.clip(frames=2, motion={"fps": fps}).mp4s[0]).fps == Fraction(fps)

    def test_every_temporal_layer_sees_the_frames_of_one_entry(self, host):
        host.clip(frames=4)
        record = host.record()
        assert [call["rows"] for call in record["unet_calls"]] == [8, 8]
        assert len(record["temporal_calls"]) == 2 * 21  # v2 has a module in the middle block
        assert {(call["rows"], call["num_frames"]) for call in record["temporal_calls"]} == {(8, 4)}

    def test_the_module_changes_the_frames_and_scale_zero_is_the_hosts_own_batch(self, host):
        moving = host.clip(frames=4).pixels
        still = host.clip(frames=4, motion={"motion_scale": 0}).pixels
        batch = host.txt2img(batch_size=4).pixels
        assert difference(moving, still) > CLEARLY_DIFFERENT
        assert np.array_equal(still, batch)

    def test_the_mp4_shows_the_frames_in_order(self, host):
        answer = host.clip(frames=4)
        in_mp4, in_png = brightness(decode_mp4(answer.mp4s[0]).frames), brightness(answer.pixels)
        distances = np.array([[difference(shown, frame) for frame in in_png] for shown in in_mp4])
        assert distances.argmin(axis=1).tolist() == [0, 1, 2, 3]
        assert distances.diagonal().max() < LOSSY

    def test_one_seed_for_all_frames(self, host):
        alike = host.clip(frames=4, motion={"seed_behaviour": "same for all frames", "motion_scale": 0})
        assert (alike.pixels == alike.pixels[:1]).all()
        assert alike.info["all_seeds"] == [1, 1, 1, 1]
        assert host.clip(frames=4).info["all_seeds"] == [1, 2, 3, 4]

    def test_two_clips_are_each_what_they_are_alone(self, host):
        both = host.clip(frames=3, n_iter=2)
        assert len(both.mp4s) == 2
        assert np.array_equal(both.pixels[:3], host.clip(frames=3).pixels)
        assert np.array_equal(both.pixels[3:], host.clip(frames=3, seed=4).pixels)

    @pytest.mark.thorough
    @pytest.mark.parametrize("module", ["v1", "v2", "v3"])
    @pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M Karras", "DDIM", "LCM"])
    def test_samplers(self, host, sampler, module):
        answer = host.clip(frames=4, module=module, sampler_name=sampler, steps=3)
        still = host.txt2img(batch_size=4, sampler_name=sampler, steps=3)
        assert difference(answer.pixels, still.pixels) > CLEARLY_DIFFERENT
        assert answer.pixels.std() > CLEARLY_DIFFERENT
        host.keep_frames(f"{sampler} {module}", answer.pixels)

    @pytest.mark.thorough
    @pytest.mark.parametrize("sampler", ["Euler", "DDIM", "LCM"])
    def test_from_a_picture(self, host, sampler):
        fields = {"denoising_strength": 0.6, "steps": 4, "sampler_name": sampler}
        answer = host.clip_from(init_image(), frames=4, **fields)
        still = host.img2img(init_image(), batch_size=4, **fields)
        assert decode_mp4(answer.mp4s[0]).frames.shape == (4, 64, 64, 3)
        assert difference(answer.pixels, still.pixels) > CLEARLY_DIFFERENT
        host.keep_frames(f"img2img {sampler}", answer.pixels)

    def test_hires_pass(self, host):
        fields = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.6}
        answer = host.clip(frames=3, **fields)
        record = host.record()
        assert decode_mp4(answer.mp4s[0]).frames.shape == (3, 128, 128, 3)
        sizes = [call["height"] for call in record["unet_calls"]]
        assert sizes.count(8) == 2
        assert sizes.count(16) >= 1
        assert len(record["temporal_calls"]) == 21 * len(sizes)
        host.keep_frames("hires", answer.pixels)
