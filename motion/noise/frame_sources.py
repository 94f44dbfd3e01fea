"""Which frame's noise each frame of a clip starts from.

Web UIs draw the noise of every picture of a batch from that picture's own seed: the noise that sampling starts from,
that of ancestral steps and that of a hires pass. So frames share noise by sharing a seed.
"""

from __future__ import annotations

import torch

from motion.errors import SettingsError
from motion.settings import MotionSettings


def frame_sources(settings: MotionSettings, window_length: int, overlap: int, *, seed: int) -> tuple[int, ...]:
    """Frame -> frame whose noise it has, as `settings.seed_behaviour` says.

    Args:
        settings: the request.
        window_length: frames of the windows in which the clip runs; a clip of no more has nothing to repeat.
        overlap: frames that neighbouring windows share.
        seed: of FreeNoise's shuffles.
    """
    num_frames = settings.num_frames
    if settings.seed_behaviour == "same for all frames":
        return (0,) * num_frames
    if settings.seed_behaviour == "repeated":
        return repeated_sources(num_frames, window_length)
    if settings.seed_behaviour == "FreeNoise":
        return shuffled_sources(num_frames, window_length, overlap, seed=seed)
    return tuple(range(num_frames))


def seeds_of_single_frames(settings: MotionSettings) -> tuple[int, ...] | None:
    """The seeds that the request names, one for each frame; None where it names none.

    Raises:
        SettingsError: more or fewer seeds than frames, or seeds that something else decides too.
    """
    seeds = tuple(map(int, settings.frame_seeds.split()))
    if not seeds:
        return None
    if len(seeds) != settings.num_frames:
        raise SettingsError(
            f"`frame_seeds` must hold one seed for each frame ({settings.num_frames}), got {len(seeds)}. "
            "Write as many, or none."
        )
    if settings.seed_behaviour != "per frame":
        raise SettingsError(
            "`seed_behaviour` must be 'per frame' where `frame_seeds` names each frame's seed, got "
            f"'{settings.seed_behaviour}'. Choose 'per frame', or empty `frame_seeds`."
        )
    return seeds


def repeated_sources(num_frames: int, window_length: int) -> tuple[int, ...]:
    """Frame -> frame whose noise it has: the first window's noise again and again, as others' "repeated context"."""
    return tuple(frame % window_length for frame in range(num_frames))


def shuffled_sources(num_frames: int, window_length: int, overlap: int, *, seed: int) -> tuple[int, ...]:
    """Frame -> frame whose noise it has, rescheduled as FreeNoise does (arXiv:2310.15169).

    Windows that start every `window_length` - `overlap` frames hold the noise of the first one in an order of their
    own: the frames that leave a window come back behind it, shuffled. Where the clip ends inside such a group, as many
    of the leaving frames come back as there is room for. AnimateDiff-Evolved numbers frames in the same way from the
    same seed, and so does diffusers where the last group is a whole one; else it shuffles more frames than it takes.

    Args:
        num_frames: frames of the clip; up to `window_length` of them keep their own noise.
        window_length: frames of a window.
        overlap: frames that neighbouring windows share, less than `window_length`.
        seed: of the shuffles.

    Raises:
        ValueError: an overlap that is no part of the window.
    """
    if not 0 <= overlap < window_length:
        raise ValueError(f"The overlap must be from 0 to {window_length - 1}, got {overlap}.")
    generator = torch.Generator().manual_seed(seed)
    sources = list(range(min(num_frames, window_length)))
    while len(sources) < num_frames:
        begin = len(sources) - window_length
        count = min(window_length - overlap, num_frames - len(sources))
        leaving = sources[begin : begin + count]
        sources += [leaving[place] for place in torch.randperm(count, generator=generator).tolist()]
    return tuple(sources)
