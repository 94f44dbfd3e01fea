"""Samples of a run's present state, and the captions' way into the UNet."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from motion.injection.beta_schedule import alphas_cumprod
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.training.preview import Preview, draw_sheet, sample_latents
from motion.training.shapes_recipe import MOTION_SCHEDULE
from motion.training.text import CachedContexts
from tests.networks import make_unet, randomise
from tests.training.tiny_tasks import CAPTIONS, FRAMES, UNET, make_contexts

PREVIEW = Preview(CAPTIONS[:2], FRAMES, (4, 4), MOTION_SCHEDULE, steps=7, guidance_scale=3.0, columns=4)


class KnowsItsTarget(nn.Module):
    """Predicts the noise that leads to a constant picture, one for the empty caption and one for all others."""

    def __init__(self, empty):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.empty = empty
        self.timesteps = []

    def forward(self, x, timesteps, context):
        self.timesteps.append(timesteps[0].item())
        alphas = alphas_cumprod(MOTION_SCHEDULE)[timesteps][:, None, None, None]
        is_empty = (context == self.empty).flatten(1).all(1)
        target = torch.where(is_empty, 0.25, 1.0)[:, None, None, None]
        return (x - alphas.sqrt() * target) / (1 - alphas).sqrt()


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_sampler_arrives_at_what_is_predicted(guidance_scale):
    contexts = CachedContexts(make_contexts(), ["", *CAPTIONS])
    network = KnowsItsTarget(contexts.contexts([""]))
    preview = dataclasses.replace(PREVIEW, guidance_scale=guidance_scale)
    latents = sample_latents(network, contexts, preview, CAPTIONS[:2])
    assert latents.shape == (2 * FRAMES, 4, 4, 4)
    expected = 0.25 + guidance_scale * (1.0 - 0.25)
    torch.testing.assert_close(latents, torch.full_like(latents, expected), rtol=1e-3, atol=1e-3)
    assert network.timesteps[0] == 999
    assert network.timesteps == sorted(set(network.timesteps), reverse=True)
    assert len(network.timesteps) == preview.steps


def test_samples_depend_on_seed_and_caption():
    unet, contexts = make_unet(config=UNET), make_contexts()

    def sample(caption=CAPTIONS[0], seed=0):
        preview = dataclasses.replace(PREVIEW, seed=seed, steps=2)
        return sample_latents(unet, contexts, preview, [caption])

    assert torch.equal(sample(), sample())
    assert not torch.allclose(sample(), sample(seed=1), atol=1e-2)
    assert not torch.allclose(sample(), sample(caption=CAPTIONS[1]), atol=1e-5)


def test_sheet_has_a_row_of_frames_for_each_caption():
    autoencoder = randomise(AutoencoderKL(AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=0)), 1)
    contexts = CachedContexts(make_contexts(), ["", *CAPTIONS])
    sizes = []
    for captions, columns in ((CAPTIONS[:1], 2), (CAPTIONS[:3], 2), (CAPTIONS[:3], 1)):
        preview = dataclasses.replace(PREVIEW, captions=captions, columns=columns, steps=1)
        sizes.append(draw_sheet(make_unet(config=UNET), contexts, autoencoder, preview, 0.18215).size)
    (width, height), (same_width, three_rows), (narrow, same_rows) = sizes
    assert width == same_width > 1.8 * narrow
    assert three_rows == same_rows > 2.5 * height


def test_cached_contexts_are_those_of_the_encoder():
    contexts = make_contexts()
    captions = ["a red circle", "", "a red circle", "never cut " * 60]
    cached = CachedContexts(contexts, captions).contexts(captions)
    torch.testing.assert_close(cached, contexts.contexts(captions), rtol=1e-5, atol=1e-6)
    assert torch.equal(cached[0], cached[2])
    assert cached.shape == (4, contexts.encoder.config.max_positions, 16)


def test_tokens_begin_end_and_are_cut():
    contexts = make_contexts()
    start, end = contexts.tokenizer.start_id, contexts.tokenizer.end_id
    assert contexts.count_tokens("a red circle") == 3
    short, long = contexts.tokens(["a red circle", "a red circle " * 40])
    assert short.tolist()[0] == start
    assert short.tolist()[4:] == [end] * 73
    assert len(long) == 77
    assert long.tolist()[:4] == short.tolist()[:4]
    assert long.tolist()[-1] == end
    assert end not in long.tolist()[:-1]


def test_gradient_reaches_a_trained_text_encoder_through_repeated_captions():
    contexts = make_contexts()
    contexts.encoder.requires_grad_(True)
    contexts.contexts(["a red circle", "", "a red circle"])[2].square().sum().backward()
    assert all(parameter.grad is not None for parameter in contexts.encoder.parameters())
