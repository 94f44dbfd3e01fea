import functools

import pytest
import torch

from motion.errors import SettingsError
from motion.standalone.samplers import sampling_functions as oracle
from motion.svd.noise_levels import edm_sigmas, initial_scale
from motion.svd.samplers import SAMPLERS, sample

DEVIATION = 0.8


def denoise(x, sigma):
    """The best prediction of data that is normal with deviation `DEVIATION`."""
    return x * DEVIATION**2 / (DEVIATION**2 + sigma**2)


def start(sigmas, seed=1):
    return torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(seed)) * initial_scale(sigmas)


def noise_of(x, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("num_steps", [1, 2, 7, 25])
@pytest.mark.parametrize(
    ("name", "function", "takes_noise"),
    [
        ("euler", oracle.sample_euler, True),
        ("euler_a", oracle.sample_euler_ancestral, True),
        ("dpmpp_2m", oracle.sample_dpmpp_2m, False),
    ],
)
def test_equals_the_embedded_hosts_sampler(name, function, takes_noise, num_steps):
    sigmas = edm_sigmas(num_steps)
    x = start(sigmas)
    if takes_noise:
        function = functools.partial(function, noise=noise_of(x))
    rows = (-1, 1, 1, 1)
    model = lambda x, sigma: denoise(x, sigma.reshape(rows))  # noqa: E731
    expected = function(model, x, sigmas, extra_args={}, callback=lambda _: None)
    result = sample(name, denoise, x, sigmas, draw=noise_of(x))
    assert not result.interrupted
    torch.testing.assert_close(result.latents, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("name", "bound"), [("euler", 0.1), ("dpmpp_2m", 0.01)])
def test_many_steps_reach_the_exact_solution(name, bound):
    """The probability flow takes x at σ to x·s/√(s² + σ²) for normal data of deviation s."""
    sigmas = edm_sigmas(200)
    x = start(sigmas)
    exact = x * DEVIATION / (DEVIATION**2 + sigmas[0] ** 2).sqrt()
    result = sample(name, denoise, x, sigmas, draw=noise_of(x)).latents
    assert (result - exact).abs().max() < bound


def test_ancestral_sampling_gives_the_datas_deviation():
    sigmas = edm_sigmas(60)
    x = torch.randn(40_000, generator=torch.Generator().manual_seed(3)) * initial_scale(sigmas)
    result = sample("euler_a", denoise, x, sigmas, draw=noise_of(x)).latents
    assert result.std().item() == pytest.approx(DEVIATION, abs=0.1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_counted_and_repeat_to_the_bit(name):
    sigmas = edm_sigmas(4)
    x, counted = start(sigmas), []
    first = sample(name, denoise, x, sigmas, draw=noise_of(x), on_step=lambda *step: counted.append(step))
    assert counted == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert torch.equal(first.latents, sample(name, denoise, x, sigmas, draw=noise_of(x)).latents)


def test_stopping_gives_the_last_prediction():
    sigmas = edm_sigmas(6)
    x, done = start(sigmas), []
    predicted = []

    def recorded(x, sigma):
        predicted.append(denoise(x, sigma))
        return predicted[-1]

    result = sample(
        "euler",
        recorded,
        x,
        sigmas,
        draw=noise_of(x),
        on_step=lambda *step: done.append(step),
        should_stop=lambda: len(done) == 2,
    )
    assert result.interrupted
    assert len(predicted) == 2
    assert result.latents is predicted[-1]


def test_stopping_before_the_first_step_gives_the_start():
    sigmas = edm_sigmas(6)
    x = start(sigmas)
    result = sample("euler", denoise, x, sigmas, draw=noise_of(x), should_stop=lambda: True)
    assert result.interrupted
    assert result.latents is x


def test_unknown_sampler():
    sigmas = edm_sigmas(2)
    with pytest.raises(SettingsError, match="one of euler, euler_a, dpmpp_2m, got 'heun'"):
        sample("heun", denoise, start(sigmas), sigmas, draw=lambda: torch.zeros(1))
