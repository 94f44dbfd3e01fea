"""Long clips through the script's hooks in the embedded host: scopes, progress, interrupt, neighbours."""

import types

import numpy as np
import pytest
import torch

from motion.errors import MotionError
from motion.standalone import shared
from motion.standalone.script_base import Script
from tests.host.test_generation import pixels, temporal_calls  # noqa: F401 - a fixture
from tests.networks import assert_same_state, state_of

FRAMES = 6
LONG = {"num_frames": FRAMES, "context_length": 4, "context_schedule": "static"}
UNET = {**LONG, "window_scope": "unet"}


@pytest.mark.parametrize("module", ["v1", "v2"])
@pytest.mark.parametrize("scope", ["attention", "unet"])
def test_a_clip_of_several_windows(studio, temporal_calls, module, scope):  # noqa: F811
    clip = studio.clip({**LONG, "motion_module": module, "window_scope": scope})
    assert len(clip.images) == FRAMES
    expected = (2 * FRAMES, FRAMES) if scope == "attention" else (2 * 4, 4)
    assert {(shape[0], frames) for shape, frames in temporal_calls} == {expected}
    assert f"Motion window scope: {scope}" in clip.infotexts[0]
    still = pixels(studio.clip({**LONG, "motion_module": module, "motion_scale": 0}))
    assert np.abs(pixels(clip) - still).mean() > 0.5


def test_the_same_request_gives_the_same_bytes_and_the_windows_matter(studio):
    for request in (LONG, UNET):
        first, again = (pixels(studio.clip(request)) for _ in range(2))
        assert (first == again).all()
        for other in (
            {"closed_loop": True},
            {"context_schedule": "looped"},
            {"fuse_method": "flat"},
            {"context_length": 6},
        ):
            assert (pixels(studio.clip({**request, **other})) != first).any()


def test_with_one_window_both_scopes_are_the_plain_clip(studio):
    plain = studio.clip()
    for scope in ("attention", "unet"):
        clip = studio.clip({"window_scope": scope})
        assert (pixels(clip) == pixels(plain)).all()
        assert f"Motion window scope: {scope}" in clip.infotexts[0]
    assert "Motion window scope: auto" in plain.infotexts[0]


def test_windows_hold_whole_entries_however_rows_are_laid_out(studio):
    """Cond and uncond together or apart, and joined by AND, interleaved frame by frame."""
    together = pixels(studio.clip(UNET))
    shared.opts.batch_cond_uncond = False
    apart = pixels(studio.clip(UNET))
    shared.opts.batch_cond_uncond = True
    halves = pixels(studio.clip(UNET, prompt="a cat :0.5 AND a cat :0.5"))
    for other in (apart, halves):
        assert np.abs(together - other).max() <= 1


def test_a_travelling_prompt_and_a_lora_of_some_frames_follow_the_frames_into_windows(studio):
    """With windows that don't overlap, the second one is the clip of its frames alone."""
    alone = {"num_frames": 3, "context_length": 3, "context_overlap": 0}
    both = {**alone, "num_frames": 6, "window_scope": "unet", "context_schedule": "batched"}
    fields = {"steps": 1, "negative_prompt": "fog"}
    seeds = {"seed_behaviour": "same for all frames"}
    long = pixels(studio.clip({**both, **seeds}, prompt="<lora:pan:1@3-5>\n0 hold: red cat\n3: blue dog", **fields))
    for part, prompt in ((slice(0, 3), "red cat"), (slice(3, 6), "<lora:pan:1> blue dog")):
        short = pixels(studio.clip({**alone, **seeds}, prompt=prompt, **fields))
        assert np.abs(long[part] - short).max() <= 1
    assert np.abs(long[:3] - long[3:]).mean() > 1


@pytest.fixture
def progress(studio):
    """(sampling_step, textinfo) in each window, in the middle of the UNet."""
    seen = []

    def look(module, args):
        seen.append((shared.state.sampling_step, shared.state.textinfo))

    handle = studio.model.model.diffusion_model.middle_block.register_forward_pre_hook(look)
    yield seen
    handle.remove()


def test_progress_moves_with_each_window_and_says_which(studio, progress):
    studio.clip({**UNET, "num_frames": 7}, steps=3)
    assert [text for _, text in progress] == [f"Motion: window {place} of 2 (scope unet)" for place in (1, 2)] * 3
    assert [step for step, _ in progress] == [0, 0.5, 1, 1.5, 2, 2.5]
    assert shared.state.textinfo is None


def test_progress_counts_cond_and_uncond_apart_as_halves(studio, progress):
    shared.opts.batch_cond_uncond = False
    studio.clip({**UNET, "num_frames": 7}, steps=1)
    assert [step for step, _ in progress] == [0, 0.25, 0.5, 0.75]


