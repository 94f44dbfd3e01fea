import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from einops import rearrange

from motion.models.unet import UNetConfig, UNetModel
from motion.models.unet_blocks import ResBlock, SpatialTransformer, join_skip, timestep_embedding
from tests.goldens import read_golden
from tests.manifests import manifest_shapes
from tests.weights_recipe import fill_module

PREFIX = "model.diffusion_model."
SD2 = UNetConfig(num_head_channels=64, context_dim=1024, use_linear=True)
SDXL = UNetConfig(
    channel_mult=(1, 2, 4),
    transformer_depth=(0, 2, 10),
    mid_transformer_depth=10,
    num_head_channels=64,
    context_dim=2048,
    use_linear=True,
    adm_in_channels=2816,
)
TINY = UNetConfig(model_channels=32, context_dim=48)
TINY_SD2 = UNetConfig(model_channels=32, context_dim=40, num_head_channels=16, use_linear=True)
TINY_SDXL = UNetConfig(
    model_channels=32,
    channel_mult=(1, 2, 4),
    transformer_depth=(0, 2, 3),
    mid_transformer_depth=3,
    num_head_channels=16,
    context_dim=40,
    use_linear=True,
    adm_in_channels=48 + 6 * 32,
)


def filled_unet(config):
    unet = UNetModel(config).eval().requires_grad_(False)
    fill_module(unet, PREFIX)
    return unet


@pytest.fixture(scope="module")
def tiny_unet():
    return filled_unet(TINY)


def inputs(batch=2, height=8, width=8, context_dim=48):
    generator = torch.Generator().manual_seed(7)
    return (
        torch.randn(batch, 4, height, width, generator=generator),
        torch.linspace(3, 981, batch),
        torch.randn(batch, 5, context_dim, generator=generator),
    )


def diffusers_unet(unet, **config):
    """The diffusers network of this config, holding `unet`'s weights."""
    other = UNet2DConditionModel(**config).eval().requires_grad_(False)
    state = {PREFIX + key: tensor for key, tensor in unet.state_dict().items()}
    other.load_state_dict(convert_ldm_unet_checkpoint(state, other.config))
    return other


@pytest.mark.parametrize(
    ("manifest", "config"),
    [("v1-5-pruned-emaonly", UNetConfig()), ("sd_xl_base_1.0", SDXL)],
)
def test_state_dict_has_the_keys_and_shapes_of_the_file(manifest, config):
    with torch.device("meta"):
        unet = UNetModel(config)
    shapes = manifest_shapes(manifest)
    expected = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
    assert {key: tuple(t.shape) for key, t in unet.state_dict().items()} == expected


def test_state_dict_of_sd2_fits_diffusers():
    with torch.device("meta"):
        diffusers_unet(
            UNetModel(SD2), cross_attention_dim=1024, attention_head_dim=(5, 10, 20, 20), use_linear_projection=True
        )


def test_equals_the_original_without_motion(tiny_unet):
    golden = read_golden("unet_sd15tiny_v2")
    latents, context = golden["in.latents"], golden["in.context"]
    num_frames = latents.shape[2]
    result = tiny_unet(
        rearrange(latents, "b c f h w -> (b f) c h w"),
        golden["in.timestep"].expand(latents.shape[0] * num_frames),
        context.repeat_interleave(num_frames, dim=0),
    )
    expected = rearrange(golden["out.no_motion"], "b c f h w -> (b f) c h w")
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


def test_sd2_equals_diffusers():
    unet = filled_unet(TINY_SD2)
    other = diffusers_unet(
        unet,
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=40,
        attention_head_dim=(2, 4, 8, 8),
        use_linear_projection=True,
    )
    x, timesteps, context = inputs(height=16, context_dim=40)
    torch.testing.assert_close(unet(x, timesteps, context), other(x, timesteps, context).sample, atol=2e-5, rtol=0)


def test_sdxl_equals_diffusers():
    unet = filled_unet(TINY_SDXL)
    other = diffusers_unet(
        unet,
        block_out_channels=(32, 64, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=40,
        attention_head_dim=(2, 4, 8),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=48 + 6 * 32,
    )
    x, timesteps, context = inputs(context_dim=40)
    pooled = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
    sizes = torch.tensor([[512.0, 768.0, 0.0, 8.0, 1024.0, 1024.0]]).expand(2, 6)
    y = torch.cat([pooled, timestep_embedding(sizes.flatten(), 32).reshape(2, -1)], dim=1)
    expected = other(x, timesteps, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes}).sample
    torch.testing.assert_close(unet(x, timesteps, context, y), expected, atol=2e-5, rtol=0)


