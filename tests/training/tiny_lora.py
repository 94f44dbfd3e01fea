"""What a motion LoRA is trained from, at its smallest: a checkpoint, a motion module that fits it, and videos."""

from __future__ import annotations

import av
import numpy as np
from safetensors.torch import save_file

from motion.checkpoints.stable_diffusion_writing import checkpoint_tensors, checkpoint_yaml
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from motion.training.vocabulary import make_vocabulary, write_vocabulary
from tests.networks import randomise

WORDS = ("a", "red", "box", "going", "right")
UNET = UNetConfig(
    model_channels=32,
    channel_mult=(1, 1, 1, 1),
    num_res_blocks=1,
    transformer_depth=(1, 1, 1, 0),
    num_heads=2,
    context_dim=16,
)
AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
MODULE = MotionModuleConfig((32,) * 4, (32,) * 4, None, 32, down_modules=1, up_modules=2)
FRAMES = 20


def write_checkpoint(path):
    """A Stable Diffusion 1 checkpoint with its yaml and its text encoder's folder."""
    text = ClipTextEncoderConfig(
        vocabulary_size=len(make_vocabulary(WORDS)), hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32
    )
    networks = UNetModel(UNET), AutoencoderKL(AUTOENCODER), ClipTextEncoder(text)
    unet, autoencoder, encoder = (randomise(network, seed) for seed, network in enumerate(networks))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint_tensors(unet, autoencoder, encoder), path)
    folder = path.with_name(f"{path.stem}-text")
    write_vocabulary(folder, WORDS, text)
    path.with_suffix(".yaml").write_text(checkpoint_yaml(UNET, AUTOENCODER, str(folder)), encoding="utf-8")
    return path


def write_module(path, config=MODULE):
    """A motion module."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(randomise(MotionModel(config), seed=7).state_dict(), path)
    return path


def write_video(path, caption="a red box going right", frames=FRAMES, size=(96, 80), fps=24):
    """A bar that runs to the right; frame i is recognised by the bar's place, 2·i pixels from the left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            pixels[:, 2 * index : 2 * index + 16] = (255, 40, 0)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def write_all(folder, videos=2):
    """A folder with all that is needed; (videos, module, checkpoint)."""
    for index in range(videos):
        write_video(folder / "videos" / f"box-{index}.mp4")
    module = write_module(folder / "models" / "motion" / "box-mm-v3.safetensors")
    return folder / "videos", module, write_checkpoint(folder / "models" / "Stable-diffusion" / "box.safetensors")
