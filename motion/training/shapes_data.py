"""The shapes world as a data set: frames for the autoencoder, stills and clips with captions for everything else."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from motion.training.latent_bank import CaptionedClip
from motion.training.shapes import Scene, caption, describe, render, sample_scene, scene_rng
from motion.training.shapes_degradation import degraded

Frames = npt.NDArray[np.uint8]

FRAMES_PER_CLIP = 4
DEGRADED_SHARE = 0.25


def draw_frames(rng: np.random.Generator, count: int, frames_per_clip: int = FRAMES_PER_CLIP) -> Frames:
    """`count` frames `n h w 3` of the training split, a few from each clip, a quarter of the clips degraded."""
    parts = []
    for _ in range(-(-count // frames_per_clip)):
        clip = render(sample_scene(rng))
        chosen = clip[rng.choice(len(clip), frames_per_clip, replace=False)]
        parts.append(degraded(chosen, rng) if rng.random() < DEGRADED_SHARE else chosen)
    frames: Frames = np.concatenate(parts)[:count]
    return frames


def captions(seed: int, count: int) -> Iterator[str]:
    """Captions of `count` clips of the training split, in several ways to say each."""
    for index in range(count):
        rng = scene_rng(seed, index)
        yield from _captions(sample_scene(rng), rng)


def stills(seed: int, count: int) -> Iterator[CaptionedClip]:
    """`count` single frames of the training split, each with its captions.

    Early frames are more frequent: a still shows how a motion begins, so that the words of the motion have something
    to say about a picture, and the image UNet's features carry them to a motion module.
    """
    for index in range(count):
        rng = scene_rng(seed, index)
        scene = sample_scene(rng)
        place = int(scene.num_frames * rng.random() ** 3)
        yield CaptionedClip(render(scene)[place : place + 1], _captions(scene, rng))


def clips(seed: int, count: int, *, is_degraded: bool = False) -> Iterator[CaptionedClip]:
    """`count` clips of the training split, each with its captions; degraded ones look like web videos."""
    for index in range(count):
        rng = scene_rng(seed, index)
        scene = sample_scene(rng)
        frames = render(scene)
        yield CaptionedClip(degraded(frames, rng) if is_degraded else frames, _captions(scene, rng))


def graded_stills(seed: int, count: int) -> Iterator[CaptionedClip]:
    """As `stills`, each followed by itself as a frame of a web video: two "frames"."""
    for index, still in enumerate(stills(seed, count)):
        rng = scene_rng(seed + 1, index)
        yield CaptionedClip(np.concatenate([still.frames, degraded(still.frames, rng)]), still.captions)


def camera_clips(seed: int, count: int, camera: str) -> Iterator[CaptionedClip]:
    """`count` clips in which the camera moves alike, of which the captions say nothing: a motion LoRA's data set."""
    for index in range(count):
        rng = scene_rng(seed, index)
        scene = sample_scene(rng, camera=camera)
        asked = scene.asked.without_camera()
        yield CaptionedClip(render(scene), (describe(asked), describe(asked, rng)))


def _captions(scene: Scene, rng: np.random.Generator) -> tuple[str, ...]:
    return tuple(dict.fromkeys((caption(scene), caption(scene, rng), caption(scene, rng))))
