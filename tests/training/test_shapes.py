"""The shapes world: the same seed gives the same bytes, what is drawn is what is said, and the split holds."""

import hashlib
import itertools
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from motion.errors import MotionError
from motion.training.shapes import (
    BACKGROUNDS,
    CAMERAS,
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    SHAPES,
    SIZE,
    WORDS,
    Asked,
    AskedShape,
    caption,
    describe,
    direction_prompts,
    is_held_out,
    parse_caption,
    render,
    sample_asked,
    sample_scene,
    scene_of,
    scene_rng,
    shows_held_out,
    tracks,
)
from motion.training.shapes_drawing import EXTENT, SHAPE_RGB

COMBINATIONS = list(itertools.product(COLOURS, SHAPES, DIRECTIONS))


def test_the_same_seed_gives_the_same_bytes_everywhere():
    """The sum was taken when the world was made; another one means that shipped models saw another world."""
    digest = hashlib.sha256()
    for index in range(40):
        scene = sample_scene(scene_rng(3, index), num_frames=16 + index % 17)
        digest.update(caption(scene, scene_rng(4, index)).encode())
        digest.update(render(scene).tobytes())
    assert digest.hexdigest() == "26763b41b7125ccecfa33ff8a384dc50efb3a9596df0df60a8f42afbe08fe6ed"


def test_clips_are_rgb_frames_of_64_pixels():
    frames = render(sample_scene(scene_rng(0), num_frames=24))
    assert (frames.dtype, frames.shape) == (np.uint8, (24, SIZE, SIZE, 3))


def test_a_quarter_of_the_combinations_is_held_out_evenly():
    held_out = [combination for combination in COMBINATIONS if is_held_out(*combination)]
    assert len(held_out) * 4 == len(COMBINATIONS)
    assert set(Counter(colour for colour, _, _ in held_out).values()) == {4}
    assert set(Counter(shape for _, shape, _ in held_out).values()) == {6}
    assert set(Counter(direction for _, _, direction in held_out).values()) == {6}
    trained = [combination for combination in COMBINATIONS if not is_held_out(*combination)]
    for first, second, names in (
        (0, 1, (COLOURS, SHAPES)),
        (0, 2, (COLOURS, DIRECTIONS)),
        (1, 2, (SHAPES, DIRECTIONS)),
    ):
        assert {(entry[first], entry[second]) for entry in trained} == set(itertools.product(*names))


def test_training_never_shows_a_held_out_combination_and_shows_all_others():
    seen = set()
    for index in range(2500):
        scene = sample_scene(scene_rng(5, index))
        for body, track in zip(scene.bodies, tracks(scene), strict=True):
            if scene.camera.startswith("zooming"):
                assert np.abs(track.centre - track.centre[0]).max() < 3.5
                continue
            steps = np.diff(track.centre, axis=0)
            shown = {"left": steps[:, 0] < 0, "right": steps[:, 0] > 0, "up": steps[:, 1] < 0, "down": steps[:, 1] > 0}
            seen |= {(body.asked.colour, body.asked.shape, name) for name, where in shown.items() if where.any()}
    assert seen == {combination for combination in COMBINATIONS if not is_held_out(*combination)}


def test_the_held_out_split_shows_held_out_combinations_only():
    assert all(shows_held_out(sample_asked(scene_rng(6, index), split="held out")) for index in range(200))


def test_prompts_for_the_measures_cover_their_split_evenly():
    for held_out, count in ((True, 24), (False, 72), (None, 96)):
        prompts = list(direction_prompts(held_out))
        assert len(prompts) == len(set(prompts))
        heads = {(asked.main.colour, asked.main.shape, asked.main.direction) for asked in prompts[: count - 4]}
        assert len(heads) >= count - 5
        assert all(asked.background != asked.main.colour for asked in prompts)
        if held_out is not None:
            assert all(
                is_held_out(asked.main.colour, asked.main.shape, asked.main.direction) == held_out for asked in prompts
            )


