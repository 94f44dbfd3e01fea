"""Modules that ask for timestep, time embedding and context get those of their rows, whoever calls the UNet how."""

import dataclasses

import pytest
import torch
from torch import nn

from motion.errors import InjectionError
from motion.injection import find_sites, injected
from motion.models.custom_motion import CustomMotionModel
from motion.protocols import FrameRows
from tests.networks import FRAMES, UNET, assert_same_state, inputs, make_motion, make_unet, state_of


class Recorder(nn.Module):
    """Keeps what it is given, and adds a number per row that only the right rows give."""

    wants_step = True

    def __init__(self, channels, max_length=16):
        super().__init__()
        self.channels, self.max_length = channels, max_length
        self.gain = nn.Parameter(torch.tensor(0.1), requires_grad=False)
        self.calls = []

    def forward(self, x, num_frames, scale, step):
        self.calls.append((x, num_frames, scale, step))
        row = step.timestep / 1000 + step.time_embedding.mean(dim=1)
        if step.context is not None:
            row = row + step.context.mean(dim=(1, 2))
        return x + scale * self.gain * row[:, None, None, None].to(x)


def make_model(unet, only="", **options):
    return CustomMotionModel({s.key: Recorder(s.channels) for s in find_sites(unet) if only in s.key}, **options)


def calls_of(model):
    return next(iter(model.site_modules().values())).calls


def call_inputs(rows, seed=3):
    """As `inputs`, with a timestep of its own for each row."""
    x, t, context = inputs(rows, seed)
    return x, t + 100 * seed + torch.arange(rows), context


def test_a_call_hands_over_what_the_unet_got(unet):
    model = make_model(unet)
    x, t, context = call_inputs(2 * FRAMES)
    embeddings = []
    handle = unet.time_embed.register_forward_hook(lambda module, args, output: embeddings.append(output))
    with injected(unet, model, FRAMES, scale=0.5):
        unet(x, t, context)
    handle.remove()
    for module in model.site_modules().values():
        ((features, num_frames, scale, step),) = module.calls
        assert (features.shape[:2], num_frames, scale) == ((2 * FRAMES, module.channels), FRAMES, 0.5)
        assert torch.equal(step.timestep, t)
        assert step.timestep.dtype == torch.float32
        assert torch.equal(step.time_embedding, embeddings[0])
        assert torch.equal(step.context, context)


def test_label_embedding_is_in_the_time_embedding():
    unet = make_unet(config=dataclasses.replace(UNET, adm_in_channels=12))
    model = make_model(unet)
    x, t, context = call_inputs(FRAMES)
    parts = []
    layers = (unet.time_embed, unet.label_emb)
    handles = [layer.register_forward_hook(lambda module, args, output: parts.append(output)) for layer in layers]
    with injected(unet, model, FRAMES):
        unet(x, t, context, torch.randn(FRAMES, 12))
    for handle in handles:
        handle.remove()
    assert torch.equal(calls_of(model)[0][3].time_embedding, parts[0] + parts[1])


def test_by_name_and_by_place_are_the_same(unet):
    model = make_model(unet)
    x, t, context = call_inputs(FRAMES)
    with injected(unet, model, FRAMES):
        results = [unet(x, t, context), unet(x, t, context=context), unet(x=x, timesteps=t, context=context)]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert all(torch.equal(call[3].timestep, t) and torch.equal(call[3].context, context) for call in calls_of(model))


def test_interleaved_rows_come_entry_after_entry(unet):
    entries = [call_inputs(FRAMES, seed) for seed in range(2)]
    rows = FrameRows(tuple(tuple(2 * frame + entry for frame in range(FRAMES)) for entry in range(2)))
    order = torch.tensor(rows.rows).flatten()
    stacked = [torch.cat([entry[part] for entry in entries]) for part in range(3)]
    mixed = [torch.empty_like(tensor).index_copy_(0, order, tensor) for tensor in stacked]
    model = make_model(unet)
    with injected(unet, model, FRAMES, rows_of_call=lambda num_rows: rows):
        result = unet(*mixed)
    step = calls_of(model)[0][3]
    assert torch.equal(step.timestep, stacked[1])
    assert torch.equal(step.context, stacked[2])
    with injected(unet, make_model(unet), FRAMES):
        for entry, (x, t, context) in enumerate(entries):
            assert (result[list(rows.rows[entry])] - unet(x, t, context)).abs().max() <= 1e-5


def test_one_timestep_for_all_rows(unet):
    model = make_model(unet)
    x, t, context = inputs(FRAMES)
    with injected(unet, model, FRAMES):
        together, each = unet(x, t[:1], context), unet(x, t, context)
    assert (together - each).abs().max() <= 1e-5
    assert torch.equal(calls_of(model)[0][3].timestep, t)


