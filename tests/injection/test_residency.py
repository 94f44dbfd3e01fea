"""Motion modules come to the device and go, all at once or site by site, and the tensors on the CPU are never touched.

A CPU can't tell a device from itself, but a change of type copies as a move does, and the meta device is another one.
"""

import gc
import weakref

import pytest
import torch
from torch import nn

from motion.injection import injected
from motion.injection.motion_lora import motion_loras_merged
from motion.injection.residency import resident, resident_bytes, streamed
from motion.models.custom_motion import CustomMotionModel
from motion.protocols import Placement
from tests.injection.test_motion_lora import make_lora
from tests.networks import FRAMES, assert_same_state, inputs, make_motion, state_of

CPU, META = torch.device("cpu"), torch.device("meta")
COPYING = Placement(CPU, torch.bfloat16, torch.bfloat16)
both = pytest.mark.parametrize("enter", [resident, streamed])


def pointers(module):
    return {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}


def run(unet, motion, dtype=torch.bfloat16):
    with injected(unet, motion, FRAMES, dtype=dtype):
        return unet(*inputs(2 * FRAMES))


@pytest.fixture
def motion():
    return make_motion()


class Presence:
    """At each call of a site's module, the sites that have copies then, and weak references to all copies."""

    def __init__(self, motion):
        self.calls, self.copies = [], []
        sites = motion.site_modules()
        masters = {key: {id(p) for p in module.parameters()} for key, module in sites.items()}

        def look(module, args, output):
            present = {k: [p for p in m.parameters() if id(p) not in masters[k]] for k, m in sites.items()}
            self.calls.append({key for key, copies in present.items() if copies})
            self.copies += [weakref.ref(copy) for copies in present.values() for copy in copies]

        for module in sites.values():
            module.transformer_blocks[0].register_forward_hook(look)


def test_streamed_sites_are_there_one_at_a_time(unet, motion):
    presence = Presence(motion)
    with streamed(motion, COPYING):
        run(unet, motion)
    assert sorted(map(tuple, presence.calls)) == sorted((key,) for key in motion.site_modules())


def test_resident_sites_are_there_all_the_time(unet, motion):
    presence = Presence(motion)
    with resident(motion, COPYING):
        run(unet, motion)
    assert presence.calls == [set(motion.site_modules())] * len(motion.site_modules())


@both
def test_copies_are_gone_afterwards(unet, motion, enter):
    presence = Presence(motion)
    with enter(motion, COPYING):
        run(unet, motion)
    gc.collect()
    assert presence.copies
    assert all(reference() is None for reference in presence.copies)


def test_both_compute_what_a_converted_module_does(unet, motion):
    results = []
    for enter in (resident, streamed):
        with enter(motion, COPYING):
            results.append(run(unet, motion))
    expected = run(unet, make_motion().to(torch.bfloat16))
    assert torch.equal(results[0], expected)
    assert torch.equal(results[1], expected)


@both
@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["inside a module", "between calls"])
def test_masters_are_back_after_an_error(unet, motion, enter, error, where):
    def fail(module, args):
        raise error

    place = list(motion.site_modules().values())[3].proj_out
    handle = place.register_forward_pre_hook(fail) if where == "inside a module" else None
    before, addresses = state_of(motion), pointers(motion)
    with pytest.raises(type(error)), enter(motion, COPYING):
        run(unet, motion)
        raise error
    assert_same_state(before, state_of(motion))
    assert pointers(motion) == addresses
    if handle:
        handle.remove()


@both
def test_a_failed_module_does_not_stay_when_the_call_is_repeated(unet, motion, enter):
    """A host may catch "out of memory" and call its UNet again with fewer rows."""
    presence, failed = Presence(motion), []

    def fail_once(module, args):
        if not failed:
            failed.append(True)
            raise RuntimeError("out of memory")

    list(motion.site_modules().values())[3].proj_out.register_forward_pre_hook(fail_once)
    with enter(motion, COPYING):
        with pytest.raises(RuntimeError, match="out of memory"):
            run(unet, motion)
        expected = run(unet, motion)
    assert max(map(len, presence.calls)) == (1 if enter is streamed else len(motion.site_modules()))
    assert torch.equal(run(unet, make_motion().to(torch.bfloat16)), expected)


