"""Per-image noise: a batch equals its images made alone."""

from __future__ import annotations

import pytest
import torch

from motion.errors import SettingsError
from motion.standalone import rng, samplers
from tests.standalone.samplers.closed_form import GaussianModel, request, sample

pytestmark = pytest.mark.usefixtures("host")
SHAPE = (4, 6, 8)


def test_noise_is_torch_s_own_of_the_seed():
    expected = torch.randn(SHAPE, generator=torch.Generator().manual_seed(42))
    assert torch.equal(rng.ImageRNG(SHAPE, [42]).next()[0], expected)


def test_later_noise_goes_on_with_each_image_s_generator():
    noise = rng.ImageRNG(SHAPE, [7, 8])
    draws = [noise.next() for _ in range(3)]
    for image, seed in enumerate((7, 8)):
        generator = torch.Generator().manual_seed(seed)
        for draw in draws:
            assert torch.equal(draw[image], torch.randn(SHAPE, generator=generator))


@pytest.mark.parametrize("changes", [{}, {"subseeds": [100, 101], "subseed_strength": 0.3}])
@pytest.mark.parametrize("resize", [{}, {"seed_resize_from_h": 32, "seed_resize_from_w": 96}])
def test_image_of_a_batch_is_the_image_made_alone(changes, resize):
    batch = rng.ImageRNG(SHAPE, [7, 8], **changes, **resize)
    alone = {**changes, "subseeds": [101]} if changes else {}
    single = rng.ImageRNG(SHAPE, [8], **alone, **resize)
    for _ in range(3):
        assert torch.equal(batch.next()[1], single.next()[0])


@pytest.mark.parametrize("name", ["Euler", "Euler a", "DPM++ 2M", "DDIM", "LCM"])
def test_picture_of_a_batch_is_the_picture_made_alone(name):
    model = GaussianModel(text_shift=0.01)
    changes = {"steps": 5, "cfg_scale": 4.0, "eta": 1.0}
    batch = sample(samplers.create_sampler(name, model), request(model, ["a", "bb", "ccc"], seeds=[5, 6, 7], **changes))
    single = sample(samplers.create_sampler(name, model), request(model, ["bb"], seeds=[6], **changes))
    torch.testing.assert_close(batch[1], single[0], rtol=0, atol=1e-5)


def test_variation_moves_from_seed_to_subseed():
    def first(strength):
        return rng.ImageRNG(SHAPE, [7], subseeds=[9], subseed_strength=strength).next()

    seed, subseed = rng.ImageRNG(SHAPE, [7]).next(), rng.ImageRNG(SHAPE, [9]).next()
    assert torch.equal(first(0.0), seed)
    torch.testing.assert_close(first(1.0), subseed, rtol=0, atol=1e-5)
    between = first(0.5)
    assert (between - seed).norm() < (subseed - seed).norm()
    assert between.std().item() == pytest.approx(1.0, abs=0.15)


def test_noise_of_another_size_is_pasted_in_the_middle():
    source = torch.randn((4, 4, 12), generator=torch.Generator().manual_seed(7))
    frame = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
    pasted = rng.ImageRNG(SHAPE, [7], seed_resize_from_h=32, seed_resize_from_w=96).next()[0]
    assert torch.equal(pasted[:, 1:5], source[:, :, 2:10])
    assert torch.equal(pasted[:, [0, 5]], frame[:, [0, 5]])


def test_seed_delta_changes_the_noise_of_steps_only(host):
    plain = rng.ImageRNG(SHAPE, [7])
    host.opts.data["eta_noise_seed_delta"] = 31337
    shifted = rng.ImageRNG(SHAPE, [7])
    assert torch.equal(plain.next(), shifted.next())
    assert torch.equal(shifted.next(), rng.ImageRNG(SHAPE, [7 + 31337]).next())


def test_global_generator_is_seeded_as_in_the_web_ui():
    rng.ImageRNG(SHAPE, [7, 8]).next()
    after = torch.rand(1)
    torch.manual_seed(8)
    assert torch.equal(after, torch.rand(1))


def test_local_noise_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    rng.randn_local(7, SHAPE)
    assert torch.equal(torch.rand(1), expected)


def test_other_noise_sources_are_refused(host):
    host.opts.data["randn_source"] = "NV"
    with pytest.raises(SettingsError, match=r"got randn_source 'NV'\. Set it to CPU"):
        rng.ImageRNG(SHAPE, [7])
