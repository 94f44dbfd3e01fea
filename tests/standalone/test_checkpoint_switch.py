"""Jobs that ask for another checkpoint than the chosen one, with real files."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from motion.models.precision import choose_precision
from motion.standalone import devices, infotext, namespace, script_base, shared
from tests import random_weights
from tests.standalone.tiny_host import run, runner_of, txt2img


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    torch.set_num_threads(1)
    data = tmp_path_factory.mktemp("data")
    folder = data / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    tensors = random_weights.checkpoint_tensors()
    for name, scale in (("first", 1.0), ("second", -1.0)):
        changed = {"model.diffusion_model.out.2.weight": tensors["model.diffusion_model.out.2.weight"] * scale}
        save_file({**tensors, **changed}, folder / f"{name}.safetensors")
        (folder / f"{name}.yaml").write_text(random_weights.checkpoint_config())
    with namespace.installed(["--data-dir", str(data)]) as state:
        devices.configure(choose_precision("fp32", device="cpu"))
        state.opts.sd_model_checkpoint = "first.safetensors"
        yield state


class Models(script_base.Script):
    """Notes the model of each sampling."""

    def __init__(self):
        self.names = []

    def title(self):
        return "Models"

    def process_before_every_sampling(self, p, *args, **kwargs):
        self.names.append(p.sd_model.sd_checkpoint_info.name_for_extra)


def test_a_jobs_own_checkpoint_lasts_as_long_as_the_job(host):
    spy = Models()
    before = run(txt2img(runner_of(spy)))
    other = run(txt2img(runner_of(spy), override_settings={"sd_model_checkpoint": "second"}))
    after = run(txt2img(runner_of(spy)))
    assert spy.names == ["first", "second", "first"]
    names = [infotext.parse_generation_parameters(result.info)["Model"] for result in (before, other, after)]
    assert names == ["first", "second", "first"]
    assert before.images[0].tobytes() == after.images[0].tobytes() != other.images[0].tobytes()
    assert shared.opts.sd_model_checkpoint.startswith("first.safetensors")


def test_an_unknown_checkpoint_is_the_chosen_one(host):
    spy = Models()
    p = txt2img(runner_of(spy), override_settings={"sd_model_checkpoint": "no such"})
    run(p)
    assert spy.names == ["first"]
    assert p.override_settings == {}


def test_hires_pass_with_its_own_checkpoint(host):
    spy = Models()
    p = txt2img(runner_of(spy), enable_hr=True, hr_scale=1.5, hr_checkpoint_name="second", n_iter=2)
    found = infotext.parse_generation_parameters(run(p).infotexts[0])
    assert spy.names == ["first", "second", "first", "second"]
    assert found["Hires checkpoint"].startswith("second [")
    assert shared.opts.sd_model_checkpoint.startswith("first.safetensors")


def test_clip_skip_changes_the_picture(host):
    plain, skipped = run(txt2img()), run(txt2img(override_settings={"CLIP_stop_at_last_layers": 2}))
    assert plain.images[0].tobytes() != skipped.images[0].tobytes()
