"""From a travelling prompt to what each frame of a clip shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from motion.conditioning.keyframes import VALUE_LIMITS, Key, eased
from motion.conditioning.prompt_travel import TravelPrompt
from motion.errors import SettingsError


@dataclass(frozen=True)
class FrameBlend:
    """What one frame is made of.

    Attributes:
        first: index of the keyframe before it, or at it.
        second: index of the keyframe after it; equal to `first` where only one counts.
        share: share of `second`, 0 to 1.
    """

    first: int
    second: int
    share: float


@dataclass(frozen=True)
class PromptSchedule:
    """What each frame of one clip shows.

    Attributes:
        prompts: text of each keyframe, complete, in the order of the frames.
        frames: one blend of them for each frame of the clip.
        cfg: guidance scale of each frame; None where the prompt sets none.
        motion: strength of the motion of each frame; None where the prompt sets none.
    """

    prompts: tuple[str, ...]
    frames: tuple[FrameBlend, ...]
    cfg: tuple[float, ...] | None = None
    motion: tuple[float, ...] | None = None

    def describe(self) -> str:
        """One line for each stretch of frames, for people."""
        lines = []
        for _, group in groupby(enumerate(self.frames), key=lambda item: _stretch(item[1])):
            stretch = list(group)
            frames, blend = _range([frame for frame, _ in stretch]), stretch[0][1]
            if blend.share == 0:
                lines.append(f"{frames}: {self.prompts[blend.first]}")
            else:
                shares = ", ".join(f"{item.share:.0%}" for _, item in stretch)
                lines.append(f"{frames}: to the next prompt, {shares}")
        for name, values in (("cfg", self.cfg), ("motion", self.motion)):
            if values is not None:
                lines.append(f"{name}: {describe_values(values)}")
        return "\n".join(lines)


def resolve(prompt: TravelPrompt, num_frames: int, *, closed_loop: bool = False) -> PromptSchedule:
    """What each frame of a clip of `num_frames` shows.

    Before the first keyframe and after the last one their texts are held.

    Args:
        prompt: as `read_prompt` gives it.
        num_frames: frames of the clip.
        closed_loop: after the last keyframe blend towards the first one, as if the clip went round.

    Raises:
        SettingsError: a keyframe outside the clip, or two for one frame. The lines are quoted.
    """
    shown = [frame for frame in prompt.keyframes if frame.text]
    track = _Track.of([(frame.key, frame.line) for frame in shown], num_frames)
    prompts = tuple(prompt.at(shown[index].text) for index in track.order) or (prompt.at(""),)
    values = {name: _values(prompt, name, num_frames, closed_loop) for name in VALUE_LIMITS}
    return PromptSchedule(prompts, track.blends(num_frames, closed_loop), values["cfg"], values["motion"])


def resolve_values(
    keys: Sequence[tuple[Key, str, float]], num_frames: int, *, closed_loop: bool = False
) -> tuple[float, ...]:
    """Value of each frame of a clip where some keys say how it runs.

    Args:
        keys: key, the text that it was written as, and the value there; at least one.
        num_frames: frames of the clip.
        closed_loop: as for `resolve`.

    Raises:
        SettingsError: a key outside the clip, or two for one frame. Their texts are quoted.
    """
    track = _Track.of([(key, text) for key, text, _ in keys], num_frames)
    levels = [keys[index][2] for index in track.order]
    return tuple(
        levels[blend.first] + (levels[blend.second] - levels[blend.first]) * blend.share
        for blend in track.blends(num_frames, closed_loop)
    )


def describe_values(values: Sequence[float]) -> str:
    """Frames and the value of each stretch of them, for people."""
    runs = [(value, [frame for frame, _ in group]) for value, group in groupby(enumerate(values), _second)]
    return ", ".join(f"{_range(frames)} {value:g}" for value, frames in runs)


def _values(prompt: TravelPrompt, name: str, num_frames: int, closed_loop: bool) -> tuple[float, ...] | None:
    keys = [(frame.key, frame.line, frame.key.values[name]) for frame in prompt.keyframes if name in frame.key.values]
    return resolve_values(keys, num_frames, closed_loop=closed_loop) if keys else None


@dataclass(frozen=True)
class _Track:
    """Keys of one kind in the order of their frames; no two share a frame.

    Attributes:
        keys: sorted.
        ends: first and last frame of each.
        order: place of each among those that the track was made of.
    """

    keys: tuple[Key, ...]
    ends: tuple[tuple[int, int], ...]
    order: tuple[int, ...]

    @classmethod
    def of(cls, keys: Sequence[tuple[Key, str]], num_frames: int) -> _Track:
        placed = sorted((_frames(key, text, num_frames), index) for index, (key, text) in enumerate(keys))
        for (ends, before), (next_ends, after) in pairwise(placed):
            if next_ends[0] <= ends[1]:
                raise SettingsError(
                    f"A frame must have one keyframe, got two for frame {next_ends[0]} of {num_frames}: "
                    f"'{keys[before][1][:80]}' and '{keys[after][1][:80]}'. Move or remove one."
                )
        order = tuple(index for _, index in placed)
        return cls(tuple(keys[index][0] for index in order), tuple(ends for ends, _ in placed), order)

    def blends(self, num_frames: int, closed_loop: bool) -> tuple[FrameBlend, ...]:
        if not self.keys:
            return (FrameBlend(0, 0, 0.0),) * num_frames
        return tuple(self._blend(frame, num_frames, closed_loop) for frame in range(num_frames))

    def _blend(self, frame: int, num_frames: int, closed_loop: bool) -> FrameBlend:
        before = sum(first <= frame for first, _ in self.ends) - 1  # -1 before the first
        last = len(self.keys) - 1
        if before >= 0 and frame <= self.ends[before][1]:
            return FrameBlend(before, before, 0.0)
        if 0 <= before < last:
            return self._towards(before, before + 1, frame, self.ends[before + 1][0])
        if not closed_loop or last == 0:
            return FrameBlend(max(before, 0), max(before, 0), 0.0)
        # Around the seam, counted in frames of the round in which the last key stands.
        return self._towards(last, 0, frame + num_frames * (before < 0), self.ends[0][0] + num_frames)

    def _towards(self, first: int, second: int, frame: int, end: int) -> FrameBlend:
        key, begin = self.keys[first], self.ends[first][1]
        if key.hold:
            return FrameBlend(first, first, 0.0)
        return FrameBlend(first, second, eased(key.easing, (frame - begin) / (end - begin)))


def _frames(key: Key, text: str, num_frames: int) -> tuple[int, int]:
    try:
        return key.frames(num_frames)
    except SettingsError as error:
        raise SettingsError(f"'{text[:80]}': {error}") from error


def _second(item: tuple[int, float]) -> float:
    return item[1]


def _stretch(blend: FrameBlend) -> tuple[int, int, bool]:
    return blend.first, blend.second, blend.share == 0


def _range(frames: Sequence[int]) -> str:
    return str(frames[0]) if len(frames) == 1 else f"{frames[0]}-{frames[-1]}"
