"""Layers compute what their weights say, in the type of their input or a wider one that is faster."""

import pytest
import torch
from torch import nn

from motion.models.cast_layers import (
    CAST_LAYERS,
    CastConv2d,
    CastConv3d,
    CastLinear,
    has_narrow_weights,
    is_narrow,
    processor_widens,
    runs_in_float32,
)
from motion.models.temporal_transformer import TemporalTransformer
from tests.networks import randomise

FP8 = torch.float8_e4m3fn
LAYERS = {
    "linear": (lambda: CastLinear(16, 24), nn.Linear(16, 24), (3, 5, 16)),
    "linear without bias": (lambda: CastLinear(16, 24, bias=False), nn.Linear(16, 24, bias=False), (3, 16)),
    "convolution": (lambda: CastConv2d(4, 8, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1), (2, 4, 6, 6)),
    "strided": (
        lambda: CastConv2d(4, 8, 3, stride=2, padding=1),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        (2, 4, 6, 6),
    ),
    "over frames": (
        lambda: CastConv3d(4, 8, (3, 1, 1), padding=(1, 0, 0)),
        nn.Conv3d(4, 8, (3, 1, 1), padding=(1, 0, 0)),
        (2, 4, 5, 6, 6),
    ),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def make(name, dtype):
    """(layer under test, torch's own with the same state, input in `dtype`)."""
    build, plain, shape = LAYERS[name]
    layer = randomise(build(), seed=1).to(dtype)
    plain.requires_grad_(False).to(dtype).load_state_dict(layer.state_dict(), strict=True)
    return layer, plain.to(dtype), torch.randn(shape, generator=torch.Generator().manual_seed(2)).to(dtype)


def narrow(module):
    """As loading with `storage_dtype` leaves a network."""
    for layer in module.modules():
        if isinstance(layer, CAST_LAYERS):
            layer.weight = nn.Parameter(layer.weight.to(FP8), requires_grad=False)
    return module


def expected_of(plain, x):
    """What torch's layer gives in the type that this processor multiplies in."""
    if x.element_size() == 4 or not processor_widens():
        return plain(x)
    return plain.float()(x.float()).to(x.dtype)


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_wide_weights_run_as_in_torch(name, dtype):
    layer, plain, x = make(name, dtype)
    assert torch.equal(layer(x), expected_of(plain, x))
    assert layer(x).dtype == layer.weight.dtype == dtype


@every_layer
@pytest.mark.parametrize("widens", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_as_exact_on_any_processor(name, dtype, widens, monkeypatch):
    layer, plain, x = make(name, dtype)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2" if widens else "AVX512")
    processor_widens.cache_clear()
    try:
        assert runs_in_float32(x, layer.weight) == widens
        got = layer(x)
    finally:
        processor_widens.cache_clear()
    exact = plain.double()(x.double())
    assert got.dtype == dtype
    assert torch.allclose(got.double(), exact, rtol=torch.finfo(dtype).eps, atol=2 * torch.finfo(dtype).eps)


@every_layer
def test_types_that_do_not_agree_are_an_error_as_in_torch(name):
    layer, _, x = make(name, torch.float32)
    with pytest.raises(RuntimeError, match=r"dtype|type"):
        layer(x.bfloat16())


@every_layer
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_weights_are_those_rounded_ones(name, dtype):
    layer, plain, x = make(name, dtype)
    plain.weight.copy_(plain.weight.to(FP8).to(dtype))
    narrow(layer)
    assert torch.equal(layer(x), expected_of(plain, x))
    assert layer(x).dtype == dtype
    assert layer.weight.dtype == FP8


@every_layer
@pytest.mark.parametrize("bias_dtype", [torch.float32, torch.float16, FP8])
def test_autocast_decides_the_type_as_for_torchs_layers(name, bias_dtype):
    """A1111 runs fp8 storage under autocast; its own layers' biases are of 8 bits too, ours are not."""
    layer, plain, x = make(name, torch.float32)
    narrow(layer)
    plain.weight.copy_(layer.weight.to(torch.float32))
    for each in (layer, plain):
        if each.bias is not None:
            each.bias = nn.Parameter(each.bias.to(bias_dtype).to(torch.float32), requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.to(bias_dtype), requires_grad=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = layer(x), plain(x)
    assert got.dtype == expected.dtype == torch.bfloat16
    eps = torch.finfo(torch.bfloat16).eps if processor_widens() else 0  # torch rounds weights and input first
    assert torch.allclose(got, expected, rtol=eps, atol=2 * eps)


def test_input_of_another_type_than_the_biases():
    """Without autocast a host may hand fp32 norms' outputs to fp16 biases (A1111's manual cast)."""
    layer, _, x = make("linear", torch.float16)
    assert narrow(layer)(x.float()).dtype == torch.float32


def test_only_floating_point_numbers_are_narrow():
    assert is_narrow(torch.zeros(1, dtype=FP8))
    assert is_narrow(torch.zeros(1, dtype=torch.float8_e5m2))
    assert not any(is_narrow(torch.zeros(1, dtype=dtype)) for dtype in (torch.uint8, torch.int8, torch.bool))
    assert not has_narrow_weights(nn.Linear(2, 2))


@pytest.mark.parametrize("autocast", [False, True])
def test_temporal_transformer_loses_a_few_percent(autocast):
    """e4m3 has 3 bits after the point (at most 1/16 off, 0.027 in the mean), and steps of 2^-9 below 2^-6."""
    module = randomise(TemporalTransformer(320, num_heads=8, max_length=32), seed=4)
    x = torch.randn(16, 320, 4, 4, generator=torch.Generator().manual_seed(5))
    exact = module(x, 16) - x
    assert set(narrow(module).state_dict()) == set(TemporalTransformer(32, 8, 32).state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        rounded = module(x, 16) - x
    error = (rounded - exact).norm() / exact.norm()
    assert 0.005 < error < 0.08
    assert has_narrow_weights(module)
    assert module.proj_in.bias.dtype == module.norm.weight.dtype == torch.float32
