"""Gradients that no training survives: found when they come, named, with what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from motion.training.gradient_checks import (
    EXPLOSION,
    PATIENCE,
    SILENT_STEPS,
    GradientChecks,
    TrainingError,
    describe_silent,
)


def make(**norms):
    """Checks of parameters of one number, whose gradients are set by `give`."""
    parameters = {name: nn.Parameter(torch.zeros(4)) for name in norms}
    give(parameters, **norms)
    return GradientChecks(parameters), parameters


def give(parameters, **norms):
    for name, norm in norms.items():
        parameters[name].grad = None if norm is None else torch.full((4,), norm / 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_gradient_that_is_not_finite_is_named(bad):
    checks, parameters = make(a=1.0, b=1.0)
    checks.check(1)
    parameters["b"].grad[2] = bad
    with pytest.raises(
        TrainingError, match=r"step 2 must be finite, got NaN or infinity in b\. Lower the learning"
    ) as e:
        checks.check(2)
    assert e.value.status_code == 500


def test_many_bad_gradients_are_named_in_short():
    checks, _ = make(**{name: float("nan") for name in "abcdef"})
    with pytest.raises(TrainingError, match=r"in a, b, c and 3 more\. Lower"):
        checks.check(1)


def test_norm_is_that_over_all_parameters():
    checks, _ = make(a=3.0, b=4.0, c=None)
    assert checks.check(1) == (pytest.approx(5.0), [])


def settled(steps=30):
    checks, parameters = make(small=1.0, large=1.0)
    for step in range(steps):
        checks.check(step + 1)
    return checks, parameters


def test_explosion_ends_the_run_after_some_steps_and_names_the_largest():
    checks, parameters = settled()
    give(parameters, small=1.0, large=2 * EXPLOSION * 2**0.5)
    for step in range(PATIENCE - 1):
        norm, _ = checks.check(31 + step)
        assert norm > EXPLOSION
    message = (
        r"explode: their norm at step 33 must be near 1\.41, as before, got 2\.83e\+03, most of it in large\. Lower"
    )
    with pytest.raises(TrainingError, match=message):
        checks.check(33)


def test_single_spikes_pass_and_do_not_move_what_is_usual():
    """Two steps out of three are spikes, for longer than the checks remember."""
    checks, parameters = settled()
    for step in range(100 * PATIENCE):
        give(parameters, large=1e6 if step % PATIENCE else 1.0)
        checks.check(31 + step)
    give(parameters, large=1e6)
    with pytest.raises(TrainingError, match=r"must be near 1\.41"):
        for step in range(PATIENCE):
            checks.check(1000 + step)


def test_first_steps_and_slow_growth_are_no_explosion():
    checks, parameters = make(a=1e-6)
    for step in range(200):
        give(parameters, a=1e-6 * 10 ** (step / 40))
        checks.check(step + 1)


def test_gradients_that_begin_late_are_no_explosion():
    checks, parameters = make(a=0.0)
    for step in range(40):
        checks.check(step + 1)
    give(parameters, a=1.0)
    for step in range(40, 50):
        checks.check(step + 1)


@pytest.mark.parametrize("nothing", [0.0, None])
def test_vanished_gradient_is_told_once_by_name(nothing):
    checks, parameters = make(learns=1.0, stuck=nothing)
    told = [checks.check(step + 1)[1] for step in range(2 * SILENT_STEPS)]
    assert told[SILENT_STEPS - 1] == ["stuck"]
    assert sum(map(len, told)) == 1
    give(parameters, stuck=1.0)
    assert checks.check(0)[1] == []
    give(parameters, stuck=nothing)
    told = [checks.check(step + 1)[1] for step in range(SILENT_STEPS)]
    assert told[-1] == ["stuck"]


def test_message_of_vanished_gradients():
    text = describe_silent(["down.weight", "up.weight"], 80)
    assert text.startswith(f"At step 80 the gradient has vanished for {SILENT_STEPS} steps in down.weight, up.weight")
    assert "use bf16 or fp32" in text