def test_norms_have_the_eps_of_their_kind(tiny_unet):
    # A wrong eps moves the golden by 1e-5 only, so it would pass there.
    norms = {name: module for name, module in tiny_unet.named_modules() if isinstance(module, torch.nn.GroupNorm)}
    for name, norm in norms.items():
        assert norm.eps == (1e-6 if name.endswith(".norm") else 1e-5), name


def test_two_runs_are_bit_identical(tiny_unet):
    assert torch.equal(tiny_unet(*inputs()), tiny_unet(*inputs()))


def test_rows_do_not_see_one_another(tiny_unet):
    x, timesteps, context = inputs(batch=3)
    apart = [tiny_unet(x[i : i + 1], timesteps[i : i + 1], context[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(tiny_unet(x, timesteps, context), torch.cat(apart), atol=2e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(9, 7), (5, 12), (1, 3)])
def test_takes_sides_that_are_no_multiple_of_eight(tiny_unet, height, width):
    x, timesteps, context = inputs(height=height, width=width)
    assert tiny_unet(x, timesteps, context).shape == x.shape


def test_skip_connection_decides_the_size():
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    skip = torch.zeros(1, 2, 1, 2)
    assert torch.equal(join_skip(x, skip)[:, :1], torch.tensor([[[[0.0, 1.0]]]]))
    assert torch.equal(join_skip(x, torch.zeros(1, 2, 2, 3))[:, :1], x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_take_and_return_float32(tiny_unet, dtype):
    x, timesteps, context = inputs()
    expected = tiny_unet(x, timesteps, context)
    unet = filled_unet(TINY).to(dtype)
    result = unet(x, timesteps, context)
    assert result.dtype == torch.float32
    assert unet(x.to(dtype), timesteps, context).dtype == dtype
    torch.testing.assert_close(result, expected, atol=0.02 if dtype == torch.float16 else 0.1, rtol=0)


def test_timestep_embedding_is_exact_in_float32():
    timesteps = torch.tensor([0.0, 1.0, 500.25, 999.0])
    rate = torch.exp(-torch.arange(160, dtype=torch.float64) / 160 * torch.tensor(10_000.0, dtype=torch.float64).log())
    angle = timesteps.double()[:, None] * rate
    expected = torch.cat([angle.cos(), angle.sin()], dim=1)
    result = timestep_embedding(timesteps, 320)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), expected, atol=1e-4, rtol=0)


def test_half_precision_unet_tells_neighbouring_timesteps_apart():
    seen = []
    unet = filled_unet(TINY).bfloat16()
    unet.time_embed.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x, _, context = inputs()
    unet(x, torch.tensor([980.0, 981.0]), context)
    expected = timestep_embedding(torch.tensor([980.0, 981.0]), 32).bfloat16()
    assert torch.equal(seen[0], expected)
    assert not torch.equal(seen[0][0], seen[0][1])


def test_hooks_of_every_block_and_norm_run(tiny_unet):
    names, handles = [], []
    kinds = (ResBlock, SpatialTransformer, torch.nn.GroupNorm)
    expected = [name for name, module in tiny_unet.named_modules() if isinstance(module, kinds)]
    for name in expected:
        module = tiny_unet.get_submodule(name)
        handles.append(module.register_forward_hook(lambda module, args, out, name=name: names.append(name)))
    try:
        tiny_unet(*inputs())
    finally:
        for handle in handles:
            handle.remove()
    assert sorted(names) == sorted(expected)


def test_vector_condition_is_wanted_exactly_when_configured(tiny_unet):
    x, timesteps, context = inputs()
    with pytest.raises(ValueError, match="takes no vector condition"):
        tiny_unet(x, timesteps, context, torch.zeros(2, 240))
    with pytest.raises(ValueError, match="takes a vector condition"):
        UNetModel(TINY_SDXL)(x, timesteps, torch.zeros(2, 5, 40))


def test_refuses_depths_that_do_not_fit_the_levels():
    with pytest.raises(ValueError, match=r"one number per level \(4\), got \(1, 1\)"):
        UNetConfig(transformer_depth=(1, 1))
