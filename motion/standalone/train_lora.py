"""`python -m motion train motion-lora`."""

from __future__ import annotations

import _thread
import argparse
import os
import re
import shutil
import sys
import threading
from pathlib import Path

import torch

from motion.errors import MotionError, SettingsError
from motion.standalone.train_bar import TrainBar, file_bar
from motion.training.gradient_checks import TrainingError
from motion.training.lora_estimate import estimate_memory, estimate_time
from motion.training.lora_settings import MotionLoraSettings, lora_trainer_settings
from motion.training.lora_training import LoraNetworks, inspect_files, load_networks, prepare_lora
from motion.training.run_folder import RunFolder
from motion.training.run_progress import FAILED, FINISHED, PREPARING, STOPPED, ProgressFile, RunProgress
from motion.training.trainer import Trainer
from motion.training.video_dataset import Dataset, DatasetSettings, check_dataset, describe_dataset
from motion.video import check_output_folder
from motion.video.folder import output_error

_SIZE = re.compile(r"(\d{1,5})(?:[x×](\d{1,5}))?")


def train_motion_lora(arguments: argparse.Namespace, device: torch.device) -> None:
    """Check the videos, say what training will take, and train.

    Args:
        arguments: of the command line.
        device: where to compute.

    Raises:
        MotionError: something in the request, the data or the folder can't work.
        KeyboardInterrupt: the user pressed Ctrl-C; the state is saved.
    """
    if arguments.stop_at_end_of_input:
        threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()
    settings = lora_settings(arguments, device)
    if arguments.check:
        with file_bar("Checking the videos") as on_video:
            dataset = check_dataset(settings.dataset, on_video)
        _report(dataset)
        if dataset.videos:
            _estimate(settings, dataset, load_networks(settings, device))
        dataset.require_usable()
    else:
        _Run(settings, RunFolder(arguments.out), device, arguments.lora_dir).run()


def lora_settings(arguments: argparse.Namespace, device: torch.device) -> MotionLoraSettings:
    """Settings of the run; checkpoint and module are looked at, and say how many frames a clip has.

    Raises:
        MotionError: a value is out of range, or a file can't be used.
    """
    precision = _best_precision(device) if arguments.precision == "auto" else arguments.precision
    trainer = lora_trainer_settings(
        steps=arguments.steps,
        precision=precision,
        save_every=arguments.save_every,
        learning_rate=arguments.learning_rate,
        accumulation=arguments.accumulation,
        sample_every=arguments.sample_every,
        seed=arguments.seed,
        anomaly=arguments.anomaly,
    )
    dataset = DatasetSettings(
        arguments.videos.absolute(),
        size=parse_size(arguments.size),
        frame_stride=arguments.frame_stride,
        clips_per_video=arguments.clips_per_video,
        default_caption=arguments.default_caption,
        skip_bad=arguments.skip_bad,
        seed=arguments.seed,
        **({"num_frames": arguments.frames} if arguments.frames else {}),
    )
    settings = MotionLoraSettings(
        arguments.name or arguments.videos.absolute().name,
        arguments.module,
        arguments.checkpoint,
        dataset,
        trainer,
        rank=arguments.rank,
        batch_size=arguments.batch_size,
        gradient_checkpointing=arguments.gradient_checkpointing,
        both_ways=arguments.both_ways,
        module_family=arguments.module_family,
    )
    return inspect_files(settings, own_frames=not arguments.frames)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of "256" or "384x256".

    Raises:
        SettingsError: neither.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise SettingsError(f"`size` must be one number of pixels or two, such as 256 or 384x256, got {text!r}.")
    return int(match[1]), int(match[2] or match[1])


class _StopAskedError(Exception):
    """The stop file appeared before training began."""


