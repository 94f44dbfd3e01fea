"""A UNet with a motion module in windows: rows, norms over frames, motion LoRAs, other people's modules."""

import pytest
import torch
from torch import nn

from motion.checkpoints.low_rank import LowRankDelta
from motion.errors import InjectionError
from motion.injection import injected
from motion.injection.low_rank_branch import FrameWeights, LowRankBranch
from motion.models.custom_motion import CustomMotionModel
from motion.models.frame_windows import AttentionWindows
from motion.models.temporal_transformer import TemporalTransformer
from motion.protocols import FrameRows, WindowRun
from tests.networks import assert_same_state, inputs, make_motion, randomise, state_of
from tests.windows import make_windows, run_in_windows

FRAMES, LENGTH = 12, 6
WINDOWS = make_windows(FRAMES, LENGTH, 2)


@pytest.fixture(scope="module")
def motion():
    return make_motion(max_length=LENGTH)


def windowed(unet, motion, windows=WINDOWS, **options):
    return injected(unet, motion, FRAMES, windows=WindowRun(lambda: windows), **options)


@pytest.mark.parametrize("layout", ["cond first", "uncond first", "interleaved"])
@pytest.mark.parametrize("norm", [False, True])
def test_layouts_agree(unet, norm, layout):
    motion = make_motion(max_length=LENGTH, unet_norm_over_frames=norm)
    entries = [inputs(FRAMES, seed=seed) for seed in range(3)]
    with windowed(unet, motion):
        alone = [unet(*entry) for entry in entries]
    used = {"cond first": [0, 1], "uncond first": [1, 0], "interleaved": [0, 1, 2]}[layout]
    stacked = [torch.cat([entries[e][part] for e in used]) for part in range(3)]
    rows = FrameRows.contiguous(len(used) * FRAMES, FRAMES)
    if layout == "interleaved":  # A1111 with AND
        conds = tuple(tuple(2 * frame + entry for frame in range(FRAMES)) for entry in range(2))
        rows = FrameRows((*conds, tuple(range(2 * FRAMES, 3 * FRAMES))))
        order = torch.tensor(rows.rows).flatten()
        stacked = [torch.empty_like(tensor).index_copy_(0, order, tensor) for tensor in stacked]
    with windowed(unet, motion, rows_of_call=lambda num_rows: rows):
        result = unet(*stacked)
    for position, entry in enumerate(used):
        assert (result[list(rows.rows[position])] - alone[entry]).abs().max() <= 1e-5


def test_a_frame_sees_its_windows_and_a_norm_sees_the_clip(unet):
    x, t, context = inputs(FRAMES)
    moved = x.clone()
    moved[0] += 1
    reached = {}
    for norm in (False, True):
        with windowed(unet, make_motion(max_length=LENGTH, unet_norm_over_frames=norm), WINDOWS):
            change = (unet(moved, t, context) - unet(x, t, context)).abs().amax(dim=(1, 2, 3))
        reached[norm] = (change > 0).tolist()
    # Many layers pass frame 0 on from window to window; a norm over frames reaches all of them at once.
    assert all(reached[True])
    assert all(reached[False][:LENGTH])
    alone = make_windows(FRAMES, LENGTH, 0, "batched")
    with windowed(unet, make_motion(max_length=LENGTH), alone):
        change = (unet(moved, t, context) - unet(x, t, context)).abs().amax(dim=(1, 2, 3))
    assert (change > 0).tolist() == [True] * LENGTH + [False] * (FRAMES - LENGTH)


def test_scale_is_the_strength_of_the_branch(unet, motion):
    plain, changes = unet(*inputs(FRAMES)), []
    for scale in (0.01, 0.02):
        with windowed(unet, motion, scale=scale):
            changes.append((unet(*inputs(FRAMES)) - plain).abs().mean().item())
    assert changes[1] / changes[0] == pytest.approx(2, rel=0.1)
    with windowed(unet, motion, scale=0):
        assert torch.equal(unet(*inputs(FRAMES)), plain)


def test_a_clip_of_one_window_is_bit_identical_to_none(unet, motion):
    with injected(unet, motion, LENGTH):
        expected = unet(*inputs(2 * LENGTH))
    with injected(unet, motion, LENGTH, windows=WindowRun(lambda: None)):
        assert torch.equal(unet(*inputs(2 * LENGTH)), expected)


