"""The text encoder that learns to tell the words it has read."""

from __future__ import annotations

import pytest
import torch

from motion.training.run_folder import RunFolder
from motion.training.settings import TrainerSettings
from motion.training.text_stage import FILE_NAME, TextTask, load_encoder, new_encoder
from motion.training.trainer import Trainer
from tests.text_folders import WORDS, own_text_config

CAPTIONS = ("a red circle", "a circle moving left", "red and left", "left and red", "a circle on a red background")
SETTINGS = TrainerSettings(
    steps=120, learning_rate=3e-3, warmup_steps=10, weight_decay=0.0, ema_decay=0.9, sample_every=0
)


def make_task():
    return TextTask(own_text_config(), WORDS, CAPTIONS, batch_size=8, seed=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the task, the folder of its run)."""
    folder, task = RunFolder(tmp_path_factory.mktemp("text")), make_task()
    assert Trainer(task, SETTINGS, folder).run()
    return task, folder


def test_every_caption_can_be_read_from_its_last_token(trained):
    assert make_task().share_of_captions_read() == 0
    assert trained[0].share_of_captions_read() == 1


def test_the_encoder_is_what_the_stage_writes(trained):
    _, folder = trained
    encoder = load_encoder(folder.path / FILE_NAME, own_text_config())
    fresh = new_encoder(own_text_config(), 1)
    tokens = make_task()._tokens
    with torch.no_grad():
        told, untold = (network(tokens)[:, -1] for network in (encoder, fresh))
    assert torch.cdist(told, told).fill_diagonal_(9).min() > 2 * torch.cdist(untold, untold).fill_diagonal_(9).min()


def test_labels_are_the_words_and_pairs_up_to_a_token():
    task = make_task()
    tokens = task._tokens
    found = task._labels.of(tokens)
    assert found.shape == (len(CAPTIONS), 77, len(task._labels))
    assert (found.diff(dim=1) >= 0).all()
    row = sorted(CAPTIONS).index("a red circle")
    # start; "a"; "red" and "a red"; "circle" and "red circle"; the end
    assert found[row].sum(-1)[:6].tolist() == [0, 1, 3, 5, 5, 5]
    one, other = (found[sorted(CAPTIONS).index(text), -1] for text in ("red and left", "left and red"))
    assert one.sum() == other.sum() == 5
    assert not torch.equal(one, other)  # the same words, other pairs


def test_a_run_with_other_captions_is_another_run(trained):
    task = TextTask(own_text_config(), WORDS, CAPTIONS[:2], batch_size=8, seed=1)
    assert task.describe() != trained[0].describe()
