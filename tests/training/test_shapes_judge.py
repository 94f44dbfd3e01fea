"""The judge of the shapes world: right on the world's own clips, at chance on others' captions, steady on soft ones."""

import math

import numpy as np
import pytest

from motion.errors import MotionError
from motion.training.shapes import (
    SHAPES,
    SIZE,
    Asked,
    AskedShape,
    caption,
    parse_caption,
    render,
    sample_scene,
    scene_of,
    scene_rng,
    tracks,
)
from motion.training.shapes_degradation import blurred
from motion.training.shapes_judge import judge_clip, judge_still, score_seen, score_text_clip

PARTS = ("colour", "shape", "background", "direction", "motion", "camera")
COUNT = 100


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene(scene_rng(70, index), split="all") for index in range(COUNT)]


@pytest.fixture(scope="module")
def seen(scenes):
    return [judge_clip(render(scene)) for scene in scenes]


def shares(scores):
    """How often each part is right, of those scores in which it is asked for."""
    scores = list(scores)
    told = {part: [getattr(score, part) for score in scores if getattr(score, part) is not None] for part in PARTS}
    return {part: float(np.mean(values)) for part, values in told.items()}


def softened(clip, rng):
    """As a small model paints it: blurred, off in colour, grained, in uneven light."""
    frames = blurred(clip.astype(np.float32), 1.3) * rng.uniform(0.88, 1.08, 3) + rng.uniform(-8, 8, 3)
    frames += rng.normal(0, 5, frames.shape) + blurred(rng.normal(0, 60, frames.shape).astype(np.float32), 4.0)
    return np.clip(frames + 0.5, 0, 255).astype(np.uint8)


def grained(clip, rng):
    return np.clip(clip + rng.normal(0, 8, clip.shape) + 0.5, 0, 255).astype(np.uint8)


def same_parts(shown, asked):
    """What is right of a clip that shows `shown` under the caption of `asked`, by the captions alone."""
    return {
        "colour": sorted(s.colour for s in shown.shapes) == sorted(s.colour for s in asked.shapes),
        "shape": sorted(s.shape for s in shown.shapes) == sorted(s.shape for s in asked.shapes),
        "background": shown.background == asked.background,
        "direction": shown.main.direction == asked.main.direction if asked.main.direction else None,
        "motion": shown.main.motion == asked.main.motion,
        "camera": shown.camera == asked.camera,
    }


def test_worlds_own_clips_are_read_right(scenes, seen):
    found = shares(score_seen(one, caption(scene)) for one, scene in zip(seen, scenes, strict=True))
    assert min(found.values()) >= 0.99, found


def test_shuffled_captions_score_at_chance(scenes, seen):
    """Chance is how often the captions themselves agree: about one in six for a colour, one in four for a shape."""
    asked = [scene.asked for scene in scenes]
    pairs = [(at, (at + shift) % COUNT) for shift in range(1, 12) for at in range(COUNT)]
    found = shares(score_seen(seen[at], caption(scenes[other])) for at, other in pairs)
    for part in PARTS:
        told = [same_parts(asked[at], asked[other])[part] for at, other in pairs]
        chance = np.mean([value for value in told if value is not None])
        assert found[part] == pytest.approx(chance, abs=0.06), part
    assert found["colour"] < 0.3
    assert found["direction"] < 0.35


@pytest.mark.parametrize("damage", [softened, grained])
def test_soft_and_grainy_clips_are_read_right(scenes, damage):
    chosen = range(14)
    found = shares(
        score_text_clip(damage(render(scenes[index]), np.random.default_rng(index)), caption(scenes[index]))
        for index in chosen
    )
    assert min(found.values()) >= 0.96, found


def test_stills_are_read_right_soft_ones_too(scenes):
    single = [scene for scene in scenes if len(scene.bodies) == 1][:40]
    for change in (lambda clip, _: clip, softened):
        right = []
        for index, scene in enumerate(single):
            found = judge_still(change(render(scene)[index % 16][None], np.random.default_rng(index))[0])
            main = scene.asked.main
            right.append((found.colour == main.colour, found.shape == main.shape, found.background == scene.background))
        assert np.mean(right, axis=0).min() >= 0.98, np.mean(right, axis=0)


