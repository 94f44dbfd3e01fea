"""Files of motion modules whose network another package brings (`motion.checkpoints.registry`).

That package's functions run here, so whatever goes wrong in them is an error of the file's kind and names the package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from motion.checkpoints.format_types import CustomMotion, Shape, Shapes
from motion.checkpoints.motion_header import MotionHeader, check_shapes
from motion.errors import CheckpointError
from motion.models.custom_motion import CustomMotionModel

_SITE_KEY = re.compile(r"((?:(?:down|up)_blocks\.\d+|mid_block)\.motion_modules\.\d+)\.(.+)")


def read_custom(found: CustomMotion, shapes: Shapes, path: str | Path, *, family: str | None = None) -> MotionHeader:
    """What the keys and shapes of a custom motion module file say.

    Args:
        found: the kind of the file.
        shapes: key -> shape of the file.
        path: the file.
        family: id of the family to take it for; its own is the only one.

    Raises:
        CheckpointError: the file lacks parts or can't be of this family, or the package that knows it fails.
    """
    if family not in (None, found.id):
        reason = f"The family of {found.title} must be {found.id}, got `{family}`."
        raise CheckpointError(path, reason, "Choose it, or leave the choice to the file's content.")
    with _blaming(found, path):
        file_keys = dict(found.rename(shapes))
        own_shapes = {key: shapes[name] for key, name in file_keys.items()}
    model = make_custom_model(found, own_shapes, path)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    check_shapes(expected, expected, own_shapes, file_keys, path)
    return MotionHeader(found, found.family, False, model.config, _widths(model), tuple(expected), file_keys)


def make_custom_model(found: CustomMotion, shapes: Shapes, path: str | Path) -> CustomMotionModel:
    """The network without values, on the meta device.

    Args:
        found: the kind of the file.
        shapes: key of the network -> shape.
        path: the file, for messages.

    Raises:
        CheckpointError: the package that knows the file fails, or its modules break the protocol.
    """
    with _blaming(found, path), torch.device("meta"):
        modules = {site: found.build(site, own) for site, own in _split_by_site(shapes).items()}
        model = CustomMotionModel(modules, unet_norm_over_frames=found.family.unet_norm_over_frames)
        _check_buffers(model)
    return model


def _split_by_site(shapes: Shapes) -> Mapping[str, Shapes]:
    """Site -> key in the site's module -> shape."""
    sites: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        match = _SITE_KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"its key map must give keys such as `mid_block.motion_modules.0.weight`, got `{key}`")
        sites.setdefault(match[1], {})[match[2]] = shape
    return sites


def _check_buffers(model: nn.Module) -> None:
    """A buffer that isn't saved would keep no values: nothing fills it."""
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if buffer.is_meta and name not in saved:
            raise ValueError(f'buffer `{name}` is not in the file; make it with device="cpu" or in `forward`')


def _widths(model: CustomMotionModel) -> tuple[int, ...]:
    """Channels per down level that has a module."""
    levels = {site.split(".")[1]: module.channels for site, module in model.site_modules().items() if site[0] == "d"}
    return tuple(levels[level] for level in sorted(levels, key=int))


@contextmanager
def _blaming(found: CustomMotion, path: str | Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = f"This is {found.title}, but {found.source or found.id} can't read it ({error!r})."
        raise CheckpointError(path, reason, "Update that package, or report this to its author.") from error
