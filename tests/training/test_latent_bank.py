"""Data sets as latents: their way to disk and back, what a draw gives, and when they are encoded anew."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.training.latent_bank import CaptionedClip, LatentBank, decode_latents, encode_clips
from motion.training.run_folder import RunFolder
from motion.training.shapes_data import clips
from tests.networks import randomise
from tests.training.tiny_tasks import make_bank

SCALE = 0.18215


@pytest.fixture(scope="module")
def autoencoder():
    config = AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
    return randomise(AutoencoderKL(config), 0)


def make_clips(count, frames=5, height=16, width=24):
    rng = np.random.default_rng(0)
    return [
        CaptionedClip(rng.integers(0, 256, (frames, height, width, 3), np.uint8), (f"clip {index}",))
        for index in range(count)
    ]


def test_clips_become_latents_and_come_back(autoencoder):
    made = make_clips(3)
    bank = encode_clips(autoencoder, made, SCALE)
    assert bank.latents.shape == (3, 5, 4, 2, 3)
    assert bank.latents.dtype == torch.float32
    assert len(bank) == 3
    pictures = torch.from_numpy(made[1].frames).permute(0, 3, 1, 2) / 127.5 - 1
    expected = autoencoder.encode(pictures).mode() * SCALE
    torch.testing.assert_close(bank.latents[1], expected, rtol=1e-4, atol=1e-5)
    frames = decode_latents(autoencoder, bank.latents[1], SCALE)
    assert (frames.shape, frames.dtype) == ((5, 16, 24, 3), np.uint8)
    decoded = autoencoder.decode(expected / SCALE).permute(0, 2, 3, 1)
    wanted = ((decoded + 1) * 127.5).clamp(0, 255).numpy()
    assert np.abs(frames - wanted).max() < 0.51


def test_saved_bank_is_read_back_where_its_key_fits(tmp_path):
    folder, bank = RunFolder(tmp_path), make_bank()
    bank.save(folder, "latents.safetensors", "key 1")
    path = tmp_path / "latents.safetensors"
    again = LatentBank.load(path, "key 1")
    assert torch.equal(again.latents, bank.latents)
    assert again.captions == bank.captions
    assert LatentBank.load(path, "key 2") is None


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "without metadata"])
def test_damaged_bank_is_encoded_anew(tmp_path, damage):
    bank, path = make_bank(), tmp_path / "latents.safetensors"
    bank.save(RunFolder(tmp_path), path.name, "key")
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "without metadata":
        save_file({"latents": bank.latents}, path)
    else:
        path.write_bytes(content[:-8] if damage == "cut" else b"")
    assert LatentBank.load(path, "key") is None


def test_draw_gives_each_clip_at_most_once_and_one_of_its_captions():
    bank = make_bank(count=6)
    latents, captions = bank.draw(np.random.default_rng(0), 6, 0.0)
    found = [next(i for i in range(6) if torch.equal(latents[row], bank.latents[i])) for row in range(6)]
    assert sorted(found) == list(range(6))
    assert all(caption in bank.captions[index] for index, caption in zip(found, captions, strict=True))
    latents, captions = bank.draw(np.random.default_rng(0), 15, 0.0)
    assert (len(latents), len(captions)) == (15, 15)


def test_captions_are_left_out_as_often_as_asked():
    bank, rng = make_bank(count=6), np.random.default_rng(0)
    captions = Counter(caption for _ in range(300) for caption in bank.draw(rng, 6, 0.25)[1])
    assert captions[""] / captions.total() == pytest.approx(0.25, abs=0.03)
    kept = [count for caption, count in captions.items() if caption]
    assert len(kept) == 3
    assert max(kept) < 1.25 * min(kept)
    assert bank.draw(rng, 6, 1.0)[1] == [""] * 6
    assert set(bank.all_captions) == {"", *captions}


def test_shapes_world_makes_the_same_clips_each_time(autoencoder):
    first, second = (encode_clips(autoencoder, clips(3, 2), SCALE) for _ in range(2))
    assert first.latents.shape[0] == 2
    assert first.latents.shape[2:] == (4, 8, 8)
    assert torch.equal(first.latents, second.latents)
    assert first.captions == second.captions
    assert all(captions and all(captions) for captions in first.captions)
