"""Writes a clip so that no frame is lost: each goes to disk as it comes, encoders run last, names never collide."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType

from PIL import Image

from motion.errors import OutputError
from motion.video.folder import check_stem, claim_name, output_error, publish
from motion.video.formats import CLIP_FORMATS, FRAMES_FORMAT, check_format_names
from motion.video.frames import ClipSource, Frame, StoredFrames, as_image, write_png
from motion.video.metadata import clean_infotext

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SavedClip:
    """What lies on disk.

    Attributes:
        files: format -> file; for "PNG" the folder of the frames.
        frame_folder: folder of the PNG frames, None when they were not asked for and are gone.
        frames: the PNG frames in order, empty when they are gone.
        notes: what the user should know, one sentence each.
    """

    files: dict[str, Path]
    frame_folder: Path | None
    frames: list[Path]
    notes: tuple[str, ...] = ()


class IncompleteClipError(OutputError):
    """Some formats could not be written. The frames are on disk, the other formats too.

    Attributes:
        clip: what was written.
        failures: format -> what went wrong.
    """

    def __init__(self, clip: SavedClip, failures: dict[str, str], *, status_code: int = 422) -> None:
        listed = " ".join(f"{name}: {reason}" for name, reason in failures.items())
        super().__init__(
            f"The clip must be written as {', '.join([*clip.files, *failures])}, but {', '.join(failures)} failed. "
            f"{listed} All {len(clip.frames)} frames are safe in {clip.frame_folder}; make the file from them once "
            "the cause is mended.",
            status_code=status_code,
        )
        self.clip = clip
        self.failures = failures


class ClipWriter:
    """Takes the frames of one clip as they are finished, then encodes them.

    The first frame claims a name, `<number>-<stem>`, by making the folder of that name in the output folder; every
    frame is a PNG in it before `add_frame` returns. `finish` encodes from there and removes the folder when PNG was
    not asked for and everything went well. In all other cases, an exception or a killed process included, the frames
    stay. No file bears a final name before it is whole. Memory holds one frame at a time.

        with ClipWriter(folder, "1234", fps=Fraction(8), formats=("MP4", "GIF")) as writer:
            for image in images:
                writer.add_frame(image, infotext)
            clip = writer.finish()

    Args:
        folder: output folder; made if it is missing.
        stem: last part of the clip's name, such as the seed.
        fps: frames a second, exact.
        formats: what to write, of `motion.settings.FORMATS`.
        loop_count: how often a GIF plays; 0 is for ever.
        numbered: put a running number in front of `stem`; without it a taken name is refused.

    Raises:
        OutputError: an argument is out of range. Nothing is on disk yet.
    """

    def __init__(
        self,
        folder: str | Path,
        stem: str,
        *,
        fps: Fraction,
        formats: Iterable[str],
        loop_count: int = 0,
        numbered: bool = True,
    ) -> None:
        check_stem(stem)
        if fps <= 0:
            raise OutputError(f"`fps` must be above 0, got {fps}. Pass frames a second.")
        if not 0 <= loop_count <= 65535:
            raise OutputError(f"`loop_count` must be 0 (for ever) to 65535, got {loop_count}. Pass a number of plays.")
        self._folder = Path(folder)
        self._stem = stem
        self._numbered = numbered
        self._fps = Fraction(fps)
        self._formats = check_format_names(formats)
        self._loop_count = loop_count
        self._name = ""
        self._size = (0, 0)
        self._infotext = ""
        self._frames: list[Path] = []
        self._finished = False

    @property
    def frame_folder(self) -> Path | None:
        """Where the frames are; None before the first."""
        return self._folder / self._name if self._name else None

    @property
    def frames(self) -> list[Path]:
        """The frames on disk, in order."""
        return list(self._frames)

    def add_frame(self, frame: Frame, infotext: str = "") -> Path:
        """Write the next frame to disk as PNG and return its path.

        Args:
            frame: L, RGB or RGBA; alpha stays in the PNG, and lies on black in formats without it.
            infotext: the frame's generation parameters; the first frame's are the clip's.

        Raises:
            OutputError: not a frame, not of the first one's size, or it can't be written; earlier frames stay.
        """
        if self._finished:
            raise OutputError("A finished clip takes no more frames. Use a new ClipWriter for a new clip.")
        image = as_image(frame)
        index = len(self._frames)
        if index and image.size != self._size:
            raise OutputError(
                f"Every frame of a clip must have the size of its first, {self._size[0]}×{self._size[1]}, got "
                f"{image.width}×{image.height} for frame {index}. Resize the frames to one size.{self._where()}"
            )
        if not self._name:
            self._name = claim_name(self._folder, self._stem, numbered=self._numbered)
        infotext = clean_infotext(infotext)
        path = self._write_frame(self._folder / self._name / f"frame_{index:04d}.png", image, infotext)
        if not index:
            self._size, self._infotext = image.size, infotext
        self._frames.append(path)
        return path

    def finish(self) -> SavedClip:
        """Write every format and say what lies on disk.

        Raises:
            OutputError: there are no frames.
            IncompleteClipError: a format failed; the others were written, and the frames stay.
        """
        if self._finished or not self._frames:
            raise OutputError(
                "A clip must have at least one frame and be finished once. Add frames to a new ClipWriter."
            )
        source = ClipSource(StoredFrames(tuple(self._frames), self._size), self._fps, self._loop_count, self._infotext)
        files: dict[str, Path] = {}
        failures: dict[str, str] = {}
        notes: list[str] = []
        status_code = 422
        for name in self._formats:
            try:
                files[name] = self._write_format(name, source, notes)
            except Exception as error:  # whatever breaks in one encoder, the frames and the other formats come first
                logger.exception("Writing %s failed.", name)
                problem = error if isinstance(error, OutputError) else _as_output_error(name, error)
                failures[name] = str(problem)
                status_code = max(status_code, problem.status_code)
        self._finished = True
        clip = self._saved(files, tuple(notes), keep_frames=FRAMES_FORMAT in self._formats or bool(failures))
        if failures:
            raise IncompleteClipError(clip, failures, status_code=status_code)
        return clip

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._frames and not self._finished:
            logger.warning("The clip was not finished.%s", self._where())

    def _where(self) -> str:
        return f" {len(self._frames)} frames are safe in {self.frame_folder}." if self._frames else ""

    def _write_frame(self, path: Path, image: Image.Image, infotext: str) -> Path:
        unfinished = path.with_name(f".unfinished-{path.name}")
        try:
            try:
                write_png(unfinished, image, infotext)
                publish(unfinished, path)
            finally:
                _remove(unfinished)
                if not self._frames and not path.exists():
                    shutil.rmtree(path.parent, ignore_errors=True)
                    self._name = ""
        except OSError as error:
            problem = output_error(error, f"Frame {len(self._frames)} must be written to {path.parent}")
            raise OutputError(f"{problem}{self._where()}", status_code=problem.status_code) from error
        return path

    def _write_format(self, name: str, source: ClipSource, notes: list[str]) -> Path:
        frame_folder = self._folder / self._name
        if name == FRAMES_FORMAT:
            return frame_folder
        clip_format = CLIP_FORMATS[name]
        final = self._folder / f"{self._name}{clip_format.suffix}"
        unfinished = frame_folder / f".unfinished{clip_format.suffix}"
        try:
            format_notes = clip_format.write(unfinished, source)
            publish(unfinished, final)
        finally:
            _remove(unfinished)
        notes.extend(format_notes)
        return final

    def _saved(self, files: dict[str, Path], notes: tuple[str, ...], *, keep_frames: bool) -> SavedClip:
        frame_folder = self._folder / self._name
        if keep_frames:
            return SavedClip(files, frame_folder, self.frames, notes)
        try:
            shutil.rmtree(frame_folder)
        except OSError as error:  # the clip is whole; frames that a virus scanner holds open are no reason to fail
            logger.warning("The frames in %s could not be removed: %s", frame_folder, error)
        return SavedClip(files, None, [], notes)


def _remove(unfinished: Path) -> None:
    try:
        unfinished.unlink(missing_ok=True)
    except OSError as error:  # must not hide the error that left the file; Windows keeps open files
        logger.warning("%s could not be removed: %s", unfinished, error)


def _as_output_error(name: str, error: Exception) -> OutputError:
    if isinstance(error, OSError) and error.errno:
        return output_error(error, f"The {name} file must be written whole")
    return OutputError(f"The encoder failed: {type(error).__name__}: {error}. Choose another format.")


def save_clip(
    frames: Sequence[Frame],
    folder: str | Path,
    *,
    stem: str,
    fps: Fraction,
    formats: Iterable[str],
    loop_count: int = 0,
    infotext: str | Sequence[str] = "",
    numbered: bool = True,
) -> SavedClip:
    """Write a clip from frames that are all there, in ClipWriter's safe order.

    Args:
        frames: at least one; see ClipWriter.add_frame.
        folder: output folder; made if it is missing.
        stem: last part of the clip's name, such as the seed.
        fps: frames a second, exact.
        formats: what to write, of `motion.settings.FORMATS`.
        loop_count: how often a GIF plays; 0 is for ever.
        infotext: of the clip and each frame, or one per frame, the first being the clip's.
        numbered: put a running number in front of `stem`; without it a taken name is refused.

    Raises:
        OutputError: bad arguments, or the folder can't be written to.
        IncompleteClipError: a format failed; the others were written, and the frames stay.
    """
    infotexts = [infotext] * len(frames) if isinstance(infotext, str) else list(infotext)
    if len(infotexts) != len(frames):
        raise OutputError(
            f"`infotext` must be one text or one per frame ({len(frames)}), got {len(infotexts)}. Pass as many."
        )
    with ClipWriter(folder, stem, fps=fps, formats=formats, loop_count=loop_count, numbered=numbered) as writer:
        for frame, text in zip(frames, infotexts, strict=True):
            writer.add_frame(frame, text)
        return writer.finish()
