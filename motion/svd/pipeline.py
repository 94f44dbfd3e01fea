"""Image to video for Python: `SvdPipeline.from_file(...)`, then `pipeline(picture)` as often as wanted."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from motion.errors import SettingsError
from motion.models.precision import choose_precision
from motion.svd.conditioning import ClipConditions, clip_pixels, embed_vector
from motion.svd.decoding import decode_in_chunks
from motion.svd.denoiser import ClipDenoiser
from motion.svd.guidance import guidance_scales
from motion.svd.networks import SvdNetworks, load_networks, pixels_per_latent, size_multiple
from motion.svd.noise_levels import edm_sigmas, initial_scale
from motion.svd.pictures import as_picture, fit_picture, to_tensor
from motion.svd.residency import resident
from motion.svd.samplers import OnStep, Sampled, sample
from motion.svd.settings import SvdSettings, check_size

LATENT_SCALE = 0.18215
"""Latents of the UNet over those of the autoencoder."""
TRAINED_SIZE = (1024, 576)
FULL_WIDTH = 320
"""Channels of the public UNets; only of these is the trained size known."""

OutputType = Literal["pil", "np", "pt", "latent"]
OUTPUT_TYPES = ("pil", "np", "pt", "latent")
_MAX_SEED = 2**32


@dataclass(frozen=True)
class SvdOutput:
    """What a run gives.

    Attributes:
        frames: "pil": a list of RGB pictures for each clip; "np": float32 `b f H W 3` in [0, 1]; "pt": `b f 3 H W` in
            [0, 1]; "latent": `b f c h w`, scaled as the UNet has them.
        seed: of the noise; None where a generator or latents were given.
        interrupted: sampling was stopped; frames are what was predicted until then.
        notes: what the user should know.
    """

    frames: Any
    seed: int | None
    interrupted: bool
    notes: tuple[str, ...]


class SvdPipeline:
    """Stable Video Diffusion, ready to animate pictures.

    Args:
        networks: the networks, where they wait for their turn.
        device: where each computes.
    """

    def __init__(self, networks: SvdNetworks, device: torch.device) -> None:
        self.networks = networks
        self.device = device

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        precision: str = "auto",
        device: str = "auto",
        vae_precision: str = "fp32",
        offload: bool = True,
    ) -> SvdPipeline:
        """Load weights.

        Args:
            path: single file or diffusers folder.
            precision: of UNet and image encoder, one of `motion.models.precision.PRECISIONS`.
            device: one of `motion.models.precision.DEVICES`.
            vae_precision: of encoder and decoder: "fp32", "bf16" or "fp16".
            offload: networks wait in CPU memory and take turns on the device; otherwise all stay there.

        Raises:
            CheckpointError: it can't be used.
            SettingsError: an unknown precision or device.
        """
        chosen = choose_precision(precision, device=device, vae=vae_precision)
        home = torch.device("cpu") if offload else chosen.device
        return cls(load_networks(path, chosen, home), chosen.device)

    @property
    def size_multiple(self) -> int:
        """Pixels that the sides of a clip must be multiples of."""
        return size_multiple(self.networks.config)

    @torch.no_grad()
    def __call__(
        self,
        image: Any,
        settings: SvdSettings | None = None,
        *,
        generator: torch.Generator | None = None,
        latents: Tensor | None = None,
        output_type: OutputType = "pil",
        on_step: OnStep | None = None,
        should_stop: Callable[[], bool] | None = None,
        **fields: Any,
    ) -> SvdOutput:
        """Animate one or several pictures.

        With the same generator or latents the noise is that of diffusers' pipeline. What a callback raises ends the
        run; networks are then back where they were.

        Args:
            image: a Pillow image or array as `as_picture` takes them, or a list of these.
            settings: the run; its fields may be given by name instead.
            generator: draws all noise in place of the seed: the pictures', then the clips', then ancestral steps'.
            latents: initial noise, standard normal, `b f c h w`, or `f c h w` for one clip.
            output_type: what `SvdOutput.frames` is.
            on_step: called with steps done and steps in all.
            should_stop: asked before each step; true stops sampling, and what was predicted last becomes the clip.
            fields: fields of `SvdSettings`.

        Raises:
            SettingsError: a field, picture, seed or shape that can't be.
        """
        settings = _settings(settings, fields, generator, output_type)
        check_size(settings, self.size_multiple)
        pictures = self._pictures(image, settings)
        seed = None if generator is not None else _seed(settings)
        generator = generator or torch.Generator().manual_seed(seed or 0)
        conditions = self._condition(pictures, settings, generator)
        noise = self._noise(len(conditions), settings, generator, latents)
        clips = self._sample(conditions, noise, settings, generator, on_step, should_stop)
        frames = self._output([clip.latents for clip in clips], settings, output_type)
        known = seed if latents is None else None
        return SvdOutput(frames, known, any(clip.interrupted for clip in clips), self._notes(settings))

    def _num_frames(self, settings: SvdSettings) -> int:
        return settings.num_frames or self.networks.config.num_frames

    def _pictures(self, image: Any, settings: SvdSettings) -> Tensor:
        """The pictures at the clip's size, `b 3 H W` in [-1, 1]."""
        images = list(image) if isinstance(image, list | tuple) else [image]
        if not images:
            raise SettingsError("`image` must be at least one picture, got an empty list. Pass a picture.")
        fitted = (fit_picture(as_picture(each), settings.width, settings.height, settings.fit) for each in images)
        return torch.cat([to_tensor(picture) for picture in fitted])

    def _condition(self, pictures: Tensor, settings: SvdSettings, generator: torch.Generator) -> list[ClipConditions]:
        """Conditions of each clip, those of one picture side by side; one picture is in the encoders at a time."""
        networks, device = self.networks, self.device
        noise = _draw(pictures.shape, generator).to(pictures)
        noisy = pictures + settings.noise_aug_strength * noise
        vector = embed_vector(
            settings.fps - 1,
            settings.motion_bucket_id,
            settings.noise_aug_strength,
            networks.config.vector_channels,
        ).to(device)
        with resident(networks.image_encoder, device) as image_encoder:
            size = networks.config.image_encoder.image_size
            embeddings = [image_encoder(clip_pixels(each[None], size).to(device)).float() for each in pictures]
        with resident(networks.encoder, device) as encoder:
            latents = [encoder.encode(each[None].to(device, encoder.dtype)).mode().float() for each in noisy]
        conditions = [ClipConditions(e[:, None], z, vector) for e, z in zip(embeddings, latents, strict=True)]
        return [each for each in conditions for _ in range(settings.num_videos_per_picture)]

    def _noise(
        self, num_clips: int, settings: SvdSettings, generator: torch.Generator, latents: Tensor | None
    ) -> Tensor:
        """Standard normal noise of all clips, `b f c h w`."""
        factor = pixels_per_latent(self.networks.config)
        channels = self.networks.config.unet.out_channels
        shape = (num_clips, self._num_frames(settings), channels, settings.height // factor, settings.width // factor)
        if latents is None:
            return _draw(shape, generator)
        given = latents[None] if latents.dim() == 4 else latents
        if tuple(given.shape) != shape:
            raise SettingsError(f"`latents` must have the shape {shape}, got {tuple(latents.shape)}. Draw new ones.")
        return given

    def _sample(
        self,
        conditions: Sequence[ClipConditions],
        noise: Tensor,
        settings: SvdSettings,
        generator: torch.Generator,
        on_step: OnStep | None,
        should_stop: Callable[[], bool] | None,
    ) -> list[Sampled]:
        """Clean latents of each clip, `f c h w`; one clip is in the UNet at a time."""
        sigmas = edm_sigmas(settings.num_inference_steps)
        lowest, highest = settings.min_guidance_scale, settings.max_guidance_scale
        scales = guidance_scales(settings.guidance, self._num_frames(settings), lowest, highest)
        sampled = []
        with resident(self.networks.unet, self.device) as unet:
            for index, each in enumerate(conditions):
                start = noise[index].to(self.device, torch.float32) * initial_scale(sigmas)
                clip = sample(
                    settings.sampler,
                    ClipDenoiser(unet, each, scales),
                    start,
                    sigmas,
                    draw=lambda start=start: _draw(start.shape, generator).to(start),  # type: ignore[misc]
                    on_step=_counted(on_step, index, len(conditions)),
                    should_stop=should_stop,
                )
                sampled.append(clip)
        return sampled

    def _output(self, clips: Sequence[Tensor], settings: SvdSettings, output_type: str) -> Any:
        """The frames of clean latents, as asked for."""
        if output_type == "latent":
            return torch.stack(list(clips))
        overlap = settings.decode_overlap if self.networks.config.decodes_clips else 0
        chunk_size = settings.decode_chunk_size or self._num_frames(settings)
        with resident(self.networks.decoder, self.device) as decoder:
            decoded = torch.stack(
                [torch.cat(list(decode_in_chunks(decoder, z / LATENT_SCALE, chunk_size, overlap))) for z in clips]
            )
        if output_type == "pt":
            return decoded
        arrays = decoded.permute(0, 1, 3, 4, 2).numpy()  # b f c h w -> b f h w c
        if output_type == "np":
            return arrays
        bytes_ = np.rint(arrays * 255).astype(np.uint8)
        return [[Image.fromarray(frame) for frame in clip] for clip in bytes_]

    def _notes(self, settings: SvdSettings) -> tuple[str, ...]:
        notes = []
        config = self.networks.config
        known = config.unet.model_channels == FULL_WIDTH
        if known and sorted((settings.width, settings.height)) != sorted(TRAINED_SIZE):
            notes.append(
                f"The weights were trained at {TRAINED_SIZE[0]}×{TRAINED_SIZE[1]}; at {settings.width}×"
                f"{settings.height} expect less detail or odd moves."
            )
        if self._num_frames(settings) > config.num_frames:
            notes.append(
                f"The weights were trained with {config.num_frames} frames; in {self._num_frames(settings)} the "
                "picture may dissolve towards the end."
            )
        return tuple(notes)


def _settings(
    settings: SvdSettings | None, fields: dict[str, Any], generator: torch.Generator | None, output_type: str
) -> SvdSettings:
    if settings is not None and fields:
        raise SettingsError(f"`settings` and {', '.join(fields)} were given. Pass one or the other.")
    settings = SvdSettings.from_mapping(fields) if settings is None else settings
    if output_type not in OUTPUT_TYPES:
        names = ", ".join(OUTPUT_TYPES)
        raise SettingsError(f"`output_type` must be one of {names}, got {output_type!r}. Choose one of these.")
    if generator is not None and settings.seed is not None:
        raise SettingsError(f"`generator` and `seed` ({settings.seed}) were given. Pass one of them.")
    return settings


def _seed(settings: SvdSettings) -> int:
    return secrets.randbelow(_MAX_SEED) if settings.seed is None else settings.seed


def _draw(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, device=generator.device, dtype=torch.float32)


def _counted(on_step: OnStep | None, index: int, num_clips: int) -> OnStep | None:
    """A callback that counts the steps of all clips."""
    if on_step is None:
        return None
    return lambda done, total: on_step(index * total + done, num_clips * total)
