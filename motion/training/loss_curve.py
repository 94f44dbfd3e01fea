"""The loss of a run as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 800, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 32
_GROUND, _GRID, _INK, _FAINT, _LINE = (255, 255, 255), (225, 225, 225), (60, 60, 60), (190, 205, 235), (30, 90, 200)
_GRID_LINES = 5


def draw_loss_curve(losses: Sequence[float], title: str = "loss") -> Image.Image:
    """The loss over the steps on a logarithmic axis: each step faint, a running mean over it.

    Args:
        losses: loss of steps 1, 2, …; at least one.
        title: text in the corner that a falling curve leaves free.
    """
    image = Image.new("RGB", (WIDTH, HEIGHT), _GROUND)
    draw = ImageDraw.Draw(image)
    smooth = _running_mean(losses)
    shown = [loss for loss in losses if math.isfinite(loss) and loss > 0] or [1.0]
    low, high = math.log(min(shown)), math.log(max(shown))
    high = max(high, low + 1e-3)
    _draw_grid(draw, low, high, len(losses))

    def point(step: int, loss: float) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * step / max(1, len(losses) - 1)
        height = (math.log(max(loss, math.exp(low))) - low) / (high - low)
        return x, HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * min(1.0, height)

    for values, colour, width in ((losses, _FAINT, 1), (smooth, _LINE, 2)):
        points = [point(step, loss) for step, loss in enumerate(values) if math.isfinite(loss)]
        if len(points) > 1:
            draw.line(points, fill=colour, width=width)
    caption = f"{title}: {smooth[-1]:.4g} after {len(losses)} steps"
    draw.text((WIDTH - _RIGHT - 8 - draw.textlength(caption), _TOP + 2), caption, fill=_INK)
    return image


def _draw_grid(draw: ImageDraw.ImageDraw, low: float, high: float, steps: int) -> None:
    for line in range(_GRID_LINES + 1):
        part = line / _GRID_LINES
        y = HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * part
        draw.line([(_LEFT, y), (WIDTH - _RIGHT, y)], fill=_GRID)
        draw.text((6, y - 6), f"{math.exp(low + (high - low) * part):.3g}", fill=_INK)
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * part
        draw.text((x - 10, HEIGHT - _BOTTOM + 8), str(round(1 + (steps - 1) * part)), fill=_INK)


def _running_mean(losses: Sequence[float]) -> list[float]:
    """Exponential mean over about a fiftieth of the run, without the pull of its start."""
    decay = 1.0 - 1.0 / max(1.0, len(losses) / 50)
    total = weight = 0.0
    means = []
    for loss in losses:
        if math.isfinite(loss):
            total, weight = decay * total + (1 - decay) * loss, decay * weight + (1 - decay)
        means.append(total / weight if weight else math.nan)
    return means
