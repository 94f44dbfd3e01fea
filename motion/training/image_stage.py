"""Stage 3 of a small checkpoint: the image UNet, from nothing, on a trained autoencoder and text encoder."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from motion.checkpoints.stable_diffusion_writing import checkpoint_tensors, checkpoint_yaml
from motion.checkpoints.text_folder import FOLDER_PLACEHOLDER
from motion.models.autoencoder import AutoencoderKL
from motion.models.clip_text import ClipTextEncoder
from motion.models.clip_tokenizer import ClipTokenizer
from motion.models.unet import UNetConfig, UNetModel
from motion.models.unet_blocks import ResBlock, SpatialTransformer
from motion.training.autoencoder_task import SCALE_FACTOR
from motion.training.denoising import Stage
from motion.training.preview import Preview, draw_sheet
from motion.training.run_folder import RunFolder
from motion.training.text import TextConditioner
from motion.training.vocabulary import make_vocabulary, write_vocabulary

TEXT_SUFFIX = "-text"


class ImageModel:
    """A new checkpoint in the making.

    Args:
        unet_config: shape of the UNet.
        encoder: of texts, trained before, and frozen as Stable Diffusion's is; its vocabulary is that of `words`.
        autoencoder: trained before.
        words: the vocabulary.
        seed: of the first weights.
    """

    def __init__(
        self,
        unet_config: UNetConfig,
        encoder: ClipTextEncoder,
        autoencoder: AutoencoderKL,
        words: tuple[str, ...],
        seed: int,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.unet = UNetModel(unet_config)
        zero_output_projections(self.unet)
        self.autoencoder = autoencoder
        self.text = TextConditioner(ClipTokenizer(make_vocabulary(words)), encoder.requires_grad_(False))
        self._words = words

    def stage(self, name: str, preview: Preview) -> Stage:
        """The UNet learns.

        Args:
            name: of the checkpoint.
            preview: of the sample sheets.
        """
        parameters = {f"unet.{key}": value for key, value in self.unet.named_parameters()}

        def sheet() -> Image.Image:
            return draw_sheet(self.unet, self.text, self.autoencoder, preview, SCALE_FACTOR)

        facts = {"unet": repr(self.unet.config), "text": repr(self.text.encoder.config)}
        return Stage("image", parameters, nullcontext, sheet, lambda folder: self._export(folder, name), facts)

    def _export(self, folder: RunFolder, name: str) -> list[Path]:
        """Checkpoint, yaml and the text encoder's folder, as a web UI wants them."""
        path = folder.path / f"{name}.safetensors"
        tensors = checkpoint_tensors(self.unet, self.autoencoder, self.text.encoder)
        folder.write(path, lambda temporary: save_file(tensors, temporary))
        yaml = checkpoint_yaml(self.unet.config, self.autoencoder.config, FOLDER_PLACEHOLDER)
        text_folder = folder.path / f"{name}{TEXT_SUFFIX}"
        config = self.text.encoder.config
        folder.guarded(f"The folder {text_folder.name}", lambda: write_vocabulary(text_folder, self._words, config))
        return [path, folder.save_text(f"{name}.yaml", yaml), text_folder]


@torch.no_grad()
def zero_output_projections(unet: nn.Module) -> None:
    """Start every residual branch, and the prediction itself, at zero (Dhariwal and Nichol 2021, arXiv:2105.05233)."""
    for module in unet.modules():
        if isinstance(module, ResBlock | SpatialTransformer):
            last = module.proj_out if isinstance(module, SpatialTransformer) else module.out_layers[-1]
            for parameter in last.parameters():
                parameter.zero_()
    for parameter in unet.get_submodule("out").get_submodule("2").parameters():
        parameter.zero_()
