"""The loaded checkpoint, with a real file of small width."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from motion.errors import CheckpointError
from motion.models.precision import choose_precision
from motion.standalone import devices, namespace, script_callbacks, sd_models, shared
from motion.standalone.checkpoint_info import CheckpointInfo
from motion.standalone.samplers.common import images_tensor_to_samples, single_sample_to_image
from tests import random_weights


@pytest.fixture(scope="module")
def loaded_host(tmp_path_factory):
    """A host with two copies of one checkpoint, and the models that its extensions were told of."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    tensors = random_weights.checkpoint_tensors()
    for name in ("first", "second"):
        save_file(tensors, folder / f"{name}.safetensors")
        (folder / f"{name}.yaml").write_text(random_weights.checkpoint_config())
    with namespace.installed(["--data-dir", str(data)]) as state:
        devices.configure(choose_precision("fp32", device="cpu"))
        told = []
        script_callbacks.on_model_loaded(told.append)
        yield state, told


@pytest.fixture
def host(loaded_host):
    """The host with its options as they began."""
    state, _ = loaded_host
    before = dict(state.opts.data)
    yield state
    state.opts.data.clear()
    state.opts.data.update(before)


@pytest.fixture
def model(host):
    return shared.sd_model


def test_model_has_the_web_ui_s_attributes(loaded_host, model):
    host, told = loaded_host
    assert told[-1] is model
    assert shared.sd_model is model
    assert model.sd_checkpoint_info is sd_models.select_checkpoint()
    assert model.sd_model_hash == model.sd_checkpoint_info.shorthash
    assert host.opts.sd_model_checkpoint == model.sd_checkpoint_info.title
    assert host.opts.sd_checkpoint_hash == model.sd_checkpoint_info.sha256
    assert model.model.conditioning_key == "crossattn"
    assert (model.parameterization, model.cond_stage_key, model.is_sd1, model.is_sdxl) == ("eps", "txt", True, False)
    assert model.cond_stage_model_empty_prompt.shape == (1, 77, 64)
    assert torch.equal(model.alphas_cumprod, model.alphas_cumprod_original)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_apply_model_takes_conds_in_every_form(model):
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 500.5])
    tokens = model.get_learned_conditioning(["a", "b"])
    expected = model.apply_model(x, t, {"c_crossattn": [tokens], "c_concat": [torch.zeros(2, 5, 1, 1)]})
    assert expected.shape == x.shape
    assert torch.equal(model.apply_model(x, t, tokens), expected)
    assert torch.equal(model.apply_model(x, t, [tokens]), expected)
    halves = model.apply_model(x, t, {"c_crossattn": list(tokens.split([40, 37], dim=1))})
    assert torch.equal(halves, expected)


def test_options_reach_the_text_encoder(host, model):
    plain = model.get_learned_conditioning(["a (b:1.5)"])
    host.opts.data["CLIP_stop_at_last_layers"] = 2
    skipped = model.get_learned_conditioning(["a (b:1.5)"])
    host.opts.data.update(CLIP_stop_at_last_layers=1, emphasis="Ignore")
    ignored = model.get_learned_conditioning(["a (b:1.5)"])
    assert not torch.equal(plain, skipped)
    assert torch.equal(ignored, model.get_learned_conditioning(["a b"]))


def test_pictures_to_latents_and_back(model):
    pictures = torch.rand(2, 3, 32, 32)
    torch.manual_seed(3)
    latents = images_tensor_to_samples(pictures)
    assert latents.shape == (2, 4, 4, 4)
    torch.manual_seed(3)
    noise = torch.randn(1, 4, 4, 4)
    posterior = model.encode_first_stage(pictures[:1] * 2 - 1)
    expected = 0.18215 * (posterior.mean + posterior.std * noise)
    torch.testing.assert_close(latents[:1], expected)
    decoded = model.decode_first_stage(latents)
    assert decoded.shape == (2, 3, 32, 32)
    image = single_sample_to_image(latents[0])
    assert (image.size, image.mode) == ((32, 32), "RGB")


def test_unusable_file_leaves_the_loaded_model(model, tmp_path):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"<html>not found</html>")
    with pytest.raises(CheckpointError, match="damaged"):
        sd_models.load_model(CheckpointInfo(damaged))
    assert shared.sd_model is model


def test_schedule_follows_the_options(host, model):
    host.opts.data["sd_noise_schedule"] = "Zero Terminal SNR"
    sd_models.apply_alpha_schedule_override(model)
    assert model.alphas_cumprod[-1].item() == pytest.approx(4.8973e-08, rel=1e-4)
    assert model.alphas_cumprod[0].item() == pytest.approx(model.alphas_cumprod_original[0].item())
    assert (model.alphas_cumprod.diff() < 0).all()
    host.opts.data.update(sd_noise_schedule="Default", use_downcasted_alpha_bar=True)
    sd_models.apply_alpha_schedule_override(model)
    assert model.alphas_cumprod.dtype == torch.float16
    host.opts.data["use_downcasted_alpha_bar"] = False
    sd_models.apply_alpha_schedule_override(model)
    assert torch.equal(model.alphas_cumprod, model.alphas_cumprod_original)


def test_switching_checkpoints(loaded_host, host, model):
    _, told = loaded_host
    chosen = host.opts.sd_model_checkpoint
    assert sd_models.reload_model_weights() is model
    other = next(info for info in sd_models.checkpoints_list.values() if info is not model.sd_checkpoint_info)
    with sd_models.SkipWritingToConfig():
        switched = sd_models.reload_model_weights(info=other)
    assert switched is not model
    assert shared.sd_model is told[-1] is switched
    assert switched.sd_model_checkpoint == other.filename
    assert host.opts.sd_model_checkpoint == chosen
    sd_models.reload_model_weights(info=other, forced_reload=True)
    assert host.opts.sd_model_checkpoint == other.title


def test_bf16_stays_close_to_fp32(model):
    x, t = torch.randn(1, 4, 8, 8), torch.tensor([500.0])

    def predict():
        with torch.no_grad(), devices.autocast():
            return shared.sd_model.apply_model(x, t, shared.sd_model.get_learned_conditioning(["a fox"]))

    full = predict()
    devices.configure(choose_precision("bf16", device="cpu"))
    try:
        sd_models.reload_model_weights(forced_reload=True)
        half = predict()
        assert shared.sd_model.dtype == torch.bfloat16
        assert shared.sd_model.first_stage_model.dtype == torch.float32
        assert shared.sd_model.alphas_cumprod.dtype == torch.float32
    finally:
        devices.configure(choose_precision("fp32", device="cpu"))
        sd_models.unload_model_weights()
    assert half.dtype == torch.float32
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()