def test_a_copy_that_fails_half_way_leaves_nothing(motion):
    lost = motion.up_blocks[2].motion_modules[0].temporal_transformer
    lost.proj_in.weight = nn.Parameter(lost.proj_in.weight.to(META), requires_grad=False)  # a tensor without data
    before = {name: id(parameter) for name, parameter in motion.named_parameters()}
    with pytest.raises(NotImplementedError, match="meta tensor"), resident(motion, COPYING):
        pytest.fail("must not get here")
    assert before == {name: id(parameter) for name, parameter in motion.named_parameters()}


class Look(nn.Module):
    """A site's module that only looks where its tensors are; computing on the meta device takes seconds to begin."""

    def __init__(self):
        super().__init__()
        self.channels, self.max_length, self.seen = 4, FRAMES, set()
        self.layer = nn.BatchNorm2d(4).requires_grad_(False)

    def forward(self, x, num_frames, scale=1.0):
        self.seen |= {(tensor.device, tensor.dtype) for tensor in self.state_dict().values()}
        return x


@both
def test_moves_to_another_device(enter):
    module = Look()
    model = CustomMotionModel({"mid_block.motion_modules.0": module})
    before, addresses = state_of(model), pointers(model)
    with enter(model, Placement(META, torch.float16, torch.float16)):
        module(torch.zeros(FRAMES, 4, 2, 2), FRAMES)
    assert module.seen == {(META, torch.float16), (META, torch.int64)}
    assert_same_state(before, state_of(model))
    assert pointers(model) == addresses


@both
def test_nothing_is_copied_where_all_is_in_place(unet, motion, enter):
    here = Placement(CPU, torch.float32, torch.float32)
    presence = Presence(motion)
    with enter(motion, here):
        run(unet, motion, torch.float32)
    assert presence.copies == []
    assert resident_bytes(motion, here) == 0


@both
def test_merged_loras_are_carried_and_taken_out_to_the_bit(unet, motion, enter):
    lora, before, addresses = make_lora(motion, 1), state_of(motion), pointers(motion)
    plain = run(unet, make_motion().to(torch.bfloat16))
    with motion_loras_merged(motion, [(lora, 0.7)]), enter(motion, COPYING):
        changed = run(unet, motion)
    assert (changed - plain).abs().max() > 0.1
    assert_same_state(before, state_of(motion))
    assert pointers(motion) == addresses


@both
def test_under_inference_mode(unet, motion, enter):
    """As Forge samples; afterwards the tensors are ordinary ones."""
    before = state_of(motion)
    with torch.inference_mode(), enter(motion, COPYING):
        run(unet, motion)
    assert_same_state(before, state_of(motion))
    assert not any(tensor.is_inference() for tensor in motion.state_dict().values())


def test_weights_of_8_bits_stay_so_and_the_rest_follows(motion):
    layer = motion.site_modules()["mid_block.motion_modules.0"].proj_in
    layer.weight = nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with resident(motion, Placement(META, torch.float16, torch.float8_e4m3fn)):
        assert (layer.weight.device, layer.weight.dtype) == (META, torch.float8_e4m3fn)
        assert (layer.bias.device, layer.bias.dtype) == (META, torch.float16)


def test_tied_tensors_are_one_copy():
    tied = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4))
    tied[1].weight = tied[0].weight
    with resident(tied, COPYING):
        assert tied[0].weight is tied[1].weight
        assert tied[2].running_mean.dtype == torch.bfloat16
        assert tied[2].num_batches_tracked.dtype == torch.int64
    assert tied[0].weight is tied[1].weight
    assert tied[0].weight.dtype == torch.float32


def test_bytes_on_the_device():
    model = make_motion()
    layer = model.mid_block.motion_modules[0].temporal_transformer.proj_in
    layer.weight = nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    everything = sum(t.numel() for t in [*model.parameters(), *model.buffers()])
    assert resident_bytes(model, Placement(META, torch.float16, torch.float16)) == 2 * everything - 64 * 64
    largest = max(sum(t.numel() for t in m.state_dict().values()) for m in model.site_modules().values())
    assert resident_bytes(model, Placement(META, torch.float16, torch.float16, streamed=True)) == 2 * largest