def test_captions_can_be_read_back():
    spoken = set()
    for index in range(1000):
        asked = sample_asked(scene_rng(7, index), split="all")
        text, varied = describe(asked), describe(asked, scene_rng(8, index))
        assert parse_caption(text) == asked
        assert parse_caption(varied) in (asked, replace(asked, background=""))
        spoken |= set(re.findall(r"\w+|,", f"{text} {varied}"))
    assert spoken == set(WORDS)


def test_captions_read_as_in_the_issue():
    moving = Asked((AskedShape("red", "circle", "moving right"),), "blue")
    assert describe(moving) == "a red circle moving right on a blue background"
    turning = Asked((AskedShape("green", "star", "turning"),), "black", "panning left")
    assert describe(turning) == "a green star turning on a black background, camera panning left"
    assert describe(turning.without_camera()) == "a green star turning on a black background"
    assert describe(turning.at_rest()) == "a green star on a black background"
    two = Asked((AskedShape("red", "circle", "moving right"), AskedShape("yellow", "square")), "grey")
    assert describe(two) == "a red circle moving right and a yellow square on a grey background"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a red cat on a blue background", "got 'cat'"),
        ("a red moving right", "one or two shapes"),
        ("a red circle and a blue star and a green star", "got 3"),
    ],
)
def test_captions_of_other_worlds_are_refused(text, message):
    with pytest.raises(MotionError, match=message):
        parse_caption(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "`split` must be one of"),
        ({"size": "big"}, "Parts of a scene are"),
        ({"colour": "pink"}, "`colour` must be one of"),
        ({"shape": "circle", "motion": "turning"}, "No scene of the split 'train'"),
        ({"colour": "red", "shape": "circle", "motion": "moving left"}, "No scene of the split 'train'"),
        ({"num_frames": 1}, "at least 2 frames"),
    ],
)
def test_scenes_that_there_are_not_are_refused(arguments, message):
    with pytest.raises(MotionError, match=message):
        sample_scene(scene_rng(0), **arguments)


@pytest.mark.parametrize("num_frames", [16, 32])
@pytest.mark.parametrize("camera", CAMERAS)
def test_shapes_stay_whole_inside_the_frame_and_apart(camera, num_frames):
    for motion, two_shapes, index in itertools.product(MOTIONS, (False, True), range(2)):
        rng = scene_rng(9, index)
        fixed = {"motion": motion, "camera": camera, "shape": "star"}
        scene = sample_scene(rng, num_frames=num_frames, split="all", two_shapes=two_shapes, **fixed)
        found = [
            (track.centre, EXTENT[body.asked.shape] * track.size)
            for body, track in zip(scene.bodies, tracks(scene), strict=True)
        ]
        for centre, reach in found:
            assert (centre - reach[:, None]).min() > 0
            assert (centre + reach[:, None]).max() < SIZE
        if two_shapes:
            assert (np.linalg.norm(found[0][0] - found[1][0], axis=1) > found[0][1] + found[1][1]).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_covers_its_area_at_its_place(shape):
    areas = {"circle": np.pi, "square": 2 * 1.2**2, "triangle": 0.75 * 3**0.5 * 1.35**2}
    areas["star"] = 10 * 0.5 * 1.35**2 * 0.48 * np.sin(np.pi / 5)
    scene = scene_of(Asked((AskedShape("white", shape),), "black"), scene_rng(10))
    body = replace(scene.bodies[0], x=30.3, y=33.8, size=10.0)
    shown = render(replace(scene, bodies=(body,)))[0].astype(float)
    empty = render(replace(scene, bodies=()))[0].astype(float)
    covered = ((shown - empty) / (np.asarray(SHAPE_RGB["white"]) - empty)).mean(axis=-1)
    assert covered.sum() == pytest.approx(areas[shape] * 100, rel=0.02)
    middle = np.asarray([covered.sum(axis=0), covered.sum(axis=1)]) @ (np.arange(SIZE) + 0.5) / covered.sum()
    assert middle == pytest.approx([30.3, 33.8], abs=0.15)


def test_scenes_without_a_background_in_the_caption_get_one():
    asked = parse_caption("a blue star moving up")
    grounds = {scene_of(asked, scene_rng(11, index)).background for index in range(40)}
    assert grounds == set(BACKGROUNDS) - {"blue"}