def test_sites_without_a_module_stay_as_they_are(unet):
    model = make_model(unet, only="mid_block")
    x, t, context = call_inputs(FRAMES)
    before, plain = state_of(unet), unet(x, t, context)
    with injected(unet, model, FRAMES) as injection:
        hooked = [name for name, module in unet.named_modules() if module._forward_hooks]
        assert (unet(x, t, context) - plain).abs().max() > 1e-4
    assert (hooked, injection.num_calls) == (["", "middle_block.1"], 1)
    assert_same_state(before, state_of(unet))


@pytest.mark.parametrize("norm", [False, True])
def test_eject_leaves_no_trace(unet, norm):
    model = make_model(unet, unet_norm_over_frames=norm)
    x, t, context = call_inputs(FRAMES)
    before, plain = state_of(unet), unet(x, t, context)
    for _ in range(2):
        with injected(unet, model, FRAMES):
            assert not torch.equal(unet(x, t, context), plain)
        assert_same_state(before, state_of(unet))
    with pytest.raises(KeyboardInterrupt), injected(unet, model, FRAMES):
        unet(x, t, context)
        raise KeyboardInterrupt
    with injected(unet, model, FRAMES, scale=0.0):
        assert torch.equal(unet(x, t, context), plain)
    assert_same_state(before, state_of(unet))


def test_module_that_does_not_ask_costs_no_hook(unet):
    res_block = unet.input_blocks[1][0]
    with injected(unet, make_motion(), FRAMES):
        assert (len(unet._forward_pre_hooks), len(res_block._forward_pre_hooks)) == (1, 0)
    with injected(unet, make_model(unet), FRAMES):
        assert (len(unet._forward_pre_hooks), len(res_block._forward_pre_hooks)) == (2, 1)


def test_module_gets_its_own_type(unet):
    model = make_model(unet).to(torch.bfloat16)
    with injected(unet, model, FRAMES):
        assert unet(*call_inputs(FRAMES)).dtype == torch.float32
    x, _, _, step = calls_of(model)[0]
    assert {x.dtype, step.time_embedding.dtype, step.context.dtype} == {torch.bfloat16}
    assert step.timestep.dtype == torch.float32


class Narrowing(Recorder):
    def forward(self, x, num_frames, scale, step):
        return x[:, :, ::2]


def test_refuses_what_breaks_the_protocol(unet):
    broken = CustomMotionModel({s.key: Narrowing(s.channels) for s in find_sites(unet)})
    with pytest.raises(
        InjectionError, match=r"down_blocks\.0\.motion_modules\.0: .* shape \[4, 32, 8, 8\], got \[4, 32, 4"
    ):
        with injected(unet, broken, FRAMES):
            unet(*call_inputs(FRAMES))
    wide = CustomMotionModel({"mid_block.motion_modules.0": Recorder(128)})
    with pytest.raises(InjectionError, match="64 channels there, the motion module 128"), injected(unet, wide, FRAMES):
        pytest.fail("must not get here")
    short = CustomMotionModel({"mid_block.motion_modules.0": Recorder(64, max_length=2)})
    with pytest.raises(InjectionError, match="up to 2 frames, got 4"), injected(unet, short, FRAMES):
        pytest.fail("must not get here")
    lost = CustomMotionModel({"down_blocks.7.motion_modules.0": Recorder(64)})
    with pytest.raises(InjectionError, match=r"no place for down_blocks\.7"), injected(unet, lost, FRAMES):
        pytest.fail("must not get here")


class Silent(nn.Module):
    """A host's UNet that takes its timesteps under another name."""

    def __init__(self, unet):
        super().__init__()
        self.inner = [unet]
        for name in ("input_blocks", "middle_block", "output_blocks", "out"):
            setattr(self, name, getattr(unet, name))

    def forward(self, x, *, noise_level, text):
        return self.inner[0](x, noise_level, text)


def test_refuses_a_host_that_does_not_tell_the_timestep(unet):
    x, t, context = call_inputs(FRAMES)
    other = Silent(unet)
    with pytest.raises(InjectionError, match="called without telling it"):
        with injected(other, make_model(unet), FRAMES):
            other(x, noise_level=t, text=context)


def test_custom_model_is_made_of_modules():
    with pytest.raises(ValueError, match="one site of the UNet at least"):
        CustomMotionModel({})
    sites = {"up_blocks.3.motion_modules.1": 32, "mid_block.motion_modules.0": 64}
    model = CustomMotionModel({site: Recorder(channels) for site, channels in sites.items()})
    assert set(model.state_dict()) == {f"{site}.gain" for site in sites}
    assert {site: module.channels for site, module in model.site_modules().items()} == sites
