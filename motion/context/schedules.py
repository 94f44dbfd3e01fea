"""Which windows of a clip run in a step: pure functions of the clip's length, the context and the step's index.

Every schedule covers every frame in every step, and no window holds a frame twice. Where they mean the same, windows
are those of AnimateDiff-Evolved and of animatediff-cli, from which users know the names; each function says where not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from motion.settings import CONTEXT_SCHEDULES

Window = tuple[int, ...]
"""Frames of one window, in the order in which the motion module sees them."""


@dataclass(frozen=True)
class Context:
    """The shape of the windows.

    Attributes:
        length: frames of a window; a shorter clip is one window.
        overlap: frames that neighbouring windows share, less than `length`.
        stride: "uniform" and "looped" add windows of every 2nd, 4th, … frame, `stride` - 1 such sets at most.
        closed_loop: the clip's first frame follows its last one.
    """

    length: int
    overlap: int
    stride: int = 1
    closed_loop: bool = False


def van_der_corput(index: int) -> float:
    """Element `index` of the base-2 van der Corput sequence, 0 ≤ h < 1: 0, 1/2, 1/4, 3/4, 1/8, …"""
    value, digit = 0.0, 0.5
    while index:
        value += digit * (index & 1)
        index, digit = index >> 1, digit / 2
    return value


def windows_of_step(schedule: str, num_frames: int, context: Context, step: int) -> tuple[Window, ...]:
    """The windows of one step.

    Args:
        schedule: one of CONTEXT_SCHEDULES.
        num_frames: frames of the clip, at least 1.
        context: shape of the windows.
        step: index of the sampler's step, from 0.

    Raises:
        ValueError: an unknown schedule, or numbers that make no windows.
    """
    if num_frames < 1 or not 0 <= context.overlap < context.length or context.stride < 1 or step < 0:
        raise ValueError(f"No windows over {num_frames} frames in step {step} with {context}.")
    whole = num_frames <= context.length
    if whole and (num_frames == 1 or not context.closed_loop):
        return (tuple(range(num_frames)),)
    length = min(context.length, num_frames)
    fitted = Context(length, min(context.overlap, length - 1), context.stride, context.closed_loop)
    return tuple(dict.fromkeys(_windows(schedule, num_frames, fitted, step)))


def _windows(schedule: str, num_frames: int, context: Context, step: int) -> Iterator[Window]:
    if schedule == "looped" or (schedule == "uniform" and context.closed_loop):
        return _looped(num_frames, context, step)
    if schedule == "uniform":
        return _uniform(num_frames, context, step)
    if schedule in ("static", "views"):
        return _static(num_frames, context)
    if schedule == "batched":
        return _batched(num_frames, context)
    raise ValueError(f"The schedule must be one of {', '.join(CONTEXT_SCHEDULES)}, got {schedule!r}.")


def _looped(num_frames: int, context: Context, step: int) -> Iterator[Window]:
    """Windows on a ring of frames, turned by the step's element of the van der Corput sequence.

    Closed, the last window reaches the first; otherwise one window fewer may run, and no window but those that the
    ring wraps by chance joins the clip's ends. As animatediff-cli's and AnimateDiff-Evolved's looped uniform windows,
    except: a set of strided windows that would go round the ring more than once is left out (it may hold a frame
    twice); a clip of just one window is run as one, unless the loop is closed; and a shorter one closes too.
    """
    halving = van_der_corput(step)
    turn = round(num_frames * halving)
    for dilation in _dilations(num_frames, context):
        begin = int(halving * dilation) + turn
        end = num_frames + turn - (0 if context.closed_loop else context.overlap)
        hop = context.length * dilation - context.overlap
        for start in range(begin, max(end, begin + 1), hop):
            yield tuple((start + place * dilation) % num_frames for place in range(context.length))


def _uniform(num_frames: int, context: Context, step: int) -> Iterator[Window]:
    """Windows on a line, whose grid the step's element of the van der Corput sequence shifts by a part of its hop.

    Those that reach over an end are moved inside, so borders between windows lie elsewhere in each step but the two
    ends of the clip are never joined. In step 0 these are the static windows, as AnimateDiff-Evolved's standard
    uniform ones are; in other steps those are turned on the ring and then repaired, which leaves frames out at some
    strides, so ours differ on purpose.
    """
    halving = van_der_corput(step)
    for dilation in _dilations(num_frames, context):
        hop = context.length * dilation - context.overlap
        last = num_frames - ((context.length - 1) * dilation + 1)
        yield from _on_a_line(-int(hop * halving), hop, last, dilation, context.length)


def _static(num_frames: int, context: Context) -> Iterator[Window]:
    """The same windows in every step: from the first frame on, the last one moved back to end with the clip.

    Without a loop these are AnimateDiff-Evolved's static windows, and FreeNoise's views where those reach the clip's
    end; where they don't, FreeNoise leaves frames out and we add the last window. In a closed loop the last window
    goes on at the first frame.
    """
    hop = context.length - context.overlap
    if context.closed_loop:
        for start in range(0, num_frames, hop):
            yield tuple((start + place) % num_frames for place in range(context.length))
        return
    yield from _on_a_line(0, hop, num_frames - context.length, 1, context.length)


def _batched(num_frames: int, context: Context) -> Iterator[Window]:
    """One window after another without overlap; the last one is shorter where the clip ends, as in other programs.

    In a closed loop it goes on at the first frame instead.
    """
    for start in range(0, num_frames, context.length):
        end = start + context.length if context.closed_loop else min(start + context.length, num_frames)
        yield tuple(frame % num_frames for frame in range(start, end))


def _on_a_line(shift: int, hop: int, last: int, dilation: int, length: int) -> Iterator[Window]:
    """Windows that start at `shift`, `shift` + `hop`, … but not before 0, up to one that starts at `last`."""
    starts: Sequence[int] = range(shift, last + hop, hop)
    for start in dict.fromkeys(min(max(start, 0), last) for start in starts):
        yield tuple(start + place * dilation for place in range(length))


def _dilations(num_frames: int, context: Context) -> list[int]:
    """1, 2, 4, …: distances of neighbouring frames in a window, as far as a window fits into the clip."""
    count = min(context.stride, math.ceil(math.log2(num_frames / context.length)) + 1)
    powers = [1 << power for power in range(count)]
    return [power for power in powers if power == 1 or (context.length - 1) * power < num_frames]
