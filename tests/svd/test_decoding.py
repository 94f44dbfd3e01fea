import pytest
import torch

from motion.errors import SettingsError
from motion.svd.decoding import decode_in_chunks
from tests.goldens import read_golden
from tests.svd_networks import tiny_decoder


@pytest.fixture(scope="module")
def decoder():
    return tiny_decoder()


def decode(decoder, latents, chunk_size, overlap):
    return torch.cat(list(decode_in_chunks(decoder, latents, chunk_size, overlap)))


@pytest.mark.parametrize("chunk_size", [2, 5])
def test_without_overlap_it_is_the_original(decoder, chunk_size):
    golden = read_golden("svd_vae_tiny")
    expected = (golden[f"out.decode_first_stage_chunk{chunk_size}"] / 2 + 0.5).clamp(0, 1)
    result = decode(decoder, golden["in.z5"], chunk_size, overlap=0)
    torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)


class Recorder:
    """Decodes a frame to its number, and keeps which frames each pass saw."""

    dtype = torch.float32

    def __init__(self):
        self.seen = []

    def decode(self, z):
        self.seen.append(z.flatten().tolist())
        return z


@pytest.mark.parametrize(
    ("num_frames", "chunk_size", "overlap", "passes"),
    [
        (5, 2, 1, [[0, 1, 2], [1, 2, 3, 4], [3, 4]]),
        (5, 5, 3, [[0, 1, 2, 3, 4]]),
        (3, 8, 2, [[0, 1, 2]]),
        (3, 1, 0, [[0], [1], [2]]),
        (4, 2, 9, [[0, 1, 2, 3], [0, 1, 2, 3]]),
    ],
)
def test_chunks_see_their_neighbours_and_give_each_frame_once(num_frames, chunk_size, overlap, passes):
    recorder = Recorder()
    numbers = torch.arange(num_frames, dtype=torch.float32).reshape(-1, 1, 1, 1)
    result = decode(recorder, numbers, chunk_size, overlap)
    assert recorder.seen == passes
    assert torch.equal(result, (numbers / 2 + 0.5).clamp(0, 1))


def test_overlap_brings_chunks_nearer_to_the_whole_clip(decoder):
    latents = read_golden("svd_vae_tiny")["in.z5"]
    whole = decode(decoder, latents, 5, 0)
    errors = [(decode(decoder, latents, 2, overlap) - whole).square().mean() for overlap in (0, 1, 2)]
    assert errors[2] < errors[0]


def test_chunks_that_can_not_be(decoder):
    with pytest.raises(SettingsError, match="`decode_chunk_size` must be at least 1"):
        decode(decoder, torch.zeros(2, 4, 4, 4), 0, 1)
    with pytest.raises(SettingsError, match="`decode_overlap` at least 0, got 1 and -1"):
        decode(decoder, torch.zeros(2, 4, 4, 4), 1, -1)
