"""Motion LoRAs change a motion module inside a `with` block only, and leave no trace."""

import logging

import pytest
import torch
from einops import rearrange
from torch import nn

from motion.checkpoints.low_rank import LowRankDelta
from motion.checkpoints.motion_lora_file import MotionLora, load_motion_lora
from motion.errors import CheckpointError, InjectionError
from motion.injection import injected
from motion.injection.motion_lora import check_motion_lora, motion_loras_hooked, motion_loras_merged
from motion.models.motion_module import MotionModel, MotionModuleConfig
from tests.checkpoints.files import write_tensors
from tests.goldens import read_golden
from tests.networks import FRAMES, assert_same_state, inputs, make_motion, make_unet, state_of
from tests.weights_recipe import fill_module

SITE = "down_blocks.0.motion_modules.0"
TO_Q = f"{SITE}.temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q"


def make_lora(motion, seed, rank=4, scale=1.0):
    """A LoRA for every linear layer of `motion`."""
    generator = torch.Generator().manual_seed(seed)
    deltas = {}
    for name, layer in motion.named_modules():
        if isinstance(layer, nn.Linear):
            down = torch.randn(rank, layer.in_features, generator=generator) / layer.in_features**0.5
            up = torch.randn(layer.out_features, rank, generator=generator) / rank**0.5
            deltas[name] = LowRankDelta(f"{name}.lora_down.weight", down, up, scale)
    return MotionLora(f"lora{seed}.safetensors", deltas)


@pytest.fixture(scope="module")
def loras(motion):
    return make_lora(motion, 1), make_lora(motion, 2, rank=2, scale=0.5)


def run(motion, frames=FRAMES, seed=5):
    x = torch.randn(2 * frames, 32, 4, 4, generator=torch.Generator().manual_seed(seed))
    return motion.site_modules()[SITE](x, frames)


@pytest.mark.parametrize("weights", [{"A": 1.0}, {"A": 1.0, "B": 0.7}, {"A": -1.0}, {}])
@pytest.mark.parametrize("hooked", [False, True], ids=["merged", "hooked"])
def test_equals_the_original(tmp_path, weights, hooked):
    golden = read_golden("motion_lora_c64")
    model = MotionModel(MotionModuleConfig((64,), (64,), None, max_length=32)).requires_grad_(False)
    fill_module(model)
    loras = []
    for letter, weight in weights.items():
        prefix = f"lora{letter}."
        tensors = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
        lora = load_motion_lora(write_tensors(tmp_path / f"{letter}.safetensors", tensors))
        loras.append((lora, (weight,) * 8 if hooked else weight))
    suffix = "_".join(f"{letter}_{weight}" for letter, weight in weights.items()) or "none"
    expected = rearrange(golden[f"out.y_{suffix}"], "b c f h w -> (b f) c h w")
    with (motion_loras_hooked if hooked else motion_loras_merged)(model, loras):
        got = model.site_modules()[SITE](rearrange(golden["in.x"], "b c f h w -> (b f) c h w"), 8)
        if weights == {"A": 1.0, "B": 0.7} and not hooked:
            merged = model.get_submodule(TO_Q.replace("blocks.0.to_q", "blocks.1.to_out.0")).weight
            assert (merged - golden["out.merged_attn1_to_out_A_1.0_B_0.7"]).abs().max() <= 1e-6
    # Two products per layer instead of one sum round differently, here on outputs of up to 17.
    assert (got - expected).abs().max() <= (2e-5 if hooked else 1e-5)