def test_places_and_speeds_are_those_of_the_scene():
    for index, motion in enumerate(("moving left", "moving down", "turning", "growing")):
        scene = sample_scene(
            scene_rng(71, index), split="all", two_shapes=False, motion=motion, camera="", shape="star"
        )
        track, shape = tracks(scene)[0], judge_clip(render(scene)).shapes[0]
        assert np.abs(shape.centre - track.centre).max() < 0.6
        steps = np.diff(track.centre, axis=0).mean(axis=0)
        assert shape.velocity == pytest.approx(steps, abs=0.05)
        assert shape.own_growth == pytest.approx(np.diff(np.log(track.size)).mean(), abs=0.005)
        assert shape.turning == pytest.approx(np.diff(track.angle).mean(), abs=math.radians(0.5))
        assert shape.jump < 0.5


@pytest.mark.parametrize(
    ("camera", "velocity", "zoom"),
    [("panning left", (-1, 0), 0), ("panning down", (0, 1), 0), ("zooming in", (0, 0), 1), ("zooming out", (0, 0), -1)],
)
def test_the_camera_is_followed(camera, velocity, zoom):
    scene = sample_scene(scene_rng(72), split="all", camera=camera)
    seen = judge_clip(render(scene))
    assert seen.camera == camera
    assert seen.camera_velocity == pytest.approx(np.asarray(velocity) * scene.camera_rate, abs=0.1)
    assert seen.camera_zoom == pytest.approx(zoom * scene.camera_rate, abs=0.003)


def test_unrelated_frames_jump_and_have_no_direction():
    asked = Asked((AskedShape("red", "circle", "moving right"),), "blue")
    frames = np.concatenate([render(scene_of(asked, scene_rng(73, index)))[:1] for index in range(16)])
    scores = score_text_clip(frames, "a red circle moving right on a blue background")
    assert (scores.colour, scores.shape, scores.direction) == (True, True, False)
    assert scores.seen.shapes[0].jump > 5
    assert scores.seen.flicker > 5


def test_nothing_is_seen_in_an_empty_clip():
    scores = score_text_clip(np.full((8, SIZE, SIZE, 3), 110, np.uint8), "a red circle moving up on a grey background")
    assert scores.seen.shapes == ()
    assert (scores.colour, scores.shape, scores.motion, scores.background) == (False, False, False, True)
    still = judge_still(np.full((SIZE, SIZE, 3), 110, np.uint8))
    assert (still.colour, still.shape, still.background) == ("", "", "grey")


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_that_is_absent_for_a_few_frames_is_still_read(shape):
    asked = Asked((AskedShape("yellow", shape, "moving left"),), "black")
    frames = render(scene_of(asked, scene_rng(74)))
    frames[5:7] = 20
    scores = score_text_clip(frames, "a yellow " + shape + " moving left on a black background")
    assert (scores.colour, scores.shape, scores.direction) == (True, True, True)
    assert np.isnan(scores.seen.shapes[0].centre[5:7]).all()


@pytest.mark.parametrize(
    ("judge", "frames", "message"),
    [
        (judge_clip, np.zeros((16, SIZE, SIZE, 3), np.float32), "uint8 with the colours last; got float32"),
        (judge_clip, np.zeros((16, 3, SIZE, SIZE), np.uint8), r"got uint8 of shape \(16, 3, 64, 64\)"),
        (judge_clip, np.zeros((2, SIZE, SIZE, 3), np.uint8), "at least 3 RGB pictures"),
        (judge_still, np.zeros((32, 32, 3), np.uint8), "of 64x64 pixels"),
    ],
)
def test_pictures_of_other_kinds_are_refused(judge, frames, message):
    with pytest.raises(MotionError, match=message):
        judge(frames)


def test_captions_of_other_worlds_are_refused(seen):
    with pytest.raises(MotionError, match="got 'cat'"):
        score_seen(seen[0], "a red cat")
    assert parse_caption("a red star").main.shape == "star"
