"""Motion modules go into a UNet and out again without a trace."""

import copy

import pytest
import torch
from einops import rearrange
from torch import nn

from motion.errors import InjectionError
from motion.injection import find_sites, injected
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.protocols import FrameRows
from tests.networks import FRAMES, assert_same_state, inputs, make_motion, state_of


def test_sites_of_a_three_level_unet(unet):
    sites = {site.key: (site.path, site.channels) for site in find_sites(unet)}
    assert len(sites) == 6 + 1 + 9
    assert sites["down_blocks.0.motion_modules.0"] == ("input_blocks.1.1", 32)
    assert sites["down_blocks.2.motion_modules.1"] == ("input_blocks.8.0", 64)
    assert sites["mid_block.motion_modules.0"] == ("middle_block.1", 64)
    assert sites["up_blocks.0.motion_modules.2"] == ("output_blocks.2.0", 64)
    assert sites["up_blocks.2.motion_modules.2"] == ("output_blocks.8.1", 32)


def test_a_zero_module_changes_nothing(unet):
    module = make_motion()
    for transformer in module.site_modules().values():
        nn.init.zeros_(transformer.proj_out.weight)
        nn.init.zeros_(transformer.proj_out.bias)
    x, t, context = inputs(FRAMES)
    plain = unet(x, t, context)
    with injected(unet, module, FRAMES):
        assert torch.allclose(unet(x, t, context), plain, atol=1e-6)


def test_frames_see_each_other_and_entries_do_not(unet, motion):
    x, t, context = inputs(2 * FRAMES)
    with injected(unet, motion, FRAMES) as injection:
        both = unet(x, t, context)
        moved = x.clone()
        moved[1] += 1
        changed = unet(moved, t, context)
    assert injection.num_calls == 2
    difference = (both - changed).abs().amax(dim=(1, 2, 3))
    assert (difference[:FRAMES] > 1e-4).all()
    assert (difference[FRAMES:] == 0).all()


def test_scale_zero_is_bit_identical_to_no_module(unet, motion):
    x, t, context = inputs(FRAMES)
    plain = unet(x, t, context)
    with injected(unet, motion, FRAMES, scale=0.0):
        assert torch.equal(unet(x, t, context), plain)


def test_scale_is_the_strength_of_the_branch(unet, motion):
    x, t, context = inputs(FRAMES)
    plain = unet(x, t, context)
    changes = []
    for scale in (0.01, 0.02):
        with injected(unet, motion, FRAMES, scale=scale):
            changes.append((unet(x, t, context) - plain).abs().mean().item())
    assert changes[1] / changes[0] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("layout", ["cond first", "uncond first", "apart", "three entries", "interleaved"])
def test_layouts_agree(unet, norm, layout):
    """However the host lays out the rows, a frame's prediction is that of its entry alone."""
    motion = make_motion(unet_norm_over_frames=norm)
    entries = [inputs(FRAMES, seed=seed) for seed in range(3)]
    with injected(unet, motion, FRAMES):
        alone = [unet(*entry) for entry in entries]
    if layout == "apart":
        return  # is the reference
    used = {"cond first": [0, 1], "uncond first": [1, 0], "three entries": [2, 0, 1], "interleaved": [0, 1, 2]}[layout]
    stacked = [torch.cat([entries[e][part] for e in used]) for part in range(3)]
    rows = FrameRows.contiguous(len(used) * FRAMES, FRAMES)
    if layout == "interleaved":  # A1111 with AND: f0c0 f0c1 f1c0 f1c1 … then the unconds
        conds = tuple(tuple(2 * frame + entry for frame in range(FRAMES)) for entry in range(2))
        rows = FrameRows((*conds, tuple(range(2 * FRAMES, 3 * FRAMES))))
        order = torch.tensor(rows.rows).flatten()
        stacked = [torch.empty_like(tensor).index_copy_(0, order, tensor) for tensor in stacked]
    with injected(unet, motion, FRAMES, rows_of_call=lambda num_rows: rows):
        result = unet(*stacked)
    for position, entry in enumerate(used):
        got = result[list(rows.rows[position])]
        assert (got - alone[entry]).abs().max() <= 1e-5


