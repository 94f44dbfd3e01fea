"""From the host's finished images to clips on disk and in the host's result."""

from __future__ import annotations

import base64
import logging
import shutil
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
from motion.video.early_frames import EarlyFrames

logger = logging.getLogger(__name__)

FOLDER_NAME = "motion"
FRAMES_FORMAT = "PNG"


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
        self._pending: tuple[Any, str, str] | None = None
        self._writer: ClipWriter | None = None
        self._clips: list[tuple[SavedClip, str]] = []
        self._infotext = ""
        self._is_complete = True
        self._temporary: Path | None = None
        self._early: EarlyFrames | None = None
        check_formats(settings.formats)
        self._lasting = self._folder = _lasting_folder(p)
        if not getattr(p, "outpath_clips", None) and getattr(p, "is_api", False) and p.do_not_save_samples:
            self._folder = self._temporary = Path(tempfile.mkdtemp(prefix="motion-"))
        check_output_folder(self._folder, estimate_clip_bytes(settings.num_frames * p.n_iter, *_final_size(p)))

    @property
    def folder(self) -> Path:
        """Where the clips go, or would go if the request kept them: the folder outlives the request."""
        return self._lasting

    def begin_early_frames(self) -> EarlyFrames | None:
        """A place for the next clip's frames as they are decoded; None where a crash would lose the folder too."""
        if self._temporary is not None:
            return None
        self._early = EarlyFrames(self._folder, f"decoded-{self._p.seeds[0]}")
        return self._early

    def take(self, pp: Any, infotext: str) -> None:
        """Remember the host's next image. Scripts after ours may still replace `pp.image`, so it is written later."""
        self.flush()
        stopped = shared.state.interrupted or shared.state.skipped
        self._pending = (pp, infotext, str(self._p.seeds[0]) + ("-interrupted" if stopped else ""))

    def flush(self) -> None:
        """Write the image taken last; after a clip's last frame, the clip.

        Raises:
            OutputError: it can't be written. Frames written before stay on disk.
        """
        if self._pending is None:
            return
        (pp, infotext, stem), self._pending = self._pending, None
        if self._writer is None:
            formats, loop_count = self._settings.formats, self._settings.loop_count
            self._writer = ClipWriter(
                self._folder, stem, fps=self._settings.fps, formats=formats, loop_count=loop_count
            )
            self._infotext = infotext
        path = self._writer.add_frame(pp.image, infotext)
        if FRAMES_FORMAT in self._settings.formats:
            pp.image.already_saved_as = str(path)  # the gallery serves this file
        if len(self._writer.frames) == self._settings.num_frames:
            self._finish_clip()

    def finish(self) -> None:
        """Write the image taken last, and a clip of another number of frames, where a script added or dropped some.

        Raises:
            OutputError: it can't be written. Frames written before stay on disk.
        """
        self.flush()
        if self._writer is not None:
            if shared.state.interrupted or shared.state.skipped:
                self._say(f"interrupted while decoding: the clip has {len(self._writer.frames)} frames.")
            else:
                self._say(f"other scripts left {len(self._writer.frames)} frames for the last clip.")
            self._finish_clip()

    def close(self) -> None:
        """Write what was taken and remove the temporary folder, unless it holds frames that are nowhere else.

        Raises:
            OutputError: the image taken last can't be written.
        """
        try:
            self.flush()
        finally:
            if self._temporary is not None and self._is_complete:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def add_to(self, processed: Any) -> None:
        """Add the clips to the host's result: base64 files over the API, pictures and a note in the page."""
        processed.clip_files = [path for clip, _ in self._clips for path in clip.files.values()]
        if getattr(self._p, "is_api", False):
            self._add_to_answer(processed)
        else:
            self._add_to_gallery(processed)

    def _finish_clip(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            clip = writer.finish()
        except IncompleteClipError as error:
            clip, self._is_complete = error.clip, False
            self._say(str(error))
            self._p.extra_generation_params["Motion error"] = str(error)
        for note in clip.notes:
            self._say(note)
        self._clips.append((clip, self._infotext))
        if self._early is not None:
            self._early.discard()
            self._early = None
        logger.info("Motion: wrote %s", ", ".join(map(str, clip.files.values())))

    def _say(self, text: str) -> None:
        self._p.comment(f"Motion: {text}")

    def _add_to_answer(self, processed: Any) -> None:
        files = [
            (base64.b64encode(path.read_bytes()).decode("ascii"), infotext)
            for clip, infotext in self._clips
            for path in clip.files.values()
            if path.is_file()
        ]
        frames_asked_for = FRAMES_FORMAT in self._settings.formats or selected_script(self._p) is not None
        if self._clips and self._is_complete and not frames_asked_for:
            processed.images, processed.infotexts = [], []
        self._put(processed, files)

    def _add_to_gallery(self, processed: Any) -> None:
        pictures = []
        for clip, infotext in self._clips:
            if "GIF" in clip.files:
                pictures.append((_shown_from(clip.files["GIF"]), infotext))
            self._say("saved " + ", ".join(str(path) for path in clip.files.values()))
        self._put(processed, pictures)

    def _put(self, processed: Any, items: list[tuple[Any, str]]) -> None:
        """Clips come first, but behind the pictures that a script of the host's list works on."""
        images, infotexts = [item for item, _ in items], [infotext for _, infotext in items]
        if selected_script(self._p) is not None:
            processed.images += images
            processed.infotexts += infotexts
            return
        processed.images[:0] = images
        processed.infotexts[:0] = infotexts
        processed.index_of_first_image += len(items)


def _lasting_folder(p: Any) -> Path:
    if getattr(p, "outpath_clips", None):
        return Path(p.outpath_clips)
    return Path(p.outpath_samples or shared.opts.outdir_txt2img_samples) / FOLDER_NAME


def selected_script(p: Any) -> str | None:
    """Title of the script that is chosen in the host's list of scripts, or None."""
    choice = next(iter(getattr(p, "script_args", None) or ()), 0)
    selectable = getattr(getattr(p, "scripts", None), "selectable_scripts", None) or []
    if not isinstance(choice, int) or not 0 < choice <= len(selectable):
        return None
    return str(selectable[choice - 1].title())


def _final_size(p: Any) -> tuple[int, int]:
    """Width and height of the finished frames, as near as the request tells."""
    if not getattr(p, "enable_hr", False):
        return p.width, p.height
    width, height = (getattr(p, f"hr_resize_{side}", 0) for side in "xy")
    scale = float(getattr(p, "hr_scale", 1) or 1)
    return max(width, int(p.width * scale)), max(height, int(p.height * scale))


def _shown_from(path: Path) -> Image.Image:
    """A picture that the host's gallery shows by serving `path` as it is (its own saved images carry this mark)."""
    with Image.open(path) as image:
        first: Image.Image = image.convert("RGB")
    vars(first).update(already_saved_as=str(path))
    return first
