"""What one step does to weights and average, against plain loops and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from motion.errors import SettingsError
from motion.training.gradient_checks import TrainingError
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.settings import TrainerSettings
from motion.training.trainer import Trainer
from tests.training.tiny_tasks import RegressionTask, make_module_task, quiet


def trained(tmp_path, settings, task=None):
    """(weights, averages, progress of each step)."""
    task, steps = task or RegressionTask(), []
    Trainer(task, settings, RunFolder(tmp_path), on_progress=steps.append).run()
    _, tensors, _ = RunFolder(tmp_path).load_state()
    kinds = ("weights.", "average.")
    found = [{key.removeprefix(k): tensors[key] for key in tensors if key.startswith(k)} for k in kinds]
    return (*found, steps)


def plain_loop(settings, parts=1):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2) and the average, one number type throughout."""
    task = RegressionTask()
    weights = list(task.network.parameters())
    average = [weight.detach().clone() for weight in weights]
    first = [torch.zeros_like(weight) for weight in weights]
    second = [torch.zeros_like(weight) for weight in weights]
    for step in range(settings.steps):
        batches = [task.batch(StepRandom.of(settings.seed, step, part)) for part in range(parts)]
        loss = task.error(*(torch.cat(rows) for rows in zip(*batches, strict=True)))
        gradients = torch.autograd.grad(loss, weights)
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
        rate = rate_of(settings, step)
        for w, a, m, v, gradient in zip(weights, average, first, second, gradients, strict=True):
            clipped = gradient * min(1.0, settings.max_grad_norm / norm)
            m.mul_(0.9).add_(clipped, alpha=0.1)
            v.mul_(settings.beta2).add_(clipped.square(), alpha=1 - settings.beta2)
            corrected = m / (1 - 0.9 ** (step + 1)) / ((v / (1 - settings.beta2 ** (step + 1))).sqrt() + 1e-8)
            w.data.mul_(1 - rate * settings.weight_decay).sub_(rate * corrected)
            decay = min(settings.ema_decay, (1 + step) / (10 + step))
            a.mul_(decay).add_(w.detach(), alpha=1 - decay)
    names = list(task.parameters())
    return dict(zip(names, (w.detach() for w in weights), strict=True)), dict(zip(names, average, strict=True))


