"""The stages of the shapes models, ready to run in a folder that holds what the earlier ones made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file

from motion.checkpoints.domain_adapter_file import load_domain_adapter
from motion.checkpoints.motion_file import load_motion_model
from motion.errors import MotionError
from motion.injection.domain_adapter import domain_adapter_applied
from motion.models.autoencoder import AutoencoderKL
from motion.models.motion_module import MotionModuleConfig
from motion.protocols import BetaSchedule
from motion.training import shapes_recipe as recipe
from motion.training.autoencoder_task import FILE_NAME, SCALE_FACTOR, AutoencoderTask
from motion.training.decoder_task import DecoderTask
from motion.training.denoising import DenoisingSettings, DenoisingTask, Stage
from motion.training.frozen_checkpoint import FrozenCheckpoint, load_frozen
from motion.training.image_stage import ImageModel
from motion.training.latent_bank import CaptionedClip, LatentBank, encode_clips
from motion.training.motion_stages import adapter_stage, lora_stage, module_stage, new_motion_model, start_from
from motion.training.preview import Preview, draw_sheet
from motion.training.run_folder import RunFolder
from motion.training.shapes import WORDS
from motion.training.shapes_data import camera_clips, captions, clips, draw_frames, graded_stills, stills
from motion.training.text import CachedContexts
from motion.training.text_stage import FILE_NAME as TEXT_FILE
from motion.training.text_stage import TextTask, load_encoder
from motion.training.trainer import TrainingTask

CPU = torch.device("cpu")
BANK_FILE = "latents.safetensors"
PRODUCTS: Mapping[str, str] = MappingProxyType(
    {
        "autoencoder": FILE_NAME,
        "sharpening": FILE_NAME,
        "text": TEXT_FILE,
        "image": recipe.IMAGE_FILE,
        "decoder": recipe.CHECKPOINT_FILE,
        "adapter": recipe.ADAPTER_FILE,
        "motion-v3": recipe.MODULE_V3_FILE,
        "motion-v2": recipe.MODULE_V2_FILE,
    }
)
"""Stage -> the file that later stages need."""
PREVIEW_CAPTIONS = (
    "a red circle moving right on a blue background",
    "a green square moving up on a black background",
    "a yellow star moving left on a grey background",
    "a purple triangle moving down on a brown background",
    "a white star turning on a blue background",
    "a blue circle growing on a grey background",
)
STILL_CAPTIONS = tuple(
    f"a {colour} {shape} on a {background} background"
    for colour, background in (("red", "blue"), ("green", "black"), ("yellow", "grey"), ("purple", "brown"))
    for shape in ("circle", "square", "triangle", "star")
)


class ShapesFolder:
    """Where the stages' runs are; each stage has a folder of its name.

    Args:
        path: made if missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def run(self, stage: str) -> RunFolder:
        """The folder of one stage."""
        return RunFolder(self._path / stage)

    def made(self, stage: str, name: str) -> Path:
        """A file that an earlier stage has made.

        Raises:
            MotionError: it has not.
        """
        path = self._path / stage / name
        if not path.is_file():
            raise MotionError(f"The stage {stage} must have made {path}, which is not there. Run that stage first.")
        return path

    @property
    def checkpoint(self) -> Path:
        """The image stage's checkpoint."""
        return self.made("image", recipe.IMAGE_FILE)

    def marked(self, name: str, stage: Stage) -> Stage:
        """`stage` with the SHA-256 of the files that it needs among its facts: a run on others is another run."""
        needs = {need: self.made(need, PRODUCTS[need]).read_bytes() for need in recipe.STAGES[name].needs}
        digests = {f"made by {need}": hashlib.sha256(content).hexdigest() for need, content in needs.items()}
        return replace(stage, facts={**stage.facts, **digests})

    def bank(self, stage: str, autoencoder: AutoencoderKL, drawn: Iterable[CaptionedClip]) -> LatentBank:
        """A stage's data set as latents, encoded when the stage is first run, or with another autoencoder or world."""
        settings, run, drawn = recipe.STAGES[stage], self.run(stage), iter(drawn)
        first = next(drawn)
        digest = hashlib.sha256(first.frames.tobytes())
        for value in autoencoder.state_dict().values():
            digest.update(value.numpy().tobytes())
        key = f"{stage} {settings.clips} {settings.data_seed} {digest.hexdigest()}"
        bank = LatentBank.load(run.path / BANK_FILE, key)
        if bank is None:
            bank = encode_clips(autoencoder, chain([first], drawn), SCALE_FACTOR)
            bank.save(run, BANK_FILE, key)
        return bank


