"""A folder of videos with captions as a data set: checked as a whole, then cut into clips of one length and size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from motion.errors import MotionError, SettingsError
from motion.training.latent_bank import CaptionedClip
from motion.video.reading import VIDEO_SUFFIXES, ClipFacts, ReadError, find_clips, inspect_clip, read_frames

SIZE_MULTIPLE = 64
"""Of both sides: the autoencoder halves them three times, the UNet three times more."""
USUAL_FPS = 8.0
"""Frames a second of the clips that motion modules are trained on."""


class DatasetError(MotionError):
    """A data set can't be used; what is wrong with which file is in the message."""


@dataclass(frozen=True)
class DatasetSettings:
    """What is read and how it is cut.

    Attributes:
        folder: holds the videos, or folders of pictures, each with its caption in `NAME.txt` beside it.
        num_frames: frames of a clip.
        size: (width, height) of a clip, pixels; frames are scaled to cover it and cut at both sides alike.
        frame_stride: every how many-th frame is taken; 0 comes as near to `USUAL_FPS` as the video's length allows.
        clips_per_video: clips that are cut from each video, at different places.
        default_caption: of videos without one; None refuses these.
        skip_bad: leave out videos that can't be used, in place of refusing the folder.
        seed: of the places.

    Raises:
        SettingsError: a value out of range.
    """

    folder: Path
    num_frames: int = 16
    size: tuple[int, int] = (256, 256)
    frame_stride: int = 0
    clips_per_video: int = 1
    default_caption: str | None = None
    skip_bad: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in {"num_frames": (2, 1024), "frame_stride": (0, 64), "clips_per_video": (1, 64)}.items():
            if not low <= getattr(self, name) <= high:
                raise SettingsError(
                    f"`{name}` must be from {low} to {high}, got {getattr(self, name)}. Choose one in this range."
                )
        if any(side % SIZE_MULTIPLE or not SIZE_MULTIPLE <= side <= 2048 for side in self.size):
            raise SettingsError(
                f"`size` must be a multiple of {SIZE_MULTIPLE} from {SIZE_MULTIPLE} to 2048, got "
                f"{self.size[0]}×{self.size[1]}. Choose 256 or 512, for example."
            )