def rate_of(settings, step):
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    turn = math.pi * (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    lowest = settings.learning_rate * settings.final_rate
    return lowest + (settings.learning_rate - lowest) * (1 + math.cos(turn)) / 2


@pytest.mark.parametrize("changed", [{}, {"max_grad_norm": 0.05}, {"ema_decay": 0.3}, {"weight_decay": 0.9}])
def test_steps_are_those_of_a_plain_loop(tmp_path, changed):
    settings = quiet(steps=8, **changed)
    weights, average, _ = trained(tmp_path, settings)
    for found, expected in zip((weights, average), plain_loop(settings), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_accumulation_is_one_larger_batch(tmp_path):
    settings = quiet(steps=6, accumulation=3)
    weights, _, steps = trained(tmp_path, settings)
    expected, _ = plain_loop(settings, parts=3)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    task = RegressionTask()
    parts = [task.loss(StepRandom.of(0, 0, part)).item() for part in range(3)]
    assert steps[0].loss == pytest.approx(sum(parts) / 3, rel=1e-6)


def test_average_of_constant_weights_is_exact_and_of_a_jump_is_geometric(tmp_path):
    """With a learning rate of nothing but one step, the average follows the product of the decays."""
    settings = quiet(steps=5, ema_decay=0.15, warmup_steps=0, weight_decay=0.0)
    decays = [settings.ema_at(step) for step in range(5)]
    assert decays == pytest.approx([0.1, 0.15, 0.15, 0.15, 0.15])
    _, average, _ = trained(tmp_path, settings)
    # The last term weighs 1 - decay: what is left of the distance after it is decay times the one before.
    path = [RegressionTask().parameters()["0.bias"].detach()]
    for steps in range(1, 6):
        path.append(plain_loop_weights(settings, steps)["0.bias"])
    closed = path[0] * math.prod(decays)
    for step in range(5):
        closed = closed + path[step + 1] * (1 - decays[step]) * math.prod(decays[step + 1 :])
    torch.testing.assert_close(average["0.bias"], closed, rtol=1e-5, atol=1e-6)


def plain_loop_weights(settings, steps):
    """Weights after the first `steps` steps of the loop, under the whole run's schedule."""
    task = RegressionTask()
    optimizer = torch.optim.AdamW(
        task.network.parameters(), betas=(0.9, settings.beta2), weight_decay=settings.weight_decay
    )
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate_of(settings, step)
        optimizer.zero_grad()
        task.loss(StepRandom.of(settings.seed, step)).backward()
        nn.utils.clip_grad_norm_(task.network.parameters(), settings.max_grad_norm)
        optimizer.step()
    return {name: value.detach().clone() for name, value in task.parameters().items()}


def test_no_average_exports_the_weights(tmp_path):
    task = RegressionTask()
    weights, _, _ = trained(tmp_path, quiet(ema_decay=0.0), task)
    assert all(torch.equal(task.exported[0][name], value) for name, value in weights.items())


def test_schedule_warms_up_and_falls_along_half_a_cosine(tmp_path):
    settings = quiet(steps=100, warmup_steps=10, learning_rate=1.0, final_rate=0.2)
    assert [settings.rate_at(step) for step in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert settings.rate_at(55) == pytest.approx(0.6)
    assert settings.rate_at(99) == pytest.approx(0.2, abs=1e-3)
    rates = [settings.rate_at(step) for step in range(9, 100)]
    assert rates == sorted(rates, reverse=True)
    _, _, steps = trained(tmp_path, quiet(steps=4, warmup_steps=2, learning_rate=0.1))
    assert [step.learning_rate for step in steps[:3]] == pytest.approx([0.05, 0.1, 0.1])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_with_weights_in_float32(tmp_path, precision):
    settings = quiet(steps=4, learning_rate=1e-3, precision=precision)
    weights, _, steps = trained(tmp_path / "half", settings, make_module_task())
    exact, _, reference = trained(tmp_path / "full", quiet(steps=4, learning_rate=1e-3), make_module_task())
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert all(math.isfinite(step.grad_norm) for step in steps)
    losses, expected = [step.loss for step in steps], [step.loss for step in reference]
    assert losses == pytest.approx(expected, rel=2e-2)
    assert losses != expected
    start = make_module_task().parameters()
    for name in exact:
        if not torch.equal(exact[name], start[name]):
            assert not torch.equal(weights[name], start[name]), name


class OverflowingTask(RegressionTask):
    """Its gradient doesn't fit into fp16 until the loss is scaled less than at first."""

    def loss(self, random):
        return super().loss(random) + self.network[0].bias.half().sum().float() * 2.0


def test_fp16_leaves_out_steps_beyond_its_range_and_goes_on(tmp_path):
    start = RegressionTask().parameters()["0.bias"]
    weights, _, steps = trained(tmp_path, quiet(steps=8, precision="fp16"), OverflowingTask())
    skipped = [math.isnan(step.grad_norm) for step in steps]
    assert skipped[0]
    assert not any(skipped[2:])
    assert not torch.equal(weights["0.bias"], start)


class BrokenTask(RegressionTask):
    """From the third step on, its gradient is NaN, while its loss is not."""

    def loss(self, random):
        self.steps = getattr(self, "steps", 0) + 1
        error = super().loss(random)
        broken = (self.network[2].weight * 0).sum().sqrt() * 0  # d√x at 0 is infinite, times 0
        return error + broken if self.steps > 2 else error


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nan_gradient_ends_the_run_by_name_and_keeps_the_last_state(tmp_path, precision):
    message = r"must be finite, got NaN or infinity in 2\.weight\. Lower the learning rate.*--anomaly"
    with pytest.raises(TrainingError, match=message):
        trained(tmp_path, quiet(steps=60, save_every=2, precision=precision), BrokenTask())
    found, tensors, _ = RunFolder(tmp_path).load_state()
    assert found == 2 or precision == "fp16"
    assert all(torch.isfinite(value).all() for value in tensors.values())


def test_anomaly_mode_names_the_operation(tmp_path):
    with (
        pytest.warns(UserWarning, match=r"(?s)SqrtBackward0.*broken = "),
        pytest.raises(TrainingError, match=r"step 3 .*'SqrtBackward0'.*Lower the learning rate"),
    ):
        trained(tmp_path, quiet(anomaly=True), BrokenTask())
    assert not torch.is_anomaly_enabled()


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("steps", 1.5), ("steps", True), ("learning_rate", math.nan), ("learning_rate", "fast"),
     ("beta2", 1.0), ("seed", -1), ("precision", "fp8"), ("max_grad_norm", 0.0), ("accumulation", None)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(SettingsError, match=rf"`{field}` must be .*, got {value!r}\. Choose one"):
        TrainerSettings(**{field: value})


def test_random_numbers_depend_on_seed_step_and_part_alone():
    def numbers(*key):
        random = StepRandom.of(*key)
        return (*torch.rand(3, generator=random.tensors).tolist(), *random.choices.random(3).tolist())

    assert numbers(1, 2, 3) == numbers(1, 2, 3)
    different = {numbers(*key) for key in ((1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3), (3, 2, 1))}
    assert len(different) == 5