def autoencoder_task(folder: ShapesFolder) -> TrainingTask:
    """Stage "autoencoder"."""
    settings = recipe.STAGES["autoencoder"]
    return AutoencoderTask(recipe.AUTOENCODER, draw_frames, batch_size=settings.batch_size, seed=settings.trainer.seed)


def sharpening_task(folder: ShapesFolder) -> TrainingTask:
    """Stage "sharpening": the autoencoder goes on with absolute errors, which draw edges."""
    settings = recipe.STAGES["sharpening"]
    start = folder.made("autoencoder", FILE_NAME)
    return AutoencoderTask(
        recipe.AUTOENCODER, draw_frames, batch_size=settings.batch_size, absolute_weight=1.0, start=start
    )


def text_task(folder: ShapesFolder) -> TrainingTask:
    """Stage "text"."""
    settings = recipe.STAGES["text"]
    said = list(captions(settings.data_seed, settings.clips))
    return TextTask(recipe.text_config(), WORDS, said, batch_size=settings.batch_size, seed=settings.trainer.seed)


def image_task(folder: ShapesFolder) -> TrainingTask:
    """Stage "image"."""
    settings = recipe.STAGES["image"]
    autoencoder = AutoencoderKL(recipe.AUTOENCODER)
    autoencoder.load_state_dict(load_file(folder.made("sharpening", FILE_NAME)))
    bank = folder.bank("image", autoencoder, stills(settings.data_seed, settings.clips))
    encoder = load_encoder(folder.made("text", TEXT_FILE), recipe.text_config())
    model = ImageModel(recipe.UNET, encoder, autoencoder, WORDS, settings.trainer.seed)
    preview = Preview(STILL_CAPTIONS, 1, recipe.LATENT_SIZE, recipe.IMAGE_SCHEDULE)
    # Both schedules: the checkpoint must also serve motion modules, which bring their own.
    schedules = (recipe.IMAGE_SCHEDULE, recipe.MOTION_SCHEDULE)
    denoising = _denoising("image", schedules)
    stage = folder.marked("image", model.stage(recipe.IMAGE_NAME, preview))
    return DenoisingTask(model.unet, model.text, bank, denoising, stage)


def adapter_task(folder: ShapesFolder) -> TrainingTask:
    """Stage "adapter"."""
    settings, frozen = recipe.STAGES["adapter"], _frozen(folder)

    def make(sheet: Callable[[], Image.Image | None]) -> Stage:
        return adapter_stage(frozen.unet, recipe.ADAPTER_RANK, sheet, recipe.ADAPTER_FILE, settings.trainer.seed)

    drawn = graded_stills(settings.data_seed, settings.clips)
    schedules = (recipe.IMAGE_SCHEDULE, recipe.MOTION_SCHEDULE)
    preview = Preview(STILL_CAPTIONS, 1, recipe.LATENT_SIZE, recipe.IMAGE_SCHEDULE)
    return _frozen_task(folder, "adapter", frozen, drawn, schedules, preview, make)


def decoder_task(folder: ShapesFolder) -> TrainingTask:
    """Stage "decoder": the finished checkpoint, in which everything but the decoder is the image stage's."""
    autoencoder, batch_size = _frozen(folder).autoencoder, recipe.STAGES["decoder"].batch_size
    draw = partial(draw_frames, frames_per_clip=1)  # batches are small: all different, they teach more
    return DecoderTask(autoencoder, folder.checkpoint, recipe.NAME, draw, batch_size=batch_size)