def test_in_scope_attention_the_line_says_so(studio, progress):
    studio.clip(LONG)
    assert {text for _, text in progress} == {"Motion: 2 windows of 4 frames, overlap 1 (scope attention)"}


@pytest.mark.parametrize("stop", ["interrupt", "skip"])
def test_interrupt_is_answered_before_the_next_window(studio, stop, progress):
    unet = studio.model.model.diffusion_model
    before = state_of(unet)

    def press(module, args):
        if len(progress) == 2:
            getattr(shared.state, stop)()

    handle = unet.input_blocks[1].register_forward_pre_hook(press)
    clip = studio.clip({**UNET, "num_frames": 12})
    handle.remove()
    assert [text for _, text in progress] == [f"Motion: window {place} of 4 (scope unet)" for place in (1, 2, 3)]
    assert len(clip.images) == 12
    assert shared.state.textinfo is None
    assert_same_state(before, state_of(unet))


def test_an_error_in_mid_window_leaves_the_model_as_it_was(studio):
    unet, calls = studio.model.model.diffusion_model, []
    before, plain = state_of(unet), studio.still()

    def fail(module, args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")

    handle = unet.output_blocks[2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        studio.clip(UNET)
    handle.remove()
    assert_same_state(before, state_of(unet))
    assert studio.still() == plain
    assert shared.state.textinfo is None


def test_auto_is_unet_where_memory_is_short_and_the_comment_says_why(studio, temporal_calls, monkeypatch):  # noqa: F811
    from motion.host import unet_windows

    clip = studio.clip(LONG)
    assert "Motion window scope: attention" in clip.infotexts[0]
    monkeypatch.setattr(unet_windows, "_available_bytes", lambda: 2**20)
    temporal_calls.clear()
    clip = studio.clip(LONG)
    assert {frames for _, frames in temporal_calls} == {4}
    assert "Motion window scope: unet" in clip.infotexts[0]
    assert "Motion: the UNet runs window by window (window scope unet): all frames at once would take" in clip.comments
    assert "Motion window scope: attention" in studio.clip({**LONG, "window_scope": "attention"}).infotexts[0]


@pytest.mark.parametrize(
    ("hires", "expected"),
    [({}, 16), ({"enable_hr": True, "hr_scale": 2}, 64), ({"enable_hr": True, "hr_resize_x": 96}, 144)],
)
def test_the_larger_pass_is_what_has_to_fit(studio, hires, expected):
    from motion.host.a1111 import A1111Host

    room = A1111Host(studio.job(**{"hr_scale": 1, **hires}), FRAMES)
    assert room.unet_room().latent_pixels == expected


class ControlUnits(Script):
    """As the ControlNet extension keeps its units, and what the UNet's forward finds in them."""

    class Unit:
        def __init__(self, hint):
            self._hint_cond, self.hr_hint_cond, self.used_hint_cond = hint, None, None

        @property
        def hint_cond(self):
            return self._hint_cond

        @hint_cond.setter
        def hint_cond(self, hint):
            self._hint_cond, self.used_hint_cond = hint, None

    def __init__(self, unet, *hints):
        self.units = [self.Unit(hint) for hint in hints]
        self.latest_network = types.SimpleNamespace(control_params=self.units)
        self.seen, self._unet = [], unet

    def title(self):
        return "Control units"

    def process(self, p, *args):
        inner = self._unet.forward

        def forward(x, timesteps=None, context=None, **kwargs):
            for unit in self.units:
                unit.used_hint_cond = unit.hint_cond if unit.used_hint_cond is None else unit.used_hint_cond
            self.seen.append([unit.used_hint_cond for unit in self.units])
            return inner(x, timesteps, context, **kwargs)

        self._unet.forward = forward


def test_control_pictures_of_each_frame_come_window_by_window(studio):
    unet, frames = studio.model.model.diffusion_model, torch.arange(FRAMES, dtype=torch.float32)[:, None, None, None]
    hints = (frames.clone(), frames.repeat(2, 1, 1, 1) + 100, torch.ones(1, 1, 1, 1))
    units = ControlUnits(unet, *hints)
    try:
        studio.clip(UNET, neighbours=[units])
    finally:
        del unet.forward
    first, second = [0, 1, 2, 3], [2, 3, 4, 5]
    assert [seen[0].flatten().tolist() for seen in units.seen] == [first, second] * 2
    doubled = [[100 + frame for frame in window] * 2 for window in (first, second)]
    assert [seen[1].flatten().tolist() for seen in units.seen] == doubled * 2
    assert all(seen[2] is hints[2] for seen in units.seen)
    assert all(unit.hint_cond is hint for unit, hint in zip(units.units, hints, strict=True))
    assert hints[0].flatten().tolist() == list(range(FRAMES))


def test_a_bad_scope_is_one_message(studio):
    with pytest.raises(MotionError, match="`window_scope` must be one of 'auto', 'attention', 'unet', got 'clip'"):
        studio.clip({"window_scope": "clip"})
