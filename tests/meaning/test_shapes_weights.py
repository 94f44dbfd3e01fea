"""What the shipped weights show is what was asked: a few seeds of `python -m benchmarks.shapes`, with looser bounds."""

from __future__ import annotations

import pytest

from benchmarks.shapes import SHIPPED
from benchmarks.shapes_clips import Case, ClipMaker, Sampling, ShapesWeights
from benchmarks.shapes_parts import mean_jump, moving_case, picture_rows, scored, shares
from motion.standalone import Pipeline
from motion.training.shapes_recipe import CHECKPOINT_FILE

SAMPLING = Sampling(sampler="Euler", steps=20, cfg_scale=5.0, denoising_strength=0.75)
MOST_BYTES = 15_000_000


@pytest.fixture(scope="module")
def maker(tmp_path_factory):
    """Renders on the shipped weights; a clip that two tests look at is made once."""
    weights, data_dir = ShapesWeights(SHIPPED), tmp_path_factory.mktemp("shapes-host")
    with Pipeline.from_files(weights.find(CHECKPOINT_FILE), precision="fp32", data_dir=data_dir) as pipeline:
        yield ClipMaker(pipeline, weights, SAMPLING)


def moving(count, split="train", module="v3"):
    return [moving_case(seed, split, module, f"{module}-{split}") for seed in range(count)]


def test_the_weights_are_small():
    assert sum(path.stat().st_size for path in SHIPPED.rglob("*") if path.is_file()) <= MOST_BYTES


@pytest.mark.parametrize(("module", "split", "count"), [("v3", "train", 8), ("v3", "held out", 4), ("v2", "train", 4)])
def test_clips_show_what_the_caption_says(maker, module, split, count):
    found = shares(scored(maker, moving(count, split, module)))
    assert min(found["colour"], found["shape"], found["direction"]) >= 0.75, found


def test_frames_are_unrelated_without_the_module(maker):
    cases = moving(3)
    alone = [Case("alone", case.seed, case.caption, "") for case in cases]
    assert mean_jump(maker.clips(alone)) > 4 * mean_jump(maker.clips(cases))


def test_a_clip_keeps_the_shape_and_colour_of_its_picture(maker):
    kept = next(row.value for row in picture_rows(maker, 4) if row.key == "img2img")
    assert kept >= 0.75
