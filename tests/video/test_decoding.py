"""Chunks and tiles of a decoder: what comes out is what comes out at once, and running out of memory ends in less."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.video.decoding import DecodePlan, _starts, decode_tiled, decoded_in_chunks, is_out_of_memory
from tests.networks import randomise

LATENTS = torch.randn(5, 4, 32, 48, generator=torch.Generator().manual_seed(3))


class LocalDecoder(nn.Module):
    """Eight times the size, without norms; a pixel depends on latents up to 2 pixels away."""

    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding=1), nn.Upsample(scale_factor=8), nn.Conv2d(8, 3, 5, padding=2)
        )
        randomise(self, seed=4)

    def forward(self, z):
        return self.convs(z)


@pytest.fixture(scope="module")
def autoencoder():
    model = AutoencoderKL(AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1))
    return randomise(model, seed=5).eval().requires_grad_(False)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


class Limited:
    """A decoder on a device that holds so many latent pixels."""

    def __init__(self, decode, latent_pixels):
        self.decode, self.limit, self.shapes = decode, latent_pixels, []

    def __call__(self, z):
        self.shapes.append(tuple(z.shape))
        if z.shape[0] * z.shape[2] * z.shape[3] > self.limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.decode(z)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 64])
def test_chunks_are_the_whole(autoencoder, chunk_size):
    whole = autoencoder.decode(LATENTS)
    chunks = list(decoded_in_chunks(LATENTS, autoencoder.decode, DecodePlan(chunk_size)))
    assert max(map(len, chunks)) == min(chunk_size, 5)
    assert torch.allclose(torch.stack([p for chunk in chunks for p in chunk]), whole, atol=1e-5)


def test_one_at_a_time_is_to_the_bit_what_one_at_a_time_is(autoencoder):
    chunks = decoded_in_chunks(LATENTS, autoencoder.decode, DecodePlan(1))
    assert all(torch.equal(chunk[0], autoencoder.decode(z[None])[0]) for chunk, z in zip(chunks, LATENTS, strict=True))


def test_out_of_memory_halves_the_chunk_says_so_and_goes_on(autoencoder, caplog):
    decode = Limited(autoencoder.decode, 2 * 32 * 48)
    chunks = list(decoded_in_chunks(LATENTS, decode, DecodePlan(4)))
    assert [shape[0] for shape in decode.shapes] == [4, 2, 2, 1]
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    assert torch.allclose(torch.stack([p for chunk in chunks for p in chunk]), autoencoder.decode(LATENTS), atol=1e-5)
    assert "ran out of memory, going on with DecodePlan(chunk_size=2" in caplog.text


def test_from_one_frame_on_memory_is_saved_by_tiles():
    local = LocalDecoder()
    decode = Limited(local, 24 * 24)
    frames = [p for chunk in decoded_in_chunks(LATENTS, decode, DecodePlan(2)) for p in chunk]
    assert {shape[2:] for shape in decode.shapes[2:]} == {(24, 24)}
    assert torch.allclose(torch.stack(frames), local(LATENTS), atol=1e-5)


def test_what_fits_in_no_way_and_other_errors_pass():
    with pytest.raises(RuntimeError, match="out of memory"):
        list(decoded_in_chunks(LATENTS, Limited(LocalDecoder(), 8 * 8), DecodePlan(1)))

    def broken(z):
        raise RuntimeError("sizes of tensors must match")

    with pytest.raises(RuntimeError, match="sizes of tensors"):
        list(decoded_in_chunks(LATENTS, broken, DecodePlan(4)))
    assert not is_out_of_memory(RuntimeError("sizes of tensors must match"))
    assert is_out_of_memory(
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")
    )


@given(st.integers(1, 300), st.integers(16, 96))
def test_tiles_cover_a_side_and_share_a_quarter(side, tile_size):
    starts = _starts(side, tile_size, tile_size // 4)
    assert starts[0] == 0
    assert starts[-1] + tile_size >= side
    assert starts[-1] <= max(0, side - tile_size)
    assert all(later - earlier <= tile_size - tile_size // 4 for earlier, later in itertools.pairwise(starts))


@pytest.mark.parametrize("tile_size", [24, 32])
def test_tiles_of_a_decoder_that_looks_no_further_than_their_margin_are_the_whole(tile_size):
    local = LocalDecoder()
    tiled, whole = decode_tiled(LATENTS[0], local, tile_size), local(LATENTS[:1])[0]
    assert torch.allclose(tiled, whole, atol=1e-5)


def test_the_real_decoder_has_no_seams_in_tiles_and_one_without_overlap(autoencoder):
    """A seam is a jump between neighbouring columns that the whole picture hasn't got there."""
    smooth = torch.nn.functional.interpolate(LATENTS[:1, :, :4, :6], size=(32, 48), mode="bicubic")[0]
    whole = autoencoder.decode(smooth[None])[0]
    tiled = decode_tiled(smooth, autoencoder.decode, 24)  # tiles begin at columns 0, 96 and 192
    cut = torch.cat([autoencoder.decode(smooth[None, :, :, left : left + 24])[0] for left in (0, 24)], dim=2)
    steps, hard = ((picture.diff(dim=2) - whole.diff(dim=2)).abs().mean(dim=(0, 1)) for picture in (tiled, cut))
    outside = torch.cat([steps[:96], steps[288:]])
    assert steps[96:288].max() <= 1.1 * outside.max()
    assert hard[191] > 2 * outside.max()
    # Random weights; norms and attention see a tile in place of the whole.
    assert (tiled - whole).abs().mean() < 0.2 * whole.std()


def test_the_plan_shrinks_until_the_estimate_fits():
    size, frame = (64, 64), DecodePlan(1).needed_bytes((64, 64), 4)
    assert frame == 768 * 2**20
    assert DecodePlan.fitting(8, size, 4, None) == DecodePlan(8)
    assert DecodePlan.fitting(8, size, 4, 8 * frame) == DecodePlan(8)
    assert DecodePlan.fitting(8, size, 4, 3 * frame) == DecodePlan(2)
    assert DecodePlan.fitting(8, size, 4, frame - 1) == DecodePlan(1, 32)
    assert DecodePlan.fitting(8, size, 4, 0) == DecodePlan(1, 16)
    assert DecodePlan.fitting(1, (8, 8), 4, 0) == DecodePlan(1)
