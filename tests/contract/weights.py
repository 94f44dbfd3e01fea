"""Seeded random weights in the layout of public files, at reduced width: small enough for a CPU, tame enough to sample.

Keys, block structure, CLIP-L's size and the schedule tables are those of the recorded key lists; `Widths` says how wide
the levels of the UNet, of the motion modules and of the autoencoder are instead.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from motion.models.unet import UNetConfig, UNetModel
from tests.manifests import read_manifest

CLIP_LAYERS = 12
PUBLIC_CHANNEL_MULT = (1, 2, 4, 4)  # SDXL has the first three


@dataclass(frozen=True)
class Widths:
    """Channels of the written files; GroupNorm with 32 groups wants multiples of 32.

    Attributes:
        model_channels: of the UNet's first level; 320 in public files.
        channel_mult: of each level, in units of that; (1, 2, 4, 4) in public files.
        vae_channels: of the autoencoder's first level; 128 in public files.
    """

    model_channels: int
    channel_mult: tuple[int, ...]
    vae_channels: int

    def level(self, size: int, level: int) -> int:
        """A size in that level of a public UNet, in this width; what is no multiple of the level's width stays."""
        public = 320 * PUBLIC_CHANNEL_MULT[level]
        return size // public * self.model_channels * self.channel_mult[level] if size % public == 0 else size


NARROW = Widths(32, PUBLIC_CHANNEL_MULT, 32)
# The least that Forge and reForge take for SD1.5: they tell a checkpoint by shapes, among them the 320 channels of its
# first level, and know one autoencoder.
RECOGNISED_BY_SHAPE = Widths(320, (1, 1, 1, 1), 128)
WIDTHS: Mapping[str, Widths] = {"embedded": NARROW, "a1111": NARROW, "forge": RECOGNISED_BY_SHAPE}
MOTION_MODULES = {"v1": "mm_sd_v15", "v2": "mm_sd_v15_v2", "v3": "v3_sd15_mm"}

CHECKPOINT_YAML = """\
model:
  base_learning_rate: 1.0e-04
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    num_timesteps_cond: 1
    log_every_t: 200
    timesteps: 1000
    first_stage_key: "jpg"
    cond_stage_key: "txt"
    image_size: 64
    channels: 4
    cond_stage_trainable: false
    conditioning_key: crossattn
    monitor: val/loss_simple_ema
    scale_factor: 0.18215
    use_ema: False
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params:
        image_size: 32
        in_channels: 4
        out_channels: 4
        model_channels: MODEL_CHANNELS
        attention_resolutions: [ 4, 2, 1 ]
        num_res_blocks: 2
        channel_mult: CHANNEL_MULT
        num_heads: 8
        use_spatial_transformer: True
        transformer_depth: 1
        context_dim: 768
        use_checkpoint: True
        legacy: False
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        monitor: val/rec_loss
        ddconfig:
          double_z: true
          z_channels: 4
          resolution: 256
          in_channels: 3
          out_ch: 3
          ch: VAE_CHANNELS
          ch_mult: [ 1, 2, 4, 4 ]
          num_res_blocks: 2
          attn_resolutions: []
          dropout: 0.0
        lossconfig:
          target: torch.nn.Identity
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
"""