def test_norm_over_frames_is_a_group_norm_of_five_axes(unet):
    """The reference runs the same norm on `b c f h w`, as a GroupNorm of any rank takes its statistics."""
    motion = make_motion(unet_norm_over_frames=True)
    seen = []
    norms = [unet.input_blocks[1][0].in_layers[0], unet.middle_block[2].out_layers[0], unet.out[0]]
    before = [norm.register_forward_pre_hook(lambda module, args: seen.append(args[0])) for norm in norms]
    with injected(unet, motion, FRAMES):
        after = [norm.register_forward_hook(lambda module, args, out: seen.append(out)) for norm in norms]
        unet(*inputs(2 * FRAMES))
    for handle in before + after:
        handle.remove()
    for norm, x, y in zip(norms, seen[::2], seen[1::2], strict=True):
        expected = norm(rearrange(x, "(b f) c h w -> b c f h w", f=FRAMES))
        assert (rearrange(y, "(b f) c h w -> b c f h w", f=FRAMES) - expected).abs().max() <= 1e-5
        assert (y - norm(x)).abs().max() > 1e-3


@pytest.mark.parametrize("norm", [False, True])
def test_eject_leaves_no_trace(unet, norm):
    motion = make_motion(unet_norm_over_frames=norm)
    x, t, context = inputs(FRAMES)
    before, plain = state_of(unet), unet(x, t, context)
    for _ in range(2):
        with injected(unet, motion, FRAMES):
            unet(x, t, context)
        assert_same_state(before, state_of(unet))
    with pytest.raises(KeyboardInterrupt), injected(unet, motion, FRAMES):
        raise KeyboardInterrupt
    with pytest.raises(InjectionError, match="whole number of clips"), injected(unet, motion, FRAMES):
        unet(*inputs(FRAMES + 1))
    assert_same_state(before, state_of(unet))
    assert torch.equal(unet(x, t, context), plain)


def test_failure_in_the_middle_of_a_call_leaves_no_trace(unet, motion):
    x, t, context = inputs(FRAMES)
    before, plain = state_of(unet), unet(x, t, context)
    calls = []

    def fail(module, args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")

    handle = unet.output_blocks[4].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"), injected(unet, motion, FRAMES):
        unet(x, t, context)
        unet(x, t, context)
    handle.remove()
    assert_same_state(before, state_of(unet))
    assert torch.equal(unet(x, t, context), plain)


def test_neighbours_keep_their_hooks(unet, motion):
    x, t, context = inputs(FRAMES)
    seen = []
    first = unet.input_blocks[1][1].register_forward_hook(lambda *args: seen.append("before"))
    with injected(unet, motion, FRAMES):
        second = unet.input_blocks[1][1].register_forward_hook(lambda *args: seen.append("during"))
        unet(x, t, context)
    unet(x, t, context)
    assert seen == ["before", "during"] * 2
    first.remove()
    second.remove()


def test_a_module_that_did_not_run_is_an_error(unet, motion):
    x, t, context = inputs(FRAMES)
    block = unet.input_blocks[4]
    before = state_of(unet)
    with pytest.raises(InjectionError, match=r"missing: down_blocks\.1\.motion_modules\.0"):
        with injected(unet, motion, FRAMES):
            replaced = copy.deepcopy(block)
            for child in replaced.modules():
                child._forward_hooks.clear()
            unet.input_blocks[4] = replaced  # somebody swaps a block for their own
            try:
                unet(x, t, context)
            finally:
                unet.input_blocks[4] = block
    assert_same_state(before, state_of(unet))


@pytest.mark.parametrize(
    ("make", "frames", "message"),
    [
        (
            lambda: make_motion(max_length=8),
            9,
            "up to 8 frames, got 9. Lower the number of frames, or run the clip in windows",
        ),
        (lambda: MotionModel(MotionModuleConfig((32, 64), (64, 32), None, 8)), FRAMES, "nothing for down_blocks.2"),
        (
            lambda: MotionModel(MotionModuleConfig((32, 64, 64, 64), (64, 64, 64, 32), None, 8)),
            FRAMES,
            "no place for down_blocks.3",
        ),
        (
            lambda: MotionModel(MotionModuleConfig((64, 64, 64), (64, 64, 64), None, 8)),
            FRAMES,
            "32 channels there, the motion module 64",
        ),
    ],
)
def test_refuses_what_does_not_fit(unet, make, frames, message):
    with pytest.raises(InjectionError, match=message), injected(unet, make(), frames):
        pytest.fail("must not get here")


def test_refuses_a_second_injection_and_other_networks(unet, motion):
    with injected(unet, motion, FRAMES):
        with pytest.raises(InjectionError, match="already has motion modules"), injected(unet, motion, FRAMES):
            pytest.fail("must not get here")
    with pytest.raises(InjectionError, match="LDM layout, got Linear"), injected(nn.Linear(1, 1), motion, FRAMES):
        pytest.fail("must not get here")


def test_rows_must_be_complete():
    with pytest.raises(InjectionError, match="once"):
        FrameRows(((0, 1), (1, 2)))
    assert FrameRows(((0, 2), (1, 3))).is_contiguous is False
