"""The extension's script in the embedded host, with a tiny checkpoint and motion modules that fit it."""

import pytest
import torch
from safetensors.torch import save_file

from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.models.unet import UNetConfig
from motion.standalone import namespace, shared
from tests import custom_package
from tests.networks import randomise
from tests.standalone import tiny_host

FRAMES = 4
UNET = UNetConfig(
    model_channels=32, channel_mult=(1, 1, 1, 1), transformer_depth=(1, 1, 1, 0), num_heads=2, context_dim=16
)
MODULES = {"v1": (None, 24), "v2": (32, 32), "v3": (None, 32)}


@pytest.fixture
def web_ui(tmp_path):
    """The web UI's modules, which motion.host imports."""
    with namespace.installed(["--data-dir", str(tmp_path)]) as state:
        yield state


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A folder on the import path with the documented custom module's package in it."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    custom_package.install_documented(folder)
    yield folder
    custom_package.forget(custom_package.NAME)


class Studio:
    """Runs jobs with the Motion script, as the API does."""

    def __init__(self, model, folder):
        from motion.host.script import MotionScript

        self.model, self.folder = model, folder
        self.script = MotionScript()

    def still(self, make=tiny_host.txt2img, **fields):
        """The pixels of a plain picture."""
        return [image.tobytes() for image in tiny_host.run(make(**fields)).images]

    def clip(self, motion=None, make=tiny_host.txt2img, neighbours=(), **fields):
        """A finished request for a clip."""
        return tiny_host.run(self.job(motion, make, neighbours, **fields))

    def job(self, motion=None, make=tiny_host.txt2img, neighbours=(), **fields):
        p = make(tiny_host.runner_of(self.script, *neighbours), **fields)
        p.is_api = True
        p.script_args[1] = {
            "enabled": True,
            "motion_module": "v2",
            "num_frames": FRAMES,
            "formats": ["PNG"],
            **(motion or {}),
        }
        return p


@pytest.fixture(scope="session")
def module_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion_modules")
    for name, (mid, length) in MODULES.items():
        model = MotionModel(MotionModuleConfig((32,) * 4, (32,) * 4, mid, length))
        save_file(randomise(model, seed=len(name) + length).state_dict(), folder / f"{name}.safetensors")
    (folder / "text.safetensors").write_text("<!DOCTYPE html><html>not a model</html>")
    wide = MotionModel(MotionModuleConfig((64,) * 4, (64,) * 4, None, 32))
    save_file(wide.state_dict(), folder / "wide.safetensors")
    _write_loras(folder)
    return folder


def _write_loras(folder):
    generator = torch.Generator().manual_seed(9)

    def write(name, layers):
        state = {}
        for layer, (out_width, in_width) in layers.items():
            state[f"{layer}.down.weight"] = torch.randn(4, in_width, generator=generator)
            state[f"{layer}.up.weight"] = torch.randn(out_width, 4, generator=generator)
        save_file(state, folder / f"{name}.safetensors")

    motion = "down_blocks.0.motion_modules.{}.temporal_transformer.transformer_blocks.0.attention_blocks.0.processor."
    write("pan", {motion.format(place) + "to_v_lora": (32, 32) for place in (0, 1)})
    write("zoom", {motion.format(0) + "to_out_lora": (32, 32)})
    spatial = "down_blocks.0.attentions.0.transformer_blocks.0.attn{}.processor.to_v_lora"
    write("adapter", {spatial.format(1): (32, 32), spatial.format(2): (32, 16)})
    write("ordinary", {"lora_unet_down_blocks_0_attentions_0_proj_in.lora": (32, 32)})


@pytest.fixture(scope="session")
def sd_model():
    """One model for all tests: none of them may leave a trace in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_host, "UNET", UNET)
        return tiny_host.make_model()


@pytest.fixture
def studio(tmp_path, monkeypatch, module_folder, sd_model):
    monkeypatch.setattr(tiny_host, "make_model", lambda: sd_model)
    with tiny_host.running_host(tmp_path / "host") as model:
        shared.cmd_opts.motion_module_dir = str(module_folder)
        from motion.host import register

        register()
        yield Studio(model, tmp_path)
