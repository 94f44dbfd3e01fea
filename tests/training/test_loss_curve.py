"""The loss as a picture."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from motion.training.loss_curve import HEIGHT, WIDTH, draw_loss_curve
from motion.training.run_folder import RunFolder


def blue(image):
    """Rows of the running mean in each column that has one."""
    pixels = np.asarray(image).astype(int)
    is_line = (pixels == (30, 90, 200)).all(-1)
    return {x: np.flatnonzero(is_line[:, x]).mean() for x in range(WIDTH) if is_line[:, x].any()}


def falling(steps=400):
    noise = np.random.default_rng(0).normal(0, 0.2, steps)
    return [float(math.exp(-3 * step / steps + noise[step])) for step in range(steps)]


def test_curve_falls_across_the_picture(tmp_path):
    path = RunFolder(tmp_path).save_image("loss.png", draw_loss_curve(falling()))
    with Image.open(path) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (WIDTH, HEIGHT), "RGB")
        rows = blue(image)
    columns = sorted(rows)
    assert columns[0] < 70
    assert columns[-1] > WIDTH - 20
    heights = [rows[column] for column in columns]
    quarter = len(heights) // 4
    means = [np.mean(heights[i * quarter : (i + 1) * quarter]) for i in range(4)]
    assert all(later - earlier > 30 for earlier, later in pairwise(means))  # y points down
    # On a logarithmic axis an exponential is a straight line.
    slopes = np.diff(means)
    assert max(slopes) < 1.6 * min(slopes)


@pytest.mark.parametrize(
    "losses", [[1.0], [2.0, 2.0, 2.0], [1.0, math.nan, 0.5, math.inf, 0.25], [0.0, 1.0], [math.nan]]
)
def test_odd_losses_are_drawn_too(losses):
    assert len(draw_loss_curve(losses).getcolors(100_000)) > 3
    assert (len(blue(draw_loss_curve(losses))) > 100) == (sum(map(math.isfinite, losses)) > 1)
