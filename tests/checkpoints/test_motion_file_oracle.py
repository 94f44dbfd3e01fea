"""A file in diffusers' spelling, loaded by us, computes what diffusers computes with it."""

from __future__ import annotations

import pytest
import torch
from diffusers import MotionAdapter
from einops import rearrange
from safetensors.torch import save_file

from motion.checkpoints.motion_file import load_motion_model

CPU = torch.device("cpu")
FRAMES = 6


def write_adapter(path, levels: tuple[int, ...], mid: bool, rows: int) -> MotionAdapter:
    torch.manual_seed(0)
    adapter = MotionAdapter(
        block_out_channels=levels,
        motion_norm_num_groups=32,
        motion_num_attention_heads=8,
        motion_max_seq_length=rows,
        use_motion_mid_block=mid,
    )
    for name, parameter in adapter.named_parameters():
        # Norms and the zero-initialised last projection too: everything must count.
        torch.nn.init.normal_(parameter, mean=float("norm" in name and "weight" in name), std=0.1)
    save_file(adapter.state_dict(), path)
    return adapter.eval()


def modules_by_site(adapter: MotionAdapter) -> dict[str, torch.nn.Module]:
    return {name: part for name, part in adapter.named_modules() if name.split(".")[-2:-1] == ["motion_modules"]}


@pytest.mark.parametrize(
    ("family", "levels", "mid", "rows"),
    [
        ("sd15_v2", (32, 64, 64, 64), True, 32),
        ("sd15_v3", (32, 32, 64, 64), False, 32),
        ("sdxl_beta", (32, 64, 96), False, 32),
        ("hotshot_xl", (32, 64, 96), False, 24),
    ],
)
def test_equals_diffusers(tmp_path, family, levels, mid, rows):
    theirs = modules_by_site(write_adapter(tmp_path / "a.safetensors", levels, mid, rows))
    model, found = load_motion_model(tmp_path / "a.safetensors", device=CPU, dtype=None)
    assert found.id == family
    ours = model.site_modules()
    assert ours.keys() == theirs.keys()
    x = torch.Generator().manual_seed(1)
    for site, module in ours.items():
        clips = torch.randn(2, FRAMES, module.channels, 4, 3, generator=x)
        rows = rearrange(clips, "b f c h w -> (b f) c h w")
        with torch.no_grad():
            if module.norm_over_frames:
                expected = theirs[site](rows, num_frames=FRAMES)
            else:
                expected = per_frame_norm(theirs[site], rows)
            got = module(rows, FRAMES)
        assert (expected - rows).abs().max() > 0.1
        assert (got - expected).abs().max() <= 1e-5, site


def per_frame_norm(module: torch.nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """diffusers' module with its norm per frame: it takes statistics over all frames for every family."""
    height, width = rows.shape[-2:]
    tokens = rearrange(module.norm(rows), "(b f) c h w -> (b h w) f c", f=FRAMES)
    tokens = module.proj_in(tokens)
    for block in module.transformer_blocks:
        tokens = block(tokens)
    branch = rearrange(module.proj_out(tokens), "(b h w) f c -> (b f) c h w", h=height, w=width)
    return rows + branch
