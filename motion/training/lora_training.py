"""A motion LoRA from a user's own videos: stage 3 of AnimateDiff on a checkpoint and module of their choice."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from motion.checkpoints.motion_file import MotionFamily, inspect_motion_file, load_motion_model
from motion.checkpoints.motion_lora_file import load_motion_lora
from motion.checkpoints.registry import known_formats
from motion.checkpoints.stable_diffusion import open_checkpoint
from motion.errors import CheckpointError, SettingsError
from motion.injection.inject import matching_sites
from motion.models.motion_module import MotionModel
from motion.training.denoising import DenoisingSettings, DenoisingTask, Stage
from motion.training.frozen_checkpoint import FrozenCheckpoint, load_frozen
from motion.training.latent_bank import LatentBank, encode_clips
from motion.training.lora_settings import MotionLoraSettings
from motion.training.low_rank import motion_attention_layers
from motion.training.motion_stages import lora_stage
from motion.training.preview import Preview, draw_sheet
from motion.training.run_folder import RunFolder
from motion.training.text import CachedContexts, TextConditioner
from motion.training.video_dataset import Dataset

BANK_FILE = "latents.safetensors"
MAX_PREVIEWS = 3
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

OnStatus = Callable[[str], None]


@dataclass(frozen=True)
class LoraNetworks:
    """What a run trains on.

    Attributes:
        frozen: the checkpoint's networks.
        motion_model: the motion module, frozen too.
        family: the module's.
    """

    frozen: FrozenCheckpoint
    motion_model: MotionModel
    family: MotionFamily


@dataclass(frozen=True)
class LoraRun:
    """A run that is ready to start.

    Attributes:
        task: for the trainer.
        networks: what it trains on; the text encoder has done its work and is on the CPU.
        notes: what the user should know.
    """

    task: DenoisingTask
    networks: LoraNetworks
    notes: tuple[str, ...]


def inspect_files(settings: MotionLoraSettings, *, own_frames: bool) -> MotionLoraSettings:
    """See from the files' headers that checkpoint and module can be trained on.

    Args:
        settings: the run.
        own_frames: cut clips to the frames that the module was trained on.

    Returns:
        The settings, with these frames.

    Raises:
        CheckpointError: one of them can't be read, or is something else.
    """
    family, config = inspect_motion_file(settings.module, family=settings.module_family, formats=known_formats())
    if family.base != "sd15":
        reason = f"A motion LoRA is trained for a module of SD1.5, this one is {family.title}."
        raise CheckpointError(settings.module, reason, "Choose an SD1.5 module, such as v3_sd15_mm.")
    with open_checkpoint(settings.checkpoint) as file:
        if file.base != family.base:
            reason = f"A module of SD1.5 is trained on a checkpoint of SD1.5, this one is {file.base}."
            raise CheckpointError(settings.checkpoint, reason, "Choose an SD1.5 checkpoint.")
    if own_frames:
        return replace(settings, dataset=replace(settings.dataset, num_frames=family.trained_frames))
    if settings.dataset.num_frames > config.max_length:
        raise SettingsError(
            f"`frames` must be at most {config.max_length}, as {settings.module.name} knows no more places, got "
            f"{settings.dataset.num_frames}. Lower it."
        )
    return settings


def load_networks(settings: MotionLoraSettings, device: torch.device) -> LoraNetworks:
    """Read checkpoint and module, frozen, in the run's precision.

    Raises:
        CheckpointError: a file can't be used.
        InjectionError: the module doesn't fit the checkpoint.
    """
    dtype = DTYPES[settings.trainer.precision]
    frozen = load_frozen(settings.checkpoint, device=device, dtype=dtype)
    model, family = load_motion_model(
        settings.module, device=device, dtype=dtype, family=settings.module_family, formats=known_formats()
    )
    matching_sites(frozen.unet, model)
    if not motion_attention_layers(model):
        reason = "This module has no temporal attention, which is what a motion LoRA changes."
        raise CheckpointError(settings.module, reason, "Choose a module of AnimateDiff's layout.")
    return LoraNetworks(frozen, model, family)


def prepare_lora(
    settings: MotionLoraSettings,
    dataset: Dataset,
    networks: LoraNetworks,
    folder: RunFolder,
    on_status: OnStatus = lambda text: None,
) -> LoraRun:
    """Encode videos and captions, and put the run together.

    Args:
        settings: the run.
        dataset: its videos, checked.
        networks: what it trains on.
        folder: latents are kept there, for when the run is resumed.
        on_status: told what is being done.

    Raises:
        MotionError: a video can't be read any more, or the disk is full.
    """
    bank = _bank(settings, dataset, networks.frozen, folder, on_status)
    on_status("Encoding the captions")
    captions = dataset.captions[:MAX_PREVIEWS]
    contexts = CachedContexts(networks.frozen.text, bank.all_captions)
    notes = _long_captions(networks.frozen.text, dataset)
    networks.frozen.text.encoder.to("cpu")  # has done its work
    width, height = settings.dataset.size
    num_frames = settings.dataset.num_frames
    preview = Preview(tuple(captions), num_frames, (height // 8, width // 8), networks.family.beta_schedule)
    unet, autoencoder = networks.frozen.unet, networks.frozen.autoencoder

    def sheet() -> Image.Image:
        with plain.changes():
            return draw_sheet(unet, contexts, autoencoder, preview, networks.frozen.scale_factor)

    plain = lora_stage(
        unet,
        networks.motion_model,
        num_frames,
        settings.rank,
        sheet,
        settings.file_name,
        seed=settings.trainer.seed,
        checkpointed=settings.gradient_checkpointing,
    )
    facts = {**plain.facts, **_facts(settings, dataset)}
    stage = replace(plain, facts=facts, export=lambda target: _export(settings, dataset, networks, plain, target))
    denoising = DenoisingSettings(
        settings.batch_size, schedules=(networks.family.beta_schedule,), both_ways=settings.both_ways
    )
    return LoraRun(DenoisingTask(unet, contexts, bank, denoising, stage), networks, notes)


def _bank(
    settings: MotionLoraSettings, dataset: Dataset, frozen: FrozenCheckpoint, folder: RunFolder, on_status: OnStatus
) -> LatentBank:
    key = f"{dataset.key} {settings.checkpoint.name} {settings.checkpoint.stat().st_size}"
    bank = LatentBank.load(folder.path / BANK_FILE, key)
    if bank is None:
        on_status("Encoding the videos")
        bank = encode_clips(frozen.autoencoder, dataset.clips(), frozen.scale_factor)
        bank.save(folder, BANK_FILE, key)
    return bank


def _long_captions(text: TextConditioner, dataset: Dataset) -> tuple[str, ...]:
    counts = {caption: text.count_tokens(caption) for caption in dataset.captions}
    return tuple(
        f"A caption of {count} tokens is longer than the {text.max_words} that the text encoder reads; the rest of it "
        f"is not seen: {caption[:60]!r}"
        for caption, count in counts.items()
        if count > text.max_words
    )


def _facts(settings: MotionLoraSettings, dataset: Dataset) -> Mapping[str, Any]:
    """What makes it another run when it changes."""
    files = {"module": settings.module, "checkpoint": settings.checkpoint}
    return {
        **{kind: f"{path.name}, {path.stat().st_size} bytes" for kind, path in files.items()},
        "dataset": dataset.key,
        "name": settings.name,
    }


def lora_card(settings: MotionLoraSettings, dataset: Dataset, family: MotionFamily) -> dict[str, str]:
    """What the LoRA's file says of itself: name -> text."""
    trainer = settings.trainer
    width, height = settings.dataset.size
    return {
        "title": settings.name,
        "kind": "motion LoRA, in the key spelling of AnimateDiff",
        "motion_module": f"{settings.module.name} ({family.title})",
        "checkpoint": settings.checkpoint.name,
        "rank": str(settings.rank),
        "steps": str(trainer.steps),
        "learning_rate": f"{trainer.learning_rate:g}",
        "batch_size": str(settings.batch_size * trainer.accumulation),
        "precision": trainer.precision,
        "seed": str(trainer.seed),
        "played": "forwards at 1, backwards at -1" if settings.both_ways else "forwards",
        "clips": f"{sum(len(video.starts) for video in dataset.videos)} from {len(dataset.videos)} videos, "
        f"{settings.dataset.num_frames} frames of {width}x{height} pixels",
        "captions": json.dumps(dataset.captions[:50]),
    }


def _export(
    settings: MotionLoraSettings, dataset: Dataset, networks: LoraNetworks, stage: Stage, folder: RunFolder
) -> list[Path]:
    """Write the LoRA and its card, and read it back as everybody will.

    Raises:
        CheckpointError: it can't be read back.
    """
    card = lora_card(settings, dataset, networks.family)
    tensors = {key: value.detach().to("cpu", torch.float16).contiguous() for key, value in stage.parameters.items()}
    path = folder.path / settings.file_name
    folder.write(path, lambda temporary: save_file(tensors, temporary, card))
    lora = load_motion_lora(path)
    layers = motion_attention_layers(networks.motion_model)
    for name in layers.keys() | lora.deltas.keys():
        if name not in layers or name not in lora.deltas:
            reason = f"The LoRA must change the layers of its module, {name} is in one of them only."
            raise CheckpointError(path, reason, "Please report this.")
        lora.check_fits(lora.deltas[name], tuple(layers[name].weight.shape))  # type: ignore[arg-type]
    text = "".join(f"- {name.replace('_', ' ')}: {value}\n" for name, value in card.items() if name != "title")
    return [path, folder.save_text(f"{settings.name}.md", f"# {settings.name}\n\n{text}")]