class _Run:
    """One run of the command, and what it says of itself.

    Args:
        settings: the run.
        folder: its folder.
        device: where to compute.
        lora_dir: gets a copy of the LoRA.
    """

    def __init__(
        self, settings: MotionLoraSettings, folder: RunFolder, device: torch.device, lora_dir: Path | None
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._device = device
        self._lora_dir = lora_dir
        self._progress = ProgressFile(folder)
        self._step = max((step for step, _ in folder.states()), default=0)

    def run(self) -> None:
        """Train to the end or until stopped; whatever the end is, the progress file tells of it."""
        self._folder.stop_file.unlink(missing_ok=True)
        if self._lora_dir is not None:
            check_output_folder(self._lora_dir)
        try:
            is_done = self._train()
        except MotionError as error:
            self._say(FAILED, str(error))
            raise
        except torch.cuda.OutOfMemoryError as error:
            failure = _out_of_memory(error)
            self._say(FAILED, str(failure))
            raise failure from error
        except _StopAskedError:
            is_done = False
        except KeyboardInterrupt:
            self._stopped()
            raise
        if is_done:
            self._deliver()
        else:
            self._stopped()

    def _train(self) -> bool:
        """True when all steps are done."""
        settings = self._settings
        self._prepare("Checking the videos")
        with file_bar("Checking the videos") as move:

            def on_video(done: int, total: int) -> None:
                self._stop_if_asked()
                move(done, total)

            dataset = check_dataset(settings.dataset, on_video)
        _report(dataset)
        dataset.require_usable()
        self._prepare("Reading the networks")
        networks = load_networks(settings, self._device)
        if not self._step:
            self._prepare("Measuring what a step takes")
            _estimate(settings, dataset, networks)
        run = prepare_lora(settings, dataset, networks, self._folder, self._prepare)
        for note in run.notes:
            sys.stderr.write(f"{note}\n")
        bar = TrainBar("Training", settings.trainer.steps, self._progress)
        trainer = Trainer(run.task, settings.trainer, self._folder, device=self._device, on_progress=bar.on_progress)
        self._step = trainer.step
        self._stop_if_asked()
        try:
            with bar.shown(trainer.step):
                return trainer.run()
        finally:
            self._step = trainer.step

    def _prepare(self, text: str) -> None:
        self._stop_if_asked()
        sys.stderr.write(f"{text} …\n")
        self._say(PREPARING, text)

    def _stop_if_asked(self) -> None:
        if self._folder.stop_file.exists():
            raise _StopAskedError

    def _stopped(self) -> None:
        kept = "the state is saved" if self._step else "nothing was trained yet"
        text = (
            f"Stopped after step {self._step} of {self._settings.trainer.steps}; {kept}. Run the same command again to "
            "resume."
        )
        self._say(STOPPED, text)
        sys.stderr.write(f"{text}\n")

    def _deliver(self) -> None:
        path = self._folder.path / self._settings.file_name
        if self._lora_dir is not None:
            path = copied(path, self._lora_dir)
        self._say(FINISHED, f"The motion LoRA is {path}.")
        sys.stdout.write(f"{path}\n")

    def _say(self, state: str, text: str) -> None:
        self._progress.write(RunProgress(state, text, self._step, self._settings.trainer.steps))


def copied(path: Path, folder: Path) -> Path:
    """A copy of a finished file in `folder`, in place of an older one of its name.

    Raises:
        OutputError: it can't be written.
    """
    target, temporary = folder / path.name, folder / f".{path.name}.unfinished"
    try:
        shutil.copyfile(path, temporary)
        temporary.replace(target)
    except OSError as error:
        raise output_error(error, f"The LoRA {path} must be copied to {folder}") from error
    return target


def _report(dataset: Dataset) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in describe_dataset(dataset)))
    sys.stdout.flush()


def _estimate(settings: MotionLoraSettings, dataset: Dataset, networks: LoraNetworks) -> None:
    try:
        memory = estimate_memory(settings, networks)
        sys.stdout.write(f"{memory.describe()}\n")
        sys.stdout.write(f"{estimate_time(settings, networks, len(dataset.captions)).describe()}\n")
    except torch.cuda.OutOfMemoryError as error:
        raise _out_of_memory(error) from error
    sys.stdout.flush()


def _out_of_memory(error: Exception) -> TrainingError:
    return TrainingError(
        f"A training step must fit the memory of the GPU, got: {str(error).splitlines()[0]} Lower the size, the batch "
        "size or the rank, turn gradient checkpointing on, or close what else uses the GPU.",
        status_code=507,
    )


def _best_precision(device: torch.device) -> str:
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def _interrupt_at_end_of_input() -> None:
    """The program that started this one holds the other end of stdin: when it is gone, end as by Ctrl-C."""
    while os.read(sys.stdin.fileno(), 1 << 16):  # unbuffered: a buffer's lock would be held while Python shuts down
        pass
    _thread.interrupt_main()
