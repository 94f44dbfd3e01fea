"""docs/custom_motion_module.md: its code is run as it stands, from the entry point to a clip."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from motion.checkpoints.library import ModelLibrary
from motion.checkpoints.motion_file import load_motion_model
from motion.checkpoints.registry import known_formats
from motion.injection import injected
from motion.standalone import cli, shared
from tests import custom_package
from tests.host.conftest import UNET
from tests.networks import FRAMES, assert_same_state, inputs, make_unet, state_of


@pytest.fixture
def example(package):
    """What the document's functions are called by."""
    names = {}
    for block in custom_package.code_blocks("python")[1:]:
        exec(compile(block, "docs/custom_motion_module.md", "exec"), names)
    return names


def write_trained(example, path, unet, seed=5):
    """The document's file with every zero filled, as training would; numbers of a layer's usual size."""
    example["write_new_file"](path, unet)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, value in load_file(path).items():
        tensors[key] = torch.randn(value.shape, generator=generator) / value.shape[-1] ** 0.5
    save_file(tensors, path)
    return path


@pytest.fixture
def trained(example, tmp_path):
    (tmp_path / "modules").mkdir()
    return write_trained(example, tmp_path / "modules" / "mine.safetensors", make_unet(config=UNET))


def test_the_protocol_is_checked_by_types(package, tmp_path):
    """The document's package passes strict mypy; a class without what the protocol asks for doesn't."""
    names = "from motion.models.site_module import SiteModule, StepModule\nfrom motion_scale_shift import ScaleShift\n"
    wrong = "class Wrong(ScaleShift):\n    max_length: str  # type: ignore[assignment]\n"
    uses = "def use(right: ScaleShift, wrong: Wrong) -> tuple[StepModule, SiteModule]:\n    return right, wrong\n"
    (package / "uses.py").write_text(names + wrong + uses)
    root = custom_package.DOC_PATH.parents[1]
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "-p", custom_package.NAME, "-m", "uses"]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "MYPYPATH": f"{root}{os.pathsep}{package}"},
        capture_output=True,
        text=True,
    )
    assert "Found 1 error" in done.stdout, done.stdout + done.stderr
    assert "uses.py:6: error: Incompatible return value type" in done.stdout


def test_file_is_listed_and_described(trained, capsys):
    (entry,) = ModelLibrary([trained.parent], formats=known_formats()).entries(("motion_module",))
    found = entry.inspection
    assert (found.title, found.family, found.base, found.usable) == (
        "a scale-and-shift module",
        "scale_shift",
        "sd15",
        True,
    )
    assert (found.family_is_a_guess, found.num_frames_trained, found.max_frames) == (False, 16, 4096)
    assert cli.main(["inspect", str(trained), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["kind"], report["family"], report["max_frames"]) == ("motion_module", "scale_shift", 4096)
    assert report["parameters"] == sum(value.numel() for value in load_file(trained).values())
    assert ModelLibrary([trained.parent]).entries()[0].inspection.usable is False  # without the package


def test_untrained_module_changes_nothing_and_a_trained_one_does(example, tmp_path):
    unet = make_unet(config=UNET)
    path = tmp_path / "new.safetensors"
    example["write_new_file"](path, unet)
    x, t, context = inputs(2 * FRAMES)
    before, plain = state_of(unet), unet(x, t, context)
    assert torch.equal(example["run_once"](path, unet, x, t, context, FRAMES), plain)
    write_trained(example, path, unet)
    changed = example["run_once"](path, unet, x, t, context, FRAMES)
    assert ((changed - plain).abs().amax(dim=(1, 2, 3)) > 1e-3).all()
    assert_same_state(before, state_of(unet))


def test_effect_depends_on_the_timestep(trained):
    """The same features at the same site, in calls that differ in the timestep alone."""
    model, _ = load_motion_model(trained, device=torch.device("cpu"), dtype=None, formats=known_formats())
    site = next(iter(model.site_modules().values()))
    unet, seen = make_unet(config=UNET), []
    handle = site.register_forward_pre_hook(lambda module, args: seen.append(args))
    x, _, context = inputs(FRAMES)
    with torch.no_grad(), injected(unet, model, FRAMES):
        for timestep in (20.0, 900.0, 20.0):
            unet(x, torch.full((FRAMES,), timestep), context)
    handle.remove()
    features = seen[0][0]
    early, late, again = (site(features, FRAMES, 1.0, args[3]) - features for args in seen)
    assert (early - late).abs().max() > 0.05 * early.abs().max()
    assert torch.equal(early, again)


def test_clip_in_a_host(trained, studio):
    from motion.host.module_files import ModelFiles

    still = studio.still()
    shared.cmd_opts.motion_module_dir = str(trained.parent)
    assert "mine.safetensors" in ModelFiles().names("motion_module")
    assert ModelFiles().describe("mine").family == "scale_shift"
    calls = []

    def spy(module, args):
        if type(module).__name__ == "ScaleShift":
            calls.append((args[0].shape, args[3]))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(spy)
    before = state_of(studio.model.model.diffusion_model)
    clip = studio.clip({"motion_module": "mine"}, prompt="a cat", cfg_scale=7, steps=3)
    handle.remove()
    without = studio.clip({"motion_module": "mine", "motion_scale": 0}, prompt="a cat", cfg_scale=7, steps=3)
    assert len(clip.images) == FRAMES
    assert all(a.tobytes() != b.tobytes() for a, b in zip(clip.images, without.images, strict=True))
    for shape, step in calls:
        rows = shape[0]
        assert rows % FRAMES == 0
        assert step.timestep.shape == (rows,)
        assert step.time_embedding.shape == (rows, 4 * UNET.model_channels)
        assert step.context.shape[::2] == (rows, UNET.context_dim)
    times = list(dict.fromkeys(step.timestep[0].item() for _, step in calls))
    assert len(times) == 3
    assert times == sorted(times, reverse=True)
    assert_same_state(before, state_of(studio.model.model.diffusion_model))
    assert studio.still() == still
