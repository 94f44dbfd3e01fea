"""Frames that share noise: windows that shuffle or repeat the first one's."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion.noise.frame_sources import repeated_sources, shuffled_sources

GOLDENS = Path(__file__).resolve().parents[1] / "data" / "goldens"


@st.composite
def clips(draw):
    """(frames, window length, overlap)."""
    length = draw(st.integers(1, 64))
    return draw(st.integers(1, 400)), length, draw(st.integers(0, length - 1))


@given(clips(), st.integers(0, 2**32 - 1))
def test_every_window_is_a_permutation_of_the_first(clip, seed):
    num_frames, length, overlap = clip
    sources = shuffled_sources(num_frames, length, overlap, seed=seed)
    assert len(sources) == num_frames
    assert sources[:length] == tuple(range(min(num_frames, length)))
    for start in range(0, num_frames - length + 1, length - overlap):
        assert sorted(sources[start : start + length]) == list(range(length))
    assert sources == shuffled_sources(num_frames, length, overlap, seed=seed)


@given(clips(), st.integers(0, 2**32 - 1))
def test_no_noise_is_left_out_and_none_comes_twice_in_a_hop(clip, seed):
    num_frames, length, overlap = clip
    counts = Counter(shuffled_sources(num_frames, length, overlap, seed=seed))
    assert set(counts) == set(range(min(num_frames, length)))
    assert max(counts.values()) <= num_frames / (length - overlap) + 1


@given(clips(), st.integers(0, 2**32 - 1))
def test_frames_whose_noise_is_shared_are_their_own_source(clip, seed):
    sources = shuffled_sources(*clip, seed=seed)
    assert all(sources[source] == source for source in sources)


def test_another_seed_shuffles_in_another_way():
    assert len({shuffled_sources(64, 16, 4, seed=seed) for seed in range(20)}) == 20


@given(clips())
def test_repeated_noise(clip):
    num_frames, length, _ = clip
    sources = repeated_sources(num_frames, length)
    assert all(source == frame % length for frame, source in enumerate(sources))


def golden(program):
    with gzip.open(GOLDENS / "freenoise.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)[program]["rows"]


def test_equals_animatediff_evolved():
    rows = golden("ade")
    for num_frames, length, overlap, kind, seed, expected in rows:
        ours = (
            shuffled_sources(num_frames, length, overlap, seed=seed)
            if kind == "freenoise"
            else repeated_sources(num_frames, length)
        )
        assert list(ours) == expected, (num_frames, length, overlap, kind)
    assert len(rows) > 50


def test_equals_diffusers_where_the_clip_ends_with_a_group():
    rows = [row for row in golden("diffusers") if row[3] == "shuffle_context" and (row[0] - row[1]) % row[2] == 0]
    for num_frames, length, hop, _, seed, expected in rows:
        assert list(shuffled_sources(num_frames, length, length - hop, seed=seed)) == expected
    assert len(rows) > 10


@pytest.mark.parametrize("overlap", [-1, 16, 20])
def test_refuses_an_overlap_that_is_no_part_of_the_window(overlap):
    with pytest.raises(ValueError, match=f"from 0 to 15, got {overlap}"):
        shuffled_sources(32, 16, overlap, seed=1)
