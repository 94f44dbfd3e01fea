"""The three stages: how they begin, what learns in them, and that their files do what was trained."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from motion.checkpoints.domain_adapter_file import load_domain_adapter
from motion.checkpoints.motion_file import load_motion_model
from motion.checkpoints.motion_lora_file import load_motion_lora
from motion.injection import injected
from motion.injection.domain_adapter import domain_adapter_applied
from motion.injection.motion_lora import motion_loras_merged
from motion.models.unet import UNetModel
from motion.training.denoising import DenoisingSettings, DenoisingTask
from motion.training.motion_stages import adapter_stage, lora_stage, module_stage, new_motion_model, start_from
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.shapes_recipe import MODULE_V2, MODULE_V3, UNET
from tests.networks import assert_same_state, randomise, state_of
from tests.training.tiny_tasks import make_bank, make_contexts

FRAMES = 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def unet():
    """Of the shapes checkpoint's form; 64 channels are what the recipes' motion modules fit."""
    return randomise(UNetModel(UNET), 0)


def predict(unet):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2 * FRAMES, 4, 8, 8, generator=generator)
    context = torch.randn(2 * FRAMES, 5, UNET.context_dim, generator=generator)
    with torch.no_grad():
        return unet(x, torch.full((len(x),), 300), context)


def nothing():
    return None


def train_a_little(parameters, seed=9):
    """Random weights that fp16 holds exactly, so that a file's rounding makes no difference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters.values():
            moved = parameter + 0.1 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(moved.half().float())


def make_module(unet, config=MODULE_V2, seed=0):
    model = new_motion_model(config, seed)
    return model, module_stage(unet, model, FRAMES, nothing, "module.safetensors")


@pytest.mark.parametrize("config", [MODULE_V2, MODULE_V3])
def test_new_motion_module_predicts_what_the_unet_alone_does(unet, config):
    model, stage = make_module(unet, config)
    outputs = [value for name, value in stage.parameters.items() if "proj_out" in name]
    assert len(outputs) == 2 * len(model.site_modules())
    assert not any(value.any() for value in outputs)
    assert all(value.any() for name, value in stage.parameters.items() if name.endswith("to_q.weight"))
    bare = predict(unet)
    with stage.changes():
        torch.testing.assert_close(predict(unet), bare, rtol=0, atol=0)


