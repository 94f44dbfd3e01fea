"""Branches that learn: where they begin, what they change, and the names under which files have them."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from motion.checkpoints.motion_lora_file import load_motion_lora
from motion.injection import injected
from motion.injection.domain_adapter import spatial_layers
from motion.injection.motion_lora import motion_loras_hooked, motion_loras_merged
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from motion.training.low_rank import TrainableLowRank, motion_attention_layers
from tests.manifests import manifest_shapes
from tests.networks import FRAMES, assert_same_state, inputs, make_motion, make_unet, state_of

RANK = 3


def trained(layers, seed=0, scale=0.3):
    """Branches as after a training: no factor is zero."""
    branches = TrainableLowRank(layers, RANK, seed=seed)
    generator = torch.Generator().manual_seed(seed + 50)
    for _, up in branches.factors.values():
        up.data = torch.randn(up.shape, generator=generator) * scale
    return branches


@pytest.fixture
def clip():
    unet, motion = make_unet(), make_motion()

    def predict():
        with torch.no_grad(), injected(unet, motion, FRAMES):
            return unet(*inputs(FRAMES))

    return predict, motion


def test_first_output_is_that_of_the_network_alone(clip):
    predict, motion = clip
    branches = TrainableLowRank(motion_attention_layers(motion), RANK)
    bare = predict()
    with branches.applied():
        assert torch.equal(predict(), bare)
    assert all(down.norm() > 0 for down, _ in branches.factors.values())


def test_only_factors_learn_and_the_layers_are_left_as_they_were(clip):
    predict, motion = clip
    branches = trained(motion_attention_layers(motion))
    before, bare = state_of(motion), predict()
    with pytest.raises(RuntimeError, match="body"), branches.applied():
        assert not torch.allclose(predict(), bare, atol=1e-3)
        raise RuntimeError("body")
    assert_same_state(before, state_of(motion))
    assert torch.equal(predict(), bare)
    layer = next(iter(motion_attention_layers(motion).values()))
    with branches.applied():
        layer(torch.randn(2, layer.in_features)).sum().backward()
    first = next(iter(branches.factors.values()))
    assert all(factor.grad.norm() > 0 for factor in first)
    assert layer.weight.grad is None


def test_branches_count_for_each_clip_as_they_are_told_and_alike_in_the_next_block():
    layer = torch.nn.Linear(6, 4)
    branches = trained({"attention_blocks.0.to_q": layer})
    rows, clips, frames = 5, 3, 2  # places of a clip stand together
    x = torch.randn(clips * rows, frames, 6)
    with torch.no_grad():
        bare = layer(x)
        with branches.applied():
            added = layer(x) - bare
            branches.weights = torch.tensor([1.0, -1.0, 0.5])
            weighed = layer(x) - bare
        with branches.applied():
            again = layer(x) - bare
    expected = added * branches_of_rows([1.0, -1.0, 0.5], rows)
    torch.testing.assert_close(weighed, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, added, rtol=0, atol=0)
    assert added.abs().min() > 0


def branches_of_rows(weights, rows):
    return torch.tensor(weights).repeat_interleave(rows)[:, None, None]


def test_file_gives_what_the_branches_gave(clip, tmp_path):
    predict, motion = clip
    branches = trained(motion_attention_layers(motion))
    with branches.applied():
        expected = predict()
    save_file(branches.tensors(torch.float32), tmp_path / "lora.safetensors")
    lora = load_motion_lora(tmp_path / "lora.safetensors")
    assert lora.rank == RANK
    with motion_loras_merged(motion, [(lora, 1.0)]):
        torch.testing.assert_close(predict(), expected, rtol=1e-4, atol=1e-5)
    with motion_loras_hooked(motion, [(lora, 1.0)]):
        torch.testing.assert_close(predict(), expected, rtol=1e-5, atol=1e-6)


def test_keys_of_a_motion_lora_are_those_of_the_published_ones():
    published = manifest_shapes("v2_lora_ZoomIn")
    rank = next(shape[0] for key, shape in published.items() if key.endswith("down.weight"))
    with torch.device("meta"):
        motion = MotionModel(MotionModuleConfig((320, 640, 1280, 1280), (1280, 1280, 640, 320), 1280, max_length=32))
    parameters = TrainableLowRank(motion_attention_layers(motion), rank).parameters()
    found = {key: tuple(value.shape) for key, value in parameters.items()}
    assert {key: found.get(key) for key in published} == published
    assert {key.split(".")[0] for key in found.keys() - published.keys()} <= {"mid_block"}


def test_keys_of_a_domain_adapter_are_those_of_the_published_one():
    published = manifest_shapes("v3_sd15_adapter")
    rank = next(shape[0] for key, shape in published.items() if key.endswith("down.weight"))
    with torch.device("meta"):
        unet = UNetModel(UNetConfig())
    parameters = TrainableLowRank(spatial_layers(unet), rank).parameters()
    assert {key: tuple(value.shape) for key, value in parameters.items()} == published


def test_first_values_come_from_the_seed():
    layers = motion_attention_layers(make_motion())
    first, again, other = (TrainableLowRank(layers, RANK, seed=seed).tensors() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first if ".down." in key)
    assert {value.dtype for value in first.values()} == {torch.float16}
