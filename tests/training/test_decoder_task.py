"""The decoder's stage: only the decoder learns, and the checkpoint that it writes differs in that alone."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from motion.checkpoints.stable_diffusion import open_checkpoint
from motion.standalone.demo_files import SHIPPED
from motion.training.decoder_task import LATENT_NOISE, DecoderTask
from motion.training.frames import to_pictures
from motion.training.frozen_checkpoint import load_frozen
from motion.training.gradient_checks import TrainingError
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.shapes_data import draw_frames
from motion.training.shapes_recipe import IMAGE_FILE, IMAGE_NAME
from motion.training.trainer import Trainer
from tests.training.tiny_tasks import quiet

CPU = torch.device("cpu")


@pytest.fixture
def checkpoint(tmp_path):
    """The shipped checkpoint in the place of the image stage's."""
    folder = tmp_path / "image"
    folder.mkdir()
    for path in (SHIPPED / "shapes.safetensors", SHIPPED / "shapes.yaml"):
        shutil.copyfile(path, folder / f"{IMAGE_NAME}{path.suffix}")
    shutil.copytree(SHIPPED / "shapes-text", folder / f"{IMAGE_NAME}-text")
    return folder / IMAGE_FILE


def make_task(checkpoint):
    autoencoder = load_frozen(checkpoint, device=CPU).autoencoder
    return DecoderTask(autoencoder, checkpoint, "sharp", draw_frames, batch_size=2)


def test_only_the_decoder_learns_and_the_rest_of_the_checkpoint_stays(checkpoint, tmp_path):
    task = make_task(checkpoint)
    Trainer(task, quiet(steps=3, learning_rate=1e-3, warmup_steps=0), RunFolder(tmp_path / "run")).run()
    before, after = load_file(checkpoint), load_file(tmp_path / "run" / "sharp.safetensors")
    assert before.keys() == after.keys()
    assert {key: value.dtype for key, value in before.items()} == {key: value.dtype for key, value in after.items()}
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    learned = {key for key in before if key.startswith(("first_stage_model.decoder.", "first_stage_model.post_quant"))}
    assert changed <= learned
    assert len(changed) > 0.9 * len(learned)


def test_written_checkpoint_is_complete(checkpoint, tmp_path):
    task = make_task(checkpoint)
    path, yaml, text = task.export(RunFolder(tmp_path / "run"))
    assert yaml.read_bytes() == checkpoint.with_suffix(".yaml").read_bytes()
    assert {file.name for file in text.iterdir()} == {"config.json", "vocab.json", "merges.txt"}
    with open_checkpoint(path) as file:
        again = file.load_autoencoder(device=CPU, dtype=torch.float32)
    for name, value in task.network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=1e-3, atol=1e-5)


def test_latents_are_the_encoders_with_some_noise(checkpoint, monkeypatch):
    task, seen = make_task(checkpoint), []
    decode = task.network.decode
    monkeypatch.setattr(task.network, "decode", lambda latents: seen.append(latents) or decode(latents))
    for step in range(8):
        task.loss(StepRandom.of(0, step))
    with torch.no_grad():
        clean = [
            task.network.encode(to_pictures(draw_frames(StepRandom.of(0, step).choices, 2))).mode() for step in range(8)
        ]
    clean, noise = torch.cat(clean), torch.cat(seen) - torch.cat(clean)
    assert (noise.std() / clean.std()).item() == pytest.approx(LATENT_NOISE, rel=0.3)
    assert not any(latents.requires_grad for latents in seen)  # the encoder is left out


def test_training_makes_pictures_better(checkpoint, tmp_path):
    """From a decoder that was spoiled: a few steps bring its pictures back near to what they were."""
    task = make_task(checkpoint)
    pictures = to_pictures(draw_frames(np.random.default_rng(5), 8))

    @torch.no_grad()
    def error():
        return (task.network.decode(task.network.encode(pictures).mode()) - pictures).square().mean().item()

    with torch.no_grad():
        task.network.decoder.conv_out.weight.mul_(0.6)
    spoiled = error()
    Trainer(task, quiet(steps=25, learning_rate=1e-3, ema_decay=0.0), RunFolder(tmp_path / "run")).run()
    assert error() < 0.7 * spoiled, (error(), spoiled)


def test_text_folder_that_cannot_be_written_is_one_message(checkpoint, tmp_path):
    task = make_task(checkpoint)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "sharp-text").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match=r"sharp-text must be written to .*run the same command again"):
        task.export(RunFolder(tmp_path / "run"))
