"""Blocks that are run twice: the same loss and gradients from less memory, and the UNet as it was."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

from motion.training.activation_checkpoints import blocks_checkpointed
from motion.training.denoising import DenoisingSettings, DenoisingTask
from motion.training.motion_stages import lora_stage
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.trainer import Trainer
from tests.networks import assert_same_state, inputs, make_unet, state_of
from tests.training.tiny_tasks import FRAMES, UNET, make_bank, make_contexts, make_motion, quiet


def make_lora_task(checkpointed):
    unet, motion = make_unet(config=UNET), make_motion()
    stage = lora_stage(unet, motion, FRAMES, 2, lambda: None, "lora.safetensors", seed=0, checkpointed=checkpointed)
    return unet, DenoisingTask(unet, make_contexts(), make_bank(), DenoisingSettings(2), stage)


def gradients(task):
    with task.applied():
        loss = task.loss(StepRandom.of(0, 0))
        loss.backward()
    return loss.item(), {name: value.grad.clone() for name, value in task.parameters().items()}


def test_loss_and_gradients_are_the_same_with_branches_in_the_motion_module():
    results = []
    for checkpointed in (False, True):
        unet, task = make_lora_task(checkpointed)
        before = state_of(unet)
        results.append(gradients(task))
        assert_same_state(before, state_of(unet))
    (loss, plain), (again, checkpointed) = results
    assert loss == again
    assert sum(value.norm() > 0 for value in plain.values()) >= len(plain) // 2
    assert [name for name in plain if not torch.equal(plain[name], checkpointed[name])] == []


@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_makes_the_same_weights(tmp_path, accumulation):
    weights = []
    for checkpointed in (False, True):
        _, task = make_lora_task(checkpointed)
        folder = RunFolder(tmp_path / str(checkpointed))
        Trainer(task, quiet(steps=2, accumulation=accumulation), folder).run()
        weights.append(folder.load_state()[1])
    assert [key for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])] == []


def kept_bytes(unet, checkpointed):
    """Bytes of all that is kept for the backward pass: saved tensors, and the inputs of the blocks."""
    parameters = {value.untyped_storage().data_ptr() for value in unet.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
        return tensor

    def keep_inputs(block, args):
        for value in args:
            if isinstance(value, torch.Tensor):  # the image UNet's blocks have no frames
                keep(value)

    x, timesteps, context = inputs(4)
    with ExitStack() as stack:
        for block in (*unet.input_blocks, unet.middle_block, *unet.output_blocks):
            stack.callback(block.register_forward_pre_hook(keep_inputs).remove)
        if checkpointed:
            stack.enter_context(blocks_checkpointed(unet))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            unet(x.requires_grad_(), timesteps, context).square().mean().backward()
    return sum(size for size, _ in kept.values()), x.grad


def test_less_is_kept():
    unet = make_unet()
    plain, gradient = kept_bytes(unet, False)
    less, again = kept_bytes(unet, True)
    assert torch.equal(gradient, again)
    assert less < 0.35 * plain


def test_unet_is_as_it_was_also_after_an_error_and_inside_another_patch():
    unet = make_unet()
    block = unet.middle_block
    original = block.forward
    block.forward = lambda *args: original(*args)  # a neighbour's
    before = state_of(unet)
    patched = block.__dict__["forward"]
    with pytest.raises(RuntimeError, match="body"), blocks_checkpointed(unet):
        assert block.__dict__["forward"] is not patched
        raise RuntimeError("body")
    assert block.__dict__["forward"] is patched
    assert_same_state(before, state_of(unet))


def test_nothing_is_run_twice_without_gradients():
    unet, calls = make_unet(), []
    unet.middle_block.register_forward_hook(lambda *args: calls.append(1))
    with torch.no_grad(), blocks_checkpointed(unet):
        unet(*inputs(2))
    assert len(calls) == 1
