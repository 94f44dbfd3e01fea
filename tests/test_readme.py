"""What README.md says about the settings is what the settings are."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from motion.checkpoints.motion_families import MOTION_FAMILIES
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig, UNetModel
from motion.settings import MotionSettings, field_specs
from motion.standalone import cli
from motion.standalone.api_requests import Txt2ImgRequest
from tests.demo_host import made_files
from tests.networks import randomise
from tests.svd_networks import write_small_file

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def test_settings_table_is_the_field_table():
    rows = [
        [cell.strip() for cell in row.split("|")] for row in re.findall(r"^\| (`\w+` \|.*) \|$", README, re.MULTILINE)
    ]
    assert [row[0].strip("`") for row in rows] == list(field_specs())
    for name, label, default, allowed, _ in rows:
        spec = field_specs()[name.strip("`")]
        assert label == spec.label
        assert MotionSettings.from_mapping({name.strip("`"): default}) == MotionSettings()
        if spec.maximum is not None:
            assert allowed == f"{spec.minimum:g} to {spec.maximum:.10g}"
        elif spec.choices:
            assert allowed == ", ".join(spec.choices)


def test_every_family_has_a_row_with_its_page():
    rows = re.findall(
        r"^\| ([\w -]+) \|.*\| (SD1\.5|SDXL) \| .* \| (huggingface\.co/\S+/\S+) \|$", README, re.MULTILINE
    )
    bases = {name: base for name, base, _ in rows}
    for family in MOTION_FAMILIES.values():
        name, _, base = family.title.partition(" (")
        assert bases[name] == base.rstrip(")")


def blocks(kind):
    """Contents of the fenced blocks of one kind; all are read, as a closing fence looks like an opening one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [content for name, content in found if name == kind]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_example_makes_a_clip(here, tmp_path_factory):
    _, checkpoint, motion_module = made_files(tmp_path_factory)
    shutil.copy(checkpoint, "my_checkpoint.safetensors")
    shutil.copy(checkpoint.with_suffix(".yaml"), "my_checkpoint.yaml")
    torch.save(load_file(motion_module), "mm_sd_v15_v2.ckpt")
    whole, small = '"num_frames": 16}', '"num_frames": 2}, steps=1, width=64, height=64'
    (code,) = (block for block in blocks("python") if "Pipeline.from_files" in block)
    assert whole in code
    exec(compile(code.replace(whole, small), "README.md", "exec"), {})
    assert (here / "boat.mp4").read_bytes()[4:8] == b"ftyp"


def test_python_example_animates_a_picture(here):
    write_small_file(here / "svd_xt.safetensors")
    Image.new("RGB", (64, 64), "navy").save("boat.png")
    whole, small = "width=1024, height=576", "width=64, height=64, num_inference_steps=1"
    (code,) = (block for block in blocks("python") if "SvdPipeline" in block)
    assert whole in code
    exec(compile(code.replace(whole, small), "README.md", "exec"), {})
    assert (here / "clips" / "boat.mp4").read_bytes()[4:8] == b"ftyp"


def test_command_animates_a_picture(here):
    write_small_file(here / "svd_xt.safetensors")
    Image.new("RGB", (64, 64), "navy").save("boat.png")
    small = ["--width", "64", "--height", "64", "--frames", "2", "--steps", "1"]
    lines = "".join(blocks("")).replace("\\\n", " ").splitlines()
    (command,) = (line.partition("-m motion ")[2] for line in lines if "-m motion svd" in line)
    assert cli.main([*shlex.split(command), *small]) == 0
    assert sorted(path.suffix for path in (here / "clips").iterdir()) == [".gif", ".mp4"]


def test_python_example_with_a_unet_of_ones_own(here):
    model = MotionModel(MotionModuleConfig((32,) * 4, (32,) * 4, 32, 32))
    torch.save(randomise(model, seed=1).state_dict(), "mm_sd_v15_v2.ckpt")
    config = UNetConfig(
        model_channels=32, channel_mult=(1, 1, 1, 1), transformer_depth=(1, 1, 1, 0), num_heads=2, context_dim=16
    )
    given = {
        "unet": randomise(UNetModel(config), seed=2),
        "x": torch.ones(16, 4, 8, 8),
        "timesteps": torch.full((16,), 7.0),
        "context": torch.ones(16, 5, 16),
    }
    (code,) = (block for block in blocks("python") if "injected" in block)
    exec(compile(code, "README.md", "exec"), given)
    assert given["noise"].shape == (16, 4, 8, 8)
    assert given["family"].id == "sd15_v2"


def test_body_of_the_api_example_is_a_request():
    (body,) = (match for block in blocks("") for match in re.findall(r"-d '(.*?)'", block, re.DOTALL))
    request = Txt2ImgRequest.model_validate_json(body)
    (fields,) = request.alwayson_scripts["Motion"]["args"]
    assert MotionSettings.from_mapping(fields).enabled


def test_commands_have_these_flags():
    lines = "".join(blocks("")).replace("\\\n", " ").splitlines()
    commands = [line.partition("-m motion ")[2] for line in lines if "-m motion " in line]
    commands += re.findall(r"`[^`\n]*python -m motion ((?:inspect|render|train)[^`]*)`", README)
    found = {cli.build_parser().parse_args(shlex.split(line)).command for line in commands if "--help" not in line}
    assert found == {"render", "serve", "svd", "train", "inspect"}
