"""The folder in which the stages of the shapes models follow one another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from motion.errors import MotionError
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.training.latent_bank import CaptionedClip
from motion.training.shapes_recipe import STAGES
from motion.training.shapes_stages import SHAPES_TASKS, ShapesFolder
from tests.networks import randomise


def test_data_set_is_encoded_once_for_one_autoencoder_and_one_world(tmp_path):
    folder, taken = ShapesFolder(tmp_path), []
    autoencoder = randomise(AutoencoderKL(AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=0)), 0)

    def drawn(grey=90):
        for index in range(2):
            taken.append(index)
            yield CaptionedClip(np.full((2, 16, 16, 3), grey * (index + 1), np.uint8), (f"clip {index}",))

    banks = [folder.bank("pan-left", autoencoder, drawn()) for _ in range(2)]
    assert taken == [0, 1, 0]  # the first clip tells whether the world is still the same
    assert torch.equal(banks[0].latents, banks[1].latents)
    folder.bank("zoom-in", autoencoder, drawn())  # another stage
    assert len(taken) == 5
    assert not torch.equal(folder.bank("zoom-in", autoencoder, drawn(60)).latents, banks[0].latents)
    with torch.no_grad():
        autoencoder.quant_conv.bias.add_(1.0)
    assert not torch.equal(folder.bank("pan-left", autoencoder, drawn()).latents, banks[0].latents)
    assert len(taken) == 9


@pytest.mark.parametrize("stage", [name for name, recipe in STAGES.items() if recipe.needs])
def test_stage_without_the_earlier_ones_says_which_to_run(tmp_path, stage):
    first = STAGES[stage].needs[0]
    with pytest.raises(MotionError, match=rf"The stage {first} must have made .*Run that stage first"):
        SHAPES_TASKS[stage](ShapesFolder(tmp_path))


def test_stages_come_after_what_they_need():
    names = list(STAGES)
    assert names == list(SHAPES_TASKS)
    assert all(names.index(needed) < names.index(name) for name in names for needed in STAGES[name].needs)
