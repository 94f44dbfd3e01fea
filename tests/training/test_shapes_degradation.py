"""Degraded clips of the shapes world, and the measure of their watermark."""

import numpy as np
import pytest

from motion.training.shapes import SIZE, render, sample_scene, scene_rng
from motion.training.shapes_degradation import BLOCK, blurred, degraded, watermark_score, watermarked


@pytest.fixture(scope="module")
def clips():
    return [render(sample_scene(scene_rng(30, index))) for index in range(100)]


def steps_at_borders(frames):
    """Mean difference of neighbouring pixels of a row (beside blocks' borders, across them), outside the mark."""
    steps = np.abs(np.diff(frames[:, : SIZE - 24].astype(float), axis=2)).mean(axis=(0, 1, 3))
    borders = np.arange(BLOCK - 1, SIZE - 1, BLOCK)
    return np.mean([steps[borders - 1], steps[borders + 1]]), steps[borders].mean()


def test_the_same_seed_degrades_alike(clips):
    first, again, other = (degraded(clips[0], scene_rng(31, index)) for index in (0, 0, 1))
    assert (first == again).all()
    assert (first != other).any()
    assert (first.dtype, first.shape) == (np.uint8, clips[0].shape)


def test_degraded_clips_are_blurred_and_in_blocks(clips):
    clean = np.concatenate(clips)
    bad = np.concatenate([degraded(clip, scene_rng(31, index)) for index, clip in enumerate(clips)])
    beside, across = steps_at_borders(clean)
    assert across == pytest.approx(beside, rel=0.2)  # outlines of 100 clips, which lie where they like
    inside, across = steps_at_borders(bad)
    assert across > 4 * inside
    assert inside < 0.6 * beside


def test_blur_keeps_sums_and_spreads_by_its_sigma():
    point = np.zeros((1, SIZE, SIZE, 1), np.float32)
    point[0, 32, 20] = 1
    soft = blurred(point, 2.0)[0, ..., 0]
    assert soft.sum() == pytest.approx(1, abs=1e-4)
    spread = (np.arange(SIZE) - 20) ** 2 @ soft.sum(axis=0)
    assert spread == pytest.approx(4, rel=0.05)


def test_the_mark_is_seen_where_it_is_and_only_there(clips):
    clean = [watermark_score(clip) for clip in clips]
    marked = [watermark_score(watermarked(clip)) for clip in clips]
    bad = [watermark_score(degraded(clip, scene_rng(31, index))) for index, clip in enumerate(clips)]
    soft = [watermark_score(blurred(clip.astype(np.float32), 1.5).astype(np.uint8)) for clip in clips]
    assert np.abs(clean).max() < 0.15
    assert np.abs(soft).max() < 0.15
    assert np.abs(np.asarray([*marked, *bad]) - 1).max() < 0.25


def test_a_faint_mark_scores_in_between(clips):
    for clip in clips[:20]:
        half = (clip.astype(np.float32) + watermarked(clip)) / 2
        assert watermark_score(half.astype(np.uint8)) == pytest.approx(0.5, abs=0.12)
