"""The autoencoder's stage: its latents as Stable Diffusion's are, its pictures, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.training.autoencoder_task import (
    SCALE_FACTOR,
    AutoencoderTask,
    chroma_weighted,
    standardise_latents,
)
from motion.training.frames import to_frames, to_pictures
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.shapes_data import draw_frames
from motion.training.trainer import Trainer
from tests.networks import randomise
from tests.training.tiny_tasks import quiet

CONFIG = AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=0)


def make_pictures(count=48, side=32):
    """Smooth pictures of one colour each, with a gradient across."""
    rng = np.random.default_rng(0)
    colours = rng.uniform(-0.8, 0.8, (count, 3, 1, 1))
    slopes = rng.uniform(-0.2, 0.2, (count, 3, 1, 1)) * np.linspace(-1, 1, side)
    return torch.from_numpy(np.broadcast_to(colours + slopes, (count, 3, side, side)).copy()).float()


@pytest.fixture
def network():
    network = randomise(AutoencoderKL(CONFIG), 0)
    network.quant_conv.bias.data[:4] += torch.tensor([3.0, -2.0, 0.0, 5.0])
    network.quant_conv.weight.data[:4] *= torch.tensor([5.0, 1.0, 0.2, 2.0])[:, None, None, None]
    return network


@torch.no_grad()
def test_latents_get_mean_zero_and_the_deviation_of_stable_diffusion(network):
    pictures = make_pictures()
    before = network.encode(pictures)
    decoded = network.decode(before.mode())
    standardise_latents(network, pictures)
    after = network.encode(pictures)
    mean, std = after.mean.mean(dim=(0, 2, 3)), (after.mean * SCALE_FACTOR).std(dim=(0, 2, 3))
    torch.testing.assert_close(mean * SCALE_FACTOR, torch.zeros(4), rtol=0, atol=1e-3)
    torch.testing.assert_close(std, torch.ones(4), rtol=1e-3, atol=0)
    torch.testing.assert_close(network.decode(after.mode()), decoded, rtol=1e-3, atol=1e-3)
    # Noise in the latents means the same to the decoder as before.
    spread = before.mean.std(dim=(0, 2, 3)) / after.mean.std(dim=(0, 2, 3))
    torch.testing.assert_close(after.std * spread[:, None, None], before.std, rtol=1e-3, atol=1e-5)


def test_training_brings_the_loss_down_and_the_file_has_scaled_latents(tmp_path):
    task, losses = AutoencoderTask(CONFIG, draw_frames, batch_size=4), []
    settings = quiet(steps=12, learning_rate=2e-3, warmup_steps=1, sample_every=12, ema_decay=0.5)
    Trainer(task, settings, RunFolder(tmp_path), on_progress=lambda p: losses.append(p.loss)).run()
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    network = AutoencoderKL(CONFIG)
    network.load_state_dict(load_file(tmp_path / "autoencoder.safetensors"))
    with torch.no_grad():
        latents = network.encode(to_pictures(draw_frames(np.random.default_rng(5), 32))).mode() * SCALE_FACTOR
    assert latents.std().item() == pytest.approx(1.0, abs=0.3)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step-000012.png"]


def test_later_run_begins_with_the_weights_of_the_earlier(tmp_path):
    first = AutoencoderTask(CONFIG, draw_frames, seed=3)
    (path,) = first.export(RunFolder(tmp_path))
    second = AutoencoderTask(CONFIG, draw_frames, seed=4, start=path)
    exported = load_file(path)
    assert all(torch.equal(value, exported[key]) for key, value in second.network.state_dict().items())


def test_loss_depends_on_its_random_numbers_alone():
    task = AutoencoderTask(CONFIG, draw_frames, batch_size=4)
    losses = [task.loss(StepRandom.of(*key)).item() for key in ((0, 1), (0, 1), (0, 2))]
    assert losses[0] == losses[1] != losses[2]


def test_batches_are_mostly_crops():
    task = AutoencoderTask(CONFIG, draw_frames, batch_size=4)
    shapes = []
    task.network.encoder.register_forward_pre_hook(lambda encoder, args: shapes.append(tuple(args[0].shape)))
    with torch.no_grad():
        for step in range(40):
            task.loss(StepRandom.of(0, step))
    assert set(shapes) == {(4, 3, 32, 32), (1, 3, 64, 64)}
    assert shapes.count((4, 3, 32, 32)) == pytest.approx(30, abs=8)


def test_chroma_weighs_and_grey_does_not():
    grey, red = torch.full((1, 3, 2, 2), 0.3), torch.tensor([1.0, 0, 0])[None, :, None, None]
    torch.testing.assert_close(chroma_weighted(grey, 3.0), grey)
    luminance = 0.299
    expected = torch.tensor([luminance + 3 * (1 - luminance), -2 * luminance, -2 * luminance])[None, :, None, None]
    torch.testing.assert_close(chroma_weighted(red, 3.0), expected)


def test_frames_and_pictures_are_one_another():
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    pictures = to_pictures(frames)
    assert (pictures.shape, pictures.min().item(), pictures.max().item()) == ((1, 3, 16, 16), -1.0, 1.0)
    assert np.array_equal(to_frames(pictures), frames)
    assert to_frames(torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)).tolist()[0][0][0] == [0, 0, 0]