def test_several_add_up_with_their_weights_and_scales(motion, loras):
    base = motion.get_submodule(TO_Q).weight
    expected = base.clone()
    for lora, weight, scale in zip(loras, (2.0, -1.5), (1.0, 0.5), strict=True):
        delta = lora.deltas[TO_Q]
        expected += weight * scale * delta.up @ delta.down
    with motion_loras_merged(motion, zip(loras, (2.0, -1.5), strict=True)):
        merged = motion.get_submodule(TO_Q).weight
        assert merged is not base
        assert merged.requires_grad is False
        assert (merged - expected).abs().max() <= 1e-6
    assert motion.get_submodule(TO_Q).weight is base


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_taken_in_float32_and_rounded_once(loras, dtype):
    half = make_motion().to(dtype)
    base = half.get_submodule(TO_Q).weight
    expected = base.float()
    for lora in loras:
        expected += 1.1 * lora.deltas[TO_Q].scale * lora.deltas[TO_Q].up @ lora.deltas[TO_Q].down
    with motion_loras_merged(half, [(lora, 1.1) for lora in loras]):
        merged = half.get_submodule(TO_Q).weight
        assert merged.dtype == dtype
        assert (merged.float() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()
        assert run(half.float()).isfinite().all()


@pytest.mark.parametrize("hooked", [False, True], ids=["merged", "hooked"])
def test_leaves_no_trace(motion, loras, hooked):
    unet = make_unet()
    apply = motion_loras_hooked if hooked else motion_loras_merged
    entries = [(lora, (0.9,) * FRAMES if hooked else 0.9) for lora in loras]
    x, t, context = inputs(FRAMES)
    seen = []
    neighbour = motion.get_submodule(TO_Q).register_forward_hook(lambda *args: seen.append(1))
    before, unet_before = state_of(motion), state_of(unet)
    with injected(unet, motion, FRAMES):
        plain = unet(x, t, context)
    for _ in range(2):
        with apply(motion, entries), injected(unet, motion, FRAMES):
            inside = unet(x, t, context)
        assert_same_state(before, state_of(motion))
    with injected(unet, motion, FRAMES), apply(motion, entries[:1]), apply(motion, entries[1:]):
        nested = unet(x, t, context)
    with pytest.raises(RuntimeError, match="out of memory"), apply(motion, entries):
        run(motion)
        raise RuntimeError("out of memory")
    assert_same_state(before, state_of(motion))
    assert_same_state(unet_before, state_of(unet))
    with injected(unet, motion, FRAMES):
        assert torch.equal(unet(x, t, context), plain)
    neighbour.remove()
    assert len(seen) == 6
    assert (inside - plain).abs().max() > 1e-2
    assert (inside - nested).abs().max() <= 1e-4


def test_a_neighbours_hook_that_comes_in_between_stays(motion, loras):
    seen = []
    with motion_loras_hooked(motion, [(loras[0], (1.0,) * FRAMES)]):
        handle = motion.get_submodule(TO_Q).register_forward_hook(lambda *args: seen.append(1))
    run(motion)
    handle.remove()
    assert seen == [1]


def test_weight_zero_changes_nothing(motion, loras):
    before = state_of(motion)
    with motion_loras_merged(motion, [(loras[0], 0.0)]), motion_loras_hooked(motion, [(loras[1], (0.0,) * FRAMES)]):
        assert_same_state(before, state_of(motion))


def test_hooks_over_all_frames_equal_the_merge(motion, loras):
    with motion_loras_merged(motion, zip(loras, (0.8, -0.6), strict=True)):
        merged = run(motion)
    with motion_loras_hooked(motion, [(loras[0], (0.8,) * FRAMES), (loras[1], (-0.6,) * FRAMES)]):
        hooked = run(motion)
    assert (merged - run(motion)).abs().max() > 0.1
    assert (merged - hooked).abs().max() <= 1e-5


def test_a_range_changes_its_own_frames_only(motion, loras):
    layer = motion.get_submodule(TO_Q)
    tokens = torch.randn(6, FRAMES, 32, generator=torch.Generator().manual_seed(0))
    plain = layer(tokens)
    with motion_loras_merged(motion, [(loras[0], 0.5)]):
        changed = layer(tokens)
    with motion_loras_hooked(motion, [(loras[0], (0.0, 0.5, 0.5, 0.0))]):
        ranged = layer(tokens)
    assert torch.equal(ranged[:, [0, 3]], plain[:, [0, 3]])
    assert (ranged[:, 1:3] - changed[:, 1:3]).abs().max() <= 1e-5
    assert (ranged[:, 1:3] - plain[:, 1:3]).abs().max() > 0.1


def test_windows_tell_which_frames_they_hold(motion, loras):
    window = [0]
    weights = (0.0,) * 4 + (1.0,) * 4
    with motion_loras_merged(motion, [(loras[0], 1.0)]):
        merged = run(motion)
    plain = run(motion)
    with motion_loras_hooked(motion, [(loras[0], weights)], lambda n: range(window[0], window[0] + n)):
        assert torch.equal(run(motion), plain)
        window[0] = 4
        assert (run(motion) - merged).abs().max() <= 1e-5
        window[0] = 2
        tokens = torch.ones(1, FRAMES, 32)
        changed = (motion.get_submodule(TO_Q)(tokens) - tokens @ motion.get_submodule(TO_Q).weight.T).abs()
        assert (changed.amax(dim=(0, 2)) > 0.1).tolist() == [False, False, True, True]
        window[0] = 5
        with pytest.raises(InjectionError, match=r"got 4 frames as \[5, 6, 7, 8\]; the clip has 8"):
            run(motion)
    with motion_loras_hooked(motion, [(loras[0], weights)], lambda n: range(n - 1)):
        with pytest.raises(InjectionError, match="got 4 frames as"):
            run(motion)


def test_a_lora_of_another_base_is_refused_as_that(loras):
    motion = make_motion()
    before = state_of(motion)
    with pytest.raises(
        CheckpointError, match=r"lora1.*made for sd15, and the chosen motion module is for sdxl\. Choose"
    ):
        check_motion_lora(motion, "sdxl", loras[0])
    check_motion_lora(motion, "sd15", loras[0])
    assert_same_state(before, state_of(motion))


def test_a_lora_that_fits_any_base_is_compared_layer_by_layer(loras):
    first = {name: delta for name, delta in loras[0].deltas.items() if name.startswith("down_blocks.0.")}
    anywhere = MotionLora("anywhere.safetensors", first)
    for base in ("sd15", "sdxl"):
        check_motion_lora(make_motion(mid=False), base, anywhere)
    wide = MotionModel(MotionModuleConfig((64,), (64,), None, 8))
    with pytest.raises(CheckpointError, match=r"anywhere.*`down_blocks.0.*` changes .*, but it is \[64, 64\] here"):
        check_motion_lora(wide, "sdxl", anywhere)


def test_middle_parts_are_left_out_once_told(motion, loras, caplog):
    without = make_motion(mid=False)
    with caplog.at_level(logging.INFO, "motion.injection.motion_lora"):
        with motion_loras_merged(without, [(loras[0], 1.0)]):
            changed = run(without)
    assert [record.getMessage() for record in caplog.records] == [
        "lora1.safetensors: 12 parts for a middle block left out; this motion module has none"
    ]
    assert (changed - run(without)).abs().max() > 0.1


@pytest.mark.parametrize("hooked", [False, True], ids=["merged", "hooked"])
@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            MotionModuleConfig((32, 32, 64), (64, 64, 32), 64, 8),
            r"lora1.*`down_blocks.1.*lora_down.weight` changes .* shape \[64, 64\], but it is \[32, 32\] here. Choose",
        ),
        (MotionModuleConfig((32, 64), (64, 32), 64, 8), r"`down_blocks.2.*`.* shape \[64, 64\], but there is none"),
        (MotionModuleConfig((32, 64, 64), (64, 64, 32), 64, 8, num_attention_blocks=1), r"`.*attention_blocks\.1"),
    ],
)
def test_loras_of_another_shape_are_refused_before_anything_changes(loras, config, message, hooked):
    model = MotionModel(config)
    before = state_of(model)
    apply = motion_loras_hooked if hooked else motion_loras_merged
    with pytest.raises(CheckpointError, match=message):
        with apply(model, [(loras[0], (1.0,) * 4 if hooked else 1.0)]):
            pytest.fail("must not get here")
    assert_same_state(before, state_of(model))
