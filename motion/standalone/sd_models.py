"""`modules.sd_models`: the list of checkpoints, and the one that is loaded.

What it keeps lives in the running host's state; `model_data`, `checkpoints_list` and `checkpoint_aliases` show it.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from motion.checkpoints.stable_diffusion import open_checkpoint
from motion.errors import CheckpointError
from motion.injection.beta_schedule import with_zero_terminal_snr as rescale_zero_terminal_snr_abar
from motion.standalone import devices, host_state, script_callbacks, shared
from motion.standalone.checkpoint_info import CheckpointInfo, model_hash
from motion.standalone.sd_model import SdModel
from motion.standalone.sdxl_model import SdxlModel

__all__ = ["CheckpointInfo", "model_hash", "rescale_zero_terminal_snr_abar"]

logger = logging.getLogger(__name__)

model_data: SdModelData
checkpoints_list: dict[str, CheckpointInfo]
checkpoint_aliases: dict[str, CheckpointInfo]
model_path: str

CHECKPOINT_SUFFIXES = frozenset({".safetensors", ".ckpt"})
_CHECKSUM = re.compile(r"\s*\[[^]]+]\s*$")


@dataclass
class SdModelData:
    """Checkpoints of one host.

    Attributes:
        sd_model: the loaded one.
        checkpoints_list: title -> file.
        checkpoint_aliases: any name -> file.
        skip_writing_to_config: loading does not change the option `sd_model_checkpoint`.
        lock: held while a checkpoint is loaded.
    """

    sd_model: SdModel | None = None
    checkpoints_list: dict[str, CheckpointInfo] = field(default_factory=dict)
    checkpoint_aliases: dict[str, CheckpointInfo] = field(default_factory=dict)
    skip_writing_to_config: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def loaded_sd_models(self) -> list[SdModel]:
        """The loaded model, where there is one."""
        return [] if self.sd_model is None else [self.sd_model]

    def get_sd_model(self) -> SdModel:
        """The loaded model; the chosen one is loaded if there is none.

        Raises:
            CheckpointError: there is no checkpoint, or it can't be used.
        """
        with self.lock:
            return self.sd_model or load_model()

    def set_sd_model(self, v: SdModel | None) -> None:
        """Make `v` the loaded model."""
        self.sd_model = v


class SkipWritingToConfig:
    """Context in which loading a checkpoint does not change the user's choice of one."""

    def __enter__(self) -> SkipWritingToConfig:
        self._before = _data().skip_writing_to_config
        _data().skip_writing_to_config = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _data().skip_writing_to_config = self._before


def list_models() -> None:
    """Read the folders of checkpoints again."""
    data = _data()
    data.checkpoints_list.clear()
    data.checkpoint_aliases.clear()
    for folder in _folders():
        for path in sorted(Path(folder).rglob("*")):
            if _is_checkpoint(path):
                register_checkpoint(CheckpointInfo(path, folder))
    if shared.cmd_opts.ckpt:
        info = register_checkpoint(CheckpointInfo(shared.cmd_opts.ckpt))
        shared.opts.data["sd_model_checkpoint"] = info.title


def register_checkpoint(info: CheckpointInfo) -> CheckpointInfo:
    """Put a checkpoint into the list, or at its old place under its new title after its hash became known."""
    data = _data()
    files = {known.filename: known for known in data.checkpoints_list.values()} | {info.filename: info}
    data.checkpoints_list.clear()
    data.checkpoints_list.update((known.title, known) for known in files.values())
    data.checkpoint_aliases.update(dict.fromkeys(info.ids, info))
    return info


def checkpoint_tiles(use_short: bool = False) -> list[str]:
    """Titles of the listed checkpoints."""
    return [info.short_title if use_short else info.title for info in _data().checkpoints_list.values()]


def get_closet_checkpoint_match(search_string: str | None) -> CheckpointInfo | None:
    """The checkpoint of that name, or the one with the shortest title that holds it; the hash may differ."""
    if not search_string:
        return None
    data = _data()
    if search_string in data.checkpoint_aliases:
        return data.checkpoint_aliases[search_string]
    for wanted in (search_string, _CHECKSUM.sub("", search_string)):
        found = [info for info in data.checkpoints_list.values() if wanted in info.title]
        if found:
            return min(found, key=lambda info: len(info.title))
    return None


