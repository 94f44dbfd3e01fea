"""Training tasks that are small enough to be run in a test: a regression, and a motion module in a tiny UNet."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn

from motion.models.clip_text import ClipTextEncoder
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig
from motion.training.denoising import DenoisingSettings, DenoisingTask
from motion.training.latent_bank import LatentBank
from motion.training.motion_stages import module_stage
from motion.training.settings import TrainerSettings
from motion.training.text import TextConditioner
from motion.training.vocabulary import make_vocabulary
from tests.networks import make_unet, randomise
from tests.text_folders import WORDS, own_text_config

FRAMES = 2
UNET = UNetConfig(
    model_channels=32, channel_mult=(1,), transformer_depth=(1,), num_res_blocks=1, num_heads=2, context_dim=16
)
MODULE = MotionModuleConfig((32,), (32,), 32, 4, num_attention_blocks=1, num_heads=2, down_modules=1, up_modules=2)
CAPTIONS = ("a red circle moving left", "a red background", "a circle on a background")


class RegressionTask:
    """A small network that learns a fixed map from seeded rows; what it does is known without the trainer.

    Attributes:
        network: what learns.
        exported: calls of `export`, each with the weights at that time.
    """

    def __init__(self, seed: int = 0, rows: int = 4):
        generator = torch.Generator().manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))
        for parameter in self.network.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
        self.rows = rows
        self.exported = []

    def parameters(self):
        return dict(self.network.named_parameters())

    def applied(self):
        return nullcontext()

    def batch(self, random):
        x = torch.randn(self.rows, 3, generator=random.tensors)
        return x, torch.stack([x.sum(1), x.prod(1)], 1)

    def loss(self, random):
        return self.error(*self.batch(random))

    def error(self, x, y):
        return (self.network(x).float() - y).square().mean()

    def sample_sheet(self):
        return None

    def export(self, folder):
        self.exported.append({name: value.detach().clone() for name, value in self.parameters().items()})
        return []

    def describe(self):
        return {"stage": "regression", "rows": self.rows}


def make_contexts() -> TextConditioner:
    """A real tokenizer and text encoder as wide as the tiny UNet's context."""
    config = own_text_config(hidden_size=16, num_layers=1, intermediate_size=32)
    return TextConditioner(ClipTokenizer(make_vocabulary(WORDS)), randomise(ClipTextEncoder(config), 5))


def make_motion(seed: int = 1) -> MotionModel:
    """A frozen motion module for `UNET` in which no weight is zero."""
    return randomise(MotionModel(MODULE), seed)


def make_bank(count: int = 6, frames: int = FRAMES, seed: int = 11) -> LatentBank:
    """Random latents of 4x4, each with two captions."""
    latents = torch.randn(count, frames, 4, 4, 4, generator=torch.Generator().manual_seed(seed))
    return LatentBank(latents, tuple((CAPTIONS[i % 3], CAPTIONS[(i + 1) % 3]) for i in range(count)))


def make_module_task(**settings) -> DenoisingTask:
    """AnimateDiff's second stage in a tiny UNet."""
    unet, motion = make_unet(config=UNET), make_motion().requires_grad_(True)
    stage = module_stage(unet, motion, FRAMES, lambda: None, "module.safetensors")
    return DenoisingTask(unet, make_contexts(), make_bank(), DenoisingSettings(2, **settings), stage)


def quiet(**settings) -> TrainerSettings:
    """Settings of a short run without sample sheets."""
    return TrainerSettings(**{"steps": 6, "learning_rate": 1e-2, "warmup_steps": 2, "sample_every": 0, **settings})
