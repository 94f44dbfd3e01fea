"""How the small models that come with the project are made: networks, data and settings of each stage.

The stages follow AnimateDiff's (Guo et al. 2023, arXiv:2307.04725, section 4): a domain adapter takes up what is wrong
with the footage, the motion module is trained beside it with the image UNet frozen, motion LoRAs come last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from motion.models.autoencoder import AutoencoderConfig
from motion.models.clip_text import ClipTextEncoderConfig
from motion.models.motion_module import MotionModuleConfig
from motion.models.unet import UNetConfig
from motion.protocols import BetaSchedule
from motion.training.settings import TrainerSettings
from motion.training.shapes import WORDS
from motion.training.vocabulary import make_vocabulary

NAME = "shapes"
NUM_FRAMES = 16
LATENT_SIZE = (8, 8)

# 32 groups of a GroupNorm over 32 channels would take each channel's mean away, and with it all plain colour: 64.
UNET = UNetConfig(model_channels=64, channel_mult=(1, 1, 1, 1), num_res_blocks=1, num_heads=4, context_dim=64)
AUTOENCODER = AutoencoderConfig(ch=64, ch_mult=(1, 1, 1, 1), num_res_blocks=0)

_WIDTHS = (64, 64, 64, 64)
MODULE_V3 = MotionModuleConfig(_WIDTHS, _WIDTHS[::-1], None, 32, down_modules=1, up_modules=2)
MODULE_V2 = MotionModuleConfig(_WIDTHS, _WIDTHS[::-1], _WIDTHS[-1], 32, down_modules=1, up_modules=2)

IMAGE_SCHEDULE = BetaSchedule("scaled_linear")
MOTION_SCHEDULE = BetaSchedule("linear")
"""Of AnimateDiff v2 and v3."""

SNR_FLOOR = 0.05
"""Of the weights of all denoising stages; with plain errors of the noise, so short a training learns no places."""

ADAPTER_RANK = 8
LORA_RANK = 16

IMAGE_NAME = f"{NAME}-image"
IMAGE_FILE = f"{IMAGE_NAME}.safetensors"
"""The checkpoint on which all later stages learn; its decoder is trained last, and meets it in CHECKPOINT_FILE."""
CHECKPOINT_FILE = f"{NAME}.safetensors"
ADAPTER_FILE = f"{NAME}-v3-adapter.safetensors"
MODULE_V3_FILE = f"{NAME}-mm-v3.safetensors"
MODULE_V2_FILE = f"{NAME}-mm-v2.safetensors"


@dataclass(frozen=True)
class StageRecipe:
    """One stage.

    Attributes:
        trainer: settings of the loop.
        batch_size: pictures, stills or clips of a step.
        clips: size of the data set; 0 where it is drawn anew in every step.
        data_seed: of the data set.
        needs: stages that come before.
        velocity_share: of the denoising stages, see `DenoisingSettings`.
        noise_bias: the same.
        both_ways: the same.
        graded: the same.
    """

    trainer: TrainerSettings
    batch_size: int
    clips: int = 0
    data_seed: int = 0
    needs: tuple[str, ...] = ()
    velocity_share: float = 1.0
    noise_bias: float = 1.0
    both_ways: bool = False
    graded: bool = False


STAGES: Mapping[str, StageRecipe] = MappingProxyType(
    {
        "autoencoder": StageRecipe(
            TrainerSettings(
                steps=5000, learning_rate=2e-3, weight_decay=1e-4, seed=1, save_every=500, sample_every=500
            ),
            batch_size=4,
        ),
        "sharpening": StageRecipe(
            TrainerSettings(
                steps=7000, learning_rate=1e-3, weight_decay=1e-4, seed=8, save_every=500, sample_every=500
            ),
            batch_size=4,
            needs=("autoencoder",),
        ),
        "text": StageRecipe(
            TrainerSettings(steps=1000, learning_rate=1e-3, weight_decay=1e-4, ema_decay=0.99, seed=9, sample_every=0),
            batch_size=64,
            clips=8_000,
            data_seed=10,
        ),
        "image": StageRecipe(
            TrainerSettings(
                steps=3500, learning_rate=2e-3, weight_decay=1e-4, ema_decay=0.998, seed=2, sample_every=500
            ),
            batch_size=64,
            clips=12_000,
            data_seed=20,
            needs=("sharpening", "text"),
            velocity_share=0.25,
        ),
        "adapter": StageRecipe(
            TrainerSettings(steps=2500, learning_rate=4e-3, weight_decay=0.0, seed=3),
            batch_size=32,
            clips=2_000,
            data_seed=30,
            needs=("image",),
            velocity_share=0.25,
            graded=True,
        ),
        "decoder": StageRecipe(
            TrainerSettings(
                steps=4000, learning_rate=2e-3, weight_decay=1e-4, ema_decay=0.998, seed=11, sample_every=500
            ),
            batch_size=4,
            needs=("image",),
        ),
        "motion-v2": StageRecipe(
            TrainerSettings(steps=3000, learning_rate=1e-3, weight_decay=1e-4, ema_decay=0.998, seed=5),
            batch_size=4,
            clips=1_600,
            data_seed=50,
            needs=("image",),
            noise_bias=2.0,
        ),
        "motion-v3": StageRecipe(
            TrainerSettings(steps=600, learning_rate=5e-4, weight_decay=1e-4, ema_decay=0.998, seed=4),
            batch_size=4,
            clips=1_600,
            data_seed=40,
            needs=("image", "adapter", "motion-v2"),
            noise_bias=2.0,
        ),
        "pan-left": StageRecipe(
            TrainerSettings(steps=1000, learning_rate=4e-3, weight_decay=0.0, seed=6),
            batch_size=4,
            clips=50,
            data_seed=60,
            needs=("image", "motion-v2"),
            noise_bias=2.0,
            both_ways=True,
        ),
        "zoom-in": StageRecipe(
            TrainerSettings(steps=1000, learning_rate=4e-3, weight_decay=0.0, seed=7),
            batch_size=4,
            clips=50,
            data_seed=70,
            needs=("image", "motion-v2"),
            noise_bias=2.0,
            both_ways=True,
        ),
    }
)
"""Stage -> how it is trained, in the order in which they run."""

LORA_CAMERAS: Mapping[str, str] = MappingProxyType({"pan-left": "panning left", "zoom-in": "zooming in"})
"""Stage of a motion LoRA -> what the camera does in its clips."""


def text_config() -> ClipTextEncoderConfig:
    """Shape of the text encoder; its vocabulary has the shapes world's words."""
    return ClipTextEncoderConfig(
        vocabulary_size=len(make_vocabulary(WORDS)),
        hidden_size=64,
        num_layers=3,
        num_heads=4,
        intermediate_size=256,
    )
