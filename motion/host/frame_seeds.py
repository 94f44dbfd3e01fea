"""Seeds of a clip's frames, from which a web UI draws all noise of each picture."""

from __future__ import annotations

from typing import Any

from motion.context.plan import WindowPlan
from motion.errors import SettingsError
from motion.noise.frame_sources import frame_sources, seeds_of_single_frames
from motion.settings import MotionSettings


def check_seeds(p: Any, settings: MotionSettings) -> None:
    """Refuse seeds that don't go together.

    Raises:
        SettingsError: as in `seeds_of_single_frames`, or several clips that would all be the same one.
    """
    if seeds_of_single_frames(settings) is not None and p.n_iter > 1:
        raise SettingsError(
            f"`frame_seeds` names the seeds of one clip, so Batch count must be 1, got {p.n_iter}. Lower it, or empty "
            "`frame_seeds`."
        )


def spread_seeds(p: Any, settings: MotionSettings, plan: WindowPlan) -> None:
    """Give every frame of every clip the seeds, and the variation seeds, of the frame whose noise it shares."""
    named = seeds_of_single_frames(settings)
    if named is not None:
        p.all_seeds = list(named)
        return
    frames = settings.num_frames
    seeds, subseeds = list(p.all_seeds), list(p.all_subseeds)
    p.all_seeds, p.all_subseeds = [], []
    for clip in range(p.n_iter):
        # Clips of one seed each follow one another as pictures do; others take up as many seeds as they have frames.
        start = clip if settings.seed_behaviour == "same for all frames" else clip * frames
        sources = frame_sources(settings, plan.context.length, plan.context.overlap, seed=seeds[start])
        p.all_seeds += [seeds[start + source] for source in sources]
        p.all_subseeds += [subseeds[start + source] for source in sources]
