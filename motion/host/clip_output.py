"""From the host's finished images to clips on disk and in the host's result."""

from __future__ import annotations

import base64
import logging
import tempfile
from pathlib import Path
from typing import Any

from modules import shared
from PIL import Image

from motion.settings import MotionSettings
from motion.video import (
    ClipWriter,
    IncompleteClipError,
    SavedClip,
    check_formats,
    check_output_folder,
    estimate_clip_bytes,
)

logger = logging.getLogger(__name__)

FOLDER_NAME = "motion"


class ClipOutput:
    """Collects the frames of one request and writes a clip after every `num_frames` of them.

    Clips go to the folder `motion` in the host's output folder. An API request without `save_images` gets its clips in
    the answer only; they are made in a temporary folder. A program that drives the host may name the folder itself, in
    `p.outpath_clips`, and finds the files in the result's `clip_files`.

    Args:
        p: the host's processing object, before this extension has changed it.
        settings: the request.

    Raises:
        OutputError: an encoder is missing, the output folder can't be written to, or the disk is too full.
    """

    def __init__(self, p: Any, settings: MotionSettings) -> None:
        self._p = p
        self._settings = settings
        self._pending: tuple[Any, str] | None = None
        self._writer: ClipWriter | None = None
        self._clips: list[SavedClip] = []
        self._infotexts: list[str] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.num_taken = 0
        check_formats(settings.formats)
        if getattr(p, "outpath_clips", None):
            self._folder = Path(p.outpath_clips)
        elif getattr(p, "is_api", False) and p.do_not_save_samples:
            self._temporary = tempfile.TemporaryDirectory(prefix="motion-")
            self._folder = Path(self._temporary.name)
        else:
            self._folder = Path(p.outpath_samples) / FOLDER_NAME
        scale = float(getattr(p, "hr_scale", 1) or 1) if getattr(p, "enable_hr", False) else 1.0
        width, height = int(p.width * scale), int(p.height * scale)
        check_output_folder(self._folder, estimate_clip_bytes(settings.num_frames * p.n_iter, width, height))

    def take(self, pp: Any, infotext: str) -> None:
        """Remember the host's next image. Scripts after ours may still replace `pp.image`, so it is written later."""
        self.flush()
        self._pending = (pp, infotext)
        self.num_taken += 1

    def flush(self) -> None:
        """Write the image taken last; after a clip's last frame, the clip.

        Raises:
            OutputError: it can't be written. Frames written before stay on disk.
        """
        if self._pending is None:
            return
        (pp, infotext), self._pending = self._pending, None
        if self._writer is None:
            self._writer = self._new_writer()
            self._infotexts.append(infotext)
        self._writer.add_frame(pp.image, infotext)
        if len(self._writer.frames) == self._settings.num_frames:
            writer, self._writer = self._writer, None
            self._finish(writer)

    def close(self) -> None:
        """Write what was taken and free the temporary folder."""
        try:
            self.flush()
        finally:
            if self._temporary is not None:
                self._temporary.cleanup()

    def add_to(self, processed: Any) -> None:
        """Add the clips to the host's result: base64 files over the API, pictures and a note in the page."""
        if getattr(self._p, "is_api", False):
            self._add_to_answer(processed)
        else:
            self._add_to_gallery(processed)

    def _new_writer(self) -> ClipWriter:
        p, settings = self._p, self._settings
        stem = str(p.seeds[0]) + ("-interrupted" if shared.state.interrupted else "")
        return ClipWriter(
            self._folder, stem, fps=settings.fps, formats=settings.formats, loop_count=settings.loop_count
        )

    def _finish(self, writer: ClipWriter) -> None:
        try:
            clip = writer.finish()
        except IncompleteClipError as error:
            clip = error.clip
            self._say(str(error))
        for note in clip.notes:
            self._say(note)
        self._clips.append(clip)
        logger.info("Motion: wrote %s", ", ".join(map(str, clip.files.values())))

    def _say(self, text: str) -> None:
        self._p.comment(f"Motion: {text}")

    def _add_to_answer(self, processed: Any) -> None:
        files = [
            (base64.b64encode(path.read_bytes()).decode("ascii"), infotext)
            for clip, infotext in zip(self._clips, self._infotexts, strict=True)
            for path in clip.files.values()
            if path.is_file()
        ]
        if "PNG" not in self._settings.formats:
            processed.images, processed.infotexts = [], []
        self._put_first(processed, files)

    def _add_to_gallery(self, processed: Any) -> None:
        pictures = []
        for clip, infotext in zip(self._clips, self._infotexts, strict=True):
            if "GIF" in clip.files:
                pictures.append((_shown_from(clip.files["GIF"]), infotext))
            self._say("saved " + ", ".join(str(path) for path in clip.files.values()))
        processed.clip_files = [path for clip in self._clips for path in clip.files.values()]
        frames = [path for clip in self._clips for path in clip.frames]
        for image, path in zip(processed.images, frames, strict=False):
            image.already_saved_as = str(path)
        self._put_first(processed, pictures)
        processed.comments = "".join(f"{comment}\n" for comment in self._p.comments)

    def _put_first(self, processed: Any, items: list[tuple[Any, str]]) -> None:
        processed.images[:0] = [item for item, _ in items]
        processed.infotexts[:0] = [infotext for _, infotext in items]
        processed.index_of_first_image += len(items)


def _shown_from(path: Path) -> Image.Image:
    """A picture that the host's gallery shows by serving `path` as it is (its own saved images carry this mark)."""
    with Image.open(path) as image:
        first: Image.Image = image.convert("RGB")
    vars(first).update(already_saved_as=str(path))
    return first