@dataclass(frozen=True)
class CheckedVideo:
    """A video that can be used.

    Attributes:
        path: the video.
        facts: what it is.
        caption: what it shows.
        stride: every how many-th frame is taken.
        starts: first frame of each clip.
    """

    path: Path
    facts: ClipFacts
    caption: str
    stride: int
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Dataset:
    """A folder that was checked.

    Attributes:
        settings: how it is cut.
        videos: those that can be used.
        problems: one message for each of the others.
    """

    settings: DatasetSettings
    videos: tuple[CheckedVideo, ...]
    problems: tuple[str, ...]

    @property
    def captions(self) -> list[str]:
        """The different captions, in order."""
        return list(dict.fromkeys(video.caption for video in self.videos))

    @property
    def key(self) -> str:
        """Tells data sets apart: files by name and size, captions, places."""
        settings = self.settings
        text = repr((settings.num_frames, settings.size)) + "".join(
            repr((video.path.name, _num_bytes(video.path), video.caption, video.stride, video.starts))
            for video in self.videos
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def require_usable(self) -> None:
        """Refuse a data set with problems that are not to be left out.

        Raises:
            DatasetError: there are problems, or nothing is left.
        """
        if self.problems and (not self.settings.skip_bad or not self.videos):
            total = len(self.videos) + len(self.problems)
            more = "" if len(self.problems) == 1 else f" (and {len(self.problems) - 1} more)"
            remedy = "Mend these" if self.settings.skip_bad else "Mend or remove these, or leave them out with skip-bad"
            raise DatasetError(
                f"All {total} videos in {self.settings.folder} must be usable, {len(self.problems)} can't be used: "
                f"{self.problems[0]}{more} {remedy}."
            )

    def clips(self) -> Iterator[CaptionedClip]:
        """Every clip, decoded when asked for; one at a time in memory.

        Raises:
            DatasetError: a video that was fine when it was checked can't be read any more.
        """
        for video in self.videos:
            for start in video.starts:
                yield CaptionedClip(self._cut(video, start), (video.caption,))

    def _cut(self, video: CheckedVideo, start: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        wanted = range(start, start + self.settings.num_frames * video.stride, video.stride)
        frames: list[Image.Image] = []
        try:
            for index, image in enumerate(read_frames(video.path)):
                if index in wanted:
                    frames.append(ImageOps.fit(image, self.settings.size, Image.Resampling.LANCZOS))
                if len(frames) == self.settings.num_frames:
                    break
        except ReadError as error:
            raise DatasetError(f"{video.path}: {error}") from error
        if len(frames) != self.settings.num_frames:
            raise DatasetError(
                f"{video.path}: must have {video.facts.num_frames} frames as when it was checked, got fewer. Leave the "
                "videos alone while training starts."
            )
        return np.stack([np.asarray(frame) for frame in frames])


def check_dataset(
    settings: DatasetSettings, on_video: Callable[[int, int], None] = lambda done, total: None
) -> Dataset:
    """Decode every video of a folder from start to end and find its caption.

    Args:
        settings: what is read and how it is cut.
        on_video: called with (videos done, videos in all).

    Raises:
        DatasetError: there is no such folder, or nothing in it that could be a video.
    """
    folder = settings.folder
    if not folder.is_dir():
        raise DatasetError(f"The videos must be in a folder, got {folder}, which is none. Check the path.")
    paths = find_clips(folder)
    if not paths:
        raise DatasetError(
            f"There must be videos ({', '.join(VIDEO_SUFFIXES)}) or folders of pictures in {folder}, got none. Put "
            "some there, each with its caption in a .txt of the same name."
        )
    videos, problems = [], []
    for done, path in enumerate(paths, start=1):
        try:
            videos.append(_check_video(path, settings))
        except MotionError as error:
            problems.append(f"{path.name}: {error}")
        on_video(done, len(paths))
    return Dataset(settings, tuple(videos), tuple(problems))


def _check_video(path: Path, settings: DatasetSettings) -> CheckedVideo:
    facts = inspect_clip(path)
    stride = settings.frame_stride or _usual_stride(facts, settings.num_frames)
    needed = (settings.num_frames - 1) * stride + 1
    if facts.num_frames < needed:
        at = "" if stride == 1 else f" at a frame stride of {stride}"
        less = "" if stride == 1 else ", or lower the frame stride"
        raise DatasetError(
            f"A video must have at least {needed} frames{at}, got {facts.num_frames}. Take a longer one{less}."
        )
    room = facts.num_frames - needed + 1
    rng = np.random.Generator(np.random.PCG64([settings.seed, *path.name.encode()]))
    starts = sorted(int(start) for start in rng.choice(room, min(room, settings.clips_per_video), replace=False))
    return CheckedVideo(path, facts, _caption(path, settings), stride, tuple(starts))


def _usual_stride(facts: ClipFacts, num_frames: int) -> int:
    """The stride nearest to the usual rate; a shorter video gets a smaller one."""
    wanted = max(1, round((facts.fps or USUAL_FPS) / USUAL_FPS))
    return max(1, min(wanted, (facts.num_frames - 1) // (num_frames - 1)))


def _caption(path: Path, settings: DatasetSettings) -> str:
    file = path.with_name(f"{path.name}.txt") if path.is_dir() else path.with_suffix(".txt")
    try:
        caption = " ".join(file.read_text(encoding="utf-8-sig").split()) if file.exists() else ""
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file.name} must be a text in UTF-8, got: {error}. Save it as such.") from error
    if caption:
        return caption
    if settings.default_caption is None:
        state = "is empty" if file.exists() else "is not there"
        raise DatasetError(
            f"A video must have a caption in {file.name}, which {state}. Write what the video shows into it, or set a "
            "default caption for all videos without one."
        )
    return settings.default_caption


def _num_bytes(path: Path) -> int:
    parts = path.iterdir() if path.is_dir() else (path,)
    return sum(part.stat().st_size for part in parts if part.is_file())


def describe_dataset(dataset: Dataset) -> list[str]:
    """The report of a check, line by line: a summary, then every video, then every problem."""
    settings, videos = dataset.settings, dataset.videos
    width, height = settings.size
    count = sum(len(video.starts) for video in videos)
    lines = [
        f"{len(videos)} of {len(videos) + len(dataset.problems)} videos in {settings.folder} can be used.",
        f"{count} clips of {settings.num_frames} frames at {width}×{height} pixels will be cut from them.",
    ]
    lines += [_describe_video(video) for video in videos]
    return [*lines, *(f"Problem: {problem}" for problem in dataset.problems), *_notes(videos, settings.size)]


def _describe_video(video: CheckedVideo) -> str:
    facts = video.facts
    rate = f", {facts.fps:.4g} fps" if facts.fps else ""
    return (
        f"  {video.path.name}: {facts.width}×{facts.height}, {facts.num_frames} frames{rate}, every "
        f"{_ordinal(video.stride)} taken; {video.caption!r}"
    )


def _notes(videos: Sequence[CheckedVideo], size: tuple[int, int]) -> list[str]:
    small = [video.path.name for video in videos if video.facts.width < size[0] or video.facts.height < size[1]]
    more = f" and {len(small) - 3} more" if len(small) > 3 else ""
    return [f"Note: smaller than the clips and scaled up: {', '.join(small[:3])}{more}."] if small else []


def _ordinal(number: int) -> str:
    return "frame" if number == 1 else {2: "2nd", 3: "3rd"}.get(number, f"{number}th")
