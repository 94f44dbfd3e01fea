"""A render that was killed goes on to the same bytes; one that asks for anything else begins anew."""

import json
import signal
import subprocess
import sys

import pytest

from motion.errors import SettingsError
from motion.standalone import Pipeline
from tests.demo_host import made_files


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return made_files(tmp_path_factory)


def settings(sampler="Euler a", scope="attention", **fields):
    motion = {"num_frames": 4, "formats": ["PNG"], "context_length": 3, "window_scope": scope, "resume": True}
    shown = {"prompt": "a lighthouse", "steps": 4, "sampler": sampler, "width": 64, "height": 64, "seed": 5}
    return {**shown, **fields, "motion": {**motion, **fields.get("motion", {})}}


def killed(demo, out, fields, steps):
    folder, checkpoint, module = map(str, demo)
    asked = {"folder": folder, "checkpoint": checkpoint, "module": module, "out": str(out), "fields": fields}
    command = [sys.executable, "-m", "tests.standalone.killed_render", json.dumps({**asked, "steps": steps})]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr


def calls_of(out):
    return sorted(path.name for path in out.glob("unfinished-*/call_*.safetensors"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.parametrize("scope", ["attention", "unet"])
@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M"])
def test_a_killed_render_goes_on_to_the_same_bytes(demo, tmp_path, sampler, scope):
    fields, out = settings(sampler, scope), tmp_path / "out"
    killed(demo, out, fields, steps=2)
    assert len(calls_of(out)) == 2
    folder, checkpoint, module = demo
    with Pipeline.from_files(checkpoint, motion_module=module, precision="fp32", data_dir=folder) as pipeline:
        resumed = pipeline(fields, output_dir=out)
        whole = pipeline(settings(sampler, scope, motion={"resume": False}), output_dir=tmp_path / "whole")
    assert any("resumed from" in note for note in resumed.notes)
    assert (resumed.frames == whole.frames).all()
    assert not list(out.glob("unfinished-*"))
    frames = [sorted(clip.files[0].glob("*.png")) for clip in (resumed, whole)]
    assert [path.read_bytes() for path in frames[0]] == [path.read_bytes() for path in frames[1]]


@pytest.fixture(scope="module")
def pipeline(demo):
    folder, checkpoint, module = demo
    with Pipeline.from_files(checkpoint, motion_module=module, precision="fp32", data_dir=folder) as pipeline:
        yield pipeline


class Stop(Exception):
    """In mid-render."""


def stop_after(steps):
    def on_step(done, total, latents):
        if done == steps:
            raise Stop

    return on_step


@pytest.mark.parametrize(
    "other",
    [{"seed": 6}, {"prompt": "a ship"}, {"steps": 5}, {"cfg_scale": 5.0}, {"motion": {"motion_scale": 0.5}}],
    ids=str,
)
def test_another_request_begins_anew_and_says_so(pipeline, tmp_path, other):
    with pytest.raises(Stop):
        pipeline(settings(), output_dir=tmp_path, on_step=stop_after(2))
    assert len(calls_of(tmp_path)) == 2
    begun = pipeline(settings(**other), output_dir=tmp_path)
    assert any("begun anew, since the 1 unfinished run(s)" in note for note in begun.notes)
    assert len(calls_of(tmp_path)) == 2  # still there for the request that they belong to
    resumed = pipeline(settings(), output_dir=tmp_path)
    assert any("resumed from" in note for note in resumed.notes)
    assert not calls_of(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"sampler": "DDIM"},
        {"sampler": "LCM"},
        {"hires_scale": 1.5, "hires_steps": 2, "denoising_strength": 0.9},
        {"motion": {"freeinit_iterations": 2}},
        {"prompt": "a cat AND a dog", "negative_prompt": "fog " * 100},
    ],
    ids=str,
)
def test_whatever_runs_the_unet_is_resumed(pipeline, tmp_path, fields):
    whole = pipeline(settings(**fields), output_dir=tmp_path)
    last = 5 if "hires_scale" in fields else 3
    with pytest.raises(Stop):
        pipeline(settings(**fields), output_dir=tmp_path, on_step=stop_after(last))
    assert calls_of(tmp_path)
    resumed = pipeline(settings(**fields), output_dir=tmp_path)
    assert any("resumed from" in note for note in resumed.notes)
    assert (resumed.frames == whole.frames).all()


def test_without_the_field_nothing_is_recorded(pipeline, tmp_path):
    with pytest.raises(Stop):
        pipeline(settings(motion={"resume": False}), output_dir=tmp_path, on_step=stop_after(2))
    assert not list(tmp_path.glob("unfinished-*"))


def test_a_clip_in_memory_can_t_be_resumed(pipeline):
    with pytest.raises(SettingsError, match="`resume` needs an `output_dir`"):
        pipeline(settings())
