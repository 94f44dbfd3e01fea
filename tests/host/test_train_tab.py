"""The tab "Train motion LoRA": its fields as a command line, and its process, started, watched, stopped and lost."""

from __future__ import annotations

import time
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

from motion.errors import CheckpointError, SettingsError
from motion.standalone import namespace, sd_models
from tests.training import tiny_lora

SMALL = {"size": "64", "frames": 4, "rank": 2, "sample-every": 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    tiny_lora.write_all(folder)
    return folder


@pytest.fixture
def tab(data_dir):
    with namespace.installed(["--data-dir", str(data_dir)]):
        from motion.host.module_files import ModelFiles
        from motion.host.train_tab import TrainTab
        from motion.host.training_job import TrainingJob

        sd_models.list_models()
        job = TrainingJob()
        yield TrainTab(ModelFiles(), job)
        job.close()
        if job._process is not None:
            job._process.wait(60)


def values(data_dir, **changed):
    """What the fields hold for a small run; names with _ for -."""
    from motion.host.train_tab import FIELDS

    given = {
        "videos": str(data_dir / "videos"),
        "module": "box-mm-v3.safetensors",
        "checkpoint": sd_models.checkpoint_tiles()[0],
        **SMALL,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    return {field.flag: given.get(field.flag, field.value) for field in FIELDS}


def ordered(data_dir, **changed):
    return tuple(values(data_dir, **changed).values())


def answer(page, elem_id):
    """The function of a button."""
    ids = [block._id for block in page.blocks.values() if getattr(block, "elem_id", None) == elem_id]
    return next(fn.fn for fn in page.fns.values() if fn.targets[0] == (ids[0], "click"))


def test_the_fields_become_flags(tab, data_dir):
    flags, folder = tab.flags(values(data_dir, skip_bad=True, gradient_checkpointing=False, default_caption="-a box"))
    assert folder == data_dir / "motion-training" / "videos"
    assert flags == {
        "videos": str(data_dir / "videos"),
        "name": "videos",
        "skip-bad": "",
        "no-gradient-checkpointing": "",
        "module": str(data_dir / "models/motion/box-mm-v3.safetensors"),
        "default-caption": "-a box",
        "checkpoint": str(data_dir / "models/Stable-diffusion/box.safetensors"),
        "device": "cpu",
        "rank": "2",
        "steps": "1000",
        "learning-rate": "0.0001",
        "size": "64",
        "batch-size": "1",
        "accumulation": "1",
        "frames": "4",
        "frame-stride": "0",
        "clips-per-video": "1",
        "sample-every": "2",
        "seed": "0",
        "lora-dir": str(data_dir / "models/Lora"),
    }


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"videos": " "}, SettingsError, "`videos` must name a folder of videos, got none"),
        ({"name": "../x"}, SettingsError, "`name` must be made of letters"),
        ({"module": None}, SettingsError, "`motion_module` must name a motion module file, got none"),
        ({"module": "gone.safetensors"}, CheckpointError, "there is no motion module of this name"),
        ({"checkpoint": None}, SettingsError, "`checkpoint` must name a checkpoint of the list, got None"),
        ({"steps": None}, SettingsError, "`steps` must have a value, got none. Enter one, such as 1000"),
    ],
)
def test_a_bad_field_is_said_and_nothing_starts(tab, data_dir, changed, error, message):
    with pytest.raises(error, match=message):
        tab.flags(values(data_dir, **changed))
    ((said, *_),) = tab.run(ordered(data_dir, **changed), check=False)
    assert said.startswith("<div class='error'>")
    assert not tab._job.running


