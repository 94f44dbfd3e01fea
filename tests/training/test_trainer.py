"""Runs of the trainer that end early: killed, interrupted, stopped; and that the same seed makes the same weights."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from motion.training.gradient_checks import TrainingError
from motion.training.run_folder import RunFolder
from motion.training.trainer import Trainer
from tests.training.killed_run import LAST_STEP, SETTINGS
from tests.training.tiny_tasks import RegressionTask, make_module_task, quiet

ROOT = Path(__file__).resolve().parents[2]


def state_of_run(folder):
    """(steps, tensors) of the newest state."""
    step, tensors, _ = RunFolder(folder).load_state()
    return step, tensors


def assert_same_run(folder, expected):
    step, tensors = state_of_run(folder)
    expected_step, expected_tensors = state_of_run(expected)
    assert step == expected_step
    assert tensors.keys() == expected_tensors.keys()
    assert {"weights", "average", "optimizer"} == {key.split(".")[0] for key in tensors} - {"losses"}
    assert [key for key in tensors if not torch.equal(tensors[key], expected_tensors[key])] == []


def run(folder, settings=None, task=None, **options):
    trainer = Trainer(task or RegressionTask(), settings or quiet(), RunFolder(folder), **options)
    return trainer, trainer.run()


def wait_for_state(process, folder, step):
    ends = time.monotonic() + 300
    while not any(found >= step for found, _ in RunFolder(folder).states()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends, "no state within five minutes"
        time.sleep(0.002)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_killed_run_goes_on_to_the_same_weights(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.training.killed_run", str(tmp_path / "killed")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        wait_for_state(process, tmp_path / "killed", 2 * SETTINGS.save_every)
        time.sleep(random.uniform(0, 0.15))  # anywhere in a step, an update or a write
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL

    resumed = Trainer(make_module_task(), SETTINGS, RunFolder(tmp_path / "killed"))
    assert 2 * SETTINGS.save_every <= resumed.step <= LAST_STEP
    assert resumed.run()
    _, done = run(tmp_path / "whole", SETTINGS, make_module_task())
    assert done
    assert_same_run(tmp_path / "killed", tmp_path / "whole")
    exported = [load_file(tmp_path / name / "module.safetensors") for name in ("killed", "whole")]
    assert all(torch.equal(exported[0][key], exported[1][key]) for key in exported[1])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_stop_file_saves_and_ends(tmp_path, precision):
    settings = quiet(steps=9, precision=precision)
    folder = RunFolder(tmp_path / "stopped")

    def stop(progress):
        if progress.step == 4:
            folder.stop_file.touch()

    task = RegressionTask()
    trainer, done = run(folder.path, settings, task, on_progress=stop)
    assert (done, trainer.step, task.exported) == (False, 4, [])
    assert state_of_run(folder.path)[0] == 4

    task = RegressionTask()
    trainer, done = run(folder.path, settings, task)  # the old stop file does not end this one
    assert (done, trainer.step, len(task.exported)) == (True, 9, 1)
    run(tmp_path / "whole", settings)
    assert_same_run(folder.path, tmp_path / "whole")


def test_finished_run_only_exports_again(tmp_path):
    run(tmp_path)
    before = state_of_run(tmp_path)
    task = RegressionTask(seed=1)  # other first weights, which the state replaces
    trainer, done = run(tmp_path, task=task, on_progress=pytest.fail)
    assert (done, trainer.step, len(task.exported)) == (True, 6, 1)
    assert all(torch.equal(before[1][key], value) for key, value in state_of_run(tmp_path)[1].items())
    assert torch.equal(task.exported[0]["0.weight"], before[1]["average.0.weight"])


def test_interrupt_between_steps_saves(tmp_path):
    def interrupt(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "interrupted", on_progress=interrupt)
    assert state_of_run(tmp_path / "interrupted")[0] == 3
    run(tmp_path / "interrupted")
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "interrupted", tmp_path / "whole")


def test_interrupt_in_the_middle_of_an_update_tears_nothing(tmp_path):
    """Ctrl-C after the optimiser has changed the weights, before the average has followed."""
    calls = []

    def interrupt(optimizer, args, kwargs):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    hook = register_optimizer_step_post_hook(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "interrupted")
    finally:
        hook.remove()
    assert signal.getsignal(signal.SIGINT) is before
    assert state_of_run(tmp_path / "interrupted")[0] == 3
    run(tmp_path / "interrupted")
    run(tmp_path / "whole")
    assert_same_run(tmp_path / "interrupted", tmp_path / "whole")


class InterruptedSheet(RegressionTask):
    def sample_sheet(self):
        raise KeyboardInterrupt


def test_interrupt_while_a_sheet_is_drawn_saves_what_was_trained(tmp_path):
    settings = quiet(sample_every=3)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "interrupted", settings, InterruptedSheet())
    run(tmp_path / "interrupted", settings)
    run(tmp_path / "whole", settings)
    assert_same_run(tmp_path / "interrupted", tmp_path / "whole")


def test_another_run_in_the_folder_is_refused(tmp_path):
    run(tmp_path, quiet(steps=3))
    message = r"holds a run with `learning_rate` 0.01, this one has 0.02. Pass the same settings to resume it"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, quiet(steps=3, learning_rate=0.02))
    with pytest.raises(TrainingError, match=r"`rows` 4, this one has 5.*or choose another folder"):
        run(tmp_path, quiet(steps=3), RegressionTask(rows=5))
    trainer, done = run(tmp_path, quiet(steps=3, save_every=1, anomaly=True))  # these two change no weight
    assert done
    assert trainer.step == 3


def test_state_of_other_parameters_is_refused(tmp_path):
    """The same settings and facts, as of a later version of the networks."""
    run(tmp_path, quiet(steps=3))
    task = RegressionTask()
    task.network[2] = nn.Linear(5, 1)
    before = {name: value.detach().clone() for name, value in task.parameters().items()}
    with pytest.raises(
        TrainingError, match=r"got shape \[2\] for 2\.bias, which has \[1\] here\. Choose another folder"
    ):
        Trainer(task, quiet(steps=3), RunFolder(tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in task.parameters().items())


def test_run_outside_the_main_thread(tmp_path):
    """A page's button trains in a thread, where no signal can be handled."""
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, tmp_path / "thread").result()[1]
    run(tmp_path / "main")
    assert_same_run(tmp_path / "thread", tmp_path / "main")


