import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motion.errors import SettingsError
from motion.svd.noise_levels import SIGMA_MAX, SIGMA_MIN, VScaling, edm_sigmas, initial_scale
from tests.goldens import read_golden


@pytest.mark.parametrize("num_steps", [1, 6, 25, 30])
def test_levels_equal_the_original(num_steps):
    golden = read_golden("svd_math")
    torch.testing.assert_close(edm_sigmas(num_steps), golden[f"out.sigmas_{num_steps}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["c_skip", "c_out", "c_in", "c_noise"])
def test_scaling_equals_the_original(name):
    golden = read_golden("svd_math")
    scaling = VScaling.at(golden["in.sigmas"])
    torch.testing.assert_close(getattr(scaling, name), golden["out." + name], atol=2e-5, rtol=0)


@given(st.integers(1, 200), st.floats(1e-3, 0.1), st.floats(1.0, 1000.0), st.floats(3.0, 10.0))
def test_levels_fall_from_the_first_to_zero(num_steps, sigma_min, sigma_max, rho):
    sigmas = edm_sigmas(num_steps, sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
    assert len(sigmas) == num_steps + 1
    assert sigmas[-1] == 0
    assert bool((sigmas[:-1] > sigmas[1:]).all())
    assert sigmas[0].item() == pytest.approx(sigma_max, rel=1e-4)
    assert num_steps == 1 or sigmas[-2].item() == pytest.approx(sigma_min, rel=1e-3)


@given(st.floats(SIGMA_MIN, SIGMA_MAX))
def test_scaling_undoes_itself(sigma):
    """With the v that belongs to clean latents and noise, the prediction is the clean latents (arXiv:2202.00512)."""
    scaling = VScaling.at(torch.tensor(sigma, dtype=torch.float64))
    clean, noise = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([-0.2, 0.9], dtype=torch.float64)
    norm = (1 + sigma**2) ** 0.5
    v = noise / norm - sigma * clean / norm
    predicted = scaling.c_skip * (clean + sigma * noise) + scaling.c_out * v
    torch.testing.assert_close(predicted, clean, atol=1e-6, rtol=0)


def test_start_is_as_wide_as_data_and_noise_together():
    assert initial_scale(edm_sigmas(25)).item() == pytest.approx((700.0**2 + 1) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("wrong", [{"num_steps": 0}, {"sigma_min": 0.0}, {"sigma_max": 0.001}, {"rho": 0.0}])
def test_levels_that_can_not_be(wrong):
    with pytest.raises(SettingsError, match="at least 1 step and 0 < sigma_min < sigma_max"):
        edm_sigmas(**{"num_steps": 5, **wrong})
