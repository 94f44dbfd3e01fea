"""What `benchmarks.shapes` measures, part by part; each gives rows of its table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.shapes_clips import Case, ClipMaker, Frames
from motion.training.shapes import (
    DIRECTIONS,
    Asked,
    caption,
    describe,
    parse_caption,
    render,
    sample_asked,
    sample_scene,
    scene_rng,
)
from motion.training.shapes_degradation import watermark_score
from motion.training.shapes_judge import Scores, judge_clip, judge_still, score_seen, score_text_clip

Floats = npt.NDArray[np.float64]

PARTS_OF_A_CAPTION = ("colour", "shape", "background", "direction", "motion", "camera")
LORA_WEIGHTS = (1.0, 0.5, 0.0, -1.0)
ADAPTER_STRENGTHS = (1.0, 0.5, 0.0)
_MOVING_SEED, _ANY_SEED, _RESTING_SEED, _PICTURE_SEED, _WORLD_SEED = range(9100, 9105)
_SHUFFLES = 20


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        key: in the JSON object.
        label: in the table.
        value: a share, a measure, or whether something holds.
        least: what it must reach, where something is asked.
    """

    key: str
    label: str
    value: float | bool
    least: float | bool | None = None

    @property
    def is_met(self) -> bool:
        """Whether it reaches what is asked."""
        return self.least is None or self.value >= self.least


def moving_case(seed: int, split: str, module: str, group: str) -> Case:
    """One shape that moves straight, of trained combinations or of held-out ones; the directions take turns."""
    rng = scene_rng(_MOVING_SEED, seed)
    motion = f"moving {DIRECTIONS[seed % len(DIRECTIONS)]}"
    asked = sample_asked(rng, split=split, two_shapes=False, motion=motion, camera="")
    return Case(group, seed, describe(asked), module)


def text_rows(maker: ClipMaker, count: int, module: str) -> Iterator[Row]:
    """Colour, shape and direction for captions of straight moves."""
    prefix = "" if module == "v3" else f"{module}_"
    for split, bounds in (("train", (0.9, 0.9, 0.85)), ("held out", (0.75, 0.75, 0.75))):
        name = "held-out" if split == "held out" else "trained"
        cases = [moving_case(seed, split, module, f"text-{module}-{name}") for seed in range(count)]
        found = shares(scored(maker, cases))
        key = f"{prefix}held_out_" if split == "held out" else prefix
        for part, least in zip(("colour", "shape", "direction"), bounds, strict=True):
            yield Row(f"{key}{part}", f"{module}, {name} combinations: {part}", found[part], least)
        yield Row(f"{key}background", f"{module}, {name} combinations: background", found["background"])


def any_rows(maker: ClipMaker, count: int) -> Iterator[Row]:
    """Captions of all kinds, as the world draws them: two shapes, turning, growing, bouncing, cameras."""
    asked = [sample_asked(scene_rng(_ANY_SEED, seed), split="all") for seed in range(count)]
    found = shares(scored(maker, [Case("any-v3", seed, describe(one)) for seed, one in enumerate(asked)]))
    for part in PARTS_OF_A_CAPTION:
        yield Row(f"any_{part}", f"v3, captions of all kinds: {part}", found[part])


