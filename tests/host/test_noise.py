"""Frames that share noise, and named seeds, in the embedded host: what is sampled from what."""

import numpy as np
import pytest
from PIL import Image

from motion.errors import SettingsError
from motion.noise.frame_sources import shuffled_sources
from tests.standalone import tiny_host

FRAMES = 8
STILL = {"num_frames": FRAMES, "motion_scale": 0, "context_length": 4, "context_overlap": 1}  # pictures of their own
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
SOURCES = {
    "same for all frames": (0,) * FRAMES,
    "repeated": (0, 1, 2, 3) * 2,
    "FreeNoise": shuffled_sources(FRAMES, 4, 1, seed=7),
}


def frames_of(clip):
    return [image.tobytes() for image in clip.images]


@pytest.mark.parametrize("behaviour", SOURCES)
@pytest.mark.parametrize(
    "fields",
    [{}, {"sampler_name": "Euler a"}, {"sampler_name": "LCM"}, HIRES, {"subseed": 3, "subseed_strength": 0.4}],
    ids=["Euler", "Euler a", "LCM", "hires", "variation"],
)
def test_frames_are_the_pictures_of_their_sources(studio, behaviour, fields):
    """In all noise that a request draws: of the start, of ancestral steps, of the hires pass, of a variation."""
    pictures = studio.still(batch_size=FRAMES, **fields)
    clip = studio.clip({**STILL, "seed_behaviour": behaviour}, **fields)
    assert frames_of(clip) == [pictures[source] for source in SOURCES[behaviour]]
    assert len(set(pictures)) == FRAMES


@pytest.mark.parametrize("behaviour", SOURCES)
def test_sampling_from_a_picture(studio, behaviour):
    fields = {"init_images": [Image.new("RGB", (32, 32), "red")], "steps": 4, "make": tiny_host.img2img}
    clip = studio.clip({**STILL, "seed_behaviour": behaviour}, **fields)
    assert clip.all_seeds == [7 + source for source in SOURCES[behaviour]]


def test_each_of_several_clips_is_what_it_is_alone(studio):
    asked = {**STILL, "seed_behaviour": "FreeNoise"}
    both = studio.clip(asked, n_iter=2)
    first, second = (studio.clip(asked, seed=seed) for seed in (7, 7 + FRAMES))
    assert frames_of(both) == frames_of(first) + frames_of(second)
    assert [seed - 7 for seed in first.all_seeds] != [seed - 7 - FRAMES for seed in second.all_seeds]


def test_a_clip_of_one_window_has_nothing_to_repeat(studio):
    plain = frames_of(studio.clip({"num_frames": 4}))
    for behaviour in ("repeated", "FreeNoise"):
        assert frames_of(studio.clip({"num_frames": 4, "seed_behaviour": behaviour})) == plain


def test_seeds_of_single_frames(studio):
    pictures = studio.still(batch_size=FRAMES)
    clip = studio.clip({**STILL, "frame_seeds": "9, 9, 7; 7 8 8 7 10"})
    assert clip.all_seeds == [9, 9, 7, 7, 8, 8, 7, 10]
    assert frames_of(clip) == [pictures[seed - 7] for seed in clip.all_seeds]
    assert "Motion frame seeds: 9 9 7 7 8 8 7 10" in clip.infotexts[0]


@pytest.mark.parametrize(
    ("asked", "fields", "message"),
    [
        ({"frame_seeds": [1, 2]}, {}, r"must hold one seed for each frame \(8\), got 2. Write as many, or none"),
        (
            {"frame_seeds": "1 2 3 4 5 6 7 8", "seed_behaviour": "FreeNoise"},
            {},
            "`seed_behaviour` must be 'per frame' where `frame_seeds` names each frame's seed, got 'FreeNoise'",
        ),
        ({"frame_seeds": "1 2 3 4 5 6 7 8"}, {"n_iter": 2}, "Batch count must be 1, got 2"),
    ],
)
def test_seeds_that_do_not_go_together_are_refused(studio, asked, fields, message):
    with pytest.raises(SettingsError, match=message):
        studio.clip({**STILL, **asked}, **fields)


def test_shared_noise_and_motion(studio):
    """Frames of one noise differ by where the motion module sees them."""
    clip = studio.clip({**STILL, "motion_scale": 1, "seed_behaviour": "same for all frames"})
    frames = np.stack([np.asarray(image, dtype=int) for image in clip.images])
    assert np.abs(np.diff(frames, axis=0)).mean() > 0.1