def test_a_run_from_start_to_end(tab, data_dir):
    """The page's Start button: its outputs, step by step, the LoRA in the drop-down at the end."""
    page = tab._build()
    shown = list(answer(page, "motion_train_start")(*ordered(data_dir, name="whole", steps=2)))
    assert "The motion LoRA is" in shown[-1][0]
    assert "2 of 2 videos" in shown[-1][1]
    assert "Memory: about" in shown[-1][1]
    pictures = [update for outputs in shown for update in outputs[2:] if isinstance(update, Image.Image)]
    assert len(pictures) >= 2, "loss curve and samples"
    assert "whole.safetensors" in tab._files.names("motion_lora")
    assert tab._job.status().error == ""
    assert "The motion LoRA is" in list(answer(page, "motion_train_watch")())[-1][0], "also for a page opened later"


def test_stop_and_resume(tab, data_dir):
    running = tab.run(ordered(data_dir, name="long", steps=500), check=False)
    wait_for(running, lambda outputs: "Step " in outputs[0] and "<progress" in outputs[0])
    with pytest.raises(SettingsError, match="Only one training or check can run at a time"):
        tab._job.start({}, data_dir)
    tab._job.stop()
    last = list(running)[-1]
    assert "of 500; the state is saved" in last[0]
    assert not tab._job.running
    stopped_at = tab._job.status().progress.step
    resumed = tab.run(ordered(data_dir, name="long", steps=500), check=False)
    wait_for(resumed, lambda outputs: "Step " in outputs[0])
    assert tab._job.status().progress.step > stopped_at
    tab._job.stop()
    list(resumed)


def test_a_check(tab, data_dir):
    last = list(tab.run(ordered(data_dir, name="checked"), check=True))[-1]
    assert "The check is done." in last[0]
    assert "Time: about" in last[1]
    (data_dir / "bad").mkdir()
    (data_dir / "bad" / "broken.mp4").write_bytes(b"no video")
    last = list(tab.run(ordered(data_dir, name="checked", videos=str(data_dir / "bad")), check=True))[-1]
    assert "<div class='error'>All 1 videos in " in last[0]
    assert "Problem: broken.mp4" in last[1]


def test_a_process_that_is_lost_is_told_from_one_that_ended(tab, data_dir):
    running = tab.run(ordered(data_dir, name="lost", steps=500), check=False)
    wait_for(running, lambda outputs: "Step " in outputs[0])
    tab._job._process.kill()
    last = list(running)[-1]
    assert "it was ended with status" in last[0]
    assert "start again to go on from it" in last[0]


def test_the_module_in_memory_is_freed_when_training_starts(tab, data_dir):
    import torch

    from motion.protocols import Placement

    placement = Placement(torch.device("cpu"), torch.float32, torch.float32, False)
    tab._files.load("box-mm-v3.safetensors", "auto", placement)
    next(tab.run(ordered(data_dir, name="freed", steps=1), check=False))
    assert tab._files._loaded is None
    tab._job.close()


def test_the_web_ui_gets_the_tab_once(data_dir):
    with namespace.installed(["--data-dir", str(data_dir)]) as host:
        from modules import script_callbacks

        from motion.host import register

        register()
        ((blocks, title, elem_id),) = script_callbacks.ui_tabs_callback()
        assert isinstance(blocks, gr.Blocks)
        assert (title, elem_id) == ("Train motion LoRA", "motion_train")
        labels = {getattr(block, "label", None) for block in blocks.blocks.values()}
        assert {"Folder of videos", "Rank", "Steps", "Learning rate", "Size", "Samples", "Loss"} <= labels
        host.cmd_opts.hide_ui_dir_config = True
        assert script_callbacks.ui_tabs_callback() == []


def wait_for(outputs, condition, seconds=120):
    """The first outputs for which `condition` holds."""
    deadline = time.monotonic() + seconds
    for shown in outputs:
        if condition(shown):
            return shown
        assert time.monotonic() < deadline, shown
    raise AssertionError("the job ended before that")


def test_the_program_s_folder_holds_this_package(tab):
    from motion.host.training_job import _program_folder

    assert (Path(_program_folder()) / "motion" / "__main__.py").is_file()