def still_rows(maker: ClipMaker, count: int) -> Iterator[Row]:
    """The same captions and seeds without a motion module: right stills, unrelated."""
    moving = [moving_case(seed, "train", "v3", "text-v3-trained") for seed in range(count)]
    alone = [Case("without-module", case.seed, case.caption, "") for case in moving]
    jumps = [mean_jump(maker.clips(cases)) for cases in (moving, alone)]
    yield Row("jump_with", "position jumps with the module, pixels a frame", jumps[0])
    yield Row("jump_without", "position jumps without it, pixels a frame", jumps[1])
    yield Row("jump_ratio", "jumps without over jumps with the module", jumps[1] / max(jumps[0], 1e-6), 5.0)
    colours, shapes = [], []
    for case, clip in zip(alone, maker.clips(alone), strict=True):
        main = parse_caption(case.caption).main
        for frame in clip[:: len(clip) // 4]:
            still = judge_still(frame)
            colours.append(still.colour == main.colour)
            shapes.append(still.shape == main.shape)
    yield Row("still_colour", "stills without the module: colour", float(np.mean(colours)))
    yield Row("still_shape", "stills without the module: shape", float(np.mean(shapes)))


def lora_rows(maker: ClipMaker, count: int) -> Iterator[Row]:
    """What the camera does under motion LoRAs, as the background tells and as the shape does, which is at rest."""
    pan = {weight: camera(maker, count, pan=weight) for weight in LORA_WEIGHTS}
    zoom = {weight: camera(maker, count, zoom=weight) for weight in LORA_WEIGHTS}
    flips = []
    leftwards, inwards = "camera leftwards, pixels a frame", "zoom, % a frame"
    for name, label, seen in (("pan_left", leftwards, pan), ("zoom_in", inwards, zoom)):
        for told_by in ("background", "shape"):
            amounts = {weight: getattr(one, f"{name}_{told_by}") for weight, one in seen.items()}
            means = {weight: float(np.nanmean(amount)) for weight, amount in amounts.items()}
            title = f"motion LoRA {name}, told by the {told_by}"
            for weight, mean in means.items():
                yield Row(f"{name}_{told_by}_{weight:g}", f"{title}, at {weight:g}: {label}", mean)
            ordered = all(first > second for first, second in itertools.pairwise(means.values()))
            yield Row(f"{name}_{told_by}_order", f"{title}: the means are in this order", ordered, True)
            yield Row(f"{name}_{told_by}_flips", f"{title}: sign flipped at -1", means[1.0] > 0 > means[-1.0], True)
            flips.append((amounts[1.0] > 0) & (amounts[-1.0] < 0))
    yield Row("lora_sign", "clips whose camera turns round from 1 to -1", float(np.mean(flips)))
    both = camera(maker, count, pan=1.0, zoom=1.0)
    adds = True
    for name, label, alone in (("pan_left", leftwards, pan), ("zoom_in", inwards, zoom)):
        found, least = (float(np.nanmean(getattr(one, f"{name}_shape"))) for one in (both, alone[1.0]))
        yield Row(f"both_{name}", f"both motion LoRAs at 1, told by the shape: {label}", found)
        adds = adds and found > least / 2 > 0
    yield Row("loras_add", "two motion LoRAs add: more than half of either alone", adds, True)


@dataclass(frozen=True)
class CameraSeen:
    """What the camera does in each clip: pixels a frame to the left, and zoom in percent a frame.

    The shape of these clips is at rest, so that its way over the screen and its growth are the camera's doing; NaN
    where no shape is seen.
    """

    pan_left_background: Floats
    pan_left_shape: Floats
    zoom_in_background: Floats
    zoom_in_shape: Floats


def camera(maker: ClipMaker, count: int, pan: float = 0.0, zoom: float = 0.0) -> CameraSeen:
    """Clips of resting shapes, one of each seed, under motion LoRAs of these weights."""
    named = [("pan-left", pan), ("zoom-in", zoom)]
    tags = " ".join(f"<lora:shapes-{name}:{weight:g}>" for name, weight in named if weight)
    group = "-".join(["lora-v2", *(f"{name}-{weight:g}" for name, weight in named if weight)])
    cases = []
    for seed in range(count):
        asked = sample_asked(scene_rng(_RESTING_SEED, seed), split="all", two_shapes=False, motion="", camera="")
        cases.append(Case(group, seed, describe(asked), "v2", loras=tags))
    seen = [judge_clip(clip) for clip in maker.clips(cases)]
    shapes = [one.shapes[0] if one.shapes else None for one in seen]
    return CameraSeen(
        np.asarray([-one.camera_velocity[0] for one in seen]),
        np.asarray([math.nan if shape is None else shape.velocity[0] for shape in shapes]),
        np.asarray([100 * math.expm1(one.camera_zoom) for one in seen]),
        np.asarray([math.nan if shape is None else 100 * math.expm1(shape.growth) for shape in shapes]),
    )


def adapter_rows(maker: ClipMaker, count: int) -> Iterator[Row]:
    """The watermark of the module's footage, which the domain adapter brings back."""
    means = []
    for strength in ADAPTER_STRENGTHS:
        group = f"adapter-v3-{strength:g}" if strength else "text-v3-trained"
        moving = [moving_case(seed, "train", "v3", group) for seed in range(count)]
        cases = [Case(case.group, case.seed, case.caption, adapter=strength) for case in moving]
        means.append(float(np.mean([watermark_score(clip) for clip in maker.clips(cases)])))
        yield Row(f"watermark_{strength:g}", f"domain adapter at {strength:g}: watermark score", means[-1])
    falls = all(first > second for first, second in itertools.pairwise(means))
    yield Row("watermark_falls", "domain adapter: the watermark fades from 1 to 0", falls, True)


def picture_rows(maker: ClipMaker, count: int) -> Iterator[Row]:
    """Clips from a picture of the world, in its shape and colour."""
    cases = []
    for seed in range(count):
        rng = scene_rng(_PICTURE_SEED, seed)
        motion = f"moving {DIRECTIONS[seed % len(DIRECTIONS)]}"
        asked = sample_asked(rng, two_shapes=False, motion=motion, camera="")
        cases.append(Case("img2img-v3", seed, describe(asked), from_picture=True))
    scores = list(scored(maker, cases))
    kept = float(np.mean([score.colour and score.shape for score in scores]))
    yield Row("img2img", "clip from a picture: shape and colour kept", kept, 0.85)
    yield Row("img2img_direction", "clip from a picture: direction", shares(scores)["direction"])


def judge_rows(count: int) -> Iterator[Row]:
    """The judge itself on clips of the world, with their captions and with other clips'."""
    scenes = [sample_scene(scene_rng(_WORLD_SEED, index), split="all") for index in range(count)]
    seen = [judge_clip(render(scene)) for scene in scenes]
    own = shares(score_seen(one, caption(scene)) for one, scene in zip(seen, scenes, strict=True))
    pairs = [(at, (at + shift) % count) for shift in range(1, min(_SHUFFLES, count)) for at in range(count)]
    shuffled = shares(score_seen(seen[at], caption(scenes[other])) for at, other in pairs)
    agreements = [agreement(scenes[at].asked, scenes[other].asked) for at, other in pairs]
    for part in PARTS_OF_A_CAPTION:
        told = [one[part] for one in agreements if one[part] is not None]
        yield Row(f"judge_{part}", f"judge on the world's own clips: {part}", own[part], 0.99)
        yield Row(f"judge_shuffled_{part}", f"judge, captions shuffled: {part}", shuffled[part])
        yield Row(f"judge_chance_{part}", f"how often shuffled captions agree: {part}", float(np.mean(told)))


def agreement(shown: Asked, asked: Asked) -> dict[str, bool | None]:
    """What is right of a clip that shows `shown` under the caption of `asked`, by the captions alone: chance."""
    direction = shown.main.direction == asked.main.direction
    return {
        "colour": sorted(one.colour for one in shown.shapes) == sorted(one.colour for one in asked.shapes),
        "shape": sorted(one.shape for one in shown.shapes) == sorted(one.shape for one in asked.shapes),
        "background": shown.background == asked.background,
        "direction": direction if asked.main.direction else None,
        "motion": shown.main.motion == asked.main.motion,
        "camera": shown.camera == asked.camera,
    }


def scored(maker: ClipMaker, cases: Sequence[Case]) -> Iterator[Scores]:
    """How each case's clip fits its caption."""
    for case, clip in zip(cases, maker.clips(cases), strict=True):
        yield score_text_clip(clip, case.caption)


def shares(scores: Iterable[Scores]) -> dict[str, float]:
    """How often each part is right, of the clips whose captions ask for it; NaN where none does."""
    scores = list(scores)
    told = {part: [getattr(score, part) for score in scores] for part in PARTS_OF_A_CAPTION}
    asked = {part: [value for value in values if value is not None] for part, values in told.items()}
    return {part: float(np.mean(values)) if values else math.nan for part, values in asked.items()}


def mean_jump(clips: Iterable[Frames]) -> float:
    """How far the largest shape's steps differ from its mean step, pixels; the mean over clips that show one."""
    seen = [judge_clip(clip) for clip in clips]
    return float(np.mean([one.shapes[0].jump for one in seen if one.shapes] or [math.nan]))
