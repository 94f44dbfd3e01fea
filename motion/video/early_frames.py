"""Frames that are safe on disk while the clip is still in the making."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from motion.video.folder import output_error
from motion.video.frames import write_png
from motion.video.metadata import clean_infotext


class EarlyFrames:
    """A folder of frames as they come from the decoder, which goes once the finished clip lies beside it.

    A process that dies before that leaves them. What web UIs and other extensions do to finished pictures is not in
    them.

    Args:
        folder: output folder, which is there.
        stem: what the folder's name begins with; no file system may mind it.

    Raises:
        OutputError: the folder can't be made.
    """

    def __init__(self, folder: Path, stem: str) -> None:
        self._num_frames = 0
        try:
            self.folder = Path(tempfile.mkdtemp(prefix=f"{stem}-", dir=folder))
        except OSError as error:
            raise output_error(error, f"The output folder {folder} must be a folder that can be written to") from error

    def __len__(self) -> int:
        return self._num_frames

    def add(self, picture: Tensor, infotext: str) -> None:
        """Write the next frame.

        Args:
            picture: `3 H W`, about [-1, 1].
            infotext: its generation parameters.

        Raises:
            OutputError: it can't be written; earlier frames stay.
        """
        name = f"frame_{self._num_frames:04d}.png"
        try:
            write_png(self.folder / f".{name}", as_image(picture), clean_infotext(infotext))
            (self.folder / f".{name}").rename(self.folder / name)
        except OSError as error:
            raise output_error(error, f"Frame {self._num_frames} must be written to {self.folder}") from error
        self._num_frames += 1

    def discard(self) -> None:
        """Remove them."""
        shutil.rmtree(self.folder, ignore_errors=True)


def as_image(picture: Tensor) -> Image.Image:
    """A decoder's picture, `3 H W` about [-1, 1], in bytes as web UIs make them: rounded down."""
    unit = ((picture.detach().float().cpu() + 1.0) / 2.0).clamp(0.0, 1.0)
    return Image.fromarray((255.0 * np.moveaxis(unit.numpy(), 0, 2)).astype(np.uint8))