def write_checkpoint(
    folder: Path, name: str, *, widths: Widths = NARROW, seed: int = 0, text_layers: int = CLIP_LAYERS
) -> Path:
    """An SD1.5 checkpoint `<name>.safetensors` (half precision) with its `<name>.yaml`."""
    unet = _unet_shapes(widths)

    def wanted(key: str) -> bool:
        if key.startswith("model.diffusion_model."):  # levels of equal widths have no skip connection in between
            return key in unet
        layer = re.search(r"encoder\.layers\.(\d+)\.", key)
        return layer is None or int(layer.group(1)) < text_layers

    def narrowed(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        if key.startswith("first_stage_model."):
            return tuple(size // 128 * widths.vae_channels if size % 128 == 0 else size for size in shape)
        return unet.get(key, shape)

    folder.mkdir(parents=True, exist_ok=True)
    tables = _schedule_tables()
    path = folder / f"{name}.safetensors"
    shapes = {key: value for key, value in read_manifest("v1-5-pruned-emaonly").items() if wanted(key)}
    _write(path, shapes, narrowed, seed, tables)
    (folder / f"{name}.yaml").write_text(_yaml(widths), encoding="utf-8")
    return path


def _unet_shapes(widths: Widths) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        unet = UNetModel(UNetConfig(model_channels=widths.model_channels, channel_mult=widths.channel_mult))
    return {f"model.diffusion_model.{key}": tuple(value.shape) for key, value in unet.state_dict().items()}


def _yaml(widths: Widths) -> str:
    text = CHECKPOINT_YAML.replace("MODEL_CHANNELS", str(widths.model_channels))
    return text.replace("CHANNEL_MULT", str(list(widths.channel_mult))).replace(
        "VAE_CHANNELS", str(widths.vae_channels)
    )


def write_motion_module(path: Path, manifest: str, *, widths: Widths = NARROW, seed: int = 0) -> Path:
    """A motion module (or any file with blocks of its names) of one public file's layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shapes = read_manifest(manifest)
    num_levels = 1 + max(int(level) for key in shapes for level in re.findall(r"down_blocks\.(\d)", key))

    def narrowed(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        found = re.search(r"(down|up)_blocks\.(\d)", key)
        level = num_levels - 1
        if found is not None:
            level = int(found.group(2)) if found.group(1) == "down" else level - int(found.group(2))
        return tuple(widths.level(size, level) for size in shape)

    _write(path, shapes, narrowed, seed, {})
    return path


def sdxl_motion_lora(first_level: int = 320) -> dict[str, Tensor]:
    """Key -> tensor of a motion LoRA for the modules on SDXL's way up; none is published yet."""
    layer = "motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor.to_q_lora"
    return {
        f"up_blocks.{level}.{layer}.{role}.weight": torch.full(shape, 0.1)
        for level, width in enumerate((4 * first_level, 2 * first_level, first_level))
        for role, shape in (("down", (4, width)), ("up", (width, 4)))
    }


def write_small_decoder(folder: Path) -> Path:
    """TAESD's decoder by the name under which web UIs look for it; it needs a fiftieth of the autoencoder's time."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"1.weight": (64, 4, 3, 3), "1.bias": (64,), "19.weight": (3, 64, 3, 3), "19.bias": (3,)}
    for block in (3, 4, 5, 8, 9, 10, 13, 14, 15, 18):
        for layer in (0, 2, 4):
            shapes |= {f"{block}.conv.{layer}.weight": (64, 64, 3, 3), f"{block}.conv.{layer}.bias": (64,)}
    shapes |= {f"{upsampled}.weight": (64, 64, 3, 3) for upsampled in (7, 12, 17)}
    path = folder / "taesd_decoder.pth"
    state = {key: _values(f"taesd.{key}", shape, 0) for key, shape in shapes.items()}
    torch.save({**state, "19.bias": torch.full((3,), 0.5)}, path)  # its colours go from 0 to 1
    return path


def write_other_files(folder: Path) -> None:
    """Files that are no SD1.5 motion modules, by the name that the checks use."""
    folder.mkdir(parents=True, exist_ok=True)
    write_motion_module(folder / "wrong-width.safetensors", "mm_sd_v15_v2", widths=replace(NARROW, model_channels=64))
    write_motion_module(folder / "sdxl-beta.safetensors", "mm_sdxl_v10_beta")
    write_motion_module(folder / "motion-lora.safetensors", "v2_lora_ZoomIn")
    save_file(sdxl_motion_lora(NARROW.model_channels), folder / "sdxl-motion-lora.safetensors")
    (folder / "web-page.safetensors").write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
    (folder / "empty.safetensors").write_bytes(b"")


def _write(
    path: Path,
    shapes: Mapping[str, tuple[tuple[int, ...], str]],
    narrowed: Callable[[str, tuple[int, ...]], tuple[int, ...]],
    seed: int,
    tables: Mapping[str, Tensor],
) -> None:
    state = {}
    for key, (shape, dtype) in shapes.items():
        if key in tables:
            state[key] = tables[key]
        elif "int" in dtype.lower() or dtype.upper().startswith(("I", "U")):
            state[key] = torch.arange(math.prod(shape), dtype=torch.int64).reshape(shape)
        else:
            state[key] = _values(key, narrowed(key, shape), seed).half()
    save_file(state, path)


def _values(key: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Float32, a function of key, shape and seed: weights with variance 1 / fan-in, norms near one, small biases."""
    if key.endswith((".pe", ".positional_encoding")):
        return _sinusoids(shape)
    if key.startswith("first_stage_model.quant_conv."):
        return _certain_encoder(key, shape)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{key}".encode()))
    normal = torch.randn(shape, generator=generator)
    if len(shape) >= 2:
        return normal / math.sqrt(math.prod(shape[1:]))
    return 1.0 + 0.1 * normal if key.endswith(".weight") else 0.02 * normal


def _certain_encoder(key: str, shape: tuple[int, ...]) -> Tensor:
    """Latents with next to no variance, as trained autoencoders make them: A1111 draws them without a seed."""
    channels = shape[0] // 2
    if key.endswith(".bias"):
        return torch.cat([torch.zeros(channels), torch.full((channels,), -30.0)])
    return torch.eye(shape[0]).reshape(shape) * (torch.arange(shape[0]) < channels)[:, None, None, None]


def _sinusoids(shape: tuple[int, ...]) -> Tensor:
    """Position table [1, length, channels] of "Attention is all you need" (arXiv 1706.03762, section 3.5)."""
    _, length, channels = shape
    rate = 10000.0 ** (-torch.arange(0, channels, 2) / channels)
    angle = torch.arange(length)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], dim=-1).reshape(shape)


def _schedule_tables() -> dict[str, Tensor]:
    """The schedule tables of Stable Diffusion checkpoints, float32 [1000]."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    kept = np.cumprod(1 - betas)
    before = np.append(1.0, kept[:-1])
    variance = betas * (1 - before) / (1 - kept)
    tables = {
        "betas": betas,
        "alphas_cumprod": kept,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": np.sqrt(kept),
        "sqrt_one_minus_alphas_cumprod": np.sqrt(1 - kept),
        "log_one_minus_alphas_cumprod": np.log(1 - kept),
        "sqrt_recip_alphas_cumprod": np.sqrt(1 / kept),
        "sqrt_recipm1_alphas_cumprod": np.sqrt(1 / kept - 1),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": np.log(np.maximum(variance, 1e-20)),
        "posterior_mean_coef1": betas * np.sqrt(before) / (1 - kept),
        "posterior_mean_coef2": (1 - before) * np.sqrt(1 - betas) / (1 - kept),
    }
    return {name: torch.from_numpy(values.astype(np.float32)) for name, values in tables.items()}
