"""A checkpoint from nothing: its files in the embedded host, and its keys beside the published ones."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from motion.checkpoints.stable_diffusion import inspect_checkpoint
from motion.checkpoints.stable_diffusion_writing import checkpoint_tensors, checkpoint_yaml
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL
from motion.models.clip_text import ClipTextEncoder, ClipTextEncoderConfig
from motion.models.precision import choose_precision
from motion.models.unet import UNetConfig, UNetModel
from motion.standalone import devices, namespace, sd_models
from motion.standalone.checkpoint_info import CheckpointInfo
from motion.training.autoencoder_task import SCALE_FACTOR
from motion.training.denoising import DenoisingSettings, DenoisingTask
from motion.training.gradient_checks import TrainingError
from motion.training.image_stage import ImageModel
from motion.training.preview import Preview
from motion.training.randomness import StepRandom
from motion.training.run_folder import RunFolder
from motion.training.shapes_recipe import IMAGE_SCHEDULE
from motion.training.text_stage import new_encoder
from tests.manifests import manifest_shapes
from tests.networks import randomise
from tests.text_folders import WORDS, own_text_config
from tests.training.tiny_tasks import CAPTIONS, make_bank

UNET = UNetConfig(model_channels=32, channel_mult=(1, 1, 1, 1), num_res_blocks=1, num_heads=2, context_dim=64)
AUTOENCODER = AutoencoderConfig(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1)
PREVIEW = Preview(CAPTIONS[:2], 1, (8, 8), IMAGE_SCHEDULE, steps=2)


def make_autoencoder():
    return randomise(AutoencoderKL(AUTOENCODER), 4)


def make_model(seed=0):
    return ImageModel(UNET, new_encoder(own_text_config(), seed), make_autoencoder(), WORDS, seed)


def make_half_exact(*networks):
    """Random weights that fp16 holds exactly, so that a file's rounding makes no difference."""
    for seed, network in enumerate(networks):
        randomise(network, seed + 20)
        for parameter in network.parameters():
            parameter.data = parameter.data.half().float()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A trained model, and the data folder of a host that has its files."""
    data = tmp_path_factory.mktemp("data")
    folder = RunFolder(data / "models" / "Stable-diffusion")
    model = make_model()
    make_half_exact(model.unet, model.autoencoder, model.text.encoder)
    paths = model.stage("small", PREVIEW).export(folder)
    return model, data, paths


@pytest.fixture
def loaded(exported):
    model, data, (path, _, _) = exported
    with namespace.installed(["--data-dir", str(data)]):
        devices.configure(choose_precision("fp32", device="cpu"))
        yield model, sd_models.load_model(CheckpointInfo(path, str(path.parent)))


def test_files_are_those_that_web_uis_want(exported):
    _, _, (path, config, text) = exported
    assert [p.name for p in (path, config, text)] == ["small.safetensors", "small.yaml", "small-text"]
    assert sorted(p.name for p in text.iterdir()) == ["config.json", "merges.txt", "vocab.json"]
    assert sorted(p.name for p in path.parent.iterdir()) == ["small-text", "small.safetensors", "small.yaml"]
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    params = yaml.safe_load(config.read_text())["model"]["params"]
    assert params["scale_factor"] == SCALE_FACTOR
    assert params["cond_stage_config"]["params"]["version"] == "TEXT_ENCODER_FOLDER"
    assert params["unet_config"]["params"]["attention_resolutions"] == [1, 2, 4]
    assert json.loads((text / "config.json").read_text())["hidden_size"] == 64


def test_shapes_are_read_back(exported):
    model, _, (path, _, _) = exported
    config = inspect_checkpoint(path)
    assert config.unet == UNET
    assert config.autoencoder == AUTOENCODER
    assert config.text_encoder == model.text.encoder.config


@torch.no_grad()
def test_host_predicts_what_was_trained(loaded):
    model, host = loaded
    contexts = host.get_learned_conditioning(list(CAPTIONS))
    torch.testing.assert_close(contexts, model.text.contexts(CAPTIONS), rtol=1e-5, atol=1e-5)
    x = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    timesteps = torch.tensor([10, 500, 990])
    condition = {"c_crossattn": [contexts], "c_concat": []}
    expected = model.unet(x, timesteps, model.text.contexts(CAPTIONS))
    assert expected.std() > 0.01
    torch.testing.assert_close(host.apply_model(x, timesteps, condition), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_host_decodes_what_was_trained(loaded):
    model, host = loaded
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    expected = model.autoencoder.decode(latents / SCALE_FACTOR)
    torch.testing.assert_close(host.decode_first_stage(latents), expected, rtol=1e-4, atol=1e-4)


def test_keys_are_those_of_stable_diffusion():
    """With its depth at a tenth of its width; what only training wants, and buffers that loaders make, is left out."""
    published = manifest_shapes("v1-5-pruned-emaonly")
    parts = ("model.diffusion_model.", "first_stage_model.", "cond_stage_model.")
    wanted = {key for key in published if key.startswith(parts) and "position_ids" not in key and ".loss." not in key}
    tensors = checkpoint_tensors(
        UNetModel(UNetConfig(model_channels=32, context_dim=64)),
        AutoencoderKL(AutoencoderConfig(ch=32)),
        ClipTextEncoder(ClipTextEncoderConfig(hidden_size=64, num_layers=12, num_heads=1, intermediate_size=128)),
    )
    assert tensors.keys() == wanted
    assert [key for key in wanted if tensors[key].dim() != len(published[key])] == []


def test_yaml_says_the_published_shape_for_stable_diffusion():
    params = yaml.safe_load(checkpoint_yaml(UNetConfig(), AutoencoderConfig(), "openai/clip"))["model"]["params"]
    unet, vae = params["unet_config"]["params"], params["first_stage_config"]["params"]
    assert unet["attention_resolutions"] == [1, 2, 4]  # v1-inference.yaml has them as 4, 2, 1
    assert (unet["channel_mult"], unet["num_heads"], unet["context_dim"]) == ([1, 2, 4, 4], 8, 768)
    assert (vae["embed_dim"], vae["ddconfig"]["ch_mult"]) == (4, [1, 2, 4, 4])
    assert params["cond_stage_config"]["params"]["version"] == "openai/clip"


def test_first_prediction_is_zero_and_everything_learns():
    model = make_model()
    stage = model.stage("small", PREVIEW)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert not model.unet(x, torch.tensor([1, 900]), model.text.contexts(CAPTIONS[:2])).any()
    bank = make_bank(frames=1)
    task = DenoisingTask(model.unet, model.text, bank, DenoisingSettings(6), stage)
    optimizer = torch.optim.SGD(stage.parameters.values(), lr=0.5)
    for step in range(3):  # each step opens what was behind a zero
        optimizer.zero_grad()
        task.loss(StepRandom.of(0, step)).backward()
        optimizer.step()
    assert [name for name, value in stage.parameters.items() if not value.grad.any()] == []
    assert stage.parameters.keys() == {f"unet.{name}" for name, _ in model.unet.named_parameters()}
    assert [name for name, value in model.text.encoder.named_parameters() if value.grad is not None] == []


def test_first_weights_depend_on_the_seed_and_leave_the_global_one():
    autoencoder = make_autoencoder()
    before = torch.random.get_rng_state()
    models = [ImageModel(UNET, new_encoder(own_text_config(), 0), autoencoder, WORDS, seed) for seed in (1, 1, 2)]
    first, again, other = (model.unet.state_dict() for model in models)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_sheet_shows_one_still_for_each_caption(exported):
    model, _, _ = exported
    sheet = model.stage("small", PREVIEW).sheet()
    assert sheet.width >= 2 * 64
    assert len(sheet.getcolors(100_000)) > 20


def test_text_folder_that_cannot_be_written_is_one_message(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / "small-text").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match=r"small-text must be written to .*run the same command again"):
        make_model().stage("small", PREVIEW).export(folder)
