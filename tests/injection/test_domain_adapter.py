"""A domain adapter runs beside the UNet's spatial attention and leaves no trace."""

import copy

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from motion.checkpoints.domain_adapter_file import DomainAdapter, load_domain_adapter
from motion.checkpoints.low_rank import LowRankDelta
from motion.errors import CheckpointError, InjectionError
from motion.injection import injected
from motion.injection.domain_adapter import domain_adapter_applied, spatial_layers
from motion.models.unet import UNetConfig, UNetModel
from tests.checkpoints.files import narrow_tensors, write_tensors
from tests.networks import FRAMES, assert_same_state, inputs, make_motion, make_unet, state_of


@pytest.fixture(scope="module")
def adapter(unet):
    generator = torch.Generator().manual_seed(9)
    deltas = {}
    for name, layer in spatial_layers(unet).items():
        down = torch.randn(4, layer.in_features, generator=generator) / layer.in_features**0.5
        up = torch.randn(layer.out_features, 4, generator=generator) / 2
        deltas[name] = LowRankDelta(f"{name}.down", down, up, 1.0)
    return DomainAdapter("adapter.ckpt", deltas)


def merge(unet, adapter, strength):
    merged = copy.deepcopy(unet)
    for name, layer in spatial_layers(merged).items():
        delta = adapter.deltas[name]
        layer.weight += strength * delta.scale * delta.up @ delta.down
    return merged


SD15 = {
    "block_out_channels": (32, 64, 128, 128),
    "cross_attention_dim": 48,
    "attention_head_dim": 8,
}
SDXL = {
    "block_out_channels": (32, 64, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),
    "cross_attention_dim": 48,
    "attention_head_dim": 8,
}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (UNetConfig(model_channels=32, context_dim=48), SD15),
        (UNetConfig(32, 4, 32, (1, 2, 4), 2, (0, 2, 3), mid_transformer_depth=3, context_dim=48), SDXL),
    ],
    ids=["SD1.5", "SDXL"],
)
def test_layers_have_diffusers_names_and_shapes(ours, theirs):
    with torch.device("meta"):
        reference, unet = UNet2DConditionModel(**theirs), UNetModel(ours)
    expected = {
        name: tuple(module.weight.shape)
        for name, module in reference.named_modules()
        if ".attn" in name and isinstance(module, nn.Linear)
    }
    layers = spatial_layers(unet)
    assert {name: tuple(layer.weight.shape) for name, layer in layers.items()} == expected
    assert expected


def test_public_file_fits_every_layer_of_sd15(tmp_path):
    tensors = narrow_tensors("v3_sd15_adapter")
    adapter = load_domain_adapter(write_tensors(tmp_path / "v3_sd15_adapter.ckpt", tensors))
    with torch.device("meta"):
        unet = UNetModel(UNetConfig(model_channels=32))
    with domain_adapter_applied(unet, adapter, 0.7):
        assert set(adapter.deltas) == set(spatial_layers(unet))
        assert all(layer._forward_hooks for layer in spatial_layers(unet).values())


@pytest.mark.parametrize("strength", [1.0, 0.3, -0.5])
def test_equals_merging_into_the_weights(unet, adapter, strength):
    plain = unet(*inputs(3))
    expected = merge(unet, adapter, strength)(*inputs(3))
    with domain_adapter_applied(unet, adapter, strength):
        got = unet(*inputs(3))
    assert (got - plain).abs().max() > 0.01
    assert (got - expected).abs().max() <= 1e-5


def test_strength_zero_hooks_nothing(unet, adapter):
    before = state_of(unet)
    with domain_adapter_applied(unet, adapter, 0.0):
        assert_same_state(before, state_of(unet))


@pytest.mark.parametrize("motion_first", [True, False])
def test_leaves_no_trace_beside_motion_modules_and_neighbours(unet, adapter, motion_first):
    motion = make_motion()
    layer = unet.input_blocks[1][1].transformer_blocks[0].attn1.to_q
    seen = []
    neighbour = layer.register_forward_hook(lambda *args: seen.append(1))
    before, plain = state_of(unet), unet(*inputs(FRAMES))
    contexts = [lambda: injected(unet, motion, FRAMES), lambda: domain_adapter_applied(unet, adapter, 1.0)]
    first, second = contexts if motion_first else reversed(contexts)
    for _ in range(2):
        with first(), second():
            inside = unet(*inputs(FRAMES))
        assert_same_state(before, state_of(unet))
    with pytest.raises(KeyboardInterrupt), first(), second():
        raise KeyboardInterrupt
    assert_same_state(before, state_of(unet))
    assert torch.equal(unet(*inputs(FRAMES)), plain)
    assert (inside - plain).abs().max() > 0.01
    neighbour.remove()
    assert len(seen) == 4


