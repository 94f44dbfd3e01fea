"""The optional `<name>.yaml` beside a checkpoint: the training configuration, for what tensors don't tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from motion.checkpoints.text_folder import find_text_folder
from motion.errors import CheckpointError
from motion.models.unet import UNetConfig


@dataclass(frozen=True)
class _YamlForm:
    """How the yaml of one family looks.

    Attributes:
        title: the family in messages.
        unet: key of the UNet's settings among the model's.
        model: settings of the model as a whole that every checkpoint of this family was trained with.
        predicts_v: checkpoints of this family predict v.
    """

    title: str
    unet: str
    model: Mapping[str, Any]
    predicts_v: bool = False


_FORMS: Mapping[str, _YamlForm] = MappingProxyType(
    {
        "sd15": _YamlForm(
            "a Stable Diffusion 1 checkpoint",
            "unet_config",
            {
                "parameterization": "eps",
                "scale_factor": 0.18215,
                "linear_start": 0.00085,
                "linear_end": 0.012,
                "timesteps": 1000,
            },
        ),
        "sdxl": _YamlForm("an SDXL checkpoint", "network_config", {"scale_factor": 0.13025}),
        "svd": _YamlForm(
            "a Stable Video Diffusion checkpoint", "network_config", {"scale_factor": 0.18215}, predicts_v=True
        ),
    }
)
_UNET = ("in_channels", "out_channels", "model_channels", "channel_mult", "num_res_blocks", "context_dim")
"""What a yaml says of the UNet that its tensors say too; both must agree."""

_NUM_FRAMES = ("sampler_config", "params", "guider_config", "params", "num_frames")
"""Where sgm's yamls say it: guidance differs from frame to frame."""


@dataclass(frozen=True)
class CheckpointYaml:
    """What the yaml beside a checkpoint says that is of use here.

    Attributes:
        unet: settings of its UNet.
        text_folder: folder of its text encoder; None for CLIP's own vocabulary.
        num_frames: frames of a clip in its training; None where it doesn't say.
    """

    unet: Mapping[str, Any]
    text_folder: Path | None
    num_frames: int | None = None


def read_yaml(path: Path, base: str) -> CheckpointYaml:
    """What the yaml beside a checkpoint says; nothing where there is none.

    Args:
        path: the yaml.
        base: family of the checkpoint, "sd15", "sdxl" or "svd".

    Raises:
        CheckpointError: it can't be read, or describes another kind of model.
    """
    if not path.is_file():
        return CheckpointYaml({}, None)
    form = _FORMS[base]
    remedy = "Correct it, or remove it to take everything from the checkpoint's shapes."
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        model = content["model"]["params"]
        unet = model[form.unet]["params"]
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise CheckpointError(path, f"The file can't be read ({error}).", remedy) from error
    except (KeyError, TypeError) as error:
        reason = f"The file has no `model.params.{form.unet}.params`."
        raise CheckpointError(path, reason, remedy) from error
    for name, expected in form.model.items():
        if model.get(name, expected) != expected:
            reason = f"`{name}` must be {expected} for {form.title}, got {model[name]}."
            raise CheckpointError(path, reason, "Choose another checkpoint.")
    if _predicts_v(model) and not form.predicts_v:
        reason = f"Its denoiser predicts v, {form.title} that does so is not yet supported."
        raise CheckpointError(path, reason, "Choose a checkpoint that predicts noise.")
    heads = {name: _read_heads(unet, name, path) for name in ("num_heads", "num_head_channels")}
    version = _nested(model, "cond_stage_config", "params", "version")
    num_frames = _nested(model, *_NUM_FRAMES)
    if num_frames is not None and (not isinstance(num_frames, int) or num_frames < 1):
        raise CheckpointError(path, f"`num_frames` must be a positive integer, got {num_frames!r}.", "Correct it.")
    return CheckpointYaml({**unet, **heads}, find_text_folder(version, path), num_frames)


def check_yaml(settings: Mapping[str, Any], unet: UNetConfig, path: Path) -> None:
    """Refuse a yaml that contradicts the shapes: it belongs to another checkpoint.

    Raises:
        CheckpointError: it does.
    """
    for name in _UNET:
        actual = getattr(unet, name)
        stated = settings.get(name, actual)
        if (tuple(stated) if isinstance(stated, list) else stated) != actual:
            reason = f"`{name}` of its yaml is {stated}, but its tensors say {actual}."
            raise CheckpointError(path, reason, "Put the yaml of this checkpoint beside it, or remove the yaml.")


def _predicts_v(model: Mapping[str, Any]) -> bool:
    """True where sgm's yaml names v-prediction's class for scaling the UNet's answer (ldm: `parameterization`)."""
    scaling = _nested(model, "denoiser_config", "params", "scaling_config", "target")
    return str(scaling).rpartition(".")[2].startswith("VScaling")


def _nested(model: Mapping[str, Any], *names: str) -> Any:
    """The setting at the end of a path of names; None where the path breaks off."""
    setting: Any = model
    for name in names:
        setting = setting.get(name) if isinstance(setting, dict) else None
    return setting


def _read_heads(unet: Mapping[str, Any], name: str, path: Path) -> int | None:
    """A number of heads, or of channels per head; ldm writes -1 where the other one counts."""
    value = unet.get(name, -1)
    if value in (-1, None):
        return None
    if not isinstance(value, int) or value < 1:
        raise CheckpointError(path, f"`{name}` must be a positive integer or -1, got {value!r}.", "Correct it.")
    return value