def test_new_motion_modules_depend_on_their_seed_and_leave_the_global_one():
    before = torch.random.get_rng_state()
    first, again, other = (new_motion_model(MODULE_V2, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def narrow():
    """A UNet for the tiny contexts and latents, as the recipes' but with 16 channels of context."""
    return randomise(UNetModel(dataclasses.replace(UNET, context_dim=16)), 0)


@pytest.mark.parametrize("kind", ["module", "adapter", "lora"])
def test_only_what_the_stage_trains_gets_gradients(kind):
    unet = narrow()
    motion = new_motion_model(MODULE_V3, 0)
    if kind == "module":
        stage = module_stage(unet, motion, FRAMES, nothing, "x.safetensors")
    elif kind == "lora":
        stage = lora_stage(unet, randomise(motion, 1), FRAMES, 2, nothing, "x.safetensors", seed=0)
    else:
        stage = adapter_stage(unet, 2, nothing, "x.safetensors", seed=0)
    bank = make_bank(frames=FRAMES)
    bank = dataclasses.replace(bank, latents=bank.latents.repeat(1, 1, 1, 2, 2))
    task = DenoisingTask(unet, make_contexts(), bank, DenoisingSettings(1), stage)
    train_a_little(stage.parameters)
    before = state_of(unet)
    with task.applied():
        task.loss(StepRandom.of(0, 0)).backward()
    assert_same_state(before, state_of(unet))
    silent = [name for name, value in task.parameters().items() if value.grad is None or not value.grad.any()]
    assert silent == []
    assert [name for name, value in unet.named_parameters() if value.grad is not None] == []
    if kind == "lora":
        assert [name for name, value in motion.named_parameters() if value.grad is not None] == []


def test_unet_is_as_it_was_after_a_stage(unet):
    _, stage = make_module(unet)
    train_a_little(stage.parameters)
    before, bare = state_of(unet), predict(unet)
    with pytest.raises(RuntimeError, match="body"), stage.changes():
        assert not torch.allclose(predict(unet), bare, atol=1e-3)
        raise RuntimeError("body")
    assert_same_state(before, state_of(unet))
    assert torch.equal(predict(unet), bare)


def test_exported_module_does_what_was_trained(unet, tmp_path):
    _, stage = make_module(unet)
    train_a_little(stage.parameters)
    (path,) = stage.export(RunFolder(tmp_path))
    with stage.changes():
        expected = predict(unet)
    model, _ = load_motion_model(path, device=CPU, dtype=torch.float32)
    with injected(unet, model, FRAMES):
        torch.testing.assert_close(predict(unet), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(predict(unet), expected, atol=1e-2)


def test_exported_adapter_does_what_was_trained(unet, tmp_path):
    stage = adapter_stage(unet, 4, nothing, "adapter.safetensors", seed=0)
    bare = predict(unet)
    with stage.changes():
        assert torch.equal(predict(unet), bare)
    train_a_little(stage.parameters)
    (path,) = stage.export(RunFolder(tmp_path))
    with stage.changes():
        expected = predict(unet)
    assert not torch.allclose(bare, expected, atol=1e-2)
    with domain_adapter_applied(unet, load_domain_adapter(path), 1.0):
        torch.testing.assert_close(predict(unet), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(predict(unet), bare)


def test_module_is_trained_beside_the_adapter(unet, tmp_path):
    adapter_path = tmp_path / "adapter.safetensors"
    adapter = adapter_stage(unet, 4, nothing, adapter_path.name, seed=0)
    train_a_little(adapter.parameters)
    adapter.export(RunFolder(tmp_path))
    loaded = load_domain_adapter(adapter_path)

    def around():
        return domain_adapter_applied(unet, loaded, 1.0)

    stage = module_stage(unet, new_motion_model(MODULE_V2, 0), FRAMES, nothing, "m.safetensors", around=around)
    with adapter.changes():
        expected = predict(unet)
    with stage.changes():
        torch.testing.assert_close(predict(unet), expected, rtol=1e-4, atol=1e-4)


def test_exported_lora_does_what_was_trained(unet, tmp_path):
    motion = randomise(new_motion_model(MODULE_V2, 0), 1)
    stage = lora_stage(unet, motion, FRAMES, 4, nothing, "lora.safetensors", seed=0)
    with injected(unet, motion, FRAMES):
        alone = predict(unet)
    with stage.changes():
        assert torch.equal(predict(unet), alone)
    train_a_little(stage.parameters)
    (path,) = stage.export(RunFolder(tmp_path))
    with stage.changes():
        expected = predict(unet)
    assert not torch.allclose(alone, expected, atol=1e-2)
    with motion_loras_merged(motion, [(load_motion_lora(path), 1.0)]), injected(unet, motion, FRAMES):
        torch.testing.assert_close(predict(unet), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_lora_that_learns_both_ways_is_its_opposite_at_minus_one(checkpointed):
    """Two clips, one of them backwards: the gradients are those of the two clips alone, at 1 and at -1."""
    unet, motion = narrow(), randomise(new_motion_model(MODULE_V2, 0), 1)
    stage = lora_stage(unet, motion, FRAMES, 2, nothing, "x.safetensors", seed=0, checkpointed=checkpointed)
    train_a_little(stage.parameters)
    x = torch.randn(2 * FRAMES, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    contexts = torch.randn(2 * FRAMES, 5, 16, generator=torch.Generator().manual_seed(4))

    def gradients(clips, weights):
        for parameter in stage.parameters.values():
            parameter.grad = None
        with stage.changes():
            stage.weigh(torch.tensor(weights))
            rows = torch.cat([torch.arange(FRAMES) + clip * FRAMES for clip in clips])
            unet(x[rows], torch.full((len(rows),), 500), contexts[rows]).square().sum().backward()
        return {name: value.grad.clone() for name, value in stage.parameters.items()}

    together, first, second = gradients([0, 1], [1.0, -1.0]), gradients([0], [1.0]), gradients([1], [-1.0])
    for name, value in together.items():
        torch.testing.assert_close(value, first[name] + second[name], rtol=1e-3, atol=1e-3)
    assert any(not torch.allclose(gradients([1], [1.0])[name], second[name], rtol=1e-2) for name in second)


def test_a_module_goes_on_from_another_ones_file(unet, tmp_path):
    """The v3-like module starts as the v2-like one without its middle block."""
    first, stage = make_module(unet, MODULE_V2)
    train_a_little(stage.parameters)
    (path,) = stage.export(RunFolder(tmp_path))
    later = new_motion_model(MODULE_V3, 1)
    start_from(later, path)
    start = first.state_dict()
    assert any(key.startswith("mid_block") for key in start)
    for key, value in later.state_dict().items():
        assert torch.equal(value, start[key].half().float()), key