def test_a_lora_that_comes_in_between_keeps_its_own_backup(unet, adapter):
    """What a web UI's LoRA does on first use: copy a layer's weights, change them, copy them back later."""
    x, t, context = inputs(2)
    plain = unet(x, t, context)
    layers = spatial_layers(unet)
    changed = copy.deepcopy(unet)
    for layer in spatial_layers(changed).values():
        layer.weight *= 1.1
    expected = merge(changed, adapter, 0.8)(x, t, context)
    before = state_of(unet)
    with domain_adapter_applied(unet, adapter, 0.8):
        unet(x, t, context)
        backup = {name: layer.weight.clone() for name, layer in layers.items()}
        for layer in layers.values():
            layer.weight.copy_(layer.weight * 1.1)
        assert (unet(x, t, context) - expected).abs().max() <= 1e-5
    for name, layer in layers.items():
        layer.weight.copy_(backup[name])
    assert_same_state(before, state_of(unet))
    assert torch.equal(unet(x, t, context), plain)


class HostLinear(nn.Module):
    """A layer as Forge has them: no `nn.Linear`, weights in another type, cast for each call."""

    def __init__(self, layer):
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.weight = nn.Parameter(layer.weight.half(), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x):
        return nn.functional.linear(x, self.weight.to(x), self.bias)


def test_works_on_a_hosts_own_layers(unet, adapter):
    host = copy.deepcopy(unet)
    for block in [module for module in host.modules() if hasattr(module, "to_out")]:
        block.to_q, block.to_k, block.to_v = map(HostLinear, (block.to_q, block.to_k, block.to_v))
        block.to_out[0] = HostLinear(block.to_out[0])
    expected = merge(host, adapter, 0.0)
    for name, layer in spatial_layers(expected).items():
        delta = adapter.deltas[name]
        layer.weight = nn.Parameter(layer.weight.float() + delta.up @ delta.down, requires_grad=False)
    with domain_adapter_applied(host, adapter, 1.0):
        got = host(*inputs(2))
        layer = host.middle_block[1].transformer_blocks[0].attn1.to_q
        assert layer(torch.zeros(1, 2, 64, dtype=torch.bfloat16)).dtype == torch.bfloat16
    assert (got - expected(*inputs(2))).abs().max() <= 1e-5


def test_under_autocast_the_branch_has_the_layers_type(unet, adapter):
    name, layer = next(iter(spatial_layers(unet).items()))
    x = torch.randn(2, 3, layer.in_features, generator=torch.Generator().manual_seed(0))
    expected = x @ (layer.weight + adapter.deltas[name].up @ adapter.deltas[name].down).T
    with domain_adapter_applied(unet, adapter, 1.0):
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            got = layer(x)
    assert (exact - expected).abs().max() <= 1e-5
    assert got.dtype == torch.bfloat16
    assert (got - expected).abs().max() <= 0.05


def test_half_precision_network(adapter):
    half = make_unet().to(torch.bfloat16)
    exact = merge(make_unet(), adapter, 1.0)(*inputs(2))
    with domain_adapter_applied(half, adapter, 1.0):
        got = half(*inputs(2))
    assert (got - exact).abs().max() <= 0.1 * exact.abs().max()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            UNetConfig(4, 4, 64, (1, 2, 2), transformer_depth=(1, 1, 0), num_heads=4, context_dim=16),
            r"adapter.ckpt: `down_blocks.0.attentions.0.*to_q.down` .* \[32, 32\], but it is \[64, 64\] here",
        ),
        (
            UNetConfig(4, 4, 32, (1, 2, 2), transformer_depth=(0, 1, 1), num_heads=4, context_dim=16),
            r"`down_blocks.0.attentions.0.*to_q.down` changes .* but there is none. Choose a file",
        ),
    ],
)
def test_refuses_another_unet_before_anything_is_hooked(adapter, config, message):
    other = make_unet(config=config)
    before = state_of(other)
    with pytest.raises(CheckpointError, match=message), domain_adapter_applied(other, adapter, 1.0):
        pytest.fail("must not get here")
    assert_same_state(before, state_of(other))


def test_refuses_other_networks(adapter):
    with pytest.raises(InjectionError, match="LDM layout"), domain_adapter_applied(nn.Linear(1, 1), adapter, 1.0):
        pytest.fail("must not get here")