def test_equal_seeds_make_equal_weights_and_others_do_not(tmp_path):
    for name, seed in (("first", 5), ("second", 5), ("other", 6)):
        run(tmp_path / name, quiet(steps=3, seed=seed), make_module_task())
    assert_same_run(tmp_path / "second", tmp_path / "first")
    first, other = (state_of_run(tmp_path / name)[1] for name in ("first", "other"))
    assert not any(
        torch.equal(first[key], other[key]) for key in first if key.startswith("weights.") and "pe" not in key
    )


def test_sheets_and_curve_are_drawn_from_the_average(tmp_path):
    seen = []

    class Sheet(RegressionTask):
        def sample_sheet(self):
            seen.append(self.network[0].weight.detach().clone())
            assert not torch.is_grad_enabled()

    settings = quiet(steps=4, sample_every=2, ema_decay=0.9)
    run(tmp_path, settings, Sheet())
    _, tensors = state_of_run(tmp_path)
    assert len(seen) == 2
    assert torch.equal(seen[1], tensors["average.0.weight"])
    assert not torch.equal(seen[1], tensors["weights.0.weight"])
    assert (tmp_path / "loss.png").is_file()
    assert dataclasses.asdict(settings) == RunFolder(tmp_path).load_state()[2]["settings"]
    assert os.listdir(tmp_path).count("samples") == 0  # this task has no sheets
