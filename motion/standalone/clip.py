"""A finished clip in memory."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motion.errors import OutputError
from motion.video import CLIP_FORMATS, check_output_folder, save_clip
from motion.video.folder import output_error, publish


@dataclass(frozen=True, eq=False)
class Clip:
    """Frames of one render, with what made them.

    Attributes:
        frames: `f h w c`, uint8, RGB.
        fps: frames a second, exact.
        infotext: generation parameters, as in the web UI's pictures.
        files: what the render has written, where the pipeline was given a folder.
        loop_count: how often a GIF of it plays; 0 is for ever.
        notes: what the user should know, one sentence each.
    """

    frames: npt.NDArray[np.uint8]
    fps: Fraction
    infotext: str
    files: tuple[Path, ...] = ()
    loop_count: int = 0
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    def to_numpy(self) -> npt.NDArray[Any]:
        """Frames `f h w c`, float32 in [0, 1]."""
        return self.frames.astype(np.float32) / 255

    def save(self, path: str | Path) -> Path:
        """Write the clip as one file, infotext inside; a file that is there is never overwritten.

        Args:
            path: new file; its suffix, .mp4 or .gif, is the format.

        Raises:
            OutputError: unknown suffix, the name is taken, or the file can't be written.
        """
        path = Path(path)
        formats = {entry.suffix: name for name, entry in CLIP_FORMATS.items()}
        name = formats.get(path.suffix.lower())
        if name is None:
            raise OutputError(
                f"A clip's file must end in {' or '.join(formats)}, got {path.name}. Choose one of these."
            )
        check_output_folder(path.parent)
        try:
            with tempfile.TemporaryDirectory(prefix=".motion-", dir=path.parent) as folder:
                saved = save_clip(
                    list(self.frames),
                    folder,
                    stem=path.stem,
                    fps=self.fps,
                    formats=(name,),
                    loop_count=self.loop_count,
                    infotext=self.infotext,
                )
                publish(saved.files[name], path)
        except OSError as error:
            raise output_error(error, f"The clip must be written to {path}") from error
        return path