def select_checkpoint() -> CheckpointInfo:
    """The checkpoint that the options name; the first in the list where they name none.

    Raises:
        CheckpointError: there is none, or none of that name.
    """
    wanted = shared.opts.sd_model_checkpoint
    if not _data().checkpoints_list:
        list_models()
    if not _data().checkpoints_list:
        remedy = f"Put a .safetensors or .ckpt file into {' or '.join(_folders())}."
        raise CheckpointError(model_folder(), "no checkpoint is there.", remedy)
    if not wanted:
        return next(iter(_data().checkpoints_list.values()))
    found = get_closet_checkpoint_match(wanted)
    if found is None:
        raise CheckpointError(wanted, "no checkpoint has this name.", f"Choose one of {', '.join(checkpoint_tiles())}.")
    return found


def load_model(checkpoint_info: CheckpointInfo | None = None) -> SdModel:
    """Load a checkpoint in place of the loaded one, and tell the extensions.

    Raises:
        CheckpointError: the file can't be used. What the file's header shows is found before the loaded one is dropped.
    """
    data = _data()
    info = checkpoint_info or select_checkpoint()
    with data.lock:
        began = time.perf_counter()
        with open_checkpoint(info.filename) as checkpoint:
            info.calculate_shorthash()
            register_checkpoint(info)
            unload_model_weights()
            kind = SdxlModel if checkpoint.base == "sdxl" else SdModel
            sd_model = kind.from_checkpoint(checkpoint, devices.current_precision())
        sd_model.sd_checkpoint_info = info
        sd_model.sd_model_checkpoint = info.filename
        sd_model.sd_model_hash = info.shorthash
        if not data.skip_writing_to_config:
            shared.opts.data["sd_model_checkpoint"] = info.title
        shared.opts.data["sd_checkpoint_hash"] = info.sha256
        apply_alpha_schedule_override(sd_model)
        data.sd_model = sd_model
        script_callbacks.model_loaded_callback(sd_model)
        with torch.no_grad(), devices.autocast():
            empty = sd_model.get_learned_conditioning([""])
            sd_model.cond_stage_model_empty_prompt = empty["crossattn"] if isinstance(empty, dict) else empty
        logger.info("Loaded %s in %.1f s", info.title, time.perf_counter() - began)
        return sd_model


def reload_model_weights(
    sd_model: SdModel | None = None, info: CheckpointInfo | None = None, forced_reload: bool = False
) -> SdModel:
    """Load the chosen checkpoint unless it is the loaded one.

    Raises:
        CheckpointError: the file can't be used.
    """
    chosen = info or select_checkpoint()
    loaded = sd_model or _data().sd_model
    if loaded is not None and loaded.sd_model_checkpoint == chosen.filename and not forced_reload:
        return loaded
    return load_model(chosen)


def unload_model_weights(sd_model: SdModel | None = None, info: CheckpointInfo | None = None) -> None:
    """Drop the loaded checkpoint."""
    if _data().sd_model is not None:
        _data().sd_model = None
        gc.collect()  # requests and samplers refer to each other in circles, and to the checkpoint
        devices.torch_gc()


def apply_alpha_schedule_override(sd_model: SdModel, p: Any = None) -> None:
    """Set ᾱ from the checkpoint's own, as the options ask for; what changes it goes into p's infotext."""
    alphas = sd_model.alphas_cumprod_original.to(devices.device)
    infotext = {} if p is None else p.extra_generation_params
    if shared.opts.use_downcasted_alpha_bar:
        infotext["Downcast alphas_cumprod"] = True
        alphas = alphas.half()
    if shared.opts.sd_noise_schedule == "Zero Terminal SNR":
        infotext["Noise Schedule"] = shared.opts.sd_noise_schedule
        alphas = rescale_zero_terminal_snr_abar(alphas)
    sd_model.alphas_cumprod = alphas


def apply_token_merging(sd_model: SdModel, token_merging_ratio: float) -> None:
    """Token merging is not part of this host."""


def model_folder() -> str:
    """The host's own folder of checkpoints."""
    return os.path.join(shared.models_path, "Stable-diffusion")


def _folders() -> list[str]:
    return [folder for folder in (model_folder(), shared.cmd_opts.ckpt_dir) if folder]


def _is_checkpoint(path: Path) -> bool:
    is_vae = path.stem.lower().endswith(".vae")
    return path.suffix.lower() in CHECKPOINT_SUFFIXES and not is_vae and path.is_file()


def _data() -> SdModelData:
    host = host_state.current()
    if host.sd_model_data is None:
        host.sd_model_data = SdModelData()
    data: SdModelData = host.sd_model_data
    return data


host_state.forward(
    __name__,
    {
        "model_data": _data,
        "checkpoints_list": lambda: _data().checkpoints_list,
        "checkpoint_aliases": lambda: _data().checkpoint_aliases,
        "model_path": model_folder,
    },
)