def module_task(folder: ShapesFolder, name: str, config: MotionModuleConfig, file_name: str) -> TrainingTask:
    """Stages "motion-v2", alone on clean clips, and "motion-v3", which goes on from it beside the adapter.

    From nothing, the degraded clips of "motion-v3" teach smooth motion but no directions in as many steps.
    """
    settings, frozen = recipe.STAGES[name], _frozen(folder)
    beside_adapter = "adapter" in settings.needs
    model = new_motion_model(config, settings.trainer.seed)
    if "motion-v2" in settings.needs:
        start_from(model, folder.made("motion-v2", recipe.MODULE_V2_FILE))
    around: Mapping[str, Any] = {}
    if beside_adapter:
        adapter = load_domain_adapter(folder.made("adapter", recipe.ADAPTER_FILE))
        around = {"around": partial(domain_adapter_applied, frozen.unet, adapter, 1.0)}

    def make(sheet: Callable[[], Image.Image | None]) -> Stage:
        return module_stage(frozen.unet, model, recipe.NUM_FRAMES, sheet, file_name, **around)

    drawn = clips(settings.data_seed, settings.clips, is_degraded=beside_adapter)
    return _frozen_task(folder, name, frozen, drawn, (recipe.MOTION_SCHEDULE,), _clip_preview(), make)


def lora_task(folder: ShapesFolder, name: str) -> TrainingTask:
    """A motion LoRA's stage."""
    settings, frozen = recipe.STAGES[name], _frozen(folder)
    path = folder.made("motion-v2", recipe.MODULE_V2_FILE)
    model, _ = load_motion_model(path, device=CPU, dtype=torch.float32)

    def make(sheet: Callable[[], Image.Image | None]) -> Stage:
        return lora_stage(
            frozen.unet,
            model,
            recipe.NUM_FRAMES,
            recipe.LORA_RANK,
            sheet,
            f"{recipe.NAME}-{name}.safetensors",
            seed=settings.trainer.seed,
        )

    drawn = camera_clips(settings.data_seed, settings.clips, recipe.LORA_CAMERAS[name])
    return _frozen_task(folder, name, frozen, drawn, (recipe.MOTION_SCHEDULE,), _clip_preview(), make)


SHAPES_TASKS: Mapping[str, Callable[[ShapesFolder], TrainingTask]] = MappingProxyType(
    {
        "autoencoder": autoencoder_task,
        "sharpening": sharpening_task,
        "text": text_task,
        "image": image_task,
        "adapter": adapter_task,
        "decoder": decoder_task,
        "motion-v2": partial(module_task, name="motion-v2", config=recipe.MODULE_V2, file_name=recipe.MODULE_V2_FILE),
        "motion-v3": partial(module_task, name="motion-v3", config=recipe.MODULE_V3, file_name=recipe.MODULE_V3_FILE),
        **{name: partial(lora_task, name=name) for name in recipe.LORA_CAMERAS},
    }
)
"""Stage -> its task, given the folder of all runs."""


def _denoising(name: str, schedules: tuple[BetaSchedule, ...]) -> DenoisingSettings:
    stage = recipe.STAGES[name]
    return DenoisingSettings(
        stage.batch_size,
        schedules=schedules,
        snr_floor=recipe.SNR_FLOOR,
        velocity_share=stage.velocity_share,
        noise_bias=stage.noise_bias,
        both_ways=stage.both_ways,
        graded=stage.graded,
    )


def _frozen(folder: ShapesFolder) -> FrozenCheckpoint:
    return load_frozen(folder.checkpoint, device=CPU)


def _clip_preview() -> Preview:
    return Preview(PREVIEW_CAPTIONS, recipe.NUM_FRAMES, recipe.LATENT_SIZE, recipe.MOTION_SCHEDULE)


def _frozen_task(
    folder: ShapesFolder,
    name: str,
    frozen: FrozenCheckpoint,
    drawn: Iterable[CaptionedClip],
    schedules: tuple[BetaSchedule, ...],
    preview: Preview,
    make: Callable[[Callable[[], Image.Image | None]], Stage],
) -> TrainingTask:
    """A task on the frozen checkpoint; its sheets show the checkpoint with what is learned in it."""
    bank = folder.bank(name, frozen.autoencoder, drawn)
    contexts = CachedContexts(frozen.text, [*bank.all_captions, *preview.captions])

    def sheet() -> Image.Image:
        changes: AbstractContextManager[Any] = stage.changes()
        with changes:
            return draw_sheet(frozen.unet, contexts, frozen.autoencoder, preview, SCALE_FACTOR)

    stage = make(sheet)
    denoising = _denoising(name, schedules)
    return DenoisingTask(frozen.unet, contexts, bank, denoising, folder.marked(name, stage))
