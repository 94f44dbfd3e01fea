"""Travelling prompts in a web UI: the conds of each frame, made of those that the host encodes for the keyframes.

`p.prompts` keeps the text as the user typed it, one for each frame as in any batch: infotexts are made of that. Only
where the host turns prompts into conds, in this request's `p.get_conds_with_caching` (of both passes), the text is
replaced by those of its keyframes, and what comes back is spread over the frames. So weights, prompt editing,
embeddings and the encoders stay the host's own, and samplers get conds for each picture as they always do.

What these look like is the same in all hosts: a negative prompt's is `[schedule]`, a prompt's has `batch`, of each
picture the parts that AND joins, each with `schedules` and `weight`; a schedule is a list of (end_at_step, cond); a
cond is a Tensor `n d`, or for SDXL a dict of "crossattn" `n d` and "vector" `d`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from motion.conditioning.interpolation import interpolated, padded
from motion.conditioning.prompt_schedule import FrameBlend, PromptSchedule, resolve
from motion.conditioning.prompt_travel import check_travel, read_prompt
from motion.errors import SettingsError

Schedule = Sequence[Any]
"""(end_at_step, cond), in the order of the steps."""


class PromptTravel:
    """How the prompts of one request run from frame to frame.

    Args:
        num_frames: frames of the clip.
        method: how to go from one keyframe to the next, "slerp" or "lerp".
        closed_loop: after the last keyframe go to the first.
    """

    def __init__(self, num_frames: int, method: str, closed_loop: bool) -> None:
        self._num_frames = num_frames
        self._method = method
        self._closed_loop = closed_loop
        self._weights: tuple[float, ...] | None = None

    def check(self, p: Any) -> PromptSchedule:
        """What the request's prompt says of each frame; all its prompts are checked.

        To be asked while tags are in the prompts, after styles and other extensions have made them.

        Raises:
            SettingsError: a malformed line, or one that a clip of this length has no place for.
        """
        for name in ("all_hr_prompts", "all_negative_prompts", "all_hr_negative_prompts"):
            for text in dict.fromkeys(getattr(p, name, None) or []):
                self._checked(text, is_negative="negative" in name)
        found = [self._checked(text) for text in dict.fromkeys(p.all_prompts)]
        return found[0]

    def weigh_frames(self, weights: Sequence[float]) -> None:
        """Let the prompt of frame i count `weights[i]` times, in hosts whose guidance looks at that."""
        self._weights = tuple(weights)

    def conds(
        self,
        original: Callable[..., Any],
        function: Callable[..., Any],
        required_prompts: Any,
        steps: int,
        caches: list[Any],
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """One cond for each frame, in the host's form; the arguments are those of `p.get_conds_with_caching`.

        Raises:
            SettingsError: a malformed line, which another extension has put into the prompt since `check`.
        """
        texts = list(required_prompts)
        is_negative = bool(getattr(required_prompts, "is_negative_prompt", False))
        weights = None if is_negative else self._weights
        prompt = read_prompt(texts[0])
        if len(set(texts)) > 1 or not (prompt.is_travel or prompt.has_backslashes or weights):
            return original(function, required_prompts, steps, caches, *args, **kwargs)

        def encode(texts: Sequence[str], caches: list[Any]) -> Any:
            prompts = type(required_prompts)(texts, copy_from=required_prompts)
            if texts == [""]:  # a negative prompt that is empty as a whole may be zeros, not an encoded text
                prompts.is_negative_prompt = False
            return original(function, prompts, steps, caches, *args, **kwargs)

        schedule = resolve(prompt, len(texts), closed_loop=self._closed_loop)
        encoded = encode(list(schedule.prompts), caches)
        if is_negative:
            keys = self._padded(encoded, lambda: encode([""], [[None, None]])[0])
            return [_blended(keys, blend, self._method) for blend in schedule.frames]
        columns = []
        for parts in zip(*encoded.batch, strict=True):  # of all keyframes; more than one only where nothing travels
            keys = self._padded(
                [part.schedules for part in parts], lambda: encode([""], [[None, None]]).batch[0][0].schedules
            )
            columns.append(
                [
                    type(parts[0])(_blended(keys, blend, self._method), _weight(parts, blend) * weight)
                    for blend, weight in zip(schedule.frames, weights or [1.0] * len(texts), strict=True)
                ]
            )
        return type(encoded)(shape=(len(texts),), batch=[list(parts) for parts in zip(*columns, strict=True)])

    def _checked(self, text: str, *, is_negative: bool = False) -> PromptSchedule:
        prompt = read_prompt(text)
        check_travel(prompt, is_negative=is_negative)
        return resolve(prompt, self._num_frames, closed_loop=self._closed_loop)

    def _padded(self, keys: Sequence[Schedule], empty: Callable[[], Schedule]) -> Sequence[Schedule]:
        """All conds of all keyframes with the number of tokens of the longest."""
        lengths = {_tokens(entry.cond).shape[0] for schedule in keys for entry in schedule}
        if len(lengths) == 1:
            return keys
        appended = _tokens(empty()[0].cond)
        return [
            [type(entry)(entry.end_at_step, _with_tokens(entry.cond, max(lengths), appended)) for entry in schedule]
            for schedule in keys
        ]


def guidance_ratios(p: Any, schedule: PromptSchedule) -> tuple[float, ...] | None:
    """Each frame's guidance over the request's CFG scale, where a prompt says what it is.

    Raises:
        SettingsError: the request's CFG scale is 0.
    """
    if schedule.cfg is None:
        return None
    if not p.cfg_scale:
        raise SettingsError(
            f"`cfg` in a prompt needs a CFG scale other than 0, got {p.cfg_scale}. Choose another CFG scale."
        )
    return tuple(cfg / p.cfg_scale for cfg in schedule.cfg)


def set_off_from_styles(p: Any) -> dict[str, str]:
    """Attribute -> prompt with lines of its own for what the host's styles put before and after it.

    Hosts add a style to the text's ends, in the line of the last keyframe, which alone would get it. They strip the
    text before, so that a new line needs a mark to survive.
    """
    if not getattr(p, "styles", None):
        return {}
    found = {}
    for name in ("prompt", "negative_prompt", "hr_prompt", "hr_negative_prompt"):
        text = getattr(p, name, None)
        if isinstance(text, str) and read_prompt(text).is_travel:
            found[name] = f"\n{text}\n,"
    return found


def _blended(keys: Sequence[Schedule], blend: FrameBlend, method: str) -> Schedule:
    """The schedule of one frame: where either prompt changes while sampling, so does the blend."""
    first, second = keys[blend.first], keys[blend.second]
    if blend.share == 0:
        return first
    ends = sorted({entry.end_at_step for entry in (*first, *second)})
    return [
        type(first[0])(end, _between(_at_step(first, end), _at_step(second, end), blend.share, method)) for end in ends
    ]


def _at_step(schedule: Schedule, step: int) -> Any:
    """The cond for a step; hosts go back to the first one when all have ended."""
    return next((entry.cond for entry in schedule if step <= entry.end_at_step), schedule[0].cond)


def _between(first: Any, second: Any, share: float, method: str) -> Any:
    if isinstance(first, dict):
        return {name: interpolated(first[name], second[name], share, method) for name in first}
    return interpolated(first, second, share, method)


def _weight(parts: Sequence[Any], blend: FrameBlend) -> float:
    first, second = parts[blend.first].weight, parts[blend.second].weight
    return float(first + (second - first) * blend.share)


def _tokens(cond: Any) -> Tensor:
    tokens: Tensor = cond["crossattn"] if isinstance(cond, dict) else cond
    return tokens


def _with_tokens(cond: Any, length: int, empty: Tensor) -> Any:
    tokens = padded(_tokens(cond), length, empty)
    return {**cond, "crossattn": tokens} if isinstance(cond, dict) else tokens
