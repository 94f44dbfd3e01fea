"""Strength of the motion by frame and by step, from a request to the modules, in the embedded host."""

import numpy as np
import pytest
import torch
from PIL import Image

from motion.errors import SettingsError
from motion.models.temporal_transformer import TemporalTransformer
from motion.settings import MotionSettings
from motion.standalone.infotext import parse_generation_parameters
from tests.host.conftest import FRAMES
from tests.networks import assert_same_state, state_of
from tests.standalone import tiny_host

STEPS = 4


def pixels(processed):
    return np.stack([np.asarray(image, dtype=np.int16) for image in processed.images if not isinstance(image, str)])


@pytest.fixture
def scales():
    """Scale of each temporal transformer's call: a number, or those of the rows."""
    seen = []

    def spy(module, args):
        if isinstance(module, TemporalTransformer):
            scale = args[2]
            seen.append(tuple(scale.flatten().tolist()) if isinstance(scale, torch.Tensor) else scale)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(spy)
    yield seen
    handle.remove()


def test_constant_list_and_keyframes_are_the_same_clip_to_the_bit(studio):
    asked = [
        {"motion_scale": 0.6},
        {"motion_scale": 1, "motion_scale_frames": "0.6"},
        {"motion_scale_frames": [0.6] * FRAMES},
        {"motion_scale_frames": "0: 0.6, -1: 0.6"},
    ]
    first, *others = (pixels(studio.clip(motion)) for motion in asked)
    assert all((other == first).all() for other in others)
    assert (pixels(studio.clip()) != first).any()


def test_frames_get_the_product_of_field_scale_and_prompt(studio, scales):
    motion = {"motion_scale": 0.5, "motion_scale_frames": "0: 1, -1: 0.4"}
    studio.clip(motion, prompt="a boat\n0 motion=2:\n3 motion=1:", cfg_scale=7)
    expected = [0.5 * frame * prompt for frame, prompt in zip((1, 0.8, 0.6, 0.4), (2, 5 / 3, 4 / 3, 1), strict=True)]
    assert {len(scale) for scale in scales} == {2 * FRAMES}
    for scale in scales:
        assert scale == pytest.approx(expected * 2)


def test_motion_of_the_prompt_alone_reaches_the_modules(studio, scales):
    moving = pixels(studio.clip(prompt="a boat"))
    assert set(scales) == {1.0}
    scales.clear()
    still = pixels(studio.clip(prompt="a boat\n0 motion=0:"))
    assert not scales
    assert (still == pixels(studio.clip({"motion_scale": 0}, prompt="a boat"))).all()
    assert (still != moving).any()


@pytest.mark.parametrize("module", ["v1", "v2"])
def test_motion_runs_in_its_share_of_the_steps(studio, scales, module):
    whole = studio.clip({"motion_module": module}, steps=STEPS)
    sites = len(scales) // STEPS
    for start, end, num_steps in ((0, 0.5, 2), (0.5, 1, 2), (0.25, 0.5, 1), (0, 1, 4)):
        scales.clear()
        motion = {"motion_module": module, "motion_start": start, "motion_end": end}
        clip = studio.clip(motion, steps=STEPS)
        assert len(scales) == num_steps * sites
        assert (pixels(clip) == pixels(whole)).all() == (num_steps == STEPS)


def test_picture_to_picture_counts_the_steps_that_it_takes(studio, scales):
    picture = {"init_images": [Image.new("RGB", (32, 32), "teal")], "denoising_strength": 0.5}  # 5 of 8 steps run
    counts = []
    for end in (1.0, 0.5):
        scales.clear()
        studio.clip({"motion_end": end}, make=tiny_host.img2img, steps=8, **picture)
        counts.append(len(scales))
    assert counts[1] / counts[0] == 3 / 5


def test_the_hires_pass_and_freeinit_count_their_own_steps(studio, scales):
    hires = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "hr_second_pass_steps": STEPS}
    for motion, fields in (({}, {**hires, "denoising_strength": 1.0}), ({"freeinit_iterations": 2}, {})):
        counts = []
        for end in (1.0, 0.5):
            scales.clear()
            studio.clip({"motion_end": end, **motion}, steps=STEPS, **fields)
            counts.append(len(scales))
        assert counts[1] * 2 == counts[0]


@pytest.mark.parametrize("scope", ["attention", "unet"])
def test_windows_get_the_scales_of_their_frames(studio, scales, scope):
    motion = {"context_length": 2, "context_overlap": 1, "context_schedule": "static", "window_scope": scope}
    studio.clip({**motion, "motion_scale_frames": "0, 0.5, 1, 1.5"}, steps=1)
    expected = {(0.0, 0.5, 1.0, 1.5)} if scope == "attention" else {(0.0, 0.5), (0.5, 1.0), (1.0, 1.5)}
    assert set(scales) == {each * 2 for each in expected}  # of cond and uncond


def test_the_infotext_restores_it(studio):
    motion = {"motion_scale_frames": "0: 1, 0.5 ease-in: 0.3, -1: 1", "motion_start": 0.25, "motion_end": 0.75}
    clip = studio.clip(motion, steps=STEPS)
    read = MotionSettings.from_infotext(parse_generation_parameters(clip.infotexts[0]))
    assert {name: getattr(read, name) for name in motion} == motion


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"motion_scale_frames": "1, 0.5"}, "one for each (4), or keyframes, got 2 values"),
        ({"motion_scale_frames": "0: 1, 3: fast"}, "entry '3: fast': motion must be a number from 0 to 2, got 'fast'"),
        ({"motion_scale_frames": "0: 1, 4: 1"}, "'4: 1': Frame 4 is outside the clip"),
        ({"motion_start": 1}, "`motion_start` must be less than `motion_end` (1), got 1"),
        ({"motion_start": 0.6, "motion_end": 0.7}, "got 0.6 to 0.7, which is none of 2 steps"),
    ],
)
def test_what_can_not_work_is_refused_and_leaves_no_trace(studio, fields, message):
    unet = studio.model.model.diffusion_model
    before, still = state_of(unet), studio.still()
    with pytest.raises(SettingsError) as caught:
        studio.clip(fields, steps=2)
    assert message in str(caught.value)
    assert caught.value.status_code == 422
    assert_same_state(before, state_of(unet))
    assert studio.still() == still