def test_windows_are_asked_for_in_each_call(unet, motion):
    other = make_windows(FRAMES, LENGTH, 3, "uniform", 1)
    asked = iter([WINDOWS, other, WINDOWS])
    with injected(unet, motion, FRAMES, windows=WindowRun(lambda: next(asked))):
        first, second, third = (unet(*inputs(FRAMES)) for _ in range(3))
    assert torch.equal(first, third)
    assert (first - second).abs().max() > 1e-4


def test_no_trace_is_left(unet, motion):
    before, plain = state_of(unet), unet(*inputs(FRAMES))
    own = state_of(motion)
    with windowed(unet, motion):
        unet(*inputs(FRAMES))
    handle = unet.output_blocks[4].register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError), windowed(unet, motion):
        unet(*inputs(FRAMES))
    handle.remove()
    with pytest.raises(InjectionError, match="windows must be those of a clip of 12 frames"):
        with windowed(unet, motion, make_windows(11, LENGTH, 2)):
            unet(*inputs(FRAMES))
    assert_same_state(before, state_of(unet))
    assert_same_state(own, state_of(motion))
    assert torch.equal(unet(*inputs(FRAMES)), plain)


@pytest.mark.parametrize("layer", ["to_q", "to_k", "to_v", "to_out.0"])
def test_a_motion_lora_of_some_frames_follows_them_through_all_windows(layer):
    transformer = randomise(TemporalTransformer(32, num_heads=4, max_length=LENGTH), seed=4)
    x = torch.randn(2 * FRAMES, 32, 2, 2, generator=torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(6)
    delta = LowRankDelta("", torch.randn(4, 32, generator=generator), torch.randn(32, 4, generator=generator), 0.1)
    weights = [frame / FRAMES for frame in range(FRAMES)]
    running = [tuple(range(FRAMES))]

    def with_lora(run):
        frames = FrameWeights(weights, lambda num_frames: running[0])
        target = transformer.get_submodule(f"transformer_blocks.0.attention_blocks.0.{layer}")
        handle = target.register_forward_hook(LowRankBranch(delta, 1.0, frames))
        try:
            return run()
        finally:
            handle.remove()

    windows = make_windows(FRAMES, LENGTH, 2, "uniform", 1)
    plain = transformer(x, FRAMES, windows=AttentionWindows(windows, x.device))
    result = with_lora(lambda: transformer(x, FRAMES, windows=AttentionWindows(windows, x.device)))
    expected = with_lora(
        lambda: run_in_windows(transformer, x, FRAMES, windows, on_window=lambda window: running.__setitem__(0, window))
    )
    assert (result - expected).abs().max() <= 1e-5
    assert (result - plain).abs().max() > 1e-3


class Whole(nn.Module):
    """A module of another package, which knows nothing of windows."""

    def __init__(self, max_length):
        super().__init__()
        self.channels, self.max_length, self.calls = 64, max_length, []

    def forward(self, x, num_frames, scale=1.0):
        self.calls.append(num_frames)
        return x


class InWindows(Whole):
    takes_windows = True

    def forward(self, x, num_frames, scale=1.0, windows=None):
        self.calls.append(windows and windows.windows)
        return x


SITE = "mid_block.motion_modules.0"


def test_other_modules_get_windows_if_they_take_them_and_the_whole_clip_if_not(unet):
    takes, whole = InWindows(LENGTH), Whole(FRAMES)
    with windowed(unet, CustomMotionModel({SITE: takes})):
        unet(*inputs(FRAMES))
    with windowed(unet, CustomMotionModel({SITE: whole})):
        unet(*inputs(FRAMES))
    assert (takes.calls, whole.calls) == ([WINDOWS], [FRAMES])


def test_a_module_without_windows_refuses_a_clip_that_is_too_long(unet):
    with pytest.raises(InjectionError, match="attention in windows and knows clips of up to 6 frames, got 12"):
        with windowed(unet, CustomMotionModel({SITE: Whole(LENGTH)})):
            pytest.fail("must not get here")
