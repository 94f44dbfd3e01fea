import pytest
import torch

from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.temporal_transformer import TemporalTransformer
from tests.manifests import manifest_shapes

SD15 = {"down_channels": (320, 640, 1280, 1280), "up_channels": (1280, 1280, 640, 320)}
SDXL = {"down_channels": (320, 640, 1280), "up_channels": (1280, 640, 320), "mid_channels": None, "max_length": 32}
TINY = MotionModuleConfig((32, 64), (64, 32), mid_channels=64, max_length=16)


@pytest.mark.parametrize(
    ("manifest", "config"),
    [
        ("mm_sd_v14", MotionModuleConfig(**SD15, mid_channels=None, max_length=24)),
        ("mm_sd_v15", MotionModuleConfig(**SD15, mid_channels=None, max_length=24)),
        ("mm_sd_v15_v2", MotionModuleConfig(**SD15, mid_channels=1280, max_length=32)),
        ("v3_sd15_mm", MotionModuleConfig(**SD15, mid_channels=None, max_length=32)),
        ("mm_sdxl_v10_beta", MotionModuleConfig(**SDXL, motion_norm_over_frames=True)),
    ],
)
def test_state_dict_has_the_keys_and_shapes_of_the_file(manifest, config):
    with torch.device("meta"):
        model = MotionModel(config)
    assert {key: tuple(t.shape) for key, t in model.state_dict().items()} == manifest_shapes(manifest)


def test_file_without_position_tables_lacks_nothing_else():
    with torch.device("meta"):
        model = MotionModel(MotionModuleConfig(**SD15, mid_channels=1280, max_length=64))
    shapes = {key: tuple(t.shape) for key, t in model.state_dict().items() if not key.endswith(".pe")}
    assert shapes == manifest_shapes("AnimateLCM_sd15_t2v")


def test_site_modules_name_every_site_of_the_file():
    model = MotionModel(TINY)
    sites = model.site_modules()
    assert list(sites) == [
        *(f"down_blocks.{level}.motion_modules.{index}" for level in range(2) for index in range(2)),
        "mid_block.motion_modules.0",
        *(f"up_blocks.{level}.motion_modules.{index}" for level in range(2) for index in range(3)),
    ]
    for name, module in sites.items():
        assert isinstance(module, TemporalTransformer)
        assert module is model.get_submodule(f"{name}.temporal_transformer")


def test_module_sizes_and_options_reach_every_site():
    config = MotionModuleConfig(
        (32,), (64,), mid_channels=None, max_length=8, num_attention_blocks=1, num_heads=4, motion_norm_over_frames=True
    )
    sites = MotionModel(config).site_modules()
    assert [module.channels for module in sites.values()] == [32, 32, 64, 64, 64]
    for module in sites.values():
        (attention,) = module.transformer_blocks[0].attention_blocks
        assert (module.max_length, module.norm_over_frames, attention.num_heads) == (8, True, 4)


@pytest.mark.parametrize("channels", [0, 100, 48])
def test_refuses_channels_that_do_not_divide(channels):
    with pytest.raises(ValueError, match=f"multiples of 32 and of its 8 heads, got {channels}"):
        MotionModuleConfig((channels,), (channels,), mid_channels=None, max_length=16)
