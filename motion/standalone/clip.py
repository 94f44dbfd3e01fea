"""A finished clip in memory."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from motion.errors import OutputError
from motion.video import CLIP_FORMATS, save_clip


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
        saved = save_clip(
            list(self.frames),
            path.parent,
            stem=path.stem,
            fps=self.fps,
            formats=(name,),
            loop_count=self.loop_count,
            infotext=self.infotext,
            numbered=False,
        )
        return saved.files[name]
